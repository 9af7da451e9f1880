"""How far the alignment of two models' embeddings persists through their blocks."""

from embgeom.hidden_states.compare import compare_states
from embgeom.hidden_states.depth import relative_depth
from embgeom.hidden_states.result import StateComparison, StateMeasure

__all__ = ["StateComparison", "StateMeasure", "compare_states", "relative_depth"]
