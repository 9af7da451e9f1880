"""The command for many models: study."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

import embgeom
from embgeom.cli.options import LOCAL_FILES, Parser, add_command, chosen, tokens_options, whole
from embgeom.cli.terminal import say, show
from embgeom.geometry.knn import Metric
from embgeom.studies import StudyOptions

_DEFAULTS = StudyOptions()
_OPTIONS = tuple(vars(_DEFAULTS))


def add_commands(commands: Any) -> None:
    """Add the command of this file."""
    command: Parser = add_command(commands, study, tokens_options(), LOCAL_FILES)
    add = command.add_argument
    add("models", metavar="MODEL", nargs="+", help="at least two models, each as for inspect")
    add("-o", "--output", metavar="FOLDER", required=True, help="where the study keeps its parts and results")
    explained = "embeddings or unembeddings (default: input)"
    add("--which", choices=("input", "output"), default="input", help=explained)
    add("--pairwise", action="store_true", help="compare each pair on all tokens that these two share")
    add(
        "--quick",
        action="store_true",
        help="a first look: dimensions of 500 tokens, few relabelings, no maps",
    )
    add("-k", type=whole(1), default=_DEFAULTS.k, help="neighbors, also those of LLE weights (default: 10)")
    explained = "numbers of neighbors of the curves (default: 10,50,200,1200)"
    add("--ks", type=_whole_numbers, metavar="K,K", default=_DEFAULTS.ks, help=explained)
    add("--metric", choices=get_args(Metric), default=_DEFAULTS.metric, help="default: cosine")
    explained = "search rows as they are, without subtracting their mean"
    add("--no-center", dest="center", action="store_false", help=explained)
    add("--reg", type=float, default=_DEFAULTS.reg, help="regularization of LLE weights (default: 1e-3)")
    explained = "neighbors for the intrinsic dimension (default: 200)"
    add("--dimension-k", type=whole(2), metavar="K", default=_DEFAULTS.dimension_k, help=explained)
    explained = "share of variance to explain (default: 0.95)"
    add("--variance", type=float, default=_DEFAULTS.variance, help=explained)
    explained = "random relabelings where the null has no closed form (default: 200)"
    add("--relabelings", type=whole(20), metavar="N", default=_DEFAULTS.relabelings, help=explained)
    add("--states", action="store_true", help="also compare hidden states, where models can be run")
    explained = "also measure how neighbors are related in WordNet: a folder of its tables, or wn"
    add("--wordnet", metavar="FOLDER", help=explained)
    add("--seed", type=whole(0), default=_DEFAULTS.seed, help="seed of everything random (default: 0)")


def study(options: argparse.Namespace) -> None:
    """Measure what many models share, in a folder that keeps what is computed."""
    loading = chosen(options, "local_files_only", "threads", "progress")
    models = [embgeom.load(model, options.which, **loading) for model in options.models]
    result = embgeom.study(models, folder=options.output, **chosen(options, *_OPTIONS, "threads", "progress"))
    show(result.tables())
    folder = Path(options.output)
    say(f"to read: {folder / 'report.html'}; figures and tables are beside it")


def _whole_numbers(text: str) -> tuple[int, ...]:
    """Read ``10,50``."""
    return tuple(map(whole(1), text.split(",")))
