"""Where texts are read for a steering vector, and what the residual stream is there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.layers import Layout
from embgeom.lm.passes import read_layers
from embgeom.lm.tokenizing import Around, encoded, named, warn_of_doubled, warn_of_lacking
from embgeom.steering.pairs import Pair

TokenPosition = Literal["last", "mean", "answer"] | int
# The tokens of a text, and the places among them at which it is read.
Text = tuple[list[int], list[int]]


def check_token_position(token_position: TokenPosition) -> TokenPosition:
    """Return `token_position`, or say what it may be."""
    if token_position in ("last", "mean", "answer"):
        return token_position
    if (
        isinstance(token_position, int | np.integer)
        and not isinstance(token_position, bool)
        and token_position < 0
    ):
        return int(token_position)
    raise InputError(
        f'token_position = {token_position!r} must be "last", "mean", "answer" or a negative place such as -2'
    )


def tokenize(
    tokenizer: Any,
    pairs: Sequence[Pair],
    token_position: TokenPosition,
    add_special_tokens: bool,
    limit: int | None,
    skip_long: bool,
) -> dict[int, tuple[Text, Text]]:
    """Return the tokens of both texts of each pair, by its number, with the places at which they are read.

    Parameters
    ----------
    tokenizer, pairs, token_position, add_special_tokens
        As `train` takes them.
    limit : int or None
        The most tokens that the model reads.
    skip_long : bool
        Whether to leave out pairs of which a text has more.

    Returns
    -------
    dict of int to (Text, Text)
        In the order of the pairs.

    Raises
    ------
    InputError
        If a text has no token to read or (unless `skip_long`) more than `limit`, or all pairs are left out.
    """
    around = Around.from_tokenizer(tokenizer)
    found: dict[int, tuple[Text, Text]] = {}
    for number, pair in enumerate(pairs):
        both = [_tokens(tokenizer, text, add_special_tokens) for text in pair]
        shared = _shared(both[0][0], both[1][0])
        texts = []
        for side, (tokens, special) in zip(("positive", "negative"), both, strict=True):
            where = f"the {side} text of pair {number}, {pair[side == 'negative']!r:.60},"
            if limit is not None and len(tokens) > limit:
                if skip_long:
                    break
                raise InputError(
                    f"{where} has {len(tokens)} tokens; the model reads {limit} at most: shorten it, or "
                    "leave such pairs out by skip_long=True (--skip-long)"
                )
            places = _places(token_position, len(tokens), special, shared, around)
            if not places:
                raise InputError(
                    f"{where} has {len(tokens)} tokens and none at token_position={token_position!r}"
                )
            texts.append((tokens, places))
        else:
            found[number] = (texts[0], texts[1])
    if not found:
        raise InputError(f"all {len(pairs)} pairs are longer than the {limit} tokens that the model reads")
    return found


def tell_of_special_tokens(
    tokenizer: Any,
    pairs: Sequence[tuple[Text, Text]],
    token_position: TokenPosition,
    add_special_tokens: bool,
    *,
    stacklevel: int,
) -> None:
    """Warn of texts that begin or end for the model otherwise than those that it was trained on."""
    sequences = [tokens for pair in pairs for tokens, _ in pair]
    if add_special_tokens:
        warn_of_doubled(
            tokenizer,
            sequences,
            "pass add_special_tokens=False (--no-special-tokens)",
            stacklevel=stacklevel + 1,
        )
    else:
        warn_of_lacking(tokenizer, sequences, stacklevel=stacklevel + 1)
    back = Around.from_tokenizer(tokenizer).back if add_special_tokens else ()
    if back:
        warnings.warn(
            f"the tokenizer puts {named(tokenizer, back)} behind each text; it is not read: places count "
            "from the text's own last token",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )
    end = getattr(tokenizer, "eos_token_id", None)
    ended = sum(tokens[places[-1]] == end for pair in pairs for tokens, places in pair)
    if token_position == "last" and end is not None and ended:
        warnings.warn(
            f"{ended} of {len(sequences)} texts are read at {named(tokenizer, [end])}, which ends a text: "
            "take it away from them, or read before it (token_position=-2, --token-position -2)",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )


def mean_states(
    model: Any, layout: Layout, layers: Sequence[int], texts: Sequence[Text]
) -> npt.NDArray[np.float64]:
    """Return the mean over each text's places, float64 of shape (texts, layers, width).

    Each position is read in float32 at least; means are taken in float64.
    """
    places = [chosen for _, chosen in texts]
    states = read_layers(model, layout, [tokens for tokens, _ in texts], places, layers)
    counts = np.array([len(chosen) for chosen in places])
    starts = np.cumsum([0, *counts[:-1]])
    sums = np.add.reduceat(states, starts, axis=1, dtype=np.float64)
    means: npt.NDArray[np.float64] = sums.transpose(1, 0, 2) / counts[:, None, None]
    return means


def _tokens(tokenizer: Any, text: str, add_special_tokens: bool) -> tuple[list[int], list[int]]:
    """Return a text's tokens, and for each of them whether the tokenizer put it there by itself."""
    found = encoded(tokenizer, text, add_special_tokens=add_special_tokens, return_special_tokens_mask=True)
    tokens = [int(token) for token in found["input_ids"]]
    special = found.get("special_tokens_mask") if add_special_tokens else None
    return tokens, list(special or [0] * len(tokens))


def _shared(first: list[int], second: list[int]) -> int:
    """Return the length of the beginning that two lists of tokens share."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _places(
    token_position: TokenPosition, length: int, special: list[int], shared: int, around: Around
) -> list[int]:
    """Return the places at which a text is read; none where it is too short."""
    if isinstance(token_position, int) or token_position == "last":
        # What the tokenizer puts behind a text is no part of it.
        behind = len(around.back)
        end = length - behind if behind and all(special[length - behind :]) else length
        place = end + (-1 if token_position == "last" else int(token_position))
        return [place] if place >= 0 else []
    first = shared if token_position == "answer" else 0
    return [place for place in range(first, length) if not special[place]]
