"""The commands that measure what a steering vector does: evaluate, sweep."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import embgeom
from embgeom._common.result import check_figure_path
from embgeom._common.writing import check_file_writable, check_kept
from embgeom.cli.models import check_fits, is_moods, running, steered_model_options, text_lines
from embgeom.cli.options import (
    Flat,
    Once,
    Parser,
    add_command,
    chosen,
    finite,
    layers,
    not_negative,
    numbers,
    positive,
    whole,
)
from embgeom.cli.terminal import show
from embgeom.errors import InputError, LoadError, OutputError
from embgeom.evaluation import AnswerProbability, EvaluateOptions, Score, SweepOptions, WordLogRatio
from embgeom.evaluation.conditions import check_control
from embgeom.evaluation.sweep import FEWEST_SAMPLES, SCALES
from embgeom.examples import moods
from embgeom.loading.folder import parse_json, read_bytes
from embgeom.steering.directions import placed

RESULT_SUFFIX = ".json"
_OPTIONS = ("random", "positions", "seed", "batch_size", "at_kl")


def add_commands(commands: Any) -> None:
    shared = steered_model_options(EvaluateOptions.batch_size), _measurement_options()
    add = add_command(commands, evaluate, *shared).add_argument
    explained = "its factor (default: 1); with --at-kl only its sign counts"
    add("--scale", type=finite, metavar="S", default=1.0, help=explained)
    add("--layers", metavar="L,...", type=layers, help="layers to steer (default: all that the vector has)")

    add = add_command(commands, sweep, *shared).add_argument
    add(
        "--layers",
        metavar="L,...",
        type=_alternatives,
        help="layers to try, counted from 0: 1,2,3 one after the other, 2+3 both together (default: each "
        "that the vector has); a vector of one layer may be tried at others",
    )
    scales = ",".join(f"{scale:g}" for scale in SCALES)
    explained = f"factors to try at each (default: {scales}): --scales=-1,1 or --scales -1 1"
    add("--scales", metavar="S", type=numbers, nargs="+", action=Flat, help=explained)
    explained = "choose only where KL(unsteered || steered) per token of the --neutral texts is at most this"
    add("--max-kl", type=not_negative, metavar="NATS", help=explained)


def _measurement_options() -> Parser:
    options = Parser(add_help=False)
    add = options.add_argument_group(
        "what is scored: words after prompts, or answers to questions"
    ).add_argument
    add("--prompts", metavar="FILE", help="beginnings of texts, one per line; or example:moods")
    explained = "words that should become more likely, such as ' happy' (example:moods has its own); one of "
    explained += "several tokens is scored whole, by the sum of their log-probabilities"
    add("--positive", metavar="WORD", nargs="+", help=explained)
    add("--negative", metavar="WORD", nargs="+", help="words that should become less likely")
    add("--questions", metavar="FILE", help="questions with two answers, in CAA's JSON format")
    add = options.add_argument_group("controls").add_argument
    add(
        "--native",
        metavar="FILE",
        action=Once,
        help="the model's native vector, whose norm is taken (not with --at-kl)",
    )
    explained = "vectors by maps of shuffled tokens, three at least: what transfer --shuffle wrote"
    add("--shuffled", metavar="FILE", nargs="+", default=[], help=explained)
    add("--random", type=whole(0), metavar="N", default=20, help="random vectors of equal norm (default: 20)")
    add("--neutral", metavar="FILE", help="texts to measure side effects on, one per line; or example:moods")
    explained = "compare at equal cost: find for each vector the scale at which KL(unsteered || steered) per "
    explained += "token of the --neutral texts is this, within 5 percent"
    add("--at-kl", type=positive, metavar="NATS", help=explained)
    explained = (
        "beginnings of texts to be continued with and without the vector, one per line; or example:moods"
    )
    add("--continuations", metavar="FILE", help=explained)
    options.add_argument("-o", "--output", metavar="FILE", help="write all results as .json")
    options.add_argument("--figure", metavar="FILE", help="draw the effects as .svg, .png or .pdf")
    return options


def evaluate(options: argparse.Namespace) -> None:
    """Measure whether a steering vector steers, with random and other controls."""
    vector, score, samples, keywords = _inputs(options)
    keywords |= chosen(options, "scale", "layers")
    keywords["options"] = EvaluateOptions(**_run_options(options))
    with running(options) as (model, tokenizer):
        found = embgeom.evaluate(model, tokenizer, vector, score, samples, **keywords)
    _give(found, options)


def sweep(options: argparse.Namespace) -> None:
    """Find the layer and scale at which a steering vector steers best."""
    if options.max_kl is not None and options.neutral is None:
        raise InputError("--max-kl limits the side effects on neutral text: name some by --neutral")
    vector, score, samples, keywords = _inputs(options)
    if len(samples) < FEWEST_SAMPLES:
        raise InputError(
            f"a sweep needs at least {FEWEST_SAMPLES} samples, two to choose on and two to report on, "
            f"not {len(samples)}"
        )
    keywords |= chosen(options, "scales", "layers")
    keywords["options"] = SweepOptions(max_kl=options.max_kl, **_run_options(options))
    with running(options) as (model, tokenizer):
        found = embgeom.sweep(model, tokenizer, vector, score, samples, **keywords)
    _give(found, options)


def _inputs(
    options: argparse.Namespace,
) -> tuple[embgeom.SteeringVector, Score, list[Any], dict[str, Any]]:
    """Return the vector, what is scored on what, and controls as keywords, checked before a model is read."""
    vectors = (options.vector, options.native, *options.shuffled)
    texts = (options.prompts, options.questions, options.neutral, options.continuations)
    _check_results(options, (*texts, *vectors))
    if options.at_kl is not None and options.neutral is None:
        raise InputError("--at-kl is a KL on neutral text: name some texts by --neutral")
    score, samples = _score(options)
    vector = embgeom.SteeringVector.load(options.vector)
    # A sweep's layers stand in lists, of those that are steered together.
    tried = [each if isinstance(each, list) else [each] for each in options.layers or ()]
    check_fits(options, vector, placed(vector.directions, [n for each in tried for n in each] or None))
    keywords = chosen(options, "progress")
    keywords["native"] = None if options.native is None else _control(vector, "--native", options.native)
    keywords["shuffled"] = [_control(vector, "--shuffled", file) for file in options.shuffled]
    if options.neutral is not None:
        keywords["neutral"] = text_lines(options.neutral, moods.neutral_texts)
    return vector, score, score.samples(samples), keywords


def _run_options(options: argparse.Namespace) -> dict[str, Any]:
    asked = options.continuations
    texts = () if asked is None else text_lines(asked, moods.prompts)
    return {**chosen(options, *_OPTIONS), "continuations": texts}


def _control(vector: embgeom.SteeringVector, option: str, file: str) -> embgeom.SteeringVector:
    control = embgeom.SteeringVector.load(file)
    if control.hidden_size != vector.hidden_size:
        raise InputError(
            f"{option} {file} has hidden size {control.hidden_size}, the vector {vector.hidden_size}: "
            "both must be for the model"
        )
    if option == "--shuffled":
        check_control(vector, control, f"{option} {file}", known=True)
    return control


def _score(options: argparse.Namespace) -> tuple[Score, list[Any]]:
    words = (options.positive, options.negative)
    if options.questions is not None:
        if options.prompts is not None or words != (None, None):
            raise InputError("give --questions, or --prompts with --positive and --negative, not both")
        found = parse_json(read_bytes(Path(options.questions)), options.questions)
        if not isinstance(found, list):
            kind = type(found).__name__
            raise LoadError(f"{options.questions} holds a JSON {kind}, not a list of questions")
        return AnswerProbability(chat=options.chat), found
    if words == (None, None) and options.prompts is not None and is_moods(options.prompts):
        words = (moods.HAPPY, moods.SAD)
    if options.prompts is None or None in words:
        raise InputError(
            "give --prompts with --positive and --negative, or --prompts example:moods, or --questions"
        )
    prompts = text_lines(options.prompts, moods.prompts)
    return WordLogRatio(*words, whole=True, chat=options.chat), prompts


def _check_results(options: argparse.Namespace, inputs: tuple[str | None, ...]) -> None:
    output, figure = options.output, options.figure
    check_kept({"-o": output, "--figure": figure}, (options.model, *inputs))
    if output is not None:
        if Path(output).suffix != RESULT_SUFFIX:
            raise OutputError(f"-o {output} does not end in {RESULT_SUFFIX}, the format of results")
        check_file_writable(output)
    if figure is not None:
        check_figure_path(figure)


def _give(found: embgeom.Evaluation | embgeom.Sweep, options: argparse.Namespace) -> None:
    show(found.tables())
    if options.output is not None:
        found.save(options.output)
    if options.figure is not None:
        found.plot(options.figure)


def _alternatives(text: str) -> list[list[int]]:
    """Read ``1,2+3``: layer 1, then 2 and 3 together."""
    if not re.fullmatch("[0-9]+([,+][0-9]+)*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of layers to try, such as 1,2 or 1,2+3; they are counted from 0"
        )
    return [[int(layer) for layer in together.split("+")] for together in text.split(",")]
