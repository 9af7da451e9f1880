"""A table of tokens: how each is written, what it spells, and which are special."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeGuard

from embgeom.embeddings.token_format import TokenFormat, utf8
from embgeom.errors import InputError, LoadError

# An id far beyond any vocabulary is a broken file, not a reason to make a list of that length.
_MAX_ID = 1 << 26

Added = tuple[int, str, bool]
"""A token added to a vocabulary: its id, its content, and whether it is special."""


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one tokenizer by id, as it writes them."""

    file: Path | None
    tokens: dict[int, str]
    token_format: TokenFormat
    added: frozenset[int] = frozenset()  # written as plain text, whatever the token format
    special: frozenset[int] = frozenset()  # spell nothing
    raw: Mapping[int, bytes] = field(default_factory=dict)  # what words spell that are not UTF-8
    notes: tuple[str, ...] = ()
    listed: bool = False  # a plain list, which needs one for each row, in order

    @property
    def size(self) -> int:
        return max(self.tokens, default=-1) + 1

    def spell(self, row: int) -> bytes | None:
        """Return the bytes that a token spells in running text, or None if it spells nothing."""
        if row in self.special or row not in self.tokens:
            return None
        if row in self.raw:
            return self.raw[row]
        token = self.tokens[row]
        return (utf8(token) if row in self.added else self.token_format.spell(token)) or None

    def noted(self, note: str) -> TokenTable:
        return replace(self, notes=(*self.notes, note))


def make_table(
    path: Path,
    vocabulary: Mapping[str, int],
    added: Iterable[Added],
    token_format: TokenFormat,
    special: Iterable[str] = (),
    named: Iterable[str] = (),
) -> TokenTable:
    """Bring a vocabulary and what is added to it together.

    Added tokens come before the vocabulary's. Tokens in `special` are special if they are there; `named` are
    special tokens that transformers adds after the vocabulary, in this order, if they are not there.
    """
    # Nobody adds a token that is there already.
    added = [a for a in added if vocabulary.get(a[1], a[0]) == a[0]]
    tokens = {row: token for token, row in vocabulary.items()}
    notes = [
        f"row {row} is {tokens[row]!r:.40} in {path.name}, and {token!r:.40} was added under that id: the "
        "latter is taken"
        for row, token, _ in added
        if tokens.get(row, token) != token
    ]
    # A token that is in the vocabulary too is written as the vocabulary writes it.
    as_text = {row for row, token, _ in added if tokens.get(row) != token}
    tokens |= {row: token for row, token, _ in added}
    if not tokens:
        raise LoadError(f"{path} holds no tokens; fetch it again")
    known, special, named = {*tokens.values(), *vocabulary}, set(special), dict.fromkeys(named)
    new = [token for token in named if token not in known]
    # Transformers numbers them from the count of tokens on, which among ids that jump may be taken, and with
    # them those that a tokenizer's class takes for granted.
    if len(tokens) == max(tokens) + 1 and special <= known | set(new):
        tokens |= dict(enumerate(new, start=len(tokens)))
    ids = {row for row, token in tokens.items() if token in special or token in named}
    ids |= {row for row, _, is_special in added if is_special}
    return TokenTable(path, tokens, token_format, frozenset(as_text), frozenset(ids), notes=tuple(notes))


def is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MAX_ID


def check_token(token: str, where: str | Path) -> str:
    """Return a token, or raise `LoadError` if it holds half a character, which no text file can."""
    try:
        token.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LoadError(
            f"{where}: the token {token!a:.60} holds a lone surrogate; fetch the file again"
        ) from error
    return token


def check_vocabulary(vocabulary: Mapping[Any, Any], path: Path | None) -> Mapping[str, int]:
    """Return a table of token -> id, of a file or, without a path, of the user's own."""
    error, where = (LoadError, f"{path}: ") if path else (InputError, "")
    mend = "fetch it again" if path else "its keys are strings, and its values rows, counted from 0"
    for token, row in vocabulary.items():
        if not isinstance(token, str) or not is_id(row):
            raise error(f"{where}vocabulary[{token!r:.60}] = {row!r:.40} is not a token with its row; {mend}")
        if path:
            check_token(token, path)
    if not vocabulary:
        raise error(f"{where}the vocabulary is empty: it holds no token; {mend}")
    return vocabulary
