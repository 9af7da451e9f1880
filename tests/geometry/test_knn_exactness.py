"""Neighbors are exact: the oracle's lists in float64, whatever float32 would have made of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom import knn
from tests.helpers import real_data
from tests.oracles import reference, strategies


def check(x, k, *, exact=False, threads=None, **options):
    """Compare one call with the oracle; equal rows must be in order whatever the arithmetic."""
    found = knn(x, k, threads=threads, **options)
    ranking = reference.rank(x, **options)
    first_equal = reference.row_stats(x)[1] if len(x) < 100 else None
    reference.assert_same_neighbors(
        found.indices, found.similarities, ranking, exact=exact, first_equal=first_equal
    )


@given(strategies.matrices(min_rows=2), strategies.metrics, st.integers(1, 45), strategies.threads)
def test_self_join(x, metric, k, threads):
    check(x, min(k, len(x) - 1), metric=metric, threads=threads)


@given(
    strategies.matrices(families=("integers",), min_rows=2), strategies.metrics, st.data(), strategies.threads
)
def test_integers_give_the_very_list(x, metric, data, threads):
    # No sum of these is rounded, so ties are ties in any order of summation and only the row number decides.
    k = data.draw(st.integers(1, len(x) - 1))
    check(x, k, metric=metric, threads=threads, exact=True)


@given(strategies.matrices(families=("clustered",), min_rows=2), strategies.metrics, st.integers(1, 10))
def test_near_ties_which_float32_cannot_order(x, metric, k):
    check(x, min(k, len(x) - 1), metric=metric)


@given(st.data(), strategies.metrics, strategies.threads)
def test_queries(data, metric, threads):
    n, d = data.draw(strategies.shapes())
    x = data.draw(strategies.matrices(shape=(n, d)))
    queries = data.draw(strategies.matrices(shape=(data.draw(st.integers(1, 30)), d)))
    check(x, data.draw(st.integers(1, min(n, 20))), queries=queries, metric=metric, threads=threads)


@given(strategies.matrices(), strategies.metrics, st.integers(1, 8))
def test_self_not_excluded(x, metric, k):
    check(x, min(k, len(x)), metric=metric, exclude_self=False)


@pytest.mark.parametrize("metric", strategies.METRICS)
@pytest.mark.parametrize("n", [383, 384, 385, 767, 1153])
@pytest.mark.parametrize("family", ["integers", "clustered"])
def test_edges_of_tiles(family, n, metric):
    x = strategies.build(family, (n, 6), np.random.default_rng(n))
    check(x, 15, metric=metric, exact=family == "integers")


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_every_neighbor(metric):
    # k = n - 1 keeps all rows: nothing can be missed, all must be ordered.
    x = strategies.build("clustered", (300, 5), np.random.default_rng(1))
    check(x, 299, metric=metric)


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_a_crowd_around_the_last_place(metric):
    # 600 rows within 1e-7 of each other fight for 10 places: float32 sees one value, float64 sees 600.
    rng = np.random.default_rng(4)
    centre = rng.standard_normal(32)
    crowd = centre * (1 + 1e-7 * rng.standard_normal((600, 32)))
    x = np.concatenate([rng.standard_normal((100, 32)), crowd]).astype(np.float32)
    check(x, 10, metric=metric, threads=2)
    check(x, 10, metric=metric, queries=centre[None, :].astype(np.float32))


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_a_large_common_offset(metric):
    # Far from the origin |x|^2 - 2xy + |y|^2 cancels: all its digits in float32, half of them in float64.
    rng = np.random.default_rng(6)
    x = (1000 + 0.01 * rng.standard_normal((400, 24))).astype(np.float32)
    check(x, 12, metric=metric)


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_thousands_of_equal_rows(metric):
    # Like reserved tokens: 13 distinct values among 1,500 rows. The lowest numbers must be taken.
    rng = np.random.default_rng(9)
    kinds = rng.integers(0, 13, 1500)
    x = rng.standard_normal((13, 20)).astype(np.float32)[kinds]
    found = knn(x, 30, metric=metric)
    first_equal = np.array([np.flatnonzero(kinds == kind)[0] for kind in range(13)])[kinds]
    ranking = reference.rank(x, metric=metric)
    reference.assert_same_neighbors(found.indices, found.similarities, ranking, first_equal=first_equal)


@st.composite
def rows_in_groups(draw, family, n, d):
    """Rows of few or many values; zeros of either sign are equal."""
    rng = np.random.default_rng(draw(strategies.seeds))
    values = strategies.build(family, (draw(st.integers(1, n)), d), rng)
    values[rng.random(len(values)) < draw(st.sampled_from([0, 0.3]))] = 0
    skew = draw(st.sampled_from([1, 4]))  # some groups are far larger than others
    x = values[(len(values) * rng.random(n) ** skew).astype(int)]
    return np.where((x == 0) & (rng.random(x.shape) < 0.5), np.float32(-0.0), x)


@given(st.data(), strategies.metrics, strategies.threads)
def test_equal_rows_and_equal_queries(data, metric, threads):
    family = data.draw(st.sampled_from(["integers", "gaussian", "clustered", "scaled"]))
    n, d = data.draw(strategies.shapes(min_rows=2))
    x = data.draw(rows_in_groups(family, n, d))
    asked = data.draw(st.sampled_from(["all", "rows", "queries"]))
    options = {"metric": metric}
    if asked == "rows":
        options["rows"] = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=30))
    if asked == "queries":
        own = data.draw(rows_in_groups(family, 20, d))
        options["queries"] = np.concatenate([own, x[: data.draw(st.integers(0, n))]])
    else:
        options["exclude_self"] = data.draw(st.booleans())
    k = data.draw(st.integers(1, n - options.get("exclude_self", False)))
    found = knn(x, k, threads=threads, **options)
    first_equal = np.unique(x + np.float32(0), axis=0, return_inverse=True)[1].ravel()
    reference.assert_same_neighbors(
        found.indices,
        found.similarities,
        reference.rank(x, **options),
        exact=family == "integers" and metric != "cosine",
        first_equal=first_equal,
    )


@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("metric", strategies.METRICS)
def test_rows_that_are_all_equal(metric, exclude_self):
    x = np.tile(np.float32([1.5, -2.0]), (900, 1))
    found = knn(x, 899, metric=metric, exclude_self=exclude_self)
    own = np.arange(900)[:, None]
    others = np.tile(np.arange(899), (900, 1))
    np.testing.assert_array_equal(found.indices, others + (exclude_self & (others >= own)))
    assert len(np.unique(found.similarities)) == 1


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_huge_and_tiny_rows_together(metric):
    rng = np.random.default_rng(10)
    x = rng.standard_normal((200, 12)) * 10.0 ** rng.integers(-37, 37, (200, 1))
    check(x.astype(np.float32), 20, metric=metric)


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_products_that_are_all_negative(metric):
    # Bounds of negative products are where rounding a factor the wrong way would lose a neighbor. There are
    # more rows than candidates that are kept, so bounds decide who stays.
    rng = np.random.default_rng(11)
    x = np.abs(rng.standard_normal((700, 5))) * 10.0 ** rng.uniform(-43, 0, (700, 1))
    queries = -np.abs(rng.standard_normal((40, 5))) * 10.0 ** rng.uniform(-20, 20, (40, 1))
    check(x.astype(np.float32), 15, metric=metric, queries=queries.astype(np.float32))


def test_a_query_far_longer_than_the_rows():
    # The rows are lost in the rounding of the query, and the Euclidean sum cancels nearly all of it.
    rng = np.random.default_rng(12)
    x = (rng.standard_normal((700, 1)) * 2.0 ** rng.uniform(-60, -34, (700, 1))).astype(np.float32)
    check(x, 15, metric="euclidean", queries=np.array([[1.0], [-1.0], [3.0]], np.float32))


@pytest.mark.model
@pytest.mark.parametrize("model", real_data.FOREIGN)
@pytest.mark.parametrize(("metric", "name"), [("cosine", "cos"), ("euclidean", "l2")])
def test_real_vocabularies(model, metric, name):
    x, peers = real_data.embeddings(model), real_data.peers(model)
    found = knn(x, 20, metric=metric)
    # Neither vocabulary has a tie at float64 accuracy, so other exact libraries give the very same lists.
    np.testing.assert_array_equal(found.indices, peers[f"{name}_idx"])
    ranking = reference.rank(x, metric=metric)
    reference.assert_same_neighbors(found.indices, found.similarities, ranking)
    theirs = peers["cos_sim"] if metric == "cosine" else peers["l2_dist"]
    mine = found.similarities if metric == "cosine" else found.distances
    np.testing.assert_allclose(mine, theirs, rtol=2.4e-7)
    check(x, 100, metric=metric)
