"""Neighbors of centered rows: what is subtracted from which rows, and where it changes nothing."""

import warnings

import numpy as np
import pytest
from hypothesis import given

import embgeom
from embgeom import EmbgeomWarning, InputError, intrinsic_dimension, knn
from embgeom.geometry.rows import centered, mean_row
from tests.oracles import strategies


def subtracted(x, queries=None):
    """The rows minus the float64 mean of those that are not zero, rounded to float32 once."""
    mean = np.mean([row.astype(np.float64) for row in x if row.any()], axis=0)
    rows = x if queries is None else queries
    return np.array([(row - mean).astype(np.float32) if row.any() else row for row in rows])


def shifted(n=150, d=12, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32) + np.float32(3.0)
    x[11] = 0.0
    return x


@given(strategies.matrices(min_rows=2, plain=True))
def test_rows_are_centered_as_defined(x):
    x = np.asarray(x, dtype=np.float32)
    if x.any():
        scale = np.abs(x).max()
        np.testing.assert_allclose(centered(x) / scale, subtracted(x) / scale, rtol=0, atol=1e-7)
    assert not centered(x)[~x.any(axis=1)].any()


@pytest.mark.parametrize("n", [5, 4095, 4097, 9000])
def test_pieces_are_of_one_matrix(n):
    x = shifted(n + 12, 3)
    np.testing.assert_array_equal(centered(x), subtracted(x))


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_neighbors_are_those_of_centered_rows(metric):
    x, queries = shifted(), shifted(20, seed=1)
    for options, of_queries in (({}, None), ({"rows": [3, 11, 80]}, None), ({"queries": queries}, queries)):
        found = knn(x, 8, metric=metric, center=True, **options)
        others = options if of_queries is None else {"queries": subtracted(x, queries)}
        plain = knn(subtracted(x), 8, metric=metric, **others)
        assert found.indices.tobytes() == plain.indices.tobytes()
        assert found.similarities.tobytes() == plain.similarities.tobytes()
        assert found.center and not plain.center and "centered" in repr(found)
    assert (knn(x, 8, metric=metric).indices != knn(x, 8, metric=metric, center=True).indices).any()


def test_zero_rows_stay_without_neighbors():
    found = knn(shifted(), 8, center=True)
    assert (found.indices[11] == -1).all() and not (found.indices == 11).any()


def test_distances_do_not_depend_on_a_shift():
    x = shifted()
    one, other = (knn(x, 8, metric="euclidean", center=center) for center in (False, True))
    assert one.similarities.tobytes() == other.similarities.tobytes()


def test_dimensions_are_those_of_centered_neighborhoods():
    x = shifted()
    found = intrinsic_dimension(x, k=30, center=True)
    plain = intrinsic_dimension(x, knn(x, 30, center=True))
    assert found.participation_ratio.tobytes() == plain.participation_ratio.tobytes()
    assert (found.n_components == plain.n_components).all()


def test_what_is_not_finite_is_named():
    x = shifted()
    x[70, 2], x[90, 2] = np.inf, -np.inf
    with warnings.catch_warnings(), pytest.raises(InputError, match=r"row 70.*column 2"):
        warnings.simplefilter("error")
        knn(x, 3, center=True)
    with pytest.raises(InputError, match="center must be True or False"):
        knn(shifted(), 3, center=1)
    assert np.isfinite(mean_row(shifted())).all()


def test_the_usual_number_of_neighbors(tmp_path):
    x = shifted(410)
    assert intrinsic_dimension(x, rows=[0]).k == 200
    with pytest.warns(EmbgeomWarning, match="over k = 74 neighbors, half of the rows, instead of 200"):
        # By cosine, the zero row is no neighbor.
        assert intrinsic_dimension(x[:150], rows=[0]).k == 74
    with embgeom.use_cache(tmp_path) as cached, pytest.warns(EmbgeomWarning, match="k = 19"):
        assert cached(intrinsic_dimension, x[20:60], rows=[0]).k == 19
