"""A table of tokens: how each is written, what it spells, which are special; and a tokenizer.json as one.

The `tokenizers` library reads a tokenizer.json and gives its vocabulary; how its tokens are to be spelled
(the kind of its decoder) is in the JSON alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embgeom.embeddings.spelling import METASPACE, Spelling, utf8
from embgeom.errors import LoadError
from embgeom.loading.folder import read_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# An id far beyond any vocabulary is a broken file, not a reason to make a list of that length.
_MAX_ID = 1 << 26

Added = tuple[int, str, bool]
"""A token added to a vocabulary: its id, its content, and whether it is special."""


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one tokenizer by id.

    Attributes
    ----------
    file : Path or None
        Where they were read.
    tokens : dict of int to str
        id -> token, as the tokenizer writes it.
    spelling : Spelling
        How the tokenizer writes text.
    added : frozenset of int
        Ids of tokens added as plain text, which spell their content.
    special : frozenset of int
        Ids of special tokens, which spell nothing.
    raw : mapping of int to bytes
        What is spelled by words that are no UTF-8 and so have no exact form as a string.
    notes : tuple of str
        What was odd, each a sentence.
    listed : bool
        Whether they are a plain list, in the order of the rows, which has to have one for each.
    """

    file: Path | None
    tokens: dict[int, str]
    spelling: Spelling
    added: frozenset[int] = frozenset()
    special: frozenset[int] = frozenset()
    raw: Mapping[int, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    listed: bool = False

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
        return (utf8(token) if row in self.added else self.spelling.spell(token)) or None


def read_tokenizer_json(path: Path, named: Iterable[str] = (), added: Iterable[Added] = ()) -> TokenTable:
    """Read one tokenizer.json.

    Parameters
    ----------
    path : Path
        The file.
    named : iterable of str
        Special tokens that the files beside it name.
    added : iterable of (int, str, bool)
        Added tokens that the files beside it hold: id, content, special.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If the file cannot be read, or the tokenizers library cannot read it.
    """
    content = read_json(path)
    tokenizer = _open_tokenizer(path)
    model = content["model"]
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    unknown = model.get("unk_token")
    special = {unknown} if isinstance(unknown, str) else set()
    if isinstance(model.get("unk_id"), int):
        special |= {t for t, row in vocabulary.items() if row == model["unk_id"]}
    own = [(row, t.content, t.special) for row, t in tokenizer.get_added_tokens_decoder().items()]
    known, ids = (
        {t for _, t, _ in own} | set(vocabulary),
        {row for row, _, _ in own} | set(vocabulary.values()),
    )
    special |= {t for _, t, is_special in added if is_special}
    own += [a for a in added if a[0] not in ids and a[1] not in known]
    return make_table(path, vocabulary, own, _spelling(content, model), special, named)


def vocabulary_table(vocabulary: Any, path: Path) -> TokenTable:
    """Return the tokens of a table token -> row, or of a list of (token, score), without special ones.

    Parameters
    ----------
    vocabulary : object
        What a JSON file holds.
    path : Path
        That file.

    Returns
    -------
    TokenTable
        The tokens by row.

    Raises
    ------
    LoadError
        If `vocabulary` is neither such a table nor such a list, or is empty.
    """
    return make_table(path, check_vocabulary(vocabulary, path), [], Spelling())


def _open_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except BaseException as error:
        # The library raises nothing more specific than Exception, and a failed assertion in its Rust passes
        # even that by.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise LoadError(
            f"{path} is no tokenizer that the tokenizers library can read ({error}); fetch it again, or "
            "upgrade tokenizers"
        ) from error


