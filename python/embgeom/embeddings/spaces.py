"""On which side of its words a vocabulary writes the space, and what follows where it writes none."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import EmbgeomWarning


def space_position(model: Embeddings) -> Literal["leading", "trailing", "none"]:
    """Return on which side of its words a vocabulary writes the space, by the majority of its tokens.

    Parameters
    ----------
    model : Embeddings
        The model with the vocabulary.

    Returns
    -------
    {"leading", "trailing", "none"}
        ``"none"`` where neither side has the majority.
    """
    before = sum(
        spelled is not None and word_in(spelled, before=True) is not None for spelled in model.token_bytes
    )
    behind = sum(
        spelled is not None and word_in(spelled, before=False) is not None for spelled in model.token_bytes
    )
    if before == behind:
        return "none"
    return "leading" if before > behind else "trailing"


def warn_of_plain_words(plain: Embeddings, other: Embeddings, matched: npt.NDArray[np.int64]) -> None:
    """Warn where words that say nothing of spaces were matched to tokens that do.

    Parameters
    ----------
    plain : Embeddings
        The model that may hold plain words.
    other : Embeddings
        The model that it was matched to.
    matched : ndarray of int64, shape (m,)
        The rows of `plain` that found a partner.

    Warns
    -----
    EmbgeomWarning
        If `plain` holds plain words, `other` marks spaces, and under half of the matches are at word starts.
    """
    side = space_position(other)
    if side == "none" or not _is_plain_words(plain):
        return
    at_words = sum(_at_word(plain.token_bytes[row]) for row in matched.tolist())
    if 2 * at_words < max(1, len(matched)):
        warnings.warn(
            f"{plain.name} holds plain words, and {other.name} writes words with a {side} space: "
            f"{at_words} of {len(matched)} matches are at word starts, the others are pieces of words; "
            f'where they are whole words, load {plain.name} with token_format="words" (--token-format words)',
            EmbgeomWarning,
            stacklevel=3,  # The caller of match.
        )


def _is_plain_words(model: Embeddings) -> bool:
    """Return whether most tokens are several letters without a space, and hardly any has a space."""
    spelled = [s for s, is_byte in zip(model.token_bytes, model.byte_token, strict=True) if s and not is_byte]
    words = sum(len(s) > 1 and word_in(b" " + s, before=True) is not None for s in spelled)
    return 2 * words > len(spelled) and 100 * sum(map(_at_word, spelled)) <= len(spelled)


def _at_word(spelled: bytes | None) -> bool:
    return spelled is not None and (spelled.startswith(b" ") or spelled.endswith(b" "))


def word_in(spelled: bytes, *, before: bool) -> bytes | None:
    """Return the word in ``" word"`` (before) or ``"word "``, or None if `spelled` is not one such."""
    word = spelled[1:] if before else spelled[:-1]
    if not word or spelled != (b" " + word if before else word + b" "):
        return None
    try:
        text = word.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return word if text[0].isalnum() and text[-1].isalnum() else None
