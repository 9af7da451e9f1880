"""Similarities of hidden states, layers of like depth and pairs by chance: against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embgeom import InputError
from embgeom.hidden_states import matching_layer
from embgeom.hidden_states.compare import centered, elsewhere, linear_cka, mean_cosines


@given(st.integers(1, 90), st.integers(1, 90))
def test_matching_layer_keeps_order_and_the_last_layer(from_count, to_count):
    found = [matching_layer(layer, from_count, to_count) for layer in range(from_count)]
    assert found == sorted(found) and found[0] >= 0 and found[-1] == to_count - 1
    for layer, other in enumerate(found):
        off = [abs((layer + 1) / from_count - (o + 1) / to_count) for o in range(to_count)]
        assert off[other] == pytest.approx(min(off))
    assert from_count != to_count or found == list(range(from_count))


@pytest.mark.parametrize("wrong", [(4, 4, 6), (-1, 4, 6), (0, 0, 6), (0, 4, 0), (0.5, 4, 6)])
def test_matching_layer_refuses_layers_that_are_not_there(wrong):
    with pytest.raises(InputError):
        matching_layer(*wrong)


def layers(seed, width):
    shape = (3, 11, width)
    return (np.random.default_rng(seed).standard_normal(shape) + 0.5).astype(np.float32)


@given(st.integers(0, 99), st.integers(1, 6))
@settings(max_examples=30)
def test_mean_cosines_are_those_of_the_definition(seed, width):
    a, b = layers(seed, width), layers(seed + 100, width)
    a[1, 2] = 0
    found = mean_cosines(a, b)
    for i, j in np.ndindex(found.shape):
        cosines = [
            x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) if x.any() else 0.0
            for x, y in zip(a[i].astype(float), b[j].astype(float), strict=True)
        ]
        assert found[i, j] == pytest.approx(np.mean(cosines), abs=1e-9)


@given(st.integers(0, 99), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30)
def test_cka_is_that_of_the_definition(seed, width_a, width_b):
    a, b = centered(layers(seed, width_a)), centered(layers(seed + 100, width_b))
    found = linear_cka(a, b)
    for i, j in np.ndindex(found.shape):
        x, y = a[i].astype(float), b[j].astype(float)
        cross, own = np.linalg.norm(x.T @ y) ** 2, np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
        assert found[i, j] == pytest.approx(cross / own, abs=1e-5)


def test_cka_does_not_see_rotations_and_is_undefined_for_zeros():
    a = layers(0, 4)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))
    np.testing.assert_allclose(np.diag(linear_cka(a, a @ rotation.astype("f4"))), 1, atol=1e-5)
    assert np.isnan(linear_cka(np.zeros_like(a), a)).all()


def test_pieces_add_up(monkeypatch):
    a, b = layers(0, 4), layers(1, 4)
    whole = mean_cosines(a, b), linear_cka(a, b)
    monkeypatch.setattr("embgeom.hidden_states.compare._PIECE", 23)
    np.testing.assert_allclose(mean_cosines(a, b), whole[0], rtol=1e-12)
    np.testing.assert_allclose(linear_cka(a, b), whole[1], rtol=1e-6)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99))
def test_partners_are_of_other_prompts(counts, seed):
    partner = elsewhere(counts, np.random.default_rng(seed))
    owner = np.repeat(np.arange(len(counts)), counts)
    assert sorted(partner) == list(range(sum(counts)))
    if 2 * max(counts) <= sum(counts):
        assert (owner[partner] != owner).all()
    elif sum(counts) > 1:
        assert (partner != np.arange(sum(counts))).all()
