"""The texts that commands on steering read, from files or from the example."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError
from embgeom.examples import PREFIX, moods
from embgeom.loading.folder import is_file, parse_json, read_bytes, read_lines
from embgeom.steering import read_pairs

MOODS = f"{PREFIX}moods"


def pairs(name: str) -> list[tuple[str, str]]:
    return moods.pairs() if is_moods(name) else read_pairs(name)


def lines(name: str, example: Callable[[], list[str]]) -> list[str]:
    """Return the texts of a file, one in each line, or those of the example."""
    if is_moods(name):
        return example()
    found = [line for line in read_lines(Path(name)) if line.strip()]
    if not found:
        raise InputError(f"{name} holds no text; write one text per line")
    return found


def questions(name: str) -> list[Any]:
    found = parse_json(read_bytes(Path(name)), name)
    if not isinstance(found, list):
        raise LoadError(f"{name} holds a JSON {type(found).__name__}, not a list of questions")
    return found


def is_moods(name: str) -> bool:
    """Whether `name` stands for the example's texts; raise LoadError for another name like it."""
    if not name.startswith(PREFIX) or is_file(Path(name)):
        return False
    if name != MOODS:
        raise LoadError(f"there are no texts {name!r}; those that come with the package are {MOODS}")
    return True
