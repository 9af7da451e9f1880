"""What vectors change on neutral text, which has nothing to do with what they are for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom.evaluation.conditions import Condition
from embgeom.lm.layers import config_of
from embgeom.lm.passes import check_lengths, in_batches, logits_at, padded
from embgeom.lm.tokenizing import encode

# Of the log-probabilities of a batch, and of all unsteered ones that are kept, in bytes.
_MOST_BYTES = 1 << 28


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


class NeutralText:
    """Neutral texts in batches, and the log-probabilities of the unsteered model that fit into the memory."""

    def __init__(self, model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int) -> None:
        self._model = model
        sequences = [encode(tokenizer, text) for text in texts]
        check_lengths(model, sequences, "neutral text", least=2)
        tokens = getattr(config_of(model), "vocab_size", 0) or 1
        fitting = _MOST_BYTES // (4 * tokens * max(map(len, sequences)))
        self._batches = [
            _Batch(model, [sequences[position] for position in positions])
            for positions in in_batches(sequences, max(1, min(batch_size, fitting)))
        ]
        self._tokens = sum(len(batch.targets) for batch in self._batches)
        self._kept: dict[int, Any] = {}
        self._room = _MOST_BYTES
        self.perplexity = float("nan")

    @property
    def batches(self) -> int:
        return len(self._batches)

    def measure(
        self, conditions: Sequence[Condition], layer_modules: Any, after_each: Callable[[], None]
    ) -> list[SideEffects]:
        """Return the side effects of each condition, and set the unsteered `perplexity`.

        The vectors act at all positions, as they do on each token of a text that is written. A batch is
        compared with all conditions in turn. Gradients are off already.
        """
        plain, losses, divergences = 0.0, np.zeros(len(conditions)), np.zeros(len(conditions))
        for number, batch in enumerate(self._batches):
            unsteered = self._unsteered(number)
            probabilities, masked = unsteered.exp(), bool(unsteered.isneginf().any())
            plain += batch.loss(unsteered)
            for i, condition in enumerate(conditions):
                with condition.applied(self._model, "all", layer_modules):
                    steered = batch.log_probabilities(self._model)
                losses[i] += batch.loss(steered)
                divergences[i] += _divergence(probabilities, unsteered, steered, masked)
                after_each()
        with np.errstate(over="ignore"):
            self.perplexity = float(np.exp(plain / self._tokens))
            ratios, shares = np.exp((losses - plain) / self._tokens), divergences / self._tokens
            perplexities = np.exp(losses / self._tokens)
        found = zip(perplexities, ratios, shares, strict=True)
        return [SideEffects(*map(float, numbers)) for numbers in found]

    def _unsteered(self, number: int) -> Any:
        found = self._kept.get(number)
        if found is None:
            found = self._batches[number].log_probabilities(self._model)
            if found.nbytes <= self._room:
                self._kept[number] = found
                self._room -= found.nbytes
        return found


class _Batch:
    """Texts of like length, and the positions at which the next token is known."""

    def __init__(self, model: Any, sequences: Sequence[Sequence[int]]) -> None:
        self._padded = padded(model, sequences)
        self._rows = [row for row, sequence in enumerate(sequences) for _ in sequence[1:]]
        self._columns = [column for sequence in sequences for column in range(len(sequence) - 1)]
        self.targets = [token for sequence in sequences for token in sequence[1:]]

    def log_probabilities(self, model: Any) -> Any:
        """Return float32 log-probabilities (positions, vocabulary) of the next token."""
        import torch

        return torch.log_softmax(logits_at(model, self._padded, self._rows, self._columns).float(), dim=-1)

    def loss(self, logs: Any) -> float:
        """Return the negative log-likelihood of the tokens, summed, in nats."""
        import torch

        targets = torch.tensor(self.targets, device=logs.device)[:, None]
        return -float(logs.gather(1, targets).double().sum())


def _divergence(probabilities: Any, before: Any, after: Any, masked: bool) -> float:
    """Return KL(unsteered || steered) summed over positions, in nats; `after` is written over."""
    import torch

    differences = after.neg_().add_(before)
    if masked:
        # A token that is masked out in both has no share, though the difference of infinities has no value.
        differences = torch.where(before == -torch.inf, 0.0, differences)
    terms = torch.linalg.vecdot(probabilities, differences)
    # No divergence is negative; below zero there is rounding only.
    return float(terms.clamp(min=0).double().sum())
