"""What the token embeddings of two models share, and what one model's are like."""

from embgeom.comparison.changes import Noise
from embgeom.comparison.comparison import Comparison, LocalGeometry
from embgeom.comparison.inspect import Inspection
from embgeom.comparison.neighborhood import TokenNeighborhood, TokenNeighborhoods
from embgeom.comparison.nulls import Baseline, Estimate, Interval
from embgeom.comparison.options import CompareOptions
from embgeom.comparison.statistic import Statistic, TokenGroup
from embgeom.comparison.tokens import TokenClasses, classify, kept_rows, shared_rows

__all__ = [
    "Baseline",
    "CompareOptions",
    "Comparison",
    "Estimate",
    "Inspection",
    "Interval",
    "LocalGeometry",
    "Noise",
    "Statistic",
    "TokenClasses",
    "TokenGroup",
    "TokenNeighborhood",
    "TokenNeighborhoods",
    "classify",
    "kept_rows",
    "shared_rows",
]
