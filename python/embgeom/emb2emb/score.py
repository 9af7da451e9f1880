"""How well a map predicts the rows of tokens that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.emb2emb.rows import PreparedRows
from embgeom.geometry.knn import knn

MOST_SCORED = 4096
MOST_CANDIDATES = 16384
NEAREST = 10

Predict = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Scores:
    """What a map achieves on held-out tokens.

    All of it is measured on deviations from one vector, the mean target row of the tokens fitted on:
    embeddings share a large mean, by which all of them lie close to each other.

    Attributes
    ----------
    tokens : int
        How many tokens were scored: those held out, or of more than 4,096 so many, drawn by the seed.
    r2 : float
        1 - squared error / squared deviation; 0 is what the mean achieves, 1 is perfect, and a map that
        misleads is below 0. NaN where no true row deviates.
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

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; an R2 that is undefined is None."""
        return asdict(self) | {"r2": None if np.isnan(self.r2) else self.r2}

    def line(self) -> str:
        """Return all of it in one line."""
        return (
            f"R2 {self.r2:.3f}, cosine {self.cosine:.3f}, retrieval@1 {self.retrieval_at_1:.3f}, "
            f"@10 {self.retrieval_at_10:.3f} ({self.tokens} tokens among {self.candidates})"
        )


def score(
    predict: Predict,
    source: PreparedRows,
    target: PreparedRows,
    others: PreparedRows,
    mean: npt.NDArray[np.float64],
    *,
    threads: int,
) -> Scores:
    """Score a map on held-out tokens.

    Parameters
    ----------
    predict : callable
        From source rows (m, d_s) to target rows (m, d_t).
    source, target : PreparedRows
        The scored tokens' rows in both models.
    others : PreparedRows
        Target rows of other tokens, among which the true ones have to be found.
    mean : ndarray of float64, shape (d_t,)
        The mean target row of the tokens that the map was fitted on.
    threads : int
        Threads to use.

    Returns
    -------
    Scores
        Of these tokens.
    """
    everything = slice(0, len(target.rows))
    transferred = predict(source.take(everything)) - mean
    true = target.take(everything) - mean
    around, error = np.square(true).sum(), np.square(true - transferred).sum()
    cosine = _mean_cosine(transferred, true)
    # From here on float32 does, and together with the candidates float64 would be the largest part of a fit.
    queries = transferred.astype(np.float32)
    del transferred, true
    candidates = _deviations([target, others], mean)
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


def _deviations(parts: list[PreparedRows], mean: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    # Taken piece by piece: in float64 all candidates at once would be the largest array of a fit.
    deviations = np.empty((sum(len(part.rows) for part in parts), len(mean)), dtype=np.float32)
    end = 0
    for part in parts:
        for piece in part.pieces():
            rows = part.take(piece)
            begin, end = end, end + len(rows)
            deviations[begin:end] = rows - mean
    return deviations


def _mean_cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0).mean())
