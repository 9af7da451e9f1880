"""Loading by Hugging Face id, from a server in this process: what is fetched, what failures say."""

import hashlib
import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from tests.helpers.hub_server import COMMIT
from tests.helpers.loading import matrix, write_folder, write_shards

pytest.importorskip("huggingface_hub")

X, HEAD = matrix(30, 4, 1), matrix(30, 4, 2)
UNTIED = {"tie_word_embeddings": False, "vocab_size": 30, "hidden_size": 4}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def names_fetched(hub):
    return sorted({request.filename for request in hub.requests if request.sent})


def sharded(hub):
    folder = write_folder(hub.root / "owner" / "big", {"model.embed_tokens.weight": X}, UNTIED)
    (folder / "README.md").write_text("not needed")
    return write_shards(folder, [{"model.embed_tokens.weight": X}, {"mlp": X}, {"lm_head.weight": HEAD}])


def test_only_what_is_needed_is_fetched(hub, cache):
    sharded(hub)
    loaded = load("owner/big", "output", cache_dir=cache)
    np.testing.assert_array_equal(loaded.matrix, HEAD)
    assert names_fetched(hub) == [
        "config.json",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]
    assert loaded.name == "owner/big" and loaded.provenance.revision == COMMIT


def test_second_time_nothing_is_fetched_and_offline_works(hub, cache, monkeypatch):
    sharded(hub)
    load("owner/big", cache_dir=cache)
    hub.requests.clear()
    load("owner/big", cache_dir=cache)
    assert not names_fetched(hub) and len(hub.requests) == 1
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache, local_files_only=True).matrix, X)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, X)
    assert len(hub.requests) == 1
    with pytest.raises(LoadError, match=r"names the shard model-00003.*does not hold"):
        load("owner/big", "output", cache_dir=cache)


def test_single_file_and_its_hash_from_the_name_of_the_blob(hub, cache, monkeypatch):
    folder = write_folder(hub.root / "owner" / "small", {"wte.weight": X})
    loaded = load("owner/small", cache_dir=cache, revision=COMMIT)
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    monkeypatch.setattr(hashlib, "sha256", None)
    assert loaded.provenance.sha256 == expected
    assert loaded.provenance.source == "owner/small"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "RepoNotFound", "no such model"),
        (403, "GatedRepo", "gated; accept its terms"),
        (404, "RevisionNotFound", "no such revision"),
        (500, "", "the Hub cannot be reached|connection to the Hub failed"),
    ],
)
def test_failures_are_one_clear_error(hub, cache, monkeypatch, status, code, message):
    monkeypatch.setattr("time.sleep", lambda _: None)
    write_folder(hub.root / "owner" / "m", {"wte.weight": X})
    hub.failures["owner/m"] = (status, code)
    with pytest.raises(LoadError, match=rf"owner/m is not a path on this machine.*({message})"):
        load("owner/m", cache_dir=cache)


def test_no_such_repository_or_revision(hub, cache):
    with pytest.raises(LoadError, match=r"nobody/nothing.*no such model"):
        load("nobody/nothing", cache_dir=cache)
    write_folder(hub.root / "owner" / "m", {"wte.weight": X})
    with pytest.raises(LoadError, match=r"at revision v9.*no such revision"):
        load("owner/m", cache_dir=cache, revision="v9")


def test_offline_and_not_in_the_cache(hub, cache):
    with pytest.raises(LoadError, match=r"downloads are switched off"):
        load("owner/big", cache_dir=cache, local_files_only=True)
    assert not hub.requests


def test_no_server(cache, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match=r"owner/big.*(cannot be reached|connection to the Hub failed)"):
        load("owner/big", cache_dir=cache)


def test_a_tokenizer_that_is_missing_is_told_before_the_model_is_fetched(hub, cache):
    (sharded(hub) / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match="holds no tokenizer"):
        load("owner/big", cache_dir=cache)
    assert names_fetched(hub) == ["config.json"]


