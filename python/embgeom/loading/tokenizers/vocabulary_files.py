"""Vocabularies older than tokenizer.json: vocab.json and vocab.txt, which do not say how they write text.

A vocab.json with merges.txt may be GPT-2's, in which every character is a byte, or fastBPE's, in which "é" is
an é and ``</w>`` ends a word; a vocab.txt may hold WordPieces, or counted tokens whose ids begin at 4. The
class of the tokenizer tells, and the marks in the tokens themselves where no class is named. What neither
tells is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from embgeom.embeddings.spelling import METASPACE, Spelling, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import Source, read_json, read_lines
from embgeom.loading.tokenizers.settings import TokenizerSettings
from embgeom.loading.tokenizers.table import TokenTable, check_vocabulary, make_table

_BYTES = Spelling(byte_level=True)
_WORD_PIECE = Spelling(continuation="##")
_SEPARATOR = Spelling(separator="@@")
_WORD_END = Spelling(word_end="</w>")
_METASPACE = Spelling(space=METASPACE)

_END_OF_TEXT = frozenset({"<|endoftext|>"})
_FAIRSEQ = frozenset({"<s>", "<pad>", "</s>", "<unk>", "<mask>"})
_BERT = frozenset({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})
_ESM = frozenset({"<cls>", "<pad>", "<eos>", "<unk>", "<mask>"})
_XLM = _FAIRSEQ | {f"<special{i}>" for i in range(10)}

# How the classes of transformers that have a vocab.json write text, and what is special by their own
# defaults.
# fmt: off
_JSON: dict[str, tuple[Spelling, frozenset[str]]] = {
    **dict.fromkeys(("GPT2", "CodeGen", "Qwen2", "Qwen3_5", "Whisper"), (_BYTES, _END_OF_TEXT)),
    **dict.fromkeys(("Roberta", "Bart", "LED", "Longformer", "Mvp", "Luke", "LayoutLMv3", "MarkupLM",
                     "Blenderbot"), (_BYTES, _FAIRSEQ)),
    "GPTNeoX": (_BYTES, _END_OF_TEXT | {"<|padding|>"}),
    "Deberta": (_BYTES, _BERT),
    "CLIP": (Spelling(byte_level=True, word_end="</w>"), frozenset({"<|startoftext|>", "<|endoftext|>"})),
    "Flaubert": (_WORD_END, _XLM),
    "XLM": (_WORD_END, _XLM),
    "Herbert": (_WORD_END, _FAIRSEQ),
    "BioGpt": (_WORD_END, _FAIRSEQ - {"<mask>"}),
    "OpenAIGPT": (_WORD_END, frozenset({"<unk>"})),
    "CTRL": (_SEPARATOR, frozenset({"<unk>"})),
    "BlenderbotSmall": (_SEPARATOR, frozenset({"__start__", "__end__", "__unk__", "__null__"})),
    "Marian": (_METASPACE, frozenset({"<unk>", "</s>", "<pad>"})),
    "M2M100": (_METASPACE, _FAIRSEQ - {"<mask>"}),
    "Speech2Text": (_METASPACE, _FAIRSEQ - {"<mask>"}),
}
_WORD_PIECES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Bert", "DistilBert", "Electra", "ConvBert", "MobileBert", "SqueezeBert", "Lxmert",
                     "LayoutLM", "LayoutLMv2", "DPRQuestionEncoder", "DPRContextEncoder", "DPRReader",
                     "RetriBert", "Realm", "RoFormer", "RoCBert", "BertJapanese", "Nezha"), _BERT),
    "Splinter": _BERT | {"[QUESTION]"},
    "Tapas": _BERT | {"[EMPTY]"},
    "MPNet": frozenset({"<s>", "</s>", "<pad>", "<mask>", "[UNK]"}),
    "Funnel": _FAIRSEQ | {"<sep>", "<cls>"},
}
# The class where tokenizer_config.json names none, by the model_type of config.json.
_CLASS_OF_TYPE = {
    "flaubert": "Flaubert", "xlm": "XLM", "herbert": "Herbert", "biogpt": "BioGpt", "openai-gpt": "OpenAIGPT",
    "ctrl": "CTRL", "blenderbot-small": "BlenderbotSmall", "marian": "Marian", "m2m_100": "M2M100",
    "speech_to_text": "Speech2Text", "clip": "CLIP", "clip_text_model": "CLIP", "gpt2": "GPT2",
    "gptj": "GPT2", "gpt_neo": "GPT2", "opt": "GPT2", "gpt_neox": "GPTNeoX", "codegen": "CodeGen",
    "whisper": "Whisper", "roberta": "Roberta", "bart": "Bart", "blenderbot": "Blenderbot", "led": "LED",
    "longformer": "Longformer", "deberta": "Deberta", "qwen2": "Qwen2", "qwen3": "Qwen2", "bert": "Bert",
    "distilbert": "DistilBert", "electra": "Electra", "mpnet": "MPNet", "layoutlm": "LayoutLM",
    "mobilebert": "MobileBert", "funnel": "Funnel", "convbert": "ConvBert", "lxmert": "Lxmert",
    "esm": "Esm",
}
# fmt: on
_M2M_LANGUAGES = 100
_COUNTED = re.compile(r"(.*\S) \d+")


def read_vocab_json(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    """Read a vocab.json: a table of token -> id.

    Parameters
    ----------
    path : Path
        The file.
    source : Source
        The model's files, for those that lie beside it.
    settings : TokenizerSettings
        What the small files beside it say.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If the file is broken, or nothing tells how its tokens write text.
    """
    vocabulary = check_vocabulary(read_json(path), path)
    if not vocabulary:
        raise LoadError(f"{path} holds no tokens; fetch it again")
    if settings.values.get("separate_vocabs") is True or source.find("target_vocab.json"):
        raise LoadError(
            f"{source.name} has two vocabularies, {path.name} of its encoder and target_vocab.json of its "
            "decoder; pass the one of the matrix with vocabulary= (--vocabulary)"
        )
    name = _class_of(settings)
    if name in _JSON:
        spelling, special = _JSON[name]
        contradicts = spelling.byte_level and (
            not _is_byte_level(vocabulary, settings)
            # A mark that the class does not use would be spelled as text.
            or (spelling.word_end is None and Spelling.guess(vocabulary).word_end is not None)
        )
    else:
        guessed = _by_marks(vocabulary, settings)
        spelling, special = guessed or Spelling(), frozenset()
        contradicts = guessed is None
    if contradicts:
        raise _unclear(path, settings)
    if name == "M2M100":
        return _with_languages(path, vocabulary, settings)
    return make_table(path, vocabulary, settings.added, spelling, special, settings.special)


def read_vocab_txt(path: Path, source: Source, settings: TokenizerSettings) -> TokenTable:
    """Read a vocab.txt: a token a line, or a token and its count.

    Parameters
    ----------
    path : Path
        The file.
    source : Source
        The model's files, for those that lie beside it.
    settings : TokenizerSettings
        What the small files beside it say.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If the file is broken, or nothing tells how its tokens write text.
    """
    lines = read_lines(path)
    name = _class_of(settings)
    if settings.tokenizer_class in ("Phobert", "Bertweet") or (
        is_counted(lines) and source.find("bpe.codes")
    ):
        return _counted(path, lines, settings)
    # Transformers leaves out the white space at the end of a token.
    vocabulary = {line.rstrip() or line: row for row, line in enumerate(uncounted(lines, str(path)))}
    if name in _WORD_PIECES:
        return make_table(path, vocabulary, settings.added, _WORD_PIECE, _WORD_PIECES[name], settings.special)
    if name == "Esm":
        return make_table(path, vocabulary, settings.added, Spelling(), _ESM, settings.special)
    spelling = Spelling.guess(lines)
    # A class that is not known may number its tokens in any way.
    if settings.tokenizer_class or spelling == Spelling():
        raise _unclear(path, settings)
    special = _BERT if spelling == _WORD_PIECE else frozenset()
    return make_table(path, vocabulary, settings.added, spelling, special, settings.special)


def is_counted(lines: list[str]) -> bool:
    """Return whether nearly every line is a token and its count, as in a dictionary of fairseq."""
    return bool(lines) and 100 * sum(_COUNTED.fullmatch(line) is not None for line in lines) >= 99 * len(
        lines
    )


def uncounted(lines: list[str], where: str) -> list[str]:
    """Return the lines of a plain list of tokens, or raise `LoadError` if they hold counts, too.

    Parameters
    ----------
    lines : list of str
        The lines of a file.
    where : str
        The file, for the message.

    Returns
    -------
    list of str
        The same lines.

    Raises
    ------
    LoadError
        If nearly every line is a token and its count.
    """
    if is_counted(lines):
        raise LoadError(
            f"{where} holds a token and its count in each line ({lines[0]!r:.60}), as dictionaries of "
            "fairseq, PhoBERT and BERTweet do, whose ids begin at 4 (<s>, <pad>, </s>, <unk> come first); "
            "pass vocabulary= (--vocabulary) with one token for each row"
        )
    return lines


def _counted(path: Path, lines: list[str], settings: TokenizerSettings) -> TokenTable:
    """Read the tokens of PhoBERT or BERTweet: counted, from id 4 on."""
    usual = (("bos_token", "<s>"), ("pad_token", "<pad>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    names = [_value(settings, key, token) for key, token in usual]
    vocabulary = {name: row for row, name in enumerate(names)}
    for number, line in enumerate(lines):
        matched = _COUNTED.fullmatch(line.strip())
        if matched is None or matched[1] in vocabulary:
            raise LoadError(
                f"{path}: line {number + 1}, {line!r:.60}, is no new token with its count; fetch it again"
            )
        vocabulary[matched[1]] = len(vocabulary)
    named = [_value(settings, "mask_token", "<mask>"), *settings.special]
    return make_table(path, vocabulary, settings.added, _SEPARATOR, names, named)


def _value(settings: TokenizerSettings, key: str, default: str) -> str:
    value = settings.values.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else default


def _with_languages(path: Path, vocabulary: Mapping[str, int], settings: TokenizerSettings) -> TokenTable:
    """Return M2M100's tokens, of which those of the languages follow the vocabulary in alphabetical order."""
    languages = [t for t in settings.special if t.startswith("__") and t.endswith("__")]
    in_order = len(languages) == _M2M_LANGUAGES and languages == sorted(languages)
    special = _JSON["M2M100"][1] | set(settings.special)
    table = make_table(path, vocabulary, settings.added, _METASPACE, special, languages if in_order else ())
    last = max(vocabulary.values(), default=-1) + 1
    note = (
        f"rows {last} to {last + _M2M_LANGUAGES - 1} are M2M100's languages; rows behind them were made up "
        "to fill the matrix, and have no token"
    )
    return TokenTable(
        table.file, table.tokens, table.spelling, table.added, table.special, notes=(*table.notes, note)
    )


