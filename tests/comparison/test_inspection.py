"""Inspections of one model and of one token, against the kernels they are made of."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom import InputError
from embgeom.comparison.inspect import EXTREMES
from embgeom.geometry.estimators import gaussian_level
from tests.helpers.loading import data


def model(matrix, **options):
    return embgeom.Embeddings.from_array(
        np.asarray(matrix, dtype=np.float32),
        [f"word{i}" for i in range(len(matrix))],
        name="small",
        **options,
    )


def gaussian(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def with_zeros(rows=80, width=6):
    x = gaussian(rows, width)
    x[::4] = 0.0
    return x


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_extremes_are_the_lowest_and_highest_of_the_sample(metric):
    embeddings = model(gaussian(200, 12))
    inspection = embgeom.inspect(embeddings, dimension_k=15, dimension_sample=90, metric=metric, seed=5)
    components = inspection.dimension.n_components
    np.testing.assert_array_equal(
        components,
        embgeom.intrinsic_dimension(
            embeddings.matrix, k=15, rows=inspection.sampled, metric=metric, center=True
        ).n_components,
    )
    ascending = np.sort(components)
    assert [inspection.dimension_of(row) for row in inspection.lowest.rows] == ascending[:EXTREMES].tolist()
    assert [inspection.dimension_of(row) for row in inspection.highest.rows] == ascending[
        : -EXTREMES - 1 : -1
    ].tolist()
    assert not set(inspection.lowest.rows) & set(inspection.highest.rows)


def test_neighbors_of_extremes_are_those_of_knn():
    embeddings = model(gaussian(100, 8))
    inspection = embgeom.inspect(embeddings, dimension_k=20)
    everyone = embgeom.knn(embeddings.matrix, 6, center=True)
    for found in (inspection.lowest, inspection.highest):
        np.testing.assert_array_equal(found.indices, everyone.indices[found.rows])


def test_sample_is_drawn_without_repetition_and_by_the_seed():
    embeddings = model(gaussian(100, 8))
    first, again, other = (
        embgeom.inspect(embeddings, dimension_k=10, dimension_sample=30, seed=seed).sampled
        for seed in (1, 1, 2)
    )
    assert len(set(first.tolist())) == 30 and (np.diff(first) > 0).all()
    assert first.tolist() == again.tolist() != other.tolist()
    whole = embgeom.inspect(embeddings, dimension_k=10, dimension_sample=10**9)
    assert whole.sampled.tolist() == list(range(100))
    assert whole.options["dimension_sample"] == 100


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_zero_rows_are_never_sampled(metric):
    embeddings = model(with_zeros())
    inspection = embgeom.inspect(embeddings, dimension_k=10, metric=metric)
    assert inspection.sampled.tolist() == [row for row in range(80) if row % 4]
    # The norms tell of all rows, zero ones included.
    assert np.count_nonzero(inspection.norms == 0.0) == 20
    if metric == "cosine":
        assert (inspection.lowest.indices % 4 != 0).all()


def test_k_is_bound_by_the_rows_that_are_not_zero():
    embeddings = model(with_zeros())
    assert embgeom.inspect(embeddings, dimension_k=59).dimension.k == 59
    with pytest.raises(InputError, match=r"dimension_k = 60 is outside \[1, 59\]"):
        embgeom.inspect(embeddings, dimension_k=60)


def test_rows_that_do_not_count_are_no_neighbors():
    x = gaussian(300, 64)
    bad = [f"<unused{i}>" for i in range(40)]
    x[260:] = 2 + 0.01 * x[260:]
    tokens = [*(f"▁w{i}" for i in range(260)), *bad]
    embeddings = embgeom.Embeddings.from_array(x, tokens, name="small")
    inspection = embgeom.inspect(embeddings, dimension_k=20)
    assert inspection.kept.tolist() == inspection.sampled.tolist() == list(range(260))
    alone = embgeom.inspect(embeddings.select(range(260)), dimension_k=20, without=())
    np.testing.assert_array_equal(inspection.dimension.n_components, alone.dimension.n_components)
    assert inspection.lowest.indices.max() < 260
    assert len(embgeom.inspect(embeddings, dimension_k=20, without=()).kept) == 300
    assert len(embgeom.inspect(embeddings, dimension_k=2, only=["w1", "w2", "w3"]).kept) == 3
    assert (
        "260 of 300 rows count (left out: special 0, unused 40, equal 0, untrained 40)"
        in inspection.summary()
    )


def test_hubs_are_counted_over_all_lists():
    x = gaussian(150, 8) + 1
    inspection = embgeom.inspect(model(x), dimension_k=20)
    centered, plain = inspection.hubs
    assert (centered.center, plain.center) == (True, False)
    for found in inspection.hubs:
        lists = embgeom.knn(x, 10, center=found.center).indices
        np.testing.assert_array_equal(found.in_degree, np.bincount(lists.ravel(), minlength=150))
        assert found.in_degree.sum() == 1500 and found.greatest(1)[0] == found.in_degree.argmax()
        standard = (found.in_degree - found.in_degree.mean()) / found.in_degree.std()
        assert found.skewness == pytest.approx(np.mean(standard**3))
        assert found.top_share == pytest.approx(np.sort(found.in_degree)[-2:].sum() / 1500)
    assert plain.skewness > centered.skewness
    columns = inspection.columns()
    np.testing.assert_array_equal(columns["in_degree"], centered.in_degree)


def test_rounding_of_equal_norms_is_no_outlier():
    x = np.zeros((200, 8), np.float32)
    x[np.arange(200), np.arange(200) % 8] = 1
    x[:40] = np.random.default_rng(0).standard_normal((40, 8))
    x[:40] /= np.linalg.norm(x[:40], axis=1, keepdims=True)
    x[7] *= 1.001
    inspection = embgeom.inspect(model(x), dimension_k=20, without=())
    norms = inspection.norms[inspection.kept]
    assert (norms != 1).sum() > 10 and np.median(norms) == 1
    assert inspection.norm_outliers.tolist() == [7]


def test_norm_outliers_are_reported():
    x = gaussian(200, 32)
    x[7] *= 1e-3
    x[9] *= 100
    inspection = embgeom.inspect(model(x), dimension_k=20)
    assert set(inspection.norm_outliers) == {7, 9}
    assert "1 short, 1 long:\n'word7'  'word9'" in inspection.summary()


def test_untrained_text_tokens_are_listed():
    x = gaussian(120, 64)
    x[100:] = 2 + 0.01 * x[100:]
    tokens = [*(f"▁w{i}" for i in range(110)), *(f"<unused{i}>" for i in range(10))]
    summary = embgeom.inspect(embgeom.Embeddings.from_array(x, tokens), dimension_k=20).summary()
    assert "10 untrained text tokens" in summary and "' w105'" in summary


def test_quoted_tokens_never_break_over_lines():
    tokens = [f" {'long' * 4} {i}" if i % 2 else f"\n {i}" for i in range(60)]
    found = embgeom.Embeddings.from_array(gaussian(60, 8), tokens)
    summary = embgeom.inspect(found, dimension_k=20).summary()
    for line in summary.splitlines():
        assert line.count("'") % 2 == 0, line


def test_three_rows_are_enough():
    inspection = embgeom.inspect(model(gaussian(3, 4)))
    assert inspection.dimension.k == 2
    assert len(inspection.lowest.rows) == len(inspection.highest.rows) == 1
    assert inspection.lowest.indices.shape == (1, 2)
    assert "word0" in inspection.summary()


@pytest.mark.parametrize("usable", [0, 1, 2])
def test_fewer_rows_are_not(usable):
    x = np.zeros((5, 3), dtype=np.float32)
    x[:usable] = gaussian(usable, 3)
    with pytest.raises(InputError, match=f"{usable} rows of small count that are not zero; at least 3"):
        embgeom.inspect(model(x))


def test_equal_rows_have_no_dimension():
    with pytest.raises(InputError, match="1 rows of small count"):
        embgeom.inspect(model(np.ones((60, 4))))
    inspection = embgeom.inspect(model(np.ones((60, 4))), without=(), center=False)
    assert not inspection.dimension.n_components.any()
    assert inspection.summary()


def test_undefined_dimensions_are_neither_lowest_nor_highest(tmp_path):
    # Row 7 is the mean of all rows, exactly: it has no direction after that is subtracted.
    half = np.rint(gaussian(60, 10) * 64)
    rows = np.insert(np.concatenate([half, -half]), 7, 0.0, axis=0) + 64
    inspection = embgeom.inspect(model(rows), dimension_k=20, without=())
    assert inspection.dimension_of(7) == -1
    ends = np.concatenate([inspection.lowest.rows, inspection.highest.rows])
    assert 7 not in ends and len(ends) == 2 * EXTREMES
    assert min(map(inspection.dimension_of, ends)) == inspection.dimension.n_components[8:].min() > 0
    inspection.plot(tmp_path / "figure.svg")


def test_rows_that_were_not_measured_have_no_dimension():
    inspection = embgeom.inspect(model(gaussian(100, 8)), dimension_k=10, dimension_sample=30)
    other = np.setdiff1d(np.arange(100), inspection.sampled)[0]
    for row in (other, -1, 100):
        with pytest.raises(InputError, match=f"row {row} is not among the 30 rows that were measured"):
            inspection.dimension_of(row)


def test_the_mean_dimension_stands_beside_that_of_gaussian_rows(tmp_path):
    embeddings = model(gaussian(300, 8))
    with embgeom.use_cache(tmp_path / "cache"):
        found, again = (embgeom.inspect(embeddings, dimension_k=30) for _ in range(2))
    level = gaussian_level(embeddings.matrix, 30, center=True)
    assert found.gaussian.to_dict() == again.gaussian.to_dict() == level.to_dict()
    assert found.gaussian.mean == pytest.approx(found.dimension.n_components.mean(), abs=0.2)
    text = " ".join(found.summary().split())
    assert f"mean dimension: {found.dimension.n_components.mean():.1f}, and {level.mean:.2f}" in text
    # Lists of 10 that are drawn at random have in-degrees of 10 on average, nearly Poisson.
    assert "about 0.32 for random lists" in text
    found.save(tmp_path / "out")
    assert embgeom.Inspection.load(tmp_path / "out").gaussian.to_dict() == level.to_dict()
    (line,) = (line for line in found.figure().axes[1].lines if line.get_label().startswith("Gaussian"))
    assert list(line.get_xdata()) == [level.mean] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension_sample": 0}, "dimension_sample = 0 must be at least 1"),
        ({"dimension_sample": 2.5}, "dimension_sample must be a whole number, not 2.5"),
        ({"dimension_k": 0}, r"dimension_k = 0 is outside \[1, 39\]"),
        ({"variance": 95}, r"variance = 95 .*\(0, 1\]"),
        ({"variance": float("nan")}, "variance = nan"),
        ({"seed": -1}, "seed = -1 must be at least 0"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"metric": "manhattan"}, "metric = 'manhattan'"),
        ({"threads": 0}, "threads = 0"),
    ],
)
def test_parameters_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        embgeom.inspect(model(gaussian(40, 4)), **options)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def test_a_token_by_name_and_by_number(metric):
    embeddings = model(gaussian(60, 8))
    options = {"k": 7, "metric": metric, "dimension_k": 25, "center": False, "without": ()}
    by_name, by_number = (
        embgeom.inspect_token(embeddings, token, **options) for token in ("word9", np.int64(9))
    )
    everyone = embgeom.knn(embeddings.matrix, 7, metric=metric)
    for found in (by_name, by_number):
        assert found.row == 9
        assert found.neighbors.indices.tolist() == [everyone.indices[9].tolist()]
        np.testing.assert_array_equal(
            found.lle.weights[0], embgeom.lle(embeddings.matrix, everyone).weights[9]
        )
        dimension = embgeom.intrinsic_dimension(embeddings.matrix, k=25, rows=[9], metric=metric)
        assert found.dimension.n_components.tolist() == dimension.n_components.tolist()
    assert by_name.summary() == by_number.summary()
    assert "nearest rows of 'word9' (row 9) in small" in by_name.summary()


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
@pytest.mark.parametrize("matrix", [gaussian(60, 8) + 2.0, with_zeros() + 0.0])
def test_a_token_after_subtracting_the_mean(matrix, metric):
    matrix[1::4] += 1.5
    embeddings = model(matrix)
    kept = np.flatnonzero(matrix.any(axis=1)) if metric == "cosine" else np.arange(len(matrix))
    position = np.searchsorted(kept, 9)
    near = embgeom.knn(matrix[kept], 7, rows=[position], metric=metric, center=True)
    options = {"k": 7, "metric": metric, "dimension_k": 25, "without": ()}
    found = embgeom.inspect_token(embeddings, 9, **options)
    assert found.neighbors.center and "centered" in found.summary()
    assert found.neighbors.indices.tolist() == kept[near.indices].tolist()
    assert found.neighbors.rows.tolist() == [9] and found.lle.indices.tolist() == kept[near.indices].tolist()


def test_tokens_that_do_not_count_are_not_neighbors():
    tokens = [f"▁w{i}" for i in range(60)]
    embeddings = embgeom.Embeddings.from_array(
        x := gaussian(60, 8), tokens, special=tokens[5:12], name="with special"
    )
    kept = np.r_[0:5, 12:60]
    # Special tokens are not neighbors, but have some.
    for row in (3, 7):
        found = embgeom.inspect_token(embeddings, row, k=9, dimension_k=20)
        near = embgeom.knn(x[kept], 10, queries=x[[row]], center=True).indices[0]
        assert found.neighbors.indices[0].tolist() == [i for i in kept[near].tolist() if i != row][:9]
        everyone = embgeom.inspect_token(embeddings, row, k=59, without=(), dimension_k=20)
        assert set(everyone.neighbors.indices[0].tolist()) == set(range(60)) - {row}


def test_the_word_is_named_where_its_piece_was_typed():
    tokens = ["king", "▁king", "queen", "▁man", *(f"▁w{i}" for i in range(40))]
    embeddings = embgeom.Embeddings.from_array(gaussian(44, 6), tokens, name="royal")
    assert embgeom.inspect_token(embeddings, "king", k=3).also == {"' king'": 1}
    text = embgeom.inspect_token(embeddings, "king", k=3).summary()
    assert "' king', with a space, is another token: embgeom neighbors royal ' king'" in text
    for plain in ("▁king", " king", "queen", "man", 0):
        assert embgeom.inspect_token(embeddings, plain, k=3).also == {}


def test_a_token_in_several_models():
    tokens = ["king", "▁king", "▁man", *(f"▁w{i}" for i in range(40))]
    a = embgeom.Embeddings.from_array(x := gaussian(43, 6), tokens, name="a")
    b = embgeom.Embeddings.from_array(x[1:] @ gaussian(6, 6), tokens[1:], name="b")
    pieces = embgeom.inspect_token([a, a], "king", k=3)
    assert [each.row for each in pieces.models] == [0, 0] and "neighbors a a ' king'" in pieces.summary()
    # What only one of them has alone is looked up as the word in both.
    both = embgeom.inspect_token([a, b], "king", k=5)
    assert [each.row for each in both.models] == [1, 0]
    alone = embgeom.inspect_token(b, " king", k=5)
    assert both.models[1].neighbors.indices.tolist() == alone.neighbors.indices.tolist()
    first, second = (each.neighbor_tokens for each in both.models)
    assert both.shared == [token for token in first if token in second]
    text = both.summary()
    assert "A: a" in text and "B: b" in text and "in all of them: " in text
    assert f"{both.models[0].lle.residuals[0]:.4g}" in text
    with pytest.raises(InputError, match="3 is a row number, which is another token in each model"):
        embgeom.inspect_token([a, b], 3)
    with pytest.raises(InputError, match="no model is given"):
        embgeom.inspect_token([], "king")
    with pytest.raises(
        InputError,
        match=r"'w50' is not a token of a .*close in spelling: .*; 'w50' is not a token of b .*close",
    ):
        embgeom.inspect_token([a, b], "w50")


def test_a_model_without_the_token_is_left_out():
    words = [f"word{i}" for i in range(60)]
    a, b, c = (
        embgeom.Embeddings.from_array(gaussian(60, 8, seed), tokens, name=name)
        for seed, (name, tokens) in enumerate({"a": words, "b": words, "c": [*words[:-1], "dog"]}.items())
    )
    found = embgeom.inspect_token([a, c, b], "dog")
    assert [each.model for each in found.models] == ["c"] and found.shared == []
    assert len(found.missing) == 2 and "'dog' is not a token of a (60 rows)" in found.missing[0]
    assert "note: 'dog' is not a token of b" in found.summary() and "in all" not in found.summary()
    both = embgeom.inspect_token([a, c, b], "word59", k=5)
    assert [each.model for each in both.models] == ["a", "b"] and len(both.to_pandas()) == 10
    assert "'word59' is not a token of c" in both.missing[0] and "in all of them" in both.summary()


@pytest.mark.parametrize("row", [-1, 60, 10**12])
def test_rows_out_of_range(row):
    with pytest.raises(InputError, match=f"row {row} is outside small, whose rows are 0 to 59"):
        embgeom.inspect_token(model(gaussian(60, 8)), row)


@pytest.mark.parametrize("token", [1.5, None, b"word9"])
def test_what_is_neither_token_nor_row(token):
    # A float must not be cut to the row below it.
    with pytest.raises(InputError, match="neither a token"):
        embgeom.inspect_token(model(gaussian(60, 8)), token)


def test_an_unknown_token_is_told_with_those_close_to_it():
    with pytest.raises(InputError, match=r"'wordd9' is not a token of small .* close in spelling: .*'word9'"):
        embgeom.inspect_token(model(gaussian(60, 8)), "wordd9")


def test_a_zero_row_has_no_neighbors_by_cosine():
    embeddings = model(with_zeros())
    with pytest.raises(InputError, match=r"the row of 'word8' \(number 8\) is zero"):
        embgeom.inspect_token(embeddings, "word8")
    # By distance the other zero rows are nearest.
    found = embgeom.inspect_token(embeddings, "word8", k=5, metric="euclidean", without=())
    assert found.neighbors.indices.tolist() == [[0, 4, 12, 16, 20]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 60}, r"^k = 60 is outside \[1, 59\]"),
        ({"dimension_k": 60}, r"dimension_k = 60 is outside \[1, 59\]"),
        ({"reg": -1.0}, "reg = -1.0"),
        ({"variance": 0.0}, "variance = 0.0"),
    ],
)
def test_parameters_of_a_token(options, message):
    with pytest.raises(InputError, match=message):
        embgeom.inspect_token(model(with_zeros()), "word1", **options)


@pytest.mark.model
def test_letters_need_the_most_dimensions():
    embeddings = embgeom.load(data("models", "stories260k"))
    inspection = embgeom.inspect(embeddings, dimension_k=51, without=())
    assert len(inspection.sampled) == 512
    assert 0 < inspection.dimension.n_components.min() < inspection.dimension.n_components.max() <= 48
    # Letters are met in all kinds of words, and need the most dimensions.
    highest = {embeddings.text(row) for row in inspection.highest.rows}
    assert sum(len(text) == 1 and text.isalpha() for text in highest) >= 6


def test_models_are_named_as_for_compare():
    model = embgeom.load("example:large", "output")
    named = embgeom.inspect("example:large", which="output", dimension_sample=3)
    assert named.summary() == embgeom.inspect(model, dimension_sample=3).summary()
    near = embgeom.inspect_token("example:large", " queen", which="output", k=3)
    assert near.neighbor_tokens == embgeom.inspect_token(model, " queen", k=3).neighbor_tokens
    with pytest.raises(InputError, match="is not an Embeddings"):
        embgeom.match(model, "example:large")


@pytest.mark.parametrize("given", [np.eye(3), None])
def test_what_is_no_embeddings(given):
    calls = (
        embgeom.inspect,
        lambda x: embgeom.inspect_token(x, "queen"),
        lambda x: embgeom.match(embgeom.load("example:small"), x),
    )
    for call in calls:
        with pytest.raises(InputError, match=r"is not an Embeddings: pass embgeom.load"):
            call(given)
