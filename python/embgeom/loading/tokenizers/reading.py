"""A model's tokens from whichever tokenizer files it has.

The `tokenizers` library reads a tokenizer.json and gives its vocabulary; how its tokens spell text (the kind
of its decoder) is in the JSON alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embgeom.embeddings.token_format import METASPACE, TokenFormat
from embgeom.errors import LoadError
from embgeom.loading.folder import Folder, parse_json, read_bytes, read_json
from embgeom.loading.source import Source, beside
from embgeom.loading.tokenizers.settings import TokenizerSettings, read_settings
from embgeom.loading.tokenizers.table import TokenTable, make_table
from embgeom.loading.tokenizers.vocabulary_files import (
    is_tiktoken,
    looks_like_sentencepiece,
    read_sentencepiece,
    read_tekken,
    read_tiktoken,
    read_vocab_json,
    read_vocab_txt,
)

_MODELS = (
    "tokenizer.model", "tiktoken.model", "qwen.tiktoken", "spiece.model", "spm.model",
    "sentencepiece.bpe.model", "sentencepiece.model", "spm_char.model",
)  # fmt: skip
# What names a tokenizer that is not read, and the reason.
_UNREAD = {
    "vocab-src.json": "FSMT's vocabularies of two languages",
    "dict.txt": "a dictionary of fairseq, whose ids begin at 4 and which does not say how its tokens write "
    "spaces",
    "prophetnet.tokenizer": "ProphetNet's vocabulary",
    "byte_maps.json": "the byte maps of MyT5",
    "source.spm": "Marian's SentencePiece model, whose ids are in vocab.json",
    "whitespacetokenizer_config.json": "the words of a WordEmbeddings module",
}
# How files begin that are not what their name says.
_MARKS = (
    (b"version https://git-lfs", "a Git LFS pointer (the file itself was not fetched)"),
    (b"<", "a page of HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x80", "a Python pickle"),
)


def read_tokens(source: Source) -> TokenTable:
    """Read the tokens of the model at `source`.

    The first of these that is there is read: tokenizer.json; vocab.json; vocab.txt; tekken.json; a tiktoken
    table or a SentencePiece model under any of the names that they have (tokenizer.model, spiece.model,
    qwen.tiktoken, ...).
    """
    settings = read_settings(source)
    if path := source.find("tokenizer.json"):
        return read_tokenizer_json(path, settings)
    if path := source.find("vocab.json"):
        return read_vocab_json(path, source, settings)
    if path := source.find("vocab.txt"):
        return read_vocab_txt(path, source, settings)
    if path := source.find("tekken.json"):
        return read_tekken(path)
    found = (path for name in _MODELS if (path := source.find(name)))
    if path := next(found, None) or next(iter(source.list_local("*.tiktoken")), None):
        return _read_model(path, settings)
    if (folder := beside(source)) is not None:
        return read_tokens(folder)
    raise _nothing_to_read(source, settings)


def read_file(path: Path) -> TokenTable | None:
    """Read a table of ranks or a SentencePiece model that is named by itself; None for any other file."""
    if path.suffix == ".json":
        held = read_json(path)
        return read_tekken(path) if isinstance(held.get("vocab"), list) and "config" in held else None
    if path.suffix in (".model", ".tiktoken", ".spm"):
        return _read_model(path, read_settings(Folder(path.parent)))
    return None


def _read_model(path: Path, settings: TokenizerSettings) -> TokenTable:
    data = read_bytes(path)
    if is_tiktoken(data):
        return read_tiktoken(data, path, settings)
    if looks_like_sentencepiece(data):
        return read_sentencepiece(data, path, settings)
    kinds = ("SentencePiece model", "tiktoken table")[:: -1 if "tiktoken" in path.name else 1]
    raise LoadError(
        f"{path} is not a {kinds[0]} (nor a {kinds[1]}), but {_describe(data)}; fetch it again, or pass "
        "vocabulary= (--vocabulary)"
    )


def _nothing_to_read(source: Source, settings: TokenizerSettings) -> LoadError:
    others = [f"{name} ({what})" for name, what in _UNREAD.items() if source.find(name)]
    has = f"but {', '.join(others)}, which embgeom does not read" if others else "of any kind that is known"
    of_class = f" for {settings.described}" if settings.tokenizer_class else ""
    return LoadError(
        f"{source.name} holds no tokenizer{of_class} (tokenizer.json, vocab.json, vocab.txt, tekken.json, "
        f"{', '.join(_MODELS)}), {has}; pass vocabulary= (--vocabulary), a list or a file with one token for "
        "each row"
    )


def _describe(data: bytes) -> str:
    """Return what a file seems to be, in a few words."""
    start = data[:512].lstrip()
    if not start:
        return "an empty file"
    if what := next((what for mark, what in _MARKS if start.startswith(mark)), None):
        return what
    try:
        return f"text that begins {start.decode('utf-8', 'strict' if len(data) < 512 else 'ignore')!r:.40}"
    except UnicodeDecodeError:
        return f"a binary file that begins {start[:8]!r}"


def read_tokenizer_json(path: Path, settings: TokenizerSettings | None = None) -> TokenTable:
    """Read a tokenizer.json, with the special and the added tokens that the files beside it name."""
    return parse_tokenizer_json(read_bytes(path), path, settings)


def parse_tokenizer_json(data: bytes, path: Path, settings: TokenizerSettings | None = None) -> TokenTable:
    """Read the text of a tokenizer.json; see `read_tokenizer_json`."""
    from tokenizers import Tokenizer

    parsed, settings = parse_json(data, str(path)), settings or TokenizerSettings()
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except BaseException as error:
        # The library raises nothing more specific than Exception, and a failed assertion in its Rust is not
        # even that.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise LoadError(
            f"{path} is not a tokenizer that the tokenizers library can read ({error}); fetch it again, or "
            "upgrade tokenizers"
        ) from error
    vocabulary, model = tokenizer.get_vocab(with_added_tokens=False), parsed["model"]
    unknown = model.get("unk_token")
    special = {t for t, row in vocabulary.items() if row == model.get("unk_id") or t == unknown}
    special |= {token for _, token, is_special in settings.added if is_special}
    added = [(row, str(t), t.special) for row, t in tokenizer.get_added_tokens_decoder().items()]
    ids, known = {*vocabulary.values(), *(a[0] for a in added)}, {*vocabulary, *(a[1] for a in added)}
    added += [a for a in settings.added if a[0] not in ids and a[1] not in known]
    return make_table(path, vocabulary, added, _token_format(parsed), special, settings.special)


def _token_format(parsed: Mapping[str, Any]) -> TokenFormat:
    """How a tokenizer.json writes text: by its decoder, else by what splits and normalizes the text."""
    decoder, splitter, normalizer = (
        list(_parts(parsed.get(key))) for key in ("decoder", "pre_tokenizer", "normalizer")
    )
    parts, model = decoder or splitter + normalizer, parsed["model"]
    types = {part.get("type") for part in parts}
    if "WordPiece" in types or model.get("type") == "WordPiece":
        # Text is split with the model's prefix, whatever the decoder strips.
        prefixes = [model.get("continuing_subword_prefix"), *(p.get("prefix") for p in parts)]
        return TokenFormat(continuation=next((p for p in prefixes if isinstance(p, str)), "##"))
    word_ends = (p.get("suffix") for p in parts if p.get("type") == "BPEDecoder")
    word_end = model.get("end_of_word_suffix") or next(word_ends, None)
    if "ByteLevel" in types:
        return TokenFormat(byte_level=True, word_end=word_end)
    space = next(filter(None, map(_space_mark, parts)), None)
    byte_fallback = "ByteFallback" in types or model.get("byte_fallback") is True
    return TokenFormat(space=space, word_end=word_end, byte_fallback=byte_fallback)


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """Return a component of a tokenizer.json, or the components of a sequence."""
    if isinstance(component, dict):
        yield component
        for key in ("decoders", "pretokenizers", "normalizers"):
            inner = component.get(key)
            for part in inner if isinstance(inner, list) else ():
                yield from _parts(part)


def _space_mark(part: Mapping[str, Any]) -> str | None:
    """Return the character that stands for a space, if `part` converts between the two."""
    if part.get("type") == "Metaspace":
        return str(part.get("replacement") or METASPACE)
    pattern, written = part.get("pattern"), part.get("content")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if part.get("type") == "Replace" and isinstance(text, str) and " " in (text, written):
        mark = written if text == " " else text
        return mark if isinstance(mark, str) and mark.strip() else None
    return None
