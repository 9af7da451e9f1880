"""The methods that fit a map: each is an object with its options and a `solve`.

The linear ones see the vocabulary no more: they find a matrix A with y ~ x A by linear algebra in float64 on
d x d moments, the sums of one pass over both matrices by the kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector
from embgeom._common.checks import flag, real_number, whole_number
from embgeom._common.native import core
from embgeom._common.progress import ProgressCallable
from embgeom.emb2emb.pairs import PreparedRows
from embgeom.errors import InputError
from embgeom.geometry.knn import knn
from embgeom.geometry.lle import lle

# Ridge strengths that are tried, relative to the mean eigenvalue of x'x.
STRENGTHS = np.logspace(-9, 4, 66)
# The share of the fitted variance that a low-rank map keeps where no rank is given.
KEPT_VARIANCE = 0.95
_BATCH = 256
# With more neighbors than columns, only the regularization makes their weights unique.
_LEAST_REG = 1e-12


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums over pairs of rows x (d_x) and y (d_y).

    ``xx``, ``xy`` and ``yy`` are the sums of x x', x y' and y y', of deviations from the weighted means
    where `centered`; otherwise ``x_mean`` and ``y_mean`` are zero. ``count`` is the number of pairs of
    weight above 0.
    """

    xx: Float64Matrix
    xy: Float64Matrix
    yy: Float64Matrix
    x_mean: Float64Vector
    y_mean: Float64Vector
    count: int
    centered: bool

    @cached_property
    def spectrum(self) -> tuple[Float64Vector, Float64Matrix]:
        """Eigenvalues of xx, ascending and none below zero, and its eigenvectors by column."""
        values, vectors = np.linalg.eigh(self.xx)
        return np.maximum(values, 0.0), vectors

    def swapped(self) -> Moments:
        return Moments(self.yy, self.xy.T, self.xx, self.y_mean, self.x_mean, self.count, self.centered)


def gather(
    source: PreparedRows,
    target: PreparedRows,
    *,
    weights: Float64Vector | None,
    center: bool,
    threads: int,
    progress: ProgressCallable | None,
) -> Moments:
    """Add up the moments of paired rows; weights have mean 1, so that sums compare with unweighted ones."""
    xx, xy, yy, x_sum, y_sum = core.paired_products(
        source.matrix,
        target.matrix,
        source.rows,
        target.rows,
        x_factors=source.factors,
        y_factors=target.factors,
        roots=None if weights is None else np.sqrt(weights),
        threads=threads,
        progress=progress,
    )
    xx, xy, yy = source.fold_both(xx, source), source.fold_both(xy, target), target.fold_both(yy, target)
    total = float(len(source)) if weights is None else float(weights.sum())
    x_mean, y_mean = source.fold(x_sum) / total, target.fold(y_sum) / total
    if center:
        xx -= total * np.outer(x_mean, x_mean)
        xy -= total * np.outer(x_mean, y_mean)
        yy -= total * np.outer(y_mean, y_mean)
    else:
        x_mean, y_mean = np.zeros_like(x_mean), np.zeros_like(y_mean)
    count = len(source) if weights is None else int(np.count_nonzero(weights))
    return Moments(xx, xy, yy, x_mean, y_mean, count, center)


@dataclass(frozen=True, eq=False)
class Solution:
    """A matrix A, or the rows that a map by neighbors keeps, and what is known of the fit."""

    matrix: Float64Matrix | None
    details: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Float32Matrix, Float32Matrix] | None = None


def _strength(value: object) -> float | None:
    if value is None:
        return None
    strength = real_number(value, "strength")
    if not 0 < strength < np.inf:
        raise InputError(f"strength = {strength} must be above 0 and finite; LeastSquares() has none")
    return strength


def _reg(value: object) -> float:
    reg = real_number(value, "reg")
    if not _LEAST_REG <= reg < np.inf:
        raise InputError(f"reg = {reg} must be at least {_LEAST_REG:g} and finite")
    return reg


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "center": lambda value: flag(value, "center"),
    "scaled": lambda value: flag(value, "scaled"),
    "strength": _strength,
    "rank": lambda value: None if value is None else whole_number(value, "rank", 1),
    "k": lambda value: whole_number(value, "k", 1),
    "reg": _reg,
}


@dataclass(frozen=True)
class _Options:
    """What all methods have: `center` says whether both means are subtracted first."""

    center: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        # As plain numbers, which a file can hold.
        for name in (each.name for each in fields(self) if each.name in _CHECKS):
            object.__setattr__(self, name, _CHECKS[name](getattr(self, name)))


