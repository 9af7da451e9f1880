"""Tables of bytes and ranks: those of tiktoken (base64 and a number a line) and Mistral's tekken.json.

Every token is a string of bytes, which a byte-level vocabulary writes with a character for each byte. Special
tokens are not among the ranks: they follow tiktoken's, and come before tekken's.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from embgeom.embeddings.token_format import TokenFormat, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import read_json
from embgeom.loading.tokenizers.settings import TokenizerSettings
from embgeom.loading.tokenizers.table import TokenTable, check_token, is_id, make_table

_RANK_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,9})\r?")
# What follows the ranks where no file says it, by the number of ranks: the ids by Meta's and Alibaba's own
# tokenizers. Llama 3 has 251 more, whose names depend on the version.
_AFTER_RANKS = {
    128_000: ("llama", {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>",
                        7: "<|end_header_id|>", 9: "<|eot_id|>"}),
    151_643: ("qwen", dict(enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>",
                                      *(f"<|extra_{i}|>" for i in range(205)))))),
}  # fmt: skip
# What tekken.json of versions up to 7 takes for granted, by mistral_common.
_TEKKEN = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_LETTERS = [letter for letter, _ in sorted(byte_level_alphabet().items(), key=lambda item: item[1])]


def is_tiktoken(data: bytes) -> bool:
    """Return whether a file begins as a table of tiktoken does."""
    return _RANK_LINE.fullmatch(data[:4096].lstrip(b"\r\n").split(b"\n", 1)[0]) is not None


def read_tiktoken(data: bytes, path: Path, settings: TokenizerSettings) -> TokenTable:
    """Read a table of tiktoken: in each line a token's bytes in base64, and its rank, which is its id."""
    vocabulary: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if (match := _RANK_LINE.fullmatch(line)) is not None:
            _put(vocabulary, match[1], int(match[2]), f"{path}: line {number}")
        elif line.strip():
            raise LoadError(
                f"{path}: line {number}, {line!r:.60}, is not a token in base64 with its rank; fetch it again"
            )
    count = len(vocabulary)
    if len(set(vocabulary.values())) != count:
        raise LoadError(f"{path} gives one rank to several tokens; fetch it again")
    family, special = _AFTER_RANKS.get(count, ("", {}))
    if settings.model_type not in ("", family):
        special = {}
    added = settings.added or [(count + i, token, True) for i, token in special.items()]
    table = make_table(path, vocabulary, added, TokenFormat(byte_level=True), (), settings.special)
    if settings.added:
        return table
    unsaid = (
        f"{path.name} holds {count} ranks and {'only some' if added else 'none'} of the special tokens "
        "behind them; other rows have no token"
    )
    return replace(table, notes=(*table.notes, unsaid))


def read_tekken(path: Path) -> TokenTable:
    """Read a tekken.json by the layout that mistral_common documents: special tokens come first."""
    content = read_json(path)
    entries: Any = content.get("vocab")
    config = content.get("config")
    sizes = config if isinstance(config, dict) else {}
    size, count = sizes.get("default_vocab_size"), sizes.get("default_num_special_tokens")
    held = len(entries) if isinstance(entries, list) else 0
    if not is_id(size) or not is_id(count) or not count < size <= count + held:
        raise LoadError(
            f"{path}: default_vocab_size {size!r:.40} and default_num_special_tokens {count!r:.40} do not "
            f"fit {held} ranks; fetch it again"
        )
    vocabulary: dict[str, int] = {}
    # What goes beyond is not part of the vocabulary: mistral_common cuts it off, too.
    for rank, entry in enumerate(entries[: size - count]):
        where = f"{path}: entry {rank} of vocab"
        token = entry.get("token_bytes") if isinstance(entry, dict) and entry.get("rank") == rank else None
        if not isinstance(token, str):
            raise LoadError(f"{where} is not a token with rank {rank}; fetch it again")
        _put(vocabulary, token.encode("utf-8", "replace"), count + rank, where)
    special = [(row, name, True) for row, name in _tekken_special(content, count, path).items()]
    return make_table(path, vocabulary, special, TokenFormat(byte_level=True))


def _tekken_special(content: dict[str, Any], count: int, path: Path) -> dict[int, str]:
    listed = content.get("special_tokens")
    if listed is None:
        listed = [{"rank": i, "token_str": token} for i, token in enumerate(_TEKKEN[:count])]
    names: dict[int, str] = {}
    for entry in listed if isinstance(listed, list) else [listed]:
        record = entry if isinstance(entry, dict) else {}
        rank, token = record.get("rank"), record.get("token_str")
        if not is_id(rank) or not isinstance(token, str) or rank >= count or rank in names:
            raise LoadError(f"{path}: {entry!r:.80} is not one of {count} special tokens; fetch it again")
        names[rank] = check_token(token, path)
    return {i: names.get(i, f"<SPECIAL_{i}>") for i in range(count)}


def _put(vocabulary: dict[str, int], text: bytes, row: int, where: str) -> None:
    """Enter a token in base64 under its id."""
    try:
        token = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise LoadError(
            f"{where} holds {text!r:.60}, which is not base64 ({error}); fetch it again"
        ) from error
    written = "".join(map(_LETTERS.__getitem__, token))
    if not written or written in vocabulary:
        raise LoadError(
            f"{where} holds {token!r:.60}, which is {'there already' if token else 'empty'}; fetch it again"
        )
    vocabulary[written] = row