def make_table(
    path: Path,
    vocabulary: Mapping[str, int],
    added: Iterable[Added],
    spelling: Spelling,
    special: Iterable[str] = (),
    named: Iterable[str] = (),
) -> TokenTable:
    """Bring a vocabulary and what is added to it together.

    Parameters
    ----------
    path : Path
        The file of the vocabulary.
    vocabulary : mapping of str to int
        The tokens' ids.
    added : iterable of (int, str, bool)
        Added tokens: id, content, special. They come before the vocabulary's.
    spelling : Spelling
        How the vocabulary writes text.
    special : iterable of str
        Tokens that are special if they are there.
    named : iterable of str
        Special tokens which transformers adds behind the vocabulary, in this order, if they are not there.

    Returns
    -------
    TokenTable
        The tokens by id.

    Raises
    ------
    LoadError
        If there are none.
    """
    # Nobody adds a token that is there already.
    added = [a for a in added if vocabulary.get(a[1], a[0]) == a[0]]
    special, named = set(special), list(named)
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
    known = set(tokens.values()) | set(vocabulary)
    new = [token for token in dict.fromkeys(named) if token not in known]
    # Transformers numbers them from the count of tokens on, which among ids that jump may be taken, and with
    # them those that a tokenizer's class takes for granted.
    if len(tokens) == max(tokens) + 1 and special <= known | set(new):
        tokens |= dict(enumerate(new, start=len(tokens)))
    ids = {row for row, _, is_special in added if is_special}
    special |= set(named)
    ids |= {row for row, token in tokens.items() if token in special}
    return TokenTable(path, tokens, spelling, frozenset(as_text), frozenset(ids), notes=tuple(notes))


def is_id(value: Any) -> bool:
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


def check_vocabulary(vocabulary: Any, path: Path) -> dict[str, int]:
    """Return a vocabulary as token -> id.

    Parameters
    ----------
    vocabulary : object
        What a JSON file holds: a table of token -> id, or a list of (token, score).
    path : Path
        That file.

    Returns
    -------
    dict of str to int
        The ids.

    Raises
    ------
    LoadError
        If it is neither, or an entry is no token with an id.
    """
    if isinstance(vocabulary, list):
        pieces = [v[0] if isinstance(v, list) and v and isinstance(v[0], str) else None for v in vocabulary]
        vocabulary = {piece: row for row, piece in enumerate(pieces)}
    if not isinstance(vocabulary, dict):
        raise LoadError(f"{path} holds no vocabulary, but a {type(vocabulary).__name__}; fetch it again")
    for token, row in vocabulary.items():
        if not isinstance(token, str) or not is_id(row):
            raise LoadError(
                f"{path}: {token!r:.60} with id {row!r:.60} is no entry of a vocabulary; fetch it again"
            )
        check_token(token, path)
    return vocabulary


def _spelling(content: Mapping[str, Any], model: Mapping[str, Any]) -> Spelling:
    """How a tokenizer.json writes text: by its decoder, else by what splits and normalizes the text."""
    parts = list(_parts(content.get("decoder"))) or [
        *_parts(content.get("pre_tokenizer")),
        *_parts(content.get("normalizer")),
    ]
    types = {part.get("type") for part in parts}
    word_end = model.get("end_of_word_suffix") or next(
        (p.get("suffix") for p in parts if p.get("type") == "BPEDecoder"), None
    )
    byte_fallback = "ByteFallback" in types or model.get("byte_fallback") is True
    if "WordPiece" in types or model.get("type") == "WordPiece":
        # Text is split with the model's prefix, whatever the decoder strips.
        prefixes = [model.get("continuing_subword_prefix"), *(p.get("prefix") for p in parts)]
        return Spelling(continuation=next((p for p in prefixes if isinstance(p, str)), "##"))
    if "ByteLevel" in types:
        return Spelling(byte_level=True, word_end=word_end)
    space = next(filter(None, map(_space_mark, parts)), None)
    return Spelling(space=space, word_end=word_end, byte_fallback=byte_fallback)


def _parts(component: Any) -> Iterator[dict[str, Any]]:
    """Return a component of a tokenizer.json, or the components of a sequence."""
    if not isinstance(component, dict):
        return
    yield component
    for key in ("decoders", "pretokenizers", "normalizers"):
        inner = component.get(key)
        for part in inner if isinstance(inner, list) else ():
            yield from _parts(part)


def _space_mark(part: Mapping[str, Any]) -> str | None:
    """Return the character that stands for a space, if `part` converts between the two."""
    if part.get("type") == "Metaspace":
        return str(part.get("replacement") or METASPACE)
    pattern = part.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    if part.get("type") == "Replace" and isinstance(text, str) and " " in (text, part.get("content")):
        mark = part.get("content") if text == " " else text
        return mark if isinstance(mark, str) and mark.strip() else None
    return None
