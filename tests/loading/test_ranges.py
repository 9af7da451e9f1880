"""One tensor of a model on the Hub by byte ranges: what is fetched, and what is kept."""

import os
import socket
import sys
from dataclasses import asdict

import numpy as np
import pytest

import embgeom
from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from embgeom.loading.hub.repository import HubRepo
from tests.helpers.hub_server import (
    BIG,
    COMMIT,
    HEAD,
    OTHER_COMMIT,
    X,
    big,
    breaking,
    gigabyte,
    kept,
    refusing,
    small,
)
from tests.helpers.loading import words, write_folder, write_shards

pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_of_a_gigabyte_only_header_and_tensor_are_fetched(hub, cache):
    folder = gigabyte(hub)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert sum(sizes) > 1_000_000_000
    loaded = load("owner/giga", "output", cache_dir=cache)
    np.testing.assert_array_equal(loaded.matrix, BIG)
    shard = "model-00002-of-00002.safetensors"
    assert hub.fetched(shard) < BIG.nbytes + (1 << 20)
    assert sum(request.sent for request in hub.requests) < BIG.nbytes + (1 << 20)
    assert hub.fetched("model-00001-of-00002.safetensors") == 0
    origin = loaded.provenance
    assert (origin.revision, origin.tensor, origin.dtype) == (COMMIT, "lm_head.weight", "F32")
    assert origin.bytes_fetched == hub.fetched(shard)
    assert origin.bytes_stored == (folder / shard).stat().st_size
    assert origin.sha256 == hub.etag(folder / shard)
    assert origin.to_dict()["bytes_fetched"] == origin.bytes_fetched
    assert (
        f"fetched: {origin.bytes_fetched:,} of the file's {origin.bytes_stored:,} bytes" in loaded.summary()
    )
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < BIG.nbytes + (1 << 20)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_all_types_and_both_sides(hub, cache, dtype):
    small(hub, **{"wte.weight": X.astype(dtype), "lm_head.weight": HEAD.astype(dtype)})
    for which, right in (("input", X), ("output", HEAD)):
        loaded = load("owner/m", which, cache_dir=cache)
        np.testing.assert_array_equal(loaded.matrix, right.astype(dtype).astype(np.float32))
        assert loaded.matrix.base is not None and not loaded.matrix.flags.writeable


def test_a_folder_of_a_repository(hub, cache):
    from embgeom.loading.checkpoint.checkpoint import open_checkpoint

    small(hub, "owner/st/0_Transformer")
    source = HubRepo("owner/st", cache_dir=cache).within("0_Transformer")
    assert source.name == "owner/st/0_Transformer" and source.find("config.json") is not None
    checkpoint = open_checkpoint(source)
    np.testing.assert_array_equal(checkpoint.file("wte.weight").read("wte.weight"), X)
    kept_in = checkpoint.origin("wte.weight")["file"].parent.parent
    assert kept_in == cache / "embgeom" / "owner--st" / "0_Transformer%2Fmodel.safetensors"
    assert {r.filename for r in hub.requests if r.sent} == {
        "0_Transformer/config.json",
        "0_Transformer/model.safetensors",
    }
    whole = checkpoint.whole_file("wte.weight")
    assert whole.read_bytes() == (hub.root / "owner/st/0_Transformer/model.safetensors").read_bytes()
    assert checkpoint.whole_file("wte.weight") == whole


def test_the_header_is_fetched_once_and_a_tensor_once(hub, cache):
    big(hub)
    load("owner/big", cache_dir=cache)
    before = len(hub.requests)
    load("owner/big", cache_dir=cache)
    assert [(r.method, r.filename) for r in hub.requests[before:]] == [("HEAD", "config.json")]
    load("owner/big", tensor="a", vocabulary=words(1000), cache_dir=cache)
    asked = hub.requests[before + 1 :]
    ranges = [r.range for r in asked if r.filename == "model.safetensors"]
    assert len(ranges) == 1 and ranges[0][1] + 1 - ranges[0][0] == 1000 * 500 * 4


