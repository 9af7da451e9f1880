"""What the token embeddings of two models share, and what one model's are like."""

from embgeom.comparison.changes import Noise
from embgeom.comparison.coherence import Coherence, CoherenceStatistic, coherence
from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, MeasureOptions
from embgeom.comparison.inspect import Inspection
from embgeom.comparison.neighborhood import TokenNeighborhood, TokenNeighborhoods
from embgeom.comparison.nulls import Baseline, Estimate, Interval
from embgeom.comparison.statistic import Statistic, TokenGroup
from embgeom.comparison.tokens import TokenClasses, classify, kept_rows, shared_rows
from embgeom.comparison.wordnet import WordNet

__all__ = [
    "Baseline",
    "Coherence",
    "CoherenceStatistic",
    "CompareOptions",
    "Comparison",
    "Estimate",
    "Inspection",
    "Interval",
    "LocalGeometry",
    "MeasureOptions",
    "Noise",
    "Statistic",
    "TokenClasses",
    "TokenGroup",
    "TokenNeighborhood",
    "TokenNeighborhoods",
    "WordNet",
    "classify",
    "coherence",
    "kept_rows",
    "shared_rows",
]
