"""How well a map predicts the rows of tokens that it was not fitted on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.emb2emb.rows import PreparedRows
from embgeom.knn import knn

MOST_CANDIDATES = 16384
NEAREST = 10

Predict = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Scores:
    """What a map achieves on held-out tokens.

    Attributes
    ----------
    tokens : int
        How many tokens were held out.
    r2 : float
        1 - squared error / squared deviation from the mean target row of the tokens fitted on; 0 is what
        that mean achieves, 1 is perfect, and a map that misleads is below 0.
    cosine : float
        Mean cosine of predicted and true deviations from that mean.
    retrieval_at_1, retrieval_at_10 : float
        The share of tokens whose true row is the nearest, or among the ten nearest, to the predicted one by
        cosine.
    candidates : int
        Among how many rows: the held-out tokens' and those of shared tokens, at most 16,384.
    """

    tokens: int
    r2: float
    cosine: float
    retrieval_at_1: float
    retrieval_at_10: float
    candidates: int

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON."""
        return asdict(self)


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
        The held-out tokens' rows in both models.
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
    predicted, true = predict(source.take(everything)), target.take(everything)
    around = np.square(true - mean).sum()
    candidates = np.concatenate([true, others.take(slice(0, len(others.rows)))]).astype(np.float32)
    nearest = knn(
        candidates,
        min(NEAREST, len(candidates)),
        queries=predicted.astype(np.float32),
        threads=threads,
    ).indices
    hits = nearest == np.arange(len(true))[:, None]
    return Scores(
        tokens=len(true),
        r2=float(1 - np.square(true - predicted).sum() / around) if around > 0 else float("nan"),
        cosine=_mean_cosine(predicted - mean, true - mean),
        retrieval_at_1=float(hits[:, 0].mean()),
        retrieval_at_10=float(hits.any(axis=1).mean()),
        candidates=len(candidates),
    )


def _mean_cosine(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0).mean())
