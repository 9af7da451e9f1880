"""What the commands that measure a steering vector do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from embgeom.cli import steering_files as files
from embgeom.cli.running import running
from embgeom.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embgeom.evaluation import Evaluation, Score, Sweep
    from embgeom.steering import SteeringVector

Show = Callable[[Sequence["RenderableType"]], None]


def evaluate(options: argparse.Namespace, show: Show, progress: bool) -> None:
    """Show the effect of a vector beside its controls."""
    from embgeom.evaluation import evaluate as measure

    vector, score, samples, controls = _asked(options)
    with running(options) as (model, tokenizer):
        found = measure(
            model,
            tokenizer,
            vector,
            score,
            samples,
            scale=options.scale,
            layers=options.layers,
            progress=progress,
            **controls,
        )
    _give(found, options, show)


def sweep(options: argparse.Namespace, show: Show, progress: bool) -> None:
    """Show the effect at each block and scale, and of the best beside its controls."""
    from embgeom.evaluation import sweep as search
    from embgeom.evaluation.sweep import FEWEST_SAMPLES

    if options.max_kl is not None and options.neutral is None:
        raise InputError("--max-kl limits the side effects on neutral text: name some by --neutral")
    vector, score, samples, controls = _asked(options)
    if len(samples) < FEWEST_SAMPLES:
        raise InputError(
            f"a sweep needs {FEWEST_SAMPLES} samples at least, two to choose on and two to report on, "
            f"not {len(samples)}"
        )
    with running(options) as (model, tokenizer):
        found = search(
            model,
            tokenizer,
            vector,
            score,
            samples,
            scales=options.scales,
            layers=options.layers,
            max_kl=options.max_kl,
            progress=progress,
            **controls,
        )
    _give(found, options, show)


def _asked(options: argparse.Namespace) -> tuple[SteeringVector, Score, list[Any], dict[str, Any]]:
    """Return the vector, what is scored on what, and the controls, checked before a model is read."""
    from embgeom.steering import SteeringVector

    texts = (options.prompts, options.questions, options.neutral)
    vectors = (options.vector, options.native, *options.shuffled)
    files.check_results(options.output, options.figure, (options.model, *texts, *vectors))
    score, samples = _score(options)
    vector = SteeringVector.load(options.vector)
    controls = {
        "native": None if options.native is None else _beside(vector, "--native", options.native),
        "shuffled": [_beside(vector, "--shuffled", file) for file in options.shuffled],
        "random": options.random,
        "neutral": None if options.neutral is None else files.neutral_texts(options.neutral),
        "positions": options.positions,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }
    return vector, score, score.samples(samples), controls


def _beside(vector: SteeringVector, option: str, file: str) -> SteeringVector:
    from embgeom.steering import SteeringVector

    other = SteeringVector.load(file)
    if other.hidden_size != vector.hidden_size:
        raise InputError(
            f"{option} {file} has hidden size {other.hidden_size}, the vector "
            f"{vector.hidden_size}: both must be for the model"
        )
    return other


def _score(options: argparse.Namespace) -> tuple[Score, list[Any]]:
    """Return what is scored and on what, from one of two sets of options."""
    from embgeom.evaluation import AnswerProbability, WordLogRatio
    from embgeom.examples import moods

    words = (options.positive, options.negative)
    if options.questions is not None:
        if options.prompts is not None or words != (None, None):
            raise InputError("give --questions, or --prompts with --positive and --negative, not both")
        return AnswerProbability(chat=options.chat), files.items(options.questions)
    if words == (None, None) and options.prompts is not None and files.is_moods(options.prompts):
        words = (moods.HAPPY, moods.SAD)
    if options.prompts is None or None in words:
        raise InputError("give --prompts with --positive and --negative, or --questions")
    return WordLogRatio(*words, whole=True, chat=options.chat), files.prompts(options.prompts)


def _give(found: Evaluation | Sweep, options: argparse.Namespace, show: Show) -> None:
    show(found.tables())
    if options.output is not None:
        found.save(options.output)
    if options.figure is not None:
        found.plot(options.figure)
