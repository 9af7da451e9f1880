"""A model's tokens from whichever tokenizer files it has, or from what the user passes.

The `tokenizers` library reads a tokenizer.json and gives its vocabulary; how its tokens spell text (the kind
of its decoder) is in the JSON alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from embgeom._common.foreign import to_strings
from embgeom.embeddings.token_format import METASPACE, TokenFormat
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import Folder, parse_json, read_bytes, read_lines
from embgeom.loading.source import Source, tokenizer_beside
from embgeom.loading.tokenizers import vocabulary_files as files
from embgeom.loading.tokenizers.settings import TokenizerSettings, read_settings
from embgeom.loading.tokenizers.table import TokenTable, check_vocabulary, make_table

Vocabulary = str | PathLike[str] | Iterable[str]
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
        return files.read_vocab_json(path, source, settings)
    if path := source.find("vocab.txt"):
        return files.read_vocab_txt(path, source, settings)
    if path := source.find("tekken.json"):
        return files.read_tekken(path)
    found = (path for name in _MODELS if (path := source.find(name)))
    if path := next(found, None) or next(iter(source.list_local("*.tiktoken")), None):
        return _read_binary(path, settings)
    if (folder := tokenizer_beside(source)) is not None:
        return read_tokens(folder)
    raise _nothing_to_read(source, settings)


def _read_binary(path: Path, settings: TokenizerSettings) -> TokenTable:
    data = read_bytes(path)
    if files.is_tiktoken(data):
        return files.read_tiktoken(data, path, settings)
    if files.looks_like_sentencepiece(data):
        return files.read_sentencepiece(data, path, settings)
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
    start = data[:512].lstrip()
    if not start:
        return "an empty file"
    if what := next((what for mark, what in _MARKS if start.startswith(mark)), None):
        return what
    try:
        return f"text that begins {start.decode('utf-8', 'strict' if len(data) < 512 else 'ignore')!r:.40}"
    except UnicodeDecodeError:
        return f"a binary file that begins {start[:8]!r}"


def read_tokenizer_json(
    path: Path, settings: TokenizerSettings | None = None, data: bytes | None = None
) -> TokenTable:
    from tokenizers import Tokenizer

    data, settings = read_bytes(path) if data is None else data, settings or TokenizerSettings()
    parsed = parse_json(data, str(path))
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
    special = {token for token, row in vocabulary.items() if row == model.get("unk_id")}
    special |= {token for _, token, is_special in settings.added if is_special}
    if isinstance(unknown := model.get("unk_token"), str):
        special.add(unknown)
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
    if part.get("type") == "Metaspace":
        return str(part.get("replacement") or METASPACE)
    pattern, written = part.get("pattern"), part.get("content")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if part.get("type") == "Replace" and isinstance(text, str) and " " in (text, written):
        mark = written if text == " " else text
        return mark if isinstance(mark, str) and mark.strip() else None
    return None


def given_tokens(tokenizer: Any, vocabulary: Any) -> TokenTable | None:
    if tokenizer is not None and vocabulary is not None:
        raise InputError("give tokenizer= or vocabulary=, not both: each says which token each row is")
    if tokenizer is not None or _is_tokenizer(vocabulary):
        return _table_of_tokenizer(vocabulary if tokenizer is None else tokenizer)
    return None if vocabulary is None else token_table(vocabulary)


def token_table(tokens: Vocabulary) -> TokenTable:
    """Return the tokens of a list, a table of token -> row, or a file of tokens.

    A list and the lines of a .txt are taken in the order of the rows; how they write text is guessed from
    their marks.
    """
    if isinstance(tokens, Mapping):
        table = _table_of_rows(check_vocabulary(tokens, None))
        if len(table.tokens) != len(tokens):
            token, row = next((t, r) for t, r in tokens.items() if table.tokens[r] != t)
            raise LoadError(f"vocabulary= gives row {row} to {token!r:.40} and to {table.tokens[row]!r:.40}")
        return table
    if isinstance(tokens, str | PathLike):
        return _read_named(Path(tokens).expanduser())
    return listed_tokens(tokens, None)


def _read_named(path: Path) -> TokenTable:
    """Read a file of tokens that is named by itself."""
    if path.suffix in (".model", ".tiktoken", ".spm"):
        return _read_binary(path, read_settings(Folder(path.parent)))
    if path.suffix != ".json":
        return listed_tokens(files.uncounted(read_lines(path), str(path)), path)
    held = parse_json(read_bytes(path), str(path))
    if not isinstance(held, dict):
        return listed_tokens(held, path)
    # A tokenizer.json describes its model; a vocab.json is nothing but token -> row.
    if "model" in held or "vocab" in held:
        tekken = isinstance(held.get("vocab"), list) and "config" in held
        return files.read_tekken(path) if tekken else read_tokenizer_json(path)
    table = make_table(path, check_vocabulary(held, path), [], TokenFormat())
    return replace(table, token_format=TokenFormat.guess(table.tokens.values()))


def listed_tokens(tokens: Any, path: Path | None) -> TokenTable:
    """Return tokens that are listed in the order of the rows; `path` is the file that lists them."""
    try:
        plain = to_strings(tokens, "it")
    except InputError as error:
        raise LoadError(
            f"{path or 'vocabulary='} is not a list of strings, one for each row: {error}"
        ) from None
    return TokenTable(path, dict(enumerate(plain)), TokenFormat.guess(plain), listed=True)


def _is_tokenizer(x: object) -> bool:
    return callable(getattr(getattr(x, "tokenizer", x), "get_vocab", None))


def _table_of_tokenizer(tokenizer: Any) -> TokenTable:
    if not _is_tokenizer(tokenizer):
        raise InputError(
            f"tokenizer= is a {type(tokenizer).__name__}: pass a tokenizer of transformers or tokenizers, or "
            "a list or file of tokens as vocabulary="
        )
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    decoder = getattr(tokenizer, "added_tokens_decoder", None)
    added = dict(decoder) if isinstance(decoder, Mapping) else {}
    if hasattr(backend, "to_str"):
        table = read_tokenizer_json(Path("the tokenizer"), data=backend.to_str().encode())
    else:
        table = _by_files(tokenizer) or _by_vocabulary(tokenizer, added)
    special = {row for row, token in added.items() if getattr(token, "special", False)}
    special |= {row for row in getattr(tokenizer, "all_special_ids", ()) if isinstance(row, int)}
    tokens = {row: str(token) for row, token in added.items()} | table.tokens
    return replace(table, file=None, tokens=tokens, special=table.special | special)


def _by_files(tokenizer: Any) -> TokenTable | None:
    """Read a tokenizer that is written in Python from the files that it writes, if these say the same."""
    if not hasattr(tokenizer, "save_pretrained"):
        return None
    with TemporaryDirectory(prefix="embgeom-") as folder, suppress(LoadError):
        tokenizer.save_pretrained(folder)
        table = read_tokens(Folder(Path(folder)))
        if all(table.tokens.get(row) == token for token, row in tokenizer.get_vocab().items()):
            return table
    return None


def _by_vocabulary(tokenizer: Any, added: Mapping[int, Any]) -> TokenTable:
    """Read a tokenizer that is written in Python: what it is made of tells how it spells."""
    table = _table_of_rows(check_vocabulary(tokenizer.get_vocab(), None))
    if hasattr(tokenizer, "byte_decoder"):
        table = replace(table, token_format=TokenFormat(byte_level=True))
    elif hasattr(tokenizer, "wordpiece_tokenizer"):
        table = replace(table, token_format=TokenFormat(continuation="##"))
    elif table.token_format == TokenFormat():
        raise InputError(
            f"how {type(tokenizer).__name__} writes spaces into its tokens is not known: pass "
            "vocabulary=tokenizer.get_vocab(), and token_format= if the tokens are more than plain text"
        )
    # What follows the vocabulary itself was added, and is written as text.
    size = getattr(tokenizer, "vocab_size", len(table.tokens))
    return replace(table, added=frozenset(row for row in added if row >= size))


def _table_of_rows(vocabulary: Mapping[str, int]) -> TokenTable:
    tokens = {row: token for token, row in vocabulary.items()}
    return TokenTable(None, tokens, TokenFormat.guess(tokens.values()))
