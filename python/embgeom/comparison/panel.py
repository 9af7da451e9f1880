"""Other measures of what two models share: CKA, RSA and Procrustes similarity."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import (
    Float32Matrix,
    Float32Vector,
    Float64Matrix,
    Float64Vector,
    RowNumbers,
    as_matrix,
)
from embgeom._common.checks import whole_number
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.threads import in_threads, one_blas_thread, resolve_threads
from embgeom.comparison.nulls import Baseline, Estimate, correlation_interval
from embgeom.comparison.products import (
    FEWEST_DRAWS,
    Pair,
    Relabeled,
    bilinear,
    check_rows,
    relabeled_norms,
    shift,
)
from embgeom.comparison.relabeling import (
    Strata,
    dominated,
    generator,
    labels_of_strata,
    stratified_mean,
    symmetric_variance,
)
from embgeom.errors import InputError
from embgeom.geometry.rows import mean_row

# Density of cosines is that over a hundredth of the pairs.
_WINDOWS = 200
_PAIRS_AT_A_TIME = 1 << 15  # so that what is computed of them stays in the cache
_ROUNDING = 1e-12
_RANKED_AT_A_TIME = 4  # relabelings, of 2 m^2 bytes each beside the 66 m^2 of two models' ranks


@one_blas_thread()
def panel_estimates(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    sample: int = 2000,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> dict[str, Estimate]:
    """Return `cka_estimate`, `rsa_estimate` and `procrustes_estimate` by the names of their measures.

    The products of the matrices, which CKA and Procrustes similarity share, are formed once.
    """

    def of_products() -> tuple[Estimate, Estimate]:
        products = _Products.from_arrays(a, b, strata, draws, seed, threads)
        return products.cka(), products.procrustes(draws, seed, threads)

    def of_ranks() -> tuple[Estimate]:
        return (rsa_estimate(a, b, strata=strata, sample=sample, seed=seed, threads=threads),)

    tasks: list[Callable[[], tuple[Estimate, ...]]] = [of_products, of_ranks]
    with reporter(progress, "panel") as report:
        (cka, procrustes), (rsa,) = in_threads(lambda measure: measure(), tasks, threads, report)
    return {"cka": cka, "rsa": rsa, "procrustes": procrustes}


@one_blas_thread()
def cka_estimate(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
) -> Estimate:
    """Return the debiased linear CKA of two models: 1 for equal inner products up to scale, 0 for unrelated.

    The unbiased HSIC (Song et al. 2012) of both over the root of the product of each one's with itself. Its
    null over all relabelings is exact: mean 0, standard deviation sqrt(2 / (n (n - 3))) (Székely & Rizzo
    2013); within strata the mean is. n (d_a + d_b)^2 / 2 multiply-adds, from 4096 rows on in float32.
    """
    return _Products.from_arrays(a, b, strata, draws, seed, threads).cka()


@one_blas_thread()
def procrustes_estimate(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
) -> Estimate:
    """Return how well one model is the other rotated, scaled and shifted, 1 for exactly (Schönemann 1966).

    The nuclear norm of the cross product of the centered matrices over their Frobenius norms. Above 4096
    tokens the cross product of a relabeling is drawn from the normal distribution that it tends to, with the
    exact covariance A'A x B'B / (n - 1), unless a few long rows keep it from tending there.
    """
    return _Products.from_arrays(a, b, strata, draws, seed, threads).procrustes(draws, seed, threads)


@dataclass(frozen=True)
class _Products:
    """Two matrices' products, and what relabeling makes of them: within strata, and of all tokens.

    The last only where few long rows make most of the measures, whose nulls are then far from normal.
    """

    pair: Pair
    within: Relabeled | None
    everything: Relabeled | None

    @classmethod
    def from_arrays(
        cls, a: npt.ArrayLike, b: npt.ArrayLike, strata: npt.ArrayLike | None, draws: int, seed: int,
        threads: int | None,
    ) -> _Products:  # fmt: skip
        pair = Pair.from_arrays(a, b, threads)
        labels = labels_of_strata(strata, len(pair))
        within = None if labels is None else Relabeled.draw(pair, labels, draws, seed, threads)
        few = dominated(pair.effective_n, len(pair))
        return cls(pair, within, Relabeled.of_all(pair, draws, seed, threads) if few else None)

    def cka(self) -> Estimate:
        pair, within = self.pair, self.within
        n, p, q = len(pair), pair.p, pair.q
        aa, ab, bb = (
            float(np.sum(products * products)) + _diagonal(one, other)
            for products, one, other in ((pair.xx, p, p), (pair.xy, p, q), (pair.yy, q, q))
        )
        # What is left of sums that cancel is rounding.
        least = [_ROUNDING * float(np.sum(products * products)) for products in (pair.xx, pair.yy)]
        if not (aa > least[0] and bb > least[1]):
            raise InputError("CKA is undefined: a matrix has no variance beyond that of single rows")
        scale = math.sqrt(aa * bb)
        value = min(max(ab / scale, -1.0), 1.0)
        terms = _cka_terms(pair)
        null = Baseline(0.0, math.sqrt(2.0 / (n * (n - 3.0))))
        if self.everything is not None:
            null = _counted(null, self.everything.hsic.ravel() / scale, value)
        share = terms[1] / scale - value * (terms[0] / aa + terms[2] / bb) / 2.0
        error = 2.0 * math.sqrt(n) * float(share.std(ddof=1))
        stratified = None
        if within is not None:
            sums = within.sums_over_strata(pair.x, p), within.sums_over_strata(pair.y, q)
            mean = stratified_mean(*sums, within.strata.sizes) / scale
            stratified = replace(_baseline(within.hsic / scale, len(within.strata)), mean=mean)
        return _of_rows(pair, value, error, null, stratified)

    def procrustes(self, draws: int, seed: int, threads: int | None) -> Estimate:
        pair, within, n = self.pair, self.within, len(self.pair)
        left, singular, right = np.linalg.svd(pair.xy, full_matrices=False)
        rotation = left @ right
        scale = math.sqrt(float(pair.p.sum()) * float(pair.q.sum()))
        value = min(float(singular.sum()) / scale, 1.0)
        share = bilinear(pair.x, rotation, pair.y, threads) / scale
        share -= value / 2.0 * (pair.p / pair.p.sum() + pair.q / pair.q.sum())
        error = math.sqrt(n) * float(share.std(ddof=1))
        stratified = None if within is None else _baseline(within.norms / scale, len(within.strata))
        if self.everything is not None:
            drawn = self.everything.norms.ravel() / scale
            null = _counted(_baseline(drawn), drawn, value)
        else:
            null = _baseline(relabeled_norms(pair, draws, seed, threads) / scale)
        found = _of_rows(pair, value, error, null, stratified)
        # A norm is not negative.
        return replace(found, interval=replace(found.interval, low=max(found.interval.low, 0.0)))


def _diagonal(p: Float64Vector, q: Float64Vector) -> float:
    """Return what U-centering two products adds to the squared norm of the cross product."""
    n = len(p)
    return float(p.sum() * q.sum() / ((n - 1.0) * (n - 2.0)) - n / (n - 2.0) * (p @ q))


def _cka_terms(pair: Pair) -> Float64Matrix:
    """Return the row sums of the products of U-centered products: of x with x, x with y, y with y."""
    (xx, xy, yy), p, q = pair.terms, pair.p, pair.q
    lengths = np.stack([p, q]).astype(np.float32) / np.float32(len(pair) - 2.0)
    # Centered rows sum to 0, but not when weighted by their squared lengths.
    (xp, xq), (yp, yq) = ((m @ (lengths @ m).T).T for m in (pair.x, pair.y))
    terms = (
        xx + 2.0 * xp + _diagonal_terms(p, p),
        xy + xq + yp + _diagonal_terms(p, q),
        yy + 2.0 * yq + _diagonal_terms(q, q),
    )
    return np.stack(terms)


def _correlation(value: float, error: float, null: Baseline, stratified: Baseline | None, n: int) -> Estimate:
    """Return the estimate of a measure of at most 1 with the given standard error."""
    return Estimate(value, correlation_interval(value, error), null, stratified, n)


def _of_rows(pair: Pair, value: float, error: float, null: Baseline, stratified: Baseline | None) -> Estimate:
    """Return the estimate of a measure in which rows count by their length."""
    n, few = len(pair), dominated(pair.effective_n, len(pair))
    found = _correlation(value, math.nan if few else error, null, stratified, n)
    return replace(found, effective_n=pair.effective_n)


def _baseline(drawn: npt.NDArray[np.float64], strata: int = 0) -> Baseline:
    """Return the mean and standard deviation of relabelings; those in different rows may depend on others."""
    variance = float(np.mean(drawn.var(axis=-1, ddof=1)))
    return Baseline(float(drawn.mean()), math.sqrt(variance), drawn.size, strata)


def _counted(null: Baseline, drawn: Float64Vector, value: float) -> Baseline:
    """Return a null whose p is the share of drawn relabelings that are as far from the mean."""
    beyond = np.count_nonzero(np.abs(drawn - null.mean) >= abs(value - null.mean))
    return replace(null, draws=len(drawn), beyond=int(beyond))


def _diagonal_terms(p: Float64Vector, q: Float64Vector) -> Float64Vector:
    """Return what squared lengths p, q of centered rows add to the row sums of two U-centered products."""
    # Row i of A_ij B_ij sums to that of A_ij (y_i y_j + q_j / (n - 2)) over j != i, as rows of A sum to 0.
    c = shift(p)
    with_products = 2.0 * c * q - p * q
    with_lengths = -p * q - c * (q.sum() - q) - (float(c @ q) - c * q)
    return np.asarray(with_products + with_lengths / (len(p) - 2.0))


@one_blas_thread()
def rsa_estimate(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    center: bool = True,
    strata: npt.ArrayLike | None = None,
    sample: int = 2000,
    seed: int = 0,
    threads: int | None = None,
) -> Estimate:
    """Return the Spearman correlation of all pairwise cosines of sampled tokens (Kriegeskorte et al. 2008).

    Rows that are zero in either matrix are not drawn. The null over all relabelings is exact. The interval is
    that of the U-statistic's projection on tokens, with the error of the ranks in it. For m sampled tokens
    O(m^2 (d_a + d_b + log m)) time and some 80 m^2 bytes.
    """
    x, y = as_matrix(a, "a"), as_matrix(b, "b")
    if len(x) != len(y):
        raise InputError(f"a has {len(x)} rows and b has {len(y)}: row i of both must be the same token")
    check_rows(x, "a")
    check_rows(y, "b")
    labels = labels_of_strata(strata, len(x))
    usable = np.flatnonzero(x.any(axis=1) & y.any(axis=1))
    whole_number(len(usable), "the number of rows with a direction", 4)
    m = min(whole_number(sample, "sample", 4), len(usable))
    choosing, within = generator(seed, "tokens of rsa"), generator(seed, "rsa")
    rows = np.sort(usable[choosing.choice(len(usable), m, replace=False)])
    means = [
        mean_row(z if len(usable) == len(z) else z[usable], threads) if center else np.zeros(z.shape[1])
        for z in (x, y)
    ]
    ranked_x, ranked_y = _Ranked.from_rows(x, rows, means[0]), _Ranked.from_rows(y, rows, means[1])
    for ranked, name in ((ranked_x, "a"), (ranked_y, "b")):
        if not ranked.ranks.any():
            raise InputError(f"all pairs of rows of {name} have the same cosine, so that none can be ranked")
    value = ranked_x.correlation(ranked_y)
    null = Baseline(0.0, _rank_null_sd(m, ranked_x, ranked_y))
    stratified = None
    if labels is not None:
        parts = Strata.from_labels(labels[usable])
        sampled = np.searchsorted(usable, rows)
        drawn = in_threads(
            lambda order: core.rank_correlation(
                _directions(y, usable[order[sampled]], means[1])[1], ranked_x.ranks, progress=None
            ),
            [parts.draw(within, 1)[0] for _ in range(FEWEST_DRAWS)],
            min(resolve_threads(threads), _RANKED_AT_A_TIME),
        )
        stratified = _baseline(np.array(drawn), len(parts))
    error = _rank_error(ranked_x, ranked_y, len(usable) if center else None)
    return _correlation(value, error, null, stratified, m)


@dataclass(frozen=True)
class _Ranked:
    """Cosines of all pairs i < j of m rows as ranks, centered, in units of the number of pairs.

    `order` sorts the pairs; `deviations` are the rows minus the mean, and `unit` these with length 1.
    """

    ranks: Float64Vector
    order: RowNumbers
    cosines: Float32Vector
    deviations: Float32Matrix
    unit: Float32Matrix

    @classmethod
    def from_rows(cls, matrix: Float32Matrix, rows: RowNumbers, mean: Float64Vector) -> _Ranked:
        deviations, unit = _directions(matrix, rows, mean)
        cosines = np.concatenate([of_row[i + 1 :] for i, of_row in enumerate(unit @ unit.T)])
        order, ranks = core.rank(cosines, progress=None)
        ranks += 0.5
        ranks /= len(ranks)
        ranks -= 0.5
        return cls(ranks, order, cosines, deviations.astype(np.float32), unit)

    def correlation(self, other: _Ranked) -> float:
        scale = math.sqrt(float(self.ranks @ self.ranks) * float(other.ranks @ other.ranks))
        return min(float(self.ranks @ other.ranks) / scale, 1.0) if scale > 0.0 else math.nan

    def above(self, values: Float64Vector) -> Float64Vector:
        """Return the mean over all pairs of `values` where the pair ranks higher, for each pair."""
        # Fresh memory takes longer than the sums.
        found = values[self.order]
        sums = found[::-1].cumsum()[::-1]
        found /= 2.0
        sums -= found
        sums /= len(values)
        found[self.order] = sums
        return found

    def effect_of_mean(self, other: Float64Vector) -> Float64Vector:
        """Return what each row does, as part of the mean, to the sum of products with other ranks.

        In units of one row of one: a row of n moves the mean by an n-th of its deviation.
        """
        # A pair's rank moves by the density of cosines times how far its cosine moves beyond those near it.
        count, m = len(self.order), len(self.unit)
        reach = max(count // _WINDOWS, 1)
        ordered, others, weights = self.cosines[self.order], other[self.order], np.empty(count)
        sums = np.concatenate(([0.0], np.cumsum(others)))
        for begin in range(0, count, _PAIRS_AT_A_TIME):
            at = np.arange(begin, min(begin + _PAIRS_AT_A_TIME, count))
            low, high = np.maximum(at - reach, 0), np.minimum(at + reach, count - 1)
            beyond = others[at] - (sums[high + 1] - sums[low]) / (high - low + 1)
            gap = np.subtract(ordered[high], ordered[low], dtype=np.float64)
            density = np.divide((high - low) / count, gap, out=np.zeros(len(at)), where=gap > 0.0)
            weights[self.order[at]] = beyond * density
        lengths = np.linalg.norm(self.deviations.astype(np.float64), axis=1)
        inverse = np.divide(1.0, lengths, out=np.zeros(m), where=lengths > 0.0)
        along = _row_sums(m, weights * self.cosines)
        slope = (_row_sums(m, weights, inverse) - along * inverse) @ self.unit
        return np.asarray(-self.deviations @ slope, dtype=np.float64)


def _directions(
    matrix: Float32Matrix, rows: RowNumbers, mean: Float64Vector
) -> tuple[Float64Matrix, Float32Matrix]:
    """Return some rows minus the mean, and these with length 1."""
    deviations = matrix[rows] - mean
    lengths = np.sqrt(np.einsum("ij,ij->i", deviations, deviations))
    unit = np.empty(deviations.shape, dtype=np.float32)
    np.divide(deviations, np.where(lengths > 0.0, lengths, 1.0)[:, None], out=unit, casting="same_kind")
    return deviations, unit


def _row_sums(m: int, pairs: Float64Vector, factors: Float64Vector | None = None) -> Float64Vector:
    """Return the sum over j of a symmetric matrix, whose pairs i < j are given, times factors of j or 1."""
    sums, begin, of = np.zeros(m), 0, np.ones(m) if factors is None else factors
    for i in range(m - 1):
        of_row = pairs[begin : begin + m - 1 - i]
        sums[i] += of_row @ of[i + 1 :]
        sums[i + 1 :] += of_row * of[i]
        begin += len(of_row)
    return sums


def _rank_null_sd(m: int, x: _Ranked, y: _Ranked) -> float:
    squares = tuple(2.0 * float(side.ranks @ side.ranks) for side in (x, y))
    row_squares = tuple(float(np.sum(_row_sums(m, side.ranks) ** 2)) for side in (x, y))
    scale = math.sqrt(squares[0] * squares[1])
    variance = symmetric_variance(m, (squares[0], squares[1]), (row_squares[0], row_squares[1]))
    return math.sqrt(variance) / scale if scale > 0.0 else math.nan


def _rank_error(x: _Ranked, y: _Ranked, n: int | None) -> float:
    """Return the standard error of a rank correlation of pairs, over tokens; n of them make the mean."""
    # A pair moves it by its own product of ranks and by moving the ranks of the pairs above it.
    moved = x.ranks * y.ranks
    moved += x.above(y.ranks)
    moved += y.above(x.ranks)
    m, scale = len(x.unit), math.sqrt(float(x.ranks @ x.ranks) * float(y.ranks @ y.ranks))
    if not scale > 0.0:
        return math.nan
    share = 2.0 * _row_sums(m, moved) * len(x.ranks) / (m - 1.0) / scale
    if n is None:
        return float(share.std(ddof=1)) / math.sqrt(m)
    # Tokens beyond the sample move only the mean.
    of_mean = (x.effect_of_mean(y.ranks) + y.effect_of_mean(x.ranks)) / scale
    both = float((share + m / n * of_mean).var(ddof=1)) / m
    return math.sqrt(both + (n - m) / n**2 * float(of_mean.var(ddof=1)))
