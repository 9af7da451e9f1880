"""A model's tokens from the `tokenizer.ggml` keys of its GGUF file.

llama.cpp's converter writes tokens as the tokenizer does, with four exceptions that are undone here:
WordPiece loses its ``##`` and marks the beginning of a word by ``▁`` instead; the tokens of RWKV are written
as Python writes bytes; a row without a token is named ``[PAD<row>]`` and marked as unused; and in tokens that
were added as plain text ``▁`` is a space already.
"""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.token_format import METASPACE, TokenFormat, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.gguf.file import GGUFFile
from embgeom.loading.tokenizers.table import TokenTable

_KEY = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_WITHOUT_TOKEN = re.compile(r"\[PAD\d+\]")
# These are special whatever their type.
_NAMED_SPECIAL = ("bos", "eos", "unknown", "seperator", "separator", "cls", "mask")
# These are special unless their type is normal: a config may name any token, as RWKV's names two newlines.
_NAMED = ("padding", "eot", "eom", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad",
          "fim_rep", "fim_sep")  # fmt: skip
# The kind "gpt2" is BPE of any alphabet. These pre-tokenizers escape spaces as SentencePiece does.
_METASPACE_PRE = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
_BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": 10, "r": 13, "t": 9, "\\": 92, "'": 39, '"': 34}


def gguf_tokens(file: GGUFFile) -> TokenTable | None:
    kind = file.text(f"{_KEY}model")
    tokens = file.strings(f"{_KEY}tokens")
    if kind in (None, "none", "no_vocab") or not tokens:
        return None
    types = file.integers(f"{_KEY}token_type")
    if types is not None and len(types) < len(tokens):
        raise LoadError(
            f"{file.path} holds {len(tokens)} tokens, but the types of {len(types)}; convert the model again"
        )

    def named(name: str) -> int | None:
        return file.integer(f"{_KEY}{name}_token_id")

    types = np.full(len(tokens), _NORMAL) if types is None else types[: len(tokens)]
    token_format = _token_format(file, kind, tokens, types)
    written = {"bert": _word_piece, "rwkv": _bytes}.get(kind, str)
    table = {
        row: token if of_type == _CONTROL else written(token)
        for row, (token, of_type) in enumerate(zip(tokens, types.tolist(), strict=True))
        if not (of_type == _UNUSED and _WITHOUT_TOKEN.fullmatch(token))
    }
    special = set(np.flatnonzero(np.isin(types, (_UNKNOWN, _CONTROL, _UNUSED))).tolist())
    special |= {row for name in _NAMED_SPECIAL if (row := named(name)) is not None}
    others = (row for name in _NAMED if (row := named(name)) is not None)
    special |= {row for row in others if row < len(types) and types[row] != _NORMAL}
    if kind == "bert":
        special |= {row for row, token in table.items() if token in _BERT_SPECIAL}
    as_text = set() if token_format.space else set(np.flatnonzero(types == _USER_DEFINED).tolist())
    return TokenTable(file.path, table, token_format, frozenset(as_text), frozenset(special & table.keys()))


def _token_format(
    file: GGUFFile, kind: str | None, tokens: list[str], types: npt.NDArray[np.int64]
) -> TokenFormat:
    byte_fallback = bool((types == _BYTE).any()) or TokenFormat.guess(tokens).byte_fallback
    metaspace = TokenFormat(space=METASPACE, byte_fallback=byte_fallback)
    kinds = {
        "bert": TokenFormat(continuation="##"),
        "rwkv": TokenFormat(byte_level=True),
        "gpt2": TokenFormat(byte_level=True),
        "plamo2": TokenFormat(byte_fallback=byte_fallback),
        **dict.fromkeys(("llama", "t5", "gemma4"), metaspace),
    }
    if kind == "gpt2":
        # Converters take a BPE over SentencePiece's alphabet for one over bytes.
        bytes_, spaces = (sum(token.startswith(mark) for token in tokens) for mark in ("Ġ", METASPACE))
        if file.text(f"{_KEY}pre") in _METASPACE_PRE or spaces > bytes_:
            return metaspace
    if kind not in kinds:
        raise LoadError(
            f"{file.path} has tokens of the kind {kind!r} (tokenizer.ggml.model), and embgeom does not know "
            "how they write text; pass vocabulary= (--vocabulary), a list or a file with one token for each "
            "row"
        )
    return kinds[kind]


def _word_piece(token: str) -> str:
    """Return a token of WordPiece as its own vocabulary writes it; a lone mark stands for ``##▁``."""
    if token.startswith(METASPACE) and token != METASPACE:
        return token.removeprefix(METASPACE)
    return f"##{token}"


@cache
def _byte_level_letters() -> dict[int, str]:
    return {byte: letter for letter, byte in byte_level_alphabet().items()}


def _bytes(token: str) -> str:
    """Return a token that is written as Python writes bytes in the letters of a byte-level vocabulary."""
    letters = _byte_level_letters()

    def byte(escape: re.Match[str]) -> str:
        code = escape[1]
        return chr(int(code[1:], 16) if code[0] == "x" and len(code) == 3 else _ESCAPED.get(code, ord(code)))

    return "".join(letters.get(ord(letter), letter) for letter in _ESCAPE.sub(byte, token))
