"""Maps against plain float64 references: SVD least squares, refits token by token, and worked examples."""

import warnings

import numpy as np
import pytest

import embgeom
from embgeom import Emb2Emb, EmbgeomWarning, FinalNorm, InputError
from embgeom.emb2emb.methods import gather, gcv
from tests.helpers import real_data
from tests.helpers.emb2emb import fit, prepared, related


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(("n", "d_s", "d_t"), [(400, 12, 20), (300, 30, 9), (90, 64, 64)])
def test_least_squares_is_that_of_a_float64_svd(n, d_s, d_t, center):
    source, target = related(n, d_s, d_t)
    mapping = fit(source, target, "least_squares", center=center)
    a, b = source.astype(float), target.astype(float)
    if center:
        a, b = a - a.mean(0), b - b.mean(0)
    expected = np.linalg.lstsq(a, b, rcond=None)[0]
    # The squares of x'x double the digits that the condition number takes.
    tolerance = 1e-14 * np.linalg.cond(a) ** 2
    np.testing.assert_allclose(mapping.matrix, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("why", ["few tokens", "repeated columns", "a zero column"])
def test_undetermined_maps_are_of_smallest_norm(why):
    source, target = related(60 if why != "few tokens" else 8, 20, 15)
    if why == "repeated columns":
        source[:, 3] = source[:, 7]
    if why == "a zero column":
        source[:, 5] = 0
    with pytest.warns(EmbgeomWarning, match=r"determine \d+ of 20 directions.*'ridge'"):
        mapping = fit(source, target, "least_squares")
    a, b = (m.astype(float) - m.astype(float).mean(0) for m in (source, target))
    expected = np.linalg.pinv(a, rcond=1e-6) @ b
    np.testing.assert_allclose(mapping.matrix, expected, atol=1e-6 * np.abs(expected).max())


def test_ridge_solves_its_normal_equations():
    source, target = related()
    a, b = (m.astype(float) - m.astype(float).mean(0) for m in (source, target))
    strength = 0.03 * np.trace(a.T @ a) / 12
    expected = np.linalg.solve(a.T @ a + strength * np.eye(12), a.T @ b)
    np.testing.assert_allclose(fit(source, target, strength=0.03).matrix, expected, rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize(("d_s", "d_t"), [(9, 9), (6, 11)])
def test_procrustes_finds_a_rotation(d_s, d_t):
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((d_t, d_t)))[0][:d_s]
    source = rng.standard_normal((500, d_s))
    mapping = fit(source, 3 * source @ turn + 1, "procrustes")
    np.testing.assert_allclose(mapping.matrix, 3 * turn, atol=1e-5)


def orthonormal(rng, d_s, d_t):
    """Draw a matrix with orthonormal rows, or columns where it has fewer of them."""
    tall = np.linalg.qr(rng.standard_normal((max(d_s, d_t), min(d_s, d_t))))[0]
    return tall if d_s >= d_t else tall.T


@pytest.mark.parametrize(("d_s", "d_t"), [(9, 9), (6, 11), (11, 6)])
def test_procrustes_agrees_most(d_s, d_t):
    # Columns of unlike length, so that no rotation of the source is like another.
    source, target = related(300, d_s, d_t, noise=2)
    source = source * np.linspace(0.3, 3, d_s, dtype=np.float32)
    mapping = fit(source, target, "procrustes")
    turn = fit(source, target, "procrustes", scaled=False).matrix
    small = turn @ turn.T if d_s <= d_t else turn.T @ turn
    np.testing.assert_allclose(small, np.eye(min(d_s, d_t)), atol=1e-12)
    a, b = (m.astype(float) - m.astype(float).mean(0) for m in (source, target))
    products = a.T @ b
    best = np.trace(turn.T @ products)
    assert best == pytest.approx(np.sqrt(np.linalg.eigvalsh(products.T @ products).clip(0)).sum(), rel=1e-6)
    rng = np.random.default_rng(0)
    others = [orthonormal(rng, d_s, d_t) for _ in range(200)]
    # Neighbors of the optimum, too: random ones are far from it.
    others += [np.linalg.qr(turn + 0.05 * other)[0] for other in others if d_s >= d_t]
    others += [np.linalg.qr((turn + 0.05 * other).T)[0].T for other in others if d_s < d_t]
    signs = [other * np.sign(np.trace(other.T @ turn)) for other in others]
    assert max(np.trace(other.T @ products) for other in signs) < best
    # Of all lengths of this map, the one chosen has the least error.
    scale = mapping.provenance["fit"]["scale"]
    np.testing.assert_allclose(mapping.matrix, scale * turn, rtol=1e-12)
    error = [np.square(b - factor * a @ turn).sum() for factor in (0.99 * scale, scale, 1.01 * scale)]
    assert error[1] < min(error[0], error[2])


def test_low_rank():
    source, target = related(500, 10, 16)
    mapping = fit(source, target, "low_rank", rank=3)
    assert np.linalg.matrix_rank(mapping.matrix, tol=1e-8) == 3
    whole = fit(source, target, "low_rank", rank=10)
    np.testing.assert_allclose(whole.matrix, fit(source, target).matrix, atol=1e-10)
    # Of all projections this one loses least of the fitted variance.
    a = source.astype(float) - source.astype(float).mean(0)
    fitted = a @ whole.matrix
    best = np.square(np.linalg.svd(fitted, compute_uv=False)[3:]).sum()
    np.testing.assert_allclose(np.square(fitted - a @ mapping.matrix).sum(), best, rtol=1e-8)


def test_neighbors_rebuild_a_token_from_its_kin():
    source, target = related(300, 5, 8, noise=0)
    mapping = fit(source, target, "lle", k=12)
    expected = target[:20] - target.mean(0)
    np.testing.assert_allclose(
        mapping.transfer(source[:20] - source.mean(0)), expected, atol=0.1 * np.abs(expected).max()
    )
    assert (mapping.transfer(np.zeros(5)) == 0).all()
    # A vector is transferred as its direction is.
    one, ten = mapping.transfer(np.ones(5)), mapping.transfer(np.full(5, 10.0))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-5)
    with pytest.raises(InputError, match="needs a linear map"):
        mapping.transfer(np.ones(5), mode="dual")


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_plus_one", "rms_norm", "rms_norm_plus_one"])
@pytest.mark.parametrize("normalize", [True, False])
def test_folding_is_that_of_the_rows_written_out(kind, normalize):
    source, target = related()
    weight = np.random.default_rng(2).uniform(-0.5, 2, 12)
    norm = FinalNorm.from_weights(weight, kind)
    written = source.astype(float) * (weight + 1 if kind.endswith("plus_one") else weight)
    if kind.startswith("layer_norm"):
        written -= written.mean(axis=1, keepdims=True)
    options = {"strength": 0.01, "normalize": normalize}
    folded = fit(source, target, norms=(norm, None), **options)
    np.testing.assert_allclose(folded.matrix, fit(written, target, **options).matrix, atol=1e-5)


