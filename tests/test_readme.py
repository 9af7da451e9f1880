"""What the README shows of the example models is what the commands print."""

from __future__ import annotations

import re
import shlex

import pytest
from printed import differences
from real_data import ROOT

from embgeom.cli import main

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks():
    """The indented blocks of the README, each without its indentation."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    return [re.sub(r"^    ", "", block.strip("\n"), flags=re.MULTILINE) for block in found]


def shown():
    """Each command on an example, as (arguments, the output shown under it)."""
    found = {}
    texts = blocks()
    for text, following in zip(texts, [*texts[1:], ""], strict=True):
        command = re.match(r"(?:pip install \. && )?embgeom (.*)", text)
        # Commands that read the user's own files have nothing to read here.
        if command and (command[1] == "demo" or "example:" in command[1]) and "--pairs" not in command[1]:
            # The output stands in the same block, or where there is prose between, in the next one.
            found[command[1]] = text.partition("\n")[2].strip("\n") or following
    return found


def test_the_first_command_is_the_demonstration():
    assert blocks()[0] == "pip install . && embgeom demo"
    assert next(iter(shown())) == "demo" and len(shown()) == 4


@pytest.mark.parametrize("command", shown())
def test_outputs_are_real(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)) == 0
    assert differences(capsys.readouterr().out, shown()[command]) == []


def test_a_wrong_number_would_be_seen():
    assert differences("a 0.4623 of 31.1%", "a 0.4624 of 31.1%") == []
    assert differences("a 0.4623 b", "a 0.4723 c") == [("0.4623", "0.4723"), ("b", "c")]
    assert differences("row 4000", "row 4001") == [("4000", "4001")]
