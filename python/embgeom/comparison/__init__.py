"""What the token embeddings of two models share, and what one model's are like."""

from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, Statistic
from embgeom.comparison.inspect import Inspection, TokenNeighborhood

__all__ = ["CompareOptions", "Comparison", "Inspection", "LocalGeometry", "Statistic", "TokenNeighborhood"]
