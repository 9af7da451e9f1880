"""The code and the output that a Markdown page shows."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import textwrap
from typing import NamedTuple

from embgeom.cli.main import main
from tests.helpers.printed import differences

FENCE = re.compile(r"^( *)```([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)
OMITTED = "..."


class Command(NamedTuple):
    """A command line without the word embgeom, and the output shown under it, "" where none is."""

    line: str
    output: str


def fenced(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [textwrap.dedent(code) for _, info, code in FENCE.findall(text) if info == language]


def indented(text: str) -> list[str]:
    """The indented blocks outside fences, each without its indentation."""
    found = INDENTED.findall(FENCE.sub("", text))
    return [re.sub(r"^    ", "", block.strip("\n"), flags=re.MULTILINE) for block in found]


def commands(text: str) -> list[Command]:
    """The commands of the console blocks that run here: on the examples, or on what these wrote."""
    found: list[Command] = []
    for block in fenced(text, "console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            name, _, line = line.partition(" ")
            # There are no files of the user's own here.
            here = line == "demo" or "example:" in line or line.startswith("transfer mood.")
            if name == "embgeom" and here and ".txt" not in line:
                found.append(Command(line, output.strip("\n")))
    return found


def run(line: str) -> str:
    """What a command prints, as text."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(stream):
        assert main(shlex.split(line)) == 0
    stream.seek(0)
    return stream.read()


def wrong(printed: str, shown: str) -> list[object]:
    """Where output shown differs from output printed; lines of three dots stand for any lines left out."""
    if OMITTED not in shown.splitlines():
        return list(differences(printed, shown))
    lines, found, start = printed.splitlines(), [], 0
    for part in re.split(rf"^{re.escape(OMITTED)}$", shown, flags=re.MULTILINE):
        wanted = part.strip("\n").splitlines()
        places = [i for i in range(start, len(lines) - len(wanted) + 1) if _alike(lines[i:], wanted)]
        if not places:
            found.append(part)
        else:
            start = places[0] + len(wanted)
    return found


def _alike(lines: list[str], wanted: list[str]) -> bool:
    pairs = list(zip(lines, wanted, strict=False))
    return all(len(line.split()) == len(want.split()) and not differences(line, want) for line, want in pairs)


def run_python(text: str) -> list[tuple[str, str]]:
    """Run the Python of a page in order; return (shown, printed) of each print that ends in a comment."""
    names: dict[str, object] = {}
    found = []
    for code in fenced(text, "python"):
        lines = code.splitlines()
        for node in ast.parse(code).body:
            stream = io.StringIO()
            with contextlib.redirect_stdout(stream):
                exec(compile(ast.Module([node], []), "page", "exec"), names)
            _, comment, said = lines[node.end_lineno - 1][node.end_col_offset :].partition("# ")
            if comment and ast.unparse(node).startswith("print("):
                found.append((said, stream.getvalue().rstrip("\n")))
    return found