def test_the_second_load_needs_no_network(hub, cache, monkeypatch):
    big(hub)
    first = load("owner/big", cache_dir=cache)

    def no_socket(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_socket)
    monkeypatch.setattr(socket, "create_connection", no_socket)
    monkeypatch.setattr(socket, "getaddrinfo", no_socket)
    for options in ({"local_files_only": True}, {"revision": COMMIT}):
        again = load("owner/big", cache_dir=cache, **options)
        np.testing.assert_array_equal(again.matrix, BIG)
        assert {**asdict(again.provenance), "source": ""} == {**asdict(first.provenance), "source": ""}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    with pytest.raises(LoadError, match=r"z of model.safetensors of .*is not in the cache, and down"):
        load("owner/big", tensor="z", vocabulary=words(1000), cache_dir=cache)
    with pytest.raises(LoadError, match="downloads are switched off"):
        load("owner/other", cache_dir=cache)


def test_without_the_hub_the_cache_serves(hub, cache, monkeypatch, impatient):
    big(hub)
    load("owner/big", cache_dir=cache)
    hub.failures["owner/big"] = (503, "")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert impatient == [0.5]
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert impatient == [0.5, 0.5]


def test_a_commit_that_is_not_in_the_cache_is_waited_for(hub, cache, impatient):
    small(hub)
    hub.failures["owner/m"] = (503, "")
    with pytest.raises(LoadError, match="the connection to the Hub failed"):
        load("owner/m", cache_dir=cache, revision=COMMIT)
    assert len(impatient) == 4
    hub.failures.clear()
    loaded = load("owner/m", cache_dir=cache, revision=COMMIT)
    assert (loaded.name, loaded.provenance.revision) == ("owner/m@01234567", COMMIT)
    with pytest.raises(LoadError, match="no such revision"):
        load("owner/m", cache_dir=cache, revision="f" * 40)


def test_a_file_that_huggingface_hub_has_is_not_fetched_again(hub, cache):
    from huggingface_hub import hf_hub_download

    folder = big(hub)
    hf_hub_download("owner/big", "model.safetensors", cache_dir=cache, endpoint=hub.url)
    sent = hub.fetched("model.safetensors")
    loaded = load("owner/big", cache_dir=cache)
    assert hub.fetched("model.safetensors") == sent and not kept(cache, ".safetensors")
    assert loaded.provenance.sha256 == hub.etag(folder / "model.safetensors")
    assert loaded.provenance.bytes_fetched is None


def test_another_commit_with_the_same_content_fetches_the_header_alone(hub, cache):
    big(hub)
    load("owner/big", cache_dir=cache)
    sent = hub.fetched("model.safetensors")
    hub.commit = OTHER_COMMIT
    again = load("owner/big", cache_dir=cache)
    assert again.provenance.revision == OTHER_COMMIT
    assert hub.fetched("model.safetensors") - sent == 1 << 16


def test_another_commit_with_other_content_is_fetched(hub, cache):
    small(hub)
    load("owner/m", cache_dir=cache)
    small(hub, **{"wte.weight": -X})
    hub.commit = OTHER_COMMIT
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, -X)
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache, revision=COMMIT).matrix, X)


