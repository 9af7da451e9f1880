"""The right tensor of each architecture, from one file or from shards, and from the two real models."""

import doctest
import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from tests.helpers.loading import data, matrix, tokenizer, words, write_folder, write_shards

V, D = 40, 6
EMBED, HEAD, OTHER = matrix(V, D, 1), matrix(V, D, 2), matrix(3 * D, D, 3)
NORM = np.ones(D, dtype=np.float32)

UNTIED = {
    "llama": ("model.embed_tokens.weight", "lm_head.weight"),
    "gpt_neox": ("gpt_neox.embed_in.weight", "embed_out.weight"),
    "gpt2": ("transformer.wte.weight", "lm_head.weight"),
    "bert": ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    "opt": ("model.decoder.embed_tokens.weight", "lm_head.weight"),
    "t5": ("shared.weight", "lm_head.weight"),
    "internlm2": ("model.tok_embeddings.weight", "output.weight"),
    "gemma3": ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
    "mamba": ("backbone.embeddings.weight", "lm_head.weight"),
}


@pytest.mark.parametrize("model_type", UNTIED)
@pytest.mark.parametrize("which", ["input", "output"])
def test_known_names(tmp_path, model_type, which):
    input_name, output_name = UNTIED[model_type]
    config = {"model_type": model_type, "tie_word_embeddings": False, "vocab_size": V, "hidden_size": D}
    folder = write_folder(tmp_path / "m", {input_name: EMBED, "mlp.weight": OTHER, output_name: HEAD}, config)
    loaded = load(folder, which)
    np.testing.assert_array_equal(loaded.matrix, EMBED if which == "input" else HEAD)
    assert loaded.provenance.tensor == UNTIED[model_type][which == "output"]
    assert not loaded.provenance.tied and not loaded.provenance.notes
    assert (loaded.which, loaded.name) == (which, "m")


@pytest.mark.parametrize("held", ["model.embed_tokens.weight", "lm_head.weight"])
@pytest.mark.parametrize("which", ["input", "output"])
def test_tied_with_only_one_side_in_the_file(tmp_path, held, which):
    folder = write_folder(tmp_path, {held: EMBED}, {"model_type": "llama", "tie_word_embeddings": True})
    loaded = load(folder, which)
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert loaded.provenance.tied and loaded.provenance.tensor == held


def test_alias_in_the_metadata_ties(tmp_path):
    alias = {"format": "pt", "model.embed_tokens.weight": "lm_head.weight"}
    folder = write_folder(tmp_path, {"lm_head.weight": HEAD}, metadata=alias)
    for which in ("input", "output"):
        assert load(folder, which).provenance.tied
    np.testing.assert_array_equal(load(folder, tensor="model.embed_tokens.weight").matrix, HEAD)


def test_silent_config_ties_where_the_file_holds_one(tmp_path):
    loaded = load(write_folder(tmp_path / "a", {"wte.weight": EMBED}, {"model_type": "mine"}), "output")
    assert loaded.provenance.tied and "does not say" in loaded.provenance.notes[0]
    known = load(write_folder(tmp_path / "b", {"wte.weight": EMBED}, {"model_type": "gpt2"}), "output")
    assert known.provenance.tied and not known.provenance.notes


@pytest.mark.parametrize("config", [{"tie_word_embeddings": False}, {"model_type": "llama"}])
def test_untied_without_output_matrix(tmp_path, config):
    folder = write_folder(tmp_path, {"model.embed_tokens.weight": EMBED}, config)
    with pytest.raises(LoadError, match=r"no output matrix, only model.embed_tokens.weight.*tensor=NAME"):
        load(folder, "output")


def test_nested_text_config(tmp_path):
    config = {
        "vocab_size": 9,
        "text_config": {"vocab_size": V, "hidden_size": D, "tie_word_embeddings": True},
    }
    tensors = {"vision_tower.embed_tokens.weight": OTHER, "language_model.model.embed_tokens.weight": EMBED}
    loaded = load(write_folder(tmp_path, tensors, config, tokenizer(words(V))), "output")
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert loaded.provenance.tied and not loaded.provenance.notes


def test_factorised_embedding_keeps_its_own_width_and_says_so(tmp_path):
    config = {"hidden_size": 2 * D, "word_embed_proj_dim": D, "vocab_size": V}
    notes = load(
        write_folder(tmp_path, {"model.decoder.embed_tokens.weight": EMBED}, config)
    ).provenance.notes
    assert len(notes) == 1 and f"of {D} columns, and its residual stream, of hidden size {2 * D}" in notes[0]


