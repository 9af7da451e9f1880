"""The commands of long runs, which keep their work in a folder: knn, lle, dimension."""

from __future__ import annotations

import argparse
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

import embgeom
from embgeom._common.arrays import RowNumbers
from embgeom._common.result import Columns
from embgeom._common.tables import TABLE_FORMATS, Block, Table, check_table_format, write_table
from embgeom._common.writing import check_kept, write_file
from embgeom.cli.cache import CACHE
from embgeom.cli.models import load_model, model_inputs, model_options
from embgeom.cli.options import LOCAL_FILES, Parser, add_command, chosen, row_number, whole
from embgeom.cli.terminal import show
from embgeom.comparison.saving import shown
from embgeom.errors import InputError, OutputError
from embgeom.geometry.dimension import DEFAULT_K
from embgeom.geometry.knn import Metric
from embgeom.geometry.rows import token_columns
from embgeom.loading.folder import read_lines
from embgeom.runs.compute import Task
from embgeom.runs.dask import connected

# Tokens at each end of a summary.
_SHOWN = 5


def add_commands(commands: Any) -> None:
    """Add the commands of this file."""
    shared = Parser(add_help=False)
    add = shared.add_argument
    add("-o", "--output", metavar="FOLDER", required=True, help="where the run keeps its work and its result")
    explained = "all of them, a random sample of N, or those in FILE, one per line (default: all)"
    add("--tokens", metavar="all|N|FILE", default="all", help=explained)
    add("--row", action="store_true", help="FILE lists row numbers")
    add("--seed", type=whole(0), default=0, help="seed of the sample (default: 0)")
    add("--metric", choices=get_args(Metric), default="cosine", help="default: cosine")
    add("--center", action="store_true", help="first subtract the mean row, which reduces hubs")
    explained = "compute on the workers of the Dask cluster whose scheduler has this address"
    add("--dask", metavar="ADDRESS", help=explained)
    add("--table-format", choices=TABLE_FORMATS, default="csv", help="format of tables (default: csv)")
    near, wide = (Parser(add_help=False) for _ in range(2))
    near.add_argument("-k", type=int, default=10, help="neighbors (default: 10)")
    wide.add_argument("-k", type=int, help=f"neighbors (default: {DEFAULT_K}, or half of the rows if fewer)")
    common = model_options(), shared, LOCAL_FILES, CACHE
    add_command(commands, knn, *common, near)
    add = add_command(commands, lle, *common, near).add_argument
    add("--reg", type=float, default=1e-3, help="regularization of LLE weights (default: 1e-3)")
    add = add_command(commands, dimension, *common, wide).add_argument
    add("--variance", type=float, default=0.95, help="share of variance to explain (default: 0.95)")


def knn(options: argparse.Namespace) -> None:
    """Find the nearest neighbors of all tokens, in a run that can be interrupted."""
    _run("knn", options)


def lle(options: argparse.Namespace) -> None:
    """Compute the LLE weights of all tokens, in a run that can be interrupted."""
    _run("lle", options, "reg")


def dimension(options: argparse.Namespace) -> None:
    """Measure the intrinsic dimensions of all tokens, in a run that can be interrupted."""
    _run("dimension", options, "variance")


def _run(task: Task, options: argparse.Namespace, *more: str) -> None:
    check_table_format(options.table_format)
    tokens = [] if options.tokens.lower() == "all" or options.tokens.isdecimal() else [options.tokens]
    check_kept({"-o": options.output}, [*model_inputs(options), *tokens])
    model = load_model(options)
    rows = _rows(options, model)
    keywords = chosen(options, "k", "metric", "center", "threads", "progress", *more)
    with connected(options.dask) if options.dask else nullcontext() as client:
        result = embgeom.run(task, model, options.output, rows=rows, client=client, **keywords)
    numbers = np.arange(len(model)) if rows is None else rows
    values = _values(result, model)
    table = Path(options.output) / f"tokens.{options.table_format}"
    texts = [model.text(row) for row in numbers.tolist()]
    columns = {**token_columns(numbers, model.tokens), "text": texts, **values}
    try:
        write_file(table, lambda path: write_table(path, columns))
    except OutputError:
        # A run that has ended is also read where nothing can be written; its table is there then.
        if not table.exists():
            raise
    column, label = _MAIN[task]
    ends = _ends(model, numbers, label, np.asarray(values[column]))
    show([*result.tables(), *ends, f"a row for each token: {table}"])


