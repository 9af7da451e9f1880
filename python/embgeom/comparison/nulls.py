"""What chance gives, and how sure a number is: null baselines and intervals of every measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector, as_integers, as_matrix, as_real_array
from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.progress import Progress
from embgeom._common.threads import resolve_threads
from embgeom.comparison.relabeling import (
    Directed,
    Strata,
    directed_moments,
    stratified_mean,
    stratified_moments,
    symmetric_variance,
    vector_moments,
)
from embgeom.errors import InputError
from embgeom.geometry.agreement import neighbor_overlap, pearson, ranks, weight_cosine
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE
from embgeom.geometry.similarity import global_similarity

LEVEL = 0.95
_QUANTILE = 1.959963984540054  # of the normal distribution, for an interval of that level
_ONE_SIDED = 1.6448536269514722  # the normal distribution's 95 % point


@dataclass(frozen=True)
class Baseline:
    """A measure when the tokens of the second model are relabeled at random.

    Attributes
    ----------
    mean, sd : float
        Over all relabelings, or over `draws` of them.
    draws : int
        How many relabelings the standard deviation is from; 0 where both are exact, in closed form. The
        mean is always exact.
    strata : int
        0 where all tokens are exchanged; otherwise they are exchanged within this many strata. A stratum of
        one token keeps it.
    """

    mean: float
    sd: float
    draws: int = 0
    strata: int = 0


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval over tokens: the tokens are a sample of those that could be."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A measure's value with its confidence interval and with what chance gives.

    Attributes
    ----------
    value : float
        The measure; NaN where it is undefined.
    interval : Interval
        How sure the value is, over tokens.
    null : Baseline
        The measure when all tokens of the second model are relabeled.
    stratified : Baseline or None
        The same when tokens are relabeled within strata only.
    n : int
        The tokens that the value is over.
    """

    value: float
    interval: Interval
    null: Baseline
    stratified: Baseline | None
    n: int

    @property
    def z(self) -> float:
        """How many of the null's standard deviations the value is above its mean."""
        return _z(self.value, self.null)

    @property
    def p(self) -> float:
        """Two-sided p-value of `z`, normal; not below 1 / (draws + 1) where the null was drawn."""
        return _p(self.value, self.null)

    @property
    def z_stratified(self) -> float:
        """`z` against the stratified null; NaN without strata."""
        return _z(self.value, self.stratified)

    @property
    def p_stratified(self) -> float:
        """`p` against the stratified null; NaN without strata."""
        return _p(self.value, self.stratified)

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.interval.high - self.interval.low) / 2.0

    @property
    def calibrated(self) -> float:
        """How far the value is on the way from the null's upper 95 % point to 1; 0 below that point.

        The calibrated score of Gröger, Wen & Brbić (2026), arXiv 2602.14486, with a normal null.
        """
        chance = self.null.mean + _ONE_SIDED * self.null.sd
        return max(0.0, (self.value - chance) / (1.0 - chance)) if chance < 1.0 else math.nan

    def text(self) -> str:
        """Return the value and the half-width of its interval, such as ``"0.3870 ± 0.0031"``.

        The half-width has two significant digits, and the value as many decimals.
        """
        half = self.half_width
        if not math.isfinite(self.value):
            return "undefined"
        if not (math.isfinite(half) and half > 0.0):
            return f"{self.value:.4f}"
        decimals = min(max(1 - math.floor(math.log10(float(f"{half:.1e}"))), 0), 9)
        return f"{self.value:.{decimals}f} ± {half:.{decimals}f}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, under the names that files have."""
        stratified = self.stratified or Baseline(math.nan, math.nan)
        return {
            "n": self.n,
            "value": self.value,
            "low": self.interval.low,
            "high": self.interval.high,
            "null_mean": self.null.mean,
            "null_sd": self.null.sd,
            "null_draws": self.null.draws,
            "z": self.z,
            "p": self.p,
            "stratified_mean": stratified.mean,
            "stratified_sd": stratified.sd,
            "stratified_draws": stratified.draws,
            "strata": stratified.strata,
            "z_stratified": self.z_stratified,
            "p_stratified": self.p_stratified,
            "calibrated": self.calibrated,
        }


