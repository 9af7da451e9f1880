"""Hidden states of two models side by side: against plain forward passes, and on the pair."""

import functools
import json

import numpy as np
import pytest

import embgeom
from embgeom import InputError, LoadError, OutputError
from embgeom.hidden_states import compare_states
from embgeom.hidden_states.compare import opened
from embgeom.lm.shared_texts import shared_positions
from embgeom.lm.states import Tokenized, residual_states
from embgeom.steering import LanguageModel
from tests.helpers.real_data import find

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

PROMPTS = [
    "Once upon a time there was a little girl named Lily. She loved to play outside in the park.",
    "The old king looked out of the window and said: I will not go to war again!",
    "Tom had a red ball. One day, the ball rolled into the river and was gone.",
    "A small dog ran.",
    "The café was shut – nobody 🙂 came to see the ship sail out of the harbour that night.",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # The models are so small that more threads wait for each other more than they help.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Matrix:
    def __init__(self, weights):
        self.weights = weights

    def transfer(self, vectors):
        return vectors @ self.weights


@pytest.fixture(scope="module")
def small():
    return opened("example:small")


@pytest.fixture(scope="module")
def large():
    return opened("example:large")


@functools.cache
def least_squares(which, shuffle=False):
    a, b = embgeom.load("example:small", which), embgeom.load("example:large", which)
    ids_a, ids_b = embgeom.match(a, b)
    if shuffle:
        ids_b = np.random.default_rng(0).permutation(ids_b)
    return Matrix(np.linalg.lstsq(a.matrix[ids_a], b.matrix[ids_b], rcond=None)[0])


@pytest.fixture(scope="module")
def compared(small, large):
    return compare_states(
        small, large, least_squares("output"), PROMPTS, shuffled=least_squares("output", shuffle=True)
    )


def assert_states_of_forward_passes(loaded, prompts):
    """Compare with what the model gives as hidden states, one prompt at a time."""
    tokenized = [Tokenized(ids, np.arange(len(ids))) for ids in prompts]
    found = residual_states(loaded.model, tokenized, batch_size=2, report=None, phase="").states
    start = 0
    for ids in prompts:
        with torch.no_grad():
            plain = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        mine = torch.from_numpy(found[:, start : start + len(ids)])
        start += len(ids)
        torch.testing.assert_close(mine[:-1], torch.cat(plain[:-1]), atol=1e-4, rtol=1e-4)
        # The model gives its last state behind the last norm.
        base = getattr(loaded.model.base_model, "decoder", loaded.model.base_model)
        norm = next(n for name, n in base.named_children() if "norm" in name or name == "ln_f")
        torch.testing.assert_close(norm(mine[-1]).detach(), plain[-1][0], atol=1e-4, rtol=1e-4)
    assert start == found.shape[1]


@pytest.mark.parametrize("name", ["small", "large"])
def test_states_are_those_of_plain_forward_passes(name, request):
    loaded = request.getfixturevalue(name)
    assert_states_of_forward_passes(loaded, [loaded.tokenizer(p)["input_ids"] for p in PROMPTS])


TINY = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("GPTNeoX", {"num_hidden_layers": 3}),
        ("OPT", {"num_hidden_layers": 3, "ffn_dim": 24, "word_embed_proj_dim": 16}),
        ("Gemma", {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}),
        ("Qwen2", {"num_hidden_layers": 3, "num_key_value_heads": 1}),
        ("Gemma2", {"num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 8}),
        ("Mixtral", {"num_hidden_layers": 2, "num_key_value_heads": 1, "num_local_experts": 2}),
    ],
)
def test_other_architectures(kind, more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**TINY, **more, max_position_embeddings=32)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    assert_states_of_forward_passes(LanguageModel(model, None), [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]])


def test_the_model_is_left_as_it_was(small):
    model = small.model
    model.train()
    model.transformer.h[0].eval()
    before = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    plain = residual_states(
        small.model, [Tokenized([5, 6], np.array([1]))], batch_size=1, report=None, phase=""
    )
    with pytest.raises(InputError, match="cannot read texts: IndexError"):
        residual_states(
            small.model, [Tokenized([5, 99999], np.array([1]))], batch_size=1, report=None, phase=""
        )
    after = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    assert after == before
    model.eval()
    again = residual_states(
        small.model, [Tokenized([5, 6], np.array([1]))], batch_size=1, report=None, phase=""
    )
    np.testing.assert_array_equal(plain.states, again.states)


