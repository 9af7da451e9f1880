"""Null baselines and confidence intervals of every measure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector, IndexMatrix, as_neighbor_list, as_real_array
from embgeom._common.checks import whole_number
from embgeom._common.progress import Progress
from embgeom._common.tables import plus_minus
from embgeom._common.threads import one_blas_thread, resolve_threads
from embgeom.comparison.relabeling import (
    Relation,
    Strata,
    check_square,
    directed_moments,
    dominated,
    error_of_lists,
    error_of_neighborhoods,
    generator,
    labels_of_strata,
    relabeled_agreement,
    stratified_mean,
    stratified_moments,
    symmetric_variance,
    vector_moments,
)
from embgeom.errors import InputError
from embgeom.geometry.agreement import neighbor_overlap, pearson, ranks, weight_cosine
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE
from embgeom.geometry.similarity import similarity_terms

LEAST_P = 1e-16  # no null is normal farther out
NORMAL_QUANTILE = 1.959963984540054  # an interval of 95 % is a value ± this many standard errors
# Intervals of dimensions held the truth in 91 % of the cases with 8 neighborhoods of tokens that are unevenly
# spread, and in 92 to 93 % with 16 (benchmarks/coverage.py --tokens).
FEW_NEIGHBORHOODS = 15.0
_ONE_SIDED = 1.6448536269514722  # the normal distribution's 95 % point
# Products are of float32: a null's standard deviation that is a smaller share of its mean is rounding.
_ROUNDING = 1e-7
_LEAST_ROOM = 1e-5  # below 1 - value^2, what float32 leaves of it decides on Fisher's scale


@dataclass(frozen=True)
class Baseline:
    """A measure when the tokens of the second model are relabeled at random.

    Attributes
    ----------
    mean, sd : float
        Over all relabelings, or over `draws` of them.
    draws : int
        How many relabelings the standard deviation or `beyond` is from; 0 where it is in closed form.
        The mean is exact, but for Procrustes similarity, and RSA within strata: there it is from them, too.
    strata : int
        0 where all tokens are exchanged; otherwise they are exchanged within this many strata. A stratum of
        one token keeps it.
    beyond : int or None
        How many drawn relabelings are as far from the mean as the value; None where the null is normal.
    """

    mean: float
    sd: float
    draws: int = 0
    strata: int = 0
    beyond: int | None = None


@dataclass(frozen=True)
class Interval:
    """A 95 % confidence interval over tokens: the tokens are a sample of those that could be."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A measure's value with its confidence interval and its null baselines.

    Attributes
    ----------
    value : float
        The measure; NaN where it is undefined.
    interval : Interval
        How sure the value is, over tokens; NaN where none is known that holds 95 % (see `few_rows`).
    null : Baseline
        The measure when all tokens of the second model are relabeled.
    stratified : Baseline or None
        The same when tokens are relabeled within strata only.
    n : int
        The tokens that the value is over.
    effective_n : float or None
        The effective sample size (sum p)^2 / sum p^2 of squared row lengths p, in the model where it is less;
        None where tokens count alike.
    neighborhoods : float or None
        n / (k + 1), where numbers were measured over neighborhoods of k.
    """

    value: float
    interval: Interval
    null: Baseline
    stratified: Baseline | None
    n: int
    effective_n: float | None = None
    neighborhoods: float | None = None

    @property
    def few_rows(self) -> bool:
        """Whether few long rows make most of the value, which has no interval then."""
        return self.effective_n is not None and dominated(self.effective_n, self.n)

    @property
    def few_neighborhoods(self) -> bool:
        """Whether tokens have so many neighbors that the interval holds the truth in less than 95 %."""
        return self.neighborhoods is not None and self.neighborhoods < FEW_NEIGHBORHOODS

    @property
    def z(self) -> float:
        """How many of the null's standard deviations the value is above its mean."""
        return _z(self.value, self.null)

    @property
    def p(self) -> float:
        """Two-sided p-value of `z`: normal where the null is exact, Student's t where it is drawn.

        Not below 1e-16. Where few long rows make most of the value, the share of relabelings that are as far
        from the mean, which is not below 1 / (draws + 1).
        """
        return _p(self.value, self.null)

    @property
    def z_stratified(self) -> float:
        """`z` against the stratified null; NaN without strata, or where they leave nothing to relabel."""
        return _z(self.value, self.stratified)

    @property
    def p_stratified(self) -> float:
        """`p` against the stratified null; NaN without strata, or where they leave nothing to relabel."""
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
        bound = self.null.mean + _ONE_SIDED * self.null.sd
        return max(0.0, (self.value - bound) / (1.0 - bound)) if bound < 1.0 else math.nan

    def text(self) -> str:
        """Return the value and its half-width, such as ``"0.3870 ± 0.0031"`` or ``"0.39 (no interval)"``."""
        return plus_minus(self.value, self.half_width)

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
            "effective_n": math.nan if self.effective_n is None else self.effective_n,
            "neighborhoods": math.nan if self.neighborhoods is None else self.neighborhoods,
        }


