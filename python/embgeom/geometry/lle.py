"""Locally linear embedding: each token as an affine combination of its neighbors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float32Vector, IndexMatrix, RowNumbers, as_matrix
from embgeom._common.checks import real_number
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, distribution
from embgeom._common.threads import resolve_threads
from embgeom.errors import InputError
from embgeom.geometry.knn import Neighbors, resolve_neighborhoods
from embgeom.geometry.rows import token_columns, tokens_of


class LLEStatus(IntEnum):
    """How a token's reconstruction weights came about.

    Attributes
    ----------
    OK
        The neighbors determine the weights.
    DUPLICATE
        Some neighbors equal each other or the token; regularization shares the weight among equal ones.
    RANK_DEFICIENT
        The Gram matrix is singular (always so for k > d); regularization chooses among possible weights.
    COINCIDENT
        Every neighbor equals the token: the weights are uniform.
    NO_NEIGHBORS
        The list holds a -1: weights and residual are NaN.
    SINGULAR
        The Gram matrix is singular and not regularized enough: weights and residual are NaN.
    """

    OK = 0
    DUPLICATE = 1
    RANK_DEFICIENT = 2
    COINCIDENT = 3
    NO_NEIGHBORS = 4
    SINGULAR = 5


@dataclass(frozen=True, eq=False, repr=False)
class LLE(Result, Tabular):
    """Reconstruction weights of m tokens over their k neighbors; returned by `lle`.

    Attributes
    ----------
    weights : ndarray of float32, shape (m, k)
        Each row sums to 1; weight j belongs to the token's j-th neighbor.
    residuals : ndarray of float32, shape (m,)
        Euclidean distance between the token and its reconstruction, in the units of the rows.
    status : ndarray of uint8, shape (m,)
        See `LLEStatus`.
    indices : ndarray of int32, shape (m, k)
        The neighbors that the weights belong to.
    rows : ndarray of int64, shape (m,), or None
        The rows of the matrix that are reconstructed, if only some were asked for.
    tokens : list of str, length n, or None
        The tokens of the matrix's rows, if known.
    """

    _large: ClassVar[bool] = True

    weights: Float32Matrix
    residuals: Float32Vector
    status: npt.NDArray[np.uint8]
    indices: IndexMatrix
    rows: RowNumbers | None = None
    tokens: list[str] | None = None

    def __post_init__(self) -> None:
        if self.weights.ndim != 2 or self.weights.shape != self.indices.shape:
            shapes = f"{self.weights.shape} and {self.indices.shape}"
            raise InputError(f"weights and indices of an LLE must be (m, k), not {shapes}")

    def __repr__(self) -> str:
        tokens, k = self.weights.shape
        counts = ", ".join(f"{count} {status.name}" for status, count in self.status_counts().items())
        return f"LLE({tokens} tokens, k={k}: {counts})"

    def status_counts(self) -> dict[LLEStatus, int]:
        """Return how many tokens have each status, for those that occur."""
        return {status: int(count) for status in LLEStatus if (count := np.sum(self.status == status))}

    def tables(self) -> list[Block]:
        """Return the quantiles of the residuals and of the largest weights."""
        quantities = {"residual": self.residuals, "largest weight": self.weights.max(axis=1, initial=-np.inf)}
        return [repr(self), distribution(quantities)]

    def columns(self) -> Columns:
        """Return a row for each token and neighbor."""
        m, k = self.weights.shape
        tokens = np.arange(m) if self.rows is None else self.rows
        names = np.array([status.name for status in LLEStatus])
        return {
            **token_columns(np.repeat(tokens, k), self.tokens),
            **token_columns(self.indices.ravel(), self.tokens, "neighbor"),
            "weight": self.weights.ravel(),
            "residual": np.repeat(self.residuals, k),
            "status": np.repeat(names[self.status], k),
        }

    def _derived(self) -> dict[str, Any]:
        return {"status_counts": {status.name: count for status, count in self.status_counts().items()}}


def lle(
    x: npt.ArrayLike,
    neighbors: Neighbors | npt.ArrayLike,
    *,
    reg: float = 1e-3,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> LLE:
    """Compute the weights with which each token's neighbors reconstruct it best.

    The weights of a token x over its neighbors y_1 ... y_k minimize ``|x - sum_j w_j y_j|`` under
    ``sum_j w_j = 1``. They do not change when the space is rotated, scaled or shifted, so the same
    token's weights can be compared between models with different hidden sizes.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        One row for each token.
    neighbors : Neighbors or array_like of int, shape (m, k)
        What `knn` returned for `x`, or row numbers; a token with a -1 among them gets no weights.
    reg : float
        Regularization: ``reg * trace(G)`` is added to the diagonal of the Gram matrix G. Needed where
        ``k > d`` or rows are equal; 0 switches it off.
    rows : array_like of int, shape (m,), optional
        The rows of `x` whose neighbors an array lists; all rows in order by default.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    LLE
        With ``weights`` (m, k), ``residuals`` (m,), ``status`` (m,) and the ``indices`` (m, k).

    Raises
    ------
    InputError
        If shapes do not fit, a row number lies outside `x`, `reg` is negative, or a value of `x` is not
        finite.

    Notes
    -----
    For each token, k^2 d / 2 + k^3 / 3 multiply-adds in float64. Memory besides input and output: 8
    (2 k^2 + 264 k) bytes for each thread, and up to 48 bytes for each row of `x`.

    References
    ----------
    Roweis, S. T., & Saul, L. K. (2000). Nonlinear dimensionality reduction by locally linear embedding.
    Science, 290.

    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import embgeom
    >>> x = [[0.0, 0.0], [1.0, 0.0], [-3.0, 0.0], [0.0, 9.0]]
    >>> result = embgeom.lle(x, [[1, 2]], rows=[0], reg=0.0)
    >>> embgeom.LLEStatus(result.status[0]).name  # the Gram matrix of two opposite neighbors is singular
    'SINGULAR'
    >>> embgeom.lle(x, [[1, 2]], rows=[0], reg=1e-6).weights.round(3).tolist()
    [[0.75, 0.25]]
    """
    matrix, tokens = as_matrix(x), tokens_of(x)
    numbers, selection = resolve_neighborhoods(neighbors, rows, len(matrix), tokens)
    reg = check_reg(reg)
    with reporter(progress, "lle") as report:
        weights, residuals, status = core.lle(
            matrix, numbers, selection, reg=reg, threads=resolve_threads(threads), progress=report
        )
    if tokens is None and isinstance(neighbors, Neighbors):
        tokens = neighbors.tokens
    return LLE(weights, residuals, status, numbers, selection, tokens)


def check_reg(reg: object) -> float:
    """Return `reg` as a float, or raise an error."""
    number = real_number(reg, "reg")
    if not (math.isfinite(number) and number >= 0.0):
        raise InputError(f"reg = {reg} must be a finite number of at least 0 (1e-3 is usual)")
    return number
