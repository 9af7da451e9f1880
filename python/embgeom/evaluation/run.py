"""Trying vectors one after the other on the same samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom.errors import InputError
from embgeom.evaluation.conditions import Condition, Positions, Report
from embgeom.evaluation.outcomes import Effect, Outcome, SideEffects
from embgeom.evaluation.scores import Score, Values
from embgeom.evaluation.side_effects import side_effects
from embgeom.lm.passes import inference
from embgeom.lm.tokenizing import encode, warn_of_doubled


def as_texts(neutral: Iterable[str] | None) -> list[str] | None:
    """Return neutral texts as a list, which may be gone through more than once."""
    if neutral is None:
        return None
    if isinstance(neutral, str) or not isinstance(neutral, Iterable):
        raise InputError(f"neutral = {neutral!r:.60} is no list; give a list of texts")
    texts = list(neutral)
    if not texts:
        raise InputError("neutral is empty; give some texts, or leave it out")
    return texts


@dataclass(frozen=True)
class EvaluationRun:
    """Everything that stays the same from vector to vector.

    Attributes
    ----------
    model, tokenizer : object
        Of transformers.
    score : Score
        What is measured.
    neutral : sequence of str or None
        The texts whose side effects are measured.
    positions, layer_modules
        Where the vectors act while the score is taken, and the model's layers, as `SteeringVector.apply` has
        them.
    batch_size, seed : int
        As the score takes them.
    report : callable or None
        Told of progress.
    """

    model: Any
    tokenizer: Any
    score: Score
    neutral: Sequence[str] | None
    positions: Positions
    layer_modules: Any
    batch_size: int
    seed: int
    report: Report | None

    def measure(
        self, conditions: Sequence[Condition], samples: Sequence[Any]
    ) -> tuple[Values, float | None, tuple[Outcome, ...]]:
        """Return the unsteered values and perplexity, and the outcome of each condition."""
        for condition in conditions:
            # A vector that the model has no place for is to be told of before the first pass.
            condition.check_fits(self.model, self.positions, self.layer_modules)
        self._check_texts(samples)
        with inference(self.model):
            unsteered = self._values(samples, None)
            for quantity, values in unsteered.items():
                if (undefined := np.flatnonzero(~np.isfinite(values))).size:
                    raise InputError(
                        f"unsteered, sample {undefined[0]} has no finite {quantity}: "
                        "load the model as float32 or bfloat16"
                    )
            steered = []
            for done, condition in enumerate(conditions):
                steered.append(self._values(samples, condition))
                if self.report:
                    self.report("scores", done + 1, len(conditions))
            perplexity, costs = self._side_effects(conditions)
        outcomes = (
            _outcome(condition, values, unsteered, side_effects)
            for condition, values, side_effects in zip(conditions, steered, costs, strict=True)
        )
        return unsteered, perplexity, tuple(outcomes)

    def _check_texts(self, samples: Sequence[Any]) -> None:
        """Warn of texts that hold the token for their beginning, to which the tokenizer adds another."""
        texts = [sample.get("question") if isinstance(sample, Mapping) else sample for sample in samples]
        # A chat template writes that token itself, and then nothing is added.
        read = [*([] if getattr(self.score, "chat", False) else texts), *(self.neutral or ())]
        warn_of_doubled(
            self.tokenizer,
            [encode(self.tokenizer, text) for text in read if isinstance(text, str)],
            "take it away from the texts",
            stacklevel=4,
        )

    def _values(self, samples: Sequence[Any], condition: Condition | None) -> Values:
        steering = (
            condition.applied(self.model, self.positions, self.layer_modules) if condition else nullcontext()
        )
        with steering:
            found = self.score(
                self.model, self.tokenizer, samples, batch_size=self.batch_size, seed=self.seed
            )
        values = {name: np.asarray(found[name], dtype=np.float64) for name in self.score.quantities}
        for name, array in values.items():
            if array.shape != (len(samples),):
                raise InputError(
                    f"{type(self.score).__name__} returns an array of shape {array.shape} as {name}, "
                    f"not one number for each of {len(samples)} samples"
                )
        return values

    def _side_effects(
        self, conditions: Sequence[Condition]
    ) -> tuple[float | None, Sequence[SideEffects | None]]:
        if self.neutral is None:
            return None, [None] * len(conditions)
        return side_effects(
            self.model,
            self.tokenizer,
            self.neutral,
            conditions,
            layer_modules=self.layer_modules,
            batch_size=self.batch_size,
            report=self.report,
        )


def _outcome(
    condition: Condition, values: Values, unsteered: Values, side_effects: SideEffects | None
) -> Outcome:
    # Too strong a vector may overflow half precision: its effect is undefined, which is no reason to stop.
    with np.errstate(invalid="ignore"):
        effects = {
            name: Effect.from_scores(values[name], unsteered[name], sign=condition.sign) for name in values
        }
    return Outcome(
        condition.name,
        condition.kind,
        condition.vector.layers,
        condition.scale,
        values,
        effects,
        side_effects,
    )
