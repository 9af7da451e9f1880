"""Which rows of two models stand for the same token.

Tokens are matched on what they spell, in two steps.

1. Same bytes ("exact"): both tokens spell the same bytes, spaces included, as ``Ġdog`` and ``▁dog`` do. A
   vocabulary may hold a character twice, as text and as a raw byte (``a`` and ``<0x61>``): text goes with
   text and byte with byte, and a byte goes with text only where neither has a partner of its own kind
   (``<0x0A>`` and a newline written as such).
2. Same word ("word"), only where one vocabulary writes the space before its words (``▁dog``) and the other
   behind them (``dog▁``), so that hardly any word has the same bytes in both: what is still unmatched is
   matched as `` dog`` with ``dog ``. Each is a whole word as far as its vocabulary can say, but the first may
   also begin a longer word and the second end one, so this is less certain. It takes words that begin and end
   with a letter or digit: an opening quote after a space is not the closing quote before one.

Every match is one to one. A spelling that a vocabulary holds twice decides nothing, and is left out.

A vocabulary of plain words (``dog``), which says nothing of spaces, can only meet the inner pieces of one
that marks them. Such a match is warned of: ``token_format="words"`` spells them as the words that they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings, check_embeddings
from embgeom.embeddings.spaces import space_position, warn_of_plain_words, word_in
from embgeom.errors import InputError

MIN_SHARED = 10
"""With fewer shared tokens a comparison says nothing, and `require_shared` refuses it."""

REASONS = ("special", "no text", "zero row", "ambiguous", "absent")
"""Why a row is left out, as `match` explains; the first that holds is counted."""

_Rows = Mapping[bytes, list[int]]


@dataclass(frozen=True, eq=False, repr=False)
class Match:
    """The rows of the tokens that two vocabularies share, and why the others are left out.

    Attributes
    ----------
    ids_a, ids_b : ndarray of int64, shape (m,)
        Rows of the two models, in increasing order of ``ids_a``; no row occurs twice.
    kind : ndarray of str, shape (m,)
        ``"exact"`` for the same bytes, ``"word"`` for the same word with its space on the other side.
    left_out_a, left_out_b : dict of str to int
        How many rows of each model are left out, by the reasons that `match` explains.
    name_a, name_b : str
        The names of the models.

    Raises
    ------
    InputError
        If the three arrays are not equally long.
    """

    ids_a: npt.NDArray[np.int64]
    ids_b: npt.NDArray[np.int64]
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

    def __iter__(self) -> Iterator[npt.NDArray[np.int64]]:
        """Give ``ids_a`` and ``ids_b``, so that a match unpacks into them."""
        return iter((self.ids_a, self.ids_b))

    def kind_counts(self) -> dict[str, int]:
        """Return how many pairs there are of each kind, the surest first."""
        found = Counter(self.kind.tolist())
        return {kind: found[kind] for kind in ("exact", "word")}

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Return every count of this match, ready for JSON."""
        return {
            "shared": len(self),
            "kind_counts": self.kind_counts(),
            "left_out_a": dict(self.left_out_a),
            "left_out_b": dict(self.left_out_b),
        }

    def summary(self) -> str:
        """Return a few lines: how many tokens are shared, how surely, and why the others are not."""
        lines = [f"{self.name_a} and {self.name_b} share {len(self)} tokens"]
        lines += [f"  {kind}: {count}" for kind, count in self.kind_counts().items() if count]
        for name, left_out in ((self.name_a, self.left_out_a), (self.name_b, self.left_out_b)):
            reasons = ", ".join(f"{reason} {count}" for reason, count in left_out.items() if count)
            lines.append(f"  left out of {name}: {reasons or 'nothing'}")
        return "\n".join(lines)


