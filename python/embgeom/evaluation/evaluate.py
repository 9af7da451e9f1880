"""`evaluate`: does a vector steer? Its effect, compared with every control that could explain it away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from embgeom._common.checks import check_seed, real_number, whole_number
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import digest, model_versions
from embgeom.errors import InputError
from embgeom.evaluation.conditions import (
    Condition,
    SideEffects,
    at_layers,
    check_vectors,
    measure_side_effects,
    with_controls,
)
from embgeom.evaluation.evaluation import Effect, Evaluation, Outcome
from embgeom.evaluation.scores import Score, Values
from embgeom.lm.language_model import describe_model
from embgeom.lm.passes import inference
from embgeom.lm.tokenizing import encode, warn_of_doubled
from embgeom.steering.hooks import Positions
from embgeom.steering.vector import SteeringVector


@dataclass(frozen=True)
class EvaluateOptions:
    """How vectors are evaluated.

    Attributes
    ----------
    random : int
        How many random vectors to try.
    positions : {"all", "generated"}
        Where the vectors act while the score is measured, see `SteeringVector.apply`. Neutral text is steered
        at all positions in any case.
    layer_modules : str or torch.nn.ModuleList, optional
        The model's layers, where they are not found by themselves.
    seed : int
        Seed of random vectors and of texts that are drawn.
    batch_size : int
        Texts for each forward pass.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    random: int = 20
    positions: Positions = "all"
    layer_modules: Any = None
    seed: int = 0
    batch_size: int = 8

    def __post_init__(self) -> None:
        whole_number(self.random, "random", 0)
        check_seed(self.seed)
        whole_number(self.batch_size, "batch_size", 1)
        # A mask would mean nothing for samples of different lengths.
        if not isinstance(self.positions, str) or self.positions not in get_args(Positions):
            raise InputError(f"positions = {self.positions!r:.60}: it is 'all' or 'generated'")


