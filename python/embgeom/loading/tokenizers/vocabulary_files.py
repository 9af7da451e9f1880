"""Vocabularies other than tokenizer.json, which do not say how they write text or number their tokens.

vocab.json and vocab.txt, SentencePiece models, and tables of bytes and ranks: those of tiktoken (base64 and a
number a line) and Mistral's tekken.json. The class of the tokenizer tells what is known (`settings`), and
the marks in the tokens themselves where no class is named. What neither tells is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embgeom._common.checks import need
from embgeom.embeddings.token_format import METASPACE, TokenFormat, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import read_json, read_lines
from embgeom.loading.source import Source
from embgeom.loading.tokenizers.settings import BERT, TokenizerClass, TokenizerSettings, token_of
from embgeom.loading.tokenizers.table import TokenTable, check_token, check_vocabulary, is_id, make_table

_BYTES, _WORD_PIECE = TokenFormat(byte_level=True), TokenFormat(continuation="##")
_SEPARATOR = TokenFormat(separator="@@")
_M2M_LANGUAGES = 100
_COUNTED = re.compile(r"(.*\S) \d+")
# The name that fairseq's models give to a SentencePiece model.
_FAIRSEQ_FILE = "sentencepiece.bpe.model"
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


def read_vocab_json(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    vocabulary = check_vocabulary(read_json(path), path)
    if settings.values.get("separate_vocabs") is True or source.find("target_vocab.json"):
        raise LoadError(
            f"{source.name} has two vocabularies, {path.name} of its encoder and target_vocab.json of its "
            "decoder; pass the one of the matrix with vocabulary= (--vocabulary)"
        )
    if (known := settings.known("json")) is None:
        return settings.table(path, vocabulary, _by_marks(path, vocabulary, settings))
    # A mark that the class does not use would be spelled as text.
    odd_mark = known.token_format.word_end is None and TokenFormat.guess(vocabulary).word_end is not None
    if known.token_format.byte_level and (odd_mark or not _is_byte_level(vocabulary, settings)):
        raise _unclear(path, settings)
    special = known.special.split()
    if not known.languages:
        return settings.table(path, vocabulary, known.token_format, special)
    # M2M100's languages follow the vocabulary in alphabetical order.
    languages = [t for t in settings.special if t.startswith("__") and t.endswith("__")]
    named = languages if len(languages) == _M2M_LANGUAGES and languages == sorted(languages) else ()
    table = settings.table(path, vocabulary, known.token_format, [*special, *settings.special], named)
    first = max(vocabulary.values()) + 1
    return table.noted(
        f"rows {first} to {first + _M2M_LANGUAGES - 1} are M2M100's languages; rows after them were made up "
        "to fill the matrix, and have no token"
    )


def read_vocab_txt(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    """Read a vocab.txt: a token a line, or a token and its count."""
    lines = read_lines(path)
    counted = settings.tokenizer_class in ("Phobert", "Bertweet")
    if counted or (_is_counted(lines) and source.find("bpe.codes")):
        return _read_counted(path, lines, settings)
    # Transformers leaves out the white space at the end of a token.
    vocabulary = {line.rstrip() or line: row for row, line in enumerate(uncounted(lines, str(path)))}
    if known := settings.known("txt"):
        return settings.table(path, vocabulary, known.token_format, known.special.split())
    token_format = TokenFormat.guess(lines)
    # A class that is not known may number its tokens in any way.
    if settings.tokenizer_class or token_format == TokenFormat():
        raise _unclear(path, settings)
    return settings.table(path, vocabulary, token_format, BERT.split() if token_format == _WORD_PIECE else ())


def uncounted(lines: list[str], where: str) -> list[str]:
    """Return the lines of a plain list of tokens, or raise `LoadError` if they hold counts, too."""
    if _is_counted(lines):
        raise LoadError(
            f"{where} holds a token and its count in each line ({lines[0]!r:.60}), as dictionaries of "
            "fairseq, PhoBERT and BERTweet do, whose ids begin at 4 (<s>, <pad>, </s>, <unk> come first); "
            "pass vocabulary= (--vocabulary) with one token for each row"
        )
    return lines


def _is_counted(lines: list[str]) -> bool:
    """Return whether nearly every line is a token and its count, as in a dictionary of fairseq."""
    counted = sum(_COUNTED.fullmatch(line) is not None for line in lines)
    return bool(lines) and 100 * counted >= 99 * len(lines)


def _read_counted(path: Path, lines: list[str], settings: TokenizerSettings) -> TokenTable:
    """Read the tokens of PhoBERT or BERTweet: counted, from id 4 on."""
    usual = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    *names, mask = (token_of(settings.values.get(f"{key}_token")) or token for key, token in usual.items())
    vocabulary = {name: row for row, name in enumerate(names)}
    for number, line in enumerate(lines, 1):
        matched = _COUNTED.fullmatch(line.strip())
        if matched is None or matched[1] in vocabulary:
            raise LoadError(
                f"{path}: line {number}, {line!r:.60}, is not a new token with its count; fetch it again"
            )
        vocabulary[matched[1]] = len(vocabulary)
    return settings.table(path, vocabulary, _SEPARATOR, names, [mask, *settings.special])


def _is_byte_level(tokens: Iterable[str], settings: TokenizerSettings) -> bool:
    known = byte_level_alphabet().keys()
    other = {*settings.special, *(token for _, token, _ in settings.added)}
    ordinary = [t for t in tokens if t not in other and not (t.startswith("<") and t.endswith(">"))]
    return 100 * sum(not known >= set(t) for t in ordinary) <= len(ordinary)


def _by_marks(path: Path, tokens: Mapping[str, int], settings: TokenizerSettings) -> TokenFormat:
    marks = TokenFormat.guess(tokens)
    if marks.space or marks.separator:
        return marks
    word_end = "</w>" if any(t.endswith("</w>") and len(t) > 4 for t in tokens) else None
    byte_level, clear = _is_byte_level(tokens, settings), word_end is not None
    if byte_level:
        # The space is a byte that GPT-2 writes with a letter of its own, which no other vocabulary has.
        letters = {t.removesuffix("</w>") for t in tokens}
        clear = (
            any("Ġ" in t for t in tokens)
            or byte_level_alphabet().keys() <= letters
            or (clear and all(t.isascii() for t in tokens))
        )
    if not clear:
        raise _unclear(path, settings)
    return TokenFormat(byte_level=byte_level, word_end=word_end)


def _unclear(path: Path, settings: TokenizerSettings) -> LoadError:
    return LoadError(
        f"{path} is the vocabulary of {settings.described}, and does not say how its tokens write spaces and "
        "bytes; pass vocabulary= (--vocabulary) with one token for each row and, if need be, token_format=, "
        "or save a tokenizer.json with transformers"
    )


def looks_like_sentencepiece(data: bytes) -> bool:
    """Return whether a file begins as a SentencePiece model does: with the first field of its message."""
    return data[:1] == b"\n" and len(data) > 2


def read_sentencepiece(data: bytes, path: Path, settings: TokenizerSettings) -> TokenTable:
    """Read a SentencePiece model, numbered as the tokenizer's class numbers it."""
    or_else = "; or save a tokenizer.json with transformers"
    package = need("sentencepiece", f"{path}, a SentencePiece model,", extra="sentencepiece", or_else=or_else)
    try:
        model: Any = package.SentencePieceProcessor(model_proto=data)
        ids = range(model.get_piece_size())
        pieces = [model.id_to_piece(i) for i in ids]
        special = {pieces[i] for i in ids if model.is_control(i) or model.is_unknown(i)}
        token_format = TokenFormat(space=METASPACE, byte_fallback=any(map(model.is_byte, ids)))
    except Exception as error:
        # The library raises what its C++ says, as one of several types.
        raise LoadError(
            f"{path} cannot be read as a SentencePiece model ({error}); fetch it again"
        ) from error
    known = settings.known("pieces")
    if known is None and path.name == _FAIRSEQ_FILE:
        raise LoadError(
            f"{path} is the SentencePiece model of {settings.described}, whose ids may be shifted against "
            "the file's; pass vocabulary= (--vocabulary) with one token for each row, or save a "
            "tokenizer.json with transformers"
        )
    layout, last = known or TokenizerClass("pieces", ""), known.last if known else ()
    if layout.sentinels:
        count = settings.values.get("extra_ids")
        count = count if is_id(count) and count <= 10_000 else 100
        last = tuple(f"<extra_id_{i}>" for i in reversed(range(count)))
    tokens = [*layout.first, *(check_token(piece, path) for piece in pieces[layout.skipped :]), *last]
    vocabulary = {token: row for row, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise LoadError(
            f"{path} holds a piece twice, or one of {', '.join(layout.first) or 'its own'}; fetch it again"
        )
    # The tokens of languages follow the pieces in an order that no file says.
    named = None if known and not layout.languages else ()
    special |= {*settings.special, *layout.first, *last}
    table = settings.table(path, vocabulary, token_format, special, named)
    if known is None:
        return table.noted(
            f"the ids are those of {path.name}; how {settings.described} numbers its tokens is not known"
        )
    if not layout.languages or settings.added:
        return table
    return table.noted(
        f"the rows from {len(tokens)} on are languages and special tokens that {path.name} does not name"
    )


def is_tiktoken(data: bytes) -> bool:
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
    if settings.added:
        return settings.table(path, vocabulary, _BYTES)
    family, special = _AFTER_RANKS.get(count, ("", {}))
    known = settings.model_type in ("", family)
    added = [(count + i, token, True) for i, token in special.items() if known]
    table = make_table(path, vocabulary, added, _BYTES, (), settings.special)
    return table.noted(
        f"{path.name} holds {count} ranks and {'only some' if added else 'none'} of the special tokens "
        "after them; other rows have no token"
    )


def read_tekken(path: Path) -> TokenTable:
    """Read a tekken.json by the layout that mistral_common documents: special tokens come first."""
    held = read_json(path)
    entries: Any = held.get("vocab")
    config = held.get("config")
    sizes = config if isinstance(config, dict) else {}
    size, count = sizes.get("default_vocab_size"), sizes.get("default_num_special_tokens")
    most = len(entries) if isinstance(entries, list) else 0
    if not is_id(size) or not is_id(count) or not count < size <= count + most:
        raise LoadError(
            f"{path}: default_vocab_size {size!r:.40} and default_num_special_tokens {count!r:.40} do not "
            f"fit {most} ranks; fetch it again"
        )
    vocabulary: dict[str, int] = {}
    # What goes beyond is not part of the vocabulary: mistral_common cuts it off, too.
    for rank, entry in enumerate(entries[: size - count]):
        where = f"{path}: entry {rank} of vocab"
        token = entry.get("token_bytes") if isinstance(entry, dict) and entry.get("rank") == rank else None
        if not isinstance(token, str):
            raise LoadError(f"{where} is not a token with rank {rank}; fetch it again")
        _put(vocabulary, token.encode("utf-8", "replace"), count + rank, where)
    names = {i: f"<SPECIAL_{i}>" for i in range(count)}
    listed = held.get("special_tokens")
    if listed is None:
        listed = [{"rank": i, "token_str": token} for i, token in enumerate(_TEKKEN[:count])]
    for entry in listed if isinstance(listed, list) else [listed]:
        record = entry if isinstance(entry, dict) else {}
        row, token = record.get("rank"), record.get("token_str")
        if not is_id(row) or not isinstance(token, str) or names.get(row) != f"<SPECIAL_{row}>":
            raise LoadError(f"{path}: {entry!r:.80} is not one of {count} special tokens; fetch it again")
        names[row] = check_token(token, path)
    return make_table(path, vocabulary, [(row, name, True) for row, name in names.items()], _BYTES)


def _put(vocabulary: dict[str, int], text: bytes, row: int, where: str) -> None:
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
