"""Tables of bytes and ranks: those of tiktoken (base64 and a number a line) and Mistral's tekken.json.

Every token is a string of bytes, which a byte-level vocabulary writes with a character for each byte. Special
tokens are no part of the ranks: they follow tiktoken's, and come before tekken's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embgeom.embeddings.spelling import Spelling, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import read_bytes, read_json
from embgeom.loading.tokenizers.settings import TokenizerSettings
from embgeom.loading.tokenizers.table import TokenTable, check_token, is_id, make_table

_RANK_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} \d{1,9}\r?")
# What follows the ranks where no file says it: the ids by Meta's and Alibaba's own tokenizers.
# Llama 3 has 251 more, whose names depend on the version.
_LLAMA_3 = {
    0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>",
    9: "<|eot_id|>",
}  # fmt: skip
_LLAMA_3_RANKS = 128_000
_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))
_QWEN_RANKS = 151_643
# What tekken.json of versions up to 7 takes for granted, by mistral_common.
_TEKKEN = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_LETTERS = [letter for letter, _ in sorted(byte_level_alphabet().items(), key=lambda item: item[1])]


def is_tiktoken(data: bytes) -> bool:
    """Return whether a file begins as a table of tiktoken does."""
    line = data[:4096].lstrip(b"\r\n").split(b"\n", 1)[0]
    return _RANK_LINE.fullmatch(line) is not None


def read_tiktoken(path: Path, settings: TokenizerSettings) -> TokenTable:
    """Read a table of tiktoken: in each line a token's bytes in base64, and its rank, which is its id.

    Parameters
    ----------
    path : Path
        The file.
    settings : TokenizerSettings
        What the small files beside it say; they name the special tokens, which follow the ranks.

    Returns
    -------
    TokenTable
        The tokens by id, written in a byte-level way.

    Raises
    ------
    LoadError
        If the file is no such table.
    """
    vocabulary: dict[str, int] = {}
    for number, line in enumerate(read_bytes(path).split(b"\n"), 1):
        if not line.strip():
            continue
        if _RANK_LINE.fullmatch(line) is None:
            raise LoadError(
                f"{path}: line {number}, {line!r:.60}, is no token in base64 with its rank; fetch it again"
            )
        text, rank = line.split()
        _put(vocabulary, text, int(rank), f"{path}: line {number}")
    if not vocabulary:
        raise LoadError(f"{path} holds no tokens; fetch it again")
    if len(set(vocabulary.values())) != len(vocabulary):
        raise LoadError(f"{path} gives one rank to several tokens; fetch it again")
    count = len(vocabulary)
    added = settings.added or [(count + i, t, True) for i, t in _special_behind(settings, count).items()]
    table = make_table(path, vocabulary, added, Spelling(byte_level=True), (), settings.special)
    behind = "only some of " if added else "none of "
    unsaid = (
        f"{path.name} holds {count} ranks and {behind}the special tokens behind them; other rows have no "
        "token"
    )
    return table if settings.added else replace(table, notes=(*table.notes, unsaid))


def _special_behind(settings: TokenizerSettings, ranks: int) -> dict[int, str]:
    """Return the special tokens behind the ranks of the models that are known by their number of ranks."""
    if ranks == _QWEN_RANKS and settings.model_type in ("", "qwen"):
        return dict(enumerate(_QWEN))
    return _LLAMA_3 if ranks == _LLAMA_3_RANKS and settings.model_type in ("", "llama") else {}


def read_tekken(path: Path) -> TokenTable:
    """Read a tekken.json, by the layout that mistral_common documents: special tokens first, then the ranks.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    TokenTable
        The tokens by id, written in a byte-level way.

    Raises
    ------
    LoadError
        If the file is broken.
    """
    content = read_json(path)
    entries = content.get("vocab")
    size, special_count = (
        _config(content, f"default_{key}", path) for key in ("vocab_size", "num_special_tokens")
    )
    ranks = size - special_count
    if not isinstance(entries, list) or not 0 < ranks <= len(entries):
        held = len(entries) if isinstance(entries, list) else 0
        raise LoadError(
            f"{path}: default_vocab_size {size} less {special_count} special tokens is {ranks} ranks, but "
            f"the file holds {held}; fetch it again"
        )
    vocabulary: dict[str, int] = {}
    # What goes beyond is no part of the vocabulary: mistral_common cuts it off, too.
    for place, entry in enumerate(entries[:ranks]):
        where = f"{path}: entry {place} of vocab"
        if (
            not isinstance(entry, dict)
            or entry.get("rank") != place
            or not isinstance(entry.get("token_bytes"), str)
        ):
            raise LoadError(f"{where} is no token with rank {place}; fetch it again")
        _put(vocabulary, entry["token_bytes"].encode("utf-8", "replace"), special_count + place, where)
    names = _tekken_special(content, special_count, path)
    return make_table(
        path, vocabulary, [(row, name, True) for row, name in names.items()], Spelling(byte_level=True)
    )


def _config(content: Mapping[str, Any], key: str, path: Path) -> int:
    config = content.get("config")
    value = config.get(key) if isinstance(config, dict) else None
    if not isinstance(value, int) or not is_id(value):
        raise LoadError(f"{path}: config's {key} is {value!r:.40}, not a count; fetch it again")
    return value


def _tekken_special(content: Mapping[str, Any], count: int, path: Path) -> dict[int, str]:
    listed = content.get("special_tokens")
    if listed is None:
        listed = [{"rank": i, "token_str": token} for i, token in enumerate(_TEKKEN)][:count]
    names: dict[int, str] = {}
    for entry in listed if isinstance(listed, list) else [None]:
        rank: Any = entry.get("rank") if isinstance(entry, dict) else None
        token: Any = entry.get("token_str") if isinstance(entry, dict) else None
        if not is_id(rank) or not isinstance(token, str) or rank >= count or rank in names:
            raise LoadError(f"{path}: {entry!r:.80} is no special token of {count}; fetch it again")
        names[rank] = check_token(token, path)
    return {i: names.get(i, f"<SPECIAL_{i}>") for i in range(count)}


def _put(vocabulary: dict[str, int], text: bytes, row: int, where: str) -> None:
    """Enter a token in base64 under its id."""
    try:
        token = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise LoadError(
            f"{where} holds {text!r:.60}, which is no base64 ({error}); fetch it again"
        ) from error
    written = "".join(map(_LETTERS.__getitem__, token))
    if not written or written in vocabulary:
        raise LoadError(
            f"{where} holds {token!r:.60}, which is {'there already' if token else 'no token'}; fetch it "
            "again"
        )
    vocabulary[written] = row
