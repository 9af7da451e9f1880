"""Steering vectors: made, kept, applied."""

from embgeom.lm.language_model import LanguageModel, load_language_model
from embgeom.lm.projection import fold_projection
from embgeom.steering.vector import SteeringVector

__all__ = ["LanguageModel", "SteeringVector", "fold_projection", "load_language_model"]
