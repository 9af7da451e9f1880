"""Tests of the oracles, by hand and against other libraries, and of the comparison of neighbor lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import real_data
from tests.oracles import reference, strategies

LINE = np.array([[0.0], [1.0], [-1.0], [3.0], [5.0], [-1.0]])


def near_ties(n=60, d=16):
    return strategies.build("clustered", (n, d), np.random.default_rng(5))


def check(indices, similarities, ranking, **options):
    reference.assert_same_neighbors(np.array(indices), np.array(similarities), ranking, **options)


def test_ranking_by_hand():
    indices, similarities = reference.knn(LINE, 3, metric="euclidean")
    assert indices.tolist() == [[1, 2, 5], [0, 2, 3], [5, 0, 1], [1, 4, 0], [3, 1, 0], [2, 0, 1]]
    assert similarities.tolist()[0] == [-1, -1, -1]
    indices, similarities = reference.knn(LINE, 5)
    assert (indices[0] == -1).all() and np.isnan(similarities[0]).all()
    assert indices[1].tolist() == [3, 4, 2, 5, -1]
    assert reference.knn(LINE, 2, metric="inner_product", rows=[4])[0].tolist() == [[3, 1]]
    assert reference.knn(LINE, 2, metric="euclidean", queries=[[4.0]])[0].tolist() == [[3, 4]]


def test_comparison_accepts_what_float64_may_give():
    ranking = reference.rank(LINE, metric="euclidean")
    indices, similarities = ranking.top(3)
    check(indices, similarities.astype(np.float32), ranking, exact=True)
    # Rows 1, 2 and 5 are equally far from row 0: without `exact` any order of them will do.
    indices[0] = [5, 1, 2]
    check(indices, similarities, ranking)
    with pytest.raises(AssertionError):
        check(indices, similarities, ranking, exact=True)
    with pytest.raises(AssertionError, match="equal rows out of order"):
        check(indices, similarities, ranking, first_equal=reference.row_stats(LINE)[1])


@pytest.mark.parametrize(
    ("row", "list_", "message"),
    [
        (3, [4, 1, 0], None),  # 1 and 4 are tied
        (3, [1, 0, 4], "out of order"),
        (3, [1, 4, 2], "lacks"),
        (3, [1, 1, 4], "twice"),
        (3, [3, 1, 4], "itself"),
        (3, [1, 4, 6], "out of range"),
        (3, [1, 4, -2], "out of range"),
        (3, [1, 4, -1], "another number"),
    ],
)
def test_comparison_rejects_wrong_lists(row, list_, message):
    ranking = reference.rank(LINE, metric="euclidean")
    indices, similarities = ranking.top(3)
    indices[row] = list_
    if message is None:
        check(indices, similarities, ranking)
        return
    with pytest.raises(AssertionError, match=message):
        check(indices, similarities, ranking)


def test_comparison_rejects_wrong_similarities():
    ranking = reference.rank(near_ties())
    indices, similarities = ranking.top(4)
    good = similarities.astype(np.float32)
    check(indices, good, ranking)
    for wrong in (good[7, 2] - 2 * np.spacing(good[7, 2]), np.float32(np.nan), -good[7, 2]):
        bad = good.copy()
        bad[7, 2] = wrong
        with pytest.raises(AssertionError, match="query 7"):
            check(indices, bad, ranking)


def test_comparison_rejects_neighbors_of_zero_rows():
    ranking = reference.rank(LINE)
    indices, similarities = ranking.top(3)
    indices[0], similarities[0] = [1, 2, 3], 0
    with pytest.raises(AssertionError, match="another number"):
        check(indices, similarities, ranking)
    indices, similarities = ranking.top(4)
    similarities[0] = 0
    with pytest.raises(AssertionError, match="yet a similarity"):
        check(indices, similarities, ranking)


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_comparison_sees_float32_arithmetic(metric):
    # A kernel that ranks by float32 products must fail, or the comparison proves nothing.
    x = near_ties()
    ranking = reference.rank(x, metric=metric)
    _, similarities = ranking.top(10)
    single = x @ x.T
    norms = np.sqrt((x * x).sum(axis=1))
    if metric == "cosine":
        single = single / norms[:, None] / norms
    elif metric == "euclidean":
        single = 2 * single - (norms**2)[:, None] - norms**2
    np.fill_diagonal(single, -np.inf)
    indices = np.argsort(-single, axis=1, kind="stable")[:, :10]
    with pytest.raises(AssertionError):
        check(indices, similarities.astype(np.float32), ranking)


@given(strategies.matrices(), strategies.metrics)
def test_comparison_accepts_another_order_of_summation(x, metric):
    ranking = reference.rank(x, metric=metric)
    indices, similarities = reference.knn(x[:, ::-1], 3, metric=metric)
    with np.errstate(over="ignore"):
        similarities = similarities.astype(np.float32)
    check(indices, similarities, ranking)


def test_exact_rank():
    assert reference.exact_rank(np.array([[0.1, 0.2], [0.2, 0.4]])) == 1
    assert reference.exact_rank(np.array([[0.1, 0.3], [0.2, 0.4], [0, 1]])) == 2
    assert reference.exact_rank(np.zeros((2, 3))) == 0


def test_weights_by_hand():
    # 2 = (1 + 3) / 2, and twice the same neighbor shares its weight.
    x = np.array([[2.0, 0], [1, 0], [3, 0], [1, 0], [2, 0]])
    [plain, shared, same, gap] = reference.lle(
        x, [[1, 2, 2], [1, 3, 2], [4, 4, 4], [1, 2, -1]], rows=[0, 0, 0, 0], reg=1e-6
    )
    np.testing.assert_allclose(plain.weights, [0.5, 0.25, 0.25], atol=1e-5)
    np.testing.assert_allclose(shared.weights, [0.25, 0.25, 0.5], atol=1e-5)
    assert plain.residual < 1e-5 and plain.statuses == shared.statuses == {reference.DUPLICATE}
    assert same.statuses == {reference.COINCIDENT} and same.weights.tolist() == [1 / 3] * 3
    assert gap.statuses == {reference.NO_NEIGHBORS} and np.isnan(gap.weights).all()
    x[0] = [2, 1]
    [line, corner] = reference.lle(x, [[1, 2], [4, 1]], rows=[4, 0])
    assert line.statuses == {reference.RANK_DEFICIENT} and corner.statuses == {reference.OK}
    [singular] = reference.lle(x, [[1, 2]], rows=[4], reg=0)
    assert singular.statuses == {reference.SINGULAR}


@given(strategies.matrices(families=("gaussian",), tiles=False, zeros=False), st.sampled_from([1e-3, 1e-1]))
def test_weights_minimise_the_regularised_residual(x, reg):
    x = reference.as_float64(x)
    k = min(5, len(x) - 1)
    if k < 1:
        return
    neighbors = reference.knn(x, k)[0]
    for token, result in enumerate(reference.lle(x, neighbors, reg=reg)):
        differences = x[token] - x[neighbors[token]]
        system = differences @ differences.T
        system += reg * np.trace(system) * np.eye(k)
        # At the minimum under sum w = 1 the gradient is the same for every weight.
        gradient = system @ result.weights
        np.testing.assert_allclose(gradient, gradient.mean(), rtol=1e-9)


def test_dimension_by_hand():
    # Around their mean these four points have variances 2 and 8, so one component explains 0.8.
    x = np.array([[9.0, 9, 9], [1, 0, 0], [-1, 0, 0], [0, 2, 0], [0, -2, 0]])
    [true] = reference.intrinsic_dimension(x, [[1, 2, 3, 4]])
    np.testing.assert_allclose(true.shares, [0.8, 1, 1])
    assert true.participation == pytest.approx(100 / 68)
    assert [true.range(v, 1e-12) for v in (0.7, 0.8, 0.81, 1.0)] == [(1, 1), (1, 2), (2, 2), (2, 3)]
    [same, gap] = reference.intrinsic_dimension(x, [[1, 1], [1, -1]])
    assert same.range(0.9, 0) == (0, 0) and same.participation == 0 and gap is None


@given(strategies.matrices(families=("gaussian", "integers"), min_rows=4, tiles=False), st.integers(2, 30))
def test_dimension_agrees_with_the_covariance(x, k):
    x = reference.as_float64(x)
    neighbors = np.random.default_rng(0).integers(0, len(x), (len(x), k))
    for list_, true in zip(neighbors, reference.intrinsic_dimension(x, neighbors), strict=True):
        covariance = np.atleast_2d(np.cov(x[list_], rowvar=False))
        eigenvalues = np.linalg.eigvalsh(covariance)[::-1].clip(0)
        if eigenvalues.sum() > 0:
            shares = (eigenvalues.cumsum() / eigenvalues.sum())[: len(true.shares)]
            np.testing.assert_allclose(shares, true.shares, atol=1e-12)


@pytest.mark.parametrize("center", [False, True])
def test_similarity_is_the_correlation_of_a_list_of_pairs(center):
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((7, 4)), rng.standard_normal((7, 9))
    a, b = a.astype(np.float32), b.astype(np.float32)
    value, room = reference.global_similarity(a, b, center=center)
    if center:
        a, b = a - a.mean(axis=0, dtype=float), b - b.mean(axis=0, dtype=float)
    pairs = [(i, j) for i in range(7) for j in range(i)]
    lists = [
        [float(m[i].astype(float) @ m[j] / np.sqrt(m[i].astype(float) @ m[i] * (m[j].astype(float) @ m[j])))
         for i, j in pairs]
        for m in (a, b)
    ]  # fmt: skip
    assert value == pytest.approx(np.corrcoef(lists)[0, 1], abs=1e-6 if not center else room)
    assert room < 1e-11
    assert reference.global_similarity(a[:2], b[:2])[0] is None
    assert reference.global_similarity(np.eye(4), b[:4])[0] is None


@pytest.mark.model
@pytest.mark.parametrize("model", real_data.FOREIGN)
def test_neighbors_agree_with_other_libraries(model):
    x, peers = real_data.embeddings(model), real_data.peers(model)
    np.testing.assert_array_equal(reference.knn(x, 20)[0], peers["cos_idx"])
    indices, similarities = reference.knn(x, 20, metric="euclidean")
    np.testing.assert_array_equal(indices, peers["l2_idx"])
    np.testing.assert_allclose(-similarities, peers["l2_dist"], rtol=1e-6)


@pytest.mark.model
@pytest.mark.parametrize("model", real_data.FOREIGN)
def test_weights_agree_with_other_libraries(model):
    x, peers = real_data.embeddings(model), real_data.peers(model)
    expected = reference.lle(x, peers["l2_idx"][:, :10])
    # scikit-learn worked in float64: with float32 sums the weights would be off by 1e-5.
    weights = np.array([e.weights for e in expected])
    np.testing.assert_allclose(weights, peers["lle_w_k10"], rtol=0, atol=1.2e-7)
