"""A run over vectors: scores, side effects and, where KL is given, the scale of each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from embgeom._common.checks import check_seed, real_number, whole_number
from embgeom._common.progress import ProgressCallable
from embgeom._common.record import digest, model_versions
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.evaluation.conditions import Condition, Search
from embgeom.evaluation.continuations import Continuations
from embgeom.evaluation.outcome import Effect, Outcome
from embgeom.evaluation.scale_search import search_scales
from embgeom.evaluation.scores import GenerationScore, Score, Values
from embgeom.evaluation.side_effects import NeutralText, SideEffects
from embgeom.lm.language_model import describe_model, files_sha256
from embgeom.lm.layers import need_torch
from embgeom.lm.passes import inference
from embgeom.lm.reuse import reused_below
from embgeom.lm.tokenizing import encode, warn_of_doubled
from embgeom.steering.directions import directions_digest, fingerprint
from embgeom.steering.hooks import Positions
from embgeom.steering.vector import SteeringVector

_DESCRIBED = ("random", "positions", "seed", "batch_size", "at_kl", "continuations", "max_new_tokens")


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
        Texts for each forward pass at most; of neutral texts fewer where their logits would exceed 256 MiB.
    at_kl : float or None
        Compare vectors at equal cost: search, for each vector and each negation by itself, the scale at which
        KL(unsteered || steered) on the neutral texts is this within 5 %, in nats for each token.
    continuations : sequence of str
        Beginnings of texts that the model is to continue, unsteered and with each vector but the random and
        the shuffled ones, which shows whether a text still makes sense.
    max_new_tokens : int
        Tokens of each continuation at most; the likeliest one each time.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    random: int = 20
    positions: Positions = "all"
    layer_modules: Any = None
    seed: int = 0
    batch_size: int = 32
    at_kl: float | None = None
    continuations: Sequence[str] = ()
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        whole_number(self.random, "random", 0)
        check_seed(self.seed)
        whole_number(self.batch_size, "batch_size", 1)
        # A mask would mean nothing for samples of different lengths.
        if not isinstance(self.positions, str) or self.positions not in get_args(Positions):
            raise InputError(f"positions = {self.positions!r:.60}: it is 'all' or 'generated'")
        if self.at_kl is not None and not 0 < real_number(self.at_kl, "at_kl") < np.inf:
            raise InputError(f"at_kl = {self.at_kl} must be finite and above 0")
        if isinstance(self.continuations, str) or not isinstance(self.continuations, Sequence):
            raise InputError(
                f"continuations = {self.continuations!r:.60} is not a list; give a list of texts"
            )
        whole_number(self.max_new_tokens, "max_new_tokens", 1)


class Measured(NamedTuple):
    """What a run found: unsteered scores, perplexity and continuations, and what each vector did."""

    unsteered: Values
    perplexity: float | None
    outcomes: tuple[Outcome, ...]
    continuations: Continuations | None


class _Tried(NamedTuple):
    """A condition at the scale that it is tried with, and what is known of it from neutral text."""

    condition: Condition
    side_effects: SideEffects | None = None
    search: Search | None = None


@dataclass(frozen=True)
class EvaluationRun:
    """Everything that stays the same from vector to vector."""

    model: Any
    tokenizer: Any
    score: Score
    neutral: Sequence[str] | None
    options: EvaluateOptions
    report: ProgressCallable | None

    def measure(self, conditions: Sequence[Condition], samples: Sequence[Any]) -> Measured:
        options = self.options
        if options.at_kl is not None:
            check_added(condition.vector for condition in conditions)
        # A vector that does not fit the model is reported before the first pass.
        kinds = {(each.vector.layers, each.vector.hidden_size): each for each in conditions}
        for condition in kinds.values():
            condition.check_fits(self.model, options.positions, options.layer_modules)
        self._check_texts(samples)
        with inference(self.model):
            perplexity: float | None = None
            tried = [_Tried(condition) for condition in conditions]
            if self.neutral is not None:
                perplexity, found = on_neutral_text(
                    self.model, self.tokenizer, self.neutral, conditions, options, self.report
                )
                tried = [_Tried(*each) for each in found]
            unsteered, steered = self._scores([each.condition for each in tried], samples)
            plain = self._continued(None) if options.continuations else None
            outcomes = tuple(
                self._outcome(each, values, unsteered) for each, values in zip(tried, steered, strict=True)
            )
        return Measured(unsteered, perplexity, outcomes, plain)

    def _scores(self, conditions: Sequence[Condition], samples: Sequence[Any]) -> tuple[Values, list[Values]]:
        """Return the scores of the samples, unsteered and by each condition."""
        unsteered: Values = {}
        steered: dict[int, Values] = {}
        for layer, numbers in _by_layer(conditions).items():
            with reused_below(self.model, self.tokenizer, layer, self.options.layer_modules):
                unsteered = unsteered or self._unsteered(samples)
                for number in numbers:
                    steered[number] = self._values(samples, conditions[number])
                    if self.report:
                        self.report("scores", len(steered), len(conditions))
        return unsteered, [steered[number] for number in range(len(conditions))]

    def _outcome(self, tried: _Tried, values: Values, unsteered: Values) -> Outcome:
        condition = tried.condition
        # What another operation does to a score has no sign that was asked for.
        sign = condition.sign if condition.vector.operation == "add" else 0
        # Too strong a vector may overflow half precision: its effect is undefined, no reason to stop.
        with np.errstate(invalid="ignore"):
            effects = {name: Effect.from_scores(values[name], unsteered[name], sign=sign) for name in values}
        defined = all(np.isfinite(array).all() for array in values.values())
        written = self.options.continuations and condition.kind not in ("random", "shuffled") and defined
        return Outcome(
            condition.name,
            condition.kind,
            condition.vector.layers,
            condition.scale,
            values,
            effects,
            tried.side_effects,
            tried.search,
            self._continued(condition) if written else None,
        )

    def _continued(self, condition: Condition | None) -> Continuations:
        options, chat = self.options, bool(getattr(self.score, "chat", False))
        with self._steered(condition):
            texts = GenerationScore(len, options.max_new_tokens, chat=chat).texts(
                self.model, self.tokenizer, options.continuations, batch_size=options.batch_size
            )
        return Continuations.from_texts(self.tokenizer, texts)

    def _steered(self, condition: Condition | None) -> AbstractContextManager[None]:
        options = self.options
        if condition is None:
            return nullcontext()
        return condition.applied(self.model, options.positions, options.layer_modules)

    def _unsteered(self, samples: Sequence[Any]) -> Values:
        found = self._values(samples, None)
        for quantity, values in found.items():
            if (undefined := np.flatnonzero(~np.isfinite(values))).size:
                raise InputError(
                    f"unsteered, sample {undefined[0]} has no finite {quantity}: "
                    "load the model as float32 or bfloat16"
                )
        return found

    def describe(
        self, vectors: Mapping[str, Any], samples: Sequence[Any], settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        options, texts = self.options, self.neutral
        return {
            "model": {**describe_model(self.model), "files_sha256": files_sha256(self.model)},
            **_described(vectors),
            "score": self.score.to_dict(),
            "options": {
                **settings,
                **{name: getattr(options, name) for name in _DESCRIBED},
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
        with self._steered(condition):
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


def on_neutral_text(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    conditions: Sequence[Condition],
    options: EvaluateOptions,
    report: ProgressCallable | None = None,
) -> tuple[float, list[tuple[Condition, SideEffects, Search | None]]]:
    """Return the unsteered perplexity, and each condition's side effects, at KL where one is given."""
    text = NeutralText(model, tokenizer, texts, options.batch_size)
    tried: dict[int, tuple[Condition, SideEffects, Search | None]] = {}
    done, total, rounds = 0, len(conditions) * text.batches, 0

    def measure(chosen: Sequence[Condition]) -> list[SideEffects]:
        nonlocal done, total, rounds
        if options.at_kl is not None:
            done, total, rounds = 0, len(chosen) * text.batches, rounds + 1
        return text.measure(chosen, options.layer_modules, progressed)

    def progressed() -> None:
        nonlocal done
        done += 1
        if report:
            report(f"neutral text, round {rounds}" if rounds else "neutral text", done, total)

    # The largest number that the model's residual stream may hold.
    largest = float(need_torch().finfo(getattr(model, "dtype", need_torch().float32)).max)
    for layer, numbers in _by_layer(conditions).items():
        chosen = [conditions[number] for number in numbers]
        with inference(model), reused_below(model, tokenizer, layer, options.layer_modules):
            if options.at_kl is None:
                tried |= {
                    n: (conditions[n], cost, None) for n, cost in zip(numbers, measure(chosen), strict=True)
                }
            else:
                searches = search_scales(chosen, options.at_kl, largest, measure)
                tried |= {
                    n: (s.found, s.side_effects, s.outcome) for n, s in zip(numbers, searches, strict=True)
                }
    return text.perplexity, [tried[number] for number in range(len(conditions))]


