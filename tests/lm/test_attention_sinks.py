"""Attention sinks have no part in means, and the spread of a model's states is told without them."""

import numpy as np
import pytest
import torch

import embgeom
from embgeom import InputError, SteeringVector
from embgeom.lm.attention_sinks import StateMoments, kept_positions
from embgeom.lm.layers import find
from embgeom.lm.states import read_states
from embgeom.steering import load_language_model, state_spread
from tests.helpers.steering import tiny

TEXTS = ["Tom went home and ate a red cake.", "The sun was up."]
PAIRS = [
    ("Tom was very happy today.", "Tom was very sad today."),
    ("They laughed a lot.", "They cried a lot."),
]


@pytest.mark.parametrize(
    ("norms", "kept"),
    [
        ([5.0, 6.0, 7.0], [False, True, True]),
        ([5.0, 6.0, 601.0, 7.0, 8.0], [False, True, False, True, True]),
        ([900.0, 6.0, 59.0, 7.0], [False, True, True, True]),
        ([5.0], [False]),
        ([], []),
        ([1.0, 2.0, float("nan"), 3.0], [False, True, True, True]),
        (
            [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 99.0, 4.0]],
            [[False, True, True, True], [False, True, False, True]],
        ),
    ],
)
def test_positions_that_are_kept(norms, kept):
    assert kept_positions(norms).tolist() == kept


@pytest.fixture(scope="module")
def small():
    return load_language_model("example:small")


class Enlarged(torch.nn.Module):
    """A layer that makes the state of one token of the vocabulary enormous, as models do with sinks."""

    def __init__(self, layer, token, factor):
        super().__init__()
        self.layer, self.token, self.factor, self.ids = layer, token, factor, None

    def forward(self, hidden, *args, **kwargs):
        output = self.layer(hidden, *args, **kwargs)
        first = output[0] if isinstance(output, tuple) else output
        first = torch.where((self.ids == self.token)[..., None], first * self.factor, first)
        return (first, *output[1:]) if isinstance(output, tuple) else first


def with_sink(model, token):
    """Let a token be a sink after layer 1, and take it back at the end of the test."""
    layers = find(model).layers
    layers[1] = Enlarged(layers[1], token, 1000.0)
    model.register_forward_pre_hook(
        lambda _m, _args, named: setattr(layers[1], "ids", named["input_ids"]), with_kwargs=True
    )
    return model


def reads(tokenizer, text, model):
    """The states of a text by itself, all positions, and which are kept."""
    tokens = tokenizer(text)["input_ids"]
    return tokens, read_states(model, find(model), [tokens], [range(len(tokens))], [1])


def spread_of(states):
    """The root of d times the harmonic mean of the variances of the coordinates of states (n, d)."""
    return np.sqrt(states.shape[1] / np.mean(1 / states.var(axis=0)))


def test_a_mean_leaves_sinks_out():
    model, tokenizer = load_language_model("example:small")
    (sink,) = tokenizer(" a")["input_ids"]
    with_sink(model, sink)
    vector = SteeringVector.train(model, tokenizer, PAIRS, layers=1, token_position="mean")
    expected, left_out = [], 0
    for pair in PAIRS:
        means = []
        for text in pair:
            tokens, (states, (counted,), _) = reads(tokenizer, text, model)
            kept = [at for at, token in enumerate(tokens) if at > 0 and token != sink]
            assert np.flatnonzero(counted[0]).tolist() == kept
            means.append(states[0][kept].astype(np.float64).mean(0))
            left_out += len(tokens) - len(kept)
        expected.append(means[0] - means[1])
    np.testing.assert_allclose(vector.directions[1], np.mean(expected, axis=0), atol=1e-5)
    assert left_out == 6 and vector.provenance["sinks"] == {"1": 6}
    # The spread is that of neutral texts, whatever is trained on.
    assert vector.state_spread == pytest.approx(state_spread(model, tokenizer, layers=1), rel=1e-5)
    # A position that is asked for by its place is read whatever it is.
    last = SteeringVector.train(model, tokenizer, [(" b a", " c a")], layers=1)
    assert last.norms[1] > 0 and "sinks" not in last.provenance


