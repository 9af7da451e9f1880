"""How far the local geometry of the same tokens agrees between two models, token by token."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embgeom._arrays import FloatMatrix, IndexMatrix
from embgeom.errors import InputError

# Rows are compared in pieces, so that the workspace stays small beside the lists themselves.
_ENTRIES_PER_PIECE = 1 << 21

FloatVector = npt.NDArray[np.float64]


def neighbor_overlap(indices_a: IndexMatrix, indices_b: IndexMatrix) -> FloatVector:
    """Return the share of each token's k neighbors in one model that are its neighbors in the other, too.

    Parameters
    ----------
    indices_a, indices_b : ndarray of int, shape (n, k)
        Row numbers without repetition in a row, as from `knn`; -1 stands for no neighbor and matches nothing.

    Returns
    -------
    ndarray of float64, shape (n,)
        Between 0 and 1. Two unrelated models are expected to reach k / (n - 1).

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    O(n k log k) time.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.agreement import neighbor_overlap
    >>> neighbor_overlap(np.array([[1, 2]]), np.array([[2, 3]])).tolist()
    [0.5]
    """
    _check_shapes(indices_a, indices_b)
    overlap = np.empty(len(indices_a))
    for piece in _pieces(indices_a):
        overlap[piece] = (_places(indices_a[piece], indices_b[piece]) >= 0).mean(axis=1)
    return overlap


def weight_cosine(
    indices_a: IndexMatrix, weights_a: FloatMatrix, indices_b: IndexMatrix, weights_b: FloatMatrix
) -> FloatVector:
    """Return the cosine similarity of each token's reconstruction weights in two models.

    A token's weights are one row of a sparse (n, n) matrix: zero but at its k neighbors. Neighbors that
    only one model has thus count against the similarity.

    Parameters
    ----------
    indices_a, indices_b : ndarray of int, shape (n, k)
        Neighbors, as from `knn`.
    weights_a, weights_b : ndarray of float, shape (n, k)
        Their weights, as from `lle`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Between -1 and 1; NaN for a token without weights in one of the models.

    Raises
    ------
    InputError
        If the shapes differ.

    Notes
    -----
    O(n k log k) time.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.agreement import weight_cosine
    >>> indices = np.array([[1, 2]])
    >>> round(float(weight_cosine(indices, np.array([[0.8, 0.6]]), indices, np.array([[1.0, 0.0]]))[0]), 6)
    0.8
    """
    for array in (weights_a, indices_b, weights_b):
        _check_shapes(indices_a, array)
    cosine = np.empty(len(indices_a))
    for piece in _pieces(indices_a):
        a, b = weights_a[piece].astype(np.float64), weights_b[piece].astype(np.float64)
        places = _places(indices_a[piece], indices_b[piece])
        b_at_a = np.where(places >= 0, np.take_along_axis(b, np.maximum(places, 0), axis=1), 0.0)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        norms[norms == 0.0] = np.nan
        cosine[piece] = (a * b_at_a).sum(axis=1) / norms
    # Rounding may carry the cosine of equal weights past 1 by a bit.
    return np.clip(cosine, -1.0, 1.0)


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Pearson correlation of two vectors; NaN where one is constant or shorter than 2."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"only vectors of one length can be correlated, not {x.shape} and {y.shape}")
    # What rounding leaves of a constant vector less its mean must not count as variance.
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale > 0.0 else float("nan")


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Spearman rank correlation of two vectors; equal values share a mean rank, NaN has none."""
    return pearson(_mean_ranks(a), _mean_ranks(b))


def _mean_ranks(values: npt.ArrayLike) -> FloatVector:
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: FloatVector = (last - (counts - 1) / 2.0)[inverse]
    return np.where(np.isnan(array), np.nan, ranks.reshape(array.shape))


def _check_shapes(first: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> None:
    if first.ndim != 2 or first.shape[1] == 0 or first.shape != other.shape:
        raise InputError(f"the arrays must be (tokens, k) of one shape, not {first.shape} and {other.shape}")


def _pieces(indices: IndexMatrix) -> list[slice]:
    step = max(1, _ENTRIES_PER_PIECE // indices.shape[1])
    return [slice(begin, begin + step) for begin in range(0, len(indices), step)]


def _places(indices_a: IndexMatrix, indices_b: IndexMatrix) -> npt.NDArray[np.int64]:
    """Return where in its row of B each neighbor in A stands; -1 where it is missing."""
    order = np.argsort(indices_b, axis=1)
    # With a number of its own for each (token, neighbor), one search in one sorted list serves all tokens.
    span = int(max(indices_a.max(), indices_b.max())) + 2
    token = np.arange(len(indices_a), dtype=np.int64)[:, None] * span
    keys_b = (token + 1 + np.take_along_axis(indices_b, order, axis=1)).ravel()
    keys_a = (token + 1 + indices_a).ravel()
    found = np.minimum(np.searchsorted(keys_b, keys_a), len(keys_b) - 1)
    places = order.ravel()[found]
    missing = (keys_b[found] != keys_a) | (indices_a.ravel() < 0)
    return np.where(missing, -1, places).reshape(indices_a.shape)
