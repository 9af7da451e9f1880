"""Vectors from pairs are what reading each text by itself gives, and files of pairs are read whole."""

import json
import warnings

import numpy as np
import pytest
import torch

import embgeom
from embgeom import EmbgeomWarning, InputError, LoadError, SteeringVector
from embgeom.lm.layers import find
from embgeom.steering.pairs import read_pairs
from tests.helpers.real_data import find as find_data
from tests.helpers.steering import FAMILIES, LAYERS, tiny

PAIRS = [
    ("a b c d", "a b e"),
    ("f g", "h i j k l"),
    ("m n o", "m n p"),
    ("q r s t u v", "q r s w x"),
    ("y z", "z y a b c d e f"),
]


class Letters:
    """A tokenizer of letters apart by spaces, with a token at the beginning, and no padding token."""

    pad_token = None
    padding_side = "left"

    def __call__(self, text, add_special_tokens=True, return_special_tokens_mask=False):
        # Of longer words, as neutral texts have them, the length.
        tokens = [
            (ord(letter) - ord("a") if len(letter) == 1 else len(letter)) + 3
            for letter in text.lower().split()
        ]
        start = [1] if add_special_tokens else []
        found = {"input_ids": start + tokens, "attention_mask": [1] * len(start + tokens)}
        if return_special_tokens_mask:
            found["special_tokens_mask"] = [1] * len(start) + [0] * len(tokens)
        return found


def states(model, text, layer):
    """The residual stream after a layer at each token of a text run by itself, float64 (length, width)."""
    ids = torch.tensor([Letters()(text)["input_ids"]])
    with torch.no_grad():
        # The last entry has passed the final norm, so the last layer is read through a hook.
        kept = []
        module = find(model).layers[layer]
        hook = module.register_forward_hook(
            lambda _m, _a, out: kept.append(out[0] if isinstance(out, tuple) else out)
        )
        model(ids)
        hook.remove()
    return kept[0][0].double().numpy()


READS = {
    "last": lambda stream, shared: stream[-1],
    "mean": lambda stream, shared: stream[1:].mean(0),
    "answer": lambda stream, shared: stream[shared:].mean(0),
    -2: lambda stream, shared: stream[-2],
}


def shared_tokens(pair):
    first, second = (Letters()(text)["input_ids"] for text in pair)
    length = 0
    while first[length] == second[length]:
        length += 1
    return max(length, 1)


def differences(model, layer, read):
    rows = []
    for pair in PAIRS:
        positive, negative = (READS[read](states(model, text, layer), shared_tokens(pair)) for text in pair)
        rows.append(positive - negative)
    return np.array(rows)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_is_that_of_texts_read_one_by_one(family, read):
    model = tiny(family)
    vector = SteeringVector.train(model, Letters(), PAIRS, token_position=read, batch_size=3)
    assert vector.layers == tuple(range(LAYERS))
    for layer in vector.layers:
        expected = differences(model, layer, read).mean(0)
        np.testing.assert_allclose(vector.directions[layer], expected, atol=2e-5)


