"""A steering vector's directions: what they may be, and what arithmetic makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embgeom import InputError, LoadError, SteeringVector

# A direction that arithmetic would make too small for float32 is refused.
NUMBERS = st.floats(-100, 100, width=32).map(lambda x: x if abs(x) > 1e-20 else 0.0)
VECTORS = st.dictionaries(st.integers(0, 30), arrays(np.float32, 4, elements=NUMBERS), min_size=1, max_size=4)


@given(VECTORS, VECTORS, st.floats(-8, 8, width=16))
def test_arithmetic_is_that_of_the_directions(one, other, factor):
    a, b = SteeringVector(one, "toy", {"a": 1}), SteeringVector(other, "toy")
    zero = np.zeros(4)
    made = {"+": a + b, "-": a - b, "*": factor * a, "neg": -a}
    assert list(made["+"].layers) == sorted({*one, *other})
    for layer in made["+"].layers:
        x, y = one.get(layer, zero).astype(float), other.get(layer, zero).astype(float)
        np.testing.assert_allclose(made["+"].directions[layer], x + y, rtol=1e-6, atol=1e-4)
        np.testing.assert_allclose(made["-"].directions[layer], x - y, rtol=1e-6, atol=1e-4)
    for layer, x in one.items():
        np.testing.assert_allclose(
            made["*"].directions[layer], factor * x.astype(float), rtol=1e-5, atol=1e-5
        )
        np.testing.assert_array_equal(made["neg"].directions[layer], -x)
        assert a.norms[layer] == pytest.approx(np.sqrt(np.sum(x.astype(float) ** 2)))
    assert made["*"].provenance == {"times": factor, "of": {"a": 1}}
    assert a.directions.keys() == one.keys() and (a / 2).provenance["times"] == 0.5


def test_norms_are_set_and_recorded():
    vector = SteeringVector({1: [3.0, 4.0], 5: [0.0, 2.0]}, "toy", {"made_by": "train"})
    ten = vector.with_norm(10)
    assert ten.norms == {1: 10.0, 5: 10.0} and ten.directions[1].tolist() == [6.0, 8.0]
    assert ten.provenance == {"made_by": "train", "scaled_to_norms": {"1": 10.0, "5": 10.0}}
    like = ten.with_norm(vector)
    assert like.norms == vector.norms == {1: 5.0, 5: 2.0}
    assert like.provenance["scaled_to_norms"] == {"1": 5.0, "5": 2.0}
    assert vector.provenance == {"made_by": "train"}


def test_directions_are_copies_that_cannot_be_written_to():
    given_array = np.ones(3, dtype=np.float32)
    vector = SteeringVector({0: given_array})
    given_array[0] = 7
    assert vector.directions[0].tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="read-only"):
        vector.directions[0][0] = 2


def test_layers_are_chosen():
    vector = SteeringVector({7: np.ones(2), 1: np.zeros(2)})
    assert vector.layers == (1, 7) and vector.select_layers(7).layers == vector.select_layers([7]).layers == (
        7,
    )
    with pytest.raises(InputError, match="no direction for layer 2; it has some for 1, 7"):
        vector.select_layers([1, 2])


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ({}, "needs a direction for one layer at least"),
        (5, "a mapping from layers to arrays, not a int"),
        ([np.ones(3)], "a mapping from layers to arrays, not a list"),
        ({"0": np.ones(3)}, "layer '0' is not a layer number"),
        ({-1: np.ones(3)}, "layer -1 is not a layer number"),
        ({True: np.ones(3)}, "layer True is not a layer number"),
        ({0: np.ones((1, 3))}, r"layer 0 has shape \(1, 3\), not \(hidden_size,\)"),
        ({0: []}, r"layer 0 has shape \(0,\)"),
        ({0: "abc"}, "layer 0 must hold real numbers"),
        ({0: [1.0, np.nan]}, "layer 0 holds NaN, infinity or a number beyond float32"),
        ({0: [1e39]}, "layer 0 holds NaN, infinity or a number beyond float32"),
        ({0: np.ones(3), 1: np.ones(4)}, r"differ in length: \{0: 3, 1: 4\}"),
    ],
)
def test_what_is_no_direction_is_refused(directions, message):
    with pytest.raises(InputError, match=message):
        SteeringVector(directions)


@pytest.mark.parametrize("norm", [-1, float("nan"), float("inf"), "x", None, [1]])
def test_what_is_no_norm_is_refused(norm):
    with pytest.raises(InputError, match="norm"):
        SteeringVector({0: np.ones(2)}).with_norm(norm)


def test_what_does_not_go_together_is_refused():
    vector, wide = SteeringVector({0: np.ones(2)}), SteeringVector({0: np.ones(3)})
    with pytest.raises(InputError, match="hidden size 2 and 3 do not add up"):
        vector + wide
    with pytest.raises(InputError, match="layer 0 is zero, so it has no norm"):
        SteeringVector({0: np.zeros(2)}).with_norm(1)
    with pytest.raises(InputError, match="no direction for layer 0; it has some for 3"):
        vector.with_norm(SteeringVector({3: np.ones(2)}))
    for wrong in ("0", 1.5, None, [None]):
        with pytest.raises(InputError, match="must be a layer number"):
            vector.select_layers(wrong)
    for other in (1, "x", np.ones(2)):
        with pytest.raises(TypeError):
            vector + other


def test_factors_beyond_float32():
    vector = SteeringVector({0: np.full(2, 1e-10)})
    assert (vector * 1e40).directions[0] == pytest.approx(1e30)
    assert (SteeringVector({0: np.full(2, 1e30)}) * 1e-46).directions[0] == pytest.approx(1e-16)
    with pytest.raises(InputError, match="beyond float32"):
        SteeringVector({0: np.ones(2)}) * 1e39
    with pytest.raises(InputError, match="divided by 0"):
        vector / 0


def test_directions_too_small_for_float32_are_not_zero(tmp_path):
    with pytest.raises(InputError, match="too small for float32"):
        SteeringVector({1: np.full(8, 1e-60)})
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for name, tensor, why in (
        ("small", torch.full((8,), 1e-60, dtype=torch.float64), "too small for float32"),
        ("meta", torch.ones(8, device="meta"), "not a plain tensor"),
    ):
        torch.save({1: tensor}, tmp_path / f"{name}.pt")
        with pytest.raises(LoadError, match=why):
            SteeringVector.load(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("field", [{"model": 5}, {"model": None}, {"provenance": 5}, {"provenance": []}])
def test_what_could_not_be_saved_and_read_again_is_refused(field):
    with pytest.raises(InputError, match=r"is not a (str|mapping)"):
        SteeringVector({1: np.ones(8)}, **field)
