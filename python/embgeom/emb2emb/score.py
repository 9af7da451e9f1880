"""How well a map predicts the rows of tokens that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embgeom._common.arrays import Float64Matrix
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table
from embgeom.emb2emb.rows import PreparedRows
from embgeom.errors import InputError
from embgeom.geometry.knn import knn

MOST_SCORED = 4096
MOST_CANDIDATES = 16384
NEAREST = 10
COLUMNS = ("R2", "cosine", "retrieval@1", "@10")

Predict = Callable[[Float64Matrix], Float64Matrix]


@dataclass(frozen=True)
class Scores(Result):
    """What a map achieves on held-out tokens.

    All of it is measured on deviations from one vector, the mean target row of the tokens fitted on:
    embeddings share a large mean, by which all of them lie close to each other.

    Attributes
    ----------
    tokens : int
        How many tokens were scored: those held out, or of more than 4,096 so many, drawn by the seed.
    r2 : float
        1 - squared error / squared deviation: 1 for a perfect fit, 0 for predicting the mean, negative for a
        map that misleads. NaN where no true row deviates.
    cosine : float
        Mean cosine of predicted and true deviations.
    retrieval_at_1, retrieval_at_10 : float
        The share of tokens whose true row is the nearest, or among the ten nearest, to the predicted one by
        cosine of the deviations.
    candidates : int
        Among how many rows: the scored tokens' and those of tokens fitted on, at most 16,384.
    """

    tokens: int
    r2: float
    cosine: float
    retrieval_at_1: float
    retrieval_at_10: float
    candidates: int

    def __post_init__(self) -> None:
        # Beyond this bound nothing is counted, and a number may be too large for a float.
        if not all(abs(value) <= 2**53 for value in vars(self).values() if value == value):  # noqa: PLR0124
            raise InputError(f"{self!r:.200} holds a number that is not a score")

    def cells(self) -> tuple[str, ...]:
        """Return what tables show under `COLUMNS`."""
        return tuple(
            f"{value:.3f}" for value in (self.r2, self.cosine, self.retrieval_at_1, self.retrieval_at_10)
        )

    def tables(self) -> list[Block]:
        """Return the scores as one row."""
        return [Table(f"{self.tokens} tokens among {self.candidates} rows", COLUMNS, [self.cells()])]


def score(
    predict: Predict,
    source: PreparedRows,
    target: PreparedRows,
    others: PreparedRows,
    mean: Float64Matrix,
    *,
    threads: int,
) -> Scores:
    """Score predicted target rows, minus a mean, among the true ones and those of other tokens."""
    everything = slice(0, len(target))
    predicted = predict(source.take(everything)) - mean
    true = target.take(everything) - mean
    around, error = np.square(true).sum(), np.square(true - predicted).sum()
    cosine = _mean_cosine(predicted, true)
    # From here on float32 does, and together with the candidates float64 would be the largest part of a fit.
    queries = predicted.astype(np.float32)
    del predicted, true
    candidates = np.empty((len(target) + len(others), len(mean)), dtype=np.float32)
    target.deviations(mean, out=candidates[: len(target)])
    others.deviations(mean, out=candidates[len(target) :])
    nearest = knn(candidates, min(NEAREST, len(candidates)), queries=queries, threads=threads).indices
    hits = nearest == np.arange(len(queries))[:, None]
    return Scores(
        tokens=len(queries),
        r2=float(1 - error / around) if around > 0 else float("nan"),
        cosine=cosine,
        retrieval_at_1=float(hits[:, 0].mean()),
        retrieval_at_10=float(hits.any(axis=1).mean()),
        candidates=len(candidates),
    )


def _mean_cosine(a: Float64Matrix, b: Float64Matrix) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0).mean())
