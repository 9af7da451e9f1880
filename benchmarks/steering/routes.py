"""The routes from one model to another: maps of weights or of hidden states, and what is made of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

import embgeom
from benchmarks.steering.side import Side
from embgeom import Emb2Emb, SteeringVector
from embgeom.comparison import shared_rows
from embgeom.emb2emb import LowRank
from embgeom.emb2emb.forecast import LogitLens
from embgeom.emb2emb.methods import as_method


class Route(NamedTuple):
    """What a map is fitted on and how, how it is read, and where the vector is read in texts."""

    of: str
    method: str
    mode: str
    token_position: Literal["last", "mean"] = "last"

    @property
    def name(self) -> str:
        parts = self.of, self.method, self.mode, "of means" * (self.token_position == "mean")
        return " ".join(filter(None, parts))


# Without those that are equal by construction: "logits" asks nothing of a method, the two modes of Procrustes
# differ by a factor alone, and LLE has no dual. A low-rank map keeps so many percent of the fitted variance.
ROUTES = (
    Route("", "least_squares", "primal"),
    Route("", "least_squares", "dual"),
    Route("", "ridge", "primal"),
    Route("", "ridge", "dual"),
    Route("", "ridge", "logits"),
    Route("", "procrustes", "primal"),
    Route("", "low_rank 80", "primal"),
    Route("", "low_rank 80", "dual"),
    Route("", "low_rank 95", "primal"),
    Route("", "low_rank 95", "dual"),
    Route("", "lle", "primal"),
    Route("states", "ridge", "primal"),
    Route("", "ridge", "logits", "mean"),
    Route("", "low_rank 80", "dual", "mean"),
    Route("states", "ridge", "primal", "mean"),
)
CONTROL = Route("", "low_rank 80", "dual")
"""The route of which the negation and the shuffled maps are tried: the default ones, at a lower rank."""


@dataclass(frozen=True)
class Direction:
    """From one model to another, and texts that both read for maps of hidden states."""

    source: Side
    target: Side
    texts: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.source.name} -> {self.target.name}"

    @cached_property
    def shared(self) -> Any:
        """The rows of the shared tokens that maps of weights are fitted on, of either model."""
        return shared_rows(self.source.unembedding, self.target.unembedding)

    @cache  # noqa: B019
    def lens(self, seed: int) -> LogitLens:
        """Return what predicts a transfer by the tokens that maps of this seed have held out."""
        mapping = self._of_weights("ridge", seed, False)
        both = self.source.unembedding, self.target.unembedding
        return LogitLens.prepare(*both, mapping, tokens=self.shared, seed=seed)

    @property
    def routes(self) -> list[Route]:
        return [route for route in ROUTES if self.texts or not route.of]

    def source_layer(self, layer: int) -> int:
        return embgeom.matching_layer(layer, self.target.depth, self.source.depth)

    def transfer(
        self, route: Route, attribute: str, layer: int, seed: int, shuffle: int | None = None
    ) -> SteeringVector:
        """Transfer a vector from the same relative depth to a layer of the target, at the default length.

        By a map of shuffled tokens if `shuffle` is its seed.
        """
        vector = self.source.vector(attribute, seed, route.token_position)
        mapping = self.map(route, layer, seed) if shuffle is None else self.shuffled_map(route, shuffle)
        alone = vector.select_layers([self.source_layer(layer)])
        return mapping.transfer(alone, mode=route.mode, layers=layer, state_spread=self.target.state_spread)

    def map(self, route: Route, layer: int, seed: int) -> Emb2Emb:
        return (
            self._of_states(route.method, layer) if route.of else self._of_weights(route.method, seed, False)
        )

    def shuffled_map(self, route: Route, seed: int) -> Emb2Emb:
        return self._of_weights(route.method, seed, True)

    @cache  # noqa: B019
    def _of_weights(self, method: str, seed: int, shuffle: bool) -> Emb2Emb:
        both = self.source.unembedding, self.target.unembedding
        name, _, percent = method.partition(" ")
        chosen = LowRank(rank=self._rank(int(percent))) if percent else as_method(name)
        return Emb2Emb.fit(*both, method=chosen, tokens=self.shared, seed=seed, shuffle=shuffle)

    def _rank(self, percent: int) -> int:
        """Return how many directions keep a percentage of the variance that a ridge map fits."""
        rows = self.source.unembedding.matrix[self.shared[0]].astype(np.float64)
        fitted = (rows - rows.mean(axis=0)) @ self._of_weights("ridge", 0, False).matrix
        values = np.linalg.eigvalsh(fitted.T @ fitted)[::-1]
        return 1 + int(np.searchsorted(np.cumsum(values), percent / 100 * values.sum()))

    @cache  # noqa: B019
    def _of_states(self, method: str, layer: int) -> Emb2Emb:
        models = (*self.source.language_model, *self.target.language_model)
        pair = (self.source_layer(layer), layer)
        return Emb2Emb.fit_states(*models, self.texts, pair, method=method, batch_size=16)


def plain_texts(files: Sequence[str], count: int) -> tuple[str, ...]:
    """Return so many paragraphs of 100 to 250 characters, equally many of each file, evenly spaced."""
    texts: list[str] = []
    for file in files:
        pieces = Path(file).read_text(encoding="utf-8").split("\n\n")
        paragraphs = [" ".join(piece.split()) for piece in pieces]
        usable = [text for text in paragraphs if 100 <= len(text) <= 250]
        chosen = np.linspace(0, len(usable) - 1, count // len(files)).astype(int)
        texts += [usable[i] for i in chosen]
    return tuple(texts)
