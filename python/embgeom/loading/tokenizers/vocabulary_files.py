"""Vocabularies older than tokenizer.json: vocab.json and vocab.txt, which do not say how they write text.

The class of the tokenizer tells (`classes`), and the marks in the tokens themselves where no class is named.
What neither tells is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from embgeom.embeddings.token_format import TokenFormat, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import Source, read_json, read_lines
from embgeom.loading.tokenizers.classes import BERT
from embgeom.loading.tokenizers.settings import TokenizerSettings, token_content
from embgeom.loading.tokenizers.table import TokenTable, check_vocabulary, make_table

_WORD_PIECE, _SEPARATOR = TokenFormat(continuation="##"), TokenFormat(separator="@@")
_M2M_LANGUAGES = 100
_COUNTED = re.compile(r"(.*\S) \d+")


def read_vocab_json(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    """Read a vocab.json: a table of token -> id."""
    vocabulary = check_vocabulary(read_json(path), path)
    if settings.values.get("separate_vocabs") is True or source.find("target_vocab.json"):
        raise LoadError(
            f"{source.name} has two vocabularies, {path.name} of its encoder and target_vocab.json of its "
            "decoder; pass the one of the matrix with vocabulary= (--vocabulary)"
        )
    if (known := settings.known("json")) is None:
        token_format = _by_marks(vocabulary, settings)
        if token_format is None:
            raise _unclear(path, settings)
        return make_table(path, vocabulary, settings.added, token_format, (), settings.special)
    # A mark that the class does not use would be spelled as text.
    odd_mark = known.token_format.word_end is None and TokenFormat.guess(vocabulary).word_end is not None
    if known.token_format.byte_level and (odd_mark or not _is_byte_level(vocabulary, settings)):
        raise _unclear(path, settings)
    special = known.special.split()
    if not known.languages:
        return make_table(path, vocabulary, settings.added, known.token_format, special, settings.special)
    # M2M100's languages follow the vocabulary in alphabetical order.
    languages = [t for t in settings.special if t.startswith("__") and t.endswith("__")]
    in_order = len(languages) == _M2M_LANGUAGES and languages == sorted(languages)
    special += settings.special
    table = make_table(
        path, vocabulary, settings.added, known.token_format, special, languages if in_order else ()
    )
    first = max(vocabulary.values()) + 1
    note = (
        f"rows {first} to {first + _M2M_LANGUAGES - 1} are M2M100's languages; rows behind them were made up "
        "to fill the matrix, and have no token"
    )
    return replace(table, notes=(*table.notes, note))


def read_vocab_txt(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    """Read a vocab.txt: a token a line, or a token and its count."""
    lines = read_lines(path)
    if settings.tokenizer_class in ("Phobert", "Bertweet") or (
        is_counted(lines) and source.find("bpe.codes")
    ):
        return _counted(path, lines, settings)
    # Transformers leaves out the white space at the end of a token.
    vocabulary = {line.rstrip() or line: row for row, line in enumerate(uncounted(lines, str(path)))}
    if known := settings.known("txt"):
        token_format, special = known.token_format, known.special
    else:
        token_format = TokenFormat.guess(lines)
        special = BERT if token_format == _WORD_PIECE else ""
        # A class that is not known may number its tokens in any way.
        if settings.tokenizer_class or token_format == TokenFormat():
            raise _unclear(path, settings)
    return make_table(path, vocabulary, settings.added, token_format, special.split(), settings.special)


def is_counted(lines: list[str]) -> bool:
    """Return whether nearly every line is a token and its count, as in a dictionary of fairseq."""
    counted = sum(_COUNTED.fullmatch(line) is not None for line in lines)
    return bool(lines) and 100 * counted >= 99 * len(lines)


def uncounted(lines: list[str], where: str) -> list[str]:
    """Return the lines of a plain list of tokens, or raise `LoadError` if they hold counts, too."""
    if is_counted(lines):
        raise LoadError(
            f"{where} holds a token and its count in each line ({lines[0]!r:.60}), as dictionaries of "
            "fairseq, PhoBERT and BERTweet do, whose ids begin at 4 (<s>, <pad>, </s>, <unk> come first); "
            "pass vocabulary= (--vocabulary) with one token for each row"
        )
    return lines


def _counted(path: Path, lines: list[str], settings: TokenizerSettings) -> TokenTable:
    """Read the tokens of PhoBERT or BERTweet: counted, from id 4 on."""
    usual = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
    *names, mask = (
        token_content(settings.values.get(f"{key}_token")) or token for key, token in usual.items()
    )
    vocabulary = {name: row for row, name in enumerate(names)}
    for number, line in enumerate(lines, 1):
        matched = _COUNTED.fullmatch(line.strip())
        if matched is None or matched[1] in vocabulary:
            raise LoadError(
                f"{path}: line {number}, {line!r:.60}, is not a new token with its count; fetch it again"
            )
        vocabulary[matched[1]] = len(vocabulary)
    return make_table(path, vocabulary, settings.added, _SEPARATOR, names, [mask, *settings.special])


def _is_byte_level(tokens: Iterable[str], settings: TokenizerSettings) -> bool:
    """Return whether nearly all tokens are of characters that stand for bytes."""
    known = byte_level_alphabet()
    other = {*settings.special, *(content for _, content, _ in settings.added)}
    ordinary = [t for t in tokens if t not in other and not (t.startswith("<") and t.endswith(">"))]
    return 100 * sum(not all(c in known for c in t) for t in ordinary) <= len(ordinary)


def _by_marks(tokens: Mapping[str, int], settings: TokenizerSettings) -> TokenFormat | None:
    """Return the token format that the marks in the tokens show, or None where they leave two possible."""
    marks = TokenFormat.guess(tokens)
    if marks.space or marks.separator:
        return marks
    word_end = "</w>" if any(t.endswith("</w>") and len(t) > 4 for t in tokens) else None
    if not _is_byte_level(tokens, settings):
        return TokenFormat(word_end=word_end) if word_end else None
    # The space is a byte that GPT-2 writes with a letter of its own, which no other vocabulary has.
    is_bytes = any("Ġ" in t for t in tokens) or byte_level_alphabet().keys() <= {
        t.removesuffix("</w>") for t in tokens
    }
    is_bytes = is_bytes or (word_end is not None and all(t.isascii() for t in tokens))
    return TokenFormat(byte_level=True, word_end=word_end) if is_bytes else None


def _unclear(path: Path, settings: TokenizerSettings) -> LoadError:
    return LoadError(
        f"{path} is the vocabulary of {settings.described}, and does not say how its tokens write spaces and "
        "bytes; pass vocabulary= (--vocabulary) with one token for each row and, if need be, token_format=, "
        "or save a tokenizer.json with transformers"
    )
