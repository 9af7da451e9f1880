"""The files that the commands on steering read and write, and the texts that stand for such files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError, OutputError
from embgeom.examples import PREFIX, moods
from embgeom.loading.folder import is_file

MOODS = f"{PREFIX}moods"
RESULT_SUFFIX = ".json"


def pairs(name: str) -> list[tuple[str, str]]:
    """Return the contrastive pairs of a file or of the example."""
    from embgeom.steering import read_pairs

    return moods.pairs() if is_moods(name) else read_pairs(name)


def prompts(name: str) -> list[str]:
    """Return the beginnings of texts of a file or of the example."""
    return moods.prompts() if is_moods(name) else _lines(name)


def neutral_texts(name: str) -> list[str]:
    """Return the neutral texts of a file or of the example."""
    return moods.neutral_texts() if is_moods(name) else _lines(name)


def items(name: str) -> list[Any]:
    """Return the items of a JSON file.

    Raises
    ------
    LoadError
        If it cannot be read, or holds no list.
    """
    from embgeom.loading.folder import parse_json, read_bytes

    found = parse_json(read_bytes(Path(name)), name)
    if not isinstance(found, list):
        raise LoadError(f"{name} holds a JSON {type(found).__name__}, not a list of items")
    return found


def is_moods(name: str) -> bool:
    """Whether the texts in two moods are meant that come with the package.

    Raises
    ------
    LoadError
        If the name is that of an example, but not of this one.
    """
    if not name.startswith(PREFIX) or is_file(Path(name)):
        return False
    if name != MOODS:
        raise LoadError(f"there are no texts {name!r}; those that come with the package are {MOODS}")
    return True


def check_results(output: str | None, figure: str | None, inputs: Iterable[str | None]) -> None:
    """Find out before long work whether its results can be written.

    Raises
    ------
    InputError
        If both are one file, or matplotlib is missing.
    OutputError
        If a file cannot be written or is one of the inputs, `output` does not end in ``.json``, or `figure`
        in no format of figures.
    """
    from embgeom._common.figures import check_figure_path
    from embgeom._common.writing import check_file_writable, check_kept

    check_kept({"-o": output, "--figure": figure}, inputs)
    if output is not None:
        if Path(output).suffix != RESULT_SUFFIX:
            raise OutputError(f"-o {output} does not end in {RESULT_SUFFIX}, the format of what is written")
        check_file_writable(output)
    if figure is not None:
        check_figure_path(figure)


def _lines(name: str) -> list[str]:
    from embgeom.loading.folder import read_lines

    lines = [line for line in read_lines(Path(name)) if line.strip()]
    if not lines:
        raise InputError(f"{name} holds no text; write one in each line")
    return lines
