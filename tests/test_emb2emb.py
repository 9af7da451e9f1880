"""Maps against plain float64 references: SVD least squares, refits token by token, and worked examples."""

import json
import warnings

import numpy as np
import pytest
import real_data
from emb2emb_helpers import prepared, related

import embgeom
from embgeom import Emb2Emb, EmbgeomWarning, FinalNorm, InputError, SteeringVector
from embgeom.emb2emb.moments import gather
from embgeom.emb2emb.solve import gcv

LINEAR = ["least_squares", "ridge", "procrustes", "low_rank"]


def fit(source, target, method="ridge", **options):
    return Emb2Emb.fit(source, target, method=method, held_out=options.pop("held_out", 0), **options)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(400, 12, 20), (300, 30, 9), (90, 64, 64)])
def test_least_squares_is_that_of_a_float64_svd(n, d_s, d_t, center):
    source, target = related(n, d_s, d_t)
    carrier = fit(source, target, "least_squares", center=center)
    a, b = source.astype(float), target.astype(float)
    if center:
        a, b = a - a.mean(0), b - b.mean(0)
    expected = np.linalg.lstsq(a, b, rcond=None)[0]
    # The squares of x'x double the digits that the condition number takes.
    tolerance = 1e-14 * np.linalg.cond(a) ** 2
    np.testing.assert_allclose(carrier.matrix, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("why", ["few tokens", "repeated columns", "a zero column"])
def test_undetermined_maps_are_of_smallest_norm(why):
    source, target = related(60 if why != "few tokens" else 8, 20, 15)
    if why == "repeated columns":
        source[:, 3] = source[:, 7]
    if why == "a zero column":
        source[:, 5] = 0
    with pytest.warns(EmbgeomWarning, match=r"determine \d+ of 20 directions.*'ridge'"):
        carrier = fit(source, target, "least_squares")
    a, b = (m.astype(float) - m.astype(float).mean(0) for m in (source, target))
    expected = np.linalg.pinv(a, rcond=1e-6) @ b
    np.testing.assert_allclose(carrier.matrix, expected, atol=1e-6 * np.abs(expected).max())


def test_ridge_solves_its_normal_equations():
    source, target = related()
    a, b = (m.astype(float) - m.astype(float).mean(0) for m in (source, target))
    strength = 0.03 * np.trace(a.T @ a) / 12
    expected = np.linalg.solve(a.T @ a + strength * np.eye(12), a.T @ b)
    np.testing.assert_allclose(fit(source, target, ridge=0.03).matrix, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("center", [True, False])
def test_gcv_is_the_textbook_score(center):
    source, target = related(50, 8, 5, noise=3)
    moments = gather(
        prepared(source), prepared(target), weights=None, center=center, threads=1, progress=None
    )
    a, b = source.astype(float), target.astype(float)
    if center:
        a, b = a - a.mean(0), b - b.mean(0)
    strengths = np.array([1e-3, 0.3, 20.0, 1e4])
    expected = []
    for strength in strengths:
        hat = a @ np.linalg.solve(a.T @ a + strength * np.eye(8), a.T) + (
            np.ones((50, 50)) / 50 if center else 0
        )
        y = target.astype(float) if center else b
        left = y - hat @ y
        expected.append(50 * np.square(left).sum() / (50 - np.trace(hat)) ** 2)
    np.testing.assert_allclose(gcv(moments, strengths), expected, rtol=1e-9)


def test_gcv_chooses_what_predicts():
    # With hardly more tokens than columns least squares fits noise; ridge must not.
    source, target = related(70, 50, 30, noise=4)
    fresh_source, fresh_target = related(2000, 50, 30, noise=4)
    errors = {
        method: np.square(fit(source, target, method).predict(fresh_source) - fresh_target).mean()
        for method in ("least_squares", "ridge")
    }
    assert errors["ridge"] < 0.8 * errors["least_squares"]


@pytest.mark.parametrize(("d_s", "d_t"), [(9, 9), (6, 11), (11, 6)])
def test_procrustes_finds_a_rotation(d_s, d_t):
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((max(d_s, d_t),) * 2))[0][:d_s, :d_t]
    source = rng.standard_normal((500, d_s))
    target = 3 * source @ turn + 1
    carrier = fit(source, target, "procrustes")
    if d_s <= d_t:
        np.testing.assert_allclose(carrier.matrix, 3 * turn, atol=1e-5)
    unscaled = fit(source, target, "procrustes", scaled=False).matrix
    small = unscaled @ unscaled.T if d_s <= d_t else unscaled.T @ unscaled
    np.testing.assert_allclose(small, np.eye(min(d_s, d_t)), atol=1e-12)


def test_low_rank():
    source, target = related(500, 10, 16)
    carrier = fit(source, target, "low_rank", rank=3)
    assert np.linalg.matrix_rank(carrier.matrix, tol=1e-8) == 3
    whole = fit(source, target, "low_rank", rank=10)
    np.testing.assert_allclose(whole.matrix, fit(source, target).matrix, atol=1e-10)
    # Of all projections this one loses least of the fitted variance.
    a = source.astype(float) - source.astype(float).mean(0)
    fitted = a @ whole.matrix
    best = np.square(np.linalg.svd(fitted, compute_uv=False)[3:]).sum()
    np.testing.assert_allclose(np.square(fitted - a @ carrier.matrix).sum(), best, rtol=1e-8)


def test_neighbors_rebuild_a_token_from_its_kin():
    source, target = related(300, 5, 8, noise=0)
    carrier = fit(source, target, "lle", k=12)
    expected = target[:20] - target.mean(0)
    np.testing.assert_allclose(
        carrier.transfer(source[:20] - source.mean(0)), expected, atol=0.1 * np.abs(expected).max()
    )
    assert (carrier.transfer(np.zeros(5)) == 0).all()
    # A vector is carried as its direction is.
    one, ten = carrier.transfer(np.ones(5)), carrier.transfer(np.full(5, 10.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-5)
    with pytest.raises(InputError, match="needs a linear map"):
        carrier.transfer(np.ones(5), transport="dual")


def test_transports_by_hand():
    source, target = related(500, 12, 12, noise=0)
    carrier = fit(source, target, "least_squares")
    v = np.random.default_rng(3).standard_normal(12)
    np.testing.assert_allclose(carrier.transfer(v, transport="primal"), v @ carrier.matrix, rtol=1e-6)
    np.testing.assert_array_equal(carrier.transfer(v), carrier.transfer(v, transport="dual"))
    np.testing.assert_allclose(
        carrier.transfer(v, transport="dual"), np.linalg.inv(carrier.matrix) @ v, rtol=1e-5
    )
    # Where the map is exact, both of the other transports keep the logits, up to a constant.
    wanted = (source - source.mean(0)).astype(float) @ v
    for transport in ("dual", "logits"):
        kept = (target - target.mean(0)).astype(float) @ carrier.transfer(v, transport=transport).astype(
            float
        )
        np.testing.assert_allclose(kept, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("transport", ["primal", "dual", "logits"])
@pytest.mark.parametrize("method", LINEAR)
def test_transport_is_linear(method, transport):
    carrier = fit(*related(), method)
    a, b = np.random.default_rng(0).standard_normal((2, 12))
    both = carrier.transfer(np.stack([a, b, 2 * a - b]), transport=transport)
    np.testing.assert_allclose(2 * both[0] - both[1], both[2], rtol=1e-4, atol=1e-4)
    assert both.dtype == np.float32 and carrier.transfer(a, transport=transport).shape == (20,)


def test_norms():
    carrier = fit(*related())
    stack = np.random.default_rng(0).standard_normal((4, 12))
    np.testing.assert_allclose(np.linalg.norm(carrier.transfer(stack, norm=7), axis=1), 7, rtol=1e-6)
    with pytest.raises(InputError, match="carried to zero"):
        carrier.transfer(np.zeros(12), norm=7)
    with pytest.raises(InputError, match="norm = -1"):
        carrier.transfer(stack, norm=-1)


def test_steering_vectors_are_carried_block_by_block():
    carrier = fit(*related())
    rng = np.random.default_rng(0)
    vector = SteeringVector({1: rng.standard_normal(12), 3: rng.standard_normal(12)}, "a", {"how": "by hand"})
    carried = carrier.transfer(vector, blocks={1: 2, 3: 5})
    assert carried.blocks == (2, 5) and carried.width == 20
    np.testing.assert_array_equal(carried.directions[5], carrier.transfer(vector.directions[3]))
    assert carried.provenance["carried_from"]["provenance"] == {"how": "by hand"}
    assert carrier.transfer(vector).blocks == (1, 3)
    assert carrier.transfer(vector.at([3]), blocks=0).blocks == (0,)
    own = SteeringVector({0: rng.standard_normal(20)}, "b")
    assert carrier.transfer(vector.at([3]), blocks=0, norm=own).norms[0] == pytest.approx(own.norms[0])
    for blocks, why in (
        (0, "one block"),
        ({1: 4, 3: 4}, "two blocks"),
        ({2: 4}, "no direction"),
        ({}, "nothing"),
    ):
        with pytest.raises(InputError, match=why):
            carrier.transfer(vector, blocks=blocks)
    json.dumps(carried.provenance)


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_plus_one", "rms_norm", "rms_norm_plus_one"])
@pytest.mark.parametrize("normalize", [True, False])
def test_folding_is_that_of_the_rows_written_out(kind, normalize):
    source, target = related()
    weight = np.random.default_rng(2).uniform(-0.5, 2, 12)
    norm = FinalNorm.of(weight, kind)
    written = source.astype(float) * (weight + 1 if kind.endswith("plus_one") else weight)
    if kind.startswith("layer_norm"):
        written -= written.mean(axis=1, keepdims=True)
    options = {"ridge": 0.01, "normalize": normalize}
    folded = fit(source, target, source_norm=norm, **options)
    np.testing.assert_allclose(folded.matrix, fit(written, target, **options).matrix, atol=1e-5)


def test_a_layer_norm_is_folded_as_the_model_applies_it():
    # For h without a mean over coordinates, u . (g * h) is what the folded row gives, mean or no mean.
    rng = np.random.default_rng(0)
    row, weight, h = rng.standard_normal((3, 6))
    norm = FinalNorm.of(weight, "layer_norm")
    assert norm.fold(row) @ h == pytest.approx(row @ (weight * (h - h.mean())))


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("few", [False, True])
def test_the_dual_inverts_no_rounding(method, few):
    # A folded LayerNorm takes one direction of either side away; few tokens leave more of them open.
    source, target = related(15 if few else 400, 24, 32)
    norms = {
        f"{side}_norm": FinalNorm.of(np.ones(width), "layer_norm")
        for side, width in (("source", 24), ("target", 32))
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbgeomWarning)
        carrier = fit(source, target, method, **norms)
    singular = np.linalg.svd(carrier.matrix, compute_uv=False)
    least = singular[singular > 1e-8 * singular[0]].min()
    v = np.random.default_rng(0).standard_normal(24)
    assert np.linalg.norm(carrier.transfer(v, transport="dual")) <= 1.001 * np.linalg.norm(v) / least


def test_weights_count_as_repeated_tokens():
    source, target = related(40)
    counts = np.random.default_rng(0).integers(0, 4, 40)
    options = {"ridge": 0.1}
    repeated = fit(np.repeat(source, counts, axis=0), np.repeat(target, counts, axis=0), **options)
    np.testing.assert_allclose(
        fit(source, target, weights=counts, **options).matrix, repeated.matrix, atol=1e-9
    )


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_scores_tell_a_map_from_noise(method):
    source, target = related(600, noise=0.5)
    carrier = Emb2Emb.fit(source, target, method=method)
    assert carrier.scores.tokens == 60 and carrier.scores.candidates == 600
    assert carrier.scores.r2 > 0.5 and carrier.scores.cosine > 0.7 and carrier.scores.retrieval_at_10 > 0.6
    assert carrier.shuffled.r2 < 0.1 and carrier.shuffled.retrieval_at_10 < 0.2
    control = Emb2Emb.fit(source, target, method=method, shuffle=True)
    assert control.scores.r2 < 0.1 and control.shuffled is None
    assert "retrieval@1" in carrier.summary()


def test_unrelated_rows_score_nothing_out_of_sample():
    # Fewer rows than columns: in-sample everything is explained.
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((90, 256)), rng.standard_normal((90, 300))
    with pytest.warns(EmbgeomWarning):
        carrier = Emb2Emb.fit(source, target, method="least_squares")
    assert carrier.scores.r2 < 0.05
    assert Emb2Emb.fit(source, target).scores.r2 < 0.05


def test_scores_by_hand():
    source, target = related(200, noise=1)
    carrier = Emb2Emb.fit(source, target, method="ridge", held_out=0.25, seed=5)
    held = np.sort(np.random.default_rng(5).permutation(200)[:50])
    kept = np.setdiff1d(np.arange(200), held)
    again = fit(source[kept], target[kept])
    np.testing.assert_allclose(again.matrix, carrier.matrix, rtol=1e-9)
    mean = target[kept].astype(float).mean(0)
    predicted = again.predict(source[held])
    expected = 1 - np.square(target[held] - predicted).sum() / np.square(target[held] - mean).sum()
    assert carrier.scores.r2 == pytest.approx(expected, abs=1e-6)
    unit = target / np.linalg.norm(target, axis=1, keepdims=True)
    nearest = (predicted @ unit.T).argmax(axis=1)
    assert carrier.scores.retrieval_at_1 == pytest.approx((nearest == held).mean())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "magic"}, "'magic' is unknown"),
        ({"held_out": 1.5}, "held_out = 1.5"),
        ({"ridge": -1}, "ridge = -1"),
        ({"rank": 0, "method": "low_rank"}, "rank = 0"),
        ({"weights": [1, 2]}, "one number for each of the 400 pairs"),
        ({"weights": -np.ones(400)}, "not negative"),
        ({"weights": ["a"] * 400}, "no numbers"),
        ({"method": "lle", "reg": 0}, "reg = 0"),
        ({"method": "lle", "ridge": 0.1}, r"ridge = 0\.1 .* 'lle' does not use it.*'ridge' or 'low_rank'"),
        ({"method": "least_squares", "ridge": 0.1}, "ridge = 0.1 .* 'least_squares' does not use"),
        ({"method": "procrustes", "ridge": 0.1}, "ridge = 0.1 .* 'procrustes' does not use"),
        ({"method": "ridge", "rank": 3}, "rank = 3 .* 'ridge' does not use it.*'low_rank'"),
        ({"k": 20}, "k = 20 .* 'low_rank' does not use it.*'lle'"),
        ({"method": "ridge", "reg": 1e-3}, "reg = 0.001 .* 'ridge' does not use it.*'lle'"),
        ({"method": "ridge", "scaled": False}, "scaled = False .* does not use it.*'procrustes'"),
        ({"method": "lle", "weights": np.ones(400)}, "no meaning"),
        ({"method": "lle", "k": 1000}, "k = 1000"),
        ({"tokens": ([0, 1, 2, 999], [0, 1, 2, 3])}, "999"),
        ({"tokens": ([0, 1, 2, 3], [0, 1, 2])}, "the same token"),
        ({"tokens": ([0, 1], [0, 1])}, "2 paired tokens"),
        ({"source_norm": FinalNorm.of(np.ones(3), "rms_norm")}, "3 weights"),
    ],
)
def test_arguments_that_do_not_fit(change, why):
    with pytest.raises(InputError, match=why):
        Emb2Emb.fit(*related(), **change)


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("least_squares", {}),
        ("ridge", {}),
        ("low_rank", {}),
        ("procrustes", {"scaled": True}),
        ("lle", {"k": 20, "reg": 1e-3}),
    ],
)
def test_what_a_method_does_not_use_is_none_in_the_provenance(method, used):
    options = fit(*related(), method).provenance["options"]
    assert {name: options[name] for name in ("scaled", "k", "reg") if options[name] is not None} == used
    assert options["ridge"] is options["rank"] is None


