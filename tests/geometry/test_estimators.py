"""Dimensions estimated from distances: against loops, scikit-dimension's values, and new draws."""

import json

import numpy as np
import pytest

import embgeom
from embgeom import InputError, intrinsic_dimension, knn
from embgeom.geometry.estimators import (
    DimensionCurve,
    DimensionEstimate,
    GaussianLevel,
    dimension_curve,
    euclidean_distances,
    gaussian_level,
    mle_dimension,
    two_nn,
)
from tests.helpers.real_data import embeddings, find


def gaussian(n=300, d=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def sorted_distances(x, unit=False):
    rows = x.astype(np.float64)
    if unit:
        rows = rows / np.linalg.norm(rows, axis=1)[:, None]
    return np.array(
        [np.sort(np.linalg.norm(np.delete(rows, i, axis=0) - rows[i], axis=1)) for i in range(len(x))]
    )


def obvious_two_nn(distances, discard):
    ratios = sorted(np.log(row[1] / row[0]) for row in distances if row[1] > row[0] > 0)
    n = len(ratios)
    kept = [(x, 1 - i / n) for i, x in enumerate(ratios, 1) if i <= int(n * (1 - discard)) and i < n]
    return sum(-x * np.log(above) for x, above in kept) / sum(x * x for x, _ in kept)


def obvious_mle(distances, k):
    found = []
    for row in distances[:, :k]:
        near = [each for each in row if each > 0]
        found.append(
            np.nan if len(near) < 2 else (len(near) - 1) / sum(np.log(near[-1] / each) for each in near)
        )
    return np.array(found)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_estimates_are_those_of_obvious_loops(metric):
    x = gaussian()
    x[7] = x[3]
    neighbors, distances = knn(x, 12, metric=metric), sorted_distances(x, metric == "cosine")
    np.testing.assert_allclose(euclidean_distances(neighbors, 12), distances[:, :12], atol=2e-4)
    # Cosines close to 1 lose digits in float32.
    rtol = 1e-5 if metric == "euclidean" else 2e-3
    distances[[3, 7], 0] = 0.0
    for discard in (0.0, 0.1, 0.5):
        estimate = two_nn(neighbors, discard=discard)
        assert (estimate.n, estimate.left_out, estimate.k) == (298, 2, 2) and estimate.per_token is None
        np.testing.assert_allclose(estimate.value, obvious_two_nn(distances, discard), rtol=rtol)
    for k in (2, 5, 12):
        estimate, expected = mle_dimension(neighbors, k=k), obvious_mle(distances, k)
        np.testing.assert_allclose(estimate.per_token, expected, rtol=1e-2)
        if k == 5:
            counts = np.where(np.arange(300) == 3, 3, np.where(np.arange(300) == 7, 3, 4))
            pooled = counts.sum() / np.sum(counts / expected)
            np.testing.assert_allclose(estimate.value, pooled, rtol=rtol)
        assert (estimate.n, estimate.left_out) == ((298, 2) if k == 2 else (300, 0))


def test_errors_are_those_of_new_draws():
    for function, k in ((two_nn, 2), (mle_dimension, 2)):
        found = [
            function(knn(np.random.default_rng(s).random((400, 3)), k, metric="euclidean")) for s in range(60)
        ]
        spread = np.std([each.value for each in found], ddof=1)
        # Neighborhoods of 2 hardly overlap: tokens are nearly independent.
        assert 0.75 < np.mean([each.standard_error for each in found]) / spread < 1.33


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_copies_of_rows_do_not_change_the_dimension(metric, share):
    x = gaussian(3000, 3)
    generator = np.random.default_rng(1)
    x[generator.choice(3000, int(share * 3000), replace=False)] = x[
        generator.integers(3000, size=int(share * 3000))
    ]
    found = two_nn(knn(x, 5, metric=metric))
    assert found.value == pytest.approx(3 if metric == "euclidean" else 2, abs=4 * found.standard_error)


def test_tokens_without_distances_are_left_out():
    x = gaussian(40, 4)
    x[:5] = 0.0
    x[10:14] = x[9]
    neighbors = knn(x, 3)
    estimate = mle_dimension(neighbors)
    assert np.isnan(estimate.per_token[:5]).all() and np.isnan(estimate.per_token[9:14]).all()
    assert estimate.left_out == 10 and np.isfinite(estimate.value)
    # Five copies of a row are also the two nearest of others.
    two = two_nn(neighbors)
    near = neighbors.indices[:, :2]
    copies = ((near >= 9) & (near < 14)).all(axis=1) & ~np.isin(np.arange(40), np.arange(9, 14))
    assert two.left_out == 10 + copies.sum() > 10 and "without 2 neighbors at different" in two.summary()
    assert "10 tokens" in estimate.summary()
    none = two_nn(knn(np.ones((4, 3)), 2, metric="euclidean"))
    assert none.n == 0 and np.isnan(none.value) and np.isnan(none.standard_error)
    assert np.isnan(mle_dimension(knn(np.ones((4, 3)), 2, metric="euclidean")).value)


def test_what_cannot_be_estimated_is_said():
    x = gaussian(30)
    with pytest.raises(InputError, match="inner_product"):
        two_nn(knn(x, 2, metric="inner_product"))
    with pytest.raises(InputError, match="lists 1 for each token, but 2 are needed"):
        two_nn(knn(x, 1))
    with pytest.raises(InputError, match=r"discard = 1.0 is a share"):
        two_nn(knn(x, 2), discard=1.0)
    with pytest.raises(InputError, match=r"k = 6 is outside \[2, 5\]"):
        mle_dimension(knn(x, 5), k=6)


@pytest.mark.model
def test_values_of_scikit_dimension_on_manifolds():
    reference = json.loads(find("peers/reference_intrinsic_dimension.json").read_text())["benchmark"]
    compared = 0
    with np.load(find("peers/skdim_benchmark_manifolds_n1000_seed0.npz")) as manifolds:
        for name in manifolds.files:
            neighbors = knn(manifolds[name], 20, metric="euclidean")
            if isinstance(expected := reference[name]["MLE_k20"], float):
                np.testing.assert_allclose(mle_dimension(neighbors).value, expected, rtol=1e-4)
                compared += 1
            if isinstance(expected := reference[name]["TwoNN_d0.1"], float):
                np.testing.assert_allclose(two_nn(neighbors).value, expected, rtol=1e-4)
    assert compared >= 20


@pytest.mark.model
@pytest.mark.parametrize("model", ["stories260k", "tinystories-656k"])
def test_values_of_scikit_dimension_on_models(model):
    reference = json.loads(find("peers/reference_intrinsic_dimension.json").read_text())["embeddings"]
    expected = reference[f"{model} (np.unique rows)"]
    neighbors = knn(np.unique(embeddings(model), axis=0), 20, metric="euclidean")
    np.testing.assert_allclose(mle_dimension(neighbors).value, expected["MLE_k20"], rtol=1e-4)
    np.testing.assert_allclose(two_nn(neighbors).value, expected["TwoNN_d0.1"], rtol=1e-4)


def test_gaussian_rows_have_the_covariance_of_the_matrix():
    x = gaussian(900, 30) * np.linspace(0.2, 2.0, 30, dtype=np.float32)
    level = gaussian_level(x, k=60, sample=150)
    plain = intrinsic_dimension(x, k=60, rows=range(150)).n_components
    # The rows are Gaussian themselves.
    assert abs(level.mean - plain.mean()) < 4 * level.standard_error + 4 * plain.std() / np.sqrt(150)
    assert level.n == 900 and level.k == 60 and level.seed == 0
    same, other = (gaussian_level(x, k=60, sample=150, seed=seed).to_dict() for seed in (0, 1))
    assert same == level.to_dict() != other
    # Clusters that are flat have a low dimension, and Gaussian rows of the same covariance do not.
    clustered = np.repeat(x[:30], 30, axis=0) + np.float32(0.01) * gaussian(900, 30) * (np.arange(30) < 3)
    own = intrinsic_dimension(clustered, k=25, rows=range(50)).n_components
    assert own.mean() + 8 < gaussian_level(clustered, k=25, sample=50).mean


def test_a_level_counts_rows_that_are_not_zero(tmp_path):
    x = gaussian(120, 6)
    x[50:] = 0.0
    level = gaussian_level(x, sample=10, center=True)
    assert (level.n, level.k, level.sample, level.center) == (50, 24, 10, True)
    level.save(tmp_path / "level.json")
    assert GaussianLevel.load(tmp_path / "level.json").to_dict() == level.to_dict()
    assert "seed=0" in level.summary()


def test_a_curve_is_of_one_graph(tmp_path):
    x = gaussian(150, 12)
    curve = dimension_curve(x, ks=(40, 10, 10, 1200), rows=[3, 9, 50])
    assert curve.k == (10, 40) and curve.max_components == (9, 12)
    for place, k in enumerate(curve.k):
        expected = intrinsic_dimension(x, k=k, rows=[3, 9, 50])
        np.testing.assert_array_equal(curve.n_components[place], expected.n_components)
    given = dimension_curve(x, knn(x, 40, rows=[3, 9, 50]), ks=(10, 40))
    np.testing.assert_array_equal(given.n_components, curve.n_components)
    assert curve.columns()["mean"] == [float(row.mean()) for row in curve.n_components]
    curve.save(tmp_path / "curve.safetensors")
    assert DimensionCurve.load(tmp_path / "curve.safetensors").columns() == curve.columns()
    with pytest.raises(InputError, match="no k of ks is at most 40"):
        dimension_curve(x, knn(x, 40), ks=(50,))


def test_the_first_neighbors_of_more():
    x = gaussian(80)
    neighbors = knn(x, 20)
    first = neighbors.first(6)
    assert first.indices.tobytes() == knn(x, 6).indices.tobytes() and first.k == 6
    with pytest.raises(InputError, match=r"k = 21 is outside \[1, 20\]"):
        neighbors.first(21)


def test_estimates_are_saved(tmp_path):
    for estimate in (two_nn(knn(gaussian(), 2)), mle_dimension(knn(gaussian(), 9))):
        estimate.save(tmp_path / "estimate.safetensors")
        loaded = DimensionEstimate.load(tmp_path / "estimate.safetensors")
        assert loaded.value == estimate.value and loaded.to_dict().keys() == estimate.to_dict().keys()
    assert embgeom.knn(gaussian(), 2).k == 2
