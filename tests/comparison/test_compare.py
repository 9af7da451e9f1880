"""Comparisons whose outcome theory knows, and numbers recomputed one by one."""

from __future__ import annotations

import importlib
import warnings
from dataclasses import replace
from math import comb

import numpy as np
import pytest

import embgeom
from embgeom import InputError
from embgeom._common.record import plain
from embgeom.comparison.nulls import correlation_estimate, overlap_estimate
from embgeom.comparison.statistic import FREQUENCY, chance_of_common, conclusion
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
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
    return [plain(statistic.record()) for statistic in comparison.statistics]


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
    for metric in ("euclidean", "cosine"):
        comparison = embgeom.compare(model(x), moved, metric=metric, **QUICK)
        for name in ("global_similarity_centered", "neighbor_overlap", "weight_cosine", "dimension_pearson"):
            assert comparison[name].value == pytest.approx(1.0, abs=0.01)
        # Angles are seen from the origin, so they do not survive.
        assert comparison["global_similarity"].value < 0.9
    assert embgeom.compare(model(x), moved, center=False, **QUICK)["neighbor_overlap"].value < 0.9


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
@pytest.mark.parametrize("center", [True, False])
def test_every_number_is_that_of_the_functions_called_one_by_one(metric, center):
    a, b = model(gaussian(seed=1) + 0.5), model(gaussian(width=7, seed=2))
    comparison = embgeom.compare(a, b, metric=metric, center=center, seed=3, **QUICK)
    search = {"metric": metric, "center": center}
    near = [embgeom.knn(side.matrix, 8, **search) for side in (a, b)]
    overlap = neighbor_overlap(*(neighbors.indices for neighbors in near))
    np.testing.assert_array_equal(comparison.neighbor_overlap, overlap)
    assert comparison["neighbor_overlap"].value == pytest.approx(overlap.mean(), abs=1e-12)
    weights = [embgeom.lle(side.matrix, found) for side, found in zip((a, b), near, strict=True)]
    np.testing.assert_array_equal(comparison.weight_cosine, weight_cosine(*weights))
    dimensions = [embgeom.intrinsic_dimension(side.matrix, k=25, **search) for side in (a, b)]
    for side, found in zip((comparison.local_a, comparison.local_b), dimensions, strict=True):
        np.testing.assert_array_equal(side.dimension.n_components, found.n_components)
    wide = tuple(embgeom.knn(side.matrix, 25, **search) for side in (a, b))
    counts = [found.n_components for found in dimensions]
    expected = correlation_estimate(*counts, kind="pearson", neighbors=wide)
    assert comparison["dimension_pearson"].value == pytest.approx(expected.value, abs=1e-12)
    assert comparison["dimension_pearson"].estimate.interval == expected.interval
    for name, centered in (("global_similarity", False), ("global_similarity_centered", True)):
        whole = embgeom.global_similarity(a.matrix, b.matrix, center=centered)
        assert comparison[name].value == pytest.approx(whole, abs=1e-9)


def test_independent_models_lie_within_their_null():
    a, b = gaussian(400, 20, seed=1), gaussian(400, 12, seed=2)
    for statistic in embgeom.compare(model(a), model(b), **QUICK).statistics:
        assert abs(statistic.estimate.z) < 4 and statistic.p_adjusted > 1e-3
        assert statistic.null.mean == pytest.approx(statistic.value, abs=0.25)


def test_seeds_and_threads():
    a, b = model(gaussian(seed=1)), model(gaussian(seed=2))
    options = {"k": 8, "dimension_k": 25, "dimension_sample": 50}
    first, again, single, other = (
        embgeom.compare(a, b, seed=seed, threads=threads, **options)
        for seed, threads in ((0, 2), (0, 2), (0, 1), (1, 2))
    )
    assert numbers(first) == numbers(again) == numbers(single)
    assert first.sampled.tolist() == single.sampled.tolist() != other.sampled.tolist()
    # What depends neither on the sample nor on drawn relabelings stays.
    for one, two in list(zip(first.statistics, other.statistics, strict=True))[:4]:
        assert one.value == two.value and one.null == two.null


def test_p_values_are_adjusted_for_all_measures():
    comparison = embgeom.compare(model(gaussian(seed=1)), model(gaussian(seed=2)), **QUICK)
    p = np.array([statistic.estimate.p for statistic in comparison.statistics])
    adjusted = np.array([statistic.p_adjusted for statistic in comparison.statistics])
    assert adjusted.min() == pytest.approx(min(1.0, 6 * p.min())) and (adjusted >= p).all()