def test_texts_of_nothing_but_sinks(small):
    for text in ("mean", "answer"):
        with pytest.raises(InputError, match="has 1 tokens and none beyond the first, an attention sink"):
            SteeringVector.train(*small, [(" happy", " sad")], token_position=text)
    with pytest.raises(InputError, match="no text has two tokens"):
        state_spread(*small, [" happy", ""])
    with pytest.raises(InputError, match="hold a single state"):
        state_spread(*small, [" happy day", " happy"])


def test_the_spread_of_states(small):
    model, tokenizer = small
    found = state_spread(model, tokenizer, TEXTS, batch_size=1)
    assert list(found) == [0, 1, 2, 3] and found == pytest.approx(state_spread(model, tokenizer, TEXTS))
    read = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            # The last entry has passed the final norm.
            states = model(ids, output_hidden_states=True).hidden_states[1:-1]
        read.append(np.stack([state[0, 1:].double().numpy() for state in states]))
    expected = [spread_of(layer) for layer in np.concatenate(read, axis=1)]
    assert [found[layer] for layer in range(3)] == pytest.approx(expected, rel=1e-5)
    one = state_spread(model, tokenizer, TEXTS, 2)
    assert one == {2: pytest.approx(found[2])}
    # By default those of the same neutral texts for every model.
    assert state_spread(model, tokenizer)[3] == pytest.approx(27, rel=0.05)


def test_what_all_states_share_does_not_count():
    generator = np.random.default_rng(0)
    states = generator.standard_normal((50, 8))
    near, far = (StateMoments.of(rows).spread[0] for rows in (states, states + 1000))
    assert near == pytest.approx(spread_of(states)) == pytest.approx(far)
    # Nor does a coordinate in which states differ enormously, or one in which they never do.
    wide, dead = (np.insert(states, 0, column, axis=1) for column in (1e4 * states[:, 0], 0))
    assert StateMoments.of(wide).spread[0] == pytest.approx(near * 9 / 8, rel=0.1)
    assert 0.2 * near < StateMoments.of(dead).spread[0] < near


def test_spread_in_half_precision_and_of_no_number():
    model = tiny("llama", torch.bfloat16)
    letters = type(
        "Letters", (), {"__call__": lambda _s, text, **_: {"input_ids": [3 + len(w) for w in text.split()]}}
    )()
    exact = state_spread(tiny("llama"), letters, ["a bb ccc dd"])
    assert state_spread(model, letters, ["a bb ccc dd"]) == pytest.approx(exact, rel=0.05)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="layer 1 gives NaN or infinity"):
        state_spread(model, letters, ["a bb ccc dd"])


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".gguf"])
def test_files_keep_the_spread_of_states(tmp_path, suffix):
    spread = {1: 20.5, 3: 40.25}
    vector = SteeringVector({1: np.ones(4), 3: np.ones(4)}, "toy", state_spread=spread)
    vector.save(tmp_path / f"v{suffix}")
    again = SteeringVector.load(tmp_path / f"v{suffix}")
    assert again.state_spread == spread
    assert (
        again.select_layers(3).state_spread
        == (2 * again).state_spread
        == again.with_norm(1).state_spread
        == spread
    )
    other = SteeringVector({2: np.ones(4)}, "toy", state_spread={2: 30.0})
    assert (again + other).state_spread == {1: 20.5, 2: 30.0, 3: 40.25}


@pytest.mark.parametrize("spread", [{1: 0}, {-1: 2.0}, {1: float("inf")}, {1: "long"}, [3.0], {True: 1.0}])
def test_spread_of_states_that_is_none(spread):
    with pytest.raises(InputError, match="state_spread"):
        SteeringVector({1: np.ones(4)}, state_spread=spread)


def test_a_vector_in_a_damaged_file(tmp_path):
    embgeom.SteeringVector({1: np.ones(4)}, state_spread={1: 2.0}).save(tmp_path / "v.pt")
    held = torch.load(tmp_path / "v.pt")
    for wrong in ('{"1": -2}', '{"one": 2}', "[2]"):
        torch.save({**held, "state_spread": wrong}, tmp_path / "w.pt")
        with pytest.raises(embgeom.LoadError, match="state_spread"):
            SteeringVector.load(tmp_path / "w.pt")