def _rows(options: argparse.Namespace, model: embgeom.Embeddings) -> RowNumbers | None:
    """Return the rows that --tokens names; None for all of them, which is less work than their list."""
    named: str = options.tokens
    if named.lower() == "all":
        return None
    if not named.isdecimal():
        if not os.path.lexists(named):
            raise InputError(f"--tokens {named} is neither all, nor a number, nor a file; give one of them")
        return _listed(options, model)
    if options.row:
        raise InputError("--row goes with a file of row numbers, which --tokens names")
    count = int(named)
    if count > len(model):
        raise InputError(
            f"--tokens {count} is more than the {len(model)} of {model.name}; give at most these, or all"
        )
    if count == 0:
        raise InputError("--tokens 0 asks for no token; give at least 1, a file, or all")
    if count == len(model):
        return None
    return np.sort(np.random.default_rng(options.seed).choice(len(model), count, replace=False))


def _listed(options: argparse.Namespace, model: embgeom.Embeddings) -> RowNumbers:
    """Return the rows that a file lists, one per line."""
    rows = []
    for number, line in enumerate(read_lines(Path(options.tokens)), 1):
        if line:
            try:
                rows.append(model.row_of(row_number(line) if options.row else line))
            except InputError as error:
                raise InputError(f"{options.tokens}, line {number}: {error}") from error
    if not rows:
        raise InputError(f"{options.tokens} names no token; write one per line")
    return np.array(rows)


def _values(
    result: embgeom.Neighbors | embgeom.LLE | embgeom.IntrinsicDimension, model: embgeom.Embeddings
) -> Columns:
    """Return what the table says of each token."""
    if isinstance(result, embgeom.Neighbors):
        return {
            "nearest_similarity": result.similarities[:, 0],
            "last_similarity": result.similarities[:, -1],
            **token_columns(result.indices[:, 0], model.tokens, "nearest"),
        }
    if isinstance(result, embgeom.LLE):
        names = np.array([status.name for status in embgeom.LLEStatus])
        largest = result.weights.max(axis=1)
        return {"residual": result.residuals, "largest_weight": largest, "status": names[result.status]}
    return {name: values for name, values in result.columns().items() if name not in ("row", "token")}


# By what the ends of a summary are chosen: its column of the table, and its name.
_MAIN: dict[Task, tuple[str, str]] = {
    "knn": ("nearest_similarity", "similarity to the nearest"),
    "lle": ("residual", "residual"),
    "dimension": ("n_components", "dimension"),
}


def _ends(
    model: embgeom.Embeddings, rows: npt.NDArray[np.int64], label: str, values: npt.NDArray[Any]
) -> list[Block]:
    """Return tables of the tokens with the lowest and the highest values; undefined ones are left out."""
    # A dimension is -1 where there is none.
    defined = np.flatnonzero(values >= 0 if values.dtype.kind == "i" else ~np.isnan(values))
    order = defined[np.argsort(values[defined], kind="stable")]
    # Of few tokens, none is shown twice.
    shown_count = min(_SHOWN, -(-len(order) // 2))
    return [
        Table(
            f"tokens of the {end} {label}",
            (label, "row", "token"),
            ((values[place].item(), str(rows[place]), shown(model, rows[place])) for place in places),
        )
        for end, places in (("lowest", order[:shown_count]), ("highest", order[::-1][:shown_count]))
    ]
