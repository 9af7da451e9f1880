"""The command for many models: study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import embgeom
from embgeom.cli.options import LOCAL_FILES, Parser, add_command, chosen, whole
from embgeom.cli.terminal import say, show
from embgeom.geometry.knn import Metric

_OPTIONS = ("pairwise", "quick", "k", "ks", "metric", "reg", "dimension_k", "variance", "states", "seed")


def add_commands(commands: Any) -> None:
    """Add the command of this file."""
    command: Parser = add_command(commands, study, LOCAL_FILES)
    add = command.add_argument
    add("models", metavar="MODEL", nargs="+", help="at least two models, each as for inspect")
    add("-o", "--output", metavar="FOLDER", required=True, help="where the study keeps its parts and results")
    explained = "embeddings or unembeddings (default: input)"
    add("--which", choices=("input", "output"), default="input", help=explained)
    add("--pairwise", action="store_true", help="compare each pair on all tokens that these two share")
    add("--quick", action="store_true", help="a first look: dimensions of 500 tokens, no maps")
    add("-k", type=whole(1), default=10, help="neighbors, also those of LLE weights (default: 10)")
    explained = "numbers of neighbors of the curves (default: 10,50,200,1200)"
    add("--ks", type=_whole_numbers, metavar="K,K", default=(10, 50, 200, 1200), help=explained)
    add("--metric", choices=get_args(Metric), default="cosine", help="default: cosine")
    add("--reg", type=float, default=1e-3, help="regularization of LLE weights (default: 1e-3)")
    explained = "neighbors for the intrinsic dimension (default: 200)"
    add("--dimension-k", type=whole(2), metavar="K", default=200, help=explained)
    add("--variance", type=float, default=0.95, help="share of variance to explain (default: 0.95)")
    add("--states", action="store_true", help="also compare hidden states, where models can be run")
    add("--seed", type=whole(0), default=0, help="seed of everything random (default: 0)")


def study(options: argparse.Namespace) -> None:
    """Measure what many models share, in a folder that keeps what is computed."""
    # A name that cannot be loaded is reported before anything is computed.
    models = [
        embgeom.load(model, options.which, **chosen(options, "local_files_only", "threads", "progress"))
        for model in options.models
    ]
    result = embgeom.study(
        models,
        folder=options.output,
        which=options.which,
        **chosen(options, *_OPTIONS, "threads", "progress"),
    )
    show(result.tables())
    say(f"tables: {Path(options.output) / 'pairs.csv'}, models.csv, tokens.parquet and study.json")


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Read ``10,50``."""
    read = whole(1)
    return tuple(read(part) for part in text.split(","))
