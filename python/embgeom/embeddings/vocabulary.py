"""Which rows of two models stand for the same token.

Tokens are matched on what they spell, in two steps.

1. Same bytes ("exact"): both tokens spell the same bytes, spaces included, as ``Ġdog`` and ``▁dog`` do. A
   vocabulary may hold a character twice, as text and as a raw byte (``a`` and ``<0x61>``): text goes with
   text and byte with byte, and a byte goes with text only where neither has a partner of its own kind
   (``<0x0A>`` and a newline written as such).
2. Same word ("word"), only where one vocabulary writes words with a leading space (``▁dog``) and the other
   with a trailing space (``dog▁``), so that hardly any word has the same bytes in both: what is still
   unmatched is matched as `` dog`` with ``dog ``. Each is a whole word as far as its vocabulary can say, but
   the first may also begin a longer word and the second end one, so this is less certain. It takes words that
   begin and end with a letter or digit: an opening quote after a space is not a closing quote before one.

Every match is one to one. A spelling that a vocabulary holds twice is ambiguous, and left out.

A vocabulary of plain words (``dog``), without spaces, can only match the inner pieces of one that marks
them. Such a match raises a warning: ``token_format="words"`` spells them as whole words.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block
from embgeom.embeddings.embeddings import Embeddings, check_embeddings
from embgeom.errors import EmbgeomWarning, InputError

MIN_SHARED = 10
"""With fewer shared tokens a comparison means nothing, and `require_shared` refuses it."""

REASONS = ("special", "no text", "zero row", "ambiguous", "absent")
"""Why a row is left out, as `match` explains; the first that holds is counted."""

# The row of each spelling, or that there are several.
_Rows = Mapping[bytes, int]
_SEVERAL = -1
_SPACE = ord(" ")


@dataclass(frozen=True, eq=False, repr=False)
class Match(Result, Tabular):
    """The rows of the tokens that two vocabularies share; returned by `match`, unpacks into the rows.

    Attributes
    ----------
    ids_a, ids_b : ndarray of int64, shape (m,)
        Rows of the two models, in increasing order of ``ids_a``; no row occurs twice.
    kind : ndarray of str, shape (m,)
        ``"exact"`` for the same bytes, ``"word"`` for the same word, leading space in one and trailing in the
        other.
    left_out_a, left_out_b : dict of str to int
        How many rows of each model are left out, by the reasons that `match` explains.
    name_a, name_b : str
        The names of the models.

    Raises
    ------
    InputError
        If the three arrays are not equally long.
    """

    _large: ClassVar[bool] = True

    ids_a: RowNumbers
    ids_b: RowNumbers
    kind: npt.NDArray[np.str_]
    left_out_a: dict[str, int]
    left_out_b: dict[str, int]
    name_a: str
    name_b: str

    def __post_init__(self) -> None:
        if not len(self.ids_a) == len(self.ids_b) == len(self.kind):
            raise InputError(
                f"a Match of {len(self.ids_a)}, {len(self.ids_b)} and {len(self.kind)} entries; "
                "ids_a, ids_b and kind are one entry for each pair"
            )

    def __repr__(self) -> str:
        return f"Match({self.name_a!r} and {self.name_b!r}: {len(self)} shared tokens)"

    def __len__(self) -> int:
        return len(self.ids_a)

    def __iter__(self) -> Iterator[RowNumbers]:
        """Give ``ids_a`` and ``ids_b``, so that a match unpacks into them."""
        return iter((self.ids_a, self.ids_b))

    def kind_counts(self) -> dict[str, int]:
        """Return how many pairs there are of each kind."""
        found = Counter(self.kind.tolist())
        return {kind: found[kind] for kind in ("exact", "word")}

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, without the rows, which `to_pandas` and `save` have."""
        return {
            "result": "Match",
            "name_a": self.name_a,
            "name_b": self.name_b,
            "shared": len(self),
            "kinds": self.kind_counts(),
            "left_out_a": dict(self.left_out_a),
            "left_out_b": dict(self.left_out_b),
        }

    def columns(self) -> Columns:
        """Return a row for each shared token."""
        return {"row_a": self.ids_a, "row_b": self.ids_b, "kind": self.kind}

    def tables(self) -> list[Block]:
        """Return lines of text: how many tokens are shared, of which kind, and why the others are not."""
        lines: list[Block] = [f"{self.name_a} and {self.name_b} share {len(self)} tokens"]
        lines += [f"  {kind}: {count}" for kind, count in self.kind_counts().items() if count]
        for name, left_out in ((self.name_a, self.left_out_a), (self.name_b, self.left_out_b)):
            reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items() if count)
            lines.append(f"  left out of {name}: {reasons or 'nothing'}")
        return lines