def test_vectors_that_do_not_fit():
    carrier = fit(*related())
    for vectors, options, why in (
        (np.ones(5), {}, "width 12"),
        (np.ones((2, 2, 12)), {}, "width 12"),
        (np.full(12, np.nan), {}, "NaN"),
        (np.ones(12), {"transport": "broom"}, "'broom' is unknown"),
        (np.ones(12), {"blocks": 3}, "for a SteeringVector"),
    ):
        with pytest.raises(InputError, match=why):
            carrier.transfer(vectors, **options)
    with pytest.raises(InputError, match="all source rows are the same"):
        fit(np.ones((30, 4)), np.random.default_rng(0).standard_normal((30, 4)))


@pytest.mark.parametrize("side", ["input", "output"])
def test_the_bundled_pair(side):
    small, large = (embgeom.load(folder, side) for folder in embgeom.examples.pair())
    carrier = Emb2Emb.fit(small, large)
    assert carrier.widths == (128, 192) and carrier.scores.r2 > carrier.shuffled.r2 + 0.05
    assert carrier.scores.retrieval_at_10 > 10 * carrier.shuffled.retrieval_at_10
    assert carrier.provenance["source"]["provenance"]["sha256"]
    assert repr(carrier) == "Emb2Emb('small' -> 'large', low_rank, 128 -> 192)"
    folded = Emb2Emb.fit(small, large, target_norm=embgeom.load_final_norm(embgeom.examples.pair().large))
    assert folded.provenance["folded"] == [False, True]


def test_few_shared_tokens_of_real_models():
    a, b = (embgeom.load(real_data.find(f"models/{name}")) for name in ("stories260k", "tinystories-656k"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbgeomWarning)
        plain = Emb2Emb.fit(a, b, method="least_squares", normalize=True)
    ridge = Emb2Emb.fit(a, b, normalize=True)
    assert ridge.scores.r2 > plain.scores.r2 and ridge.scores.r2 > -0.05
