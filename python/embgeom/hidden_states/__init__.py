"""How far the alignment of two models' embeddings persists through their layers."""

from embgeom.hidden_states.compare import compare_states
from embgeom.hidden_states.comparison import StateComparison, StateMeasure
from embgeom.lm.layers import matching_layer

__all__ = ["StateComparison", "StateMeasure", "compare_states", "matching_layer"]
