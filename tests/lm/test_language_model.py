"""Models that are loaded to be steered: those that see or hear, with code of their own, damaged ones."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import embgeom
from embgeom import InputError, LoadError, SteeringVector
from embgeom.steering import load_language_model
from tests.helpers.cli import commands, fill, status

tf = pytest.importorskip("transformers", reason="transformers is not installed")
SMALL = embgeom.examples.pair().small
PAIRS = [("Tom was happy.", "Tom was sad."), ("They laughed.", "They cried.")]
TEXT = {
    "vocab_size": 4096, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "bos_token_id": None, "eos_token_id": 0,
    "pad_token_id": 0,
}  # fmt: skip
SEES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
SQUARE = {"image_size": 32, "patch_size": 16}


def mistral3():
    text = tf.MistralConfig(**TEXT, head_dim=8)
    vision = tf.PixtralVisionConfig(**SEES, **SQUARE, head_dim=8)
    return tf.Mistral3ForConditionalGeneration(
        tf.Mistral3Config(text_config=text, vision_config=vision, image_token_id=4095)
    )


def llava():
    vision = tf.CLIPVisionConfig(**SEES, **SQUARE)
    return tf.LlavaForConditionalGeneration(
        tf.LlavaConfig(text_config=tf.LlamaConfig(**TEXT), vision_config=vision, image_token_index=4095)
    )


def gemma3():
    text = tf.Gemma3TextConfig(**TEXT, head_dim=8)
    vision = tf.SiglipVisionConfig(**SEES, **SQUARE)
    config = tf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return tf.Gemma3ForConditionalGeneration(config)


def qwen2_audio():
    config = tf.Qwen2AudioConfig(
        text_config={"model_type": "qwen2", **TEXT},
        audio_config={
            "model_type": "qwen2_audio_encoder", "d_model": 16, "encoder_layers": 1,
            "encoder_attention_heads": 2, "encoder_ffn_dim": 24,
        },
        audio_token_index=4095,
    )  # fmt: skip
    return tf.Qwen2AudioForConditionalGeneration(config)


@pytest.mark.parametrize("make", [mistral3, llava, gemma3, qwen2_audio])
def test_a_model_that_sees_or_hears_is_steered(make, tmp_path):
    torch.manual_seed(0)
    made = make().eval()
    made.save_pretrained(tmp_path)
    tokenizer = tf.AutoTokenizer.from_pretrained(SMALL)
    tokenizer.save_pretrained(tmp_path)
    model, again = load_language_model(tmp_path)
    assert type(model) is type(made)
    ids = again("Tom came home.", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, made(ids).logits)
        vector = SteeringVector.train(model, again, PAIRS, layers=1)
        expected = SteeringVector.train(made, tokenizer, PAIRS, layers=1)
        np.testing.assert_allclose(vector.directions[1], expected.directions[1], rtol=1e-5, atol=1e-7)
        with vector.apply(model, 20):
            assert not torch.allclose(model(ids).logits, made(ids).logits)


OWN = """
import transformers as tf
class Config(tf.LlamaConfig):
    model_type = "mine_own"
class Model(tf.LlamaForCausalLM):
    config_class = Config
