"""Intrinsic dimension: how many principal components a token's neighborhood needs."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float32Vector, Float64Vector, RowNumbers, as_matrix
from embgeom._common.checks import real_number
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, distribution
from embgeom._common.threads import resolve_threads
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.geometry.knn import Metric, Neighbors, check_k, knn, resolve_neighborhoods
from embgeom.geometry.rows import token_columns, tokens_of

DEFAULT_K = 200


@dataclass(frozen=True, eq=False, repr=False)
class IntrinsicDimension(Result, Tabular):
    """Intrinsic dimensions of the neighborhoods of m tokens; returned by `intrinsic_dimension`.

    Attributes
    ----------
    n_components : ndarray of int32, shape (m,)
        The smallest number of principal components that explain `variance` of the neighbors' variance:
        0 where all neighbors are equal, -1 for a token without neighbors.
    participation_ratio : ndarray of float32, shape (m,)
        ``sum(l)^2 / sum(l^2)`` over the eigenvalues l of the neighbors' covariance: the number of
        directions if all had the same variance. It has no threshold. Accurate to a relative 2e-6; NaN for a
        token without neighbors.
    explained_variance_ratio : ndarray of float32, shape (m,)
        The share of variance that `n_components` components explain. Accurate to 2e-6 (1 + sqrt(p / r)) with
        p = min(k, d) and participation ratio r; usually to 1e-7.
    decided_in_float64 : ndarray of bool, shape (m,)
        Whether float32 could not be certain of `n_components`, and float64, which takes several times as
        long, decided: rarely, but always for a `variance` within 4e-7 of 1.
    variance : float
        The share asked for.
    k, n_columns : int
        Neighbors of each token, and columns of the matrix.
    rows : ndarray of int64, shape (m,), or None
        The rows of the matrix that were measured, if only some were asked for.
    tokens : list of str, length n, or None
        The tokens of the matrix's rows, if known.
    """

    _large: ClassVar[bool] = True

    n_components: npt.NDArray[np.int32]
    participation_ratio: Float32Vector
    explained_variance_ratio: Float32Vector
    decided_in_float64: npt.NDArray[np.bool_]
    variance: float
    k: int
    n_columns: int
    rows: RowNumbers | None = None
    tokens: list[str] | None = None

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self._measured().values()}
        if len(lengths) != 1:
            raise InputError(f"the fields of IntrinsicDimension have different lengths: {sorted(lengths)}")

    def __repr__(self) -> str:
        count, decided = len(self.n_components), self.decided_in_float64.mean()
        return (
            f"IntrinsicDimension({count} token{'s' * (count != 1)}, "
            f"{self.n_components.min()} to {self.n_components.max()} components "
            f"of at most {self.max_components}, k={self.k}, variance={self.variance}"
            f"{f', {decided:.1%} decided in float64' if decided else ''})"
        )

    @property
    def defined(self) -> Float64Vector:
        """`n_components` as numbers to calculate with: NaN for a token without neighbors, shape (m,)."""
        counts: Float64Vector = np.where(self.n_components >= 0, self.n_components, np.nan)
        return counts

    @property
    def max_rank(self) -> int:
        """The largest possible rank of k points in so many columns: min(k - 1, d)."""
        return min(self.k - 1, self.n_columns)

    @property
    def max_components(self) -> int:
        """The largest possible `n_components`: for equal variance in all `max_rank` directions."""
        return math.ceil(self.variance * self.max_rank - 1e-9)

    @property
    def near_max(self) -> npt.NDArray[np.bool_]:
        """Which tokens come within a tenth of `max_components`, shape (m,): k or d sets their number."""
        near_max: npt.NDArray[np.bool_] = self.n_components > 0.9 * self.max_components
        return near_max

    def tables(self) -> list[Block]:
        """Return the quantiles of the number of components and of the participation ratio."""
        quantities: dict[str, npt.NDArray[Any]] = {
            "components": self.defined,
            "participation ratio": self.participation_ratio,
        }
        return [repr(self), distribution(quantities)]

    def columns(self) -> Columns:
        """Return a row for each token, in the order of the tokens that were measured."""
        numbers = np.arange(len(self.n_components)) if self.rows is None else self.rows
        return {**token_columns(numbers, self.tokens), **self._measured(), "near_max": self.near_max}

    def _measured(self) -> dict[str, npt.NDArray[Any]]:
        names = ("n_components", "participation_ratio", "explained_variance_ratio", "decided_in_float64")
        return {name: getattr(self, name) for name in names}

    def _derived(self) -> dict[str, Any]:
        return {"max_rank": self.max_rank, "max_components": self.max_components}


def intrinsic_dimension(
    x: npt.ArrayLike,
    neighbors: Neighbors | npt.ArrayLike | None = None,
    *,
    k: int | None = None,
    variance: float = 0.95,
    rows: npt.ArrayLike | None = None,
    metric: Metric = "cosine",
    center: bool = False,
    threads: int | None = None,
    progress: Progress = False,
) -> IntrinsicDimension:
    """Count the principal components that explain a share of the variance of each token's neighbors.

    The number is low where a token's neighbors vary in few directions. Whether these are related in meaning
    depends on the model: `embgeom.comparison.coherence` measures it.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        One row for each token.
    neighbors : Neighbors or array_like of int, shape (m, k), optional
        What `knn` returned for `x`, or row numbers. By default the `k` nearest are found first.
    k : int, optional
        How many neighbors to find, if none are given; by default 200, in every vocabulary, so that numbers
        can be compared, or half of the rows if that is fewer, with a warning. The result cannot exceed
        min(k - 1, d): see ``IntrinsicDimension.near_max``.
    variance : float
        The share of variance to explain, in (0, 1].
    rows : array_like of int, shape (m,), optional
        Only these rows of `x`; all of them by default.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found, if none are given.
    center : bool
        As for `knn`, if no neighbors are given. Dimensions of given neighbors do not depend on a shift.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    IntrinsicDimension
        With ``n_components``, ``participation_ratio``, ``explained_variance_ratio`` and
        ``decided_in_float64``, each (m,).

    Raises
    ------
    InputError
        If shapes do not fit, a row number lies outside `x`, `variance` is outside (0, 1], or a value is
        not finite.

    Notes
    -----
    Float32 finds `n_components`; where a share of variance comes within its error of `variance`, the token is
    computed again in float64. That error is measured and estimated with room, not proven: the documentation's
    page on numerics derives the odds of another integer than float64's. With p = min(k, d), p k d / 2 +
    2 p^3 / 3 multiply-adds for each token, after the search for neighbors; memory besides input and output:
    14 (p^2 + 430 p) + 16 max(k, d) bytes for each thread. Ctrl-C is honored between tokens.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> plane = np.zeros((100, 8), dtype=np.float32)
    >>> plane[:, :2] = np.random.default_rng(0).standard_normal((100, 2))
    >>> embgeom.intrinsic_dimension(plane, k=20, metric="euclidean").n_components.max()
    np.int32(2)
    """
    matrix = as_matrix(x)
    variance = check_variance(variance)
    team = resolve_threads(threads)
    if neighbors is None:
        k = usual_k(matrix, metric) if k is None else k
        search: dict[str, Any] = {"metric": metric, "center": center, "threads": team, "progress": progress}
        neighbors, rows = knn(matrix, k, rows=rows, **search), None
    tokens = tokens_of(x)
    numbers, selection = resolve_neighborhoods(neighbors, rows, len(matrix), tokens)
    with reporter(progress, "dimension") as report:
        arrays = core.intrinsic_dimension(
            matrix, numbers, selection, variance=variance, threads=team, progress=report
        )
    if tokens is None and isinstance(neighbors, Neighbors):
        tokens = neighbors.tokens
    return IntrinsicDimension(
        *arrays,
        variance=variance,
        k=numbers.shape[1],
        n_columns=matrix.shape[1],
        rows=selection,
        tokens=tokens,
    )


def check_variance(variance: float) -> float:
    """Return `variance` as a float, or raise an error."""
    share = real_number(variance, "variance")
    if not 0.0 < share <= 1.0:
        raise InputError(f"variance = {variance} is a share and must lie in (0, 1], for example 0.95")
    return share


def widest_k(others: int) -> int:
    """Return half of the `others`: wider neighborhoods of most tokens are nearly the same for all of them."""
    return max(others // 2, min(others, 2), 1)


def dimension_neighbors(k: int | None, others: int, name: str = "dimension_k") -> int:
    """Return how many of the `others` a dimension is measured over: `k`, or by default as many as usual."""
    return check_k(min(DEFAULT_K, widest_k(others)) if k is None else k, others, name)


def usual_k(matrix: Float32Matrix, metric: Metric) -> int:
    """Return the default number of neighbors for rows of a matrix; warn where it has too few."""
    usable = np.count_nonzero(matrix.any(axis=1)) if metric == "cosine" else len(matrix)
    k = dimension_neighbors(None, max(usable, 2) - 1, "k")
    if k < DEFAULT_K:
        warnings.warn(
            f"dimensions are measured over k = {k} neighbors, half of the rows, instead of {DEFAULT_K}: they "
            "cannot be compared with those of other vocabularies unless k is the same",
            EmbgeomWarning,
            stacklevel=3,
        )
    return k
