"""Final norms against the models that apply them: folded rows give the logits that the model's own norm "
"gives."""

import subprocess
import sys

import numpy as np
import pytest

import embgeom
from embgeom.loading.final_norm import load_final_norm
from tests.helpers.loading import matrix, write_folder

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES = {
    "gpt2": ("GPT2", GPT2, "transformer.ln_f"),
    "llama": ("Llama", SMALL, "model.norm"),
    "gpt_neox": ("GPTNeoX", SMALL, "gpt_neox.final_layer_norm"),
    "gemma": ("Gemma", SMALL, "model.norm"),
    "gemma2": ("Gemma2", SMALL, "model.norm"),
    "cohere": ("Cohere", SMALL, "model.norm"),
    "nemotron": ("Nemotron", SMALL, "model.norm"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_is_what_the_model_does(family, tmp_path):
    name, options, path = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    norm = model.get_submodule(path)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(16) - 0.3)
        if getattr(norm, "bias", None) is not None:
            norm.bias.zero_()
    model.save_pretrained(tmp_path)
    found = load_final_norm(tmp_path)
    h = torch.randn(7, 16)
    with torch.no_grad():
        expected = norm(h).double().numpy() @ model.get_output_embeddings().weight.double().numpy().T
    plain = h.double().numpy()
    if found.centers:
        plain = plain - plain.mean(axis=1, keepdims=True)
    plain = plain / np.sqrt(np.square(plain).mean(axis=1, keepdims=True))
    rows = model.get_output_embeddings().weight.detach().double().numpy()
    np.testing.assert_allclose(plain @ found.fold(rows).T, expected, rtol=1e-3, atol=1e-4)


ONE = np.ones(8, np.float32)


def norm_of(folder, tensors, config):
    rows = {"model.embed_tokens.weight": matrix(40, 8)}
    return load_final_norm(write_folder(folder, {**rows, **tensors}, config))


@pytest.mark.parametrize(
    ("model_type", "name", "other"),
    [
        ("mimo", "model.norm", "model.mtp_layers.0.final_layernorm"),
        ("llama", "model.norm", "mtp.norm"),
        ("llama", "model.language_model.norm", "mtp.norm"),
        ("deepseek_v3", "model.norm", "model.layers.61.shared_head.norm"),
        ("mistral3", "language_model.model.norm", "multi_modal_projector.norm"),
        ("qwen3_vl", "model.language_model.norm", "model.visual.merger.norm"),
        ("qwen2_5_omni", "thinker.model.norm", "talker.model.norm"),
        ("lfm2", "model.embedding_norm", "model.norm"),
        ("lfm3", "model.embedding_norm", "model.norm"),
        ("bart", "decoder.layers.11.final_layer_norm", "decoder.layers.9.final_layer_norm"),
        ("t5", "decoder.final_layer_norm", "encoder.final_layer_norm"),
        ("mbart", "model.decoder.layer_norm", "model.encoder.layer_norm"),
        ("whisper", "model.decoder.layer_norm", "model.encoder.layer_norm"),
        ("xglm", "model.layer_norm", "model.layers.0.final_layer_norm"),
        ("biogpt", "biogpt.layer_norm", "biogpt.layers.0.final_layer_norm"),
        ("modernbert", "head.norm", "model.final_norm"),
        ("bert", "cls.predictions.transform.LayerNorm", "bert.embeddings.LayerNorm"),
    ],
)
def test_the_norm_before_the_head_and_no_other(tmp_path, model_type, name, other):
    tensors = {f"{other}.weight": 2 * ONE, f"{name}.weight": ONE}
    assert (norm_of(tmp_path, tensors, {"model_type": model_type}).weight == 1).all()


PLUS_ONE = (
    "gemma gemma2 gemma3 gemma3_text paligemma qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_next step3p7 "
    "minimax_m3_vl_text minimax_m3_vl t5gemma t5gemma2 vaultgemma nemotron"
)


@pytest.mark.parametrize("model_type", PLUS_ONE.split())
def test_one_plus_weight(tmp_path, model_type):
    config = {"model_type": model_type}
    assert (norm_of(tmp_path / "a", {"model.norm.weight": 0 * ONE}, config).weight == 1).all()
    with pytest.warns(embgeom.EmbgeomWarning, match="around 1, so that 1 \\+ weight is around 2"):
        norm_of(tmp_path / "b", {"model.norm.weight": ONE - 0.03}, config)


@pytest.mark.parametrize("model_type", ["cohere2_moe", "cohere", "aya_vision", "stablelm", "starcoder2"])
def test_layer_norms_without_a_bias_center(tmp_path, model_type):
    assert norm_of(tmp_path, {"model.norm.weight": ONE}, {"model_type": model_type}).centers


@pytest.mark.parametrize(
    ("model_type", "centers"), [("olmo", True), ("nanochat", False), ("hrm_text", False)]
)
def test_norms_without_a_weight_multiply_with_ones(tmp_path, model_type, centers):
    norm = norm_of(tmp_path, {}, {"model_type": model_type, "hidden_size": 8})
    assert norm.weight.tolist() == [1] * 8 and norm.centers is centers


def test_the_text_model_decides_what_the_norm_computes(tmp_path):
    config = {"model_type": "llava", "text_config": {"model_type": "gemma2"}}
    assert (norm_of(tmp_path, {"language_model.model.norm.weight": 0 * ONE}, config).weight == 1).all()


def test_a_type_that_is_not_known_is_told(tmp_path):
    with pytest.warns(embgeom.EmbgeomWarning, match="'mine' is not known.*taken for an RMSNorm"):
        assert not norm_of(tmp_path / "a", {"model.norm.weight": ONE}, {"model_type": "mine"}).centers
    tensors = {"model.norm.weight": ONE, "model.norm.bias": ONE}
    assert norm_of(tmp_path / "b", tensors, {"model_type": "mine"}).centers


def test_several_norms_that_may_be_the_final_one(tmp_path):
    tensors = {"a.norm.weight": ONE, "b.norm.weight": ONE}
    with pytest.raises(embgeom.LoadError, match=r"2 norms that may be the final one: a\.norm\.weight, b"):
        norm_of(tmp_path, tensors, {"model_type": "mine"})


@pytest.mark.parametrize(
    ("config", "tensors", "why"),
    [
        (
            {"model_type": "opt"},
            {"model.decoder.layers.0.final_layer_norm.weight": ONE},
            "do_layer_norm_before",
        ),
        ({"model_type": "ultrabert"}, {"model.norm.weight": ONE}, "no norm feeds the output matrix"),
        (
            {"model_type": "opt", "hidden_size": 8, "word_embed_proj_dim": 4},
            {"model.decoder.final_layer_norm.weight": ONE},
            "which the model projects to 4",
        ),
    ],
)
def test_models_whose_norm_cannot_be_folded(tmp_path, config, tensors, why):
    with pytest.raises(embgeom.LoadError, match=why):
        norm_of(tmp_path, tensors, config)


def test_a_model_without_a_known_name_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weird.weight": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(embgeom.LoadError, match=r"FinalNorm\.from_weights"):
        load_final_norm(tmp_path)


@pytest.mark.parametrize(
    ("weight", "kind", "why"),
    [
        ("x", "rms_norm", "must hold real numbers"),
        ([[1.0]], "rms_norm", r"\(1, 1\)"),
        ([], "rms_norm", r"\(0,\)"),
        ([np.nan], "rms_norm", "NaN"),
        ([1.0], "norm", "kind = 'norm'"),
        ([1.0], ["rms_norm"], "is no kind"),
    ],
)
def test_weights_that_are_none(weight, kind, why):
    with pytest.raises(embgeom.InputError, match=why):
        embgeom.FinalNorm.from_weights(weight, kind)


def test_loading_a_norm_knows_nothing_of_maps():
    code = "import sys, embgeom.loading.final_norm; sys.exit('embgeom.emb2emb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert embgeom.FinalNorm.__module__.startswith("embgeom.embeddings.")


@pytest.mark.parametrize(("weight", "bias"), [("gamma", "beta"), ("g", "b"), ("weight", "bias"), ("w", "b")])
def test_other_names_of_a_weight_and_its_bias(tmp_path, weight, bias):
    tensors = {f"model.norm.{weight}": ONE * 2, f"model.norm.{bias}": ONE}
    norm = norm_of(tmp_path, tensors, {"model_type": "mine"})
    np.testing.assert_array_equal(norm.weight, ONE * 2)
    assert norm.centers


@pytest.mark.parametrize("model_type", ["olmo", "nanochat", "hrm_text"])
def test_a_stored_weight_that_the_running_model_has_not(tmp_path, model_type):
    tensors = {"model.norm.weight": ONE * 2, "model.final_norm.weight": ONE * 2}
    norm = norm_of(tmp_path, tensors, {"model_type": model_type, "hidden_size": 8})
    np.testing.assert_array_equal(norm.weight, ONE)


@pytest.mark.parametrize("other", ["embedding_norm", "final_norm", "final_layernorm", "ln_f"])
def test_norms_of_several_usual_names_in_a_type_that_is_not_known(tmp_path, other):
    tensors = {"model.norm.weight": ONE, f"model.{other}.weight": 2 * ONE}
    with pytest.raises(embgeom.LoadError, match="2 norms that may be the final one"):
        norm_of(tmp_path, tensors, {"model_type": "mine"})
    with pytest.raises(embgeom.LoadError, match="no final norm under a known name"):
        norm_of(tmp_path, {"model.embedding_norm.weight": ONE}, {"model_type": "llama"})


@pytest.mark.parametrize(
    ("model_class", "weight"),
    [("Gemma2ForCausalLM", 4), ("Qwen3_5MoeForCausalLM", 4), ("LlamaForCausalLM", 3), ("OlmoForCausalLM", 1)],
)
def test_the_class_tells_the_family_where_no_model_type_does(tmp_path, model_class, weight):
    norm = norm_of(
        tmp_path, {"model.norm.weight": 3 * ONE}, {"architectures": [model_class], "hidden_size": 8}
    )
    np.testing.assert_array_equal(norm.weight, weight * ONE)