@pytest.mark.model
def test_shared_positions_have_read_the_same_text(small):
    other = transformers.AutoTokenizer.from_pretrained(find("models/stories260k"))
    mine = small.tokenizer
    pairs = shared_positions(PROMPTS[:4], (mine, other), (1000, 1000), "all")
    assert len(pairs) == 4
    for prompt, (a, b) in zip(PROMPTS, pairs, strict=False):
        assert len(a.positions) == len(b.positions) > len(prompt.split()) - 3
        for place_a, place_b in zip(a.positions, b.positions, strict=True):
            read = [
                tokenizer.decode(ids[: place + 1], skip_special_tokens=True).strip()
                for tokenizer, ids, place in ((mine, a.ids, place_a), (other, b.ids, place_b))
            ]
            assert read[0] == read[1] and prompt.startswith(read[0])


def test_a_character_of_many_tokens_ends_with_its_last(small):
    tokenizer = small.tokenizer
    text = "a 🙂 b"
    ids, spans = (
        tokenizer(text, return_offsets_mapping=True)[key] for key in ("input_ids", "offset_mapping")
    )
    [(a, _)] = shared_positions([text], (tokenizer, tokenizer), (99, 99), "all")
    pieces = [place for place, span in enumerate(spans) if tuple(span) == (2, 3)]
    assert len(pieces) > 1 and pieces[-1] in a.positions.tolist()
    assert not set(pieces[:-1]) & set(a.positions.tolist())
    # Cut off in its middle, the character has not been read.
    [(a, b)] = shared_positions([text], (tokenizer, tokenizer), (pieces[-1], 99), "all")
    assert a.ids == ids[: pieces[-1]] and len(b.ids) == len(ids)
    assert not set(pieces) & set(a.positions.tolist())


def test_last_positions_are_the_ends_of_the_prompts(small, large):
    pairs = shared_positions([*PROMPTS, ""], (small.tokenizer, large.tokenizer), (256, 256), "last")
    assert [a.positions.tolist() for a, _ in pairs] == [[len(a.ids) - 1] for a, _ in pairs]
    assert len(pairs) == len(PROMPTS)


def test_a_model_and_itself_match_layer_by_layer(small):
    result = compare_states(small, "example:small", Matrix(np.eye(128, dtype="f4")), PROMPTS)
    for measure in result.measures:
        np.testing.assert_allclose(np.diag(measure.value), 1, atol=1e-5)
        assert result.match_layers(measure.name) == {layer: layer for layer in range(4)}


def test_a_map_of_unembeddings_carries_states(compared):
    assert (compared.source_layers, compared.target_layers, compared.prompts) == (4, 6, 5)
    cosine, cka = compared["centered_cosine"], compared["cka"]
    for table in (cosine.value, cosine.shuffled, cosine.shuffled_map, cka.value, cka.shuffled):
        assert table.shape == (5, 7) and np.isfinite(table).all()
    assert cka.shuffled_map is None
    assert (cosine.value[1:, 1:] > 0.4).all()
    assert (np.abs(cosine.shuffled) < 0.15).all() and (np.abs(cosine.shuffled_map) < 0.2).all()
    assert (cka.value[1:, 1:] > cka.shuffled[1:, 1:] + 0.2).all()
    matched = compared.match_layers()
    assert list(matched) == [0, 1, 2, 3] and matched[3] == 5
    assert matched == {layer: int(row.argmax()) for layer, row in enumerate(cosine.value[1:, 1:])}


def test_a_map_of_embeddings_carries_embeddings_only(small, large):
    result = compare_states(small, large, least_squares("input"), PROMPTS)
    cosine = result["centered_cosine"].value
    assert cosine[0, 0] > 0.35 and (np.abs(cosine[1:, 1:]) < 0.1).all()


def test_batches_and_seeds_change_nothing_that_they_should_not(small, large, compared):
    mapping = least_squares("output")
    other = compare_states(small, large, mapping, PROMPTS, batch_size=1, seed=5)
    for mine, theirs in zip(compared.measures, other.measures, strict=True):
        np.testing.assert_allclose(mine.value, theirs.value, atol=1e-4)
        assert not np.array_equal(mine.shuffled, theirs.shuffled)
    few = compare_states(small, large, mapping, PROMPTS, max_positions=10)
    assert few.positions == 10
    last = compare_states(small, large, mapping, PROMPTS, positions="last")
    assert (last.positions, last.prompts) == (5, 5)


