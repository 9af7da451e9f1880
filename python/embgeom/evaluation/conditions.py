"""The vectors that an evaluation tries: the one in question and its controls; and their side effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from embgeom._common.progress import ProgressCallable
from embgeom.errors import InputError
from embgeom.lm.passes import check_lengths, forward, in_batches, padded
from embgeom.lm.tokenizing import encode
from embgeom.steering.directions import placed
from embgeom.steering.hooks import Handle, Positions
from embgeom.steering.vector import SteeringVector

Kind = Literal[
    "transferred", "transferred_negated", "native", "native_negated", "random", "shuffled", "setting"
]


@dataclass(frozen=True)
class Condition:
    """A vector to try: its name and kind, the factor, and 1 if the score is to rise, -1 if it is to fall."""

    name: str
    kind: Kind
    vector: SteeringVector
    scale: float
    sign: int = 1

    def check_fits(self, model: Any, positions: Positions, layer_modules: Any) -> None:
        self._apply(model, positions, layer_modules).remove()

    @contextmanager
    def applied(self, model: Any, positions: Positions, layer_modules: Any) -> Iterator[None]:
        """Steer the model meanwhile, and raise InputError where it ran past the vector."""
        with self._apply(model, positions, layer_modules) as handle:
            yield
            # An effect of exactly nothing would not be a result but a mistake.
            handle.check()

    def _apply(self, model: Any, positions: Positions, layer_modules: Any) -> Handle:
        return self.vector.apply(model, self.scale, positions=positions, layer_modules=layer_modules)


def with_controls(
    vector: SteeringVector,
    *,
    scale: float,
    native: SteeringVector | None,
    random: int,
    shuffled: Sequence[SteeringVector],
    seed: int,
) -> list[Condition]:
    """Return the transferred vector and its controls, all of the same norm in every layer.

    Random vectors are Gaussian; number i comes from ``numpy.random.default_rng([seed, i])``.
    """
    if native is not None:
        native = for_layers_of(vector, native, "native")
        vector = vector.with_norm(native)
    sign = -1 if scale < 0 else 1
    both: tuple[tuple[Kind, Kind, SteeringVector | None], ...] = (
        ("transferred", "transferred_negated", vector),
        ("native", "native_negated", native),
    )
    conditions = []
    for kind, negated, each in both:
        if each is not None:
            conditions.append(Condition(kind, kind, each, scale, sign))
            conditions.append(Condition(negated, negated, each, -scale, -sign))
    for i in range(random):
        conditions.append(Condition(f"random_{i}", "random", _random_like(vector, [seed, i]), scale, sign))
    for i, other in enumerate(shuffled):
        equal = for_layers_of(vector, other, "shuffled").with_norm(vector)
        conditions.append(Condition(f"shuffled_{i}", "shuffled", equal, scale, sign))
    return conditions


def check_vectors(given: object, name: str) -> list[SteeringVector]:
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(given) if several else [] if given is None else [given]  # type: ignore[call-overload]
    for vector in found:
        if not isinstance(vector, SteeringVector):
            raise InputError(f"{name} = {vector!r:.60} is not a SteeringVector")
    return found


def at_layers(vector: SteeringVector, layers: int | Iterable[int] | None) -> SteeringVector:
    return replace(vector, directions=placed(vector.directions, layers))


def for_layers_of(vector: SteeringVector, other: SteeringVector, name: str) -> SteeringVector:
    if other.hidden_size != vector.hidden_size:
        raise InputError(
            f"{name} has hidden size {other.hidden_size}, the vector {vector.hidden_size}: both must be for "
            "the same model"
        )
    if missing := [layer for layer in vector.layers if layer not in other.directions]:
        raise InputError(
            f"{name} has no direction for layer {missing[0]}; "
            f"name layers that both have: layers={list(other.layers)}"
        )
    return other.select_layers(vector.layers)


def _random_like(vector: SteeringVector, seed: list[int]) -> SteeringVector:
    generator = np.random.default_rng(seed)
    directions = {}
    for layer, norm in vector.norms.items():
        drawn = generator.standard_normal(vector.hidden_size)
        directions[layer] = (drawn * (norm / np.linalg.norm(drawn))).astype(np.float32)
    return SteeringVector(directions, vector.model, {"random": {"seed": seed}})


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