@pytest.mark.parametrize("method", ["mean", "pca"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_batch_size_has_no_effect(family, method):
    model = tiny(family)
    one, two, all_ = (
        SteeringVector.train(model, Letters(), PAIRS, method=method, batch_size=size) for size in (1, 2, 99)
    )
    for layer in one.layers:
        np.testing.assert_allclose(two.directions[layer], one.directions[layer], atol=2e-5)
        np.testing.assert_allclose(all_.directions[layer], one.directions[layer], atol=2e-5)


@pytest.mark.parametrize("repeats", [1, 5], ids=["fewer pairs than columns", "more pairs than columns"])
def test_pca_is_the_singular_vector_of_the_differences(repeats):
    model = tiny("llama")
    vector = SteeringVector.train(model, Letters(), PAIRS * repeats, layers=[1], method="pca")
    found = differences(model, 1, "last")
    _, lengths, directions = np.linalg.svd(found)
    expected = directions[0] * lengths[0] / np.sqrt(len(PAIRS))
    expected *= np.sign(found.mean(0) @ expected)
    np.testing.assert_allclose(vector.directions[1], expected, atol=1e-4)
    share = lengths[0] ** 2 / (lengths**2).sum()
    assert vector.provenance["explained"]["1"] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("method", ["mean", "pca"])
def test_positive_texts_lie_higher(method):
    model = tiny("gpt2")
    forth = SteeringVector.train(model, Letters(), PAIRS, method=method)
    back = SteeringVector.train(model, Letters(), [pair[::-1] for pair in PAIRS], method=method)
    for layer, direction in forth.directions.items():
        assert (differences(model, layer, "last") @ direction).mean() > 0
        np.testing.assert_allclose(back.directions[layer], -direction, atol=1e-5)


def test_few_pairs_and_texts_that_end_alike_are_warned_of():
    model = tiny("gpt2")
    pairs = [(f"a {letter} z", f"b {letter} z") for letter in "cdefghijkl"]
    with pytest.warns(
        EmbgeomWarning, match="a vector from 9 pairs holds whatever else their texts differ in"
    ):
        SteeringVector.train(model, Letters(), pairs[:9], token_position=-2)
    with pytest.warns(EmbgeomWarning, match=r"same last token, .*\(token_position=-2, --token-position -2\)"):
        SteeringVector.train(model, Letters(), pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SteeringVector.train(model, Letters(), pairs, token_position=-2)
        SteeringVector.train(model, Letters(), [*pairs, ("a", "b")])


def test_only_the_layers_asked_for_run():
    model = tiny("gpt2")
    ran = []
    for layer, module in enumerate(model.transformer.h):
        module.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
    vector = SteeringVector.train(model, Letters(), PAIRS[:1], layers=[0, 1])
    assert vector.layers == (0, 1)
    # Before the pairs and before the neutral texts all layers run, over one token: whether each runs once
    # cannot be seen otherwise. Then four batches of neutral texts are read, and both texts.
    assert ran == [0, 1, 2] * 2 + [0, 1] * (4 + 2)


def test_the_model_stays_as_it_was():
    model = tiny("gpt2").train()
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="the model reads 64 at most"):
        SteeringVector.train(model, Letters(), [("a", " ".join("b" * 90))])
    SteeringVector.train(model, Letters(), PAIRS)
    with pytest.raises(KeyboardInterrupt):
        SteeringVector.train(model, Letters(), PAIRS, progress=stop)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def stop(*_):
    raise KeyboardInterrupt


def test_half_precision_is_read_as_it_is():
    model = tiny("llama", torch.bfloat16)
    vector = SteeringVector.train(model, Letters(), PAIRS, layers=1)
    # One rounding of bfloat16 is 2^-8 of the states, which are a few units long.
    np.testing.assert_allclose(vector.directions[1], differences(model, 1, "last").mean(0), atol=0.1)
    assert vector.provenance["dtype"] == "bfloat16"


def test_normalized_directions_have_norm_one():
    vector = SteeringVector.train(tiny("gpt2"), Letters(), PAIRS).with_norm(1.0)
    assert list(vector.norms.values()) == pytest.approx([1] * LAYERS, abs=1e-6)


@pytest.mark.parametrize("method", ["mean", "pca"])
@pytest.mark.parametrize("read", ["last", "mean", -2])
def test_texts_that_no_model_tells_apart_where_they_are_read(method, read):
    pairs = [("a b", "a b")] if read != -2 else [("a b c", "a b d"), ("b b c", "b b e")]
    with pytest.raises(InputError, match=f"with token_position={read!r} no pair is read at or after"):
        SteeringVector.train(tiny("gpt2"), Letters(), pairs, token_position=read, method=method)


@pytest.mark.parametrize("rounding", [0, 1e-7])
def test_differences_that_cancel_give_no_direction(rounding):
    model = tiny("gpt2")
    model.transformer.h[0].register_forward_hook(
        lambda _, inputs, output: output * (1 + rounding * torch.randn_like(output))
    )
    with pytest.raises(InputError, match="read alike at layer 0"):
        SteeringVector.train(model, Letters(), [("a b", "a c"), ("a c", "a b")])


def test_progress_and_provenance():
    model, told = tiny("gpt2"), []
    vector = SteeringVector.train(
        model, Letters(), PAIRS, batch_size=2, name="tiny", progress=lambda *state: told.append(state)
    )
    assert told == [("pairs", 2, 5), ("pairs", 4, 5), ("pairs", 5, 5)]
    origin = json.loads(json.dumps(vector.provenance))
    assert vector.model == "tiny"
    assert origin["pairs"] == 5 and origin["method"] == "mean" and origin["token_position"] == "last"
    assert {"numpy", "torch", "transformers"} <= origin["versions"].keys()
    other = SteeringVector.train(model, Letters(), [*PAIRS[:-1], ("y z", "z y")]).provenance
    assert other["pairs_sha256"] != origin["pairs_sha256"]
    assert other["config_sha256"] == origin["config_sha256"]
    llama = SteeringVector.train(tiny("llama"), Letters(), PAIRS).provenance
    assert llama["config_sha256"] != origin["config_sha256"]
    assert llama["pairs_sha256"] == origin["pairs_sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": []}, "no pairs"),
        ({"pairs": ["ab"]}, "not two texts"),
        ({"pairs": [("a", 1)]}, "not two texts"),
        ({"method": "median"}, '"mean" or "pca"'),
        ({"token_position": "first"}, "token_position = 'first' must be \"last\""),
        ({"token_position": 0}, "negative index"),
        ({"token_position": -4}, "positive text of pair 1, 'f g', has 3 tokens and none at"),
        ({"token_position": "answer", "pairs": [("a b", "a b c")]}, "positive text of pair 0"),
        ({"batch_size": 0}, "batch_size"),
        ({"layers": [LAYERS]}, "no layer 3"),
        ({"tokenizer": None}, "does not split texts"),
    ],
)
def test_wrong_options_are_refused(options, message):
    arguments = {"tokenizer": Letters(), "pairs": PAIRS, **options}
    with pytest.raises(InputError, match=message):
        SteeringVector.train(tiny("gpt2"), **arguments)


