"""What a token spells in running text, as bytes, whatever way its tokenizer writes it.

Tokenizers write the same text differently: ``Ġthe`` (byte-level), ``▁the`` (SentencePiece), ``the`` and
``##ing`` (WordPiece), ``the</w>`` (end-of-word suffix), ``th@@`` (subword-nmt), ``<0x41>``
(byte fallback). Word vectors hold whole words and no mark at all. Two vocabularies can only be compared on
what the tokens spell, with their spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from embgeom.errors import InputError

METASPACE = "▁"
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class TokenFormat:
    """The way one tokenizer writes text into its tokens.

    Attributes
    ----------
    byte_level : bool
        Every character stands for one byte (GPT-2): ``Ġ`` is the space.
    space : str or None
        The character that stands for a space (SentencePiece: ``▁``).
    continuation : str or None
        The mark of a token that continues a word (WordPiece: ``##``). Where it is set, a token without it
        begins a word and has an implied space before it, except punctuation and CJK characters, which
        WordPiece splits off whether or not a space is there.
    word_end : str or None
        The mark of a token that ends a word (``</w>``), spelled as a space.
    separator : str or None
        The mark of a token that does not end its word (subword-nmt: ``@@``). Where it is set, a token without
        it has an implied trailing space.
    byte_fallback : bool
        Whether ``<0x41>`` stands for the byte 0x41.
    whole_words : bool
        Whether every token is a whole word, as in word vectors, and has an implied space before it.

    Examples
    --------
    >>> TokenFormat(byte_level=True).spell("Ġdog")
    b' dog'
    >>> TokenFormat(space="▁").spell("dog▁")
    b'dog '
    >>> TokenFormat(continuation="##").spell("dog"), TokenFormat(continuation="##").spell("##gy")
    (b' dog', b'gy')
    >>> TokenFormat.words().spell("dog")
    b' dog'
    """

    byte_level: bool = False
    space: str | None = None
    continuation: str | None = None
    word_end: str | None = None
    separator: str | None = None
    byte_fallback: bool = False
    whole_words: bool = False

    @classmethod
    def words(cls) -> TokenFormat:
        """Return the format of a vocabulary of whole words, such as that of word vectors."""
        return cls(whole_words=True)

    def is_byte(self, token: str) -> bool:
        """Return whether `token` is a fallback for one raw byte, such as ``<0x41>``."""
        return self.byte_fallback and _BYTE_TOKEN.fullmatch(token) is not None

    def spell(self, token: str) -> bytes:
        """Return the bytes which `token` spells in running text, with its spaces."""
        if self.whole_words:
            return utf8(" " + token) if token else b""
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        if self.continuation is not None:
            return self._spell_word_piece(token, self.continuation)
        end = b""
        if self.separator is not None:
            return utf8(token.removesuffix(self.separator) if token.endswith(self.separator) else token + " ")
        if self.word_end and token.endswith(self.word_end):
            token, end = token.removesuffix(self.word_end), b" "
        if self.byte_level:
            return _from_byte_level(token) + end
        if self.space is not None:
            token = token.replace(self.space, " ")
        return utf8(token) + end

    @staticmethod
    def _spell_word_piece(token: str, continuation: str) -> bytes:
        if token.startswith(continuation) and token != continuation:
            return utf8(token.removeprefix(continuation))
        first = token[:1]
        implied = first.isalnum() and not unicodedata.name(first, "").startswith("CJK ")
        return utf8(" " + token if implied else token)

    @classmethod
    def guess(cls, tokens: Iterable[str]) -> TokenFormat:
        """Return the format that the marks in a list of tokens show; plain text if there are none."""
        tokens = list(tokens)
        few = max(1, len(tokens) // 1000)
        byte_fallback = any(map(_BYTE_TOKEN.fullmatch, tokens))
        formats = (
            (cls(space=METASPACE, byte_fallback=byte_fallback), lambda t: METASPACE in t),
            (cls(byte_level=True), lambda t: t.startswith("Ġ")),
            (cls(continuation="##"), lambda t: t.startswith("##") and len(t) > 2),
            (cls(word_end="</w>"), lambda t: t.endswith("</w>")),
            (cls(separator="@@"), lambda t: t.endswith("@@") and len(t) > 2),
        )
        found = (made for made, is_marked in formats if sum(map(is_marked, tokens)) >= few)
        return next(found, cls(byte_fallback=byte_fallback))


TokenFormatOption = TokenFormat | Literal["words"]
"""How a user passes the format of tokens: a `TokenFormat`, or "words" for whole words without a mark."""


def as_token_format(token_format: Any) -> TokenFormat | None:
    if token_format is None or isinstance(token_format, TokenFormat):
        return token_format
    if isinstance(token_format, str) and token_format == "words":
        return TokenFormat.words()
    raise InputError(
        f"token_format={token_format!r:.60}; it is 'words' (every token a whole word) or an "
        "embgeom.TokenFormat, such as TokenFormat(space='▁'), "
        "TokenFormat(byte_level=True) or TokenFormat(continuation='##')"
    )


def utf8(text: str) -> bytes:
    """Return the UTF-8 of `text`; a lone surrogate, which a JSON file may hold, keeps its own three bytes."""
    return text.encode("utf-8", "surrogatepass")


@cache
def byte_level_alphabet() -> dict[str, int]:
    """Return the character that stands for each byte in a byte-level vocabulary, as a map to the byte.

    Bytes that print stand for themselves (as Latin-1); the others take the code points from 256 on, in
    the order of the bytes.
    """
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(b): b for b in printing} | {chr(256 + i): b for i, b in enumerate(others)}


def _from_byte_level(token: str) -> bytes:
    alphabet = byte_level_alphabet()
    try:
        return bytes(alphabet[c] for c in token)
    except KeyError:
        # A token outside the alphabet was added as text, and tokenizers decode it as text.
        return utf8(token)
