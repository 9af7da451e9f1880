"""Whose files a name stands for, and what an option of the Hub means for a model that is here."""

import shutil

import numpy as np
import pytest

import embgeom
from embgeom.cli.main import main
from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading import load
from embgeom.loading.hub.repository import HubRepo
from tests.helpers.loading import matrix, words, write_folder

X = matrix(30, 4)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "owner" / "thing", {"wte.weight": X})
    np.savez(tmp_path / "m.npz", matrix=X, tokens=words(30))
    return tmp_path


@pytest.mark.parametrize("option", [{"revision": "step0"}, {"token": "hf_secret"}, {"token": True}])
@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("owner/thing", "owner/thing is a folder here; leave it out, or work in another directory"),
        ("owner/thing/model.safetensors", "model.safetensors is a file here"),
        ("m.npz", "m.npz is a file here"),
        ("example:small", "example:small comes with the package; leave it out$"),
    ],
)
def test_options_of_the_hub_are_refused_with_what_is_here(here, model, what, option):
    message = f"{next(iter(option))} is for a Hugging Face id, and .*{what}"
    with pytest.raises(InputError, match=message) as caught:
        load(model, **option)
    assert "hf_secret" not in str(caught.value)
    if model != "m.npz":
        with pytest.raises(InputError, match=message):
            embgeom.load_final_norm(model, **option)


def test_what_promises_nothing_false_is_taken(here):
    assert load("owner/thing", token=False, local_files_only=True, cache_dir=here / "cache")
    assert not (here / "cache").exists()


def test_commands_refuse_a_revision_of_a_folder(here, capsys):
    assert main(["compare", "owner/thing", "example:small", "--revision-a", "step0"]) != 0
    assert "revision is for a Hugging Face id, and owner/thing is a folder here" in capsys.readouterr().err


def test_a_language_model_that_is_here_has_no_revision(here):
    pytest.importorskip("transformers")
    from embgeom.steering import load_language_model

    shutil.copytree(embgeom.examples.pair().small, here / "org" / "small")
    for model in ("org/small", "example:small"):
        with pytest.raises(InputError, match=r"revision is for a Hugging Face id"):
            load_language_model(model, revision="step0")
    shutil.copytree("org/small", "hub/models--x--y/snapshots/0123")
    assert load_language_model("hub/models--x--y").model.config.num_hidden_layers == 4


def test_a_folder_of_the_cache_stands_for_its_snapshot(here):
    kept = here / "hub" / "models--x--y"
    first, second = kept / "snapshots" / "0123", kept / "snapshots" / "4567"
    write_folder(first, {"wte.weight": X})
    loaded = load(kept)
    assert (loaded.name, loaded.provenance.revision) == ("x/y", "0123")
    write_folder(second, {"wte.weight": -X})
    with pytest.raises(LoadError, match=r"2 snapshots, 0123, 4567; name one of them as .*snapshots/COMMIT"):
        load(kept)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("4567")
    np.testing.assert_array_equal(load(kept).matrix, -X)
    loaded = load(first)
    assert (loaded.name, loaded.provenance.revision) == ("x/y", "0123")
    (kept / "refs" / "main").write_bytes(b"\xff")
    with pytest.raises(LoadError, match="cannot be read as a folder of the Hugging Face cache"):
        load(kept)
    shutil.rmtree(first)
    shutil.rmtree(second)
    (kept / "refs" / "main").unlink()
    with pytest.raises(LoadError, match="with 0 snapshots"):
        load(kept)


def test_revisions_of_one_model_have_names_of_their_own():
    names = [HubRepo("org/thing", revision=r).name for r in (None, "step0", "step1", COMMIT)]
    assert names == ["org/thing", "org/thing@step0", "org/thing@step1", "org/thing@01234567"]


def test_what_is_neither_file_nor_folder_is_told(here):
    with pytest.raises(EmbgeomError, match="/dev/null is not a regular file"):
        load("/dev/null")