print("the code ran")
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A model with code of its own, which says so on standard output."""
    folder = tmp_path_factory.mktemp("models") / "own"
    torch.manual_seed(0)
    tf.LlamaForCausalLM(tf.LlamaConfig(**TEXT)).save_pretrained(folder)
    tf.AutoTokenizer.from_pretrained(SMALL).save_pretrained(folder)
    (folder / "own_model.py").write_text(OWN)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "own_model.Config", "AutoModelForCausalLM": "own_model.Model"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "mine_own", "architectures": ["Model"], "auto_map": classes})
    )
    return folder


def test_code_of_a_model_is_run_only_if_it_is_asked_for(own, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(LoadError, match=r"trust_remote_code=True \(--trust-remote-code\)"):
        load_language_model(own)
    assert capsys.readouterr() == ("", "")
    model, _ = load_language_model(own, trust_remote_code=True)
    assert type(model).__name__ == "Model" and "the code ran" in capsys.readouterr().out


def test_code_of_a_tokenizer_is_not_run_either(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit(3)")
    # transformers reads its tokenizer.json instead.
    tokenizer = load_language_model(folder).tokenizer
    assert tokenizer("Tom")["input_ids"] == load_language_model(SMALL).tokenizer("Tom")["input_ids"]


@pytest.mark.slow
def test_the_command_line_asks_nothing(own, tmp_path):
    SteeringVector({1: np.ones(32)}).save(tmp_path / "v.safetensors")
    asked = [sys.executable, "-m", "embgeom", "steer", str(own), "--vector", str(tmp_path / "v.safetensors")]
    asked += ["--prompt", "Tom", "--max-new-tokens", "2"]
    # An open pipe for an answer would be waited for.
    with subprocess.Popen(
        asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.wait(timeout=60) == 2
        assert process.stdout.read() == ""
        error = process.stderr.read()
    assert "--trust-remote-code" in error and error.count("\n") == 1


@pytest.mark.slow
def test_every_command_that_runs_a_model_takes_the_option(own, tmp_path_factory, monkeypatch, capsys):
    folder = fill(tmp_path_factory.mktemp("steering"))
    monkeypatch.setenv("HF_HOME", str(folder))
    # A vector of another size would be refused before the model is loaded.
    SteeringVector({0: np.ones(32)}).save(folder / "own.safetensors")
    given = {"example:small": own, folder / "small.safetensors": folder / "own.safetensors"}
    for asked in commands(folder).values():
        named = [given.get(argument, argument) for argument in asked]
        assert status(*named) == 2 and "--trust-remote-code" in capsys.readouterr().err
        status(*named, "--trust-remote-code")
        assert "--trust-remote-code" not in capsys.readouterr().err


def edited(tmp_path, file, **changes):
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("tokenizer_config.json", {"model_max_length": "x"}, "cannot be loaded"),
        ("config.json", {"attn_pdrop": float("nan")}, "attn_pdrop is NaN"),
        ("config.json", {"embd_pdrop": 7}, "cannot be loaded"),
        ("config.json", {"n_layer": 5}, r"lacks the weights transformer\.h\.4\.attn"),
        ("config.json", {"model_type": "t5"}, "not a causal language model that this version"),
        ("config.json", {"model_type": "no_such_type"}, "cannot be loaded"),
    ],
)
def test_damaged_models(tmp_path, file, changes, message):
    with pytest.raises(LoadError, match=message):
        load_language_model(edited(tmp_path, file, **changes))


def test_names_that_no_model_has():
    for name in ("a\0b", "example:huge"):
        with pytest.raises(LoadError):
            load_language_model(name)
    with pytest.raises(InputError, match="None is not the name of a model"):
        load_language_model(None)


def test_texts_that_are_no_unicode():
    model, tokenizer = load_language_model("example:small")
    with pytest.raises(InputError, match=r"negative text of pair 1 .* not valid Unicode"):
        SteeringVector.train(model, tokenizer, [PAIRS[0], ("a", "\ud800")])
    vector, mood = SteeringVector({2: np.ones(128)}), embgeom.evaluation.WordLogRatio([" happy"], [" sad"])
    options = embgeom.evaluation.EvaluateOptions(random=0)
    for texts in ({"prompts": ["\udcff"]}, {"prompts": ["Tom"], "neutral": ["\udcff so"]}):
        with pytest.raises(InputError, match="not valid Unicode at character 0"):
            embgeom.evaluate(model, tokenizer, vector, mood, options=options, **texts)


def test_prompts_of_a_terminal_that_are_no_utf8(tmp_path, capsys):
    SteeringVector({2: np.ones(128)}).save(tmp_path / "v.safetensors")
    # What Python makes of a byte that is no UTF-8 on the command line.
    asked = ("steer", "example:small", "--vector", tmp_path / "v.safetensors", "--prompt", "Tom \udcff")
    assert status(*asked) == 2
    error = capsys.readouterr().err
    assert "not valid Unicode at character 4" in error and error.count("\n") == 1
    (tmp_path / "items.json").write_text("[" * 200_000)
    for texts in (
        ("--questions", tmp_path / "items.json"),
        ("--prompts", "a\0b", "--positive", " a", "--negative", " b"),
    ):
        assert status("evaluate", *asked[1:4], *texts) == 2
        assert capsys.readouterr().err.count("\n") == 1
