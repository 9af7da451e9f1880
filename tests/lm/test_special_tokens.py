"""Texts that begin or end for the model otherwise than it is used to are told of, and ends are not read."""

import functools
import json
import shutil
import warnings

import numpy as np
import pytest

import embgeom
from embgeom import EmbgeomWarning, InputError, SteeringVector
from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate
from embgeom.steering import load_language_model, read_pairs
from tests.helpers.cli import run, status

NO_RANDOM = EvaluateOptions(random=0)
END = "<|endoftext|>"
PAIRS = [("Tom was happy.", "Tom was sad."), ("They laughed a lot", "They cried a lot")]
SMALL = embgeom.examples.pair().small
TEXT, SPECIAL = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": END, "type_id": 0}}


@pytest.fixture(scope="module")
def model():
    return load_language_model("example:small").model


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """The small example's tokenizer, and the same with tokens added in front, behind, and on both sides."""
    from transformers import AutoTokenizer

    @functools.cache
    def made(name):
        single = {"front": [SPECIAL, TEXT], "behind": [TEXT, SPECIAL], "both": [SPECIAL, TEXT, SPECIAL]}[name]
        folder = tmp_path_factory.mktemp(name) / "model"
        shutil.copytree(SMALL, folder)
        settings = json.loads((SMALL / "tokenizer.json").read_text())
        settings["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {END: {"id": END, "ids": [0], "tokens": [END]}},
        }
        (folder / "tokenizer.json").write_text(json.dumps(settings))
        return AutoTokenizer.from_pretrained(folder), folder

    return made


def plain(model):
    """A tokenizer that adds nothing tells of nothing."""
    from transformers import AutoTokenizer

    return functools.partial(SteeringVector.train, model, AutoTokenizer.from_pretrained(SMALL), layers=2)