def evaluate(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    score: Score,
    prompts: Iterable[Any],
    *,
    scale: float = 1.0,
    layers: int | Iterable[int] | None = None,
    native: SteeringVector | None = None,
    shuffled: SteeringVector | Sequence[SteeringVector] | None = None,
    neutral: Iterable[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = False,
) -> Evaluation:
    """Measure what a steering vector does to a model, compared with its controls.

    Controls: the model unsteered, the vector negated, the target's native vector and its negation, random
    vectors, and vectors transferred by a map fitted on shuffled tokens. All have the same norm in each layer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model. It is left as it was.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    vector : SteeringVector
        The vector in question, in tables "transferred".
    score : Score
        What it is to raise: `AnswerProbability`, `WordLogRatio`, `GenerationScore`, or a score of your own.
    prompts : iterable
        Prompts or questions, as the score takes them.
    scale : float
        The factor for all vectors. With a negative one the score is to fall.
    layers : int or iterable of int, optional
        The layers to steer; all that the vector has by default. A single direction may be put at others.
    native : SteeringVector, optional
        The model's native vector for the same thing, the most to expect. The transferred vector is then
        scaled to its norm, layer by layer; without it the transferred vector keeps its norm.
    shuffled : SteeringVector or sequence of them, optional
        The same source vector, transferred by maps fitted on shuffled tokens.
    neutral : iterable of str, optional
        Texts that have nothing to do with the score, on which the side effects are measured.
    options : EvaluateOptions, optional
        Random vectors, positions, seed and batch size.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.

    Returns
    -------
    Evaluation
        Effects, side effects and checks; ``summary()``, ``save(path)``, ``plot(path)``.

    Raises
    ------
    InputError
        If there are no samples, one is too long for the model, an option is out of range, vectors do not
        fit the model or each other, the unsteered model gives no finite numbers, or the model never runs a
        layer that is to be steered, or runs it past its hooks.

    Warns
    -----
    EmbgeomWarning
        If the model leaves out such a layer now and then; or if texts hold the token for their beginning, to
        which the tokenizer adds it once more.

    Notes
    -----
    A pass over the samples and over the neutral texts for each vector, and one without any: the transferred
    vector and its negation, `native` and its negation, the random and the shuffled ones. Memory on neutral
    text: the logits of two batches in the model's dtype, 2 x batch x length x vocabulary numbers. Batches are
    padded so that no text sees another; a larger batch changes numbers by rounding only.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate
    >>> from embgeom.steering import load_language_model
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = load_language_model(folder)
    >>> vector = 20 * embgeom.SteeringVector.from_words(folder, [" happy"], layers=3)
    >>> mood, prompts = WordLogRatio([" happy"], [" sad"]), ["The girl was", "He felt very"]
    >>> found = evaluate(model, tokenizer, vector, mood, prompts, options=EvaluateOptions(random=5))
    >>> found.checks().beats_random, found.checks().negation_reverses
    (True, True)
    """
    options = options or EvaluateOptions()
    factor = real_number(scale, "scale")
    if not np.isfinite(factor):
        raise InputError(f"scale = {factor} is not finite; give a finite number")
    check_score(score)
    others = [at_layers(other, layers) for other in check_vectors(shuffled, "shuffled")]
    (vector,) = (at_layers(each, layers) for each in check_vectors([vector], "vector"))
    if native is not None:
        (native,) = (at_layers(each, layers) for each in check_vectors([native], "native"))
    conditions = with_controls(
        vector,
        scale=factor,
        native=native,
        random=options.random,
        shuffled=others,
        seed=options.seed,
    )
    samples, texts = score.samples(prompts), as_texts(neutral)
    with reporter(progress, "evaluate") as report:
        run = EvaluationRun(model, tokenizer, score, texts, options, report)
        unsteered, perplexity, outcomes = run.measure(conditions, samples)
    settings = {"scale": factor, "layers": list(vector.layers), "norms": conditions[0].vector.norms}
    provenance = run.describe(vector, native, others, samples, settings)
    return Evaluation(outcomes, unsteered, perplexity, provenance)


@dataclass(frozen=True)
class EvaluationRun:
    """Everything that stays the same from vector to vector."""

    model: Any
    tokenizer: Any
    score: Score
    neutral: Sequence[str] | None
    options: EvaluateOptions
    report: ProgressCallable | None

    def measure(
        self, conditions: Sequence[Condition], samples: Sequence[Any]
    ) -> tuple[Values, float | None, tuple[Outcome, ...]]:
        options = self.options
        for condition in conditions:
            # A vector that does not fit the model is reported before the first pass.
            condition.check_fits(self.model, options.positions, options.layer_modules)
        self._check_texts(samples)
        perplexity: float | None = None
        side_effects: Sequence[SideEffects | None] = [None] * len(conditions)
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
            if self.neutral is not None:
                perplexity, side_effects = measure_side_effects(
                    self.model,
                    self.tokenizer,
                    self.neutral,
                    conditions,
                    layer_modules=options.layer_modules,
                    batch_size=options.batch_size,
                    report=self.report,
                )
        outcomes = (
            _outcome(condition, values, unsteered, found)
            for condition, values, found in zip(conditions, steered, side_effects, strict=True)
        )
        return unsteered, perplexity, tuple(outcomes)

    def describe(
        self,
        vector: SteeringVector,
        native: SteeringVector | None,
        shuffled: Sequence[SteeringVector],
        samples: Sequence[Any],
        settings: Mapping[str, Any],
    ) -> dict[str, Any]:
        options, texts = self.options, self.neutral
        return {
            "model": describe_model(self.model),
            "vector": _describe_vector(vector),
            "native": None if native is None else _describe_vector(native),
            "shuffled": [_describe_vector(other) for other in shuffled],
            "score": self.score.to_dict(),
            "options": {
                **settings,
                **{name: getattr(options, name) for name in ("random", "positions", "seed", "batch_size")},
                "samples": len(samples),
                "samples_sha256": digest(samples),
                "neutral_texts": texts and len(texts),
                "neutral_sha256": texts and digest(texts),
            },
            "versions": model_versions(),
        }

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
        options = self.options
        steering = (
            condition.applied(self.model, options.positions, options.layer_modules)
            if condition
            else nullcontext()
        )
        with steering:
            found = self.score(
                self.model, self.tokenizer, samples, batch_size=options.batch_size, seed=options.seed
            )
        values = {name: np.asarray(found[name], dtype=np.float64) for name in self.score.quantities}
        for name, array in values.items():
            if array.shape != (len(samples),):
                raise InputError(
                    f"{type(self.score).__name__} returns an array of shape {array.shape} as {name}, "
                    f"not one number for each of {len(samples)} samples"
                )
        return values


def check_score(score: object) -> None:
    if not isinstance(score, Score):
        raise InputError(
            f"score = {score!r:.60} is not a score: give a WordLogRatio, an AnswerProbability, a "
            "GenerationScore around a function of your own, or a subclass of Score"
        )


def as_texts(neutral: Iterable[str] | None) -> list[str] | None:
    """Return neutral texts as a list, which may be gone through more than once."""
    if neutral is None:
        return None
    if isinstance(neutral, str) or not isinstance(neutral, Iterable):
        raise InputError(f"neutral = {neutral!r:.60} is not a list; give a list of texts")
    texts = list(neutral)
    if not texts:
        raise InputError("neutral is empty; give some texts, or leave it out")
    return texts


def _outcome(
    condition: Condition, values: Values, unsteered: Values, side_effects: SideEffects | None
) -> Outcome:
    # Too strong a vector may overflow half precision: its effect is undefined, which is no reason to stop.
    with np.errstate(invalid="ignore"):
        effects = {
            name: Effect.from_scores(values[name], unsteered[name], sign=condition.sign) for name in values
        }
    layers = condition.vector.layers
    return Outcome(condition.name, condition.kind, layers, condition.scale, values, effects, side_effects)


def _describe_vector(vector: SteeringVector) -> dict[str, Any]:
    directions = {str(layer): direction.tolist() for layer, direction in vector.directions.items()}
    return {
        "model": vector.model,
        "norms": vector.norms,
        "directions_sha256": digest(directions),
        "provenance": dict(vector.provenance),
    }
