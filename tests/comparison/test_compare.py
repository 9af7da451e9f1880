"""Comparisons whose outcome theory knows, and null baselines recomputed from scratch."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom import InputError
from embgeom._common.record import plain
from embgeom.comparison.compare import _Draws
from embgeom.geometry.agreement import neighbor_overlap, pearson, weight_cosine
from tests.helpers.loading import data
from tests.helpers.real_data import EXAMPLES

ROWS, WIDTH = 120, 10
QUICK = {"k": 8, "dimension_k": 25, "threads": 2}


def gaussian(rows=ROWS, width=WIDTH, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def model(matrix, name="model"):
    return embgeom.Embeddings.from_array(
        np.asarray(matrix, dtype=np.float32), [f"word{i}" for i in range(len(matrix))], name=name
    )


def values(comparison):
    return [statistic.value for statistic in comparison.statistics]


def numbers(comparison):
    return [(m.value, m.shuffled, m.gaussian) for m in comparison.statistics]


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_a_model_shares_everything_with_itself(metric):
    x = model(gaussian())
    comparison = embgeom.compare(x, x, metric=metric, **QUICK)
    assert values(comparison) == pytest.approx([1.0] * 6, abs=1e-9)
    assert (comparison.neighbor_overlap == 1.0).all()
    assert len(comparison.match) == len(comparison.neighbor_overlap) == len(comparison.weight_cosine) == ROWS


@pytest.mark.parametrize("scale", [1.0, 1e-3, 300.0])
def test_rotation_and_scale_keep_everything(scale):
    x = gaussian()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))
    comparison = embgeom.compare(model(x), model(scale * x @ rotation), **QUICK)
    # float32 rounds the rotated copy, which moves similarities by 1e-7 and may swap two nearly equal ones.
    assert values(comparison) == pytest.approx([1.0] * 6, abs=0.01)
    assert np.median(comparison.weight_cosine) == pytest.approx(1.0, abs=1e-5)


def test_a_shift_keeps_what_is_measured_by_differences():
    x = gaussian()
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))
    moved = model(2 * x @ rotation + 3.0)
    by_distance = embgeom.compare(model(x), moved, metric="euclidean", **QUICK)
    for name in ("global_similarity_centered", "neighbor_overlap", "weight_cosine", "dimension_pearson"):
        assert by_distance[name].value == pytest.approx(1.0, abs=0.01)
    # Angles are seen from the origin, so they do not survive.
    assert by_distance["global_similarity"].value < 0.9
    assert embgeom.compare(model(x), moved, **QUICK)["neighbor_overlap"].value < 0.9


def test_independent_models_give_what_chance_gives():
    a, b = gaussian(400, 20, seed=1), gaussian(400, 12, seed=2)
    comparison = embgeom.compare(model(a), model(b), **QUICK)
    for name in ("global_similarity", "global_similarity_centered"):
        # 79800 pairs of nearly independent cosines scatter by 0.004.
        statistic = comparison[name]
        for number in (statistic.value, statistic.shuffled, statistic.gaussian):
            assert abs(number) < 0.03
    for number in (comparison["neighbor_overlap"].shuffled, comparison["neighbor_overlap"].value):
        # 3200 neighbors of which each is common with probability k / (n - 1).
        assert number == pytest.approx(8 / 399, abs=0.015)
    assert abs(comparison["dimension_pearson"].value) < 0.25


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_shuffled_null_is_that_of_the_permuted_matrix(metric):
    a, b = model(gaussian(seed=1)), model(gaussian(width=7, seed=2))
    comparison = embgeom.compare(a, b, metric=metric, seed=3, **QUICK)
    pairing = _Draws(comparison.options, ROWS).pairing
    shuffled = b.matrix[pairing]
    neighbors_a = embgeom.knn(a.matrix, 8, metric=metric)
    neighbors_b = embgeom.knn(shuffled, 8, metric=metric)
    overlap = neighbor_overlap(neighbors_a.indices, neighbors_b.indices).mean()
    # Members of the lists do not depend on the order of rows, so this holds to the last bit.
    assert comparison["neighbor_overlap"].shuffled == overlap
    weights_a, weights_b = embgeom.lle(a.matrix, neighbors_a), embgeom.lle(shuffled, neighbors_b)
    cosine = weight_cosine(neighbors_a.indices, weights_a.weights, neighbors_b.indices, weights_b.weights)
    assert comparison["weight_cosine"].shuffled == pytest.approx(cosine.mean(), abs=1e-12)
    assert comparison["global_similarity"].shuffled == embgeom.global_similarity(a.matrix, shuffled)


def test_shuffled_dimensions_are_those_of_the_sample_in_another_order():
    x = model(gaussian())
    comparison = embgeom.compare(x, x, dimension_sample=60, **QUICK)
    local = comparison.local_b
    again = _Draws(comparison.options, ROWS).relabel(local).dimension.n_components
    before = local.dimension.n_components
    assert sorted(again) == sorted(before) and (again != before).any()
    in_a = comparison.local_a.dimension.n_components
    assert comparison["dimension_pearson"].shuffled == pearson(in_a, again)


def test_relabelled_lists_keep_their_ends():
    # A -1 (no neighbor) is no row number, so no new number may take its place.
    x = model(gaussian())
    comparison = embgeom.compare(x, x, **QUICK)
    indices = comparison.local_a.neighbors.indices.copy()
    indices[:, -2:] = -1
    draws = _Draws(comparison.options, ROWS)
    local = comparison.local_a
    cut = replace(local, neighbors=replace(local.neighbors, indices=indices))
    again = draws.relabel(cut).neighbors.indices
    assert (again[:, -2:] == -1).all()
    # Row i of the new order is row pairing[i] of the old one, and so are its neighbors.
    np.testing.assert_array_equal(draws.pairing[again[:, :-2]], indices[draws.pairing, :-2])


def test_seeds_and_threads():
    a, b = model(gaussian(seed=1)), model(gaussian(seed=2))
    options = {"k": 8, "dimension_k": 25, "dimension_sample": 50}
    first, again, single, other = (
        embgeom.compare(a, b, seed=seed, threads=threads, **options)
        for seed, threads in ((0, 2), (0, 2), (0, 1), (1, 2))
    )
    assert numbers(first) == numbers(again) == numbers(single)
    assert first.sampled.tolist() == single.sampled.tolist() != other.sampled.tolist()
    # What does not depend on the sample stays, the null baselines do not.
    for one, two in list(zip(first.statistics, other.statistics, strict=True))[:4]:
        assert one.value == two.value
        assert one.shuffled != two.shuffled and one.gaussian != two.gaussian


def test_the_size_of_the_sample_does_not_move_the_null_models():
    a, b = model(gaussian(seed=1)), model(gaussian(seed=2))
    small, large = (embgeom.compare(a, b, dimension_sample=m, **QUICK) for m in (10, 100))
    assert numbers(small)[:4] == numbers(large)[:4]


@pytest.mark.model
def test_two_models_of_others():
    a, b = (data("models", name) for name in ("stories260k", "tinystories-656k"))
    comparison = embgeom.compare(a, str(b), dimension_k=50)
    assert 190 <= len(comparison.match) <= 200
    similarity = comparison["global_similarity_centered"]
    assert 0.40 < similarity.value < 0.52
    assert abs(similarity.shuffled) < 0.05 and abs(similarity.gaussian) < 0.05
    for name in ("neighbor_overlap", "weight_cosine"):
        statistic = comparison[name]
        assert statistic.value > 4 * max(statistic.shuffled, statistic.gaussian)
    assert comparison["dimension_pearson"].value > 0.4
    assert comparison.options.dimension_sample == len(comparison.match)


def test_the_order_of_the_models_does_not_matter():
    comparison, swapped = embgeom.compare(*EXAMPLES), embgeom.compare(*reversed(EXAMPLES))
    assert values(swapped) == pytest.approx(values(comparison), abs=1e-12)


def test_only_shared_tokens_count():
    x = gaussian()
    a = embgeom.Embeddings.from_array(x, [f"word{i}" for i in range(ROWS)], name="a")
    b = embgeom.Embeddings.from_array(x[::-1], [f"word{i}" for i in range(ROWS + 59, 59, -1)], name="b")
    comparison = embgeom.compare(a, b, **QUICK)
    assert len(comparison.match) == 60
    assert comparison.match.left_out_a["absent"] == comparison.match.left_out_b["absent"] == 60
    np.testing.assert_array_equal(comparison.match.ids_a, np.arange(60, 120))
    assert comparison.local_a.neighbors.indices.max() < 60


@pytest.mark.parametrize("shared", [0, 9])
def test_too_few_shared_tokens(shared):
    a = embgeom.Embeddings.from_array(gaussian(20), [f"a{i}" for i in range(20)], name="left")
    b = embgeom.Embeddings.from_array(
        gaussian(20), [f"{'a' if i < shared else 'b'}{i}" for i in range(20)], name="right"
    )
    with pytest.raises(InputError, match=f"at least 10 are needed: left and right share {shared} tokens"):
        embgeom.compare(a, b)


def test_ten_shared_tokens_are_enough():
    x = model(gaussian(10))
    assert embgeom.compare(x, x, k=9)["neighbor_overlap"].value == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": ROWS}, rf"^k = {ROWS} is outside \[1, {ROWS - 1}\]"),
        ({"k": 0}, "^k = 0"),
        ({"k": 2.5}, "k must be a whole number, not 2.5"),
        ({"dimension_k": ROWS}, rf"^dimension_k = {ROWS} is outside \[1, {ROWS - 1}\]"),
        ({"dimension_sample": 0}, "dimension_sample = 0 must be at least 1"),
        ({"dimension_sample": "all"}, "dimension_sample must be a whole number, not 'all'"),
        ({"variance": 95}, "variance = 95"),
        ({"reg": -1e-3}, "reg = -0.001"),
        ({"reg": float("nan")}, "reg = nan"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"metric": "manhattan"}, "metric = 'manhattan' is unknown"),
        ({"threads": 0}, "threads = 0"),
    ],
)
def test_parameters_that_do_not_fit(options, message, monkeypatch):
    # Nothing may be searched first: on a large vocabulary that takes minutes.
    if "metric" not in options:
        # The package's attribute of this name is the function, not the module.
        module = sys.modules["embgeom.comparison.compare"]
        monkeypatch.setattr(module, "knn", lambda *args, **more: pytest.fail("searched"))
    x = model(gaussian())
    with pytest.raises(InputError, match=message):
        embgeom.compare(x, x, **options)


def test_a_model_without_angles():
    with pytest.raises(InputError, match="all pairs of rows of the first matrix have the same"):
        embgeom.compare(model(np.ones((40, 4))), model(gaussian(40, 4)))


def test_undefined_statistics_are_printed_as_such():
    # Without regularization 8 neighbors in 4 columns determine no weights, for any token.
    x = model(gaussian(40, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = embgeom.compare(x, x, k=8, reg=0.0)
        text = comparison.summary()
    assert np.isnan(comparison["weight_cosine"].value) and np.isnan(comparison.weight_cosine).all()
    line = next(line for line in text.splitlines() if "weight cosine" in line)
    assert line.split()[-3:] == ["undefined"] * 3
    assert "10%: undefined, 50%: undefined, 90%: undefined" in text


def test_one_sampled_token_has_no_correlation():
    x = model(gaussian())
    comparison = embgeom.compare(x, x, dimension_sample=1, **QUICK)
    assert np.isnan(comparison["dimension_pearson"].value)
    assert "undefined" in comparison.summary()


def test_statistics_are_found_by_name():
    x = model(gaussian())
    comparison = embgeom.compare(x, x, **QUICK)
    with pytest.raises(InputError, match=r"no statistic is named 'overlap'; there are .*neighbor_overlap"):
        comparison["overlap"]
    quantiles = comparison.weight_cosine_quantiles()
    assert list(quantiles) == [0.1, 0.5, 0.9]
    assert list(quantiles.values()) == sorted(quantiles.values())


@pytest.mark.parametrize(("n", "k"), [(30, 29), (201, 200), (230, 200)])
def test_a_dimension_is_over_200_neighbors_or_all_there_are(n, k):
    x = model(gaussian(n, 4))
    comparison = embgeom.compare(x, x, k=5, dimension_sample=5)
    assert comparison.local_a.dimension.k == k
    assert ("all there are, instead of 200" in comparison.summary()) == (k < 200)


def test_the_cache_changes_no_bit_and_keeps_no_null(tmp_path):
    a, b = model(gaussian(), "a"), model(gaussian(seed=1), "b")
    plainly = embgeom.compare(a, b, **QUICK)
    with embgeom.use_cache(tmp_path):
        first, second = (embgeom.compare(a, b, **QUICK) for _ in range(2))
        other = embgeom.compare(a, b, **{**QUICK, "k": 5, "seed": 1})
    assert plainly.from_cache == first.from_cache == []
    kinds = ("knn", "lle", "intrinsic_dimension")
    alone = [f"{kind} of {name}" for name in "ab" for kind in kinds]
    assert second.from_cache == [*alone, *["global_similarity of a and b"] * 2]
    # All tokens were sampled, whatever the seed, and 5 neighbors are the first of 8.
    assert other.from_cache == [name for name in second.from_cache if not name.startswith("lle")]
    assert len(list(tmp_path.iterdir())) == len(second.from_cache) + 2
    for comparison in (first, second):
        one, two = {}, {}
        again = replace(comparison, from_cache=[])
        assert plain(again, one) == plain(plainly, two)
        assert all(one[name].tobytes() == two[name].tobytes() for name in two)
    second.save(tmp_path / "out")
    assert embgeom.Comparison.load(tmp_path / "out").from_cache == second.from_cache
