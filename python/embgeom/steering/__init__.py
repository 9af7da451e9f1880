"""Steering vectors: made, saved, applied."""

from embgeom.lm.language_model import LanguageModel, load_language_model
from embgeom.lm.layers import fold_projection
from embgeom.lm.states import state_spread
from embgeom.steering.pairs import read_pairs
from embgeom.steering.vector import SteeringVector

__all__ = [
    "LanguageModel",
    "SteeringVector",
    "fold_projection",
    "load_language_model",
    "read_pairs",
    "state_spread",
]
