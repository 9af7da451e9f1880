"""Null baselines against every relabeling of few tokens, intervals against their definition."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student

import embgeom
from benchmarks import coverage
from embgeom._common.threads import in_threads
from embgeom.comparison import relabeling as moments
from embgeom.comparison.nulls import (
    Baseline,
    Estimate,
    Interval,
    correlation_estimate,
    global_similarity_estimate,
    holm,
    overlap_estimate,
    weight_cosine_estimate,
)
from embgeom.comparison.statistic import Statistic
from embgeom.errors import InputError
from embgeom.geometry.agreement import neighbor_overlap, pearson, spearman, weight_cosine
from tests.oracles import relabeling

strata_of_few = st.lists(st.integers(0, 2), min_size=4, max_size=5).map(np.array)


def pair(n, seed=0, d_a=5, d_b=4):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, d_a)) + rng.standard_normal(d_a)
    b = rng.standard_normal((n, d_b)) + a[:, :1]
    return a.astype(np.float32), b.astype(np.float32)


def close(baseline, values, rtol=1e-6):
    assert baseline.draws == 0
    np.testing.assert_allclose(baseline.mean, values.mean(), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(baseline.sd, values.std(), rtol=rtol, atol=rtol)


@given(strata_of_few, st.booleans(), st.integers(0, 99))
def test_global_similarity_over_every_relabeling(strata, center, seed):
    a, b = pair(len(strata), seed)
    estimate = global_similarity_estimate(a, b, center=center, strata=strata)
    x, y = (relabeling.cosines(side, center) for side in (a, b))
    off = ~np.eye(len(x), dtype=bool)
    scale = math.sqrt((x[off] ** 2).sum() * (y[off] ** 2).sum())
    everyone = relabeling.every_relabeling(np.zeros_like(strata))
    close(estimate.null, relabeling.agreements(x, y, everyone) / scale)
    close(estimate.stratified, relabeling.agreements(x, y, relabeling.every_relabeling(strata)) / scale)
    assert estimate.stratified.strata == len(np.unique(strata))
    assert estimate.value == embgeom.global_similarity(a, b, center=center)


@given(strata_of_few, st.integers(1, 3), st.integers(0, 99))
def test_lists_over_every_relabeling(strata, k, seed):
    n = len(strata)
    a, b = pair(n, seed)
    lists = [embgeom.knn(side, k) for side in (a, b)]
    every = [relabeling.every_relabeling(labels) for labels in (np.zeros_like(strata), strata)]
    x, y = (relabeling.matrix_of(side.indices) for side in lists)
    estimate = overlap_estimate(*lists, strata=strata, draws=50)
    close(estimate.null, relabeling.agreements(x, y, every[0]) / (n * k))
    assert estimate.stratified.mean == pytest.approx(relabeling.agreements(x, y, every[1]).mean() / (n * k))
    weights = [embgeom.lle(side, near) for side, near in zip((a, b), lists, strict=True)]
    x, y = (
        relabeling.matrix_of(w.indices, w.weights / np.linalg.norm(w.weights.astype(float), axis=1)[:, None])
        for w in weights
    )
    estimate = weight_cosine_estimate(*weights, strata=strata, draws=50)
    close(estimate.null, relabeling.agreements(x, y, every[0]) / n)
    assert estimate.stratified.mean == pytest.approx(
        relabeling.agreements(x, y, every[1]).mean() / n,
        abs=1e-7,  # weights are float32
    )
    assert estimate.value == weight_cosine(*weights).mean()


@given(strata_of_few, st.integers(0, 99), st.sampled_from(["pearson", "spearman"]))
def test_correlation_over_every_relabeling(strata, seed, kind):
    x, y = np.random.default_rng(seed).integers(0, 9, (2, len(strata)))
    correlate = {"pearson": pearson, "spearman": spearman}[kind]
    estimate = correlation_estimate(x, y, kind=kind, strata=strata)
    if math.isnan(correlate(x, y)):
        assert math.isnan(estimate.value) and math.isnan(estimate.stratified.mean)
        return
    for labels, baseline in ((np.zeros_like(strata), estimate.null), (strata, estimate.stratified)):
        close(baseline, np.array([correlate(x, y[p]) for p in relabeling.every_relabeling(labels)]))
    assert estimate.value == correlate(x, y)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("family", coverage.FAMILIES)
def test_exact_nulls_agree_with_5000_permutations(family, center):
    n, count = 60, 5000
    a, b = coverage.pair(family, 3, n)
    strata = np.random.default_rng(0).integers(0, 7, n)
    estimate = global_similarity_estimate(a, b, center=center, strata=strata)
    x, y = (relabeling.cosines(side, center) for side in (a, b))
    off = ~np.eye(n, dtype=bool)
    scale = math.sqrt((x[off] ** 2).sum() * (y[off] ** 2).sum())
    for labels, null in ((np.zeros(n, int), estimate.null), (strata, estimate.stratified)):
        drawn = relabeling.random_relabelings(labels, count, np.random.default_rng(1))
        values = relabeling.agreements(x, y, drawn) / scale
        assert abs(values.mean() - null.mean) < 4 * null.sd / math.sqrt(count)
        # The sd of a sample's sd, from its own fourth moment, which is large where the null is skewed.
        kurtosis = np.mean((values - values.mean()) ** 4) / values.var() ** 2
        assert abs(values.std() / null.sd - 1) < 4 * math.sqrt((kurtosis - 1) / 4 / count)


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(
    "family", ["gaussian", *(pytest.param(f, marks=pytest.mark.slow) for f in list(coverage.FAMILIES)[1:])]
)
def test_standard_errors_agree_with_fresh_draws(family, center):
    draws = 150 if family == "gaussian" else 500
    estimates = [
        global_similarity_estimate(*coverage.pair(family, i, 400), center=center) for i in range(draws)
    ]
    spread = np.std([e.value for e in estimates], ddof=1)
    error = np.mean([e.half_width for e in estimates]) / 1.959964
    # An sd of that many draws errs by 1 / sqrt(2 draws), six to three percent, the rest is of order 1 / n;
    # on heavy-tailed norms the error is too large by up to an eighth.
    assert spread / error == pytest.approx(1, abs=0.2 if draws == 150 else 0.16)


def test_drawn_sd_agrees_with_relabelings():
    rng = np.random.default_rng(5)
    a, b = pair(80, 5)
    lists, strata = [embgeom.knn(side, 6) for side in (a, b)], rng.integers(0, 3, 80)
    x, y = (relabeling.matrix_of(side.indices) for side in lists)
    values = relabeling.agreements(x, y, relabeling.random_relabelings(strata, 2000, rng)) / (80 * 6)
    estimate = overlap_estimate(*lists, strata=strata, draws=400)
    assert estimate.stratified.sd == pytest.approx(values.std(), rel=0.15)  # 1 / sqrt(2 * 400) is 3.5 %
    assert estimate.stratified.draws == 400 and estimate.p_stratified >= 1 / 401
    assert estimate.stratified == overlap_estimate(*lists, strata=strata, draws=400).stratified
    assert estimate.stratified.sd != overlap_estimate(*lists, strata=strata, draws=400, seed=1).stratified.sd


@pytest.mark.parametrize("pieces", [(1, 1), (7, 40), (1 << 20, 1 << 22)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_of_lists_do_not_depend_on_pieces(monkeypatch, pieces, weighted):
    monkeypatch.setattr(moments, "_ENTRIES_AT_A_TIME", pieces[0])
    monkeypatch.setattr(moments, "_MUTUAL_AT_A_TIME", pieces[1])
    n, rng = 50, np.random.default_rng(3)
    lists = embgeom.knn(pair(n)[0], 6).indices.copy()
    lists[rng.random(lists.shape) < 0.1] = -1
    values = rng.standard_normal(lists.shape, np.float32) if weighted else None
    dense, strata = np.zeros((n, n)), np.arange(n) % 4
    token, place = np.nonzero(lists >= 0)
    dense[token, lists[token, place]] = values[token, place] if weighted else 1.0
    side = moments.Relation(lists, values)
    found, out, into = side.measured(), dense.sum(axis=1), dense.sum(axis=0)
    wanted = (dense.sum(), (dense**2).sum(), (dense * dense.T).sum(), out @ out, into @ into, out @ into)
    np.testing.assert_allclose([*vars(found).values()], wanted, rtol=1e-12)
    blocks = [[dense[np.ix_(strata == g, strata == h)].sum() for h in range(4)] for g in range(4)]
    np.testing.assert_allclose(side.sums_over_strata(strata, 4), blocks, rtol=1e-12, atol=1e-12)


def test_sums_of_lists_are_kept_by_what_they_hold(monkeypatch):
    near = [embgeom.knn(side, 5).indices for side in pair(60)]
    kept = [moments.Relation(lists, None).directed() for lists in near]
    monkeypatch.setattr(moments.Relation, "measured", None)
    assert [moments.Relation(lists.copy(), None).directed() for lists in near] == kept
    assert kept[0] != kept[1]


def test_sums_of_lists_are_kept_from_many_threads_at_once():
    lists = [np.array([[1 + i % 7], [0], *[[i // 7 % 9]] * 8], dtype=np.int32) for i in range(63)]
    relations = [
        moments.Relation(each, np.full(each.shape, value, np.float32))
        for each in lists
        for value in range(1, 7)
    ]
    assert len(relations) > moments._MOST_SUMS
    wanted = [side.measured() for side in relations]
    assert in_threads(moments.Relation.directed, relations * 3, 16) == wanted * 3
    assert len(moments._SUMS_OF) <= moments._MOST_SUMS


def test_sums_of_scaled_lists_are_others():
    lists, values = np.array([[1], [2], [0]], np.int32), np.full((3, 1), 2, np.float32)
    scaled = moments.Relation.from_weights(lists, values)
    assert (moments.Relation(lists, values).directed().total, scaled.directed().total) == (6.0, 3.0)


def test_long_lists_take_memory_for_a_piece_of_them(monkeypatch):
    monkeypatch.setattr(moments, "_ENTRIES_AT_A_TIME", 1 << 14)
    monkeypatch.setattr(moments, "_MUTUAL_AT_A_TIME", 1 << 16)
    n, offsets = 4000, np.r_[1:151, -150:0]
    side = moments.Relation(((np.arange(n)[:, None] + offsets) % n).astype(np.int32), None)
    tracemalloc.start()
    found = side.measured()
    side.sums_over_strata(np.arange(n) // 1000, 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.mutual == found.total == side.indices.size
    # 40 bytes for each entry of the larger piece; all 1.2 million entries would take 48 MB.
    assert peak < 80 * (1 << 16)


def cosine_and_effects(a, b):
    """Cosines of the rows of two matrices, and what each token adds as a row and as a column."""
    a, b = (m / np.linalg.norm(m, axis=1)[:, None] for m in (a, b))
    cosines = (a * b).sum(axis=1)
    adds = a * b - cosines[:, None] * (a**2 + b**2) / 2
    return cosines, cosines - cosines.mean() + adds.sum(axis=0), adds


def test_intervals_of_lists():
    n = 300
    a, b = pair(n, 1)
    lists = [embgeom.knn(side, 8) for side in (a, b)]
    weights = [embgeom.lle(side, near) for side, near in zip((a, b), lists, strict=True)]
    for estimate, matrices in (
        (overlap_estimate(*lists), [relabeling.matrix_of(near.indices) for near in lists]),
        (weight_cosine_estimate(*weights), [relabeling.matrix_of(w.indices, w.weights) for w in weights]),
    ):
        cosines, effects, adds = cosine_and_effects(*matrices)
        assert estimate.value == pytest.approx(cosines.mean()) and estimate.stratified is None
        error = math.sqrt(((effects**2).sum() - (adds**2).sum()) / (n * (n - 1)))
        assert estimate.half_width == pytest.approx(1.959964 * error, rel=1e-5)
    assert overlap_estimate(*lists).value == neighbor_overlap(*lists).mean()


def test_tokens_without_weights_are_left_out():
    a, b = pair(40, 2)
    a[7] = 0
    weights = [embgeom.lle(side, embgeom.knn(side, 3)) for side in (a, b)]
    estimate = weight_cosine_estimate(*weights, strata=np.arange(40) % 2, draws=20)
    assert estimate.n == 39 and estimate.value == np.nanmean(weight_cosine(*weights))
    unknown = {name for name, value in estimate.to_dict().items() if not math.isfinite(value)}
    assert unknown == {"effective_n", "neighborhoods"}


def test_numbers_of_tokens_that_share_neighbors_err_together():
    rng = np.random.default_rng(0)
    group = np.arange(200) // 10  # groups of ten tokens, whose neighbors are one another
    lists = np.array([np.flatnonzero((group == g) & (np.arange(200) != i)) for i, g in enumerate(group)])
    x, y = rng.standard_normal((2, 20))[:, group]
    kinds = ("pearson", "spearman")
    alone, together = (
        [correlation_estimate(x, y, kind=kind, neighbors=near) for kind in kinds]
        for near in (None, (lists, lists))
    )
    for one, other in zip(alone, together, strict=True):
        assert other.value == one.value and other.null == one.null
        # As sure as twenty tokens allow, not two hundred.
        assert 2 < other.half_width / one.half_width < 4.5
    with pytest.raises(InputError, match="those of 200 tokens, but there are 100 values"):
        correlation_estimate(x[:100], y[:100], kind="pearson", neighbors=(lists, lists))


@pytest.mark.parametrize("some", [None, 40])
def test_the_interval_is_that_of_shared_neighbors_written_out(some):
    rng = np.random.default_rng(2)
    base = rng.standard_normal((90, 3))
    sides = [
        embgeom.knn(base + noise * rng.standard_normal(base.shape), k=k) for noise, k in ((0, 6), (1, 9))
    ]
    if some:
        chosen = np.sort(rng.choice(90, some, replace=False))
        sides = [side.select(chosen) for side in sides]
    own = np.arange(90) if some is None else chosen
    x = base[own, 0] + 0.3 * rng.standard_normal(len(own))
    y = base[own, 0] + 0.3 * rng.standard_normal(len(own))
    estimate = correlation_estimate(x, y, kind="pearson", neighbors=tuple(sides))
    u, v = ((z - z.mean()) / np.linalg.norm(z - z.mean()) for z in (x, y))
    effect = u * v - estimate.value * (u**2 + v**2) / 2
    errors = [1 / math.sqrt(len(own) - 3) * (1 - estimate.value**2)]
    for side in sides:
        member = np.zeros((len(own), 90))
        np.put_along_axis(member, side.indices, 1, axis=1)
        member[np.arange(len(own)), own] = 1
        shared = member @ member.T / (side.k + 1)
        errors.append(math.sqrt(effect @ shared @ effect * 90 / (90 - side.k - 1)))
    assert max(errors) > errors[0]
    low, high = (math.atanh(end) for end in (estimate.interval.low, estimate.interval.high))
    assert (high - low) / 2 == pytest.approx(1.959964 * max(errors) / (1 - estimate.value**2), rel=1e-3)


def test_the_same_neighbors_for_all_tokens_leave_a_correlation_open():
    x = np.random.default_rng(0).standard_normal((2, 30))
    near = np.array([[j for j in range(30) if j != i] for i in range(30)])
    estimate = correlation_estimate(*x, kind="spearman", neighbors=(near, near))
    assert (estimate.interval.low, estimate.interval.high) == (-1, 1)


def test_what_an_estimate_says():
    estimate = Estimate(0.38695, Interval(0.38385, 0.39005), Baseline(0.002, 0.0001), None, 9)
    assert estimate.text() == "0.3870 ± 0.0031"
    assert estimate.z == pytest.approx(3849.5) and estimate.p == 1e-16
    chance = 0.002 + 1.6448536 * 0.0001
    assert estimate.calibrated == pytest.approx((0.38695 - chance) / (1 - chance))
    assert math.isnan(estimate.z_stratified) and math.isnan(estimate.p_stratified)
    drawn = Estimate(0.5, Interval(0.4, 0.6), Baseline(0.2, 0.1), Baseline(0.2, 0.01, 200, 7), 9)
    assert drawn.text() == "0.50 ± 0.10"
    assert drawn.p == pytest.approx(0.0026998, rel=1e-4) and drawn.z_stratified == pytest.approx(30)
    # The standard deviation of a few draws errs, and so may their mean.
    for draws in (2, 3, 4, 20, 21, 200):
        few = Estimate(0.5, Interval(0.4, 0.6), Baseline(0.2, 0.06, draws), None, 9)
        expected = 2 * student.sf(5 / math.sqrt(1 + 1 / draws), draws - 1)
        assert few.p == pytest.approx(expected, rel=1e-6)
    assert drawn.p_stratified == 1e-16
    assert drawn.to_dict()["strata"] == 7 and drawn.to_dict()["low"] == 0.4
    assert Estimate(math.nan, Interval(math.nan, math.nan), Baseline(0, 1), None, 2).text() == "undefined"


def test_significant_is_what_both_the_null_and_the_interval_say():
    """A dimension's interval allows for shared neighbors, and its null takes tokens as exchangeable."""
    for low, above in ((-0.03, False), (0.03, True), (math.nan, True)):
        estimate = Estimate(0.3, Interval(low, 0.57), Baseline(0.0, 0.07), None, 186)
        assert Statistic("dimension", "", "", estimate, 0.0005, {}).is_above_null == above


