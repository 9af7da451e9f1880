"""What directions do to the logits of tokens when an unembedding alone reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector
from embgeom.emb2emb.pairs import PreparedRows


@dataclass(frozen=True, eq=False)
class TokenLogits:
    """Directions (m, d), their logits over all shared tokens (n, m), and two numbers of each.

    The logits are without the largest principal components of the rows. `nearest` is the largest absolute
    cosine with a token's row, `spread` the standard deviation of all logits relative to a random direction's.
    """

    vectors: Float64Matrix
    logits: Float64Matrix
    nearest: Float64Vector
    spread: Float64Vector


def dominant_components(rows: Float32Matrix) -> Float32Matrix:
    """Return as many principal components as Mu & Viswanath (2018) take away."""
    count = max(1, rows.shape[1] // 100)
    _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    return vectors[:, -count:].astype(np.float32)


def logits_without(
    vectors: npt.NDArray[Any], dominant: Float32Matrix, rows: Float32Matrix
) -> npt.NDArray[np.float64 | np.float32]:
    """Return the logits (n, m) of vectors (m, d) without what principal components add to them."""
    return np.asarray(rows @ (vectors - (vectors @ dominant) @ dominant.T).T)


def token_logits(rows: PreparedRows, vectors: Float64Matrix, dominant: Float32Matrix) -> TokenLogits:
    mean = rows.mean()
    both = np.concatenate([vectors, vectors - (vectors @ dominant) @ dominant.T])
    logits = np.empty((len(rows), len(both)))
    nearest, squares = np.zeros(len(vectors)), 0.0
    lengths = np.linalg.norm(vectors, axis=1)
    for piece in rows.pieces():
        taken = rows.take(piece) - mean
        logits[piece] = taken @ both.T
        sizes = np.linalg.norm(taken, axis=1)
        squares += float(np.square(sizes).sum())
        scale = sizes[:, None] * lengths
        values = np.abs(logits[piece, : len(vectors)])
        cosines = np.divide(values, scale, out=np.zeros_like(scale), where=scale > 0)
        nearest = np.maximum(nearest, cosines.max(axis=0))
    whole, cleared = np.split(logits, 2, axis=1)
    usual = lengths * math.sqrt(squares / len(rows) / vectors.shape[1])
    spread = np.divide(whole.std(axis=0), usual, out=np.zeros_like(usual), where=usual > 0)
    return TokenLogits(vectors, cleared, nearest, spread)
