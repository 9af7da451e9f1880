"""A table of tokens: how each is written, what it spells, which are special; and a tokenizer.json as one.

The `tokenizers` library reads a tokenizer.json and gives its vocabulary; how its tokens spell text (the kind
of its decoder) is in the JSON alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from embgeom.embeddings.token_format import METASPACE, TokenFormat, utf8
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import parse_json, read_bytes

# An id far beyond any vocabulary is a broken file, not a reason to make a list of that length.
_MAX_ID = 1 << 26

Added = tuple[int, str, bool]
"""A token added to a vocabulary: its id, its content, and whether it is special."""


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one tokenizer by id, as it writes them."""

    file: Path | None
    tokens: dict[int, str]
    token_format: TokenFormat
    added: frozenset[int] = frozenset()  # written as plain text, whatever the token format
    special: frozenset[int] = frozenset()  # spell nothing
    raw: Mapping[int, bytes] = field(default_factory=dict)  # what words spell that are not UTF-8
    notes: tuple[str, ...] = ()
    listed: bool = False  # a plain list, which needs one for each row, in order

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.tokens, default=-1) + 1

    def spell(self, row: int) -> bytes | None:
        """Return the bytes that a token spells in running text, or None if it spells nothing."""
        if row in self.special or row not in self.tokens:
            return None
        if row in self.raw:
            return self.raw[row]
        token = self.tokens[row]
        return (utf8(token) if row in self.added else self.token_format.spell(token)) or None


def read_tokenizer_json(path: Path, named: Iterable[str] = (), added: Iterable[Added] = ()) -> TokenTable:
    """Read a tokenizer.json, with the special and the added tokens that the files beside it name."""
    return parse_tokenizer_json(read_bytes(path), path, named, added)


def parse_tokenizer_json(
    data: bytes, path: Path, named: Iterable[str] = (), added: Iterable[Added] = ()
) -> TokenTable:
    """Read the content of a tokenizer.json; see `read_tokenizer_json`."""
    from tokenizers import Tokenizer

    content = parse_json(data, str(path))
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
    model = content["model"]
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    unknown = model.get("unk_token")
    special = {t for t, row in vocabulary.items() if row == model.get("unk_id") or t == unknown}
    special |= {token for _, token, is_special in added if is_special}
    own = [(row, t.content, t.special) for row, t in tokenizer.get_added_tokens_decoder().items()]
    ids, known = {*vocabulary.values(), *(a[0] for a in own)}, {*vocabulary, *(a[1] for a in own)}
    own += [a for a in added if a[0] not in ids and a[1] not in known]
    return make_table(path, vocabulary, own, _token_format(content, model), special, named)


def make_table(
    path: Path,
    vocabulary: Mapping[str, int],
    added: Iterable[Added],
    token_format: TokenFormat,
    special: Iterable[str] = (),
    named: Iterable[str] = (),
) -> TokenTable:
    """Bring a vocabulary and what is added to it together.

    Added tokens come before the vocabulary's. Tokens in `special` are special if they are there; `named` are
    special tokens that transformers adds behind the vocabulary, in this order, if they are not there.
    """
    # Nobody adds a token that is there already.
    added = [a for a in added if vocabulary.get(a[1], a[0]) == a[0]]
    tokens = {row: token for token, row in vocabulary.items()}
    notes = [
        f"row {row} is {tokens[row]!r:.40} in {path.name}, and {content!r:.40} was added under that id: the "
        "latter is taken"
        for row, content, _ in added
        if tokens.get(row, content) != content
    ]
    # A token that is in the vocabulary too is written as the vocabulary writes it.
    as_text = {row for row, content, _ in added if tokens.get(row) != content}
    tokens |= {row: content for row, content, _ in added}
    if not tokens:
        raise LoadError(f"{path} holds no tokens; fetch it again")
    known, special, named = {*tokens.values(), *vocabulary}, set(special), dict.fromkeys(named)
    new = [token for token in named if token not in known]
    # Transformers numbers them from the count of tokens on, which among ids that jump may be taken, and with
    # them those that a tokenizer's class takes for granted.
    if len(tokens) == max(tokens) + 1 and special <= known | set(new):
        tokens |= dict(enumerate(new, start=len(tokens)))
    ids = {row for row, token in tokens.items() if token in special or token in named}
    ids |= {row for row, _, is_special in added if is_special}
    return TokenTable(path, tokens, token_format, frozenset(as_text), frozenset(ids), notes=tuple(notes))


def is_id(value: Any) -> TypeGuard[int]:
    """Return whether `value` may be the id of a token."""
    return type(value) is int and 0 <= value < _MAX_ID


def check_token(token: str, where: str | Path) -> str:
    """Return a token, or raise `LoadError` if it holds half a character, which no text file can."""
    try:
        token.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LoadError(
            f"{where}: the token {token!a:.60} holds a lone surrogate; fetch the file again"
        ) from error
    return token


def check_vocabulary(vocabulary: Mapping[Any, Any], path: Path | None) -> Mapping[str, int]:
    """Return a table of token -> id, of a file or, without a path, of the user's own."""
    error, where = (LoadError, f"{path}: ") if path else (InputError, "")
    mend = "fetch it again" if path else "its keys are strings, and its values rows, counted from 0"
    for token, row in vocabulary.items():
        if not isinstance(token, str) or not is_id(row):
            raise error(f"{where}vocabulary[{token!r:.60}] = {row!r:.40} is not a token with its row; {mend}")
        if path:
            check_token(token, path)
    if not vocabulary:
        raise error(f"{where}the vocabulary is empty: it holds no token; {mend}")
    return vocabulary


def _token_format(content: Mapping[str, Any], model: Mapping[str, Any]) -> TokenFormat:
    """How a tokenizer.json writes text: by its decoder, else by what splits and normalizes the text."""
    parts = list(_parts(content.get("decoder"))) or [
        *_parts(content.get("pre_tokenizer")),
        *_parts(content.get("normalizer")),
    ]
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
    pattern, content = part.get("pattern"), part.get("content")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if part.get("type") == "Replace" and isinstance(text, str) and " " in (text, content):
        mark = content if text == " " else text
        return mark if isinstance(mark, str) and mark.strip() else None
    return None
