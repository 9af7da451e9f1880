"""Similarities of every layer's states in one model with every layer's states in another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import ProgressCallable
from embgeom.hidden_states.states import States

Table = npt.NDArray[np.float64]

# Numbers of one layer that are held as float64 at a time.
_PIECE = 1 << 18


def centered(states: States) -> States:
    mean = states.mean(axis=1, keepdims=True, dtype=np.float64)
    result: States = (states - mean).astype(np.float32)
    return result


def mean_cosines(a: States, b: States) -> Table:
    """Return the mean cosine over positions, of each layer in `a` (s, p, d) with each in `b` (t, p, d).

    The cosine of a zero state counts as 0.
    """
    total = np.zeros((len(a), len(b)))
    step = max(1, _PIECE // a.shape[2])
    for start in range(0, a.shape[1], step):
        units = (_units(states[:, start : start + step]).reshape(len(states), -1) for states in (a, b))
        total += np.matmul(next(units), next(units).T)
    total /= a.shape[1]
    return total


def linear_cka(a: States, b: States, *, report: ProgressCallable | None = None, phase: str = "CKA") -> Table:
    """Return the cosine of the Gram matrices of each layer in `a` (s, p, d) with those in `b` (t, p, e).

    For states that are centered over positions this is linear CKA, between 0 and 1; NaN for a layer whose
    states are all zero.
    """
    positions = a.shape[1]
    cross, squares_a, squares_b = np.zeros((len(a), len(b))), np.zeros(len(a)), np.zeros(len(b))
    step = max(1, _PIECE // positions)
    for start in range(0, positions, step):
        grams_a, grams_b = _grams(a, start, step), _grams(b, start, step)
        cross += grams_a @ grams_b.T
        squares_a += np.einsum("ij,ij->i", grams_a, grams_a)
        squares_b += np.einsum("ij,ij->i", grams_b, grams_b)
        if report:
            report(phase, min(start + step, positions), positions)
    norms = np.sqrt(np.outer(squares_a, squares_b))
    return np.divide(cross, norms, out=np.full_like(cross, np.nan), where=norms > 0)


def _units(states: States) -> Table:
    wide = states.astype(np.float64)
    norms = np.linalg.norm(wide, axis=2, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide


def _grams(states: States, start: int, step: int) -> Table:
    """Return some rows of each layer's Gram matrix, as (layers, rows * positions)."""
    return np.stack([(layer[start : start + step] @ layer.T).astype(np.float64).ravel() for layer in states])
