"""Which matrix each side of a model is: ties, heads of unknown names, heads that are no plain matrix."""

import json

import numpy as np
import pytest

from embgeom.errors import LoadError
from embgeom.loading import load
from tests.helpers.loading import matrix, tokenizer, words, write_folder, write_shards

V, D = 40, 8
EMBED, HEAD, OTHER = matrix(V, D, 1), matrix(V, D, 2), matrix(12, D, 3)
TOKENS = tokenizer(words(V))
TIED = {"model_type": "llama", "tie_word_embeddings": True}
LAYOUTS = ("file", "shards", "torch")


def folder_of(path, tensors, config, layout="file"):
    """A model folder as one safetensors file, as shards of a tensor each, or as a PyTorch file."""
    folder = write_folder(path, tensors, config, TOKENS)
    if layout == "shards":
        write_shards(folder, [{name: tensor} for name, tensor in tensors.items()])
    if layout == "torch":
        torch = pytest.importorskip("torch", reason="torch is not installed")
        (folder / "model.safetensors").unlink()
        torch.save({n: torch.tensor(t) for n, t in tensors.items()}, folder / "pytorch_model.bin")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("embedding", "head", "model_type"),
    [
        ("model.embed_tokens.weight", "lm_head.weight", "llama"),
        ("transformer.wte.weight", "lm_head.weight", "gpt2"),
        ("wte.weight", "lm_head.weight", "gpt2"),
        ("shared.weight", "lm_head.weight", "t5"),
        ("decoder.embed_tokens.weight", "lm_head.weight", "t5"),
        ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "bert"),
        ("embed.weight", "lm_head.weight", "mine"),
    ],
)
def test_both_stored_and_different_are_not_tied(tmp_path, embedding, head, model_type, layout):
    config = {"model_type": model_type, "tie_word_embeddings": True}
    folder = folder_of(tmp_path, {embedding: EMBED, head: HEAD}, config, layout)
    loaded = load(folder, "output")
    np.testing.assert_array_equal(loaded.matrix, HEAD)
    assert not loaded.provenance.tied
    if embedding != "embed.weight":
        np.testing.assert_array_equal(load(folder, "input").matrix, EMBED)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", ["input", "output"])
def test_two_equal_copies_stay_tied(tmp_path, which, layout):
    tensors = {"model.embed_tokens.weight": EMBED, "lm_head.weight": EMBED.copy()}
    loaded = load(folder_of(tmp_path, tensors, TIED, layout), which)
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert loaded.provenance.tied and not loaded.provenance.notes


def test_two_that_differ_are_noted(tmp_path):
    tensors = {"model.embed_tokens.weight": EMBED, "lm_head.weight": HEAD}
    (note,) = load(folder_of(tmp_path, tensors, TIED), "output").provenance.notes
    assert "are stored and differ" in note


FF = {
    "model.transformer.wte.weight": EMBED,
    "model.transformer.ff_out.weight": HEAD,
    "model.transformer.blocks.0.ff_out.weight": matrix(D, V),
}
MEGATRON = {
    "language_model.embedding.word_embeddings.weight": EMBED,
    "language_model.word_embeddings_for_head.weight": HEAD,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (FF, {"model_type": "llada", "weight_tying": False}),
        (FF, {"model_type": "hf_olmo", "weight_tying": False}),
        (FF, {"model_type": "elsewhere"}),
        (MEGATRON, {}),
        ({"model.embed_tokens.weight": EMBED, "my_unembed.weight": HEAD}, {"model_type": "mine"}),
        ({"model.embeddings.weight": EMBED, "lm_head.weight": HEAD}, {"model_type": "rwkv7"}),
        ({"model.encoder.weight": EMBED, "decoder.weight": HEAD}, {"model_type": "neobert"}),
        ({"model.llm.embed.weight": EMBED, "model.llm.unembed.weight": HEAD}, {"model_type": "inkling2"}),
        ({"model.word_embeddings.weight": EMBED, "head.weight": HEAD}, {"model_type": "deepseek_v4"}),
    ],
)
def test_names_of_families(tmp_path, tensors, config, layout):
    folder = folder_of(tmp_path, tensors, config, layout)
    np.testing.assert_array_equal(load(folder, "input").matrix, EMBED)
    np.testing.assert_array_equal(load(folder, "output").matrix, HEAD)


def test_weight_tying_and_the_padded_rows_of_olmo(tmp_path):
    config = {
        "model_type": "olmo",
        "vocab_size": V - 2,
        "embedding_size": V,
        "d_model": D,
        "weight_tying": True,
    }
    loaded = load(folder_of(tmp_path, {"model.transformer.wte.weight": EMBED}, config), "output")
    assert loaded.provenance.tied and not loaded.provenance.notes
    config["weight_tying"] = False
    with pytest.raises(LoadError, match="does not tie them"):
        load(folder_of(tmp_path, {"model.transformer.wte.weight": EMBED}, config), "output")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("config", [{}, TIED, {"model_type": "llama"}, {"model_type": "mine"}])
