"""Find a token's row from what a person types."""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Mapping, Sequence

from embgeom.embeddings.token_format import METASPACE, utf8
from embgeom.errors import InputError

_ROW = re.compile(r"<row ([0-9]{1,18})>")
_MARKS = (METASPACE, "Ġ")
# Comparing with each of 262,144 tokens would take seconds.
_SUGGESTIONS = 5
_COMPARED = 10_000


def find_row(
    token: str | int,
    tokens: Sequence[str],
    by_token: Mapping[str, int],
    by_bytes: Mapping[bytes, int],
    name: str,
) -> int:
    """Return the row of `token`; `Embeddings.row_of` documents the order of preference."""
    if not isinstance(token, str):
        try:
            return _checked(operator.index(token), len(tokens), name)
        except TypeError as error:
            raise InputError(f"{token!r} is neither a token (a string) nor a row (an integer)") from error
    if match := _ROW.fullmatch(token):
        return _checked(int(match[1]), len(tokens), name)
    for text in (token, _unescaped(token)):
        row = _find_text(text, by_token, by_bytes)
        if row is not None:
            return row
    close = _close(token, tokens)
    hint = f"; close: {', '.join(map(repr, close))}" if close else ""
    raise InputError(f"{token!r} is not a token of {name} ({len(tokens)} rows){hint}")


def _checked(row: int, rows: int, name: str) -> int:
    if not 0 <= row < rows:
        raise InputError(f"row {row} is outside {name}, whose rows are 0 to {rows - 1}")
    return row


def _find_text(text: str, by_token: Mapping[str, int], by_bytes: Mapping[bytes, int]) -> int | None:
    written, spelled = by_token.get(text), by_bytes.get(utf8(text))
    # A byte-level vocabulary writes the byte 0xE9 as "é", but a person who types é means the letter.
    if written is not None and (spelled is None or text.isascii() or not _is_part(written, by_bytes)):
        return written
    rows = (spelled, *(by_bytes.get(reading) for reading in _readings(text)))
    return next((row for row in rows if row is not None), None)


def _is_part(row: int, by_bytes: Mapping[bytes, int]) -> bool:
    """Return whether a token is a single byte that is no character by itself."""
    return any(by_bytes.get(bytes([byte])) == row for byte in range(0x80, 0x100))


def _readings(text: str) -> list[bytes]:
    """Return what else `text` may spell, best first: a word after a space, a word before one."""
    if text[:1] in _MARKS:
        text = " " + text[1:]
    if text.startswith(" "):
        return [utf8(text), utf8(text[1:] + " ")]
    return [utf8(" " + text), utf8(text + " ")]


def _unescaped(token: str) -> str:
    """Return `token` with the escapes in which tables show it read as characters."""
    if "\\" not in token:
        return token
    with warnings.catch_warnings():
        # An unknown escape is no reason to warn: it stays as it is.
        warnings.simplefilter("ignore")
        try:
            return str(ast.literal_eval(f'"{token}"'))
        except (SyntaxError, ValueError):
            return token


def _close(token: str, tokens: Sequence[str]) -> list[str]:
    core = _core(token)
    if not core:
        return []
    same = [t for t in tokens if _core(t) == core]
    cores = ((t, _core(t)) for t in tokens)
    alike = [t for t, c in cores if c[:1] == core[:1] and abs(len(c) - len(core)) <= 2][:_COMPARED]
    wanted = difflib.get_close_matches(core, {_core(t) for t in alike}, n=_SUGGESTIONS, cutoff=0.6)
    near = [t for best in wanted for t in alike if _core(t) == best]
    return list(dict.fromkeys(same + near))[:_SUGGESTIONS]


def _core(token: str) -> str:
    return token.strip(" ▁Ġ#").lower()