def test_progress_ends_where_it_should(small, large):
    told = {}
    compare_states(
        small,
        large,
        least_squares("output"),
        PROMPTS,
        progress=lambda phase, done, total: told.__setitem__(phase, (done, total)),
    )
    assert {"source", "target", "cka"} <= set(told)
    assert all(done == total for done, total in told.values())


def test_the_result_says_how_it_came_about(compared, tmp_path):
    compared.save(tmp_path / "states.json")
    content = json.loads((tmp_path / "states.json").read_text(encoding="utf-8"))
    provenance = content["provenance"]
    assert [provenance[side]["model"] for side in ("source", "target")] == ["example:small", "example:large"]
    assert provenance["options"]["prompts"] == 5 and provenance["versions"]["transformers"]
    assert np.shape(content["measures"][0]["value"]) == (5, 7)


def test_a_map_that_does_not_fit_is_told_before_the_models_run(small, large, monkeypatch):
    monkeypatch.setattr(type(small.model), "forward", None)
    with pytest.raises(InputError, match=r"needs \(2, 192\); was it fitted for these two models"):
        compare_states(small, large, Matrix(np.eye(128)), PROMPTS)


def test_the_summary_names_layers_and_nulls(compared):
    text = compared.summary()
    assert "4 layers" in text and "layer 5" in text and "90 positions of 5 texts" in text
    # Where all columns do not fit, their names stand in several lines.
    assert "positions shuffled" in text and "map of" in text and "tokens" in text
    assert f"{compared['centered_cosine'].value[4, 6]:.4f}" in text
    assert max(map(len, text.splitlines())) <= 110


def test_figures_are_files(compared, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    for suffix, head in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        path = tmp_path / f"states{suffix}"
        compared.plot(path)
        first = path.read_bytes()
        compared.plot(str(path))
        assert first.startswith(head) and path.read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(OutputError, match=r"suffix '\.jpeg'"):
        compared.plot(tmp_path / "states.jpeg")
    with pytest.raises(OutputError, match="no folder"):
        compared.plot(tmp_path / "absent" / "states.png")


def test_what_does_not_fit_is_refused(small, large, compared, tmp_path):
    fitting = {"source": small, "mapping": Matrix(np.zeros((128, 192), "f4")), "prompts": PROMPTS}
    for error, message, options in (
        (InputError, "list of strings", {"prompts": "one"}),
        (InputError, "list of strings", {"prompts": [1]}),
        (InputError, "0 positions", {"prompts": []}),
        (InputError, "2 positions", {"prompts": ["the dog"], "positions": "all"}),
        (InputError, "'all' or 'last'", {"positions": "first"}),
        (InputError, "no method transfer", {"mapping": np.eye(3)}),
        (InputError, r"needs \(.*, 192\)", {"mapping": Matrix(np.eye(128))}),
        (InputError, "map returns NaN", {"mapping": Matrix(np.full((128, 192), np.nan))}),
        (InputError, "batch_size", {"batch_size": 0}),
        (InputError, "max_positions", {"max_positions": 2}),
        (InputError, "seed", {"seed": -1}),
        (InputError, "is a folder or", {"source": small.model}),
        (InputError, "fast tokenizer", {"source": (small.model, object())}),
        (LoadError, "cannot be loaded", {"source": tmp_path / "absent"}),
        (LoadError, "cannot be loaded", {"source": tmp_path}),
    ):
        with pytest.raises(error, match=message):
            compare_states(target=large, **{**fitting, **options})
    with pytest.raises(InputError, match="no measure is named 'cos'"):
        compared["cos"]


def test_states_that_overflow_are_told():
    config = transformers.Qwen2Config(**TINY, num_hidden_layers=2, num_key_value_heads=1)
    model = transformers.Qwen2ForCausalLM(config).eval()
    torch.nn.init.constant_(model.model.embed_tokens.weight, float("inf"))
    with pytest.raises(InputError, match="NaN or infinity"):
        residual_states(model, [Tokenized([1], np.array([0]))], batch_size=1, report=None, phase="")


def test_encoders_with_decoders_are_refused():
    config = transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    model = transformers.T5ForConditionalGeneration(config)
    with pytest.raises(InputError, match="an encoder and a decoder"):
        residual_states(model, [Tokenized([1], np.array([0]))], batch_size=1, report=None, phase="")
