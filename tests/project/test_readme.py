"""What the README shows of the example models is what the commands print."""

from __future__ import annotations

import contextlib
import io
import re
import shlex

import pytest

from embgeom.cli.main import main
from tests.helpers.printed import differences
from tests.helpers.real_data import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks():
    """The indented blocks of the README, each without its indentation."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", README, re.MULTILINE)
    return [re.sub(r"^    ", "", block.strip("\n"), flags=re.MULTILINE) for block in found]


def shown():
    """Each command on the examples, as arguments -> the output shown under it, "" where none is.

    The output stands in the same block as the last of its commands, or where there is prose between, in
    the next one.
    """
    found = {}
    texts = blocks()
    for text, following in zip(texts, [*texts[1:], ""], strict=True):
        lines = re.findall(r"^(?:pip install \. && )?embgeom (.*)", text, re.MULTILINE)
        commands = [line for line in lines if line == "demo" or "example:" in line or "transfer" in line]
        # There are no files of the user's own here.
        commands = [line for line in commands if ".txt" not in line]
        found |= dict.fromkeys(commands, "")
        if commands:
            found[commands[-1]] = text.split(commands[-1])[1].strip("\n") or following
    return found


def test_the_first_command_is_the_demonstration():
    assert blocks()[0] == "pip install . && embgeom demo"
    assert next(iter(shown())) == "demo" and len(shown()) == 9


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What each command prints, run in the README's order in one folder: some read what others wrote."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for command in shown():
            stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
            with contextlib.redirect_stdout(stream):
                assert main(shlex.split(command)) == 0
            stream.seek(0)
            found[command] = stream.read()
    return found


@pytest.mark.parametrize("command", [command for command, output in shown().items() if output])
def test_outputs_are_real(command, printed):
    assert differences(printed[command], shown()[command]) == []


def test_the_python_lines_on_steering_write_what_the_command_does(printed, capsys):
    code = next(block for block in blocks() if block.startswith("import embgeom") and "Emb2Emb" in block)
    exec(code, {})
    steered = next(text for command, text in printed.items() if command.startswith("steer"))
    assert "very sad." in capsys.readouterr().out and "very sad." in steered


def test_the_lines_of_python_run(capsys):
    pytest.importorskip("transformers", reason="transformers is not installed")
    names: dict[str, object] = {}
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(code, names)
    assert "neighbor overlap" in capsys.readouterr().out and names["three"].tokens[2] == "three"


def test_a_wrong_number_would_be_seen():
    assert differences("a 0.4623 of 31.1%", "a 0.4624 of 31.1%") == []
    assert differences("a 0.4623 b", "a 0.4723 c") == [("0.4623", "0.4723"), ("b", "c")]
    assert differences("row 4000", "row 4001") == [("4000", "4001")]
