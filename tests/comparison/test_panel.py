"""CKA, RSA and Procrustes similarity against their formulas written out, and against every relabeling."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import procrustes as scipy_procrustes
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

import embgeom
from benchmarks import coverage
from embgeom.comparison import products
from embgeom.comparison.nulls import (
    Baseline,
    Estimate,
    Interval,
    correlation_estimate,
    global_similarity_estimate,
    overlap_estimate,
)
from embgeom.comparison.panel import cka_estimate, panel_estimates, procrustes_estimate, rsa_estimate
from embgeom.comparison.statistic import Statistic, conclusion, statistics_tables
from embgeom.errors import InputError
from tests.oracles import panel as oracle
from tests.oracles import relabeling

# Rows are rounded to float32 after they were centered, which moves each product by some 1e-7.
FLOAT32 = 2e-6
MEASURES = (cka_estimate, rsa_estimate, procrustes_estimate)
ORACLES = (
    oracle.cka,
    lambda a, b: spearmanr(oracle.pair_cosines(a), oracle.pair_cosines(b)).statistic,
    oracle.procrustes,
)


def pair(n, d_a=5, d_b=4, seed=0, shared=1.0):
    """Two matrices of n rows that have `shared` times one factor in common."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 2))
    a = rng.standard_normal((n, d_a)) + shared * common @ rng.standard_normal((2, d_a)) + 3
    b = rng.standard_normal((n, d_b)) + shared * common @ rng.standard_normal((2, d_b)) - 1
    return a.astype(np.float32), b.astype(np.float32)


@given(st.integers(4, 60), st.integers(1, 12), st.integers(1, 12), st.integers(0, 999))
def test_values_are_those_of_the_formulas(n, d_a, d_b, seed):
    a, b = pair(n, d_a, d_b, seed)
    assert procrustes_estimate(a, b, draws=2).value == pytest.approx(oracle.procrustes(a, b), abs=FLOAT32)
    if n > 12 and min(d_a, d_b) > 2:
        assert cka_estimate(a, b).value == pytest.approx(oracle.cka(a, b), abs=20 * FLOAT32)
        # Rounding may exchange two ranks of pairs that are nearly equal.
        expected = spearmanr(oracle.pair_cosines(a), oracle.pair_cosines(b)).statistic
        assert rsa_estimate(a, b).value == pytest.approx(expected, abs=1e-4)


def test_procrustes_similarity_is_that_of_scipy():
    a, b = pair(80, 6, 6)
    *_, disparity = scipy_procrustes(a.astype(np.float64), b.astype(np.float64))
    assert procrustes_estimate(a, b, draws=2).value == pytest.approx(math.sqrt(1 - disparity), abs=FLOAT32)


@pytest.mark.parametrize("measure", MEASURES)
def test_rotation_scale_and_shift_change_nothing(measure):
    a, b = pair(120, 8, 6)
    turn = np.linalg.qr(np.random.default_rng(4).standard_normal((8, 8)))[0]
    value = measure(a, b).value
    assert measure(5 * a @ turn + 7, b).value == pytest.approx(value, abs=1e-4)
    assert measure(b, a).value == pytest.approx(value, abs=1e-6)
    assert 0.05 < value < 0.95


@pytest.mark.parametrize("measure", (cka_estimate, procrustes_estimate))
def test_p_counts_relabelings_where_few_rows_are_long(measure):
    a, b = pair(400, 30, 20, shared=0.0)
    even = measure(a, b)
    assert not even.few_rows and 300 < even.effective_n <= 400 and even.null.beyond is None
    a[0] *= 300
    b[0] *= 300
    estimate = measure(a, b)
    assert estimate.few_rows and estimate.effective_n == pytest.approx(1.0, abs=0.01)
    assert math.isnan(estimate.half_width) and estimate.text() == f"{estimate.value:.2f} (no interval)"
    # Both long rows are one token by chance in 1 of 400 relabelings.
    assert abs(estimate.z) > 5 and 1 / 201 <= estimate.p <= 4 / 201
    statistic = Statistic("cka", "CKA", "what it is", estimate, estimate.p, {})
    assert "effective sample size 1 of 400" in " ".join(map(str, statistics_tables([statistic], 400)))


