"""What the token embeddings of two models share, and what one model's are like."""

from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, Statistic
from embgeom.comparison.inspect import Inspection, TokenNeighborhood
from embgeom.comparison.tokens import TokenClasses, classify, kept_rows

__all__ = [
    "CompareOptions",
    "Comparison",
    "Inspection",
    "LocalGeometry",
    "Statistic",
    "TokenClasses",
    "TokenNeighborhood",
    "classify",
    "kept_rows",
]