def test_a_layer_norm_is_folded_as_the_model_applies_it():
    # For h without a mean over coordinates, u . (g * h) is what the folded row gives, mean or no mean.
    rng = np.random.default_rng(0)
    row, weight, h = rng.standard_normal((3, 6))
    norm = FinalNorm.from_weights(weight, "layer_norm")
    assert norm.fold(row) @ h == pytest.approx(row @ (weight * (h - h.mean())))


def test_weights_count_as_repeated_tokens():
    source, target = related(40)
    counts = np.random.default_rng(0).integers(0, 4, 40)
    options = {"strength": 0.1}
    repeated = fit(np.repeat(source, counts, axis=0), np.repeat(target, counts, axis=0), **options)
    np.testing.assert_allclose(
        fit(source, target, weights=counts, **options).matrix, repeated.matrix, atol=1e-9
    )


@pytest.mark.parametrize("side", ["input", "output"])
def test_the_bundled_pair(side):
    small, large = (embgeom.load(folder, side) for folder in embgeom.examples.pair())
    mapping = Emb2Emb.fit(small, large)
    assert (mapping.source_size, mapping.target_size) == (
        128,
        192,
    ) and mapping.scores.r2 > mapping.shuffled.r2 + 0.05
    assert mapping.scores.retrieval_at_10 > 10 * mapping.shuffled.retrieval_at_10
    assert mapping.provenance["source"]["provenance"]["sha256"]
    assert repr(mapping) == "Emb2Emb('small' -> 'large', ridge, 128 -> 192)"
    if side == "input":
        return
    folded = Emb2Emb.fit(small, large, norms=(None, embgeom.load_final_norm(embgeom.examples.pair().large)))
    assert folded.provenance["folded"] == [False, True]


@pytest.mark.model
def test_few_shared_tokens_of_real_models():
    a, b = (embgeom.load(real_data.find(f"models/{name}")) for name in ("stories260k", "tinystories-656k"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbgeomWarning)
        plain = Emb2Emb.fit(a, b, method="least_squares", normalize=True)
    ridge = Emb2Emb.fit(a, b, normalize=True)
    assert ridge.scores.r2 > plain.scores.r2 and ridge.scores.r2 > -0.05