def test_disagreement_with_config_is_noted(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": EMBED}, {"n_embd": 2 * D, "vocab_size": V - 1})
    assert load(folder).provenance.notes == (
        f"the tensor has {V} rows, config.json says {V - 1}",
        f"the tensor has {D} columns, config.json says {2 * D}",
    )


def test_decoder_before_encoder(tmp_path):
    tensors = {"encoder.embed_tokens.weight": HEAD, "decoder.embed_tokens.weight": EMBED}
    np.testing.assert_array_equal(load(write_folder(tmp_path, tensors)).matrix, EMBED)


def test_unknown_name_is_found_by_shape(tmp_path):
    tensors = {"odd.name": EMBED, "mlp": OTHER, "norm": NORM, "layers.0.embed_tokens.weight": OTHER}
    loaded = load(write_folder(tmp_path, tensors, {"vocab_size": V, "tie_word_embeddings": True}), "output")
    np.testing.assert_array_equal(loaded.matrix, EMBED)


def test_unknown_names_that_shape_does_not_decide(tmp_path):
    folder = write_folder(tmp_path, {"one": EMBED, "two": HEAD}, {"vocab_size": V})
    with pytest.raises(LoadError, match=r"2 tensors.*one \[40, 6\], two \[40, 6\].*tensor=NAME"):
        load(folder)
    np.testing.assert_array_equal(load(folder, tensor="two").matrix, HEAD)


def test_unknown_tensor_lists_what_there_is(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": EMBED})
    with pytest.raises(LoadError, match=r"no tensor wpe; it holds wte.weight"):
        load(folder, tensor="wpe")


def test_nothing_fits(tmp_path):
    folder = write_folder(tmp_path, {"mlp": matrix(4000, D)}, None, tokenizer(words(V)))
    with pytest.raises(LoadError, match=r"about 40 rows, but mlp \[4000, 6\]"):
        load(folder)


def test_which_is_checked(tmp_path):
    with pytest.raises(InputError, match="'both'"):
        load(tmp_path, "both")


def test_only_the_shard_that_holds_the_tensor_is_needed(tmp_path):
    folder = write_folder(tmp_path, {"lm_head.weight": HEAD}, {"tie_word_embeddings": False})
    write_shards(folder, [{"model.embed_tokens.weight": EMBED}, {"mlp": OTHER, "lm_head.weight": HEAD}])
    (folder / "model-00001-of-00002.safetensors").unlink()
    np.testing.assert_array_equal(load(folder, "output").matrix, HEAD)
    with pytest.raises(LoadError, match=r"names the shard model-00001-of-00002\.safetensors"):
        load(folder, "input")


def test_index_that_names_a_tensor_its_shard_lacks(tmp_path):
    folder = write_shards(
        write_folder(tmp_path, {"wte.weight": EMBED}), [{"wte.weight": EMBED}, {"mlp": OTHER}]
    )
    index = folder / "model.safetensors.index.json"
    table = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {"wte.weight": table["mlp"]}}))
    with pytest.raises(LoadError, match=r"says that wte.weight is in model-00002"):
        load(folder)


@pytest.mark.parametrize("table", ["[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": {}}', "nonsense"])
def test_broken_index(tmp_path, table):
    folder = write_shards(write_folder(tmp_path, {"wte.weight": EMBED}), [{"wte.weight": EMBED}])
    (folder / "model.safetensors.index.json").write_text(table)
    with pytest.raises(LoadError, match=r"index\.json"):
        load(folder)


def test_index_cannot_leave_the_folder(tmp_path):
    folder = write_shards(write_folder(tmp_path, {"wte.weight": EMBED}), [{"wte.weight": EMBED}])
    index = {"weight_map": {"wte.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(LoadError, match="outside the model"):
        load(folder)


@pytest.mark.model
def test_stories260k():
    loaded = load(data("models", "stories260k"))
    assert loaded.matrix.shape == (512, 64) and not loaded.matrix.flags.owndata
    assert not loaded.matrix.flags.writeable and loaded.provenance.tied
    assert loaded.anomalies["special tokens"] == 3 and loaded.byte_token.sum() == 256
    assert loaded.token_bytes[loaded.row_of("the")] == b" the"
    np.testing.assert_array_equal(loaded.matrix, load(data("models", "stories260k"), "output").matrix)


@pytest.mark.model
def test_tinystories_holds_only_the_head_and_writes_the_space_behind():
    loaded = load(data("models", "tinystories-656k"))
    assert loaded.provenance.tensor == "lm_head.weight" and loaded.provenance.tied
    assert loaded.token_bytes[loaded.row_of("play")] == b"play"
    assert loaded.token_bytes[loaded.row_of("▁play")] == b"play "


@pytest.mark.model
def test_real_tensors_equal_those_of_the_safetensors_library():
    from safetensors.numpy import load_file

    for name, tensor in (
        ("stories260k", "model.embed_tokens.weight"),
        ("tinystories-656k", "lm_head.weight"),
    ):
        path = data("models", name, "model.safetensors")
        np.testing.assert_array_equal(load(path).matrix, load_file(path)[tensor])
        assert load(path).name == name


@pytest.mark.parametrize(
    "module", ["embeddings.embeddings", "embeddings.token_format", "embeddings.vocabulary", "loading.model"]
)
def test_examples_in_docstrings(module):
    outcome = doctest.testmod(importlib.import_module(f"embgeom.{module}"))
    assert outcome.attempted and not outcome.failed


def test_heavy_libraries_are_not_imported(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": EMBED})
    code = (
        "import sys, embgeom, embgeom.loading, embgeom.embeddings.vocabulary;"
        f"embgeom.loading.load({str(folder)!r});"
        "print({'torch', 'transformers', 'huggingface_hub'} & {*sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
