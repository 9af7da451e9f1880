"""The pieces of a SentencePiece model, and the ids that a model of transformers gives to them.

Most models number the pieces as the file does. Those that come from fairseq put four tokens of their own
first and leave three of the file's out, so that all others are shifted by one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embgeom.embeddings.spelling import METASPACE, Spelling
from embgeom.errors import LoadError
from embgeom.loading.folder import read_bytes
from embgeom.loading.tokenizers.settings import TokenizerSettings
from embgeom.loading.tokenizers.table import TokenTable, check_token, make_table


@dataclass(frozen=True)
class _Layout:
    """How ids follow: a tokenizer's own first tokens, the pieces from `skipped` on, its own last tokens."""

    first: tuple[str, ...] = ()
    skipped: int = 0
    last: tuple[str, ...] = ()
    languages: bool = False


_FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")
_PLAIN = _Layout()
_MASK_LAST = _Layout(_FAIRSEQ, 3, ("<mask>",))
_WITH_LANGUAGES = _Layout(_FAIRSEQ, 3, languages=True)
# fmt: off
_LAYOUTS = {
    **dict.fromkeys(("XLMRoberta", "LayoutXLM"), _MASK_LAST),
    **dict.fromkeys(("MBart", "MBart50", "Nllb", "PLBart"), _WITH_LANGUAGES),
    "SeamlessM4T": _Layout(("<pad>", "<unk>", "<s>", "</s>"), 3, languages=True),
    "XGLM": _Layout(_FAIRSEQ, 3, tuple(f"<madeupword{i}>" for i in range(7))),
    "Camembert": _Layout(("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED"), 1, ("<mask>",)),
    "Pegasus": _Layout(("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103))), 2),
    **dict.fromkeys(("Llama", "CodeLlama", "Gemma", "T5", "Albert", "XLNet", "BigBird", "DebertaV2",
                     "RemBert", "FNet", "GPTSw3", "BertGeneration", "Reformer", "Siglip", "Barthez",
                     "SpeechT5"), _PLAIN),
}
_CLASS_OF_TYPE = {
    "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "mbart": "MBart", "nllb-moe": "Nllb",
    "xglm": "XGLM", "plbart": "PLBart", "seamless_m4t": "SeamlessM4T", "seamless_m4t_v2": "SeamlessM4T",
    "pegasus": "Pegasus", "bigbird_pegasus": "Pegasus", "pegasus_x": "Pegasus", "llama": "Llama",
    "mistral": "Llama", "mixtral": "Llama", "gemma": "Gemma", "gemma2": "Gemma", "gemma3": "Gemma",
    "gemma3_text": "Gemma", "t5": "T5", "mt5": "T5", "umt5": "T5", "albert": "Albert", "xlnet": "XLNet",
    "big_bird": "BigBird", "deberta-v2": "DebertaV2", "rembert": "RemBert", "fnet": "FNet",
    "reformer": "Reformer", "barthez": "Barthez",
}
# fmt: on
# The name that fairseq's models give to the file.
_FAIRSEQ_FILE = "sentencepiece.bpe.model"


def looks_like_sentencepiece(data: bytes) -> bool:
    """Return whether a file begins as a SentencePiece model does: with the first field of its message."""
    return data[:1] == b"\n" and len(data) > 2


def read_sentencepiece(path: Path, settings: TokenizerSettings) -> TokenTable:
    """Read a SentencePiece model, numbered as the tokenizer's class numbers it.

    Parameters
    ----------
    path : Path
        The file.
    settings : TokenizerSettings
        What the small files beside it say.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If the sentencepiece package is absent, the file is no such model, or it is not known how the
        tokenizer's class numbers the pieces.
    """
    data = read_bytes(path)
    if not looks_like_sentencepiece(data):
        raise LoadError(f"{path} is no SentencePiece model, but {describe(data)}; fetch it again")
    pieces, special, byte_fallback = _pieces(data, path)
    name = settings.tokenizer_class or _CLASS_OF_TYPE.get(settings.model_type)
    layout = _LAYOUTS.get(name or "")
    if layout is None and path.name == _FAIRSEQ_FILE:
        raise LoadError(
            f"{path} is the SentencePiece model of {settings.described}, whose ids may be shifted against "
            "the file's; pass vocabulary= (--vocabulary) with one token for each row, or save a "
            "tokenizer.json with transformers"
        )
    known, layout = layout is not None, layout or _PLAIN
    last = layout.last or (_extra_ids(settings) if name == "T5" else ())
    tokens = [*layout.first, *pieces[layout.skipped :], *last]
    vocabulary = {token: row for row, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise LoadError(
            f"{path} holds a piece twice, beside {', '.join(layout.first) or 'nothing'}; fetch it again"
        )
    # The tokens of languages follow the pieces in an order that no file says.
    named = settings.special if known and not layout.languages else ()
    special |= {*settings.special, *layout.first, *last}
    spelling = Spelling(space=METASPACE, byte_fallback=byte_fallback)
    table = make_table(path, vocabulary, settings.added, spelling, special, named)
    notes: tuple[str, ...] = ()
    if layout.languages and not settings.added:
        notes = (
            f"the rows from {len(tokens)} on are languages and special tokens that {path.name} does not name",
        )
    elif not known:
        notes = (
            f"the ids are those of {path.name}; how {settings.described} numbers its tokens is not known",
        )
    return replace(table, notes=table.notes + notes)


def _pieces(data: bytes, path: Path) -> tuple[list[str], set[str], bool]:
    """Return the pieces of a model, those that are special, and whether some stand for bytes."""
    try:
        import sentencepiece
    except ImportError as error:
        raise LoadError(
            f"{path} is a SentencePiece model, which needs the sentencepiece package: pip install "
            "'embgeom[sentencepiece]', or save a tokenizer.json with transformers"
        ) from error
    try:
        model: Any = sentencepiece.SentencePieceProcessor(model_proto=data)
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


def _extra_ids(settings: TokenizerSettings) -> tuple[str, ...]:
    """Return T5's sentinels, of which the last comes first."""
    count = settings.values.get("extra_ids", 100)
    count = count if type(count) is int and 0 <= count <= 10_000 else 100
    return tuple(f"<extra_id_{i}>" for i in reversed(range(count)))


def describe(data: bytes) -> str:
    """Return what a file seems to be, for the message that it is not what its name says.

    Parameters
    ----------
    data : bytes
        The file, or its beginning.

    Returns
    -------
    str
        A few words.
    """
    start = data[:512].lstrip()
    if not start:
        return "an empty file"
    for mark, what in _MARKS:
        if start.startswith(mark):
            return what
    try:
        return f"text that begins {start.decode('utf-8', 'strict' if len(data) < 512 else 'ignore')!r:.40}"
    except UnicodeDecodeError:
        return f"a binary file that begins {start[:8]!r}"


_MARKS = (
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not fetched)"),
    (b"<", "a page of HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a Python pickle"),
)
