"""What the README shows of the example models is what the commands print."""

from __future__ import annotations

import re

import pytest

from tests.helpers.pages import commands, fenced, indented, wrong
from tests.helpers.printed import differences
from tests.helpers.real_data import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_short():
    assert len(README.splitlines()) <= 180


def test_the_first_command_is_the_demonstration():
    assert indented(README)[0] == "pip install . && embgeom demo"


def test_the_output_shown_is_that_of_the_demonstration():
    # The page shows all of it, and is compared with what the command prints.
    page = (ROOT / "docs/user-guide/command-line.md").read_text(encoding="utf-8")
    whole = next(command.output for command in commands(page) if command.line == "demo")
    shown = indented(README)[1]
    assert len(shown.splitlines()) > 15 and wrong(whole, shown) == []


def test_the_lines_of_python_run(capsys):
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert len(fenced(README, "python")) == 2
    names: dict[str, object] = {}
    for code in fenced(README, "python"):
        exec(code, names)
    printed = capsys.readouterr().out
    assert "neighbor_overlap" in printed and names["dimension"].shape == (4096,)
    assert printed.endswith(indented(README)[2] + "\n")


def test_the_test_command_is_the_first_block_under_its_heading():
    part = README[README.index("\n## Test\n") :]
    assert "python -m pytest" in indented(part)[0]


def test_the_version_is_that_of_the_package():
    import embgeom

    assert re.search(r"version = \{(.*)\}", README)[1] == embgeom.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.MULTILINE)[1] == embgeom.__version__


def test_a_wrong_number_would_be_seen():
    assert differences("a 0.4623 of 31.1%", "a 0.4624 of 31.1%") == []
    assert differences("a 0.4623 b", "a 0.4723 c") == [("0.4623", "0.4723"), ("b", "c")]
    assert differences("row 4000", "row 4001") == [("4000", "4001")]
    assert wrong("a\nb 1\nc", "a\n...\nc") == []
    assert wrong("a\nb 1\nc", "...\nb 2\n...") == ["\nb 2\n"]