def match(a: Embeddings, b: Embeddings) -> Match:
    """Match the tokens of two models.

    Every match is one to one, between tokens that spell the same bytes (``"exact"``) or, where one
    vocabulary writes words with a leading space and the other with a trailing one, the same word
    (``"word"``). Every other row is counted under the first of these reasons that holds:

    ``special``
        It is a special token.
    ``no text``
        It has no token, or its token spells nothing.
    ``zero row``
        It is all zero, so that its cosine is undefined.
    ``ambiguous``
        The other vocabulary has its spelling, but one of the two has it more than once.
    ``absent``
        The other vocabulary does not have it.

    Parameters
    ----------
    a, b : Embeddings
        The models, of V_a and V_b rows.

    Returns
    -------
    Match
        Unpacks into ``ids_a, ids_b``, each (m,) int64: ``a.matrix[ids_a]`` and ``b.matrix[ids_b]`` are the
        same tokens in the same order. It also holds the ``kind`` of each pair, and how many rows are left
        out, by reason. m may be 0.

    Warns
    -----
    EmbgeomWarning
        If one vocabulary holds plain words, the other marks spaces, and under half of the matches are at word
        starts: then load the words with ``token_format="words"``.

    Notes
    -----
    O(V_a + V_b) time and memory. The matrices are not read: zero rows are known since loading.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> a = embgeom.Embeddings.from_array(np.eye(2), ["▁cat", "▁dog"], name="prefix")
    >>> b = embgeom.Embeddings.from_array(np.eye(2), ["dog▁", "cow▁"], name="suffix")
    >>> ids_a, ids_b = embgeom.match(a, b)
    >>> ids_a.tolist(), ids_b.tolist()
    ([1], [0])
    >>> print(embgeom.match(a, b).summary())
    prefix and suffix share 1 tokens
      word: 1
      left out of prefix: absent 1
      left out of suffix: absent 1
    """
    text_a, bytes_a = _spellings(check_embeddings(a))
    text_b, bytes_b = _spellings(check_embeddings(b))
    exact = dict(_same_bytes(text_a, bytes_a, text_b, bytes_b))
    words: dict[int, int] = {}
    position_a, position_b = space_position(a), space_position(b)
    if {position_a, position_b} == {"leading", "trailing"}:
        words_a = _words(text_a, set(exact), leading=position_a == "leading")
        words_b = _words(text_b, set(exact.values()), leading=position_b == "leading")
        words = dict(_single(words_a, words_b))
    ids_a = np.array([*exact, *words], dtype=np.int64)
    ids_b = np.array([*exact.values(), *words.values()], dtype=np.int64)
    kind = np.repeat(["exact", "word"], [len(exact), len(words)])
    order = np.argsort(ids_a)
    ids_a, ids_b = ids_a[order], ids_b[order]
    _warn_of_plain_words(a, ids_a, b, position_b)
    _warn_of_plain_words(b, ids_b, a, position_a)
    return Match(
        ids_a=ids_a,
        ids_b=ids_b,
        kind=kind[order],
        left_out_a=_left_out(a, ids_a, (text_a, bytes_a), (text_b, bytes_b)),
        left_out_b=_left_out(b, ids_b, (text_b, bytes_b), (text_a, bytes_a)),
        name_a=a.name,
        name_b=b.name,
    )


def require_shared(found: Match) -> None:
    if len(found) < MIN_SHARED:
        reasons = "; ".join(line.strip() for line in found.summary().splitlines())
        raise InputError(f"too few shared tokens, at least {MIN_SHARED} are needed: {reasons}")


def space_position(model: Embeddings) -> Literal["leading", "trailing", "none"]:
    """Return where a vocabulary writes the space of its words, by majority; none where that is a draw."""
    spelled = list(filter(None, model.token_bytes))
    leading = _count_words([s[1:] for s in spelled if s[0] == _SPACE])
    trailing = _count_words([s[:-1] for s in spelled if s[-1] == _SPACE])
    if leading == trailing:
        return "none"
    return "leading" if leading > trailing else "trailing"