@pytest.mark.parametrize(
    "model", ["./no/such", "/no/such/folder", "a b", "one/two/three", "~no-such-user/x", "", "a\0b", None]
)
def test_neither_a_path_nor_an_id(model):
    with pytest.raises(LoadError, match=r"no such file or folder|neither a path|is empty|holds a NUL"):
        load(model)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("exmaple:small", "example:small"), ("./modle.gguf", "model.gguf")],
)
def test_a_name_like_one_that_is_there_is_asked_for(typed, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(LoadError, match=rf"^{re.escape(typed)}: no such file .*; did you mean {meant}\?$"):
        load(typed)


def test_what_exists_here_comes_before_an_id(tmp_path, monkeypatch):
    write_folder(tmp_path / "owner" / "m", {"wte.weight": X})
    monkeypatch.chdir(tmp_path)
    assert load("owner/m").provenance.revision is None


def test_progress_bars_only_when_asked_for(hub, cache, capsys):
    config = write_folder(hub.root / "owner" / "m", {"wte.weight": X}) / "config.json"
    load("owner/m", cache_dir=cache)
    assert capsys.readouterr().err == ""
    assert json.loads(config.read_text()) == {}


def test_a_folder_within_a_repository(hub, cache):
    folder = write_folder(hub.root / "org/st/0_Transformer", {"embeddings.word_embeddings.weight": X}, UNTIED)
    (hub.root / "org/st/modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer"}]))
    for made in (load("org/st", cache_dir=cache), load("org/st", cache_dir=cache, subfolder="0_Transformer")):
        np.testing.assert_array_equal(made.matrix, X)
        assert made.provenance.revision == COMMIT and made.tokens[3] == "▁w3"
    assert load("org/st", cache_dir=cache, subfolder="0_Transformer").name == "org/st/0_Transformer"
    assert hub.asked("GET", "0_Transformer/model.safetensors") and folder.is_dir()
    (hub.root / "org/st/modules.json").rename(hub.root / "org/st/model_index.json")
    write_folder(
        hub.root / "org/sd/text_encoder", {"text_model.embeddings.token_embedding.weight": X}, UNTIED
    )
    (hub.root / "org/sd/model_index.json").write_text("{}")
    with pytest.raises(LoadError, match=r"org/sd is a pipeline of diffusers; pass subfolder='text_encoder'"):
        load("org/sd", cache_dir=cache)
    (hub.root / "org/sd/tokenizer").mkdir()
    tokens = hub.root / "org/sd/text_encoder/tokenizer.json"
    tokens.rename(hub.root / "org/sd/tokenizer/tokenizer.json")
    assert load("org/sd", cache_dir=cache, subfolder="text_encoder").tokens[3] == "▁w3"


def test_a_file_of_model2vec_is_fetched_whole(hub, cache):
    mapping = np.arange(30, dtype=np.int64)[::-1].copy()
    folder = write_folder(hub.root / "org/m2v", {"wte.weight": X}, UNTIED)
    save_file({"embeddings": X, "mapping": mapping}, folder / "model.safetensors")
    for options in ({}, {"local_files_only": True}):
        made = load("org/m2v", cache_dir=cache, **options)
        np.testing.assert_array_equal(made.matrix, X[::-1])
        assert made.provenance.bytes_fetched == made.provenance.bytes_stored
        assert made.provenance.sha256 == hub.etag(folder / "model.safetensors")


@pytest.mark.parametrize(
    "revision",
    ["/dev/zero", "../../x", "a/../b", ".", "x/", "a b", "\x1b[2J", "\0", "\ud800", "", 5, b"main"],
)
def test_revisions_that_no_repository_has(cache, revision):
    with pytest.raises(InputError, match="is not the name of a branch, a tag or a commit"):
        load("owner/plain", revision=revision, cache_dir=cache, local_files_only=True)


def test_revisions_are_looked_for(cache):
    for revision in ("main", "v1.0", "refs/pr/1", "feature/x-1_2", COMMIT):
        with pytest.raises(LoadError, match=f"at revision {revision} cannot be read"):
            load("owner/plain", revision=revision, cache_dir=cache, local_files_only=True)
    with pytest.raises(InputError, match="cache_dir=5 is not the name of a folder"):
        load("owner/plain", cache_dir=5, local_files_only=True)
