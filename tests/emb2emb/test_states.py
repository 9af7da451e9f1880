"""Maps that are fitted on hidden states, and the lengths of vectors by the spread of states."""

from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom import Emb2Emb, EmbgeomWarning, InputError, SteeringVector
from embgeom.emb2emb.lengths import SHARE
from embgeom.emb2emb.methods import Ridge
from embgeom.emb2emb.pairs import PreparedRows
from embgeom.emb2emb.states import LONGEST_TEXT, chosen_layers, paired_states
from embgeom.examples import moods
from embgeom.lm.attention_sinks import kept_positions
from tests.helpers.emb2emb import related

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

TEXTS = moods.neutral_texts()[:12]
LAYERS = (2, 4)


@pytest.fixture(scope="module")
def models():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield [embgeom.steering.load_language_model(f"example:{name}") for name in ("small", "large")]
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def mapping(models):
    return Emb2Emb.fit_states(*models[0], *models[1], TEXTS, LAYERS)


def test_layers_are_at_one_depth_unless_they_are_named(models):
    assert chosen_layers(None, *models) == (2, 4) and chosen_layers(1, *models) == (1, 2)
    assert chosen_layers(None, *models[::-1]) == (3, 2) and chosen_layers((0, 5), *models) == (0, 5)
    with pytest.raises(InputError, match="layer"):
        chosen_layers(4, *models)


def test_few_tokens_and_texts_of_one_template_are_warned_of(models):
    with pytest.warns(EmbgeomWarning) as caught:
        found = Emb2Emb.fit_states(*models[0], *models[1], TEXTS)
    few, alike = (str(warning.message) for warning in caught)
    fitted_on = found.provenance["tokens"]["fitted_on"]
    assert f"{fitted_on} paired tokens for a map of 128 to 192 columns are less than 10" in few
    assert alike.startswith("1 of 1 held-out texts repeat four fifths of their runs of three tokens")
    told = f"paired tokens of 12 texts, {found.provenance['tokens']['held_out']} held out (texts: 1)"
    assert told in " ".join(found.summary().split())
    read = paired_states(*models, TEXTS, [LAYERS], batch_size=8, seed=0, report=None)
    other = replace(read, tokens=[list(range(100 * i, 100 * i + 50)) for i in range(12)])
    kept, held = other.split(0.5, 0)
    assert not list(other.doubts(kept, held, (2, 3)))


def plain_states(loaded, text, layer):
    ids = loaded.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        return loaded.model(**ids, output_hidden_states=True).hidden_states[layer + 1][0].numpy()