def directions(model, tokenizer, pairs=PAIRS, **options):
    """The direction, and what was told meanwhile."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        vector = SteeringVector.train(model, tokenizer, pairs, layers=2, **options)
    assert all(warning.category is EmbgeomWarning and warning.filename == __file__ for warning in told)
    poor = ("a vector from", "all texts are read at the same last token")
    messages = [str(warning.message) for warning in told]
    return vector.directions[2], [message for message in messages if not message.startswith(poor)]


class Same:
    def transfer(self, vectors):
        return vectors


def written(pairs):
    return [(END + positive, END + negative) for positive, negative in pairs]


def test_a_beginning_that_stands_there_twice(model, tokenizers):
    tokenizer, _ = tokenizers("front")
    once, nothing = directions(model, tokenizer)
    twice, (told,) = directions(model, tokenizer, written(PAIRS))
    assert nothing == [] and "4 of 4 texts begin with <|endoftext|> twice" in told
    assert "--no-special-tokens" in told
    assert not np.allclose(once, twice, atol=1e-3)
    # As chat templates have it, and with the way out that was told.
    by_hand, nothing = directions(model, tokenizer, written(PAIRS), add_special_tokens=False)
    np.testing.assert_allclose(by_hand, once, rtol=1e-6)
    assert nothing == []


def test_a_beginning_that_is_not_there(model, tokenizers):
    tokenizer, _ = tokenizers("front")
    _, (told,) = directions(model, tokenizer, [*PAIRS, *written(PAIRS[:1])], add_special_tokens=False)
    assert "4 of 6 texts do not begin with <|endoftext|>" in told


@pytest.mark.parametrize("read", ["last", -2, "mean", "answer"])
@pytest.mark.parametrize("place", ["behind", "both"])
def test_an_end_that_the_tokenizer_adds_is_not_read(model, tokenizers, place, read):
    tokenizer, _ = tokenizers(place)
    found, (told,) = directions(model, tokenizer, token_position=read)
    front = written(PAIRS) if place == "both" else PAIRS
    if read == "mean" and place == "both":
        # Written by hand, the token in front would count.
        expected, _ = directions(model, tokenizers("front")[0], token_position=read)
    else:
        expected, _ = directions(model, tokenizer, front, token_position=read, add_special_tokens=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert "puts <|endoftext|> at the end of each text" in told


def test_an_end_that_is_read(model):
    pairs = [(positive + END, negative + END) for positive, negative in PAIRS]
    with pytest.warns(EmbgeomWarning, match="4 of 4 texts are read at .*--token-position -2"):
        plain(model)(pairs)
    # One place before the end is where the texts end without it.
    before, bare = plain(model)(pairs, token_position=-2), plain(model)(PAIRS)
    np.testing.assert_allclose(before.directions[2], bare.directions[2], rtol=1e-4, atol=1e-6)


def test_a_text_of_nothing_but_special_tokens(model, tokenizers):
    for place in ("behind", "both"):
        with pytest.raises(InputError, match=r"none at token_position|no pair is read"):
            directions(model, tokenizers(place)[0], [("", "")])


def test_prompts_that_hold_the_beginning(model, tokenizers, capsys, tmp_path):
    tokenizer, folder = tokenizers("front")
    vector, mood = SteeringVector({2: np.ones(128)}, "example:small"), WordLogRatio([" happy"], [" sad"])
    prompts, twice = ["Tom was"], [END + "Tom was"]
    with pytest.warns(EmbgeomWarning, match=r"1 of 1 texts begin with <\|endoftext\|> twice"):
        evaluate(model, tokenizer, vector, mood, twice, options=NO_RANDOM)
    with pytest.warns(EmbgeomWarning, match="1 of 2 texts begin"):
        evaluate(
            model,
            tokenizer,
            vector,
            mood,
            prompts,
            options=NO_RANDOM,
            neutral=[END + "The river runs."],
        )
    evaluate(model, tokenizer, vector, mood, prompts, options=NO_RANDOM)
    # A chat template writes the token itself.
    tokenizer.chat_template = "<|endoftext|>{% for m in messages %}{{ m.content }}{% endfor %}"
    chat = WordLogRatio([" happy"], [" sad"], chat=True)
    by_template = evaluate(model, tokenizer, vector, chat, prompts, options=NO_RANDOM)
    tokenizer.chat_template = None
    alone = evaluate(model, tokenizer, vector, mood, prompts, options=NO_RANDOM)
    np.testing.assert_allclose(by_template.unsteered["log-ratio"], alone.unsteered["log-ratio"], rtol=1e-5)
    either = (model, tokenizer)
    text = "Tom was very happy and he went home."
    embgeom.compare_states(either, either, Same(), [text])
    with pytest.warns(EmbgeomWarning, match="1 of 1 texts begin"):
        embgeom.compare_states(either, either, Same(), [END + text])
    vector.save(tmp_path / "v.safetensors")
    asked = ("--vector", tmp_path / "v.safetensors", "--prompt", twice[0], "--max-new-tokens", "2")
    run("steer", folder, *asked)
    assert "warning: 1 of 1 texts begin with <|endoftext|> twice" in capsys.readouterr().err


def test_special_tokens_are_left_out_by_an_option(tokenizers, tmp_path, capsys):
    _, folder = tokenizers("front")
    (tmp_path / "pairs.json").write_text(json.dumps(written(PAIRS)))
    asked = ("train-vector", folder, "--pairs", tmp_path / "pairs.json", "--layers", "2", "-o")
    run(*asked, tmp_path / "twice.safetensors")
    assert "twice" in capsys.readouterr().err
    run(*asked, tmp_path / "once.safetensors", "--no-special-tokens")
    assert capsys.readouterr().err.startswith("embgeom: warning: a vector from 2 pairs holds")
    once = SteeringVector.load(tmp_path / "once.safetensors")
    assert once.provenance["add_special_tokens"] is False


def test_pairs_that_are_too_long_are_left_out_by_an_option(model, tmp_path, capsys):
    pairs = [("word " * 400 + "a", "word " * 400 + "b"), *PAIRS, ("Tom was happy.", "so " * 400)]
    with pytest.raises(InputError, match=r"positive text of pair 0.*256 at most.*--skip-long"):
        plain(model)(pairs)
    kept, expected = plain(model)(pairs, skip_long=True), plain(model)(PAIRS)
    np.testing.assert_array_equal(kept.directions[2], expected.directions[2])
    assert kept.provenance["pairs"] == 2 and kept.provenance["left_out"] == 2
    assert kept.provenance["pairs_sha256"] == expected.provenance["pairs_sha256"]
    with pytest.raises(InputError, match="all 1 pairs are longer"):
        plain(model)(pairs[:1], skip_long=True)
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    asked = ("train-vector", "example:small", "--pairs", tmp_path / "pairs.json", "--layers", "2")
    assert status(*asked, "-o", tmp_path / "v.safetensors") == 2
    assert "--skip-long" in capsys.readouterr().err
    run(*asked, "-o", tmp_path / "v.safetensors", "--skip-long")
    out = capsys.readouterr().out
    assert "from 2 pairs" in out and "2 pairs left out, too long for the model" in out


CHAT = (
    "<|endoftext|>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def test_texts_in_a_chat_template(tokenizers, tmp_path, capsys):
    tokenizer, folder = tokenizers("front")
    items = [
        ["I am glad.", "I am sad."],
        {"prompt": "How are you?", "positive": "Fine", "negative": "Bad"},
        {"question": "Up?", "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"},
        {"positive": "Good.", "negative": "Ill.", "prompt": ""},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(items))
    with pytest.raises(InputError, match="no chat template"):
        read_pairs(tmp_path / "pairs.json", chat=tokenizer)
    tokenizer.chat_template = CHAT
    try:
        pairs = read_pairs(tmp_path / "pairs.json", chat=tokenizer)
        chatting = tmp_path / "model"
        shutil.copytree(folder, chatting)
        tokenizer.save_pretrained(chatting)
    finally:
        tokenizer.chat_template = None
    start = END + "user: "
    assert pairs == [
        (f"{start}I am glad.\nassistant: ", f"{start}I am sad.\nassistant: "),
        (f"{start}How are you?\nassistant: Fine", f"{start}How are you?\nassistant: Bad"),
        (f"{start}Up?\nassistant:  (A)", f"{start}Up?\nassistant:  (B)"),
        (f"{start}Good.\nassistant: ", f"{start}Ill.\nassistant: "),
    ]
    asked = ("train-vector", chatting, "--layers", "2", "--chat", "-o", tmp_path / "v.pt", "--pairs")
    run(*asked, tmp_path / "pairs.json", "--token-position", "mean")
    out, err = capsys.readouterr()
    assert (
        err.count("warning") == 1
        and "from 4 pairs" in err
        and "8 positions left out of the means in a layer, attention sinks" in out
    )
    found = SteeringVector.load(tmp_path / "v.pt")
    model, again = load_language_model(chatting)
    expected, _ = directions(model, again, pairs, add_special_tokens=False, token_position="mean")
    np.testing.assert_array_equal(found.directions[2], expected)
    run(*asked, "example:moods")
    assert SteeringVector.load(tmp_path / "v.pt").provenance["add_special_tokens"] is False