def _class_of(settings: TokenizerSettings) -> str | None:
    return settings.tokenizer_class or _CLASS_OF_TYPE.get(settings.model_type)


def _is_byte_level(tokens: Iterable[str], settings: TokenizerSettings) -> bool:
    """Return whether nearly all tokens are of characters that stand for bytes."""
    known = byte_level_alphabet()
    other = {*settings.special, *(content for _, content, _ in settings.added)}
    ordinary = [t for t in tokens if t not in other and not (t.startswith("<") and t.endswith(">"))]
    return 100 * sum(not all(c in known for c in t) for t in ordinary) <= len(ordinary)


def _by_marks(tokens: Iterable[str], settings: TokenizerSettings) -> Spelling | None:
    """Return the spelling that the marks in the tokens show, or None where they leave two possible."""
    tokens = list(tokens)
    marks = Spelling.guess(tokens)
    word_end = "</w>" if any(t.endswith("</w>") and len(t) > 4 for t in tokens) else None
    if marks.space or marks.separator:
        return marks
    if not _is_byte_level(tokens, settings):
        return _WORD_END if word_end else None
    # The space is a byte that GPT-2 writes with a letter of its own, which no other vocabulary has.
    is_bytes = any("Ġ" in t for t in tokens) or set(byte_level_alphabet()) <= {
        t.removesuffix("</w>") for t in tokens
    }
    ascii_only = all(t.isascii() for t in tokens)
    return Spelling(byte_level=True, word_end=word_end) if is_bytes or (ascii_only and word_end) else None


def _unclear(path: Path, settings: TokenizerSettings) -> LoadError:
    return LoadError(
        f"{path} is the vocabulary of {settings.described}, and does not say how its tokens write spaces and "
        "bytes; pass vocabulary= (--vocabulary) with one token for each row and, if need be, spelling=, or "
        "save a tokenizer.json with transformers"
    )
