"""No output takes the place of what is read."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

import embgeom
from embgeom import InputError, OutputError
from embgeom._common.writing import check_kept
from tests.helpers.cli import status
from tests.helpers.loading import matrix, tokenizer, words, write_folder, write_safetensors

QUICK = ("--dimension-sample", "5", "--dimension-k", "5", "-k", "3")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with an array and its tokens, a model's folder, and links to some of it."""
    np.save(tmp_path / "in.npy", matrix(40, 8))
    np.save(tmp_path / "b.npy", matrix(40, 8, 1))
    (tmp_path / "in.tokens.txt").write_text("\n".join(words(40)))
    (tmp_path / "t.txt").write_text("\n".join(words(40)))
    write_folder(tmp_path / "m", {"model.embed_tokens.weight": matrix(40, 8)}, {}, tokenizer(words(40)))
    (tmp_path / "link.html").symlink_to("in.npy")
    os.link(tmp_path / "in.npy", tmp_path / "hard.html")
    os.link(tmp_path / "m" / "config.json", tmp_path / "hard.json")
    (tmp_path / "n").symlink_to("m")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


B = ("b.npy", "--vocabulary-b", "t.txt")
ARRAYS = ("compare", "in.npy", *B, "--vocabulary-a", "t.txt", *QUICK)
MODELS = ("compare", "m", *B, *QUICK)


@pytest.mark.parametrize(("arguments", "told"), [
    ((*ARRAYS, "--html", "in.npy"), "would be written over in.npy"),
    ((*ARRAYS, "--html", "./x/../b.npy"), "would be written over b.npy"),
    ((*ARRAYS, "--csv", "in.npy"), "would be written over in.npy"),
    ((*ARRAYS, "--csv", "x.csv", "--html", "x.csv"), "are the same file; name two"),
    ((*ARRAYS, "--html", "t.txt"), "would be written over t.txt"),
    ((*ARRAYS, "--html", "link.html"), "would be written over in.npy"),
    ((*ARRAYS, "--html", "hard.html"), "in.npy, which is read"),
    (("compare", "in.npy", "in.npy", *QUICK, "--html", "in.tokens.txt"), "in.tokens.txt, which is read with"),
    ((*MODELS, "--html", "m/config.json"), "lies in m, which is read"),
    ((*MODELS, "--html", "n/page.html"), "lies in m, which is read"),
    ((*MODELS, "--html", "hard.json"), "config.json, which is read with m"),
    ((*MODELS, "-o", "m/out"), "lies in m, which is read"),
    (("inspect", "m/model.safetensors", "-o", "m"), "holds something already"),
    (("compare", "m/model.safetensors", *B, *QUICK, "--html", "m/tokenizer.json"),
     "tokenizer.json, which is read with m/model.safetensors"),
    (("fit", "m", *B, "-o", "m/model.safetensors"), "lies in m, which is read"),
    (("fit", "m", *B, "-o", "m/map.safetensors"), "lies in m, which is read"),
    ((*ARRAYS, "--html", "g", "-o", "g"), "are the same file; name two"),
    ((*ARRAYS, "--html", "h/page.html", "-o", "h"), "one inside the other"),
    ((*ARRAYS, "--html", "new.html", "-o", "new.html/out"), "one inside the other"),
])  # fmt: skip
def test_commands_refuse_before_the_work(here, capsys, monkeypatch, arguments, told):
    (here / "h").mkdir()  # so that nothing else is wrong with h/page.html
    monkeypatch.setattr("embgeom.load", lambda *_, **__: pytest.fail("the work has begun"))
    before = contents(here)
    assert status(*arguments) == 2
    assert told in capsys.readouterr().err
    assert contents(here) == before


def test_results_in_the_folder_that_is_replaced(here, capsys):
    embgeom.inspect(embgeom.load("m"), dimension_sample=5, dimension_k=5).save("out")
    assert status("inspect", "out/inspection.safetensors", *QUICK[:4], "-o", "out", "--overwrite") == 2
    assert "holds out/inspection.safetensors, which is read; name another folder" in capsys.readouterr().err


def test_outputs_beside_inputs_are_written_again_and_again(here):
    (here / "notes.json").write_text("{}")
    for _ in range(2):
        assert status(*ARRAYS, "--html", "page.html", "-o", "out", "--overwrite") == 0
        assert status("fit", "m/model.safetensors", *B, "-o", "map.safetensors") == 0
    assert (here / "page.html").is_file() and (here / "out" / "comparison.safetensors").is_file()


def test_a_model_that_runs(tmp_path, monkeypatch, capsys):
    shutil.copytree(embgeom.examples.pair().small, tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    embgeom.SteeringVector({2: np.ones(128)}).save("v.safetensors")
    (tmp_path / "o.json").write_text(json.dumps([["Tom was happy.", "Tom was sad."]]))
    before = contents(tmp_path)
    measured = ("m", "--vector", "v.safetensors", "--prompts", "example:moods")
    for arguments in (
        ("train-vector", "m", "--pairs", "o.json", "-o", "m/model.safetensors"),
        ("evaluate", *measured, "-o", "m/config.json"),
        ("sweep", *measured, "--scales", "1", "-o", "m/config.json"),
        ("evaluate", *measured[:3], "--questions", "o.json", "-o", "o.json"),
    ):
        assert status(*arguments) == 2
        assert "which is read" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_functions_know_what_was_read(here):
    a = embgeom.load("m")
    b = embgeom.load("b.npy", vocabulary="t.txt")
    comparison = embgeom.compare(a, b, k=3, dimension_sample=5, dimension_k=5)
    before = contents(here)
    for path in ("m/config.json", "m/page.html", "b.npy", here / "hard.json"):
        with pytest.raises(OutputError, match="which is read"):
            comparison.to_html(path)
    with pytest.raises(OutputError, match="which is read"):
        comparison.save("m/out")
    with pytest.raises(OutputError, match="which is read"):
        embgeom.inspect(a, dimension_sample=5, dimension_k=5).save("n/out")
    mapping = embgeom.Emb2Emb.fit(a, b)
    with pytest.raises(OutputError, match="which is read"):
        mapping.save("m/model.safetensors")
    assert contents(here) == before


def test_links_out_of_a_cache(tmp_path):
    # The Hugging Face cache keeps files as blobs, to which the model's folder holds links.
    (tmp_path / "blobs").mkdir()
    write_safetensors(tmp_path / "blobs" / "abc", {"x": matrix(3, 2)})
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").symlink_to("../blobs/abc")
    with pytest.raises(OutputError, match="which is read with"):
        check_kept({"-o": tmp_path / "blobs" / "abc"}, [tmp_path / "model"])


def test_names_that_are_no_paths_do_no_harm(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_kept({"-o": "out", "--html": None}, ["example:small", "owner/name", None, "", "~nobody-knows/x"])
    # What would stand before a repository of that name from then on.
    with pytest.raises(OutputError, match="would be written over owner/name"):
        check_kept({"-o": "owner/name"}, ["owner/name"])
    with pytest.raises(InputError, match=r"-o a.json and --figure a.json are the same file"):
        check_kept({"-o": "a.json", "--figure": "a.json"}, [])