@pytest.mark.parametrize("stray", ["readout.weight", "transformer.final.weight", "score.weight"])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_matrix_of_unknown_name_is_no_tie(tmp_path, stray, config, layout, transposed):
    head = np.ascontiguousarray(HEAD.T) if transposed else HEAD
    folder = folder_of(tmp_path, {"model.embed_tokens.weight": EMBED, stray: head}, config, layout)
    with pytest.raises(LoadError, match=rf"model\.embed_tokens\.weight.*{stray}.*tensor=NAME"):
        load(folder, "output")
    loaded = load(folder, "input")
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert not loaded.provenance.tied
    np.testing.assert_array_equal(load(folder, "output", tensor=stray).matrix, HEAD)


def test_the_same_where_only_the_head_has_a_known_name(tmp_path):
    folder = folder_of(tmp_path, {"my_rows.weight": EMBED, "lm_head.weight": HEAD}, {})
    with pytest.raises(LoadError, match=r"lm_head\.weight.*my_rows\.weight.*input matrix"):
        load(folder, "input")


def test_two_known_names_of_an_unknown_type_are_not_chosen_between(tmp_path):
    tensors = {
        "model.embed_tokens.weight": EMBED,
        "lm_head.weight": HEAD,
        "embed_out.weight": matrix(V, D, 4),
    }
    with pytest.raises(LoadError, match=r"2 tensors that may be the output.*lm_head\.weight.*embed_out"):
        load(folder_of(tmp_path / "a", tensors, {}), "output")
    known = folder_of(tmp_path / "b", tensors, {"model_type": "llama"})
    np.testing.assert_array_equal(load(known, "output").matrix, HEAD)


@pytest.mark.parametrize("layout", ["file", "shards"])
@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("omni", {"talker.model.embed_tokens.weight": OTHER, "talker.lm_head.weight": OTHER}),
        ("mimo", {"model.mtp_layers.0.embed_tokens.weight": HEAD}),
        ("x", {"mtp.embed_tokens.weight": HEAD, "mtp.shared_head.head.weight": EMBED}),
        (
            "x",
            {"model.layers.61.embed_tokens.weight": HEAD, "model.layers.61.shared_head.head.weight": EMBED},
        ),
        ("x", {"second.embed_tokens.weight": OTHER}),
        ("x", {"vision_tower.embed_tokens.weight": OTHER, "qformer.word_embeddings.weight": HEAD}),
        ("x", {"medusa_head.0.weight": EMBED, "draft.embed_tokens.weight": HEAD}),
    ],
)
def test_two_embeddings_in_one_checkpoint(tmp_path, model_type, more, layout):
    scope = "thinker." if model_type == "omni" else ""
    tensors = {f"{scope}model.embed_tokens.weight": EMBED, f"{scope}lm_head.weight": HEAD, **more}
    folder = folder_of(tmp_path, tensors, {"model_type": model_type}, layout)
    np.testing.assert_array_equal(load(folder).matrix, EMBED)
    np.testing.assert_array_equal(load(folder, "output").matrix, HEAD)


def wrapper(model_type, text_type, outer, text):
    config = {"model_type": model_type, "text_config": {"model_type": text_type}}
    if outer is not None:
        config["tie_word_embeddings"] = outer
    if text is not None:
        config["text_config"]["tie_word_embeddings"] = text
    return config


