"""What steering changes on text that has nothing to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom._common.progress import ProgressCallable
from embgeom.evaluation.conditions import Condition
from embgeom.lm.passes import check_lengths, forward, in_batches, padded
from embgeom.lm.tokenizing import encode


@dataclass(frozen=True)
class SideEffects:
    """What a vector changes on neutral text, where it acts at all positions.

    Attributes
    ----------
    perplexity : float
        Of the steered model, over all tokens but each text's first.
    perplexity_ratio : float
        That perplexity divided by the unsteered model's; 1 where nothing changes.
    kl : float
        Kullback-Leibler divergence of the steered model's next-token distribution from the unsteered one's,
        KL(unsteered || steered), mean over the same tokens, in nats; 0 where nothing changes.
    """

    perplexity: float
    perplexity_ratio: float
    kl: float


def measure_side_effects(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    conditions: Sequence[Condition],
    *,
    layer_modules: Any,
    batch_size: int,
    report: ProgressCallable | None,
) -> tuple[float, list[SideEffects]]:
    """Return the unsteered perplexity of texts, and the side effects of each condition.

    The vectors act at all positions, as they do on each token of a text that is written. The unsteered logits
    of every batch are computed once and compared with those of all conditions. Gradients are off already.
    """
    sequences = [encode(tokenizer, text) for text in texts]
    check_lengths(model, sequences, "neutral text", least=2)
    tokens = sum(len(sequence) - 1 for sequence in sequences)
    plain, losses, divergences = 0.0, np.zeros(len(conditions)), np.zeros(len(conditions))
    batches = list(in_batches(sequences, batch_size))
    for done, positions in enumerate(batches):
        chosen = [sequences[position] for position in positions]
        batch = padded(model, chosen)
        unsteered = forward(model, batch).logits
        plain += _loss(unsteered, chosen)
        for i, condition in enumerate(conditions):
            with condition.applied(model, "all", layer_modules):
                steered = forward(model, batch).logits
            losses[i] += _loss(steered, chosen)
            divergences[i] += _divergence(unsteered, steered, chosen)
            if report:
                report("neutral text", done * len(conditions) + i + 1, len(batches) * len(conditions))
    with np.errstate(over="ignore"):
        perplexity = float(np.exp(plain / tokens))
        return perplexity, [
            SideEffects(
                float(np.exp(loss / tokens)), float(np.exp((loss - plain) / tokens)), float(kl / tokens)
            )
            for loss, kl in zip(losses, divergences, strict=True)
        ]


def _loss(logits: Any, sequences: Sequence[Sequence[int]]) -> float:
    """Return the negative log-likelihood of all tokens but each text's first, summed, in nats."""
    import torch

    total = 0.0
    # Row by row, since float32 log-probabilities of a whole batch would be the largest array by far.
    for row, sequence in enumerate(sequences):
        logs = torch.log_softmax(logits[row, : len(sequence) - 1].float(), dim=-1)
        targets = torch.tensor(sequence[1:], device=logs.device)[:, None]
        total -= float(logs.gather(1, targets).double().sum())
    return total


def _divergence(unsteered: Any, steered: Any, sequences: Sequence[Sequence[int]]) -> float:
    """Return KL(unsteered || steered) summed over the positions that `_loss` counts, in nats."""
    import torch

    total = 0.0
    for row, sequence in enumerate(sequences):
        before, after = (
            torch.log_softmax(logits[row, : len(sequence) - 1].float(), dim=-1)
            for logits in (unsteered, steered)
        )
        # A token that is masked out in both has no share, though the difference of infinities has no value.
        terms = torch.where(before == -torch.inf, 0.0, before.exp() * (before - after))
        # No divergence is negative; below zero there is rounding only.
        total += float(terms.sum(dim=-1).clamp(min=0).double().sum())
    return total
