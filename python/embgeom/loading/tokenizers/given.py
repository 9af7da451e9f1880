"""The tokens that a user passes: a list, a table, a file, or a tokenizer in memory, of any library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embgeom._common.foreign import to_strings
from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import Folder, parse_json, read_bytes, read_lines
from embgeom.loading.tokenizers.reading import (
    parse_tokenizer_json,
    read_file,
    read_tokenizer_json,
    read_tokens,
)
from embgeom.loading.tokenizers.table import TokenTable, check_vocabulary, make_table
from embgeom.loading.tokenizers.vocabulary_files import uncounted

Tokens = str | PathLike[str] | Iterable[str]


def given_tokens(tokenizer: Any, vocabulary: Any) -> TokenTable | None:
    """Return the tokens that a user passes in either way, or None."""
    if tokenizer is not None and vocabulary is not None:
        raise InputError("give tokenizer= or vocabulary=, not both: each says which token each row is")
    if tokenizer is not None or _is_tokenizer(vocabulary):
        return _table_of_tokenizer(vocabulary if tokenizer is None else tokenizer)
    return None if vocabulary is None else token_table(vocabulary)


def token_table(tokens: Tokens) -> TokenTable:
    """Return the tokens of a list, a table of token -> row, or a file of tokens.

    A list and the lines of a .txt are taken in the order of the rows; how they write text is guessed from
    their marks.
    """
    if isinstance(tokens, Mapping):
        table = _table_of_rows(check_vocabulary(tokens, None))
        if len(table.tokens) != len(tokens):
            token, row = next((t, r) for t, r in tokens.items() if table.tokens[r] != t)
            raise LoadError(f"vocabulary= gives row {row} to {token!r:.40} and to {table.tokens[row]!r:.40}")
        return table
    if not isinstance(tokens, str | PathLike):
        return listed_tokens(tokens, None)
    path = Path(tokens).expanduser()
    if path.suffix != ".json":
        return read_file(path) or listed_tokens(uncounted(read_lines(path), str(path)), path)
    held = parse_json(read_bytes(path), str(path))
    if not isinstance(held, dict):
        return listed_tokens(held, path)
    # A tokenizer.json describes its model; a vocab.json is nothing but token -> row.
    if "model" in held or "vocab" in held:
        return read_file(path) or read_tokenizer_json(path)
    table = make_table(path, check_vocabulary(held, path), [], TokenFormat())
    return replace(table, token_format=TokenFormat.guess(table.tokens.values()))


def listed_tokens(tokens: Any, path: Path | None) -> TokenTable:
    """Return tokens that are listed in the order of the rows; `path` is the file that lists them."""
    try:
        plain = to_strings(tokens, "it")
    except InputError as error:
        raise LoadError(
            f"{path or 'vocabulary='} is not a list of strings, one for each row: {error}"
        ) from None
    return TokenTable(path, dict(enumerate(plain)), TokenFormat.guess(plain), listed=True)


def _is_tokenizer(x: object) -> bool:
    """Return whether `x` is a tokenizer, or a processor that holds one."""
    return callable(getattr(getattr(x, "tokenizer", x), "get_vocab", None))


def _table_of_tokenizer(tokenizer: Any) -> TokenTable:
    """Return the tokens of a tokenizer of transformers, fast or slow, or of the tokenizers library."""
    if not _is_tokenizer(tokenizer):
        raise InputError(
            f"tokenizer= is a {type(tokenizer).__name__}: pass a tokenizer of transformers or tokenizers, or "
            "a list or file of tokens as vocabulary="
        )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    decoder = getattr(tokenizer, "added_tokens_decoder", None)
    added = dict(decoder) if isinstance(decoder, Mapping) else {}
    if hasattr(backend, "to_str"):
        table = parse_tokenizer_json(backend.to_str().encode(), Path("the tokenizer"))
    else:
        table = _by_files(tokenizer) or _by_vocabulary(tokenizer, added)
    special = {row for row, token in added.items() if getattr(token, "special", False)}
    special |= {row for row in getattr(tokenizer, "all_special_ids", ()) if isinstance(row, int)}
    tokens = {row: str(token) for row, token in added.items()} | table.tokens
    return replace(table, file=None, tokens=tokens, special=table.special | special)


def _by_files(tokenizer: Any) -> TokenTable | None:
    """Read a tokenizer that is written in Python from the files that it writes, if these say the same."""
    if not hasattr(tokenizer, "save_pretrained"):
        return None
    with TemporaryDirectory(prefix="embgeom-") as folder, suppress(LoadError):
        tokenizer.save_pretrained(folder)
        table = read_tokens(Folder(Path(folder)))
        if all(table.tokens.get(row) == token for token, row in tokenizer.get_vocab().items()):
            return table
    return None


def _by_vocabulary(tokenizer: Any, added: Mapping[int, Any]) -> TokenTable:
    """Read a tokenizer that is written in Python: what it is made of tells how it spells."""
    table = _table_of_rows(check_vocabulary(tokenizer.get_vocab(), None))
    if hasattr(tokenizer, "byte_decoder"):
        table = replace(table, token_format=TokenFormat(byte_level=True))
    elif hasattr(tokenizer, "wordpiece_tokenizer"):
        table = replace(table, token_format=TokenFormat(continuation="##"))
    elif table.token_format == TokenFormat():
        raise InputError(
            f"how {type(tokenizer).__name__} writes spaces into its tokens is not known: pass "
            "vocabulary=tokenizer.get_vocab(), and token_format= if the tokens are more than plain text"
        )
    # What follows the vocabulary itself was added, and is written as text.
    size = getattr(tokenizer, "vocab_size", len(table.tokens))
    return replace(table, added=frozenset(row for row in added if row >= size))


def _table_of_rows(vocabulary: Mapping[str, int]) -> TokenTable:
    tokens = {row: token for token, row in vocabulary.items()}
    return TokenTable(None, tokens, TokenFormat.guess(tokens.values()))
