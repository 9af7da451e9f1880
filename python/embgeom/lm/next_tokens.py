"""What a model says after texts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from embgeom.errors import InputError
from embgeom.lm.passes import forward, in_batches, inference, longest_text, padded


def check_lengths(
    model: Any, sequences: Sequence[Sequence[int]], what: str, *, least: int, room: int = 0
) -> None:
    """Raise InputError for a sequence that is too short, or too long for the model with `room` more."""
    most = longest_text(model)
    for place, sequence in enumerate(sequences):
        if len(sequence) < least:
            raise InputError(
                f"{what} {place} has {len(sequence)} tokens, but {least} at least are needed; leave it out"
            )
        if most is not None and len(sequence) + room > most:
            more = f" and {room} new ones" if room else ""
            fewer = ", take fewer new ones" if room else ""
            raise InputError(
                f"{what} {place} has {len(sequence)} tokens{more}, more than the {most} that the "
                f"model takes; shorten it{fewer}, or leave it out"
            )


def next_log_probabilities(
    model: Any, sequences: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, Any]]:
    """Give the place of each sequence and the float32 log-probabilities (vocabulary,) of what follows.

    Padding stands to the right: a causal model's tokens never see it, so neither positions nor the rest of
    the batch move a number, whatever the architecture.
    """
    import torch

    with inference(model):
        for places in in_batches(sequences, batch_size):
            batch = padded(model, [sequences[place] for place in places])
            lasts = [len(sequences[place]) - 1 for place in places]
            logits, columns = _logits_at(model, batch, sorted(set(lasts)))
            rows = torch.stack([logits[row, columns[last]] for row, last in enumerate(lasts)])
            yield from zip(places, torch.log_softmax(rows.float(), dim=-1), strict=True)


def word_log_probabilities(
    model: Any, prompts: Sequence[Sequence[int]], words: Sequence[tuple[int, ...]], batch_size: int
) -> list[dict[tuple[int, ...], float]]:
    """Return, for each prompt, the log-probability that each word follows it: the sum over its tokens."""
    begun = sorted({word[:at] for word in words for at in range(len(word))})
    places = [(place, start) for place in range(len(prompts)) for start in begun]
    sequences = [[*prompts[place], *start] for place, start in places]
    found = [dict.fromkeys(words, 0.0) for _ in prompts]
    for at, logs in next_log_probabilities(model, sequences, batch_size):
        place, start = places[at]
        for word in words:
            if len(word) > len(start) and word[: len(start)] == start:
                found[place][word] += float(logs[word[len(start)]])
    return found


def _logits_at(model: Any, batch: dict[str, Any], positions: list[int]) -> tuple[Any, dict[int, int]]:
    """Return logits for some positions at least, and the column of each."""
    import torch

    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return forward(model, batch).logits, {position: position for position in positions}
    # The logits of all positions of long prompts would take more memory than all the rest.
    kept = torch.tensor(positions, device=batch["input_ids"].device)
    logits = forward(model, batch, logits_to_keep=kept).logits
    return logits, {position: column for column, position in enumerate(positions)}
