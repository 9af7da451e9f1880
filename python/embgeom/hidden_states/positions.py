"""Places in a text where the tokens of two models end together, so that their states can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError

Positions = Literal["all", "last"]
Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tokenized:
    """One prompt in one model's tokens.

    Attributes
    ----------
    ids : list of int
        Its tokens.
    places : ndarray of int64, shape (p,)
        Which of them are compared.
    """

    ids: list[int]
    places: Places


def shared_positions(
    prompts: Sequence[str],
    tokenizers: tuple[Any, Any],
    limits: tuple[int | None, int | None],
    positions: Positions,
) -> list[tuple[Tokenized, Tokenized]]:
    """Tokenize prompts for two models, and find the tokens after which both have read the same text.

    Parameters
    ----------
    prompts : sequence of str
        The texts.
    tokenizers : pair of tokenizers
        Of transformers, fast ones: others do not tell where a token ends.
    limits : pair of int or None
        The most tokens that each model takes; those beyond are left out.
    positions : {"all", "last"}
        Whether all shared ends of a prompt are taken, or the last one.

    Returns
    -------
    list of pairs of Tokenized
        The prompts that have a shared end.

    Raises
    ------
    InputError
        If a tokenizer is not fast, or prompts and positions are not what they must be.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError("prompts must be a list of strings")
    if positions not in get_args(Positions):
        raise InputError(f"positions={positions!r}; it is 'all' or 'last'")
    pairs = []
    for prompt in prompts:
        (ids_a, ends_a), (ids_b, ends_b) = (
            _ends(prompt, tokenizer, limit) for tokenizer, limit in zip(tokenizers, limits, strict=True)
        )
        ends = sorted(ends_a.keys() & ends_b.keys())
        if positions == "last":
            ends = ends[-1:]
        if ends:
            sides = ((ids_a, ends_a), (ids_b, ends_b))
            source, target = (Tokenized(ids, np.array([found[e] for e in ends])) for ids, found in sides)
            pairs.append((source, target))
    return pairs


def _ends(prompt: str, tokenizer: Any, limit: int | None) -> tuple[list[int], dict[int, int]]:
    """Return the tokens, and by the character at which a token ends which one that is."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not tell where tokens end in the text; "
            "pass a fast tokenizer (AutoTokenizer gives one where a tokenizer.json is there)"
        )
    encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    ids = encoded["input_ids"][:limit]
    spans = encoded["offset_mapping"][:limit]
    # Tokens that were added to the text span nothing. Of the pieces of one character, which all bear its
    # span, the last one has read it whole, unless it was cut off.
    beyond = encoded["offset_mapping"][limit:] if limit is not None else []
    cut = beyond[0][1] if beyond else None
    return ids, {end: place for place, (start, end) in enumerate(spans) if end > start and end != cut}


def sampled(
    pairs: list[tuple[Tokenized, Tokenized]], count: int, generator: np.random.Generator
) -> list[tuple[Tokenized, Tokenized]]:
    """Keep `count` of all positions, drawn without replacement."""
    owner = np.repeat(np.arange(len(pairs)), [len(source.places) for source, _ in pairs])
    if len(owner) <= count:
        return pairs
    kept = np.zeros(len(owner), dtype=bool)
    kept[generator.choice(len(owner), count, replace=False)] = True
    chosen = []
    for number, (source, target) in enumerate(pairs):
        mine = kept[owner == number]
        if mine.any():
            chosen.append(
                (
                    replace(source, places=source.places[mine]),
                    replace(target, places=target.places[mine]),
                )
            )
    return chosen


def elsewhere(counts: Sequence[int], generator: np.random.Generator) -> Places:
    """Return for each position one of another prompt, each of them once.

    `counts` says how many positions each prompt has. Where one prompt has most of all positions, some of its
    own are left with each other.
    """
    order = generator.permutation(len(counts))
    ends = np.cumsum(counts)
    positions = np.concatenate([np.arange(ends[i] - counts[i], ends[i]) for i in order])
    # Positions of one prompt stand together, so a shift by the longest prompt moves all of them off it.
    partners = np.roll(positions, -min(max(counts), len(positions) // 2))
    partner = np.empty_like(positions)
    partner[positions] = partners
    return partner
