"""Folders within models: sentence embedders, model2vec, diffusers, and `subfolder=`."""

import json
import subprocess
import sys

import numpy as np
import pytest

from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from embgeom.loading.final_norm import load_final_norm
from tests.helpers.loading import matrix, tokenizer, words, write_folder

E, T = matrix(40, 8), tokenizer(words(40))


def modules(path):
    return json.dumps([{"idx": 0, "name": "0", "path": path,
    "type": "sentence_transformers.models.Transformer"},
                       {"idx": 1, "name": "1", "path": "1_Pooling",
                       "type": "sentence_transformers.models.Pooling"}])  # fmt: skip


@pytest.mark.parametrize("path", ["0_Transformer", "0_StaticEmbedding", "", "."])
def test_sentence_embedders(tmp_path, path):
    root = tmp_path / "st"
    write_folder(root / path, {"embeddings.word_embeddings.weight": E}, {"model_type": "bert"}, T)
    (root / "1_Pooling").mkdir()
    (root / "modules.json").write_text(modules(path))
    made = load(root)
    np.testing.assert_array_equal(made.matrix, E)
    assert made.name == "st" and made.provenance.file.parent == root / path and made.tokens == words(40)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "x", '[{"path": 3}]', '[{"path": "../other"}]', '[{"path": "/"}]']
)
def test_broken_modules(tmp_path, content):
    write_folder(tmp_path, {"wte.weight": E}, {}, T)
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(LoadError, match=r"modules\.json"):
        load(tmp_path)


def test_subfolders_asked_for(tmp_path):
    norm = np.full(8, 2, np.float32)
    write_folder(
        tmp_path / "a/b",
        {"model.embed_tokens.weight": E, "model.norm.weight": norm},
        {"model_type": "llama"},
        T,
    )
    for folder in ("a/b", "a/b/", "./a/b"):
        made = load(tmp_path, subfolder=folder)
        np.testing.assert_array_equal(made.matrix, E)
        assert made.name == f"{tmp_path.name}/a/b"
        np.testing.assert_array_equal(load_final_norm(tmp_path, subfolder=folder).weight, norm)
    for wrong in ("c", "a/b/c", "", "../x", "/", "\0", "x" * 300, 3):
        with pytest.raises(LoadError, match=r"no subfolder|not a folder inside|holds no|cannot be read"):
            load(tmp_path, subfolder=wrong)
    np.save(tmp_path / "rows.npy", E)
    for file in ("a/b/model.safetensors", "rows.npy"):
        with pytest.raises(InputError, match=r"subfolder='a' has no meaning for"):
            load(tmp_path / file, subfolder="a", vocabulary=words(40))


def test_subfolder_on_the_command_line(tmp_path):
    write_folder(tmp_path / "inner", {"model.embed_tokens.weight": E}, {}, T)
    command = [
        sys.executable,
        "-m",
        "embgeom",
        "inspect",
        str(tmp_path),
        "--subfolder",
        "inner",
        "--dimension-sample",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{tmp_path.name}/inner" in done.stdout


def test_a_gguf_file_in_a_subfolder(tmp_path):
    gguf = pytest.importorskip("gguf", reason="gguf is not installed")
    (tmp_path / "inner").mkdir()
    writer = gguf.GGUFWriter(str(tmp_path / "inner/m.gguf"), "llama")
    writer.add_tensor("token_embd.weight", E)
    writer.add_tensor("output_norm.weight", np.full(8, 2, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    np.testing.assert_array_equal(load(tmp_path, subfolder="inner", vocabulary=words(40)).matrix, E)
    np.testing.assert_array_equal(load_final_norm(tmp_path, subfolder="inner").weight, 2)


@pytest.mark.parametrize("names", [["0_StaticEmbedding"], ["checkpoint-100", "checkpoint-200"]])
def test_the_error_names_subfolders_that_hold_weights(tmp_path, names):
    for name in names:
        write_folder(tmp_path / "st" / name, {"embedding.weight": E}, {}, T)
    (tmp_path / "st/logs").mkdir()
    with pytest.raises(
        LoadError, match=rf"st holds no weights, but .*{', '.join(names)}.* subfolder='{names[0]}'"
    ):
        load(tmp_path / "st")
    with pytest.raises(LoadError, match="--subfolder"):
        load_final_norm(tmp_path / "st")


def test_a_pipeline_of_diffusers(tmp_path):
    for ending in ("", "_2"):
        encoder = write_folder(
            tmp_path / f"text_encoder{ending}", {"text_model.embeddings.token_embedding.weight": E}, {}, T
        )
        beside = tmp_path / f"tokenizer{ending}"
        beside.mkdir()
        (encoder / "tokenizer.json").unlink()
        # CLIP's vocabulary has the space behind its words.
        vocabulary = {f"w{i}</w>": i for i in range(40)}
        (beside / "vocab.json").write_text(json.dumps(vocabulary))
        (beside / "merges.txt").write_text("#version: 0.2\n")
        (beside / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(
        LoadError, match="subfolders text_encoder, text_encoder_2 do; pass subfolder='text_encoder'"
    ):
        load(tmp_path)
    for made in (load(tmp_path, subfolder="text_encoder_2"), load(tmp_path / "text_encoder")):
        np.testing.assert_array_equal(made.matrix, E)
        assert made.token_bytes[3] == b"w3 "


def static_model(**options):
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {f"w{i}": i for i in range(40)}
    whole = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    whole.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return model2vec.StaticModel(options.pop("vectors", E), whole, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_model2vec(tmp_path, dtype):
    static_model(vectors=E.astype(dtype)).save_pretrained(tmp_path)
    made = load(tmp_path)
    np.testing.assert_array_equal(made.matrix, E.astype(dtype).astype(np.float32))
    assert made.tokens == [f"w{i}" for i in range(40)] and made.provenance.tensor == "embeddings"


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_model2vec_with_few_vectors(tmp_path, weighted, dtype):
    rng = np.random.default_rng(0)
    mapping = rng.integers(0, 5, 40)
    weights = rng.random(40) if weighted else None
    model = static_model(vectors=E[:5].astype(dtype), token_mapping=mapping, weights=weights)
    model.save_pretrained(tmp_path)
    made = load(tmp_path)
    # What the running model sums up for a text of one token.
    expected = np.array([model.encode_as_sequence(f"w{i}")[0] for i in range(1, 40)], dtype=np.float32)
    np.testing.assert_array_equal(made.matrix[1:], expected)
    assert "5 vectors stand for 40 tokens" in made.provenance.notes[0]
    assert len(made.provenance.notes) >= 1 + weighted


def test_model2vec_that_does_not_fit(tmp_path):
    static_model(vectors=E[:5], token_mapping=np.full(40, 9)).save_pretrained(tmp_path / "a")
    with pytest.raises(LoadError, match="mapping does not name rows of embeddings"):
        load(tmp_path / "a")
    static_model(vectors=(E[:5] * 10).astype(np.int8), token_mapping=np.zeros(40, int)).save_pretrained(
        tmp_path / "b"
    )
    with pytest.raises(LoadError, match=r"embeddings (is int8|.*stored as I8)"):
        load(tmp_path / "b")
    with pytest.raises(LoadError, match="model of model2vec, which has no output matrix"):
        load(tmp_path / "a", "output")
