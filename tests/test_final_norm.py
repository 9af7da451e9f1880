"""Final norms against the models that apply them: folded rows give the logits that the model's own norm "
"gives."""

import subprocess
import sys

import numpy as np
import pytest

import embgeom
from embgeom.loading.final_norm import load_final_norm

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


def test_a_model_without_a_known_name_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"weird.weight": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(embgeom.LoadError, match=r"FinalNorm\.of"):
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
        embgeom.FinalNorm.of(weight, kind)


def test_loading_a_norm_knows_nothing_of_maps():
    code = "import sys, embgeom.loading.final_norm; sys.exit('embgeom.emb2emb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert embgeom.FinalNorm is embgeom.emb2emb.FinalNorm is embgeom.final_norm.FinalNorm
