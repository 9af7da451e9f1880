"""Texts that two models read: the positions at which both have read the same, and their states there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import ProgressCallable
from embgeom.errors import InputError
from embgeom.lm.language_model import model_name
from embgeom.lm.layers import find
from embgeom.lm.passes import EMBEDDING, check_single_runs, in_batches, inference, read_layers

PromptPositions = Literal["all", "last"]
States = npt.NDArray[np.float32]


class Tokenized(NamedTuple):
    """One prompt in one model's tokens, and the indices of those that are compared."""

    ids: list[int]
    positions: npt.NDArray[np.int64]


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


def residual_states(
    model: Any,
    prompts: Sequence[Tokenized],
    *,
    batch_size: int,
    report: ProgressCallable | None,
    phase: str,
    layers: Sequence[int] | None = None,
) -> States:
    """Return the residual stream at the prompts' positions, float32 of shape (layers, p, d).

    After each of `layers`, which ascend; by default first what goes into layer 0, then the output of each
    layer, before any last norm.
    """
    if not prompts:
        raise InputError("there are no prompts to read")
    layout = find(model)
    layers = [EMBEDDING, *layout.numbers(None)] if layers is None else layout.numbers(layers)
    starts = np.cumsum([0, *(len(prompt.positions) for prompt in prompts)])
    states, done = np.empty((0, 0, 0), dtype=np.float32), 0
    with inference(model):
        check_single_runs(model, layout, prompts[0].ids)
        for batch in in_batches([prompt.ids for prompt in prompts], batch_size):
            ids, positions = zip(*(prompts[index] for index in batch), strict=True)
            read = read_layers(model, layout, ids, positions, layers)
            if done == 0:
                states = np.empty((len(layers), starts[-1], read.shape[2]), dtype=np.float32)
            states[:, np.concatenate([np.arange(starts[index], starts[index + 1]) for index in batch])] = read
            done += len(batch)
            if report:
                report(phase, done, len(prompts))
    if not np.isfinite(states).all():
        raise InputError(
            f"hidden states of {model_name(model)} hold NaN or infinity; load it as float32 or bfloat16"
        )
    return states
