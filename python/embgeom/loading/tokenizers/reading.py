"""A model's tokens from whichever tokenizer files it has."""

from __future__ import annotations

from pathlib import Path

from embgeom.errors import LoadError
from embgeom.loading.folder import Folder, Source, read_bytes, read_json
from embgeom.loading.source import beside
from embgeom.loading.tokenizers.rank_tables import is_tiktoken, read_tekken, read_tiktoken
from embgeom.loading.tokenizers.sentencepiece_file import (
    describe,
    looks_like_sentencepiece,
    read_sentencepiece,
)
from embgeom.loading.tokenizers.settings import TokenizerSettings, read_settings
from embgeom.loading.tokenizers.table import TokenTable, read_tokenizer_json
from embgeom.loading.tokenizers.vocabulary_files import read_vocab_json, read_vocab_txt

_MODELS = (
    "tokenizer.model",
    "tiktoken.model",
    "qwen.tiktoken",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "spm_char.model",
)
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


def read_tokens(source: Source) -> TokenTable:
    """Read the tokens of the model at `source`.

    The first of these that is there is read: tokenizer.json; vocab.json; vocab.txt; tekken.json; a tiktoken
    table or a SentencePiece model under any of the names that they have (tokenizer.model, spiece.model,
    qwen.tiktoken, ...).

    Parameters
    ----------
    source : Source
        The model's files.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If there is no tokenizer that can be read, or its file is broken.
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
    return _read_model(source, settings)


def read_file(path: Path) -> TokenTable | None:
    """Read a table of ranks or a SentencePiece model that is named by itself; None for any other file.

    Parameters
    ----------
    path : Path
        The file; what lies beside it says its tokenizer's class and its special tokens.

    Returns
    -------
    TokenTable or None
        The tokens by id.

    Raises
    ------
    LoadError
        If the file cannot be read, or is broken.
    """
    if path.suffix == ".json":
        content = read_json(path)
        return read_tekken(path) if isinstance(content.get("vocab"), list) and "config" in content else None
    if path.suffix not in (".model", ".tiktoken", ".spm"):
        return None
    data = read_bytes(path)
    settings = read_settings(Folder(path.parent))
    return read_tiktoken(path, settings) if is_tiktoken(data) else read_sentencepiece(path, settings)


def _read_model(source: Source, settings: TokenizerSettings) -> TokenTable:
    found = (path for name in _MODELS if (path := source.find(name)))
    path = next(found, None) or next(iter(source.list_local("*.tiktoken")), None)
    if path is None:
        if (folder := beside(source)) is not None:
            return read_tokens(folder)
        raise _nothing_to_read(source, settings)
    data = read_bytes(path)
    if is_tiktoken(data):
        return read_tiktoken(path, settings)
    if looks_like_sentencepiece(data):
        return read_sentencepiece(path, settings)
    kind = "tiktoken table" if "tiktoken" in path.name else "SentencePiece model"
    other = "SentencePiece model" if "tiktoken" in path.name else "tiktoken table"
    raise LoadError(
        f"{path} is no {kind} (nor a {other}), but {describe(data)}; fetch it again, or pass vocabulary= "
        "(--vocabulary)"
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
