"""Transferring vectors over a map: modes against their definitions, layers, norms, and what is refused."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

from embgeom import Embeddings, EmbgeomWarning, FinalNorm, InputError, SteeringVector
from embgeom.embeddings.provenance import ModelInfo
from tests.helpers.emb2emb import LINEAR, fit, related

# The dual of a map of full rank is right where the map is, and here it is.
pytestmark = pytest.mark.filterwarnings("ignore:mode 'dual' inverts:embgeom.EmbgeomWarning")
VECTOR = SteeringVector({1: np.ones(12)}, "toy")


def test_modes_by_hand():
    source, target = related(500, 12, 12, noise=0)
    mapping = fit(source, target, "least_squares")
    v = np.random.default_rng(3).standard_normal(12)
    np.testing.assert_allclose(mapping.transfer(v, mode="primal"), v @ mapping.matrix, rtol=1e-6)
    np.testing.assert_array_equal(mapping.transfer(v), mapping.transfer(v, mode="logits"))
    np.testing.assert_allclose(mapping.transfer(v, mode="dual"), np.linalg.inv(mapping.matrix) @ v, rtol=1e-5)
    # Where the map is exact, both of the other modes keep the logits, up to a constant.
    wanted = (source - source.mean(0)).astype(float) @ v
    for mode in ("dual", "logits"):
        kept = (target - target.mean(0)).astype(float) @ mapping.transfer(v, mode=mode).astype(float)
        np.testing.assert_allclose(kept, wanted, atol=1e-3 * np.abs(wanted).max())


@pytest.mark.parametrize(("d_s", "d_t"), [(12, 20), (20, 12)])
def test_modes_of_noisy_maps_between_other_sizes(d_s, d_t):
    source, target = (rows.astype(float) for rows in related(500, d_s, d_t, noise=0.5))
    mapping = fit(source, target, "ridge")
    v = np.random.default_rng(3).standard_normal(d_s)
    dual = mapping.transfer(v, mode="dual")
    np.testing.assert_allclose(dual, v @ np.linalg.pinv(mapping.matrix).T, rtol=1e-4, atol=1e-6)
    # The normal equations of |Y h - X v|^2 + s |h|^2, for the strength that was chosen.
    x, y = source - source.mean(0), target - target.mean(0)
    strength = mapping.provenance["logits"]["strength"] * np.trace(y.T @ y) / d_t
    wanted = np.linalg.solve(y.T @ y + strength * np.eye(d_t), y.T @ x @ v)
    np.testing.assert_allclose(mapping.transfer(v, mode="logits"), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_map_of_input_embeddings_is_warned_of(side):
    def embeddings(matrix, which, tied):
        made = Embeddings.from_array(matrix, [f"t{i}" for i in range(len(matrix))], name="toy", which=which)
        return replace(made, provenance=replace(made.provenance, tied=tied, num_layers=3))

    def mapping(which, tied):
        kinds = [(which, tied or side != each) for each in ("source", "target")]
        return fit(*(embeddings(rows, *kind) for rows, kind in zip(related(), kinds, strict=True)))

    doubtful = mapping("input", False)
    with pytest.warns(
        EmbgeomWarning, match=f"the map is of input embeddings .'toy', its {side}.; the residual"
    ):
        doubtful.transfer(VECTOR, norm="raw")
    # Plain directions may be anything, and what is tied is the unembedding, too.
    doubtful.transfer(np.ones(12))
    mapping("input", True).transfer(VECTOR, norm="raw")
    mapping("output", False).transfer(VECTOR, norm="raw")
    # Which side a plain matrix is, nobody knows.
    fit(*(Embeddings.from_array(rows, [f"t{i}" for i in range(400)]) for rows in related())).transfer(
        VECTOR, norm="raw"
    )


@pytest.mark.parametrize("mode", ["primal", "dual", "logits"])
@pytest.mark.parametrize("method", LINEAR)
def test_transfer_is_linear(method, mode):
    mapping = fit(*related(), method)
    a, b = np.random.default_rng(0).standard_normal((2, 12))
    both = mapping.transfer(np.stack([a, b, 2 * a - b]), mode=mode)
    np.testing.assert_allclose(2 * both[0] - both[1], both[2], rtol=1e-4, atol=1e-4)
    assert both.dtype == np.float32 and mapping.transfer(a, mode=mode).shape == (20,)


def test_what_is_transferred_to_zero_has_no_length():
    with pytest.raises(InputError, match="transferred to zero"):
        fit(*related()).transfer(SteeringVector({1: np.zeros(12)}), state_spread={1: 2.0})


@pytest.mark.parametrize("vector", [
    SteeringVector({1: np.ones(20)}),
    SteeringVector({1: np.ones(12)}, model_info=ModelInfo(output_norms=(3.0, 9.0))),
])  # fmt: skip
def test_a_vector_of_the_target_says_to_swap_the_models(vector):
    mapping = replace(
        fit(*related()),
        source=ModelInfo("one", output_norms=(1.0, 2.0)),
        target=ModelInfo("two", output_norms=(3.0, 9.0)),
    )
    with pytest.raises(InputError, match="vector of the target, two: swap source and target") as found:
        mapping.transfer(vector, norm="raw")
    assert found.value.command.endswith("swap --from and --to")


def test_steering_vectors_are_transferred_layer_by_layer():
    mapping = fit(*related())
    rng = np.random.default_rng(0)
    vector = SteeringVector({1: rng.standard_normal(12), 3: rng.standard_normal(12)}, "a", {"how": "by hand"})
    transferred = mapping.transfer(vector, layers={1: 2, 3: 5}, norm="raw")
    assert transferred.layers == (2, 5) and transferred.hidden_size == 20
    np.testing.assert_array_equal(transferred.directions[5], mapping.transfer(vector.directions[3]))
    assert transferred.provenance["transferred_from"]["provenance"] == {"how": "by hand"}
    assert mapping.transfer(vector, norm="raw").layers == (1, 3)
    assert mapping.transfer(vector.select_layers([3]), layers=0, norm="raw").layers == (0,)
    for layers, why in (
        (0, "one layer"),
        ({1: 4, 3: 4}, "two layers"),
        ({2: 4}, "no direction"),
        ({}, "nothing"),
    ):
        with pytest.raises(InputError, match=why):
            mapping.transfer(vector, layers=layers)
    json.dumps(transferred.provenance)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("few", [False, True])
def test_the_dual_inverts_no_rounding(method, few):
    # A folded LayerNorm takes one direction of either side away; few tokens leave more of them open.
    source, target = related(15 if few else 400, 24, 32)
    norms = tuple(FinalNorm.from_weights(np.ones(size), "layer_norm") for size in (24, 32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbgeomWarning)
        mapping = fit(source, target, method, norms=norms)
    singular = np.linalg.svd(mapping.matrix, compute_uv=False)
    least = singular[singular > 1e-8 * singular[0]].min()
    v = np.random.default_rng(0).standard_normal(24)
    assert np.linalg.norm(mapping.transfer(v, mode="dual")) <= 1.001 * np.linalg.norm(v) / least


@pytest.mark.parametrize(
    ("vectors", "options", "why"),
    [
        (np.ones(5), {}, "size 12"),
        (np.ones((2, 2, 12)), {}, "size 12"),
        (np.float64(3), {}, "size 12"),
        (np.ones((0, 12)), {}, "there are no vectors"),
        (np.full(12, np.nan), {}, "NaN"),
        (np.full(12, 1e31), {}, "beyond 1e"),
        ("a vector", {}, "must hold real numbers, not the name 'a vector'"),
        (["1"] * 12, {}, "must hold real numbers"),
        (np.ones(12) * 1j, {}, "complex"),
        (np.ma.ones(12), {}, "masked array"),
        ([[1, 2], [3]], {}, "not an array that NumPy can read"),
        (None, {}, "must hold real numbers"),
        ({1: np.ones(12)}, {}, "must hold real numbers"),
        (np.ones(12), {"mode": "broom"}, "'broom' is unknown"),
        (np.ones(12), {"mode": ""}, "mode = '' is unknown"),
        (np.ones(12), {"mode": ["dual"]}, "is unknown"),
        (np.ones(12), {"mode": np.array(["dual", "primal"])}, "is unknown"),
        (np.ones(12), {"layers": 3}, "for a SteeringVector"),
        (np.ones(12), {"norm": VECTOR}, "for a SteeringVector"),
        (np.ones(12), {"threads": "2"}, "threads must be a whole number, not '2'"),
        (VECTOR, {"norm": "x"}, "norm = 'x' is unknown"),
        (VECTOR, {"norm": [1, 2]}, r"norm = \[1, 2\] is unknown"),
        (VECTOR, {"norm": -1}, "norm = -1"),
        (VECTOR, {"layers": "3"}, "layers must be a whole number, not '3'"),
        (VECTOR, {"layers": [3]}, r"layers must be a whole number, not \[3\]"),
        (VECTOR, {"layers": -3}, "layers = -3"),
        (VECTOR, {"layers": {1: "3"}}, r"layers\[1\] must be a whole number, not '3'"),
        (VECTOR, {"layers": {"1": 3}}, "a layer of the vector in layers must be a whole number, not '1'"),
        (VECTOR, {"layers": {1: None}}, r"layers\[1\] must be a whole number, not None"),
        (VECTOR, {"mode": 3}, "mode = 3 is unknown"),
        (VECTOR, {"threads": 0}, "threads = 0"),
    ],
)
def test_vectors_that_do_not_fit(vectors, options, why):
    with pytest.raises(InputError, match=why):
        fit(*related()).transfer(vectors, **options)


def test_rows_without_variation():
    with pytest.raises(InputError, match="all source rows are the same"):
        fit(np.ones((30, 4)), np.random.default_rng(0).standard_normal((30, 4)))


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_one_row_is_predicted_as_in_a_stack(method):
    source, target = related()
    mapping = fit(source, target, method)
    both = mapping.predict(source[:2])
    assert both.shape == (2, 20) and both.dtype == np.float64
    one = mapping.predict(source[0])
    assert one.shape == (20,)
    np.testing.assert_allclose(one, both[0], rtol=1e-6)
    np.testing.assert_allclose(mapping.predict(source[0].tolist()), one, rtol=1e-6)
    # With the means: of the mean source row it is the mean target row.
    np.testing.assert_allclose(mapping.predict(source.astype(float).mean(0)), target.mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (np.ones(1), "size 12"),
        (np.ones((2, 1)), "size 12"),
        (np.ones((12, 2)), "size 12"),
        (1.0, "size 12"),
        (np.full((2, 12), np.inf), "NaN, infinity"),
        ("rows", "must hold real numbers"),
        (np.ones((0, 12)), "there are no vectors"),
    ],
)
def test_rows_that_do_not_fit(rows, why):
    with pytest.raises(InputError, match=why):
        fit(*related()).predict(rows)


def test_a_length_of_ones_own_is_kept_in_the_provenance():
    found = fit(*related()).transfer(VECTOR, norm="raw").with_norm(7).provenance
    assert found["norm"] == "raw" and found["scaled_to_norms"] == {"1": 7}