def _warn_of_plain_words(plain: Embeddings, matched: RowNumbers, other: Embeddings, position: str) -> None:
    """Warn where words without spaces were matched to tokens that mark them."""
    if position == "none" or not _is_plain_words(plain):
        return
    at_words = sum(_at_word(plain.token_bytes[row]) for row in matched.tolist())
    if 2 * at_words < max(1, len(matched)):
        warnings.warn(
            f"{plain.name} holds plain words, and {other.name} writes words with a {position} space: "
            f"{at_words} of {len(matched)} matches are at word starts, the others are pieces of words; if "
            f'they are whole words, load {plain.name} with token_format="words" (--token-format words)',
            EmbgeomWarning,
            stacklevel=3,  # The caller of match.
        )


def _is_plain_words(model: Embeddings) -> bool:
    """Return whether most tokens are several letters without a space, and hardly any has a space."""
    spelled = [
        s
        for s, is_byte in zip(model.token_bytes, model.byte_token.tolist(), strict=True)
        if s and not is_byte
    ]
    if 100 * sum(s[:1] == b" " or s[-1:] == b" " for s in spelled) > len(spelled):
        return False
    return 2 * _count_words([s for s in spelled if len(s) > 1]) > len(spelled)


def _at_word(spelled: bytes | None) -> bool:
    return spelled is not None and (spelled.startswith(b" ") or spelled.endswith(b" "))


def _word_in(spelled: bytes, *, leading: bool) -> bytes | None:
    """Return the word in ``" word"`` (leading) or ``"word "``, or None if `spelled` is not one such."""
    word, space = (spelled[1:], spelled[:1]) if leading else (spelled[:-1], spelled[-1:])
    return word if space == b" " and _is_word(word) else None


def _count_words(spelled: list[bytes]) -> int:
    # Most words are ASCII, and need not be decoded.
    others = [s for s in spelled if not s.isalnum()]
    return len(spelled) - len(others) + sum(map(_is_word, others))


def _is_word(spelled: bytes) -> bool:
    try:
        text = spelled.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return text[:1].isalnum() and text[-1:].isalnum()


def _spellings(model: Embeddings) -> tuple[_Rows, _Rows]:
    """Return the usable row of each spelling: those of text tokens, and those of byte tokens."""
    text: dict[bytes, int] = {}
    raw: dict[bytes, int] = {}
    for row, (spelled, is_byte, zero) in enumerate(
        zip(model.token_bytes, model.byte_token.tolist(), model.zero.tolist(), strict=True)
    ):
        if spelled is not None and not zero:
            rows = raw if is_byte else text
            rows[spelled] = _SEVERAL if spelled in rows else row
    return text, raw


def _same_bytes(text_a: _Rows, bytes_a: _Rows, text_b: _Rows, bytes_b: _Rows) -> Iterator[tuple[int, int]]:
    yield from _single(text_a, text_b)
    yield from _single(bytes_a, bytes_b)
    # Only what has no partner of its own kind is left to go with the other kind.
    left_a = {s: text_a[s] for s in bytes_b if s in text_a and s not in text_b and s not in bytes_a}
    left_b = {s: text_b[s] for s in bytes_a if s in text_b and s not in text_a and s not in bytes_b}
    yield from _single(left_a, bytes_b)
    yield from _single(bytes_a, left_b)


def _single(a: _Rows, b: _Rows) -> Iterator[tuple[int, int]]:
    """Pair the rows of the spellings that each side holds once."""
    for spelled, row in a.items():
        if row != _SEVERAL and (other := b.get(spelled, _SEVERAL)) != _SEVERAL:
            yield row, other


def _words(text: _Rows, matched: set[int], *, leading: bool) -> _Rows:
    words = ((_word_in(spelled, leading=leading), row) for spelled, row in text.items() if row not in matched)
    return {word: row for word, row in words if word is not None}


def _left_out(
    model: Embeddings, ids: npt.NDArray[np.int64], own: tuple[_Rows, _Rows], other: tuple[_Rows, _Rows]
) -> dict[str, int]:
    counts, (text, raw) = dict.fromkeys(REASONS, 0), other
    matched = np.zeros(len(model), dtype=bool)
    matched[ids] = True
    facts = zip(model.token_bytes, matched.tolist(), model.special.tolist(), model.zero.tolist(), strict=True)
    for spelled, is_matched, is_special, is_zero in facts:
        if is_matched:
            continue
        if is_special:
            reason = "special"
        elif spelled is None:
            reason = "no text"
        elif is_zero:
            reason = "zero row"
        elif (spelled in text or spelled in raw) and any(s.get(spelled) == _SEVERAL for s in (*own, *other)):
            reason = "ambiguous"
        else:
            reason = "absent"
        counts[reason] += 1
    return counts
