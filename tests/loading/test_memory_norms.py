"""The final norm of a running model: what the module does to vectors, whatever its class is called."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom.errors import InputError, LoadError

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 2}
NORMS = {
    "LlamaForCausalLM": ("LlamaConfig", {}),
    "GemmaForCausalLM": ("GemmaConfig", {"head_dim": 8}),
    "CohereForCausalLM": ("CohereConfig", {}),
    "NemotronForCausalLM": ("NemotronConfig", {}),
    "OlmoForCausalLM": ("OlmoConfig", {}),
    "Lfm2ForCausalLM": ("Lfm2Config", {}),
    "GPTNeoXForCausalLM": ("GPTNeoXConfig", {}),
    "T5ForConditionalGeneration": ("T5Config", {"d_model": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2}),
}
PATHS = {
    "T5ForConditionalGeneration": "decoder.final_layer_norm",
    "GPTNeoXForCausalLM": "gpt_neox.final_layer_norm",
    "Lfm2ForCausalLM": "model.embedding_norm",
}


@pytest.mark.parametrize("kind", [*NORMS, "bfloat16"])
def test_the_final_norm_is_what_the_running_module_does(kind):
    config, extra = NORMS.get(kind, NORMS["GemmaForCausalLM"])
    sizes = {"vocab_size": 40} if kind.startswith("T5") else SIZES
    name = kind if kind in NORMS else "GemmaForCausalLM"
    torch.manual_seed(0)
    model = getattr(transformers, name)(getattr(transformers, config)(**sizes, **extra)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    model = model.bfloat16() if kind == "bfloat16" else model
    norm = embgeom.load_final_norm(model)
    module = model.get_submodule(PATHS.get(name, "model.norm")).float()
    vectors = torch.randn(3, 8) + 0.5
    given = vectors.double().numpy()
    given = given - given.mean(1, keepdims=True) if norm.centers else given
    wanted = given / np.sqrt((given**2).mean(1, keepdims=True)) * norm.weight
    got = module(vectors).detach().double().numpy()
    got = got - (module.bias.detach().double().numpy() if getattr(module, "bias", None) is not None else 0)
    assert np.allclose(got, wanted, atol=1e-3)


def test_final_norms_that_cannot_be_told():
    bert = transformers.BertConfig(
        vocab_size=40, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(LoadError, match=r"transforms and normalizes .cls\.pred.*FinalNorm\.from_weights"):
        embgeom.load_final_norm(transformers.BertForMaskedLM(bert))
    bart = transformers.BartConfig(vocab_size=40, d_model=8, encoder_layers=1, decoder_layers=1)
    bart.encoder_attention_heads = bart.decoder_attention_heads = 2
    with pytest.raises(LoadError, match=r"beside its layers there is none.*FinalNorm\.from_weights"):
        embgeom.load_final_norm(transformers.BartForConditionalGeneration(bart))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES))
    model.model.norm.forward = lambda x: x * 2
    with pytest.raises(LoadError, match="a norm of an unknown kind"):
        embgeom.load_final_norm(model)
    with pytest.raises(InputError, match="revision='main' has no meaning"):
        embgeom.load_final_norm(model, revision="main")


@pytest.mark.parametrize("what", [None, {}, b"x", transformers.LlamaConfig(), transformers.LlamaForCausalLM])
def test_what_has_no_norm_says_so(what):
    with pytest.raises(InputError, match="is not a model"):
        embgeom.load_final_norm(what)
