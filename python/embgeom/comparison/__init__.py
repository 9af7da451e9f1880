"""What the token embeddings of two models share, and what one model's are like."""

from embgeom.comparison.changes import Noise
from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, Statistic
from embgeom.comparison.inspect import Inspection
from embgeom.comparison.neighborhood import TokenNeighborhood, TokenNeighborhoods
from embgeom.comparison.tokens import TokenClasses, classify, kept_rows

__all__ = [
    "CompareOptions",
    "Comparison",
    "Inspection",
    "LocalGeometry",
    "Noise",
    "Statistic",
    "TokenClasses",
    "TokenNeighborhood",
    "TokenNeighborhoods",
    "classify",
    "kept_rows",
]
