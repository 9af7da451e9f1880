"""The commands to look at what changed and at what is there: diff, atlas."""

from __future__ import annotations

import argparse
from typing import Any, get_args

import embgeom
from embgeom._common.writing import check_file_writable, check_kept
from embgeom.cli.cache import CACHE
from embgeom.cli.compare import check_outputs, outputs, save_outputs
from embgeom.cli.models import load_model, model_inputs, model_options
from embgeom.cli.options import LOCAL_FILES, Parser, add_command, chosen, tokens_options, whole
from embgeom.cli.terminal import say, show
from embgeom.comparison.atlas import check_parquet
from embgeom.comparison.diff import NoiseOption

_SHARED = ("k", "center", "dimension_k", "without", "only", "seed", "threads", "progress")


def add_commands(commands: Any) -> None:
    """Add the commands of this file."""
    shared = Parser(add_help=False)
    add = shared.add_argument
    add("--no-center", dest="center", action="store_false", help="do not subtract the mean embedding")
    explained = "neighbors for the intrinsic dimension (default: 200, or half of the tokens if fewer)"
    add("--dimension-k", type=int, metavar="K", help=explained)
    add("--seed", type=whole(0), default=0, help="seed of everything random (default: 0)")
    shared_by_all = shared, tokens_options(), LOCAL_FILES, CACHE
    pair = model_options("-a"), model_options("-b")
    add = add_command(commands, diff, *pair, *shared_by_all, outputs()).add_argument
    add("-k", type=int, default=10, help="neighbors, also those of LLE weights (default: 10)")
    explained = "by what unchanged rows differ: rounding, or as much as the bulk of rows (default: auto)"
    add("--noise", choices=get_args(NoiseOption), default="auto", help=explained)
    add = add_command(commands, atlas, model_options(), *shared_by_all).add_argument
    add("-o", "--output", metavar="FILE", required=True, help="the table, a .parquet file")
    add("-k", type=int, default=15, help="neighbors of each token (default: 15)")
    add("--wordnet", metavar="FOLDER|wn", help="WordNet, for the coherence of words")
    add("--folder", metavar="FOLDER", help="where long work is kept, to go on after an interruption")


def diff(options: argparse.Namespace) -> None:
    """Show what a fine-tune (B) of a model (A) moved."""
    check_outputs(options)
    models = load_model(options, "_a"), load_model(options, "_b")
    found = embgeom.diff(*models, **chosen(options, "noise", *_SHARED))
    show(found.tables())
    save_outputs(found, options)


def atlas(options: argparse.Namespace) -> None:
    """Write a table of a model's tokens with a layout, to open with the package embedding-atlas."""
    check_parquet(options.output)
    check_file_writable(options.output)
    check_kept({"-o": options.output, "--folder": options.folder}, model_inputs(options))
    made = embgeom.atlas(load_model(options), **chosen(options, "wordnet", "folder", *_SHARED))
    made.to_parquet(options.output)
    show(made.tables())
    say(f"to open it: embedding-atlas {options.output} --text text --x x --y y --neighbors neighbors")
