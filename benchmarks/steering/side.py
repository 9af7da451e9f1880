"""A model of the comparison, with the vectors that were trained in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import embgeom
from benchmarks.steering.attributes import ATTRIBUTES, NEUTRAL
from embgeom import SteeringVector
from embgeom.steering import load_language_model, state_spread

DEPTHS = (0.5, 0.65, 0.8)
"""The shares of a target's layers that have passed where it is steered."""


@dataclass(frozen=True)
class Side:
    """A model by its name; everything is loaded and trained when it is first asked for, and kept."""

    name: str
    folder: str
    dtype: str

    @cached_property
    def language_model(self) -> Any:
        return load_language_model(self.folder, dtype=self.dtype)

    @cached_property
    def unembedding(self) -> embgeom.Embeddings:
        return embgeom.load(self.folder, "output")

    @cached_property
    def depth(self) -> int:
        """How many layers the model has."""
        config = self.language_model.model.config
        return int(config.get_text_config().num_hidden_layers)

    @property
    def layers(self) -> list[int]:
        """The layers at which this model is steered."""
        return sorted({math.ceil(share * self.depth) - 1 for share in DEPTHS})

    @cached_property
    def state_spread(self) -> dict[int, float]:
        return state_spread(*self.language_model, NEUTRAL)

    @cache  # noqa: B019
    def vector(self, attribute: str, seed: int, token_position: Literal["last", "mean"]) -> SteeringVector:
        pairs, _ = ATTRIBUTES[attribute].draw(seed)
        return SteeringVector.train(
            *self.language_model, pairs, token_position=token_position, name=self.name, batch_size=20
        )
