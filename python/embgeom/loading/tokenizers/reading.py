"""A model's tokens from whichever tokenizer files it has."""

from __future__ import annotations

from pathlib import Path

from embgeom.errors import LoadError
from embgeom.loading.folder import Folder, Source, read_bytes, read_json
from embgeom.loading.source import beside
from embgeom.loading.tokenizers.rank_tables import is_tiktoken, read_tekken, read_tiktoken
from embgeom.loading.tokenizers.sentencepiece_file import looks_like_sentencepiece, read_sentencepiece
from embgeom.loading.tokenizers.settings import TokenizerSettings, read_settings
from embgeom.loading.tokenizers.table import TokenTable, read_tokenizer_json
from embgeom.loading.tokenizers.vocabulary_files import read_vocab_json, read_vocab_txt

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
        return read_tokenizer_json(path, settings.special, settings.added)
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
        content = read_json(path)
        return read_tekken(path) if isinstance(content.get("vocab"), list) and "config" in content else None
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
