"""A model of the comparison, with its own vector, prompts, and the scale at which vectors are applied."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import embgeom
from embgeom import SteeringVector
from embgeom.embeddings.vocabulary import space_position
from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate
from embgeom.examples import moods

MOST_KL = 0.5
OPTIONS = EvaluateOptions(random=0, batch_size=64)


@dataclass(frozen=True)
class Extent:
    """How many prompts, neutral texts, random vectors, shuffled maps, and scales to choose from."""

    prompts: int = 60
    neutral: int = 10
    random: int = 20
    shuffled: int = 3
    scales: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0)


QUICK = Extent(prompts=6, neutral=2, random=2, shuffled=1, scales=(4.0,))


@dataclass(frozen=True)
class Side:
    """A model with what an evaluation needs of it."""

    folder: Path
    name: str
    extent: Extent
    token_position: Literal["last", "mean"]

    @cached_property
    def model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def unembedding(self) -> embgeom.Embeddings:
        return embgeom.load(self.folder, "output")

    @cached_property
    def vector(self) -> SteeringVector:
        pairs = [(happy + self.end, sad + self.end) for happy, sad in moods.pairs()]
        return SteeringVector.train(
            self.model,
            self.tokenizer,
            pairs,
            token_position=self.token_position,
            name=self.name,
            batch_size=32,
        )

    @property
    def depth(self) -> int:
        return len(self.vector.layers)

    @cached_property
    def end(self) -> str:
        """The space behind a text where the vocabulary writes it there, not before the next word."""
        return " " if space_position(self.unembedding) == "trailing" else ""

    @cached_property
    def prompts(self) -> list[str]:
        return [prompt + self.end for prompt in moods.prompts()][:: 60 // self.extent.prompts]

    @property
    def neutral(self) -> list[str]:
        return moods.neutral_texts()[: self.extent.neutral]

    def score(self) -> WordLogRatio:
        words = moods.HAPPY, moods.SAD
        if self.end:
            words = tuple(tuple(word.strip() + " " for word in side) for side in words)  # type: ignore[assignment]
        return WordLogRatio(*words, whole=True)

    @cached_property
    def strongest(self) -> int:
        """The layer at which the native vector has the largest effect, at equal side effects."""
        effects = {layer: self.effect(layer, self.scale(layer)) for layer in self.vector.layers}
        return max(effects, key=lambda layer: effects[layer])

    def effect(self, layer: int, scale: float) -> float:
        found = evaluate(
            self.model, self.tokenizer, self.vector, self.score(), self.prompts,
            scale=scale, layers=layer, options=OPTIONS,
        )  # fmt: skip
        return found.transferred.effect.mean

    @cache  # noqa: B019
    def scale(self, layer: int) -> float:
        """Return the strongest scale at which the native vector has few side effects, whatever its effect."""
        divergences = {scale: self.divergence(layer, scale) for scale in self.extent.scales}
        affordable = [scale for scale, kl in divergences.items() if kl <= MOST_KL]
        return max(affordable, default=self.extent.scales[0])

    def divergence(self, layer: int, scale: float) -> float:
        found = evaluate(
            self.model,
            self.tokenizer,
            self.vector,
            self.score(),
            self.prompts[:1],
            scale=scale,
            layers=layer,
            neutral=self.neutral,
            options=OPTIONS,
        )
        return found.transferred.side_effects.kl  # type: ignore[union-attr]
