"""The commands on the geometry of embeddings: compare, inspect, neighbors."""

from __future__ import annotations

import argparse
import warnings
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import embgeom
from embgeom._common.result import check_figure_path
from embgeom._common.tables import TABLE_FORMATS, check_table_format
from embgeom._common.writing import check_file_writable, check_kept, check_writable
from embgeom.cli.cache import CACHE
from embgeom.cli.models import is_model, load_model, model_inputs, model_options
from embgeom.cli.options import LOCAL_FILES, Parser, add_command, chosen, row_number, tokens_options
from embgeom.cli.terminal import say, show
from embgeom.comparison.coherence import coherence
from embgeom.comparison.neighborhood import rows_of
from embgeom.comparison.saving import FolderResult
from embgeom.comparison.token_sets import MadeByClasses
from embgeom.comparison.wordnet import WordNet
from embgeom.errors import InputError
from embgeom.geometry.knn import Metric

_SEARCH = ("dimension_k", "variance", "metric", "threads", "progress")
_SAMPLE = ("dimension_sample", "seed")
_COMPARED = ("k", "reg", "center", "without", "only", "relabelings", "panel", "curves")


def add_commands(commands: Any) -> None:
    neighborhood, search, sample, nulls = (Parser(add_help=False) for _ in range(4))
    add = neighborhood.add_argument
    add("-k", type=int, default=10, help="neighbors, also those of LLE weights (default: 10)")
    add("--reg", type=float, default=1e-3, help="regularization of LLE weights (default: 1e-3)")
    add = search.add_argument
    explained = "neighbors for the intrinsic dimension (default: 200, or half of the tokens if fewer)"
    add("--dimension-k", type=int, metavar="K", help=explained)
    add("--variance", type=float, default=0.95, help="share of variance to explain (default: 0.95)")
    add("--metric", choices=get_args(Metric), default="cosine", help="default: cosine")
    add = sample.add_argument
    add("--no-center", dest="center", action="store_false", help="search neighbors of rows as they are")
    explained = "tokens whose dimension is measured, at random (default: all)"
    add("--dimension-sample", type=int, metavar="M", help=explained)
    add("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    add = nulls.add_argument
    explained = "random relabelings for nulls without a closed form (default: 200)"
    add("--relabelings", type=int, metavar="N", default=200, help=explained)
    add("--panel", action="store_true", help="also CKA, RSA and Procrustes similarity")
    add("--curves", action="store_true", help="also overlap and weights over several numbers of neighbors")
    add("--csv", metavar="FILE", help="also write the measures as .csv")

    pair, shared = (model_options("-a"), model_options("-b")), (search, LOCAL_FILES, CACHE)
    add_command(commands, compare, *pair, tokens_options(), neighborhood, sample, nulls, *shared, outputs())
    one = model_options(), tokens_options()
    add = add_command(commands, inspect, *one, sample, *shared, outputs()).add_argument
    explained = "also measure with WordNet how far neighbors of words are related: a folder of tables, or wn"
    add("--wordnet", metavar="FOLDER|wn", help=explained)
    counted = tokens_options(only=False)
    add = add_command(
        commands, neighbors, model_options(), neighborhood, search, counted, LOCAL_FILES
    ).add_argument
    explained = (
        "a token as the vocabulary writes it, or as text; more models before it (example:NAME, a path, "
        "or an id OWNER/NAME) are shown side by side, with the options of the first"
    )
    add("token", metavar="TOKEN", nargs="+", help=explained)
    add("--row", action="store_true", help="TOKEN is a row number")
    explained = "find neighbors by the rows as they are, without subtracting the mean embedding"
    add("--no-center", dest="center", action="store_false", help=explained)


def outputs() -> Parser:
    """Return the options of commands whose result is a folder or a page."""
    folder = Parser(add_help=False)
    add = folder.add_argument
    add("-o", "--output", metavar="FOLDER", help="write all results and provenance into a new folder")
    add("--table-format", choices=TABLE_FORMATS, help="format of tables (default: csv)")
    add("--overwrite", action="store_true", help="replace earlier results in FOLDER")
    add("--html", metavar="FILE", help="also write one page with tables, figure and provenance")
    add("--figure", metavar="FILE", help="also draw the figure as .svg, .png or .pdf")
    return folder


def compare(options: argparse.Namespace) -> None:
    """Measure what the token embeddings of two models share."""
    if options.csv is not None:
        check_file_writable(options.csv)
    check_outputs(options, **{"--csv": options.csv})
    models = load_model(options, "_a"), load_model(options, "_b")
    with warnings.catch_warnings():
        # The tables say it, too.
        warnings.simplefilter("ignore", MadeByClasses)
        comparison = embgeom.compare(*models, **chosen(options, *_COMPARED, *_SAMPLE, *_SEARCH))
    show(comparison.tables())
    if options.csv is not None:
        comparison.to_csv(options.csv)
    save_outputs(comparison, options)


def inspect(options: argparse.Namespace) -> None:
    """Show what one model's rows are like."""
    check_outputs(options)
    # Whether it can be read is known before the long work.
    wordnet = None if options.wordnet is None else WordNet.load(options.wordnet)
    model = load_model(options)
    keywords = chosen(options, "center", "without", "only", *_SAMPLE, *_SEARCH)
    inspection = embgeom.inspect(model, **keywords)
    show(inspection.tables())
    found = None
    if wordnet is not None:
        keywords = chosen(options, "variance", "center", "threads", "progress")
        found = coherence(model, wordnet, classes=inspection.classes, k=options.dimension_k, **keywords)
        show(found.tables())
    save_outputs(inspection, options)
    if found is not None and options.output is not None:
        found.save(Path(options.output) / "coherence.safetensors")


def neighbors(options: argparse.Namespace) -> None:
    """Show a token's neighborhood, in one model or in several side by side."""
    wanted = [row_number(token) for token in options.token] if options.row else options.token
    models = [load_model(options)]
    # A row number is another token in each model.
    names = [] if options.row else list(takewhile(lambda text: is_model(text, models[0]), wanted[:-1]))
    wanted = wanted[len(names) :]
    for options.model in names:
        models.append(load_model(options))
    # An unknown token is reported before anything is shown of the others.
    for token in wanted:
        rows_of(models, token)
    keywords = chosen(options, "k", "reg", "center", "without", *_SEARCH)
    for position, token in enumerate(wanted):
        if position > 0:
            say("")
        show(embgeom.inspect_token(models if names else models[0], token, **keywords).tables())


def check_outputs(options: argparse.Namespace, **others: str | None) -> None:
    """Check early that results can be written, and over nothing that is read."""
    if options.html is not None:
        check_file_writable(options.html)
    if options.figure is not None:
        check_figure_path(options.figure)
    if options.output is None:
        given = {"--table-format": options.table_format, "--overwrite": options.overwrite}
        if useless := [name for name, value in given.items() if value]:
            raise InputError(f"{useless[0]} is of no use without -o: name a folder, or leave it out")
    else:
        options.table_format = options.table_format or "csv"
        check_table_format(options.table_format)
        check_writable(options.output, overwrite=options.overwrite)
    read = [file for file in (getattr(options, "only", None),) if file not in (None, "words")]
    written = {"-o": options.output, "--html": options.html, "--figure": options.figure, **others}
    check_kept(written, [*model_inputs(options), *read])


def save_outputs(result: FolderResult, options: argparse.Namespace) -> None:
    if options.html is not None:
        result.to_html(options.html)
    if options.figure is not None:
        result.plot(options.figure)
    if options.output is not None:
        result.save(options.output, **chosen(options, "table_format", "overwrite"))
