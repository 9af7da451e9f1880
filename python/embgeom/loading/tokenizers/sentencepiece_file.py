"""The pieces of a SentencePiece model, and the ids that a model of transformers gives to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from embgeom._common.optional import need
from embgeom.embeddings.token_format import METASPACE, TokenFormat
from embgeom.errors import LoadError
from embgeom.loading.tokenizers.classes import TokenizerClass
from embgeom.loading.tokenizers.settings import TokenizerSettings
from embgeom.loading.tokenizers.table import TokenTable, check_token, make_table

_PLAIN = TokenizerClass("pieces", "")
# The name that fairseq's models give to the file.
_FAIRSEQ_FILE = "sentencepiece.bpe.model"


def looks_like_sentencepiece(data: bytes) -> bool:
    """Return whether a file begins as a SentencePiece model does: with the first field of its message."""
    return data[:1] == b"\n" and len(data) > 2


def read_sentencepiece(data: bytes, path: Path, settings: TokenizerSettings) -> TokenTable:
    """Read a SentencePiece model, numbered as the tokenizer's class numbers it."""
    pieces, special, byte_fallback = _pieces(data, path)
    known = settings.known("pieces")
    if known is None and path.name == _FAIRSEQ_FILE:
        raise LoadError(
            f"{path} is the SentencePiece model of {settings.described}, whose ids may be shifted against "
            "the file's; pass vocabulary= (--vocabulary) with one token for each row, or save a "
            "tokenizer.json with transformers"
        )
    layout = known or _PLAIN
    last = _sentinels(settings) if layout.sentinels else layout.last
    tokens = [*layout.first, *pieces[layout.skipped :], *last]
    vocabulary = {token: row for row, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise LoadError(
            f"{path} holds a piece twice, or one of {', '.join(layout.first) or 'its own'}; fetch it again"
        )
    # The tokens of languages follow the pieces in an order that no file says.
    named = settings.special if known and not layout.languages else ()
    special |= {*settings.special, *layout.first, *last}
    token_format = TokenFormat(space=METASPACE, byte_fallback=byte_fallback)
    table = make_table(path, vocabulary, settings.added, token_format, special, named)
    if not known:
        note = f"the ids are those of {path.name}; how {settings.described} numbers its tokens is not known"
    elif layout.languages and not settings.added:
        note = (
            f"the rows from {len(tokens)} on are languages and special tokens that {path.name} does not name"
        )
    else:
        return table
    return replace(table, notes=(*table.notes, note))


def _pieces(data: bytes, path: Path) -> tuple[list[str], set[str], bool]:
    """Return the pieces of a model, those that are special, and whether some stand for bytes."""
    or_else = "; or save a tokenizer.json with transformers"
    package = need("sentencepiece", f"{path}, a SentencePiece model,", extra="sentencepiece", or_else=or_else)
    try:
        model: Any = package.SentencePieceProcessor(model_proto=data)
        ids = range(model.get_piece_size())
        pieces = [check_token(model.id_to_piece(i), path) for i in ids]
        special = {pieces[i] for i in ids if model.is_control(i) or model.is_unknown(i)}
        return pieces, special, any(map(model.is_byte, ids))
    except LoadError:
        raise
    except Exception as error:
        # The library raises what its C++ says, as one of several types.
        raise LoadError(
            f"{path} cannot be read as a SentencePiece model ({error}); fetch it again"
        ) from error


def _sentinels(settings: TokenizerSettings) -> tuple[str, ...]:
    """Return T5's sentinels, of which the last comes first."""
    count = settings.values.get("extra_ids")
    count = count if type(count) is int and 0 <= count <= 10_000 else 100
    return tuple(f"<extra_id_{i}>" for i in reversed(range(count)))
