"""How and where a model is to compute, and models in GGUF files."""

import json

import numpy as np
import pytest
import torch

import embgeom
from embgeom import InputError, LoadError, SteeringVector
from embgeom.lm import language_model
from embgeom.steering import load_language_model
from tests.helpers.cli import run, status

pytest.importorskip("transformers", reason="transformers is not installed")
SMALL = embgeom.examples.pair().small
PAIRS = [("Tom was happy.", "Tom was sad."), ("They laughed.", "They cried.")]
SIZE, DEPTH, HEADS, HIDDEN = 32, 2, 2, 48


def test_what_a_model_computes_in():
    for dtype in ("bfloat16", torch.bfloat16):
        model, tokenizer = load_language_model("example:small", dtype=dtype, device="cpu")
        assert model.dtype == torch.bfloat16
        assert SteeringVector.train(model, tokenizer, PAIRS, layers=1).norms[1] > 0
    assert load_language_model("example:small").model.dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype = 'int8' is unknown: use float32"),
        ({"dtype": "half_of_it"}, "is unknown"),
        ({"device": "nowhere"}, "device = 'nowhere' cannot be used"),
        ({"device": "cpu", "device_map": "auto"}, "exclude each other"),
        ({"quantize": 5}, "quantize = 5 is not a number of bits"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        load_language_model("example:small", **options)


def test_layers_distributed_by_accelerate():
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    model, tokenizer = load_language_model("example:small", device_map={"": "cpu"}, dtype="float32")
    whole = load_language_model("example:small")
    ids = tokenizer("Tom came home.", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, whole.model(ids).logits)


def test_weights_rounded_while_they_are_loaded(monkeypatch):
    """The package that rounds them needs a GPU, so only what it is asked for is looked at."""
    model, asked, need = load_language_model("example:small").model, {}, language_model.need

    def needed(module, what, **options):
        if module != "bitsandbytes":
            return need(module, what, **options)
        return need("no_such_module" if lacking else "json", what, **options)

    monkeypatch.setattr(language_model, "need", needed)
    monkeypatch.setattr(
        language_model, "_loaded", lambda _tf, _where, options: asked.update(options) or model
    )
    monkeypatch.setattr("transformers.BitsAndBytesConfig", dict)
    lacking = True
    with pytest.raises(InputError, match=r'quantize=8 needs .*: pip install "embgeom\[quantize\]"'):
        load_language_model("example:small", quantize=8)
    lacking = False
    load_language_model("example:small", quantize=4, device="cpu")
    assert asked["quantization_config"] == {"load_in_4bit": True} and asked["dtype"] == "auto"
    assert asked["device_map"] == {"": torch.device("cpu")} and "device" not in asked


def gguf_model(path):
    """A random Llama in a GGUF file, with the small example's tokenizer; its weights as they were written."""
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    from tests.helpers.gguf import write_gguf

    settings = json.loads((SMALL / "tokenizer.json").read_text())["model"]
    tokens = sorted(settings["vocab"], key=settings["vocab"].get)
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in settings["merges"]]
    generator = np.random.default_rng(0)
    square, wide, tall = (SIZE, SIZE), (HIDDEN, SIZE), (SIZE, HIDDEN)
    shapes = {"token_embd": (len(tokens), SIZE), "output_norm": (SIZE,)}
    for layer in range(DEPTH):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in (
                ("attn_q", square), ("attn_k", square), ("attn_v", square), ("attn_output", square),
                ("ffn_gate", wide), ("ffn_up", wide), ("ffn_down", tall),
                ("attn_norm", (SIZE,)), ("ffn_norm", (SIZE,)),
            )
        }  # fmt: skip
    tensors = {
        f"{name}.weight": generator.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    keys = {
        "llama.block_count": DEPTH, "llama.context_length": 128, "llama.embedding_length": SIZE,
        "llama.feed_forward_length": HIDDEN, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0, "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.token_type": [3, *[1] * (len(tokens) - 1)],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 0,
    }  # fmt: skip
    write_gguf(path, tensors, keys=keys)
    return tensors


def test_a_model_in_a_gguf_file(tmp_path, capsys):
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "tiny.Q8_0.gguf"
    tensors = gguf_model(path)
    by_file, by_folder = load_language_model(path), load_language_model(folder)
    assert capsys.readouterr().err == ""
    for model, _ in (by_file, by_folder):
        assert model.dtype == torch.float32 and model.config.num_hidden_layers == DEPTH
        embedding = model.get_input_embeddings().weight.detach().numpy()
        np.testing.assert_array_equal(embedding, tensors["token_embd.weight"])
    vector = SteeringVector.train(*by_file, PAIRS, layers=1)
    assert vector.model == "tiny.Q8_0.gguf"
    # The matrix of the same file is of the same model.
    assert not vector.model_info.differs_from(embgeom.load(path).model_info)
    (tmp_path / "pairs.json").write_text(json.dumps(PAIRS))
    out = tmp_path / "v.gguf"
    run(
        "train-vector",
        path,
        "--pairs",
        tmp_path / "pairs.json",
        "--layers",
        "1",
        "--dtype",
        "bfloat16",
        "-o",
        out,
    )
    assert SteeringVector.load(out).provenance["dtype"] == "bfloat16"
    with pytest.raises(LoadError, match="2 GGUF models"):
        gguf_model(folder / "other.gguf")
        load_language_model(folder)


def test_a_gguf_file_on_the_hub(monkeypatch):
    asked = []
    monkeypatch.setattr(
        language_model, "_loaded", lambda _tf, where, options: asked.append((where, options["gguf_file"]))
    )
    with pytest.raises(LoadError, match=r"owner/repo/quants/model\.gguf cannot be loaded"):
        load_language_model("owner/repo/quants/model.gguf", local_files_only=True)
    assert asked == [("owner/repo", "quants/model.gguf")]


def test_an_option_of_a_command_that_is_wrong(tmp_path, capsys):
    SteeringVector({2: np.ones(128)}).save(tmp_path / "v.safetensors")
    asked = ("steer", "example:small", "--vector", tmp_path / "v.safetensors", "--prompt", "Tom")
    assert status(*asked, "--dtype", "int4") == 2
    assert "dtype = 'int4' is unknown" in capsys.readouterr().err


def test_a_gguf_file_is_not_quantized_again():
    with pytest.raises(InputError, match="quantize = 4 has no meaning for a GGUF file"):
        language_model._of_gguf(None, "model.gguf", 4)