def test_a_state_that_is_no_number_is_named():
    model = tiny("gpt2")
    with torch.no_grad():
        model.transformer.wte.weight[20] = torch.nan
    with pytest.raises(InputError, match="layer 0 gives NaN or infinity for pair 1"):
        SteeringVector.train(model, Letters(), [PAIRS[0], PAIRS[3], PAIRS[1]])
    # Neutral texts have words of five letters. They come first, so that no pair is read in vain.
    with torch.no_grad():
        model.transformer.wte.weight[8] = torch.nan
    with pytest.raises(InputError, match="layer 0 gives NaN or infinity for a text"):
        SteeringVector.train(model, Letters(), PAIRS, progress=lambda *_: pytest.fail("a pair was read"))


def test_a_real_tokenizer_is_not_changed():
    transformers = pytest.importorskip("transformers")
    folder = embgeom.examples.pair().small
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer))
    pairs = [("Tom was very happy.", "Tom was sad."), ("She laughed with joy", "She cried and cried")]
    vector = SteeringVector.train(model, tokenizer, pairs)
    assert (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)) == before
    assert vector.layers == (0, 1, 2, 3) and vector.hidden_size == 128
    expected = 0
    with torch.no_grad():
        for sign, side in ((1, 0), (-1, 1)):
            for pair in pairs:
                out = model(**tokenizer(pair[side], return_tensors="pt"), output_hidden_states=True)
                expected = expected + sign * out.hidden_states[2][0, -1] / len(pairs)
    np.testing.assert_allclose(vector.directions[1], expected.numpy(), atol=1e-4)