def test_states_are_paired_at_tokens_that_end_together(models):
    read = paired_states(*models, TEXTS[:3], [LAYERS], batch_size=2, seed=0, report=None)
    source, target = (
        side.take(slice(0, None)) for side in (read.pairs(LAYERS).source, read.pairs(LAYERS).target)
    )
    begin = 0
    for number, text in enumerate(TEXTS[:3]):
        found = []
        for loaded, layer in zip(models, LAYERS, strict=True):
            spans = loaded.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
            states = plain_states(loaded, text, layer)
            kept = kept_positions(np.linalg.norm(states, axis=1))
            found.append({end: states[i] for i, (at, end) in enumerate(spans) if end > at and kept[i]})
        ends = sorted(found[0].keys() & found[1].keys())
        here = slice(begin, begin := begin + len(ends))
        assert (read.texts[here] == number).all()
        np.testing.assert_allclose(source[here], [found[0][end] for end in ends], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(target[here], [found[1][end] for end in ends], rtol=1e-4, atol=1e-4)
    assert begin == len(read.texts) > 60
    spread = embgeom.steering.state_spread(*models[0], TEXTS[:3], [2])
    assert read.source.spread == pytest.approx(spread, rel=1e-4)


def test_a_map_of_states_is_that_of_its_rows(models, mapping):
    read = paired_states(*models, TEXTS, [(0, 1), LAYERS], batch_size=3, seed=0, report=None)
    kept, held = read.split(0.1, 0)
    assert set(read.texts[kept]).isdisjoint(read.texts[held]) and len(set(read.texts[held])) == 1
    pairs = read.pairs(LAYERS)
    plain = Emb2Emb.fit(pairs.source.take(kept), pairs.target.take(kept), method=Ridge(), held_out=0)
    np.testing.assert_allclose(mapping.matrix, plain.matrix, rtol=1e-3, atol=1e-4)
    assert mapping.scores.tokens == len(held) and mapping.scores.r2 > 0.5 > mapping.shuffled.r2
    assert mapping.provenance["tokens"]["shared"] == len(read.texts)
    assert mapping.provenance["sinks"] == read.about["sinks"]
    spread = read.source.spread[2], read.target.spread[4]
    assert mapping.provenance["state_spread"] == pytest.approx(spread, rel=1e-6)


def test_a_map_of_states_in_a_file(mapping, tmp_path):
    mapping.save(tmp_path / "map.safetensors")
    again = Emb2Emb.load(tmp_path / "map.safetensors")
    assert again.layers == LAYERS and repr(again) == repr(mapping)
    assert repr(mapping) == (
        "Emb2Emb('example:small' -> 'example:large', ridge, 128 -> 192, states of layers 2 -> 4)"
    )
    assert again.scores.to_dict() == mapping.scores.to_dict() and "paired tokens of" in again.summary()
    vector = SteeringVector({2: np.ones(128), 3: np.ones(128)})
    np.testing.assert_array_equal(
        again.transfer(vector).directions[4], mapping.transfer(vector).directions[4]
    )


def test_vectors_go_through_as_states_and_in_proportion(mapping):
    rng = np.random.default_rng(0)
    vector = SteeringVector({2: rng.standard_normal(128), 3: np.ones(128)})
    transferred = mapping.transfer(vector)
    assert transferred.layers == (4,) and transferred.provenance["mode"] == "primal"
    _, target = mapping.provenance["state_spread"]
    assert transferred.norms[4] == pytest.approx(SHARE * target)
    primal = vector.directions[2].astype(float) @ mapping.matrix
    cosine = primal @ transferred.directions[4] / np.linalg.norm(primal) / transferred.norms[4]
    assert cosine == pytest.approx(1)
    assert transferred.state_spread == {4: pytest.approx(target)}
    about = {"target": {"spread": target, "from": "the map"}}
    assert transferred.provenance["state_spread"] == {"4": about}
    with pytest.raises(InputError, match="no direction for layer 2"):
        mapping.transfer(vector.select_layers([3]))
    # Elsewhere the map is used if asked for, and knows no spread.
    assert mapping.transfer(vector.select_layers([3]), layers=5, norm="raw").layers == (5,)
    with pytest.raises(InputError, match="the target, 'example:large', after layer 5 is not known"):
        mapping.transfer(vector.select_layers([3]), layers=5)


def test_a_shuffled_map_of_states_predicts_nothing(models):
    shuffled = Emb2Emb.fit_states(*models[0], *models[1], TEXTS, LAYERS, shuffle=True)
    assert shuffled.scores.r2 < 0.1 and shuffled.shuffled is None


def test_texts_of_which_too_few_tokens_fit(models):
    both = (*models[0], *models[1])
    for texts, layers, why in (
        ([], LAYERS, "in 0 texts tokens of both models end together 0 times"),
        (["a"], LAYERS, "a map needs 4 at least"),
        ("one text", LAYERS, "list of strings"),
        (TEXTS, (2, 6), "there is no layer 6"),
        (TEXTS, (2,), "are not two: give"),
        (TEXTS, (-1, 2), r"layers\[0\] = -1"),
        (TEXTS[:1], LAYERS, "held_out = 0.1 of 1 texts leaves too few to fit on"),
    ):
        with pytest.raises(InputError, match=why):
            Emb2Emb.fit_states(*both, texts, layers)


def test_long_and_many_texts_are_cut(models, monkeypatch):
    long = " ".join(TEXTS * 40)
    read = paired_states(*models, [long, TEXTS[0]], [(0, 0)], batch_size=8, seed=0, report=None)
    most = min(LONGEST_TEXT, models[0].model.config.max_position_embeddings)
    assert len(read.source.kept) <= most + 100
    monkeypatch.setattr("embgeom.emb2emb.states.MOST_TOKENS", 100)
    drawn = paired_states(*models, TEXTS, [(0, 0)], batch_size=8, seed=0, report=None)
    assert drawn.about["texts"] == 12 and 1 <= drawn.about["texts_read"] < 4


def test_progress_is_reported_by_model(models):
    seen = []
    Emb2Emb.fit_states(
        *models[0],
        *models[1],
        TEXTS,
        LAYERS,
        progress=lambda phase, done, total: seen.append((phase, done, total)),
    )
    assert ("source", 12, 12) in seen and ("target", 12, 12) in seen


LENGTHS = SteeringVector({1: np.full(12, 2.0)}, "a", state_spread={1: 10.0})


def fit(method="low_rank"):
    return Emb2Emb.fit(*related(), method=method, held_out=0)


def test_a_vector_is_as_long_by_the_states_of_the_target():
    found = fit().transfer(LENGTHS, layers=4, state_spread={4: 50})
    assert found.norms[4] == pytest.approx(SHARE * 50)
    assert (found.provenance["norm"], found.provenance["share"]) == ("states", SHARE)
    about = {"target": {"spread": 50, "from": "state_spread="}}
    assert found.provenance["state_spread"] == {"4": about}
    assert found.state_spread == {4: 50.0}
    # However long the vector is, its sign counts.
    other = fit().transfer(-3 * LENGTHS, layers=4, state_spread={4: 50})
    np.testing.assert_allclose(other.directions[4], -found.directions[4], rtol=1e-5)
    raw = fit().transfer(LENGTHS, layers=4, norm="raw")
    np.testing.assert_array_equal(raw.directions[4], fit().transfer(LENGTHS.directions[1]))
    assert raw.provenance["norm"] == "raw"


def test_the_operation_is_kept_and_says_which_length_counts():
    ablation = fit().transfer(replace(LENGTHS, operation="ablate"))
    assert (ablation.operation, ablation.provenance["norm"]) == ("ablate", "raw")
    clamp = replace(LENGTHS, operation="clamp", value=(None, 0.5))
    found = fit().transfer(clamp, state_spread={1: 20.0})
    assert (found.operation, found.value, found.provenance["norm"]) == ("clamp", (None, 0.5), "states")
    assert found.norms[1] == pytest.approx(2 * LENGTHS.norms[1])
    assert found.provenance["state_spread"]["1"]["source"] == {"spread": 10.0, "from": "the vector"}
    with pytest.raises(
        InputError, match=r"of the source, 'source', after layer 1 is not known.*the vector its"
    ):
        fit().transfer(replace(clamp, state_spread={}), state_spread={1: 20.0})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "the spread of the states of the target, 'target', after layer 1 is not known"),
        ({"state_spread": {2: 3.0}}, "target, 'target', after layer 1"),
        ({"state_spread": {1: -1.0}}, "positive, finite length"),
        ({"state_spread": 3.0}, "not a mapping"),
        ({"state_spread": {1: 3.0}, "norm": "raw"}, 'and norm="raw" to nothing'),
        ({"norm": "state"}, "norm = 'state' is unknown"),
        ({"norm": 3.0}, "norm = 3.0 is unknown: .*with_norm"),
    ],
)
def test_lengths_that_are_not_known(options, why):
    with pytest.raises(InputError, match=why):
        fit().transfer(LENGTHS, **options)


def test_arrays_stay_as_the_map_makes_them():
    rows = np.ones((2, 12))
    np.testing.assert_allclose(fit().transfer(2 * rows), 2 * fit().transfer(rows), rtol=1e-6)
    for options in ({"norm": "states"}, {"state_spread": {}}):
        with pytest.raises(InputError, match="for a SteeringVector"):
            fit().transfer(rows, **options)


@pytest.mark.parametrize("method", ["least_squares", "ridge"])
def test_the_dual_of_a_map_of_full_rank_is_warned_of(method):
    with pytest.warns(EmbgeomWarning, match="mode 'dual' inverts a map of method"):
        fit(method).transfer(LENGTHS, mode="dual", norm="raw")
    assert fit(method).transfer(LENGTHS, norm="raw").provenance["mode"] == "logits"
    assert fit("procrustes").transfer(LENGTHS, mode="dual", norm="raw").provenance["mode"] == "dual"


def test_rows_of_states_are_not_copied(models):
    read = paired_states(*models, TEXTS[:2], [LAYERS], batch_size=8, seed=0, report=None)
    pairs = read.pairs(LAYERS)
    assert isinstance(pairs.source, PreparedRows) and pairs.source.matrix is read.source.states[2]
