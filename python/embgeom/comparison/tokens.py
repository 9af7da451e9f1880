"""Which tokens count: classes of tokens, known from the vocabulary, the tokenizer and the matrix."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from string import ascii_lowercase
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.checks import warn
from embgeom._common.foreign import to_strings
from embgeom._common.record import plain
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, Table
from embgeom._common.threads import resolve_threads
from embgeom.comparison.untrained import MOST_WRONG, Detection, detect
from embgeom.embeddings.embeddings import Embeddings, check_embeddings
from embgeom.embeddings.token_text import (
    DIGITS,
    NO_SCRIPT,
    decoded,
    is_impossible,
    is_reserved,
    is_word,
    looks_of,
)
from embgeom.embeddings.vocabulary import MIN_SHARED, match, require_shared
from embgeom.errors import InputError
from embgeom.loading.folder import read_lines
from embgeom.loading.unreachable import unreachable_rows

CLASSES = {
    "special": "special tokens",
    "byte": "raw bytes and parts of characters",
    "unused": "reserved names and rows without a token",
    "unreachable": "tokens that the tokenizer never produces",
    "equal": "copies of an earlier row",
    "untrained": "rows that training hardly reached",
}
"""The classes that `without` may name, each with its meaning. A row may be of several."""
# Of each model that is in memory.
_CLASSES_OF: WeakKeyDictionary[Embeddings, TokenClasses] = WeakKeyDictionary()
WITHOUT = ("special", "unused", "equal", "untrained")
"""The classes that are left out by default."""

_Mask = npt.NDArray[np.bool_]
# The last length in characters of each bin; longer ones are a bin of their own.
_LENGTHS = (1, 2, 3, 4, 6, 8)
_SMALLEST_STRATUM = 10
_NAMED = 3  # tokens that a warning names
_BINS = 20  # of row numbers
_LETTERS = frozenset(ascii_lowercase)


@dataclass(frozen=True, eq=False, repr=False)
class TokenClasses(Result, Tabular):
    """The classes of a model's V tokens; returned by `classify`.

    Attributes
    ----------
    name : str
        The name of the model.
    tokens : list of str, length V
        The tokens as the tokenizer writes them.
    texts : list of (str or None), length V
        What they spell, with their spaces; None for special tokens, bytes and rows without a token.
    special, byte, unused, unreachable, equal, untrained : ndarray of bool, shape (V,)
        The rows of each class; see `CLASSES`. Zero rows count as untrained.
    position, case, script : ndarray of str, shape (V,)
        Where the space is ("leading space", "trailing space", "continuation", "none"), how letters are
        written ("lower", "capitalized", "upper", "mixed", "none"), and in which script ("Latin", "Han", ...,
        "mixed", "digits", "none").
    length : ndarray of int64, shape (V,)
        Characters, without spaces around them; 0 where the token spells none.
    detection : Detection
        How untrained rows were found.
    notes : tuple of str
        What could not be determined, and why.
    """

    _large: ClassVar[bool] = True

    name: str
    tokens: list[str]
    texts: list[str | None]
    special: _Mask
    byte: _Mask
    unused: _Mask
    unreachable: _Mask
    equal: _Mask
    untrained: _Mask
    position: npt.NDArray[np.str_]
    case: npt.NDArray[np.str_]
    script: npt.NDArray[np.str_]
    length: RowNumbers
    detection: Detection
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {count}" for name, count in self.counts().items())
        return f"TokenClasses({self.name!r}, {len(self)} tokens: {counts})"

    @property
    def similarity_to_untrained(self) -> npt.NDArray[np.float32]:
        """How much each row resembles rows known to be untrained, (V,); NaN where none are known."""
        return self.detection.similarity

    def excluded(self, without: Iterable[str] = WITHOUT) -> _Mask:
        """Return which rows are of one of the classes, shape (V,)."""
        out = np.zeros(len(self), dtype=bool)
        for name in check_without(without):
            out |= getattr(self, name)
        return out

    def counts(self) -> dict[str, int]:
        """Return how many rows each class has; a row may be of several."""
        return {name: int(np.count_nonzero(getattr(self, name))) for name in CLASSES}

    def strata(self, rows: npt.ArrayLike | None = None) -> RowNumbers:
        """Return the stratum of each of some rows, numbered from 0.

        Tokens of one stratum are alike in class (byte, space, case, script), in frequency (twentieths
        by the row number, for which byte-pair encoding follows the frequency) and in length. Strata of fewer
        than 10 tokens are merged: those that differ only in length first, then in script and case, then in
        space, then in frequency.

        Parameters
        ----------
        rows : array_like of int, shape (n,), optional
            All rows by default.

        Returns
        -------
        ndarray of int64, shape (n,)
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)
        order = np.argsort(np.argsort(chosen, kind="stable"), kind="stable")
        frequency = order * _BINS // max(len(chosen), 1)
        raw = self.byte[chosen].astype(np.int64)
        space, case, script = (_codes(values[chosen]) for values in (self.position, self.case, self.script))
        length = np.searchsorted(_LENGTHS, self.length[chosen])
        levels = (
            (raw, frequency, space, case, script, length),
            (raw, frequency, space, case, script),
            (raw, frequency, space),
            (raw, frequency),
            (raw,),
        )
        return _merged(levels, len(chosen))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts and how untrained rows were found, without the classes of single tokens."""
        found = self.detection
        known = ("seeds", "n_seeds", "threshold", "recall", "others", "control")
        detection = {name: getattr(found, name) for name in known}
        record = {"name": self.name, "rows": len(self), "counts": self.counts(), "detection": detection}
        return {"result": "TokenClasses", **plain({**record, "notes": self.notes})}

    def columns(self) -> Columns:
        """Return a row for each row of the matrix."""
        return {
            "token": self.tokens,
            "text": self.texts,
            **{name: getattr(self, name) for name in CLASSES},
            "position": self.position,
            "case": self.case,
            "script": self.script,
            "length": self.length,
            "similarity_to_untrained": self.similarity_to_untrained,
        }

    def tables(self) -> list[Block]:
        """Return the counts of the classes and how untrained rows were found."""
        counts = self.counts()
        rows: list[tuple[str, str, str | float]] = [
            (name, meaning, counts[name]) for name, meaning in CLASSES.items() if counts[name]
        ]
        title = f"{len(self)} rows of {self.name} by class; a row may be of several"
        return [Table(title, ("class", "what it is", "rows"), rows), *self.found_by(), *self.notes]

    def found_by(self) -> list[str]:
        """Return how untrained rows were found, in sentences; empty where they were not."""
        found = self.detection
        if found.recall is None:
            return []
        others, wrong = (
            " and ".join(f"{hits} of {count} {kind}" for kind, (hits, count) in rows.items())
            for rows in (found.others, found.control)
        )
        counts = self.counts()
        raw = int(np.count_nonzero(self.untrained & self.byte))
        return [
            f"{counts['untrained']} rows count as untrained{f', {raw} of them raw bytes' if raw else ''}: "
            f"those whose similarity to {found.n_seeds} {found.seeds} is above {found.threshold}. Checked: "
            f"half of these {found.n_seeds} finds {found.recall:.0%} of the other half"
            + (f"; {others}, which training never reached either, are found" if others else "")
            + (f"; {wrong} count as untrained, which should be few" if wrong else "")
            + ". How many untrained rows are missed is not known"
        ]


def classify(embeddings: Embeddings, *, threads: int | None = None) -> TokenClasses:
    """Sort a model's tokens into classes, by the vocabulary, the tokenizer and the matrix.

    Parameters
    ----------
    embeddings : Embeddings
        The model, of V rows.
    threads : int, optional
        Threads to use; every core available to the process by default.

    Returns
    -------
    TokenClasses

    Notes
    -----
    O(V d) time: two products of the matrix with a few vectors for each kind of seeds that is tried.
    The classes of a model are found once, and kept as long as it is; their arrays are read-only.

    Examples
    --------
    >>> import embgeom
    >>> classes = embgeom.comparison.classify(embgeom.load("example:small"))
    >>> classes.counts()["special"], classes.script[classes.tokens.index("Ġdog")]
    (1, np.str_('Latin'))
    """
    model = check_embeddings(embeddings)
    if (known := _CLASSES_OF.get(model)) is None:
        known = _CLASSES_OF[model] = _classified(model, resolve_threads(threads))
        for value in (*vars(known).values(), *vars(known.detection).values()):
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
    return known


def _classified(model: Embeddings, threads: int) -> TokenClasses:
    spelled = model.token_bytes
    texts = [
        None if each is None or raw else decoded(each)
        for each, raw in zip(spelled, model.byte_token.tolist(), strict=True)
    ]
    shown = ["" if text is None else text for text in texts]
    impossible = np.array(
        [
            text is None and each is not None and is_impossible(each)
            for each, text in zip(spelled, texts, strict=True)
        ],
        dtype=bool,
    )
    reserved = np.array(list(map(is_reserved, model.tokens)), dtype=bool)
    position, case, script, length = looks_of(shown)
    repeated = model.row_stats.repeated
    copied = np.isin(model.row_stats.first_equal, model.row_stats.first_equal[repeated])
    control = _trained(shown, case, script, length)
    unproduced = unreachable_rows(model)
    candidates = {
        "rows of bytes that no text holds": impossible,
        "rows beyond the tokenizer": ~model.has_token,
        "rows with reserved names": reserved,
        "rows that are equal": copied & ~model.zero,
    }
    notes = [f"unreachable tokens are only those of impossible bytes: {model.name} has no tokenizer to ask"]
    if unproduced is not None:
        candidates["tokens that the tokenizer never produces"] = unproduced
        notes = []
    detection = detect(model.matrix, candidates, control, threads=threads)
    if not detection.seeds:
        notes.append(
            "untrained rows are not determined: no rows that should be untrained (reserved names, bytes that "
            "no text holds, copies) resemble each other, and not frequent words or letters"
        )
    return TokenClasses(
        name=model.name,
        tokens=model.tokens,
        texts=texts,
        special=model.special.copy(),
        byte=np.array(
            [b is not None and text is None for b, text in zip(spelled, texts, strict=True)], dtype=bool
        ),
        unused=reserved | ~model.has_token,
        unreachable=impossible if unproduced is None else impossible | unproduced,
        equal=repeated.copy(),
        untrained=detection.mask | model.zero,
        position=position,
        case=case,
        script=script,
        length=length,
        detection=detection,
        notes=tuple(notes),
    )


def _trained(
    shown: Sequence[str], case: npt.NDArray[np.str_], script: npt.NDArray[np.str_], length: RowNumbers
) -> dict[str, _Mask]:
    """Return the rows that training must have reached: frequent words, and letters."""
    # Among vocabularies by byte-pair encoding, the first words are those that are most frequent.
    words = np.flatnonzero((case == "lower") & (length > 1))
    frequent = np.isin(np.arange(len(shown)), words[: len(words) // 10])
    letters = np.array([text in _LETTERS for text in shown], dtype=bool)
    # Where other scripts prevail, training may hardly have met a Latin letter.
    letters &= bool(2 * (script == "Latin").sum() > (~np.isin(script, (NO_SCRIPT, DIGITS))).sum())
    return dict(zip(MOST_WRONG, (frequent, letters), strict=True))


def kept_rows(
    classes: TokenClasses,
    *,
    without: Iterable[str] = WITHOUT,
    only: str | PathLike[str] | Sequence[str] | None = None,
) -> RowNumbers:
    """Return the rows that count.

    Parameters
    ----------
    classes : TokenClasses
        The classes of the model's V tokens.
    without : iterable of str
        The classes to leave out, of `CLASSES`; ``()`` for none.
    only : "words", path, or sequence of str, optional
        ``"words"`` for tokens of letters that stand after a space (or before one, or anywhere in a
        vocabulary that marks no spaces); a file with a token on each line; or tokens. ``"king"`` stands for
        every token that spells it, with a space around it or none; ``" king"`` only for the one with the
        space.

    Returns
    -------
    ndarray of int64, shape (m,)
        Ascending row numbers.

    Raises
    ------
    InputError
        If a class is unknown, or `only` names no token that is there.
    LoadError
        If the file cannot be read.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.comparison import classify, kept_rows
    >>> classes = classify(embgeom.load("example:small"))
    >>> len(kept_rows(classes, without=())), len(kept_rows(classes, only=[" king"]))
    (4096, 1)
    """
    rows = np.arange(len(classes), dtype=np.int64)
    return rows[tokens_that_count([classes], [rows], without=without, only=only)]


def tokens_that_count(
    classes: Sequence[TokenClasses],
    ids: Sequence[RowNumbers],
    *,
    without: Iterable[str],
    only: str | PathLike[str] | Sequence[str] | None,
) -> _Mask:
    """Return which of the m tokens that some models share count, (m,); `ids` are their rows in each model."""
    sides = list(zip(classes, ids, strict=True))
    counts: _Mask = ~np.logical_or.reduce([each.excluded(without)[rows] for each, rows in sides])
    if isinstance(only, str) and only == "words":
        # Whether a token stands for a word depends on the vocabulary, so it must in each.
        counts &= np.logical_and.reduce([_words(each)[rows] for each, rows in sides])
    elif only is not None:
        models = " and ".join(each.name for each in classes)
        where = models if len(classes) == 1 else f"what {models} share"
        # What is shared spells the same, so it is enough that one vocabulary writes it as it is listed.
        counts &= np.logical_or.reduce(listed_rows(classes, ids, only, where))
    return counts


def listed_rows(
    classes: Sequence[TokenClasses],
    ids: Sequence[RowNumbers],
    only: str | PathLike[str] | Sequence[str],
    where: str,
) -> list[_Mask]:
    """Return which of some rows of each model are listed as it writes them; warn of what `where` lacks."""
    lines = read_lines(Path(only)) if isinstance(only, str | PathLike) else to_strings(only, "only")
    wanted = set(lines) - {""}
    written = [_written(each, rows, wanted) for each, rows in zip(classes, ids, strict=True)]
    named: list[_Mask] = [np.array(list(map(bool, spellings)), dtype=bool) for spellings in written]
    if not any(mask.any() for mask in named):
        raise InputError(f"only={only!r:.60} names no token of {where}; check how tokens are written")
    if lacking := sorted(wanted.difference(*(spelled for spellings in written for spelled in spellings))):
        first = ", ".join(f"{token!r:.40}" for token in lacking[:_NAMED])
        warn(
            f"{len(lacking)} of the {len(wanted)} tokens listed by only= (--only) not found in {where}: "
            f"{first}{', ...' if len(lacking) > _NAMED else ''}"
        )
    return named


def shared_rows(
    a: Embeddings,
    b: Embeddings,
    *,
    without: Iterable[str] = WITHOUT,
    only: str | PathLike[str] | Sequence[str] | None = None,
    threads: int | None = None,
) -> tuple[RowNumbers, RowNumbers]:
    """Match the tokens of two models, and keep those that count in both.

    Parameters
    ----------
    a, b : Embeddings
        The models.
    without, only : optional
        As for `kept_rows`: a token counts if neither model leaves it out, and if it is among those that are
        chosen: a word in both models, or listed as either of them writes it.
    threads : int, optional
        Threads to use; every core available to the process by default.

    Returns
    -------
    ids_a, ids_b : ndarray of int64, shape (m,)
        Rows of the same tokens, such as the ``tokens=`` of `Emb2Emb.fit`.

    Raises
    ------
    InputError
        If a class is unknown, or fewer than 10 tokens are left.

    Examples
    --------
    >>> import embgeom
    >>> small, large = embgeom.load("example:small"), embgeom.load("example:large")
    >>> ids_a, ids_b = embgeom.comparison.shared_rows(small, large, without=["byte"])
    >>> len(ids_a)
    3934
    """
    found = match(a, b)
    require_shared(found)
    classes = [classify(model, threads=threads) for model in (a, b)]
    kept = tokens_that_count(classes, (found.ids_a, found.ids_b), without=without, only=only)
    if np.count_nonzero(kept) < MIN_SHARED:
        raise InputError(
            f"{np.count_nonzero(kept)} of the {len(found)} tokens that {a.name} and {b.name} share count; at "
            f"least {MIN_SHARED} are needed: leave out fewer classes (--with, without=)"
        )
    return found.ids_a[kept], found.ids_b[kept]


def check_without(without: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes, or refuse unknown ones."""
    named = (without,) if isinstance(without, str) else tuple(without)
    for name in named:
        if name not in CLASSES:
            raise InputError(f"without={name!r:.40} is not a class of tokens: use {', '.join(CLASSES)}")
    return named


