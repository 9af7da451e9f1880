"""A model's tokens from its tokenizer files: how each is written, what it spells, which are special.

The `tokenizers` library reads a tokenizer.json and gives its vocabulary; how its tokens are to be
spelled (the kind of its decoder) is in the JSON alone. Vocabularies of older kinds are read as the JSON
or text that they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embgeom.errors import LoadError
from embgeom.loading.folder import Source, read_json, read_lines
from embgeom.spelling import METASPACE, Spelling, utf8

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_BERT_SPECIAL = frozenset(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))
# An id far beyond any vocabulary is a broken file, not a reason to make a list of that length.
_MAX_ID = 1 << 26


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
    """

    file: Path | None
    tokens: dict[int, str]
    spelling: Spelling
    added: frozenset[int] = frozenset()
    special: frozenset[int] = frozenset()

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.tokens, default=-1) + 1

    def spell(self, row: int) -> bytes | None:
        """Return the bytes that a token spells in running text, or None if it spells nothing."""
        if row in self.special or row not in self.tokens:
            return None
        token = self.tokens[row]
        return (utf8(token) if row in self.added else self.spelling.spell(token)) or None


def read_tokens(source: Source) -> TokenTable:
    """Read the tokens of the model at `source`: tokenizer.json, else vocab.json, else vocab.txt.

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
    if path := source.find("tokenizer.json"):
        return read_tokenizer_json(path, _named_special(source))
    if (path := source.find("vocab.json")) and source.find("merges.txt"):
        vocabulary, special = _checked(read_json(path), path), _named_special(source)
        return _table(path, vocabulary, _added_tokens(source), Spelling(byte_level=True), special)
    if path := source.find("vocab.txt"):
        vocabulary = {line: row for row, line in enumerate(read_lines(path))}
        special = _named_special(source) | _BERT_SPECIAL
        return _table(path, vocabulary, _added_tokens(source), Spelling(continuation="##"), special)
    if path := source.find("tokenizer.model"):
        raise LoadError(
            f"{path} is a SentencePiece model without a tokenizer.json beside it; write one with "
            "transformers.AutoTokenizer.from_pretrained(...).save_pretrained(folder), or pass tokens= "
            "(--tokens)"
        )
    raise LoadError(
        f"{source.name} holds no tokenizer (tokenizer.json, vocab.json with merges.txt, or vocab.txt); "
        "pass tokens= (--tokens), a list or a file with one token for each row"
    )


def read_tokenizer_json(path: Path, special: frozenset[str] = frozenset()) -> TokenTable:
    """Read one tokenizer.json.

    Parameters
    ----------
    path : Path
        The file.
    special : frozenset of str
        Contents of tokens known to be special from elsewhere.

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
    if isinstance(unknown, str):
        special |= {unknown}
    if isinstance(model.get("unk_id"), int):
        special |= {t for t, row in vocabulary.items() if row == model["unk_id"]}
    added = tokenizer.get_added_tokens_decoder()
    flags = [(row, token.content, token.special) for row, token in added.items()]
    return _table(path, vocabulary, flags, _spelling(content, model), special)


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
    return _table(path, _checked(vocabulary, path), [], Spelling(), frozenset())


def _open_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises nothing more specific.
        raise LoadError(
            f"{path} is no tokenizer that the tokenizers library can read ({error}); "
            "fetch it again, or upgrade tokenizers"
        ) from error


def _table(
    path: Path,
    vocabulary: Mapping[str, int],
    added: list[tuple[int, str, bool]],
    spelling: Spelling,
    special: frozenset[str],
) -> TokenTable:
    tokens = {row: token for token, row in vocabulary.items()}
    # A token that is in the vocabulary too is written as the vocabulary writes it.
    as_text = frozenset(row for row, content, _ in added if tokens.get(row) != content)
    tokens |= {row: content for row, content, _ in added}
    ids = {row for row, _, is_special in added if is_special}
    ids |= {row for row, token in tokens.items() if token in special}
    if not tokens:
        raise LoadError(f"{path} holds no tokens; fetch it again")
    return TokenTable(path, tokens, spelling, as_text, frozenset(ids))


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_ID


def _checked(vocabulary: Any, path: Path) -> dict[str, int]:
    """Return the vocabulary as token -> id, whether the file holds a table or a list of (token, score)."""
    if isinstance(vocabulary, list):
        pieces = [v[0] if isinstance(v, list) and v and isinstance(v[0], str) else None for v in vocabulary]
        vocabulary = {piece: row for row, piece in enumerate(pieces)}
    if not isinstance(vocabulary, dict):
        raise LoadError(f"{path} holds no vocabulary, but a {type(vocabulary).__name__}; fetch it again")
    for token, row in vocabulary.items():
        if not isinstance(token, str) or not _is_id(row):
            raise LoadError(f"{path}: {token!r} with id {row!r} is no entry of a vocabulary; fetch it again")
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
        prefix = next((p.get("prefix") for p in parts if p.get("type") == "WordPiece"), None)
        return Spelling(continuation=prefix or model.get("continuing_subword_prefix") or "##")
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


def _named_special(source: Source) -> frozenset[str]:
    """Return the special tokens that the small files beside the vocabulary name."""
    names: set[str] = set()
    for filename in ("tokenizer_config.json", "special_tokens_map.json"):
        path = source.find(filename)
        content = read_json(path) if path else {}
        extra = content.get("additional_special_tokens")
        values = [content.get(key) for key in _SPECIAL_KEYS] + (extra if isinstance(extra, list) else [])
        for value in values:
            name = value.get("content") if isinstance(value, dict) else value
            if isinstance(name, str):
                names.add(name)
    return frozenset(names)


def _added_tokens(source: Source) -> list[tuple[int, str, bool]]:
    """Return the tokens that added_tokens.json adds to a vocabulary which is not a tokenizer.json."""
    path = source.find("added_tokens.json")
    return [(row, token, False) for token, row in _checked(read_json(path), path).items()] if path else []
