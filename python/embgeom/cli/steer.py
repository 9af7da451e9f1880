"""The commands that make and apply a steering vector: train-vector, steer."""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from typing import Any

import embgeom
from embgeom._common.progress import reporter
from embgeom._common.tables import Table
from embgeom._common.writing import check_kept
from embgeom.cli.models import (
    check_fits,
    check_layers,
    check_vector_output,
    is_moods,
    language_model_options,
    running,
    sizes,
    steered_model_options,
)
from embgeom.cli.options import Flat, add_command, chosen, layers, not_negative, numbers, whole
from embgeom.cli.terminal import norms_by_layer, say, show
from embgeom.evaluation import GenerationScore
from embgeom.examples import moods
from embgeom.lm.tokenizing import encode, in_chat, warn_of_doubled
from embgeom.steering import read_pairs
from embgeom.steering.directions import placed


def add_commands(commands: Any) -> None:
    add = add_command(commands, train_vector, language_model_options()).add_argument
    explained = (
        "contrastive texts: a .csv with the columns positive and negative, or a .jsonl with a line such as "
        '{"positive": "TEXT", "negative": "TEXT"} for each pair; or example:moods'
    )
    add("--pairs", metavar="FILE", required=True, help=explained)
    explained = "the vector: .safetensors, .pt, .npz or, without layer 0, .gguf"
    add("-o", "--output", metavar="FILE", required=True, help=explained)
    add("--layers", metavar="L,...", type=layers, help="layers to read, counted from 0 (default: all)")
    add("--method", choices=("mean", "pca"), default="mean", help="default: mean")
    explained = "last, mean, answer, or a position from the end such as -2 (default: last)"
    add("--token-position", type=_token_position, metavar="POSITION", default="last", help=explained)
    add("--normalize", action="store_true", help="scale each direction to norm 1")
    explained = "what the vector does: add, ablate (project out) or project_to (default: add)"
    add("--operation", choices=("add", "ablate", "project_to"), default="add", help=explained)
    explained = "let the tokenizer add none: for texts that already hold them, as chat templates do"
    add("--no-special-tokens", dest="add_special_tokens", action="store_false", help=explained)
    explained = "write the texts in the model's chat template, which holds its special tokens itself"
    add("--chat", action="store_true", help=explained)
    add("--skip-long", action="store_true", help="leave out pairs that are too long for the model")

    add = add_command(commands, steer, steered_model_options()).add_argument
    explained = "factors to try (default: 1): --scale=-1,1 or --scale -1 1"
    add("--scale", type=numbers, metavar="S", nargs="+", action=Flat, default=[1.0], help=explained)
    add("--layers", metavar="L,...", type=layers, help="layers to steer (default: all that the vector has)")
    add("--prompt", metavar="TEXT", action="append", required=True, help="may be repeated")
    add("--max-new-tokens", type=whole(1), metavar="N", default=40, help="tokens to write (default: 40)")
    explained = "0 always takes the most likely token (default: 0)"
    add("--temperature", type=not_negative, metavar="T", default=0.0, help=explained)


def train_vector(options: argparse.Namespace) -> None:
    """Make a steering vector from pairs of texts."""
    check_vector_output(options.output, options.layers or (), options.operation)
    check_kept({"-o": options.output}, [options.model, options.pairs])
    check_layers(sizes(options), options.model, options.layers or ())
    # Texts that cannot be read are reported before the model is loaded.
    pairs = moods.pairs() if is_moods(options.pairs) else read_pairs(options.pairs)
    names = (
        "layers",
        "method",
        "token_position",
        "batch_size",
        "add_special_tokens",
        "skip_long",
        "progress",
    )
    with running(options) as (model, tokenizer):
        if options.chat:
            pairs = _in_chat(tokenizer, options.pairs)
            options.add_special_tokens = False
        vector = embgeom.SteeringVector.train(model, tokenizer, pairs, **chosen(options, *names))
    if options.normalize:
        vector = vector.with_norm(1.0)
    vector = replace(vector, operation=options.operation)
    without_0 = [layer for layer in vector.layers if layer]
    left_out_0 = options.output.endswith(".gguf") and 0 in vector.layers and bool(without_0)
    if left_out_0:
        vector = vector.select_layers(without_0)
    vector.save(options.output)
    used, left_out = vector.provenance["pairs"], vector.provenance["left_out"]
    sinks = vector.provenance.get("sinks", {}).values()
    say(
        f"{vector!r}, from {used} pairs, written to {options.output}\n{norms_by_layer(vector)}"
        + ("\nlayer 0 left out, which llama.cpp never steers" if left_out_0 else "")
        + (f"\n{left_out} pairs left out, too long for the model" if left_out else "")
        + (f"\n{max(sinks)} positions left out of the means in a layer, attention sinks" if sinks else "")
    )


def _in_chat(tokenizer: Any, pairs: str) -> list[tuple[str, str]]:
    if is_moods(pairs):
        return [(in_chat(tokenizer, happy), in_chat(tokenizer, sad)) for happy, sad in moods.pairs()]
    return read_pairs(pairs, chat=tokenizer)


def steer(options: argparse.Namespace) -> None:
    """Show what a model writes without and with a steering vector."""
    vector = embgeom.SteeringVector.load(options.vector)
    check_fits(options, vector, placed(vector.directions, options.layers))
    writer = GenerationScore(len, **chosen(options, "max_new_tokens", "temperature", "chat"))
    with running(options) as (model, tokenizer), reporter(options.progress, "steer") as report:
        if not options.chat:
            prompts = [encode(tokenizer, prompt) for prompt in options.prompt]
            warn_of_doubled(tokenizer, prompts, "remove it from the prompts", stacklevel=1)
        # A vector that does not fit the model is reported before the first text is written.
        vector.apply(model, layers=options.layers).remove()

        def continued() -> list[str]:
            return writer.texts(model, tokenizer, options.prompt, **chosen(options, "batch_size", "seed"))

        written = {"unsteered": continued()}
        for done, scale in enumerate(options.scale, start=1):
            if report:
                report("texts", done, len(options.scale) + 1)
            with vector.apply(model, scale, **chosen(options, "layers", "positions")) as handle:
                written[f"steered, scale {scale:g}"] = continued()
                handle.check()
    for number, prompt in enumerate(options.prompt):
        rows = [(name, continuations[number]) for name, continuations in written.items()]
        show([Table(prompt, ("", "continuation"), rows)])


def _token_position(text: str) -> str | int:
    """Read where a text is read: ``last``, ``mean``, ``answer``, or a position from the end."""
    if text in ("last", "mean", "answer"):
        return text
    if re.fullmatch("-[1-9][0-9]*", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither last, mean nor answer, nor a position such as -2")
