"""Where texts are read for a steering vector, and what the residual stream is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError
from embgeom.steering.blocks import Layout
from embgeom.steering.pairs import Pair
from embgeom.steering.passes import read_blocks

Read = Literal["last", "mean", "answer"] | int
# The tokens of a text, and the places among them at which it is read.
Text = tuple[list[int], list[int]]


def check_read(read: Read) -> Read:
    """Return `read`, or say what it may be."""
    if read in ("last", "mean", "answer"):
        return read
    if isinstance(read, int | np.integer) and not isinstance(read, bool) and read < 0:
        return int(read)
    raise InputError(f'read = {read!r} must be "last", "mean", "answer" or a negative place such as -2')


def tokenize(
    tokenizer: Any, pairs: Sequence[Pair], read: Read, add_special_tokens: bool, limit: int | None
) -> list[tuple[Text, Text]]:
    """Return the tokens of both texts of each pair, with the places at which they are read.

    Raises
    ------
    InputError
        If a text has no token to read, or has more than `limit`.
    """
    if not callable(tokenizer):
        raise InputError(
            f"tokenizer: a {type(tokenizer).__name__} does not split texts; give the model's own"
        )
    found = []
    for number, pair in enumerate(pairs):
        both = [_tokens(tokenizer, text, add_special_tokens) for text in pair]
        shared = _shared(both[0][0], both[1][0])
        texts = []
        for side, (tokens, special) in zip(("positive", "negative"), both, strict=True):
            where = f"the {side} text of pair {number}, {pair[side == 'negative']!r:.60},"
            if limit is not None and len(tokens) > limit:
                raise InputError(f"{where} has {len(tokens)} tokens; the model reads {limit} at most")
            places = _places(read, len(tokens), special, shared)
            if not places:
                raise InputError(f"{where} has {len(tokens)} tokens and none to read with read={read!r}")
            texts.append((tokens, places))
        found.append((texts[0], texts[1]))
    return found


def mean_states(
    model: Any, layout: Layout, blocks: Sequence[int], texts: Sequence[Text]
) -> npt.NDArray[np.float64]:
    """Return the mean over each text's places, float64 of shape (texts, blocks, width).

    Each position is read in float32 at least; means are taken in float64.
    """
    places = [chosen for _, chosen in texts]
    states = read_blocks(model, layout, [tokens for tokens, _ in texts], places, blocks)
    counts = np.array([len(chosen) for chosen in places])
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(states, starts, axis=1, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums.transpose(1, 0, 2) / counts[:, None, None]
    return means


def _tokens(tokenizer: Any, text: str, add_special_tokens: bool) -> tuple[list[int], list[int]]:
    """Return a text's tokens, and for each of them whether the tokenizer put it there by itself."""
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_special_tokens_mask=True)
    tokens = [int(token) for token in encoded["input_ids"]]
    special = encoded.get("special_tokens_mask") if add_special_tokens else None
    return tokens, list(special or [0] * len(tokens))


def _shared(first: list[int], second: list[int]) -> int:
    """Return the length of the beginning that two lists of tokens share."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _places(read: Read, length: int, special: list[int], shared: int) -> list[int]:
    """Return the places at which a text is read; none where it is too short."""
    if read == "last":
        return [length - 1] if length else []
    if isinstance(read, int):
        return [length + read] if length + read >= 0 else []
    first = shared if read == "answer" else 0
    return [place for place in range(first, length) if not special[place]]