@dataclass(frozen=True)
class LeastSquares(_Options):
    """Least squares, the published method: the map of smallest norm where tokens determine no single one.

    Where tokens are few compared with the hidden size it fits noise, and `Ridge` does not. As in all methods,
    ``center=False`` fits a map without an intercept.
    """

    name: Literal["least_squares"] = field(default="least_squares", repr=False, kw_only=True)

    def solve(self, moments: Moments, _source: PreparedRows, _target: PreparedRows) -> Solution:
        """Return A, and the rank of x'x."""
        values, _ = moments.spectrum
        # Singular values of x below some 7e-7 of the largest (d = 2,048) are noise of float32 rows.
        tolerance = values[-1] * len(values) * np.finfo(np.float64).eps
        determined = values > tolerance
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=determined)
        return Solution(_filtered(moments, inverse), {"rank": int(determined.sum())})


@dataclass(frozen=True)
class Ridge(_Options):
    """Ridge regression: A = (x'x + s I)^-1 x'y.

    Attributes
    ----------
    strength : float or None
        s relative to the mean eigenvalue of x'x. None chooses it by generalized cross-validation over 66
        strengths, from one eigendecomposition.
    """

    strength: float | None = None
    name: Literal["ridge"] = field(default="ridge", repr=False, kw_only=True)

    def solve(self, moments: Moments, _source: PreparedRows, _target: PreparedRows) -> Solution:
        """Return A, the strength and the degrees of freedom."""
        return ridge_regression(moments, self.strength)


@dataclass(frozen=True)
class LowRank(_Options):
    """The ridge map, followed by a projection on the directions in which its fitted y vary most.

    Attributes
    ----------
    rank : int or None
        How many directions, the smaller hidden size at most; None for the fewest that keep 95 % of the fitted
        variance.
    strength : float or None
        As in `Ridge`.
    """

    rank: int | None = None
    strength: float | None = None
    name: Literal["low_rank"] = field(default="low_rank", repr=False, kw_only=True)

    def solve(self, moments: Moments, _source: PreparedRows, _target: PreparedRows) -> Solution:
        """Return A of limited rank, and what is known of the ridge map."""
        full = ridge_regression(moments, self.strength)
        matrix: Any = full.matrix
        values, directions = np.linalg.eigh(matrix.T @ moments.xx @ matrix)
        values, directions = np.maximum(values[::-1], 0.0), directions[:, ::-1]
        rank = self.rank
        if rank is None:
            rank = 1 + int(np.searchsorted(np.cumsum(values), KEPT_VARIANCE * values.sum()))
        # The variance may take more directions than a narrower target has.
        kept = directions[:, : min(rank, *matrix.shape)]
        return Solution(matrix @ kept @ kept.T, full.details | {"rank": kept.shape[1]})


@dataclass(frozen=True)
class Procrustes(_Options):
    """The matrix with orthonormal rows or columns whose x A agrees most with y, scaled if asked.

    Of all such matrices it has the greatest trace of A'x'y (Schoenemann 1966). With orthonormal rows, where y
    is at least as wide as x, that is the least squared error; with orthonormal columns x A is a projection
    of x, whose length depends on A, and no closed form is known for the least error.

    Attributes
    ----------
    scaled : bool
        Whether A is also scaled, by the factor of least error.
    """

    scaled: bool = True
    name: Literal["procrustes"] = field(default="procrustes", repr=False, kw_only=True)

    def solve(self, moments: Moments, _source: PreparedRows, _target: PreparedRows) -> Solution:
        """Return A and its scale."""
        left, singular, right = np.linalg.svd(moments.xy, full_matrices=False)
        turn = left @ right
        scale = 1.0
        if self.scaled:
            length = float(np.sum((moments.xx @ turn) * turn))
            scale = float(singular.sum() / length) if length > 0 else 0.0
        return Solution(scale * turn, {"scale": scale})


