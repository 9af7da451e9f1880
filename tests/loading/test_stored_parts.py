"""Matrices that are not stored as plain numbers, and heads of other forms: named, never taken for tied."""

import numpy as np
import pytest

from embgeom.errors import LoadError
from embgeom.loading import load
from tests.helpers.loading import matrix, tokenizer, words, write_folder, write_raw_safetensors

V, D = 40, 8
EMBED, HEAD = matrix(V, D, 1), matrix(V, D, 2)
TOKENS = tokenizer(words(V))
TIED = {"model_type": "llama", "tie_word_embeddings": True}


@pytest.mark.parametrize("which", ["input", "output"])
@pytest.mark.parametrize("config", [{}, TIED, {"model_type": "llama"}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize(
    "parts",
    [
        ("qweight", "qzeros", "scales", "g_idx"),
        ("weight", "SCB", "weight_format"),
        ("weight", "weight.absmax", "weight.quant_map", "weight.quant_state.bitsandbytes__nf4"),
        ("weight", "weight_scale_inv"),
        ("weight", "weight_scale", "weight_scale_2", "input_scale"),
        ("weight_packed", "weight_scale", "weight_shape"),
        ("weight_blocks", "weight_scales"),
        ("weight", "scales", "biases"),
        ("W_q", "meta"),
        ("codebooks", "codes", "scales"),
        ("weight._data", "weight._scale"),
        ("_weight_qdata", "_weight_scale"),
    ],
)
def test_a_quantized_matrix_is_named(tmp_path, which, config, parts):
    own, other = ("embed_tokens", "lm_head") if which == "input" else ("lm_head", "model.embed_tokens")
    tensors = {f"{other}.weight": EMBED} | {f"{own}.{part}": np.ones((V, 1), np.float32) for part in parts}
    folder = write_folder(tmp_path, tensors, config, TOKENS)
    side = "input embedding" if which == "input" else "output matrix"
    with pytest.raises(LoadError, match=rf"the {side} is stored quantized, as {own}\..*original checkpoint"):
        load(folder, which)
    kept = load(folder, "output" if which == "input" else "input")
    np.testing.assert_array_equal(kept.matrix, EMBED)
    assert kept.provenance.tied is False


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("lm_head_blocks", "lm_head_scales"), "stored quantized, as lm_head_blocks"),
        (("lm_head.weight_orig", "lm_head.weight_mask"), "stored in parts, as lm_head.weight_orig"),
        (("my_head.qweight", "my_head.scales"), r"a name that is not known, my_head\.qweight"),
        (("lm_head.weight", "lm_head.s1"), r"beside the output matrix stands lm_head\.s1"),
    ],
)
def test_a_head_in_other_forms_is_not_tied(tmp_path, parts, message):
    tensors = {"model.embed_tokens.weight": EMBED} | dict.fromkeys(parts, HEAD)
    folder = write_folder(tmp_path, tensors, {"model_type": "mine"}, TOKENS)
    with pytest.raises(LoadError, match=message):
        load(folder, "output")
    assert load(folder).provenance.tied is False
    if "lm_head.weight" in parts:
        np.testing.assert_array_equal(load(folder, "output", tensor="lm_head.weight").matrix, HEAD)


@pytest.mark.parametrize(
    "name", ["output_projection", "proj_out", "cls.predictions.decoder", "pred_layer.proj", "lm_loss"]
)
def test_a_head_that_another_family_names_is_not_tied(tmp_path, name):
    tensors = {"model.embed_tokens.weight": EMBED, f"{name}.weight": HEAD}
    folder = write_folder(tmp_path, tensors, {"model_type": "mine"}, TOKENS)
    try:
        found = load(folder, "output").matrix
    except LoadError as error:
        assert f"{name}.weight" in str(error)
    else:
        np.testing.assert_array_equal(found, HEAD)
    tensors = {"lm_head.weight": HEAD, "transformer.tokens_embed.weight": EMBED}
    folder = write_folder(tmp_path, tensors, {"model_type": "mine"}, TOKENS)
    with pytest.raises(LoadError, match="tokens_embed"):
        load(folder)


def test_a_head_of_integers_is_named(tmp_path):
    folder = write_folder(tmp_path, {"model.embed_tokens.weight": EMBED}, {"model_type": "llama"}, TOKENS)
    header = {
        "lm_head.weight": {"dtype": "F8_E4M3", "shape": [V, D], "data_offsets": [0, V * D]},
        "model.embed_tokens.weight": {"dtype": "F32", "shape": [V, D], "data_offsets": [V * D, 5 * V * D]},
    }
    write_raw_safetensors(folder / "model.safetensors", header, bytes(V * D) + EMBED.tobytes())
    with pytest.raises(LoadError, match=r"lm_head\.weight.*stored as F8_E4M3.*original checkpoint"):
        load(folder, "output")


@pytest.mark.parametrize(
    "parts",
    [
        ("base_layer.weight", "lora_A.default.weight", "lora_B.default.weight"),
        ("base_layer.weight", "lora_embedding_A.default", "lora_embedding_B.default"),
        ("weight", "lora_A.weight", "lora_B.weight"),
        ("original_module.weight", "modules_to_save.default.weight"),
    ],
)
@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_an_adapted_matrix_is_named(tmp_path, parts, module):
    which = "output" if module == "lm_head" else "input"
    other = "model.embed_tokens.weight" if module == "lm_head" else "lm_head.weight"
    tensors = {other: EMBED} | {f"base_model.model.{module}.{part}": HEAD for part in parts}
    with pytest.raises(LoadError, match=r"stored beside an adapter's tensors.*merge_and_unload"):
        load(write_folder(tmp_path, tensors, TIED, TOKENS), which)


def test_a_matrix_in_parts_is_named(tmp_path):
    tensors = {"model.embed_tokens.weight": EMBED, "lm_head.weight_g": HEAD[:, :1], "lm_head.weight_v": HEAD}
    with pytest.raises(LoadError, match=r"stored in parts, as lm_head\.weight_g, lm_head\.weight_v"):
        load(write_folder(tmp_path, {n: t.copy() for n, t in tensors.items()}, {}, TOKENS), "output")
