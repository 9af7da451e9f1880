"""The tokens that a user passes: a list, a table, a file, or a tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom._common.foreign import to_strings
from embgeom.embeddings.spelling import Spelling
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import parse_json, read_bytes, read_lines
from embgeom.loading.tokenizers.object import is_tokenizer, table_of, table_of_vocabulary
from embgeom.loading.tokenizers.reading import read_file
from embgeom.loading.tokenizers.table import TokenTable, read_tokenizer_json, vocabulary_table
from embgeom.loading.tokenizers.vocabulary_files import uncounted

Tokens = str | PathLike[str] | Iterable[str]


def given_tokens(tokenizer: Any, vocabulary: Any) -> TokenTable | None:
    """Return the tokens that a user passes in either way, or None.

    Raises
    ------
    InputError
        If both are given, or the tokenizer is none.
    LoadError
        If the vocabulary is a file that cannot be read, or no list of tokens.
    """
    if tokenizer is not None and vocabulary is not None:
        raise InputError("give tokenizer= or vocabulary=, not both: each says which token each row is")
    if tokenizer is not None or is_tokenizer(vocabulary):
        return table_of(vocabulary if tokenizer is None else tokenizer)
    return None if vocabulary is None else token_table(vocabulary)


def token_table(tokens: Tokens) -> TokenTable:
    """Return the tokens that a user passes: a list, or the path of a file of tokens.

    A list and the lines of a .txt are taken in the order of the rows; how they write text is guessed from
    their marks.

    Parameters
    ----------
    tokens : sequence of str, or str or Path
        The tokens, or a file: a .txt, a .json list, a vocab.json, a tokenizer.json, a tekken.json, a tiktoken
        table or a SentencePiece model.

    Returns
    -------
    TokenTable
        The tokens by row.

    Raises
    ------
    LoadError
        If the file cannot be read, or holds no tokens.
    """
    if isinstance(tokens, Mapping):
        table = table_of_vocabulary(tokens)
        if len(table.tokens) != len(tokens):
            token, row = next((t, r) for t, r in tokens.items() if table.tokens[r] != t)
            raise LoadError(f"vocabulary= gives row {row} to {token!r:.40} and to {table.tokens[row]!r:.40}")
        return table
    if isinstance(tokens, str | PathLike):
        path = Path(tokens).expanduser()
        if path.suffix != ".json":
            return read_file(path) or listed_tokens(uncounted(read_lines(path), str(path)), path)
        content = parse_json(read_bytes(path), str(path))
        if isinstance(content, dict):
            # A tokenizer.json describes its model; a vocab.json is nothing but token -> row.
            if "model" in content or "vocab" in content:
                return read_file(path) or read_tokenizer_json(path)
            return _by_row(content, path)
        return listed_tokens(content, path)
    return listed_tokens(tokens, None)


def _by_row(vocabulary: dict[str, Any], path: Path) -> TokenTable:
    table = vocabulary_table(vocabulary, path)
    return replace(table, spelling=Spelling.guess(list(table.tokens.values())))


def spelled(table: TokenTable, spelling: Spelling | None) -> TokenTable:
    """Return the table with the spelling that the user says, if he says one."""
    return replace(table, spelling=spelling) if spelling else table


def listed_tokens(tokens: Any, path: Path | None) -> TokenTable:
    """Return tokens that are listed in the order of the rows; `path` is the file that lists them."""
    try:
        plain = to_strings(tokens, "it")
    except InputError as error:
        raise LoadError(
            f"{path or 'vocabulary='} is not a list of strings, one for each row: {error}"
        ) from None
    return TokenTable(path, dict(enumerate(plain)), Spelling.guess(plain), listed=True)
