"""Layers in memory whose weight is not what their field holds: the matrix that runs, or an error."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

import embgeom
from embgeom.errors import InputError
from tests.helpers.loading import words

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")


def untied():
    sizes = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads)).eval()


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_weights_computed_before_each_pass_are_not_those_of_an_earlier_one(norm):
    with pytest.warns(FutureWarning) if norm == "weight_norm" else nullcontext():
        model = untied()
        getattr(torch.nn.utils, norm)(model.lm_head)
    with pytest.raises(InputError, match="the output layer computes its weight before each pass"):
        embgeom.load(model, which="output", vocabulary=words(40))
    model = untied()
    getattr(torch.nn.utils.parametrizations, norm)(model.lm_head)
    right = model.lm_head(torch.eye(8)).T.detach().numpy()
    loaded = embgeom.load(model, which="output", vocabulary=words(40))
    np.testing.assert_allclose(loaded.matrix, right, rtol=1e-5)


def test_a_layer_that_keeps_its_weight_transposed():
    model = untied()
    model.lm_head = transformers.pytorch_utils.Conv1D(40, 8)
    right = model.lm_head(torch.eye(8)).T.detach().numpy()
    assert np.array_equal(embgeom.load(model, which="output", vocabulary=words(40)).matrix, right)