@dataclass(frozen=True)
class NeighborWeights(_Options):
    """No matrix: a vector is rebuilt from its neighbors, and their target rows are combined the same way.

    A vector is scaled to the mean length of its k nearest source rows (by cosine), rebuilt from them by LLE
    weights, and the same combination of target rows, scaled back, is its image. So it is transferred as an
    embedding would be; the map is not linear.

    Attributes
    ----------
    k : int
        How many neighbors.
    reg : float
        The regularization of their weights, see `embgeom.lle`.
    """

    k: int = 20
    reg: float = 1e-3
    name: Literal["lle"] = field(default="lle", repr=False, kw_only=True)

    def solve(self, moments: Moments, source: PreparedRows, target: PreparedRows) -> Solution:
        """Return the rows of both models, minus their means, as float32."""
        rows = source.deviations(moments.x_mean), target.deviations(moments.y_mean)
        self.check_rows(rows[0])
        return Solution(None, {"k": self.k, "reg": self.reg}, rows)

    def check_rows(self, source: Float32Matrix) -> None:
        """Raise InputError where there are fewer than k source rows that have a direction."""
        count = len(source)
        whole_number(self.k, "k", 1, count, f": there are {count} tokens to fit on")
        if (alive := int(np.count_nonzero(source.any(axis=1)))) < self.k:
            raise InputError(f"k = {self.k}, but only {alive} source rows are not zero; take fewer neighbors")

    def transfer(
        self, vectors: Float64Matrix, source: Float32Matrix, target: Float32Matrix, threads: int
    ) -> Float64Matrix:
        """Transfer vectors (m, d_s) to (m, d_t) float64; a vector of zeros stays one."""
        batches = (vectors[begin : begin + _BATCH] for begin in range(0, len(vectors), _BATCH))
        return np.concatenate([self._transfer(batch, source, target, threads) for batch in batches])

    def _transfer(
        self, vectors: Float64Matrix, source: Float32Matrix, target: Float32Matrix, threads: int
    ) -> Float64Matrix:
        lengths = np.linalg.norm(vectors, axis=1)
        transferred = np.zeros((len(vectors), target.shape[1]))
        alive = np.flatnonzero(lengths > 0)
        if len(alive) == 0:
            return transferred
        units = (vectors[alive] / lengths[alive, None]).astype(np.float32)
        found = knn(source, self.k, queries=units, threads=threads).indices
        # Of the matrix only the rows that are somebody's neighbor are needed; the vectors follow them.
        used, positions = np.unique(found, return_inverse=True)
        positions = positions.reshape(found.shape)
        rows = source[used]
        sizes = np.linalg.norm(rows.astype(np.float64), axis=1)[positions].mean(axis=1)
        everything = np.concatenate([rows, units * sizes[:, None].astype(np.float32)])
        weights = lle(
            everything,
            positions.astype(np.int32),
            rows=np.arange(len(used), len(everything)),
            reg=self.reg,
            threads=threads,
        ).weights.astype(np.float64)
        # One by one, since the neighbors of all vectors at once may be larger than the target's matrix.
        images = np.stack(
            [w @ target[near].astype(np.float64) for w, near in zip(weights, found, strict=True)]
        )
        transferred[alive] = images * (lengths[alive] / sizes)[:, None]
        return transferred


Method: TypeAlias = LeastSquares | Ridge | Procrustes | LowRank | NeighborWeights
METHODS: dict[str, type[Method]] = {
    "least_squares": LeastSquares,
    "ridge": Ridge,
    "procrustes": Procrustes,
    "low_rank": LowRank,
    "lle": NeighborWeights,
}


# In benchmarks/results/steering.md ridge's mode "logits" has the largest effect of all maps of weights in
# the cells that choose; of maps of hidden states only ridge was tried.
DEFAULT_METHOD = "ridge"


def as_method(method: Method | str, **options: Any) -> Method:
    """Return a method from its name and those of its options that are not None."""
    if isinstance(method, Method):
        return method
    if not isinstance(method, str) or method not in METHODS:
        raise InputError(f"method = {method!r} is unknown: use one of {', '.join(METHODS)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        users = [key for key, kind in METHODS.items() if name in {each.name for each in fields(kind)}]
        if method not in users:
            raise InputError(
                f"{name} = {value!r} is given, but method {method!r} does not use it: leave it out, or "
                f"take method {' or '.join(map(repr, users))}, which does"
            )
    return METHODS[method](**given)


def ridge_regression(moments: Moments, strength: float | None) -> Solution:
    """Return (x'x + s I)^-1 x'y with s = strength times the mean eigenvalue of x'x."""
    values, _ = moments.spectrum
    scale = float(values.mean())
    details: dict[str, Any] = {}
    if strength is None:
        losses = gcv(moments, STRENGTHS * scale)
        strength = float(STRENGTHS[int(np.argmin(losses))])
        details["gcv"] = float(losses.min())
    added = strength * scale
    details |= {"strength": strength, "degrees_of_freedom": float((values / (values + added)).sum())}
    return Solution(_filtered(moments, 1.0 / (values + added)), details)


def gcv(moments: Moments, strengths: Float64Vector) -> Float64Vector:
    """Return the generalized cross-validation score of each ridge strength.

    n RSS / (n - degrees of freedom)^2, an estimate of the squared error on tokens that were left out; all
    strengths from one eigendecomposition (Golub, Heath & Wahba 1979).
    """
    values, vectors = moments.spectrum
    seen = np.square(vectors.T @ moments.xy).sum(axis=1)  # |q_i' x'y|^2 for each eigenvector
    shrunk = 1.0 / (values[None, :] + strengths[:, None])
    residual = np.trace(moments.yy) - (seen * (2.0 * shrunk - values * shrunk**2)).sum(axis=1)
    freedom = (values * shrunk).sum(axis=1) + float(moments.centered)
    # With no freedom left, nothing is known about other tokens.
    left = np.maximum(moments.count - freedom, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = moments.count * np.maximum(residual, 0.0) / left**2
    return np.where(left > 1e-6 * moments.count, scores, np.inf)


def _filtered(moments: Moments, filters: Float64Vector) -> Float64Matrix:
    _, vectors = moments.spectrum
    return np.asarray((vectors * filters) @ (vectors.T @ moments.xy))