def _z(value: float, null: Baseline | None) -> float:
    return (value - null.mean) / null.sd if null is not None and null.sd > 0.0 else math.nan


def _p(value: float, null: Baseline | None) -> float:
    if null is None or not null.sd > 0.0:
        return math.nan
    p = math.erfc(abs(_z(value, null)) / math.sqrt(2.0))
    return max(p, 1.0 / (null.draws + 1)) if null.draws else p


def holm(p_values: npt.ArrayLike) -> Float64Vector:
    """Return p-values adjusted for their number (Holm 1979); NaN stays, and does not count."""
    p = as_real_array(p_values, "p_values").astype(np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def global_similarity_estimate(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    center: bool,
    strata: npt.ArrayLike | None = None,
    threads: int | None = None,
    progress: Progress = False,
) -> Estimate:
    """Return `global_similarity` with its interval over tokens and its exact null baselines.

    Parameters
    ----------
    a, b, center, threads, progress
        As for `global_similarity`.
    strata : array_like of int, shape (n,), optional
        The stratum of each token, for the stratified null.
    """
    value = global_similarity(a, b, center=center, threads=resolve_threads(threads), progress=progress)
    x, y = as_matrix(a, "a").astype(np.float64), as_matrix(b, "b").astype(np.float64)
    labels = labels_of_strata(strata, len(x))
    used = x.any(axis=1) & y.any(axis=1)
    if flag(center, "center"):
        x, y = x - x[used].mean(axis=0), y - y[used].mean(axis=0)
        used &= x.any(axis=1) & y.any(axis=1)
    u, w = (z[used] / np.linalg.norm(z[used], axis=1)[:, None] for z in (x, y))
    m, v = u.mean(axis=0), w.mean(axis=0)
    e, f = u - m, w - v
    n = len(e)
    along = e @ m, f @ v
    crossed = [_row_terms(*pair) for pair in ((e, m, e, m), (e, m, f, v), (f, v, f, v))]
    aa, _, bb = (float(terms.sum()) for terms in crossed)
    squares = [n * n * float(s @ s) for s in along]
    scale = math.sqrt(aa * bb)
    null = Baseline(0.0, math.sqrt(symmetric_variance(n, (aa, bb), (squares[0], squares[1]))) / scale)
    stratified = None
    if labels is not None:
        parts = Strata.from_labels(labels[used])
        mean, variance = stratified_moments(e, m, f, v, parts)
        stratified = Baseline(mean / scale, math.sqrt(variance) / scale, strata=len(parts))
    # The projection of the U-statistic: what each token adds to numerator and denominators.
    share = crossed[1] / scale - value * (crossed[0] / aa + crossed[2] / bb) / 2.0
    error = 2.0 * math.sqrt(n / (n - 1.0) * float(np.sum((share - share.mean()) ** 2)))
    return Estimate(value, fisher_interval(value, error / max(1.0 - value**2, 1e-300)), null, stratified, n)


def _row_terms(e: Any, m: Any, f: Any, w: Any) -> Float64Vector:
    """Return the sum over j != i of y_ij y'_ij for each row i, y the cosines minus their mean over pairs."""
    n = len(e)
    s, t = e @ m, f @ w
    same = float(np.sum(e * e)) / n, float(np.sum(f * f)) / n
    everything = (
        n * s * t + float(s @ t) + e @ (e.T @ t) + f @ (f.T @ s) + np.sum((e @ (e.T @ f)) * f, axis=1)
    )
    result: Float64Vector = (
        everything - same[0] * same[1] + (n * (same[1] * s + same[0] * t) - same[0] * same[1]) / (n - 1.0)
    )
    return result


def overlap_estimate(
    neighbors_a: Neighbors | npt.ArrayLike,
    neighbors_b: Neighbors | npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
) -> Estimate:
    """Return the mean `neighbor_overlap` with its interval over tokens and its null baselines."""
    overlap = neighbor_overlap(neighbors_a, neighbors_b)
    lists = [_List(_indices(side), None) for side in (neighbors_a, neighbors_b)]
    scale = 1.0 / (len(overlap) * lists[0].indices.shape[1])
    return _list_estimate(overlap, lists, scale, (0.0, 1.0), strata, draws, seed, threads)


def weight_cosine_estimate(
    lle_a: LLE,
    lle_b: LLE,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
) -> Estimate:
    """Return the mean `weight_cosine` with its interval over tokens and its null baselines."""
    cosine = weight_cosine(lle_a, lle_b)
    lists, kept = [], 1.0
    for side in (lle_a, lle_b):
        weights = side.weights.astype(np.float64)
        norms = np.linalg.norm(weights, axis=1)
        defined = norms > 0.0
        kept *= float(defined.mean())
        unit = np.where(defined[:, None], weights / np.where(defined, norms, 1.0)[:, None], 0.0)
        lists.append(_List(side.indices, unit))
    # Where some tokens have no weights, the number of pairs that do is its mean under relabeling.
    scale = 1.0 / (len(cosine) * kept) if kept > 0.0 else math.nan
    return _list_estimate(cosine, lists, scale, (-1.0, 1.0), strata, draws, seed, threads)


def correlation_estimate(
    values_a: npt.ArrayLike,
    values_b: npt.ArrayLike,
    *,
    kind: Literal["pearson", "spearman"],
    strata: npt.ArrayLike | None = None,
) -> Estimate:
    """Return a correlation of one number for each token with its interval and its exact null baselines."""
    if kind not in ("pearson", "spearman"):
        raise InputError(f"kind = {kind!r} must be 'pearson' or 'spearman'")
    x, y = (as_real_array(v, "the values").astype(np.float64) for v in (values_a, values_b))
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(f"only vectors of one length can be correlated, not {x.shape} and {y.shape}")
    labels = labels_of_strata(strata, len(x))
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if kind == "spearman":
        x, y = ranks(x), ranks(y)
    value, n = pearson(x, y), len(x)
    null = Baseline(0.0, 1.0 / math.sqrt(n - 1.0) if n > 1 else math.nan)
    stratified = None
    if labels is not None and n > 1:
        parts = Strata.from_labels(labels[known])
        x, y = x - x.mean(), y - y.mean()
        mean, variance = vector_moments(x, y, parts)
        scale = float(np.linalg.norm(x) * np.linalg.norm(y)) or math.nan
        stratified = Baseline(mean / scale, math.sqrt(variance) / scale, strata=len(parts))
    factor = 1.0 + value**2 / 2.0 if kind == "spearman" else 1.0  # Bonett & Wright (2000)
    error = math.sqrt(factor / (n - 3.0)) if n > 3 else math.nan
    return Estimate(value, fisher_interval(value, error), null, stratified, n)


def fisher_interval(value: float, error: float) -> Interval:
    """Return the interval of a correlation from the standard error of its inverse hyperbolic tangent."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return Interval(math.nan, math.nan)
    if abs(value) >= 1.0:
        return Interval(value, value)
    middle = math.atanh(value)
    return Interval(math.tanh(middle - _QUANTILE * error), math.tanh(middle + _QUANTILE * error))


@dataclass(frozen=True)
class _List:
    """A directed relation: the neighbors of each token, with values, or 1 for each."""

    indices: npt.NDArray[Any]
    values: npt.NDArray[np.float64] | None

    def entries(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any], Float64Vector]:
        """Return token, neighbor and value of each entry."""
        n, k = self.indices.shape
        tokens, neighbors = np.repeat(np.arange(n), k), self.indices.ravel()
        kept = neighbors >= 0
        values = np.ones(kept.sum()) if self.values is None else self.values.ravel()[kept]
        return tokens[kept], neighbors[kept], values

    def directed(self) -> Directed:
        n = len(self.indices)
        tokens, neighbors, values = self.entries()
        outward = np.bincount(tokens, values, n)
        inward = np.bincount(neighbors, values, n)
        keys, mirrored = tokens.astype(np.int64) * n + neighbors, neighbors.astype(np.int64) * n + tokens
        order = np.argsort(keys)
        found = np.minimum(np.searchsorted(keys[order], mirrored), len(keys) - 1)
        mutual = np.where(keys[order][found] == mirrored, values[order][found], 0.0)
        return Directed(
            float(values.sum()), float(values @ values), float(values @ mutual),
            float(outward @ outward), float(inward @ inward), float(outward @ inward),
        )  # fmt: skip

    def sums_over_strata(self, numbers: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        tokens, neighbors, values = self.entries()
        keys = numbers[tokens] * count + numbers[neighbors]
        sums: npt.NDArray[np.float64] = np.bincount(keys, values, count * count).astype(np.float64)
        return sums.reshape(count, count)


def _list_estimate(
    per_token: Float64Vector, lists: list[_List], scale: float, bounds: tuple[float, float],
    strata: npt.ArrayLike | None, draws: int, seed: int, threads: int | None,
) -> Estimate:  # fmt: skip
    n = len(per_token)
    draws, generator = whole_number(draws, "draws", 2), np.random.default_rng(check_seed(seed))
    for side in lists:
        _check_square(side.indices, n)
    labels = labels_of_strata(strata, n)
    mean, variance = directed_moments(n, lists[0].directed(), lists[1].directed())
    null = Baseline(mean * scale, math.sqrt(variance) * scale)
    stratified = None
    if labels is not None:
        parts = Strata.from_labels(labels)
        a, b = lists
        sums = [side.sums_over_strata(parts.numbers, len(parts)) for side in lists]
        mean = stratified_mean(sums[0], sums[1], parts.sizes)
        drawn = np.array([_relabeled_agreement(a, b, parts.draw(generator, 1)[0]) for _ in range(draws)])
        stratified = Baseline(mean * scale, float(drawn.std(ddof=1)) * scale, draws, len(parts))
    known = per_token[~np.isnan(per_token)]
    value = float(known.mean()) if known.size else math.nan
    error = float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    low, high = value - _QUANTILE * error, value + _QUANTILE * error
    return Estimate(value, Interval(max(low, bounds[0]), min(high, bounds[1])), null, stratified, len(known))


def _relabeled_agreement(a: _List, b: _List, labels: npt.NDArray[np.int32]) -> float:
    """Return the sum of a_ij b_kl over the pairs, where k and l are the labels of i and j."""
    n = len(labels)
    (tokens_a, near_a, values_a), (tokens_b, near_b, values_b) = a.entries(), b.entries()
    keys_a = labels[tokens_a].astype(np.int64) * n + labels[near_a]
    keys_b = tokens_b.astype(np.int64) * n + near_b
    order = np.argsort(keys_b)
    found = np.minimum(np.searchsorted(keys_b[order], keys_a), len(keys_b) - 1)
    return float(values_a @ np.where(keys_b[order][found] == keys_a, values_b[order][found], 0.0))


def _indices(neighbors: Neighbors | npt.ArrayLike) -> npt.NDArray[Any]:
    return neighbors.indices if isinstance(neighbors, Neighbors) else as_integers(neighbors, "the neighbors")


def _check_square(indices: npt.NDArray[Any], n: int) -> None:
    if indices.max() >= n:
        raise InputError(
            f"neighbor {int(indices.max())} is not one of the {n} tokens: relabeling needs the neighbors of "
            "all tokens, numbered among them"
        )
    itself = indices == np.arange(n)[:, None]
    if itself.any():
        raise InputError(f"token {int(np.argmax(itself.any(axis=1)))} is among its own neighbors")


def labels_of_strata(strata: npt.ArrayLike | None, n: int) -> npt.NDArray[Any] | None:
    if strata is None:
        return None
    labels = as_integers(strata, "strata")
    if labels.shape != (n,):
        raise InputError(f"strata must be one number for each of the {n} tokens, not of shape {labels.shape}")
    return labels