def check_score(score: object) -> None:
    if not isinstance(score, Score):
        raise InputError(
            f"score = {score!r:.60} is not a score: give a WordLogRatio, an AnswerProbability, a "
            "GenerationScore around a function of your own, or a subclass of Score"
        )


def distinct_samples(score: Score, prompts: Iterable[Any]) -> list[Any]:
    """Return the samples without repeated ones, which are one sample however often it is measured."""
    samples = score.samples(prompts)
    # Texts are drawn for each prompt by itself.
    if getattr(score, "temperature", 0):
        return samples
    found = list({digest(sample): sample for sample in reversed(samples)}.values())[::-1]
    if repeated := len(samples) - len(found):
        warnings.warn(
            f"{repeated} of {len(samples)} prompts repeat{'s' if repeated == 1 else ''} another, and "
            f"{'is' if repeated == 1 else 'are'} left out: equal prompts are one sample",
            EmbgeomWarning,
            stacklevel=3,
        )
    return found


def check_same_model(measured: Mapping[str, Any], target: Mapping[str, Any]) -> None:
    """Refuse an evaluation made on another model than a certificate's target, as far as both are known."""
    name, commit, hashes = (measured.get(key) for key in ("model", "commit", "files_sha256"))
    file, revision, sha = (target.get(key) for key in ("file", "revision", "sha256"))
    files, local = hashes or {}, None if file is None else Path(file).name
    # A matrix in memory, and a model that was made from a configuration, have no name of a model.
    names = (target["name"], name) if target.get("tensor") and name != measured.get("class") else (None, None)
    if sha is not None and local in files:
        differs = sha != files[local]
    elif commit and revision:
        differs = commit != revision
    else:
        differs = ModelInfo(names[0], aliases=(str(target["source"]),)).differs_from(ModelInfo(names[1]))
    if differs and sha not in files.values():
        on, of = (
            f"{name} ({known[:12]})" if known else str(name)
            for name, known in ((name, files.get(local) or commit), (target["name"], sha or revision))
        )
        raise InputError(
            f"the evaluation was made on {on}, and the certificate is of a vector for {of}: evaluate the "
            "vector on that model"
        )


