"""Which sides a model has, and which of them a tensor is that was asked for by its name."""

import numpy as np
import pytest

from embgeom.errors import LoadError
from embgeom.loading import load
from tests.helpers.loading import matrix, tokenizer, words, write_folder

E, H = matrix(40, 8), matrix(40, 8, 1)


@pytest.mark.parametrize(
    "name",
    ["BertModel", "Qwen3Model", "T5EncoderModel", "BertForSequenceClassification", "ErnieForMultipleChoice"],
)
def test_a_model_without_a_head_has_no_output_matrix(tmp_path, name):
    config = {"model_type": "bert", "architectures": [name]}
    folder = write_folder(
        tmp_path / "m", {"embeddings.word_embeddings.weight": E}, config, tokenizer(words(40))
    )
    assert np.array_equal(load(folder).matrix, E)
    with pytest.raises(LoadError, match=f"is of a {name}, which has no output matrix"):
        load(folder, "output")


@pytest.mark.parametrize(
    "name",
    ["GPT2LMHeadModel", "XLMWithLMHeadModel", "BertForMaskedLM", "GPT2DoubleHeadsModel", "MarianMTModel"],
)
def test_a_model_with_a_head_is_tied(tmp_path, name):
    config = {"model_type": "gpt2", "architectures": [name]}
    folder = write_folder(tmp_path / "m", {"wte.weight": E}, config, tokenizer(words(40)))
    assert np.array_equal(load(folder, "output").matrix, E)


def test_a_tensor_asked_for_says_which_matrix_it_is(tmp_path):
    tensors = {"model.embed_tokens.weight": E, "lm_head.weight": H, "score.weight": E[::-1].copy()}
    folder = write_folder(tmp_path / "m", tensors, {"model_type": "llama"}, tokenizer(words(40)))
    wanted = {"lm_head.weight": "output", "model.embed_tokens.weight": "input", "score.weight": "input"}
    assert {name: load(folder, tensor=name).which for name in wanted} == wanted
    assert load(folder, "input", tensor="lm_head.weight").which == "input"


def test_a_matrix_on_its_side_is_told():
    for vocabulary in (words(40), {word: row for row, word in enumerate(words(40))}):
        with pytest.raises(LoadError, match=r"transposed, it would fit"):
            load(E.T, vocabulary=vocabulary)