def test_p_of_many_tokens_counts_as_many_relabelings_as_asked_for(monkeypatch):
    monkeypatch.setattr(products, "_FEW_TOKENS", 300)
    a, b = pair(400, 6, 5)
    a[0] *= 300
    b[0] *= 300
    for measure in (cka_estimate, procrustes_estimate):
        assert measure(a, b, draws=60, strata=np.arange(400) // 20).null.draws == 60


@pytest.mark.parametrize("change", ["rotation", "shift and scale", "noise"])
def test_measures_of_nearly_equal_models_have_narrow_intervals(change):
    """Rounding decides on the inverse hyperbolic tangent of a value that is 1 but for it."""
    a = np.random.default_rng(5).standard_normal((600, 12)).astype(np.float32)
    rotation = np.linalg.qr(np.random.default_rng(6).standard_normal((12, 12)))[0]
    noise = np.random.default_rng(7).standard_normal(a.shape)
    b = {"rotation": a @ rotation, "shift and scale": 3 * a + 1, "noise": a * (1 + 1e-6 * noise)}[change]
    found = panel_estimates(a, b, sample=300, draws=20)
    found["centered"] = global_similarity_estimate(a, b, center=True)
    found["raw"] = global_similarity_estimate(a, b if change != "shift and scale" else 3 * a, center=False)
    for name, estimate in found.items():
        assert 1 - 1e-5 < estimate.value <= 1 and estimate.half_width < 1e-5, name
        # float32 has no more digits.
        assert len(estimate.text().split(" ")[0]) <= 8, name


def test_dimensions_over_few_neighborhoods_have_a_caution():
    values = pair(400, 1, 1)
    for k, few in ((50, True), (10, False)):
        near = embgeom.knn(pair(400, 8, 8)[0], k)
        x, y = (side[:, 0] for side in values)
        estimate = correlation_estimate(x, y, kind="pearson", neighbors=(near, near))
        assert estimate.neighborhoods == 400 / (k + 1) and estimate.few_neighborhoods == few
        statistic = Statistic("dimension_pearson", "", "", estimate, estimate.p, {})
        shown = " ".join(map(str, statistics_tables([statistic], 400)))
        assert ("only 8 times as many tokens" in shown) == few
    assert not correlation_estimate(x, y, kind="pearson").few_neighborhoods


@pytest.mark.parametrize(("mean", "sd", "above"), [(0.2, 0.1, 1), (0.4, 0.1, 0), (0.9, 0.1, 0), (0.5, 0, 0)])
def test_what_is_above_the_null_in_strata(mean, sd, above):
    null = Baseline(0.0, 0.01)
    estimate = Estimate(0.5, Interval(0.4, 0.6), null, Baseline(mean, sd, strata=5), 100)
    statistic = Statistic("cka", "CKA", "", estimate, estimate.p, {})
    assert statistic.is_above_strata == above
    assert ("Not above the null in strata" in conclusion([statistic])) == (not above)


def test_nothing_depends_on_the_number_of_threads():
    a, b = pair(12_000, 130, 110)
    labels = np.arange(12_000) % 5
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            panel = panel_estimates(a, b, strata=labels, draws=20, threads=threads)
            numbers = [panel, _others(a, b, labels, threads)]
        found.append([{name: each.to_dict() for name, each in part.items()} for part in numbers])
    assert found[0] == found[1]


def _others(a, b, labels, threads):
    values = a[:, 0].astype(np.float64), b[:, 0].astype(np.float64)
    lists = [
        np.stack([(np.arange(len(a)) + step) % len(a) for step in steps], 1) for steps in ((1, 2), (2, 5))
    ]
    return {
        "similarity": global_similarity_estimate(a, b, center=True, strata=labels, threads=threads),
        "correlation": correlation_estimate(*values, kind="pearson", strata=labels, neighbors=tuple(lists)),
        "overlap": overlap_estimate(*lists, strata=labels, draws=3, threads=threads),
    }


def test_lognormal_lengths_bring_no_false_positives():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(60):
        sides = (rng.standard_normal((100, 4)) * np.exp(2 * rng.standard_normal((100, 1))) for _ in range(2))
        found.append(cka_estimate(*sides, draws=100).p)
    assert np.mean(np.array(found) < 0.05) <= 0.15 and min(found) >= 1 / 101


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("value", [1.0, 0.1])
def test_equal_rows_are_refused(measure, value):
    a, _ = pair(20)
    for sides, name in (((a, np.full_like(a, value)), "b"), ((np.full_like(a, value), a), "a")):
        with pytest.raises(InputError, match=f"all rows of {name} are equal"):
            measure(*sides)


def test_equal_cosines_are_refused():
    a, _ = pair(20)
    with pytest.raises(InputError, match="all pairs of rows of b have the same cosine"):
        rsa_estimate(a, np.arange(1, 21)[:, None] * np.ones(3), center=False)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_and_itself_agree_fully(measure):
    a, _ = pair(70)
    estimate = measure(a, 2 * a)
    assert estimate.value == pytest.approx(1, abs=1e-6)
    assert estimate.interval.low == pytest.approx(1, abs=1e-3)
    assert estimate.z > 5


@pytest.mark.parametrize("measure", MEASURES)
def test_unrelated_models_are_where_chance_puts_them(measure):
    zs = [measure(*pair(150, 30, 20, seed, shared=0.0)).z for seed in range(20)]
    assert abs(np.mean(zs)) < 0.8
    assert np.max(np.abs(zs)) < 5


@given(st.integers(0, 99))
def test_the_null_of_cka_is_exact(seed):
    a, b = pair(6, seed=seed)
    strata = np.random.default_rng(seed).integers(0, 2, 6)
    estimate = cka_estimate(a, b, strata=strata, draws=2)
    x, y = (oracle.u_centered(m.astype(np.float64) @ m.T.astype(np.float64)) for m in (a, b))
    scale = math.sqrt(np.sum(x * x) * np.sum(y * y))
    everyone, within = (relabeling.every_relabeling(labels) for labels in (np.zeros(6, int), strata))
    values = relabeling.agreements(x, y, everyone) / scale
    assert (estimate.null.draws == 0) == (estimate.null.beyond is None)
    assert (estimate.null.mean, estimate.null.sd) == pytest.approx((values.mean(), values.std()), abs=1e-4)
    mean = (relabeling.agreements(x, y, within) / scale).mean()
    assert estimate.stratified.mean == pytest.approx(mean, abs=1e-4)


@given(st.integers(0, 99))
def test_the_null_of_rsa_is_exact(seed):
    a, b = pair(6, 4, 4, seed=seed)
    matrices = []
    for side in (a, b):
        cosines = oracle.pair_cosines(side)
        ranks = np.argsort(np.argsort(cosines)) - (len(cosines) - 1) / 2
        matrices.append(np.zeros((6, 6)))
        matrices[-1][np.triu_indices(6, 1)] = ranks
        matrices[-1] += matrices[-1].T
    everyone = relabeling.every_relabeling(np.zeros(6, int))
    values = relabeling.agreements(*matrices, everyone) / np.sum(matrices[0] ** 2)
    null = rsa_estimate(a, b).null
    assert null.draws == 0
    assert (null.mean, null.sd) == pytest.approx((values.mean(), values.std()), abs=1e-9)


@pytest.mark.parametrize("labels", [np.zeros(90, int), np.arange(90) % 3])
def test_drawn_nulls_are_those_of_relabelings(labels):
    a, b = pair(90)
    a[labels == 1] += 4
    b[labels == 1] -= 3
    rng = np.random.default_rng(1)
    orders = relabeling.random_relabelings(labels, 400, rng)
    for measure, formula in zip(MEASURES, ORACLES, strict=True):
        estimate = measure(a, b, strata=labels)
        values = np.array([formula(a, b[order]) for order in orders])
        drawn = estimate.stratified
        assert drawn.draws >= 20 and drawn.strata == len(set(labels))
        error = values.std() * math.sqrt(1 / drawn.draws + 1 / len(values))
        assert abs(drawn.mean - values.mean()) < 4.5 * error
        assert 0.5 < drawn.sd / values.std() < 1.7


def pooled(nulls):
    """The mean of nulls by several seeds, their standard deviation, and how many draws these are from."""
    return (
        np.mean([null.mean for null in nulls]),
        math.sqrt(np.mean([null.sd**2 for null in nulls])),
        sum(min(null.draws, 20) for null in nulls),  # Bundles say as much as twenty relabelings.
    )


@pytest.mark.parametrize("strata", [50, 2])
def test_the_stratified_null_of_many_tokens_is_that_of_relabelings(monkeypatch, strata):
    """Of many tokens, bundles of strata are relabeled and combined, where there are many strata."""
    monkeypatch.setattr(products, "_FEW_TOKENS", 300)
    a, b = pair(400, 9, 7)
    labels = np.random.default_rng(3).integers(0, strata, len(a))
    a[labels % 2 == 1] += 1
    b[labels % 2 == 1] -= 1
    orders = relabeling.random_relabelings(labels, 1000, np.random.default_rng(1))
    for measure, formula in ((cka_estimate, oracle.cka_of_many), (procrustes_estimate, oracle.procrustes)):
        values = np.array([formula(a, b[order]) for order in orders])
        nulls = [measure(a, b, strata=labels, draws=200, seed=seed).stratified for seed in range(20)]
        assert {(null.draws, null.strata) for null in nulls} == {(42 if strata == 50 else 20, strata)}
        mean, sd, draws = pooled(nulls)
        assert mean == pytest.approx(values.mean(), abs=4 * values.std() * math.sqrt(1 / draws + 1e-3))
        assert sd == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize("spread", [0.2, 1.0])
def test_the_null_of_many_tokens_is_that_of_relabelings(spread):
    """Above 4096 tokens cross products are normal, unless some tokens are much longer than most."""
    a, b = pair(4097, 20, 12)
    rng = np.random.default_rng(2)
    a, b = (side * np.exp(spread * rng.standard_normal((len(side), 1))) for side in (a, b))
    nulls = [procrustes_estimate(a, b, seed=seed).null for seed in range(20)]
    assert {null.draws for null in nulls} == {200}
    values = np.array([oracle.procrustes(a, b[rng.permutation(len(b))]) for _ in range(400)])
    mean, sd, draws = pooled(nulls)
    assert mean == pytest.approx(values.mean(), abs=4 * values.std() * math.sqrt(1 / draws + 1 / 400))
    assert sd == pytest.approx(values.std(), rel=0.15)


@pytest.mark.parametrize(("measure", "formula"), list(zip(MEASURES, ORACLES, strict=True)))
def test_standard_errors_are_those_of_the_jackknife(measure, formula):
    a, b = pair(150, 6, 6, seed=3)
    estimate = measure(a, b)
    value, low, high = estimate.value, estimate.interval.low, estimate.interval.high
    assert low < value < high < 1
    error = (math.atanh(high) - math.atanh(low)) / (2 * 1.96) * (1 - value**2)
    assert error == pytest.approx(oracle.jackknife_error(formula, a, b), rel=0.1)


@pytest.mark.parametrize("family", ["nearly equal rows", "heavy-tailed norms"])
def test_the_error_of_rsa_allows_for_the_mean(family):
    a, b = coverage.pair(family, 0, 120)
    estimate = rsa_estimate(a, b)
    wide = math.atanh(estimate.interval.high) - math.atanh(estimate.interval.low)
    error = wide / (2 * 1.96) * (1 - estimate.value**2)
    # Without what a row does to the mean, it is too small by a quarter.
    assert error == pytest.approx(oracle.jackknife_error(ORACLES[1], a, b), rel=0.06)
    fixed = rsa_estimate(a - a.mean(axis=0), b - b.mean(axis=0), center=False)
    assert fixed.value == pytest.approx(estimate.value, abs=1e-4)
    assert fixed.half_width < 0.9 * estimate.half_width


def test_the_panel_is_its_measures():
    a, b = pair(300, 7, 5)
    strata = np.arange(300) % 4
    found = panel_estimates(a, b, strata=strata, sample=100, draws=30, seed=5)
    assert found == {
        "cka": cka_estimate(a, b, strata=strata, draws=30, seed=5),
        "rsa": rsa_estimate(a, b, strata=strata, sample=100, seed=5),
        "procrustes": procrustes_estimate(a, b, strata=strata, draws=30, seed=5),
    }
    assert found["rsa"].n == 100 and found["cka"].n == 300
    assert panel_estimates(a, b, sample=100, seed=6)["rsa"] != found["rsa"]


def test_zero_rows_are_not_ranked():
    a, b = pair(50)
    a[3] = 0
    assert rsa_estimate(a, b, sample=50).n == 49


def test_what_cannot_be_measured_is_refused():
    a, b = pair(20)
    with pytest.raises(InputError, match="a has 20 rows and b has 19"):
        cka_estimate(a, b[1:])
    with pytest.raises(InputError, match="all rows of b are equal"):
        procrustes_estimate(a, np.ones((20, 3)))
    with pytest.raises(InputError, match="need 4"):
        cka_estimate(a[:3], b[:3])
    with pytest.raises(InputError, match="row 2 holds a number that is not finite"):
        cka_estimate(np.where(np.arange(20)[:, None] == 2, np.nan, a), b)
    with pytest.raises(InputError, match="strata"):
        rsa_estimate(a, b, strata=[0, 1])


def test_strata_that_fix_every_row_leave_nothing_to_relabel():
    n = 500
    a, b = pair(n)
    pairs = np.repeat(a[: n // 2], 2, axis=0)
    for measure in (functools.partial(global_similarity_estimate, center=True), *MEASURES):
        # Of rows that are equal within strata, only the order of sums may change.
        for rows, strata in (((a, b), np.arange(n)), ((pairs, b), np.arange(n) // 2)):
            found = measure(*rows, strata=strata)
            assert math.isnan(found.z_stratified) and math.isnan(found.p_stratified), measure