def test_rows_whose_relabelings_give_one_sum():
    rng = np.random.default_rng(38)
    a, b = np.sign(rng.standard_normal((12, 1))), rng.standard_normal((12, 1))
    estimate = global_similarity_estimate(a, b, center=True, strata=np.arange(12) // 3)
    assert estimate.stratified.sd >= 0.0 and math.isfinite(estimate.value)


def test_holm():
    np.testing.assert_allclose(holm([0.01, 0.04, math.nan, 0.03]), [0.03, 0.06, math.nan, 0.06])
    assert holm([]).size == 0 and holm([0.9, 0.8]).max() == 1.0


def test_what_cannot_be_relabeled():
    near = embgeom.knn(pair(9)[0], 3)
    with pytest.raises(InputError, match="strata must be one number for each of the 9 tokens"):
        overlap_estimate(near, near, strata=[0, 1])
    with pytest.raises(InputError, match="neighbor 9 is not one of the 9 tokens"):
        overlap_estimate(near.indices + 1, near)
    with pytest.raises(InputError, match="token 0 is among its own neighbors"):
        overlap_estimate([[0], [0]], [[1], [0]])
    with pytest.raises(InputError, match="kind = 'kendall'"):
        correlation_estimate([1, 2], [1, 2], kind="kendall")