def check_added(vectors: Iterable[SteeringVector]) -> None:
    """Refuse to seek a scale at which a vector has a given KL, where it is not added."""
    if other := next((each.operation for each in vectors if each.operation != "add"), None):
        raise InputError(
            f"the operation is {other!r}, whose cost no length sets: scale 1 is all of it, and more "
            "is another operation; only what is added is scaled to a KL, so leave at_kl out"
        )


def as_texts(
    neutral: Iterable[str] | None, at_kl: float | None = None, name: str = "neutral"
) -> list[str] | None:
    """Return neutral texts as a list, which may be gone through more than once."""
    if neutral is None:
        if at_kl is not None:
            raise InputError(f"at_kl = {at_kl} is a KL on neutral text; give some with neutral=[...]")
        return None
    if isinstance(neutral, str) or not isinstance(neutral, Iterable):
        raise InputError(f"{name} = {neutral!r:.60} is not a list; give a list of texts")
    texts = list(neutral)
    if not texts:
        raise InputError(f"{name} is empty; give some texts, or leave it out")
    return texts


def _by_layer(conditions: Sequence[Condition]) -> dict[int, list[int]]:
    """Return the indices of conditions by the first layer that they steer."""
    groups: dict[int, list[int]] = {}
    for number, condition in enumerate(conditions):
        groups.setdefault(condition.vector.layers[0], []).append(number)
    return groups


def _described(vectors: Any) -> Any:
    """Return what is known of a vector, or of all in a mapping or list."""
    if isinstance(vectors, Mapping):
        return {name: _described(each) for name, each in vectors.items()}
    if isinstance(vectors, list):
        return [_described(each) for each in vectors]
    return None if vectors is None else describe_vector(vectors)


def describe_vector(vector: SteeringVector) -> dict[str, Any]:
    return {
        "model": vector.model,
        "norms": vector.norms,
        "operation": vector.operation,
        "directions_sha256": directions_digest(vector.directions),
        "fingerprint": fingerprint(vector.directions),
        "provenance": dict(vector.provenance),
    }