def _z(value: float, null: Baseline | None) -> float:
    return (value - null.mean) / null.sd if null is not None and _varies(null) else math.nan


def _p(value: float, null: Baseline | None) -> float:
    if null is None or not _varies(null):
        return math.nan
    if null.beyond is not None:
        return (null.beyond + 1.0) / (null.draws + 1.0)
    z = abs(_z(value, null))
    if null.draws > 1:
        # The standard deviation of some draws errs, and so may their mean.
        return max(_student_p(z / math.sqrt(1.0 + 1.0 / null.draws), null.draws - 1), LEAST_P)
    return max(math.erfc(z / math.sqrt(2.0)), LEAST_P)


def _student_p(t: float, degrees: int) -> float:
    """Return the two-sided p-value of Student's t, by the series of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(degrees))
    square, even = math.cos(angle) ** 2, degrees % 2 == 0
    term = total = 1.0 if even else math.cos(angle)
    for step in range(2 if even else 3, degrees, 2):
        term *= square * (step - 1) / step
        total += term
    inside = math.sin(angle) * total
    if even:
        return 1.0 - inside
    return 1.0 - 2.0 / math.pi * (angle + (inside if degrees > 1 else 0.0))


def _varies(null: Baseline) -> bool:
    return null.sd > _ROUNDING * abs(null.mean)


def holm(p_values: npt.ArrayLike) -> Float64Vector:
    """Return p-values adjusted for their number (Holm 1979); NaN stays, and does not count."""
    p = as_real_array(p_values, "p_values").astype(np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


@one_blas_thread()
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

    Returns
    -------
    Estimate
        Over the tokens whose rows have a direction in both matrices.

    Notes
    -----
    Nothing is drawn: docs/numerics.md has the formulas. As long again as `global_similarity`; with G strata
    n d^2 + G^2 d^2 / 4 multiply-adds and 64 MiB more for each matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.comparison.nulls import global_similarity_estimate
    >>> a = np.random.default_rng(0).standard_normal((500, 4))
    >>> estimate = global_similarity_estimate(a, a**3, center=True)
    >>> estimate.text(), round(estimate.null.sd, 4)
    ('0.765 ± 0.084', 0.0027)
    """
    terms = similarity_terms(a, b, center=center, threads=threads, progress=progress)
    labels = labels_of_strata(strata, len(terms.a.inverse))
    used, value, (aa, _, bb) = terms.used, terms.value, terms.total
    n, scale = len(used), math.sqrt(aa * bb)
    rows = [float(n * n) * float(along @ along) for along in terms.along]
    null = Baseline(0.0, math.sqrt(symmetric_variance(n, (aa, bb), (rows[0], rows[1]))) / scale)
    stratified = None
    if labels is not None:
        parts = Strata.from_labels(labels[used])
        mean, variance = stratified_moments(terms, parts, resolve_threads(threads))
        stratified = Baseline(mean / scale, math.sqrt(variance) / scale, strata=len(parts))
    # The projection of the U-statistic: what each token adds to the numerator and to the denominators.
    of_aa, of_ab, of_bb = (sums[used] for sums in terms.sums)
    share = 2.0 * of_ab / scale - value * (of_aa / aa + of_bb / bb)
    if terms.centering is not None:
        share += terms.centering[used]
    error = math.sqrt(n / (n - 1.0) * float(np.sum((share - share.mean()) ** 2)))
    return Estimate(value, correlation_interval(value, error), null, stratified, n)


