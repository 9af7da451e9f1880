"""Texts as tokens, and what a tokenizer puts around them by itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embgeom.errors import EmbgeomWarning, InputError


def check_text(text: object, what: str = "text") -> str:
    """Return a text, or say that it is none.

    Raises
    ------
    InputError
        If it is no string, or holds half a surrogate pair: no tokenizer reads what is not Unicode.
    """
    if not isinstance(text, str):
        raise InputError(f"{text!r:.40} is no text; give prompts and texts as strings")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the {what} {text!r:.60} is no valid Unicode at character {error.start}: write it in UTF-8"
        ) from None
    return text


def encoded(tokenizer: Any, text: str, **options: Any) -> Any:
    """Return what a tokenizer of transformers makes of a text.

    Raises
    ------
    InputError
        If it makes nothing of it.
    """
    if not callable(tokenizer):
        raise InputError(
            f"tokenizer: a {type(tokenizer).__name__} does not split texts; give the model's own"
        )
    check_text(text)
    try:
        return tokenizer(text, **options)
    except Exception as error:
        # What a tokenizer raises where its settings are damaged is not documented.
        raise InputError(
            f"the {type(tokenizer).__name__} cannot split {text!r:.40}: {type(error).__name__}: {error}; its "
            "files are damaged, or it is no tokenizer of transformers"
        ) from error


@dataclass(frozen=True)
class Around:
    """The special tokens that a tokenizer puts around each text.

    Attributes
    ----------
    front, back : tuple of int
        Those before it, such as one for the beginning of a text, and those behind it.
    """

    front: tuple[int, ...]
    back: tuple[int, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> Around:
        """Find out by a short text."""
        plain, whole = (
            [int(token) for token in encoded(tokenizer, "a", add_special_tokens=special)["input_ids"]]
            for special in (False, True)
        )
        for start in range(len(whole) - len(plain) + 1 if plain else 0):
            if whole[start : start + len(plain)] == plain:
                return cls(tuple(whole[:start]), tuple(whole[start + len(plain) :]))
        return cls((), ())

    def doubled(self, sequences: Sequence[Sequence[int]]) -> int:
        """Return how many texts begin with the tokens in front twice."""
        return sum(_begins(sequence, self.front * 2) for sequence in sequences) if self.front else 0

    def lacking(self, sequences: Sequence[Sequence[int]]) -> int:
        """Return how many texts do not begin with the tokens in front."""
        return sum(not _begins(sequence, self.front) for sequence in sequences)


def warn_of_doubled(
    tokenizer: Any, sequences: Sequence[Sequence[int]], way_out: str, *, stacklevel: int
) -> None:
    """Warn if texts hold the token for their beginning, and the tokenizer adds it once more."""
    around = Around.from_tokenizer(tokenizer)
    if count := around.doubled(sequences):
        warnings.warn(
            f"{count} of {len(sequences)} texts begin with {named(tokenizer, around.front)} twice, since "
            f"they hold it and the tokenizer adds it; models are not used to that: {way_out}",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_lacking(tokenizer: Any, sequences: Sequence[Sequence[int]], *, stacklevel: int) -> None:
    """Warn if texts lack the token that the tokenizer would put in front of them."""
    around = Around.from_tokenizer(tokenizer)
    if count := around.lacking(sequences):
        warnings.warn(
            f"{count} of {len(sequences)} texts do not begin with {named(tokenizer, around.front)}, which "
            "the tokenizer would add; models that were trained with it read differently without: let it be "
            "added, or write it in front of the texts",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )


def _begins(sequence: Sequence[int], front: Sequence[int]) -> bool:
    return list(sequence[: len(front)]) == list(front)


def named(tokenizer: Any, tokens: Sequence[int]) -> str:
    """Return tokens as a person knows them."""
    names = getattr(tokenizer, "convert_ids_to_tokens", list)(list(tokens))
    return " ".join(map(str, names))
