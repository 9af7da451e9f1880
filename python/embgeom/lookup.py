"""Find a token's row from what a person types."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Mapping, Sequence

from embgeom.errors import InputError
from embgeom.spelling import METASPACE, utf8

_ROW = re.compile(r"<row (\d+)>")
_MARKS = (METASPACE, "Ġ")
# Comparing with each of 262,144 tokens takes seconds, and the tenth suggestion helps nobody.
_SUGGESTIONS = 5
_COMPARED = 2000


def find_row(
    token: str | int,
    tokens: Sequence[str],
    by_token: Mapping[str, int],
    by_bytes: Mapping[bytes, int],
    name: str,
) -> int:
    """Return the row of `token`; `Embeddings.index` documents the order of preference."""
    if not isinstance(token, str):
        try:
            return _checked(operator.index(token), len(tokens), name)
        except TypeError as error:
            raise InputError(f"{token!r} is neither a token (a string) nor a row (an integer)") from error
    if token in by_token:
        return by_token[token]
    if match := _ROW.fullmatch(token):
        return _checked(int(match[1]), len(tokens), name)
    for spelled in _readings(token):
        if spelled in by_bytes:
            return by_bytes[spelled]
    close = _close(token, tokens)
    hint = f"; close: {', '.join(map(repr, close))}" if close else ""
    raise InputError(f"{token!r} is no token of {name} ({len(tokens)} rows){hint}")


def _checked(row: int, rows: int, name: str) -> int:
    if not 0 <= row < rows:
        raise InputError(f"row {row} is outside {name}, whose rows are 0 to {rows - 1}")
    return row


def _readings(token: str) -> list[bytes]:
    """Return what `token` may spell, best first: a word after a space, a word before one, the bare bytes."""
    if token[:1] in _MARKS:
        token = " " + token[1:]
    if token.startswith(" "):
        return [utf8(token), utf8(token[1:] + " ")]
    return [utf8(" " + token), utf8(token + " "), utf8(token)]


def _close(token: str, tokens: Sequence[str]) -> list[str]:
    core = _core(token)
    if not core:
        return []
    same = [t for t in tokens if _core(t) == core]
    alike = [t for t in tokens if _core(t)[:2] == core[:2]][:_COMPARED]
    cores = difflib.get_close_matches(core, {_core(t) for t in alike}, n=_SUGGESTIONS, cutoff=0.6)
    near = [t for wanted in cores for t in alike if _core(t) == wanted]
    return list(dict.fromkeys(same + near))[:_SUGGESTIONS]


def _core(token: str) -> str:
    return token.strip(" ▁Ġ#").lower()