def _words(classes: TokenClasses) -> _Mask:
    marked = np.isin(classes.position, ("leading space", "trailing space"))
    words = np.array([text is not None and is_word(text) for text in classes.texts], dtype=bool)
    return words & marked if marked.any() else words


def check_only(only: str | PathLike[str] | Sequence[str] | None) -> str | tuple[str, ...] | None:
    """Return `only` as options keep it: "words", a path, or tokens."""
    if only is None or isinstance(only, str | PathLike):
        return None if only is None else os.fspath(only)
    return tuple(to_strings(only, "only"))


def _written(classes: TokenClasses, rows: RowNumbers, wanted: set[str]) -> list[set[str]]:
    """Return as what each of some tokens is listed; an empty set for one that is not."""
    pairs = ((classes.tokens[row], classes.texts[row]) for row in rows.tolist())
    return [wanted & ({token} if text is None else {token, text, text.strip(" ")}) for token, text in pairs]


def _codes(values: npt.NDArray[Any]) -> RowNumbers:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def _merged(levels: tuple[tuple[npt.NDArray[Any], ...], ...], n: int) -> RowNumbers:
    """Return the strata of the finest level, with the members of small ones moved to the next level."""
    strata, left, begin = np.zeros(n, dtype=np.int64), np.arange(n), 0
    for depth, level in enumerate(levels):
        if not left.size:
            break
        keys = np.stack([np.asarray(key)[left] for key in level], axis=1)
        _, group, sizes = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        done = (sizes[group] >= _SMALLEST_STRATUM) | (depth == len(levels) - 1)
        strata[left[done]] = begin + group[done]
        begin += len(sizes)
        left = left[~done]
    return _codes(strata)
