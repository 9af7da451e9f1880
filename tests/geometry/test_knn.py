"""Neighbors: arguments, errors, shapes and the identities that one call must keep with another."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom import knn
from embgeom.errors import InputError
from tests.oracles import reference, strategies


def gaussian(n=200, d=17, seed=3):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def bits(neighbors):
    return neighbors.indices.tobytes(), neighbors.similarities.tobytes()


def test_shapes_and_types():
    x = gaussian()
    result = knn(x)
    assert result.indices.shape == result.similarities.shape == (200, 10)
    assert result.indices.dtype == np.int32 and result.similarities.dtype == np.float32
    assert result.metric == "cosine" and result.rows is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.metric = "euclidean"


def test_distances():
    x = gaussian()
    cosine, euclidean = knn(x), knn(x, metric="euclidean")
    np.testing.assert_array_equal(cosine.distances, 1 - cosine.similarities)
    np.testing.assert_array_equal(euclidean.distances, -euclidean.similarities)
    assert (np.diff(euclidean.distances) >= 0).all()
    with pytest.raises(InputError, match="inner_product"):
        _ = knn(x, metric="inner_product").distances


@given(strategies.matrices(min_rows=2), strategies.metrics, st.integers(1, 50), strategies.threads)
def test_bits_do_not_depend_on_threads(x, metric, k, threads):
    k = min(k, len(x) - 1)
    assert bits(knn(x, k, metric=metric, threads=threads)) == bits(knn(x, k, metric=metric, threads=1))


@given(strategies.matrices(min_rows=3), strategies.metrics, st.data())
def test_fewer_neighbors_are_the_first_of_more(x, metric, data):
    most = data.draw(st.integers(2, len(x) - 1))
    fewer = data.draw(st.integers(1, most))
    whole, part = knn(x, most, metric=metric), knn(x, fewer, metric=metric)
    np.testing.assert_array_equal(part.indices, whole.indices[:, :fewer])
    np.testing.assert_array_equal(part.similarities, whole.similarities[:, :fewer])


@given(strategies.matrices(min_rows=2), strategies.metrics, st.data())
def test_selected_rows_are_rows_of_the_whole(x, metric, data):
    k = data.draw(st.integers(1, min(12, len(x) - 1)))
    rows = np.array(data.draw(st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=20)))
    whole = knn(x, k, metric=metric)
    part = knn(x, k, metric=metric, rows=rows)
    np.testing.assert_array_equal(part.rows, rows)
    np.testing.assert_array_equal(part.indices, whole.indices[rows])
    np.testing.assert_array_equal(part.similarities, whole.similarities[rows])


@given(strategies.matrices(), strategies.metrics, st.integers(1, 12), strategies.threads)
def test_queries_exclude_nothing(x, metric, k, threads):
    k = min(k, len(x))
    own = knn(x, k, metric=metric, exclude_self=False)
    other = knn(x, k, queries=np.array(x), metric=metric, threads=threads)
    assert bits(own) == bits(other)
    assert other.rows is None


@given(
    strategies.matrices(families=("gaussian", "clustered", "duplicates"), plain=True, min_rows=2),
    strategies.seeds,
)
def test_cosine_does_not_see_powers_of_two(x, seed):
    # Scaling by a power of two is exact, in the dot products and in the roots: not one bit may change.
    powers = 2.0 ** np.random.default_rng(seed).integers(-40, 40, (len(x), 1))
    k = min(6, len(x) - 1)
    assert bits(knn(x, k)) == bits(knn((x * powers).astype(np.float32), k))


@pytest.mark.parametrize("layout", strategies.LAYOUTS)
@pytest.mark.parametrize("metric", strategies.METRICS)
@pytest.mark.parametrize("type_", [np.float16, np.float32, np.float64])
def test_layouts_and_types(layout, metric, type_):
    x = gaussian(60, 9).astype(type_)
    expected = bits(knn(x.astype(np.float32), 7, metric=metric))
    odd = strategies.lay_out(x, layout)
    before = odd.copy()
    assert bits(knn(odd, 7, metric=metric)) == expected
    assert bits(knn(x, 7, queries=odd, metric=metric)) == bits(knn(x, 7, metric=metric, exclude_self=False))
    np.testing.assert_array_equal(odd, before)


def test_byte_order_lists_and_integers():
    x = np.random.default_rng(8).integers(-9, 9, (30, 4))
    expected = bits(knn(x.astype(np.float32), 5))
    for same in (x, x.tolist(), x.astype(np.int8), x.astype(">f4"), x.astype(">f8")):
        assert bits(knn(same, 5)) == expected


def test_self_is_excluded_by_number_not_by_place():
    # All rows are equal, so self is first by place for row 0 alone.
    x = np.ones((6, 3), np.float32)
    for metric in strategies.METRICS:
        found = knn(x, 5, metric=metric).indices
        assert found.tolist() == [[j for j in range(6) if j != i] for i in range(6)]
        assert knn(x, 6, metric=metric, exclude_self=False).indices.tolist() == [list(range(6))] * 6


def test_zero_rows_have_no_cosine():
    x = np.array([[1, 0], [0, 0], [1, 1], [-0.0, 0], [0, 1]], np.float32)
    found = knn(x, 4)
    assert found.indices.tolist() == [[2, 4, -1, -1], [-1] * 4, [0, 4, -1, -1], [-1] * 4, [2, 0, -1, -1]]
    np.testing.assert_array_equal(np.isnan(found.similarities), found.indices == -1)
    np.testing.assert_array_equal(np.isnan(found.distances), found.indices == -1)
    # For the other metrics a row of zeros is a point like any other.
    assert (knn(x, 4, metric="euclidean").indices >= 0).all()
    assert (knn(x, 4, metric="inner_product").indices >= 0).all()
    none = knn(np.zeros((3, 2), np.float32), 2)
    assert (none.indices == -1).all() and np.isnan(none.similarities).all()


def test_zero_queries_have_no_cosine():
    found = knn(np.eye(3, dtype=np.float32), 2, queries=[[0, 0, 0], [0, 2, 0]])
    assert found.indices.tolist() == [[-1, -1], [1, 0]]


@pytest.mark.parametrize("metric", strategies.METRICS)
def test_one_row(metric):
    x = np.ones((1, 4), np.float32)
    assert knn(x, 1, metric=metric, exclude_self=False).indices.tolist() == [[0]]
    assert knn(x, 1, metric=metric, queries=x[[0, 0]]).indices.tolist() == [[0], [0]]
    with pytest.raises(InputError, match="k"):
        knn(x, 1, metric=metric)


def test_rows_may_be_a_list_and_repeat():
    x = gaussian(20, 4)
    whole = knn(x, 3).indices
    np.testing.assert_array_equal(knn(x, 3, rows=[5, 2, 5]).indices, whole[[5, 2, 5]])


@pytest.mark.parametrize(("k", "options", "limit"), [
    (0, {}, 19),
    (-3, {}, 19),
    (20, {}, 19),
    (21, {"exclude_self": False}, 20),
    (21, {"queries": np.ones((2, 3), np.float32)}, 20),
    (20, {"rows": [1, 2]}, 19),
])  # fmt: skip
def test_k_out_of_range_is_named_with_its_limit(k, options, limit):
    x = gaussian(20, 3)
    with pytest.raises(InputError, match=rf"(?s){k}.*\b{limit}\b|\b{limit}\b.*{k}"):
        knn(x, k, **options)
    assert knn(x, limit, **options).indices.shape[1] == limit


@pytest.mark.parametrize(("options", "message"), [
    ({"metric": "manhattan"}, "manhattan"),
    ({"metric": None}, "None"),
    ({"queries": np.ones((2, 4), np.float32)}, "4"),
    ({"queries": np.ones(3, np.float32)}, None),
    ({"queries": np.ones((0, 3), np.float32)}, None),
    ({"queries": [[1, 2, 3], [1, np.nan, 3]]}, r"\b1\b"),
    ({"queries": [[1, 2, 3], [1, np.inf, 3]]}, r"\b1\b"),
    ({"rows": [0, 20]}, "20"),
    ({"rows": [0, -1]}, "-1"),
    ({"rows": [0.0, 1.0]}, None),
    ({"rows": [[0, 1]]}, None),
    ({"rows": [0], "queries": np.ones((1, 3), np.float32)}, None),
    ({"threads": 0}, "0"),
    ({"threads": -2}, "-2"),
])  # fmt: skip
def test_errors_carry_the_value(options, message):
    with pytest.raises(InputError, match=message):
        knn(gaussian(20, 3), 2, **options)


@pytest.mark.parametrize("x", [
    np.zeros(3), np.zeros((2, 2, 2)), np.zeros((0, 4)), np.zeros((4, 0)), np.zeros((3, 2), complex),
    [["a"], ["b"]], np.array([[None], [None]], dtype=object),
])  # fmt: skip
def test_what_is_no_matrix_is_refused(x):
    with pytest.raises(InputError):
        knn(x, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", strategies.METRICS)
def test_what_is_not_finite_is_named(bad, metric):
    x = gaussian(1100, 3)
    x[731, 1] = bad
    with pytest.raises(InputError, match=r"\b731\b"):
        knn(x, 2, metric=metric)


def test_what_float32_cannot_hold_is_not_finite():
    with pytest.raises(InputError, match=r"\b2\b"):
        knn([[1.0], [2.0], [1e39]], 1)


def test_an_inner_product_beyond_float32_is_infinite_and_still_in_order():
    x = np.array([[3e38], [2e38], [3e38], [1e38], [-1e38]], np.float32)
    with np.errstate(all="raise"):
        found = knn(x, 4, metric="inner_product")
    np.testing.assert_array_equal(found.indices[0], [2, 1, 3, 4])
    assert found.similarities[0].tolist() == [np.inf, np.inf, np.inf, -np.inf]
    reference.assert_same_neighbors(
        found.indices, found.similarities, reference.rank(x, metric="inner_product"), exact=True
    )


def test_the_input_stays_as_it_was():
    x = gaussian()
    before = x.copy()
    knn(x, 5)
    knn(x, 5, queries=x[:3], metric="euclidean")
    np.testing.assert_array_equal(x, before)
