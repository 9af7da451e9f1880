"""The options on which tokens count: --without, --with, --only."""

from __future__ import annotations

import argparse
import re

import pytest

from embgeom import Emb2Emb
from embgeom.cli.options import tokens_options
from embgeom.comparison.tokens import CLASSES, WITHOUT
from tests.helpers.cli import run, status


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        ([], WITHOUT),
        (["--without", "none"], ()),
        (["--without", "byte,untrained"], ("byte", "untrained")),
        (["--with", "all"], ()),
        (["--with", "untrained,equal"], ("special", "unused")),
        (["--without", "byte,special", "--with", "byte"], ("special",)),
    ],
)
def test_which_classes_are_left_out(arguments, without):
    parsed = tokens_options().parse_args(arguments)
    assert tuple(parsed.without) == without and parsed.only is None
    assert isinstance(parsed, argparse.Namespace)


def test_words_alone():
    assert tokens_options().parse_args(["--only", "words"]).only == "words"


def test_inspect_counts_what_is_asked_for(capsys, tmp_path):
    file = tmp_path / "tokens.txt"
    file.write_text(
        "\n".join(["king", "queen", "dog", "cat", "red", "blue", "two", "three"]), encoding="utf-8"
    )
    command = ("inspect", "example:small", "--dimension-k", 3, "--no-cache", "--quiet")
    run(*command, "--only", file)
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"rows count \(left out: special \d+, unused \d+, equal \d+, untrained \d+; only ", out)
    run(*command, "--dimension-sample", 10, "--with", "all", "--no-center")
    out = capsys.readouterr().out
    assert "4096 of 4096 rows count (no class is left out)" in out and "of 10 sampled" in out


@pytest.mark.parametrize("wrong", ["bytes", "special,bytes", ""])
def test_unknown_classes_are_refused(capsys, wrong):
    assert status("inspect", "example:small", "--without", wrong) == 2
    assert f"is not a class of tokens: use {', '.join(CLASSES)}" in capsys.readouterr().err


def test_a_map_is_fitted_on_tokens_that_count(tmp_path, capsys):
    pair = ("fit", "example:small", "example:large", "--quiet", "-o", tmp_path / "map.safetensors")
    run(*pair)
    assert Emb2Emb.load(tmp_path / "map.safetensors").provenance["tokens"]["shared"] < 3800
    run(*pair, "--with", "all")
    assert Emb2Emb.load(tmp_path / "map.safetensors").provenance["tokens"]["shared"] == 4095
    capsys.readouterr()
