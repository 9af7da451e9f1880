"""What leaves for a terminal: control characters in names are seen, not obeyed."""

from __future__ import annotations

import io
import json
import sys
import warnings

import numpy as np
import pytest

import embgeom
from embgeom.cli.terminal import visible, warnings_in_a_line
from tests.helpers.cli import status
from tests.helpers.loading import (
    matrix,
    tokenizer,
    words,
    write_folder,
    write_raw_safetensors,
    write_safetensors,
)

# Sets the title of a terminal's window, clears it, goes back to the beginning of the line.
EVIL = "\x1b]0;x\x07\x1b[2J\r\x9b1m\u202e"


def harmless(text):
    """Whether a terminal does nothing at a text but show it."""
    return not any(
        (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\u2028\u202e\u2066" for c in text
    )


@pytest.mark.parametrize(("text", "seen"), [
    (EVIL, r"\x1b]0;x\x07\x1b[2J\r\x9b1m\u202e"),
    ("a\tb\nc", "a\tb\nc"),
    ("naïve 日本 ▁the Ġ \u200d🙂", "naïve 日本 ▁the Ġ \u200d🙂"),
    ("\0\x7f\u2028", r"\x00\x7f\u2028"),
])  # fmt: skip
def test_what_is_seen(text, seen):
    assert visible(text) == seen == visible(seen)
    assert harmless(seen) and not (text != seen and harmless(text))


def tensors_named(folder):
    return write_folder(folder, {f"{EVIL}.weight": matrix(40, 8), "b.weight": matrix(40, 8)}, {}, None)


def of_odd_type(folder):
    write_folder(folder, {"x": matrix(2, 2)})
    entry = {"dtype": EVIL, "shape": [2, 2], "data_offsets": [0, 16]}
    write_raw_safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": entry}, bytes(16))
    return folder


def of_odd_shards(folder):
    write_folder(folder, {"x": matrix(2, 2)})
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.embed_tokens.weight": f"{EVIL}.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def members_named(folder):
    np.savez(folder.with_suffix(".npz"), **{EVIL: np.eye(2), "b": np.eye(2)})
    return folder.with_suffix(".npz")


def keys_named(folder):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    write_folder(folder, {"x": matrix(2, 2)})
    (folder / "model.safetensors").unlink()
    torch.save({EVIL: torch.ones(4, 3), "b": torch.ones(5, 3)}, folder / "pytorch_model.bin")
    return folder


def folder_named(folder):
    (folder.parent / EVIL).mkdir()
    return folder.parent / EVIL


def missing(folder):
    return folder.parent / f"missing{EVIL}"


MADE = [tensors_named, of_odd_type, of_odd_shards, members_named, keys_named, folder_named, missing]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_messages_about_files(tmp_path, capsys, make):
    path = make(tmp_path / "m")
    assert status("inspect", path, "--quiet") == 2
    out, err = capsys.readouterr()
    assert harmless(out + err) and err.count("\n") == 1 and "x1b" in err


@pytest.mark.parametrize("terminal", [False, True])
def test_tables(tmp_path, monkeypatch, terminal):
    tokens = [*words(38), f"a{EVIL}", "=cmd|' /C calc'!A0"]
    folder = write_folder(tmp_path / EVIL, {EVIL: matrix(40, 8)}, {}, tokenizer(tokens))

    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    screen = Screen()
    monkeypatch.setenv("TERM", "dumb")  # so that nothing but the text is written
    monkeypatch.setattr(sys, "stdout", screen)
    for command in (("inspect", folder), ("neighbors", folder, "38", "--row")):
        assert status(*command, "--tensor", EVIL, "--dimension-k", "5", "--quiet") == 0
    assert harmless(screen.getvalue()) and r"\x1b]0;x\x07" in screen.getvalue()


def test_pages_and_summaries(tmp_path):
    model = embgeom.Embeddings.from_array(matrix(40, 8), words(40), name=f"<script>{EVIL}")
    comparison = embgeom.compare(model, model, k=3, dimension_sample=5, dimension_k=5)
    comparison.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert harmless(page) and page.count("<script>") == 1 and "&lt;script&gt;" in page
    assert harmless(comparison.summary())


def test_arguments(capsys):
    assert status(f"compare{EVIL}") == 2
    assert status("inspect", "example:small", f"--{EVIL}") == 2
    assert harmless(capsys.readouterr().err)


def test_warnings(capsys):
    with warnings_in_a_line():
        warnings.warn(f"one{EVIL}\ntwo", embgeom.EmbgeomWarning, stacklevel=1)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(EVIL, UserWarning, stacklevel=1)
    err = capsys.readouterr().err
    assert harmless(err) and err.startswith("embgeom: warning: one") and err.splitlines()[0].endswith(" two")


def test_debug(tmp_path, capsys):
    assert status("inspect", missing(tmp_path / "m"), "--debug") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and harmless(err)


def test_what_a_map_says_of_itself(tmp_path, capsys):
    write_safetensors(tmp_path / "map.safetensors", {EVIL: matrix(2, 2)})
    embgeom.SteeringVector({1: np.ones(3)}).save(tmp_path / "v.safetensors")
    given = ("transfer", tmp_path / "v.safetensors", "--map", tmp_path / "map.safetensors")
    assert status(*given, "-o", tmp_path / f"{EVIL}.pt") == 2
    assert harmless(capsys.readouterr().err)