def test_where_the_cache_is(hub, cache, tmp_path, monkeypatch):
    small(hub)
    monkeypatch.setenv("EMBGEOM_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    file = load("owner/m", cache_dir=cache).provenance.file
    assert file.parent.parent == cache / "embgeom" / "owner--m" / "model.safetensors"
    assert file.name == "wte.weight.safetensors"
    from safetensors.numpy import load_file

    np.testing.assert_array_equal(load_file(file)["wte.weight"], X)


def test_the_final_norm_is_fetched_alone(hub, cache):
    folder = gigabyte(hub)
    norm = np.linspace(1, 2, 600).astype(np.float32)
    write_shards(folder, [{"model.norm.weight": norm}, {"lm_head.weight": BIG}])
    (folder / "config.json").write_text('{"model_type": "llama"}')
    got = embgeom.load_final_norm("owner/giga", cache_dir=cache)
    np.testing.assert_array_equal(got.weight, norm)
    assert sum(request.sent for request in hub.requests) < 1 << 20


def test_the_final_norm_of_a_single_file_is_fetched_alone(hub, cache):
    norm = np.linspace(1, 2, 600).astype(np.float32)
    write_folder(
        hub.root / "owner" / "one", {"wte.weight": BIG, "norm.weight": norm}, {"model_type": "llama"}
    )
    got = embgeom.load_final_norm("owner/one", cache_dir=cache)
    np.testing.assert_array_equal(got.weight, norm)
    assert sum(request.sent for request in hub.requests) < 1 << 20


def test_a_server_that_names_no_commit_is_no_hub(hub, cache, impatient):
    small(hub)
    hub.commit = ""
    with pytest.raises(LoadError, match="the server is not a Hugging Face Hub; check HF_ENDPOINT"):
        load("owner/m", cache_dir=cache)
    hub.commit = "../../../x"
    with pytest.raises(LoadError, match="owner/m"):
        load("owner/m", cache_dir=cache)
    assert not (cache / "embgeom").exists()


@pytest.mark.parametrize("endpoint", ["{}/", "no-address", "http://127.0.0.1:9"])
def test_the_address_of_the_hub(hub, cache, monkeypatch, impatient, endpoint):
    small(hub)
    monkeypatch.setenv("HF_ENDPOINT", endpoint.format(hub.url))
    if hub.url in os.environ["HF_ENDPOINT"]:
        np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, X)
    else:
        with pytest.raises(LoadError, match="the connection to the Hub failed; check the network and HF_END"):
            load("owner/m", cache_dir=cache)


# What the Hub sends to another server.


def test_from_storage_by_a_redirect_without_the_token(hub, storage, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "hf_xet", None)
    folder = big(hub)
    loaded = load("owner/big", cache_dir=cache, token="hf_secret")
    np.testing.assert_array_equal(loaded.matrix, BIG)
    assert storage.fetched("model.safetensors") < BIG.nbytes + (1 << 20)
    assert {r.headers.get("authorization") for r in hub.requests} == {"Bearer hf_secret"}
    assert {r.headers.get("authorization") for r in storage.requests} == {None}
    assert loaded.provenance.sha256 == hub.etag(folder / "model.safetensors")


def test_a_token_is_sent_without_its_line_break_and_never_told(hub, cache):
    small(hub)
    load("owner/m", cache_dir=cache, token=" hf_secret\n")
    assert {r.headers.get("authorization") for r in hub.requests} == {"Bearer hf_secret"}
    with pytest.raises(InputError, match="token= holds a character that no access token has") as caught:
        load("owner/other", cache_dir=cache, token="hf_sec\nret")
    assert "hf_sec" not in str(caught.value)


def test_the_token_of_the_environment_is_sent(hub, cache, monkeypatch):
    small(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    load("owner/m", cache_dir=cache)
    assert {r.headers.get("authorization") for r in hub.requests} == {"Bearer hf_environment"}
    load("owner/m", tensor="wte.weight", cache_dir=cache / "other", token=False)
    assert hub.requests[-1].headers.get("authorization") is None


def test_an_address_that_is_too_old_is_asked_for_again(hub, storage, cache, impatient):
    big(hub)
    storage.faults = [None, refusing(403), None]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert impatient == [0.5]
    assert len(hub.asked("GET", "model.safetensors")) == 3


def test_storage_names_its_content_as_it_likes(hub, storage, cache):
    big(hub)
    storage.etags["model.safetensors"] = "md5-of-something"
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)


@pytest.mark.parametrize("where", ["hub", "storage"])
def test_with_the_client_of_older_versions(hub, storage, cache, monkeypatch, where):
    """huggingface_hub had a session of requests before 1.0."""
    requests = pytest.importorskip("requests")
    big(hub)
    if where == "hub":
        hub.storage = None
    load("owner/big", tensor="a", vocabulary=words(1000), cache_dir=cache)
    with requests.Session() as session:
        monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: session)
        faults = [breaking(1 << 20), None]
        (hub if where == "hub" else storage).faults = faults
        loaded = load("owner/big", cache_dir=cache, token="hf_secret")
    np.testing.assert_array_equal(loaded.matrix, BIG)
    assert not faults
    assert {r.headers.get("authorization") for r in storage.requests} <= {None}
