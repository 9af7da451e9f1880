"""How far the local geometry of the same tokens agrees between two models, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import (
    Float64Vector,
    IndexMatrix,
    RowNumbers,
    as_integers,
    as_neighbor_list,
    as_real_array,
)
from embgeom._common.native import core
from embgeom._common.threads import resolve_threads
from embgeom.errors import InputError
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE
from embgeom.geometry.rows import check_same_tokens

# Rows are compared in pieces, so that the workspace stays small compared with the lists themselves.
_ENTRIES_PER_PIECE = 1 << 21


def neighbor_overlap(
    a: Neighbors | npt.ArrayLike, b: Neighbors | npt.ArrayLike, *, threads: int | None = None
) -> Float64Vector:
    """Return the share of each token's k neighbors in one model that are its neighbors in the other, too.

    Parameters
    ----------
    a, b : Neighbors or array_like of int, shape (n, k)
        What `knn` returned for the same tokens of two models, row by row; or row numbers without repetition
        in a row, where -1 stands for no neighbor and matches nothing.
    threads : int, optional
        As for `knn`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Between 0 and 1. Two unrelated models are expected to reach k / (n - 1).

    Raises
    ------
    InputError
        If the shapes differ, or `Neighbors` are of other rows or of other tokens.

    Notes
    -----
    O(n k log k) time.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.geometry.agreement import neighbor_overlap
    >>> neighbor_overlap(np.array([[1, 2]]), np.array([[2, 3]])).tolist()
    [0.5]
    """
    first, second = _listed(a), _listed(b)
    indices_a, indices_b = _corresponding(first, second)
    overlap = np.empty(len(indices_a))
    for piece in _pieces(indices_a):
        overlap[piece] = (positions(indices_a[piece], indices_b[piece], threads) >= 0).mean(axis=1)
    return overlap


@overload
def weight_cosine(a: LLE, b: LLE, /, *, threads: int | None = None) -> Float64Vector: ...


@overload
def weight_cosine(
    a: Neighbors | npt.ArrayLike,
    weights_a: LLE | npt.ArrayLike,
    b: Neighbors | npt.ArrayLike,
    weights_b: LLE | npt.ArrayLike,
    /,
    *,
    threads: int | None = None,
) -> Float64Vector: ...


def weight_cosine(*of_two_models: Any, threads: int | None = None) -> Float64Vector:
    """Return the cosine similarity of each token's reconstruction weights in two models.

    A token's weights are one row of a sparse (n, n) matrix: zero except at its k neighbors. Neighbors that
    only one model has thus count against the similarity.

    Parameters
    ----------
    *of_two_models : LLE, LLE, or indices_a, weights_a, indices_b, weights_b
        What `lle` returned for the same tokens of two models, row by row; or for each model the neighbors,
        `Neighbors` or an array of int (n, k), and their weights, an `LLE` or an array of float (n, k).
    threads : int, optional
        As for `knn`.

    Returns
    -------
    ndarray of float64, shape (n,)
        Between -1 and 1; NaN for a token without weights in one of the models.

    Raises
    ------
    InputError
        If the shapes differ, or the results are of other rows or of other tokens.

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
    >>> import embgeom
    >>> indices = np.array([[1, 2]])
    >>> one, other = np.array([[0.8, 0.6]]), np.array([[1.0, 0.0]])
    >>> round(float(embgeom.weight_cosine(indices, one, indices, other)[0]), 6)
    0.8
    >>> x = np.random.default_rng(0).standard_normal((50, 4))
    >>> a, b = (embgeom.lle(y, embgeom.knn(y, k=3)) for y in (x, 2 * x))
    >>> float(embgeom.weight_cosine(a, b).min().round(6))
    1.0
    """
    (first, weights_a), (second, weights_b) = _two_sides(of_two_models)
    indices_a, indices_b = _corresponding(first, second)
    for weights in (weights_a, weights_b):
        _check_shapes(indices_a, weights)
    cosine = np.empty(len(indices_a))
    for piece in _pieces(indices_a):
        a, b = weights_a[piece].astype(np.float64), weights_b[piece].astype(np.float64)
        found = positions(indices_a[piece], indices_b[piece], threads)
        b_at_a = np.where(found >= 0, np.take_along_axis(b, np.maximum(found, 0), axis=1), 0.0)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        norms[norms == 0.0] = np.nan
        cosine[piece] = (a * b_at_a).sum(axis=1) / norms
    # Rounding may move the cosine of equal weights past 1 by a bit.
    return np.clip(cosine, -1.0, 1.0)


@dataclass(frozen=True)
class _Listed:
    """Neighbors, with the rows and tokens they belong to, if known."""

    indices: npt.NDArray[Any]
    rows: RowNumbers | None = None
    tokens: list[str] | None = None
    of_queries: bool = False
    says_rows: bool = True


def _listed(neighbors: Any) -> _Listed:
    if isinstance(neighbors, Neighbors | LLE):
        of_queries = getattr(neighbors, "of_queries", False)
        return _Listed(neighbors.indices, neighbors.rows, neighbors.tokens, of_queries)
    indices = as_integers(neighbors, "the neighbors")
    if indices.size and not -1 <= int(indices.min()) <= int(indices.max()) <= np.iinfo(np.int32).max:
        wrong = indices.min() if indices.min() < -1 else indices.max()
        raise InputError(f"{wrong} among the neighbors is not a row number; -1 stands for no neighbor")
    for piece in _pieces(indices) if indices.ndim == 2 and indices.size else ():
        ordered = np.sort(indices[piece], axis=1)
        twice = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
        if twice.any():
            raise InputError(f"row {piece.start + int(np.argmax(twice))} of the neighbors names a row twice")
    return _Listed(indices, says_rows=False)


def _two_sides(given: tuple[Any, ...]) -> list[tuple[_Listed, npt.NDArray[Any]]]:
    """Return the neighbors and weights of each model, in whatever way they were given."""
    if len(given) == 2 and all(isinstance(side, LLE) for side in given):
        given = (given[0], given[0], given[1], given[1])
    if len(given) != 4 or isinstance(given[1], Neighbors) or isinstance(given[3], Neighbors):
        raise InputError(
            "weight_cosine takes two LLE results, or neighbors, weights, neighbors, weights: "
            f"not {', '.join(type(part).__name__ for part in given) or 'nothing'}"
        )
    return [_side(*given[:2]), _side(*given[2:])]


def _side(neighbors: Any, weights: Any) -> tuple[_Listed, npt.NDArray[Any]]:
    listed = _listed(neighbors)
    if not isinstance(weights, LLE):
        return listed, as_real_array(weights, "the weights")
    if not np.array_equal(weights.indices, listed.indices):
        raise InputError("the weights of an LLE belong to other neighbors than those given with it")
    of_weights = _listed(weights)
    _check_rows(of_weights, listed)
    return of_weights, weights.weights


def _corresponding(a: _Listed, b: _Listed) -> tuple[IndexMatrix, IndexMatrix]:
    """Return the neighbors of both models, if row i of both is the same token as far as is known."""
    _check_shapes(a.indices, b.indices)
    _check_rows(a, b)
    check_same_tokens(a.tokens, b.tokens)
    return a.indices, b.indices


def _check_rows(a: _Listed, b: _Listed) -> None:
    """Refuse two results that are known to be of different rows; a plain array says nothing about that."""
    if not (a.says_rows and b.says_rows):
        return
    if a.of_queries != b.of_queries:
        raise InputError("one holds neighbors of queries, the other of rows: these are not the same tokens")
    every = np.arange(len(a.indices))
    if not np.array_equal(every if a.rows is None else a.rows, every if b.rows is None else b.rows):
        raise InputError("the results are of different rows: ask knn for the same rows= of both models")


def _check_shapes(first: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> None:
    if first.ndim != 2 or first.shape[1] == 0 or first.shape != other.shape:
        raise InputError(f"the arrays must be (tokens, k) of one shape, not {first.shape} and {other.shape}")


def _pieces(indices: IndexMatrix) -> list[slice]:
    step = max(1, _ENTRIES_PER_PIECE // indices.shape[1])
    return [slice(begin, begin + step) for begin in range(0, len(indices), step)]


def positions(a: npt.NDArray[Any], b: npt.NDArray[Any], threads: int | None = None) -> IndexMatrix:
    """Return the position of each neighbor of A in its row of B; -1 where it is missing."""
    first, second = (as_neighbor_list(side, 1 << 31) for side in (a, b))
    found: IndexMatrix = core.positions(first, second, threads=resolve_threads(threads), progress=None)
    return found


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Pearson correlation of two vectors; NaN where one is constant or shorter than 2."""
    x, y = (as_real_array(values, "a vector").astype(np.float64) for values in (a, b))
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"only vectors of one length can be correlated, not {x.shape} and {y.shape}")
    # The rounding error of a constant vector minus its mean must not count as variance.
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.clip(x @ y / scale, -1.0, 1.0)) if scale > 0.0 else float("nan")


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Spearman rank correlation of two vectors; equal values share a mean rank, NaN has none."""
    return pearson(ranks(a), ranks(b))


def ranks(values: npt.ArrayLike) -> Float64Vector:
    array = as_real_array(values, "a vector").astype(np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Float64Vector = (last - (counts - 1) / 2.0)[inverse]
    return np.where(np.isnan(array), np.nan, ranks.reshape(array.shape))
