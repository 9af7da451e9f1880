"""Intrinsic dimensions estimated from distances to neighbors, over several k, and of Gaussian rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, IndexMatrix, RowNumbers, as_matrix
from embgeom._common.checks import check_seed, real_number, whole_number
from embgeom._common.progress import Progress
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, Table
from embgeom._common.threads import one_blas_thread
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    dimension_neighbors,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, knn
from embgeom.geometry.rows import mean_row

# Groups of tokens that are left out in turn for a standard error.
_GROUPS = 50
# Gaussian rows that are drawn at a time.
_PIECE = 1024
_DISTANCES_AT_A_TIME = 1 << 20


@dataclass(frozen=True, eq=False, repr=False)
class DimensionEstimate(Result):
    """An intrinsic dimension estimated from distances; returned by `two_nn` and `mle_dimension`.

    Attributes
    ----------
    method : {"two_nn", "mle"}
        How it was estimated.
    value : float
        The dimension of all tokens together; NaN if no token could be used.
    standard_error : float
        As if tokens were drawn independently. Neighborhoods overlap, so it is too small, and the more so the
        larger `k` is.
    n : int
        Tokens that were used.
    left_out : int
        Tokens without enough neighbors at a distance above 0 ("two_nn": at two of them).
    k : int
        Neighbors of each token that were used.
    per_token : ndarray of float64, shape (m,), or None
        The dimension at each token: NaN where it was left out. None for "two_nn", which has none.
    """

    _large: ClassVar[bool] = True

    method: Literal["two_nn", "mle"]
    value: float
    standard_error: float
    n: int
    left_out: int
    k: int
    per_token: Float64Vector | None = None

    def __repr__(self) -> str:
        return (
            f"DimensionEstimate({self.method}: {self.value:.4g} ± {self.standard_error:.2g}, "
            f"{self.n} tokens, k={self.k})"
        )

    def tables(self) -> list[Block]:
        """Return one line, and how many tokens were left out."""
        apart = "different distances" if self.method == "two_nn" else "a distance"
        left_out = f"{self.left_out} tokens without 2 neighbors at {apart} were left out"
        return [repr(self), *([left_out] if self.left_out else [])]


@one_blas_thread()
def two_nn(neighbors: Neighbors, *, discard: float = 0.1) -> DimensionEstimate:
    """Estimate the dimension from the ratio of the distances to the second and to the first neighbor.

    Where density is constant between these, the ratios of all tokens have the distribution function
    ``F(mu) = 1 - mu^-d``, which is i / n at the i-th ratio. d is the slope through the origin of
    ``-log(1 - F)`` over ``log(mu)``.

    Parameters
    ----------
    neighbors : Neighbors
        At least 2 of each token. Distances are Euclidean: of the rows for ``metric="euclidean"``, between
        rows of unit length, ``sqrt(2 - 2 cosine)``, for ``"cosine"``.
    discard : float
        The share of largest ratios that the fit leaves out, in [0, 1).

    Returns
    -------
    DimensionEstimate
        With a standard error from leaving out a fiftieth of the tokens at a time. Tokens that equal their
        nearest neighbor are left out, and those whose two nearest are equally far: copies of one row, mostly,
        whose ratio of 1 says nothing of the dimension.

    Raises
    ------
    InputError
        For inner products, fewer than 2 neighbors, or a share that is none.

    Notes
    -----
    It looks at two neighbors, so noise sets it where tokens lie densely. O(m log m).

    References
    ----------
    Facco, d'Errico, Rodriguez, & Laio (2017). Estimating the intrinsic dimension of datasets by a minimal
    neighborhood information. Scientific Reports, 7.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> from embgeom.geometry.estimators import two_nn
    >>> plane = np.zeros((2000, 8))
    >>> plane[:, :2] = np.random.default_rng(0).random((2000, 2))
    >>> round(two_nn(embgeom.knn(plane, 2, metric="euclidean")).value)
    2
    """
    share = real_number(discard, "discard")
    if not 0.0 <= share < 1.0:
        raise InputError(f"discard = {discard} is a share and must lie in [0, 1), for example 0.1")
    distances = euclidean_distances(neighbors, 2)
    usable = (distances[:, 0] > 0) & (distances[:, 1] > distances[:, 0])
    ratios = np.log(distances[usable, 1] / distances[usable, 0])
    n = len(ratios)
    groups = np.arange(n) % min(_GROUPS, max(n, 1))
    left = [_slope(np.sort(ratios[groups != group]), share) for group in range(min(_GROUPS, n))]
    error = float(np.sqrt((len(left) - 1) * np.var(left))) if len(left) > 1 else float("nan")
    return DimensionEstimate("two_nn", _slope(np.sort(ratios), share), error, n, len(distances) - n, 2)


def _slope(ratios: Float64Vector, discard: float) -> float:
    """Return the slope through the origin for ascending logarithms of ratios."""
    n = len(ratios)
    # The largest has F = 1, which has no logarithm.
    kept = max(min(int(n * (1 - discard)), n - 1), 0)
    x, y = ratios[:kept], -np.log1p(-np.arange(1, kept + 1) / max(n, 1))
    return float(x @ y / squares) if (squares := float(x @ x)) > 0 else float("nan")


@one_blas_thread()
def mle_dimension(neighbors: Neighbors, *, k: int | None = None) -> DimensionEstimate:
    """Estimate the dimension by maximum likelihood from the distances to k neighbors.

    At a token with distances ``T_1 <= ... <= T_k`` it is ``(k - 1) / sum_j log(T_k / T_j)``. The dimension of
    all tokens is their harmonic mean, the maximum of their joint likelihood (MacKay and Ghahramani), not the
    arithmetic mean of the original, which is too high for a small k.

    Parameters
    ----------
    neighbors : Neighbors
        Distances are Euclidean, as for `two_nn`.
    k : int, optional
        Number of each token's nearest neighbors to use; all by default.

    Returns
    -------
    DimensionEstimate
        With `per_token`. Neighbors that equal their token, at distance 0, are passed over; tokens with fewer
        than 2 others are left out.

    Raises
    ------
    InputError
        For inner products, or fewer than 2 neighbors.

    Notes
    -----
    It assumes that density is constant across k neighbors, and is too low in high dimension. O(m k).

    References
    ----------
    Levina & Bickel (2004). Maximum likelihood estimation of intrinsic dimension. NeurIPS.

    MacKay & Ghahramani (2005). Comments on "Maximum likelihood estimation of intrinsic dimension".

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> from embgeom.geometry.estimators import mle_dimension
    >>> plane = np.zeros((2000, 8))
    >>> plane[:, :2] = np.random.default_rng(0).random((2000, 2))
    >>> round(mle_dimension(embgeom.knn(plane, 20, metric="euclidean")).value)
    2
    """
    used = whole_number(neighbors.k if k is None else k, "k", 2, neighbors.k, ": neighbors has no more")
    m = len(neighbors.indices)
    counts, sums = np.empty((2, m))
    step = max(1, _DISTANCES_AT_A_TIME // used)
    for begin in range(0, m, step):
        piece = slice(begin, begin + step)
        distances = euclidean_distances(neighbors, used, piece)
        positive = distances > 0
        counts[piece] = positive.sum(axis=1) - 1.0
        logs = np.log(distances, where=positive, out=np.zeros_like(distances))
        # Lists are in order, so the last positive distance is the largest.
        largest = np.max(logs, axis=1, where=positive, initial=-np.inf)
        sums[piece] = (largest[:, None] - logs).sum(axis=1, where=positive)
    usable = counts >= 1
    counts, sums = counts[usable], sums[usable]
    per_token = np.full(m, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_token[usable] = counts / sums
        value = float(np.divide(counts.sum(), sums.sum()))
        # The error of a ratio of two sums over tokens.
        spread = counts - value * sums
        error = float(np.sqrt(len(sums) / max(len(sums) - 1, 1) * (spread @ spread)) / sums.sum())
    n = len(sums)
    return DimensionEstimate("mle", value, error, n, m - n, used, per_token)


def euclidean_distances(neighbors: Neighbors, k: int, piece: slice = slice(None)) -> npt.NDArray[np.float64]:
    """Return Euclidean distances to the first k neighbors, by cosine between rows of unit length."""
    if neighbors.k < k:
        raise InputError(f"neighbors lists {neighbors.k} for each token, but {k} are needed")
    some = {each: getattr(neighbors, each)[piece, :k] for each in ("indices", "similarities")}
    distances = replace(neighbors, **some).distances.astype(np.float64)
    # The cosine of equal rows may be rounded to a little more than 1.
    return np.sqrt(2.0 * np.maximum(distances, 0.0)) if neighbors.metric == "cosine" else distances


@dataclass(frozen=True, eq=False, repr=False)
class GaussianLevel(Result):
    """Intrinsic dimensions of Gaussian rows; returned by `gaussian_level`.

    Attributes
    ----------
    mean, sd : float
        Mean and standard deviation of `n_components` over the rows that were measured.
    participation_ratio : float
        The mean participation ratio.
    sample : int
        How many rows were measured.
    n : int
        How many were drawn.
    k : int
        Neighbors of each.
    variance, metric, center, seed
        As they were given.
    """

    mean: float
    sd: float
    participation_ratio: float
    sample: int
    n: int
    k: int
    variance: float
    metric: Metric
    center: bool
    seed: int

    @property
    def standard_error(self) -> float:
        """The standard error of `mean`."""
        return self.sd / float(np.sqrt(self.sample))

    def __repr__(self) -> str:
        return (
            f"GaussianLevel({self.mean:.1f} ± {self.standard_error:.1f}, sd {self.sd:.1f} over {self.sample} "
            f"of {self.n} rows, k={self.k}, variance={self.variance}, seed={self.seed})"
        )

    def tables(self) -> list[Block]:
        """Return one line."""
        return [repr(self)]

    def _derived(self) -> dict[str, Any]:
        return {"standard_error": self.standard_error}


@one_blas_thread()
def gaussian_level(
    x: npt.ArrayLike,
    k: int | None = None,
    variance: float = 0.95,
    *,
    metric: Metric = "cosine",
    center: bool = False,
    sample: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> GaussianLevel:
    """Measure the intrinsic dimension of Gaussian rows with the mean and the covariance of the rows of `x`.

    What chance gives: a dimension below it is due to structure which mean and covariance do not have.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        Rows that are zero are left out: as many are drawn as are not.
    k, variance, metric, center : optional
        As for `intrinsic_dimension`; fewer neighbors than 200 come without a warning.
    sample : int
        How many of the rows are measured.
    seed : int
        Seed of the rows.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    GaussianLevel

    Raises
    ------
    InputError
        If a parameter does not fit, or a value is not finite.

    Notes
    -----
    2 n d^2 multiply-adds for covariance and rows, and the search and the dimensions of `sample` rows. Memory:
    that of `x` once more (twice with `center`), and 16 d^2 bytes.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.geometry.estimators import gaussian_level
    >>> x = np.random.default_rng(0).standard_normal((500, 8)) * [1, 1, 1, 0, 0, 0, 0, 0]
    >>> gaussian_level(x, k=50, sample=20, metric="euclidean").mean
    3.0
    """
    matrix = as_matrix(x)
    mean, usable = mean_row(matrix), matrix.any(axis=1)
    n = int(np.count_nonzero(usable))
    wide = dimension_neighbors(k, n - 1, "k")
    variance, size = check_variance(variance), min(whole_number(sample, "sample", 1), n)
    rows = _gaussian_rows(matrix, mean, n, np.random.default_rng(check_seed(seed)))
    found = intrinsic_dimension(
        rows,
        k=wide,
        rows=np.arange(size),
        variance=variance,
        metric=metric,
        center=center,
        threads=threads,
        progress=progress,
    )
    components = found.n_components
    spread = float(components.std(ddof=1)) if size > 1 else float("nan")
    ratio = float(found.participation_ratio.mean())
    return GaussianLevel(
        float(components.mean()), spread, ratio, size, n, wide, variance, metric, center, seed
    )


def _gaussian_rows(
    matrix: Float32Matrix, mean: Float64Vector, n: int, generator: np.random.Generator
) -> Float32Matrix:
    """Return n Gaussian rows with a mean and the covariance of the rows that are not zero."""
    d = matrix.shape[1]
    products = np.zeros((d, d))
    for begin in range(0, len(matrix), _PIECE):
        piece = matrix[begin : begin + _PIECE]
        spread = piece[piece.any(axis=1)] - mean
        products += spread.T @ spread
    values, vectors = np.linalg.eigh(products / n)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    rows = np.empty((n, d), dtype=np.float32)
    for begin in range(0, n, _PIECE):
        piece = rows[begin : begin + _PIECE]
        piece[:] = generator.standard_normal((len(piece), d)) @ root.T + mean
    return rows


@dataclass(frozen=True, eq=False, repr=False)
class DimensionCurve(Result, Tabular):
    """Intrinsic dimensions over several numbers of neighbors; returned by `dimension_curve`.

    Attributes
    ----------
    k : tuple of int, length c
        The numbers of neighbors, ascending.
    n_components : ndarray of int32, shape (c, m)
        The dimension of each token for each of them.
    participation_ratio : ndarray of float32, shape (c, m)
        Its participation ratio.
    max_components : tuple of int, length c
        The largest possible dimension for each.
    variance : float
        The share of variance.
    rows : ndarray of int64, shape (m,), or None
        The rows that were measured, if only some were.
    """

    _large: ClassVar[bool] = True

    k: tuple[int, ...]
    n_components: IndexMatrix
    participation_ratio: Float32Matrix
    max_components: tuple[int, ...]
    variance: float
    rows: RowNumbers | None = None

    def __repr__(self) -> str:
        values = ", ".join(f"{k}: {mean:.1f}" for k, mean in zip(self.k, self._means(), strict=True))
        return f"DimensionCurve(mean dimension of {self.n_components.shape[1]} tokens by k: {values})"

    def _means(self) -> list[float]:
        return [float(values[values >= 0].mean()) for values in self.n_components]

    def tables(self) -> list[Block]:
        """Return a row for each k: quantiles of the dimension, and the largest possible."""
        return [Table(repr(self), tuple(self.columns()), zip(*self.columns().values(), strict=True))]

    def columns(self) -> Columns:
        """Return a row for each k; tokens without neighbors do not count."""
        defined = [values[values >= 0] for values in self.n_components]
        return {
            "k": list(self.k),
            "mean": self._means(),
            **{
                name: [float(np.quantile(values, share)) for values in defined]
                for name, share in (("10%", 0.1), ("median", 0.5), ("90%", 0.9))
            },
            "participation_ratio": [float(np.nanmean(values)) for values in self.participation_ratio],
            "max_components": list(self.max_components),
        }


def dimension_curve(
    x: npt.ArrayLike,
    neighbors: Neighbors | None = None,
    *,
    ks: Iterable[int] = (10, 50, 200, 1200),
    variance: float = 0.95,
    threads: int | None = None,
    progress: Progress = False,
    **search: Any,
) -> DimensionCurve:
    """Measure the intrinsic dimension over several numbers of neighbors, from one graph.

    A small k measures k: compare each with the largest possible, and with `gaussian_level`.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        One row for each token.
    neighbors : Neighbors, optional
        At least as many as the largest of `ks`; found first by default.
    ks : iterable of int
        The numbers of neighbors; those above what a row can have are left out.
    variance, threads, progress
        As for `intrinsic_dimension`.
    **search
        `rows`, `metric` and `center` for `knn`, if no neighbors are given.

    Returns
    -------
    DimensionCurve

    Raises
    ------
    InputError
        As for `knn` and `intrinsic_dimension`, or if no k is left.

    Notes
    -----
    The first k of more neighbors are the k nearest, so one search serves all.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.geometry.estimators import dimension_curve
    >>> curve = dimension_curve(embgeom.load("example:small"), ks=(10, 50), rows=range(100))
    >>> curve.n_components.shape
    (2, 100)
    """
    matrix = as_matrix(x)
    most = len(matrix) - 1 if neighbors is None else neighbors.k
    wanted = sorted({k for each in ks if (k := whole_number(each, "k", 2)) <= most})
    if not wanted:
        raise InputError(f"no k of ks is at most {most}, the neighbors that a token has; give smaller ones")
    if neighbors is None:
        neighbors = knn(x, wanted[-1], threads=threads, progress=progress, **search)
    found: list[IntrinsicDimension] = [
        intrinsic_dimension(x, neighbors.first(k), variance=variance, threads=threads, progress=progress)
        for k in wanted
    ]
    return DimensionCurve(
        tuple(wanted),
        np.stack([each.n_components for each in found]),
        np.stack([each.participation_ratio for each in found]),
        tuple(each.max_components for each in found),
        found[0].variance,
        neighbors.rows,
    )
