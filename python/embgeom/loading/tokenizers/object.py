"""A tokenizer in memory, of transformers or tokenizers, as a table of tokens; neither library is imported."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embgeom.embeddings.spelling import Spelling
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import Folder
from embgeom.loading.tokenizers.reading import read_tokens
from embgeom.loading.tokenizers.table import TokenTable, read_tokenizer_json


def is_tokenizer(x: object) -> bool:
    """Return whether `x` is a tokenizer, or a processor that holds one."""
    return callable(getattr(getattr(x, "tokenizer", x), "get_vocab", None))


def table_of(tokenizer: Any) -> TokenTable:
    """Return the tokens of a tokenizer object by id.

    Parameters
    ----------
    tokenizer : object
        A tokenizer of transformers, fast or slow, a processor that holds one, or a ``tokenizers.Tokenizer``.

    Returns
    -------
    TokenTable
        The tokens, spelled as their tokenizer.json would say.

    Raises
    ------
    InputError
        If it is no tokenizer, or has no tokens that are text.
    """
    if not is_tokenizer(tokenizer):
        raise InputError(
            f"tokenizer= is a {type(tokenizer).__name__}: pass a tokenizer of transformers or tokenizers, or "
            "a list or file of tokens as vocabulary="
        )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    table = _by_json(backend) if hasattr(backend, "to_str") else _by_files(tokenizer)
    return _with_special(table or _by_vocabulary(tokenizer), tokenizer)


def table_of_vocabulary(vocabulary: Mapping[Any, Any]) -> TokenTable:
    """Return the tokens of a table token -> row, such as a tokenizer's ``get_vocab()``.

    Raises
    ------
    InputError
        If a key is no string, or a value no row.
    """
    for token, row in vocabulary.items():
        if not isinstance(token, str) or type(row) is not int or row < 0:
            raise InputError(
                f"vocabulary[{token!r:.60}] = {row!r:.40}: a table of tokens has strings as keys and rows, "
                "counted from 0, as values"
            )
    if not vocabulary:
        raise InputError("the vocabulary is empty: it holds no token")
    tokens = {row: token for token, row in vocabulary.items()}
    return TokenTable(None, tokens, Spelling.guess(tokens.values()))


def _by_json(backend: Any) -> TokenTable:
    # How tokens are spelled stands in the JSON alone, and is read in one place, from a file.
    with TemporaryDirectory(prefix="embgeom-") as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(backend.to_str(), encoding="utf-8")
        return replace(read_tokenizer_json(path), file=None)


def _by_files(tokenizer: Any) -> TokenTable | None:
    """Read a tokenizer that is written in Python from the files that it writes, if these say the same."""
    if not hasattr(tokenizer, "save_pretrained"):
        return None
    with TemporaryDirectory(prefix="embgeom-") as folder, suppress(LoadError):
        tokenizer.save_pretrained(folder)
        table = replace(read_tokens(Folder(Path(folder))), file=None)
        if all(table.tokens.get(row) == token for token, row in tokenizer.get_vocab().items()):
            return table
    return None


def _by_vocabulary(tokenizer: Any) -> TokenTable:
    """Read a tokenizer that is written in Python: what it is made of tells how it spells."""
    table = table_of_vocabulary(tokenizer.get_vocab())
    if hasattr(tokenizer, "byte_decoder"):
        table = replace(table, spelling=Spelling(byte_level=True))
    elif hasattr(tokenizer, "wordpiece_tokenizer"):
        table = replace(table, spelling=Spelling(continuation="##"))
    elif table.spelling == Spelling():
        raise InputError(
            f"how {type(tokenizer).__name__} writes spaces into its tokens is not known: pass "
            "vocabulary=tokenizer.get_vocab(), and spelling= if the tokens are more than plain text"
        )
    # What stands behind the vocabulary itself was added, and is written as text.
    size = getattr(tokenizer, "vocab_size", len(table.tokens))
    return replace(table, added=frozenset(row for row in _added(tokenizer) if row >= size))


def _with_special(table: TokenTable, tokenizer: Any) -> TokenTable:
    added = _added(tokenizer)
    special = {row for row, token in added.items() if getattr(token, "special", False)}
    special |= {row for row in getattr(tokenizer, "all_special_ids", ()) if isinstance(row, int)}
    missing = {row: str(token) for row, token in added.items() if row not in table.tokens}
    return replace(table, tokens={**table.tokens, **missing}, special=table.special | frozenset(special))


def _added(tokenizer: Any) -> dict[int, Any]:
    added = getattr(tokenizer, "added_tokens_decoder", None)
    return dict(added) if isinstance(added, Mapping) else {}
