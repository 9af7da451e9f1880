"""Texts that two models read, and the positions at which both have read the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from embgeom.errors import InputError
from embgeom.lm.states import Tokenized

PromptPositions = Literal["all", "last"]


def shared_positions(
    prompts: Sequence[str],
    tokenizers: tuple[Any, Any],
    limits: tuple[int | None, int | None],
    positions: PromptPositions,
) -> list[tuple[Tokenized, Tokenized]]:
    """Tokenize prompts for two models, and find the tokens after which both have read the same text.

    `limits` are the most tokens that each model takes. Prompts without a shared end are left out.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise InputError("prompts must be a list of strings")
    if positions not in ("all", "last"):
        raise InputError(f"positions={positions!r}; it is 'all' or 'last'")
    pairs = []
    for prompt in prompts:
        (ids_a, ends_a), (ids_b, ends_b) = (
            _ends(prompt, tokenizer, limit) for tokenizer, limit in zip(tokenizers, limits, strict=True)
        )
        shared = sorted(ends_a.keys() & ends_b.keys())
        if ends := shared[-1:] if positions == "last" else shared:
            source = Tokenized(ids_a, np.array([ends_a[end] for end in ends]))
            pairs.append((source, Tokenized(ids_b, np.array([ends_b[end] for end in ends]))))
    return pairs


def _ends(prompt: str, tokenizer: Any, limit: int | None) -> tuple[list[int], dict[int, int]]:
    """Return the tokens, and by the character at which a token ends which one that is."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} does not tell where tokens end in the text; "
            "pass a fast tokenizer (AutoTokenizer gives one where a tokenizer.json is there)"
        )
    encoded = tokenizer(prompt, return_offsets_mapping=True, verbose=False)
    ids, spans = encoded["input_ids"][:limit], encoded["offset_mapping"][:limit]
    # Tokens that were added to the text span nothing. Of the pieces of one character, which all bear its
    # span, the last one has read it whole, unless it was cut off.
    beyond = encoded["offset_mapping"][limit:] if limit is not None else []
    cut = beyond[0][1] if beyond else None
    return ids, {end: index for index, (start, end) in enumerate(spans) if end > start and end != cut}


def sampled(
    pairs: list[tuple[Tokenized, Tokenized]], count: int, generator: np.random.Generator
) -> list[tuple[Tokenized, Tokenized]]:
    lengths = [len(source.positions) for source, _ in pairs]
    if sum(lengths) <= count:
        return pairs
    kept = np.zeros(sum(lengths), dtype=bool)
    kept[generator.choice(len(kept), count, replace=False)] = True
    chosen = zip(pairs, np.split(kept, np.cumsum(lengths)[:-1]), strict=True)
    return [
        (Tokenized(a.ids, a.positions[mine]), Tokenized(b.ids, b.positions[mine]))
        for (a, b), mine in chosen
        if mine.any()
    ]