def match(a: Embeddings, b: Embeddings) -> Match:
    """Match the tokens of two models, with the kind of each pair and the count of rows left out.

    Every match is one to one, between tokens that spell the same bytes (``"exact"``) or, where one
    vocabulary writes the space before its words and the other behind them, the same word (``"word"``).
    Every other row is counted under the first of these reasons that holds:

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
        With ``ids_a`` and ``ids_b`` (m,) int64, ``kind`` (m,), and the counts by reason
        ``left_out_a`` and ``left_out_b``.

    Warns
    -----
    EmbgeomWarning
        If one vocabulary holds plain words, the other marks spaces, and under half of the matches are at word
        starts: the words are then to be loaded with ``token_format="words"``.

    Notes
    -----
    O(V_a + V_b) time and memory. The matrices are not read: which rows are zero is known since they were
    loaded. The rules are told in full at the head of the module ``embgeom.vocabulary``.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.embeddings.embeddings import Embeddings
    >>> a = Embeddings.from_array(np.eye(2), ["▁cat", "▁dog"], name="prefix")
    >>> b = Embeddings.from_array(np.eye(2), ["dog▁", "cow▁"], name="suffix")
    >>> print(match(a, b).summary())
    prefix and suffix share 1 tokens
      word: 1
      left out of prefix: absent 1
      left out of suffix: absent 1
    """
    text_a, bytes_a = _spellings(check_embeddings(a))
    text_b, bytes_b = _spellings(check_embeddings(b))
    exact = dict(_same_bytes(text_a, bytes_a, text_b, bytes_b))
    words: dict[int, int] = {}
    sides = {space_position(a), space_position(b)}
    if sides == {"leading", "trailing"}:
        words = _same_word(text_a, text_b, exact, a_before=space_position(a) == "leading")
    pairs = sorted([(i, j, "exact") for i, j in exact.items()] + [(i, j, "word") for i, j in words.items()])
    ids_a = np.array([i for i, _, _ in pairs], dtype=np.int64)
    ids_b = np.array([j for _, j, _ in pairs], dtype=np.int64)
    warn_of_plain_words(a, b, ids_a)
    warn_of_plain_words(b, a, ids_b)
    return Match(
        ids_a=ids_a,
        ids_b=ids_b,
        kind=np.array([kind for _, _, kind in pairs], dtype="<U5"),
        left_out_a=_left_out(a, ids_a, (text_a, bytes_a), (text_b, bytes_b)),
        left_out_b=_left_out(b, ids_b, (text_b, bytes_b), (text_a, bytes_a)),
        name_a=a.name,
        name_b=b.name,
    )


def require_shared(found: Match, minimum: int = MIN_SHARED) -> None:
    """Refuse a match of too few tokens to compare anything.

    Parameters
    ----------
    found : Match
        The match.
    minimum : int
        The fewest pairs that are enough.

    Raises
    ------
    InputError
        If `found` has fewer than `minimum` pairs; both models and the counts are named.
    """
    if len(found) < minimum:
        raise InputError(f"too few shared tokens, at least {minimum} are needed: {found.summary()}")


def _spellings(model: Embeddings) -> tuple[_Rows, _Rows]:
    """Return the usable rows of each spelling: those of text tokens, and those of byte tokens."""
    text: dict[bytes, list[int]] = {}
    raw: dict[bytes, list[int]] = {}
    for row, (spelled, is_byte, zero) in enumerate(
        zip(model.token_bytes, model.byte_token, model.zero, strict=True)
    ):
        if spelled is not None and not zero:
            (raw if is_byte else text).setdefault(spelled, []).append(row)
    return text, raw


def _same_bytes(text_a: _Rows, bytes_a: _Rows, text_b: _Rows, bytes_b: _Rows) -> Iterator[tuple[int, int]]:
    yield from _single(text_a, text_b)
    yield from _single(bytes_a, bytes_b)
    # Only what has no partner of its own kind is left to go with the other kind.
    yield from _single({s: r for s, r in text_a.items() if s not in text_b and s not in bytes_a}, bytes_b)
    yield from _single(bytes_a, {s: r for s, r in text_b.items() if s not in text_a and s not in bytes_b})


def _single(a: _Rows, b: _Rows) -> Iterator[tuple[int, int]]:
    """Pair the rows of the spellings that each side holds once."""
    for spelled, rows in a.items():
        others = b.get(spelled, ())
        if len(rows) == 1 == len(others):
            yield rows[0], others[0]


def _same_word(text_a: _Rows, text_b: _Rows, matched: Mapping[int, int], *, a_before: bool) -> dict[int, int]:
    words_a = _words(text_a, set(matched), before=a_before)
    words_b = _words(text_b, set(matched.values()), before=not a_before)
    return dict(_single(words_a, words_b))


def _words(text: _Rows, matched: set[int], *, before: bool) -> _Rows:
    words = (
        (word_in(spelled, before=before), rows) for spelled, rows in text.items() if not matched & set(rows)
    )
    return {word: rows for word, rows in words if word is not None}


def _left_out(
    model: Embeddings, ids: npt.NDArray[np.int64], own: tuple[_Rows, _Rows], other: tuple[_Rows, _Rows]
) -> dict[str, int]:
    """Count the rows that are not in `ids` by the first of the reasons that holds."""
    counts = dict.fromkeys(REASONS, 0)
    matched = set(ids.tolist())
    for row, spelled in enumerate(model.token_bytes):
        if row in matched:
            continue
        if model.special[row]:
            reason = "special"
        elif spelled is None:
            reason = "no text"
        elif model.zero[row]:
            reason = "zero row"
        elif any(spelled in side for side in other) and any(len(s.get(spelled, ())) > 1 for s in own + other):
            reason = "ambiguous"
        else:
            reason = "absent"
        counts[reason] += 1
    return counts