@one_blas_thread()
def overlap_estimate(
    neighbors_a: Neighbors | npt.ArrayLike,
    neighbors_b: Neighbors | npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Estimate:
    """Return the mean `neighbor_overlap` with its interval over tokens and its null baselines.

    Parameters
    ----------
    neighbors_a, neighbors_b : Neighbors or array_like of int, shape (n, k)
        The neighbors of all n tokens, numbered among these, in either model.
    strata : array_like of int, shape (n,), optional
        The stratum of each token, for the stratified null.
    draws, seed : int
        How many relabelings within strata the standard deviation of the stratified null is from, and the seed
        that they are drawn with. Everything else is exact.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    Estimate
        Over all n tokens.

    Raises
    ------
    InputError
        If the lists do not belong to the same tokens, or name one that is not among them.

    Notes
    -----
    O(n k log k) time, and O(n k) for each draw. The interval allows for tokens being neighbors of others.
    """
    overlap = neighbor_overlap(neighbors_a, neighbors_b, threads=threads)
    lists = [Relation(_indices(side), None) for side in (neighbors_a, neighbors_b)]
    scale = 1.0 / (len(overlap) * lists[0].indices.shape[1])
    return _list_estimate(overlap, lists, scale, (0.0, 1.0), strata, draws, seed, threads, progress)


@one_blas_thread()
def weight_cosine_estimate(
    lle_a: LLE,
    lle_b: LLE,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Estimate:
    """Return the mean `weight_cosine` with its interval over tokens and its null baselines.

    Parameters
    ----------
    lle_a, lle_b : LLE, of n tokens
        The weights of all n tokens over neighbors that are numbered among these, in either model. Tokens
        without weights in one of them are left out.
    strata, draws, seed, threads, progress
        As for `overlap_estimate`, like everything else.
    """
    cosine = weight_cosine(lle_a, lle_b, threads=threads)
    lists = [Relation.from_weights(_indices(side.indices), side.weights) for side in (lle_a, lle_b)]
    # Where some tokens have no weights, the number of pairs that do is its mean under relabeling.
    kept = math.prod(float((side.scales > 0.0).mean()) for side in lists if side.scales is not None)
    scale = 1.0 / (len(cosine) * kept) if kept > 0.0 else math.nan
    return _list_estimate(cosine, lists, scale, (-1.0, 1.0), strata, draws, seed, threads, progress)


@one_blas_thread()
def correlation_estimate(
    values_a: npt.ArrayLike,
    values_b: npt.ArrayLike,
    *,
    kind: Literal["pearson", "spearman"],
    strata: npt.ArrayLike | None = None,
    neighbors: tuple[Neighbors | npt.ArrayLike, Neighbors | npt.ArrayLike] | None = None,
) -> Estimate:
    """Return a correlation of one number for each token with its interval and its exact null baselines.

    Parameters
    ----------
    values_a, values_b : array_like, shape (n,)
        The numbers, such as intrinsic dimensions; tokens for which either is NaN are left out.
    kind : {"pearson", "spearman"}
        Of the numbers or of their ranks.
    strata : array_like of int, shape (n,), optional
        The stratum of each token, for the stratified null.
    neighbors : pair of Neighbors or array_like of int, shapes (n, k), optional
        The neighbors that each model's numbers were computed from, which may be of some rows only
        (``Neighbors.rows``). Tokens that share neighbors have numbers that err together, and the interval
        then allows for that; without, tokens count as independent.

    Returns
    -------
    Estimate

    Raises
    ------
    InputError
        If the shapes differ, or `kind` is unknown.

    Notes
    -----
    The interval is Fisher's, for ranks with the variance of Bonett & Wright (2000); with `neighbors`, that
    of values whose covariance is proportional to the number of neighbors that two tokens share, where it is
    larger. It assumes many more tokens than neighbors, and is all of [-1, 1] where every token is a neighbor
    of every other. O(n log n + n k) time.

    Examples
    --------
    >>> from embgeom.comparison.nulls import correlation_estimate
    >>> correlation_estimate(range(40), [x % 7 + x for x in range(40)], kind="pearson").text()
    '0.9862 ± 0.0094'
    """
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
    if not math.isfinite(value):
        return Estimate(value, Interval(value, value), Baseline(value, value), None, n)
    null, stratified = Baseline(0.0, 1.0 / math.sqrt(n - 1.0)), None
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    if labels is not None:
        parts = Strata.from_labels(labels[known])
        mean, variance = vector_moments(x, y, parts)
        stratified = Baseline(mean, math.sqrt(variance), strata=len(parts))
    factor = 1.0 + value**2 / 2.0 if kind == "spearman" else 1.0  # Bonett & Wright (2000)
    error, neighborhoods = math.sqrt(factor / (n - 3.0)) if n > 3 else math.nan, None
    if neighbors is not None and abs(value) < 1.0:
        effect = np.zeros(len(known))
        effect[known] = x * y - value * (x**2 + y**2) / 2.0
        rows = (side.rows if isinstance(side, Neighbors) else None for side in neighbors)
        lists = zip(map(_indices, neighbors), rows, strict=True)
        shared, counts = zip(*(error_of_neighborhoods(effect, *side) for side in lists), strict=True)
        neighborhoods = min(counts)
        if 1.0 - value**2 >= _LEAST_ROOM:
            error = max(error, max(shared) / (1.0 - value**2))
    interval = fisher_interval(value, error)
    return Estimate(value, interval, null, stratified, n, neighborhoods=neighborhoods)


def correlation_interval(value: float, error: float) -> Interval:
    """Return Fisher's interval of a correlation from the standard error of the correlation itself."""
    room = 1.0 - value**2
    if room < _LEAST_ROOM:
        # Rounding decides on the inverse hyperbolic tangent of what is so near to 1.
        reach = NORMAL_QUANTILE * error
        return Interval(max(value - reach, -1.0), min(value + reach, 1.0))
    return fisher_interval(value, error / room)


def fisher_interval(value: float, error: float) -> Interval:
    """Return the interval of a correlation from the standard error of its inverse hyperbolic tangent."""
    if math.isnan(value) or math.isnan(error):
        return Interval(math.nan, math.nan)
    if abs(value) >= 1.0:
        return Interval(value, value)
    middle = math.atanh(value)
    return Interval(math.tanh(middle - NORMAL_QUANTILE * error), math.tanh(middle + NORMAL_QUANTILE * error))


def _list_estimate(
    per_token: Float64Vector, lists: list[Relation], scale: float, bounds: tuple[float, float],
    strata: npt.ArrayLike | None, draws: int, seed: int, threads: int | None, progress: Progress,
) -> Estimate:  # fmt: skip
    n = len(per_token)
    draws, random = whole_number(draws, "draws", 2), generator(seed, "lists")
    for side in lists:
        check_square(side.indices, n)
    labels = labels_of_strata(strata, n)
    mean, variance = directed_moments(n, lists[0].directed(), lists[1].directed())
    null = Baseline(mean * scale, math.sqrt(variance) * scale)
    stratified = None
    if labels is not None:
        parts = Strata.from_labels(labels)
        a, b = lists
        sums = [side.sums_over_strata(parts.numbers, len(parts)) for side in lists]
        mean = stratified_mean(sums[0], sums[1], parts.sizes)
        common: dict[str, Any] = {"threads": resolve_threads(threads), "progress": progress}
        drawn = relabeled_agreement(a, b, parts, draws, random, **common)
        stratified = Baseline(mean * scale, float(drawn.std(ddof=1)) * scale, draws, len(parts))
    known = per_token[~np.isnan(per_token)]
    value = float(known.mean()) if known.size else math.nan
    error = error_of_lists(lists[0], lists[1], per_token, threads)
    low, high = value - NORMAL_QUANTILE * error, value + NORMAL_QUANTILE * error
    return Estimate(value, Interval(max(low, bounds[0]), min(high, bounds[1])), null, stratified, len(known))


def _indices(neighbors: Neighbors | npt.ArrayLike) -> IndexMatrix:
    listed = neighbors.indices if isinstance(neighbors, Neighbors) else neighbors
    return as_neighbor_list(listed, 1 << 31)