def with_bytes(noise=0.3, words=160, width=12):
    """Return two models of bytes, which lie together in both, and of words that are unrelated."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + [f"▁word{i}" for i in range(words)]
    sides = []
    for seed in (1, 2):
        x = np.random.default_rng(seed).standard_normal((len(tokens), width))
        x[:256] = 3.0 * x[256] / np.linalg.norm(x[256]) + noise * x[:256]
        sides.append(embgeom.Embeddings.from_array(x.astype(np.float32), tokens, name=f"model {seed}"))
    assert sides[0].byte_token.sum() == 256
    return sides


def test_a_class_of_tokens_that_makes_the_number_is_named():
    with pytest.warns(
        embgeom.EmbgeomWarning, match=r"without byte tokens \(256 of 416\)\. Null with"
    ) as told:
        comparison = embgeom.compare(*with_bytes(), k=8, dimension_k=30, without=())
    assert len(told) == 2 and "global_similarity_centered" in str(told[1].message)
    # A warning points at the line that called.
    assert {each.filename for each in told} == {__file__}
    found = comparison["global_similarity_centered"]
    assert found.value > 0.75
    assert abs(found.without["without byte"].value) < 0.1 and found.without["without byte"].n == 160
    # Exchanged only among themselves and among the words, bytes and words still tell two groups apart.
    assert found.stratified.mean > 0.9 * found.value
    text = comparison.summary()
    assert "warning: global_similarity is" in text and "without byte" in text
    assert all("(256 of 416)" in caution for caution in comparison.cautions[:1])


def test_a_class_that_is_left_out_is_named_beside_the_value_with_it():
    comparison = embgeom.compare(*with_bytes(), k=8, dimension_k=30, without=("byte",))
    assert abs(comparison["global_similarity_centered"].value) < 0.1
    assert comparison["global_similarity_centered"].without["with all"].value > 0.75
    text = comparison.summary()
    assert "warning: with all 416 matched tokens, global_similarity_centered is 0." in text


@pytest.mark.filterwarnings("ignore:global_similarity")
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_values_on_other_sets_of_tokens_are_those_of_a_comparison_on_these(metric):
    models = with_bytes()
    options = {"k": 8, "dimension_k": 30, "metric": metric, "center": metric == "euclidean"}
    whole = embgeom.compare(*models, without=(), **options)
    words = embgeom.compare(*models, without=("byte",), **options)
    assert len(whole.match) == 416 and len(words.match) == 160
    assert words.match.left_out_a["byte"] == words.match.left_out_b["byte"] == 256
    names = ("global_similarity", "global_similarity_centered", "neighbor_overlap", "weight_cosine")
    for name in names:
        for one, other, where in ((whole, words, "without byte"), (words, whole, "with all")):
            if abs(other[name].value - one[name].value) > one[name].estimate.half_width:
                assert one[name].without[where].value == pytest.approx(other[name].value, abs=1e-9)
            else:
                assert where not in one[name].without
    assert any("without byte" in whole[name].without for name in names)
    assert any("with all" in words[name].without for name in names)


def test_curves_are_drawn_as_everything_else():
    a, b = model(gaussian(seed=1)), model(gaussian(seed=2))
    found = embgeom.compare(a, b, relabelings=30, seed=5, curves=True, **QUICK)
    overlap, weights = found.curves
    near = [side.neighbors for side in (found.local_a, found.local_b)]
    assert overlap.at == weights.at == (10, 50)
    wide = [embgeom.knn(side.matrix, 10, center=True) for side in (a, b)]
    expected = overlap_estimate(*wide, strata=found.strata, draws=30, seed=5)
    assert overlap.estimates[0] == expected and expected.stratified.draws == 30
    assert weights.estimates[0].stratified.draws == 30 and near[0].k == 8
    # A sample of dimensions, for which the graph is narrow, changes nothing of them.
    some = embgeom.compare(a, b, relabelings=30, seed=5, curves=True, dimension_sample=20, **QUICK)
    assert some.curves == found.curves
    few = embgeom.compare(model(gaussian(30)), model(gaussian(30, seed=1)), k=8, curves=True)
    assert [curve.at for curve in few.curves] == [(10,), (10,)]


@pytest.mark.filterwarnings("ignore:global_similarity")
def test_what_other_sets_of_tokens_leave_out_is_said():
    x, noise = gaussian(416, 12, seed=1), gaussian(416, 12, seed=2)
    x[256:] += 0.5
    sides = x, np.concatenate([noise[:256], x[256:] + 0.2 * noise[256:]])
    tokens = with_bytes()[0].tokens
    models = [
        embgeom.Embeddings.from_array(each, tokens, name=name) for name, each in zip("ab", sides, strict=True)
    ]
    found = embgeom.compare(*models, k=8, dimension_k=30, without=("byte",))
    text = " ".join(found.summary().split())
    assert "not measured on other sets: dimension_pearson, dimension_spearman with all tokens" in text
    assert "after subtracting the mean of the tokens that count" in text
    near = [embgeom.knn(m.matrix - m.matrix[256:].mean(axis=0, dtype=np.float64), 8) for m in models]
    overlap = found["neighbor_overlap"]
    expected = neighbor_overlap(*near).mean()
    assert abs(expected - overlap.value) > overlap.estimate.half_width
    assert overlap.without["with all"].value == pytest.approx(expected, abs=1e-3)
    itself = embgeom.compare(*models, k=8, dimension_k=30, without=())["neighbor_overlap"].value
    assert itself != pytest.approx(expected, abs=2e-3)
    words = embgeom.compare(*(m.select(np.arange(256, 416)) for m in models), k=8, dimension_k=30)
    assert "not measured" not in words.summary()


@pytest.mark.filterwarnings("ignore:global_similarity")
def test_which_tokens_agree():
    comparison = embgeom.compare(*with_bytes(), k=8, dimension_k=30)
    tenths = [group for group in comparison.groups if group.kind == FREQUENCY]
    assert len(tenths) == 10 and sum(group.tokens for group in tenths) == len(comparison.match)
    mean = sum(group.tokens * group.neighbor_overlap for group in tenths) / len(comparison.match)
    assert mean == pytest.approx(comparison["neighbor_overlap"].value)
    none = sum(group.tokens * group.none_shared for group in tenths) / len(comparison.match)
    assert none == pytest.approx((comparison.neighbor_overlap == 0).mean())
    assert (
        "which tokens agree?" in comparison.summary() and "tenth 1 has the lowest row" in comparison.summary()
    )
    # All tokens are a group, too, whose intervals are those of the measures.
    everyone = comparison.groups[0]
    for half, name in (
        (everyone.overlap_half_width, "neighbor_overlap"),
        (everyone.cosine_half_width, "weight_cosine"),
    ):
        assert half == pytest.approx(comparison[name].estimate.half_width)


@pytest.mark.filterwarnings("ignore:global_similarity")
def test_the_table_is_preceded_by_what_it_means():
    related = embgeom.compare(*with_bytes(), k=8, dimension_k=30)
    words = embgeom.compare(*with_bytes(), k=8, dimension_k=30, without=("byte",))
    text = " ".join(related.summary().split())
    assert "in strata: only among tokens of one class, length and similar frequency" in text
    assert "corrected for 6 measures (Holm)" in text and conclusion(related.statistics) in text
    said = conclusion(related.statistics)
    assert text.index(said[:8]) < text.index("shared tokens have in common") and "its z: the same by" in text
    assert "none shared: how many" in text and "matched, word" not in text and "zero rows" not in text
    above = [each for each in related.statistics if each.is_above_null]
    assert said.startswith(f"In short: {len(above)} of 6 measures are significantly above their null")
    share = max(each.share_of_strata for each in above)
    assert f"{share:.0%} (" in said and "read the value" in said
    assert conclusion(words.statistics) == "In short: no measure is significantly above its null (p < 0.05)."


@pytest.mark.parametrize(("n", "k"), [(10, 3), (11, 5), (50, 10), (400, 10)])
def test_chance_of_common_neighbors_is_hypergeometric(n, k):
    expected = [comb(k, c) * comb(n - 1 - k, k - c) / comb(n - 1, k) for c in range(k + 1)]
    assert chance_of_common(n, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.model
def test_two_models_of_others():
    a, b = (data("models", name) for name in ("stories260k", "tinystories-656k"))
    comparison = embgeom.compare(a, str(b))
    assert 150 <= len(comparison.match) <= 200
    similarity = comparison["global_similarity_centered"]
    assert 0.30 < similarity.value < 0.55 and abs(similarity.null.mean) < 1e-6
    assert all(statistic.p_adjusted < 1e-6 for statistic in comparison.statistics[:4])
    for name in ("neighbor_overlap", "weight_cosine"):
        assert comparison[name].value > 4 * comparison[name].null.mean
    assert comparison.options.dimension_k == (len(comparison.match) - 1) // 2
    assert len(comparison.sampled) == len(comparison.match)


@pytest.mark.model
def test_bytes_make_the_number_of_two_small_models():
    small = data("models", "stories260k")
    with pytest.warns(embgeom.EmbgeomWarning, match="without byte tokens .168 of 408."):
        comparison = embgeom.compare("example:small", small, without=())
    found = comparison["global_similarity_centered"]
    assert found.value == pytest.approx(0.7527, abs=1e-3)
    assert found.without["without byte"].value == pytest.approx(0.5262, abs=1e-3)
    text = " ".join(comparison.summary().split())
    assert "global_similarity_centered is 0.75" in text
    assert (
        "but 0.526 ± 0.072 without byte tokens (168 of 408) and 0.408 ± 0.050 without untrained tokens"
        in text
    )
    assert (
        "only outside the class: 0.64 ± 0.01 (byte), 0.68 ± 0.01 (untrained). These classes overlap." in text
    )
    # By default they are left out, since untrained, and the number with them stands beside the others.
    comparison = embgeom.compare("example:small", small)
    found = comparison["global_similarity_centered"]
    assert found.value < 0.5 and found.without["with all"].value == pytest.approx(0.7527, abs=1e-3)
    assert found.stratified.strata > 1 and found.estimate.z_stratified > 3
    assert any(
        text.startswith("with all 408 matched tokens, global_similarity_centered is 0.75")
        for text in comparison.cautions
    )


def test_the_order_of_the_models_does_not_matter():
    comparison, swapped = embgeom.compare(*EXAMPLES), embgeom.compare(*reversed(EXAMPLES))
    assert values(swapped) == pytest.approx(values(comparison), abs=1e-9)


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
        ({"relabelings": 1}, "relabelings = 1 must be at least 2"),
        ({"center": "yes"}, "center must be True or False"),
        ({"dimension_sample": "all"}, "dimension_sample must be a whole number, not 'all'"),
        ({"variance": 95}, "variance = 95"),
        ({"reg": -1e-3}, "reg = -0.001"),
        ({"reg": float("nan")}, "reg = nan"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"metric": "manhattan"}, "metric = 'manhattan' is unknown"),
        ({"threads": 0}, "threads = 0"),
        ({"nonsense": 1}, "^nonsense: no option of compare, which takes which, progress, k, metric"),
    ],
)
def test_parameters_that_do_not_fit(options, message, monkeypatch):
    # Nothing may be searched first: on a large vocabulary that takes minutes.
    if "metric" not in options:
        # The package's attribute of this name is the function, not the module.
        module = importlib.import_module("embgeom.comparison.compare")
        monkeypatch.setattr(module, "knn", lambda *args, **more: pytest.fail("searched"))
    x = model(gaussian())
    with pytest.raises(InputError, match=message):
        embgeom.compare(x, x, **options)


def test_a_model_without_angles():
    with pytest.raises(InputError, match="all pairs of rows of the first matrix have the same"):
        embgeom.compare(model(np.ones((40, 4))), model(gaussian(40, 4)), without=())


def test_undefined_statistics_are_printed_as_such():
    # Without regularization 8 neighbors in 4 columns determine no weights, for any token.
    x = model(gaussian(40, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        comparison = embgeom.compare(x, x, k=8, reg=0.0)
        text = comparison.summary()
    assert np.isnan(comparison["weight_cosine"].value) and np.isnan(comparison.weight_cosine).all()
    line = next(line for line in text.splitlines() if "weight_cosine" in line)
    assert line.split()[1] == "undefined"
    assert comparison.cautions[-1] == "undefined: weight_cosine (constant values, or no token has weights)"
    assert "10%: undefined, 50%: undefined, 90%: undefined" in text


def test_a_token_without_neighbors_has_no_dimension(tmp_path):
    # Row 7 is the mean of all rows, exactly: it has no direction after that is subtracted.
    half = np.rint(gaussian(60) * 64)
    rows = np.insert(np.concatenate([half, -half]), 7, 0.0, axis=0) + 64
    comparison = embgeom.compare(model(rows), model(gaussian(121, seed=1)), without=(), **QUICK)
    of_a, of_b = (side.dimension for side in (comparison.local_a, comparison.local_b))
    assert of_a.n_components[7] == -1 and np.isnan(of_a.defined[7]) and of_b.n_components[7] > 0
    columns = comparison.columns()
    assert columns["n_components_a"][7] is None and columns["n_components_a"][8] == of_a.n_components[8]
    mean = np.delete(of_a.n_components, 7).mean()
    assert f"mean {mean:.1f} in A and {of_b.n_components.mean():.1f} in B" in comparison.summary()
    assert "inspect also measures that of Gaussian rows" in " ".join(comparison.summary().split())
    comparison.plot(tmp_path / "figure.svg")


def test_the_interval_of_a_sample_allows_for_shared_neighbors():
    # Six clusters of different dimensions: tokens of one of them have neighbors in common.
    cluster = np.arange(ROWS) % 6
    inside = np.arange(30) < 3 + 3 * cluster[:, None]
    a, b = (
        model(9 * gaussian(6, 30, seed)[cluster] + inside * gaussian(width=30, seed=seed)) for seed in (1, 2)
    )
    options = {**QUICK, "dimension_k": 15, "dimension_sample": 60}
    comparison = embgeom.compare(a, b, center=False, **options)
    wide = tuple(embgeom.knn(side.matrix, 15, rows=comparison.sampled) for side in (a, b))
    counts = [side.dimension.n_components for side in (comparison.local_a, comparison.local_b)]
    expected = correlation_estimate(*counts, kind="spearman", neighbors=wide)
    assert comparison["dimension_spearman"].estimate.interval == expected.interval
    assert expected.half_width > correlation_estimate(*counts, kind="spearman").half_width


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
    assert repr(comparison["neighbor_overlap"]).startswith("Statistic(neighbor_overlap ")
    assert len(repr(comparison["neighbor_overlap"])) < 110
    quantiles = comparison.weight_cosine_quantiles()
    assert list(quantiles) == [0.1, 0.5, 0.9]
    assert list(quantiles.values()) == sorted(quantiles.values())


@pytest.mark.parametrize(("n", "k"), [(30, 14), (400, 199), (401, 200), (430, 200)])
def test_a_dimension_is_over_200_neighbors_or_half_of_the_tokens(n, k):
    x = model(gaussian(n, 4))
    comparison = embgeom.compare(x, x, k=5, dimension_sample=5)
    assert comparison.local_a.dimension.k == k
    assert ("half of the tokens, instead of 200" in comparison.summary()) == (k < 200)


def test_the_cache_changes_no_bit(tmp_path):
    a, b = model(gaussian(), "a"), model(gaussian(seed=1), "b")
    plainly = embgeom.compare(a, b, **QUICK)
    with embgeom.use_cache(tmp_path):
        first, second = (embgeom.compare(a, b, **QUICK) for _ in range(2))
        other = embgeom.compare(a, b, **{**QUICK, "k": 5, "seed": 1})
    assert plainly.from_cache == first.from_cache == []
    alone = [
        *(f"knn of {name}" for name in "ab"),
        *(f"{kind} of {name}" for name in "ab" for kind in ("lle", "intrinsic_dimension")),
    ]
    assert second.from_cache == alone
    # The dimensions are those of the same 25 neighbors, of which 5 are the first.
    assert other.from_cache == [name for name in second.from_cache if not name.startswith("lle")]
    assert len(list(tmp_path.iterdir())) == len(second.from_cache) + 2
    for comparison in (first, second):
        one, two = {}, {}
        again = replace(comparison, from_cache=[])
        assert plain(again, one) == plain(plainly, two)
        assert all(one[name].tobytes() == two[name].tobytes() for name in two)
    second.save(tmp_path / "out")
    assert embgeom.Comparison.load(tmp_path / "out").from_cache == second.from_cache


def test_runs_over_a_whole_vocabulary_are_read(tmp_path):
    a, b = model(gaussian(), "a"), model(gaussian(seed=1), "b")
    with embgeom.use_cache(tmp_path / "cache"):
        for side in (a, b):
            embgeom.run("knn", side, tmp_path / f"{side.name}-knn", k=40, center=True)
            embgeom.run("dimension", side, tmp_path / f"{side.name}-dimension", k=25, center=True)
        found = embgeom.compare(a, b, **QUICK)
    kinds = ("knn", "intrinsic_dimension")
    assert sorted(found.from_cache) == sorted(f"{kind} of {name}" for kind in kinds for name in "ab")