@pytest.mark.parametrize(
    ("config", "tied"),
    [
        (wrapper("mistral3", "mistral", True, False), True),
        (wrapper("mistral3", "mistral", False, True), False),
        (wrapper("mistral3", "mistral", None, False), True),
        (wrapper("qwen3_vl", "qwen3_vl_text", False, True), False),
        (wrapper("qwen3_vl", "qwen3_vl_text", True, False), True),
        (wrapper("llava", "llama", False, True), True),
        (wrapper("llava", "llama", False, False), False),
        (wrapper("llava", "llama", None, None), False),
        (wrapper("llava", "gemma", None, None), True),
        (wrapper("llama4", "llama4_text", True, False), False),
        (wrapper("llama4", "llama4_text", False, True), True),
        (wrapper("mllama", "mllama_text_model", True, True), False),
        (wrapper("gemma3", "gemma3_text", None, None), True),
        (wrapper("kosmos-2", "kosmos_2_text_model", False, None), True),
        ({"model_type": "zamba2"}, True),
        ({"architectures": ["LlamaForCausalLM"]}, False),
        ({"architectures": ["Gemma2ForCausalLM"]}, True),
        (wrapper("unheard_of", "qwen2", None, True), True),
        (wrapper("unheard_of", "qwen2", None, None), False),
    ],
)
def test_whose_tie_counts(tmp_path, config, tied):
    folder = folder_of(tmp_path, {"model.language_model.embed_tokens.weight": EMBED}, config)
    if tied:
        assert load(folder, "output").provenance.tied
    else:
        with pytest.raises(LoadError, match="does not tie them"):
            load(folder, "output")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("embedding", "head"),
    [
        ("embed.W_E", "unembed.W_U"),
        ("model.embed_tokens.weight", "lm_head.weight"),
        ("model.embed_tokens.embedding", "lm_head.kernel"),
    ],
)
def test_a_head_stored_transposed_is_turned(tmp_path, embedding, head, layout):
    tensors = {embedding: EMBED, head: np.ascontiguousarray(HEAD.T), "pos_embed.W_pos": OTHER}
    folder = folder_of(tmp_path, tensors, {}, layout)
    loaded = load(folder, "output")
    np.testing.assert_array_equal(loaded.matrix, HEAD)
    assert loaded.provenance.tensor == head and not loaded.provenance.tied
    assert "transposed" in loaded.provenance.notes[0] and not loaded.matrix.flags.writeable
    np.testing.assert_array_equal(load(folder, "output", tensor=head).matrix, HEAD)
    np.testing.assert_array_equal(load(folder).matrix, EMBED)


def test_what_the_running_model_does_beyond_is_noted(tmp_path):
    tensors = {"model.embed_tokens.weight": EMBED, "lm_head.weight": HEAD}
    folder = folder_of(tmp_path, tensors, {"model_type": "baichuan", "tie_word_embeddings": False})
    assert "scales the rows of lm_head" in load(folder, "output").provenance.notes[0]
    assert not load(folder, "input").provenance.notes


def test_an_index_beside_a_single_file_is_noted(tmp_path):
    folder = folder_of(tmp_path, {"model.embed_tokens.weight": EMBED}, {})
    raw = (folder / "model.safetensors").read_bytes()
    write_shards(folder, [{"model.embed_tokens.weight": HEAD}, {"lm_head.weight": HEAD}])
    (folder / "model.safetensors").write_bytes(raw)
    loaded = load(folder)
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert "model-00001-of-00002.safetensors and 1 more" in loaded.provenance.notes[0]


def test_a_stale_index_lists_what_is_there(tmp_path):
    folder = folder_of(tmp_path, {"model.embed_tokens.weight": EMBED}, {}, "shards")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(json.loads(index.read_text().replace("-of-00001", "-of-00030"))))
    with pytest.raises(LoadError, match=r"of-00030.*\(it holds model-00001-of-00001\.safetensors\)"):
        load(folder)


def test_a_copy_stored_transposed_is_tied(tmp_path):
    tensors = {"wte.weight": EMBED, "lm_head.weight": np.ascontiguousarray(EMBED.T)}
    loaded = load(folder_of(tmp_path, tensors, {"model_type": "gpt2"}), "output")
    np.testing.assert_array_equal(loaded.matrix, EMBED)
    assert loaded.provenance.tied


def test_positions_as_many_as_tokens_are_no_matrix_of_tokens(tmp_path):
    tensors = {"wte.weight": EMBED, "wpe.weight": HEAD, "embeddings.token_type_embeddings.weight": OTHER}
    np.testing.assert_array_equal(load(folder_of(tmp_path, tensors, {}), "output").matrix, EMBED)


def test_an_embedding_of_as_many_columns_as_tokens_is_not_transposed(tmp_path):
    padded = matrix(9, 8)
    for config in ({}, {"model_type": "llama", "tie_word_embeddings": True, "hidden_size": 8}):
        folder = write_folder(tmp_path, {"model.embed_tokens.weight": padded}, config, tokenizer(words(8)))
        for which in ("input", "output"):
            np.testing.assert_array_equal(load(folder, which).matrix, padded)


@pytest.mark.parametrize("model_type", ["llada", "hf_olmo", "molmo"])
@pytest.mark.parametrize("which", ["input", "output"])
def test_a_tied_model_without_a_head_does_not_look_at_one(tmp_path, model_type, which):
    tensors = {"model.transformer.wte.weight": EMBED, "model.transformer.ff_out.weight": HEAD}
    for tying, expected in ((True, EMBED), (False, EMBED if which == "input" else HEAD)):
        config = {"model_type": model_type, "weight_tying": tying}
        loaded = load(write_folder(tmp_path, tensors, config, TOKENS), which)
        np.testing.assert_array_equal(loaded.matrix, expected)
        assert loaded.provenance.tied == tying
