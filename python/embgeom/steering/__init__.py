"""Steering vectors: made, kept, applied."""

from embgeom.steering.language_model import LanguageModel, load_language_model
from embgeom.steering.vector import SteeringVector

__all__ = ["LanguageModel", "SteeringVector", "load_language_model"]