def test_steering_by_a_trained_vector_raises_what_it_was_trained_on():
    """Unseen sad beginnings, steered, make happy words likelier than they were, and less so the other way."""
    transformers = pytest.importorskip("transformers")
    folder = embgeom.examples.pair().large
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    names = ("Tom", "Lily", "The dog", "Anna", "The girl", "Max")
    happy = ("was so happy and laughed", "smiled with joy", "had a lot of fun and was glad")
    sad = ("was so sad and cried", "wept with pain", "was hurt and felt bad")
    pairs = [(f"{n} {p}", f"{n} {q}") for n in names for p, q in zip(happy, sad, strict=True)]
    vector = SteeringVector.train(model, tokenizer, pairs, layers=[3], token_position="answer")
    words = {w: tokenizer(f" {w}", add_special_tokens=False)["input_ids"] for w in ("happy", "sad")}
    assert all(len(tokens) == 1 for tokens in words.values())
    prompts = ["Once upon a time there was a boy. He felt", "The cat looked out of the window. It was very"]

    def margin(scale):
        found = []
        for prompt in prompts:
            with torch.no_grad(), vector.apply(model, scale):
                logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
            found.append(float(logits[words["happy"][0]] - logits[words["sad"][0]]))
        return np.array(found)

    assert (margin(1) > margin(0)).all() and (margin(0) > margin(-1)).all()


def test_pairs_from_files(tmp_path):
    expected = [("I am glad.", "I am sad."), ('He said "hurray",\ntwice', "alas é")]
    items = [expected[0], {"positive": expected[1][0], "negative": expected[1][1], "more": 1}]
    (tmp_path / "a.json").write_text(json.dumps(items))
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(item, ensure_ascii=False) for item in items) + "\n\n", "utf-8"
    )
    (tmp_path / "a.csv").write_text(
        'positive,negative\nI am glad.,I am sad.\n"He said ""hurray"",\ntwice",alas é\n', "utf-8"
    )
    (tmp_path / "b.csv").write_text("﻿prompt,positive,negative\nI am ,glad.,sad.\n", "utf-8")
    for name in ("a.json", "a.jsonl", "a.csv"):
        assert read_pairs(tmp_path / name) == expected
    assert read_pairs(str(tmp_path / "b.csv")) == expected[:1]


def test_questions_and_answers(tmp_path):
    item = {"question": "Is {it}?", "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"}
    file = tmp_path / "generate.json"
    file.write_text(json.dumps([item]))
    assert read_pairs(file) == [("Is {it}?\n\nAnswer: (A)", "Is {it}?\n\nAnswer: (B)")]
    assert read_pairs(file, template="{{{answer}}} {question}") == [("{(A)} Is {it}?", "{(B)} Is {it}?")]
    assert read_pairs(file, template=lambda question, answer: answer + question[:2])[0] == ("(A)Is", "(B)Is")
    for template in ("{question}", "{question} {answer} {other}"):
        with pytest.raises(InputError, match="template"):
            read_pairs(file, template=template)


@pytest.mark.model
def test_the_data_of_contrastive_activation_addition():
    pairs = read_pairs(find_data("steering/caa/sycophancy/generate.json"))
    assert len(pairs) > 100
    assert all(p[:-2] == n[:-2] and {p[-3:], n[-3:]} == {"(A)", "(B)"} for p, n in pairs)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{}", "holds a dict, not a list"),
        ("a.json", "[]", "holds no pair"),
        ("a.json", "[", "is not valid JSON"),
        ("a.jsonl", '["a", "b"]\n["c"]', r"line 2 is \['c'\]"),
        ("a.json", '[{"positive": "a"}]', "item 1"),
        ("a.json", '[{"positive": "a", "negative": 3}]', "item 1"),
        ("a.json", '["ab"]', "item 1"),
        ("a.csv", "x,y\n1,2\n", "line 1"),
        ("a.txt", "a", "not from '.txt'"),
    ],
)
def test_files_that_hold_no_pairs(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(LoadError, match=message):
        read_pairs(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LoadError, match="No such file"):
        read_pairs(tmp_path / "none.json")
    (tmp_path / "latin.json").write_bytes(b'[["\xe9", "b"]]')
    with pytest.raises(LoadError, match="not in UTF-8"):
        read_pairs(tmp_path / "latin.json")
