"""Where the time of `compare` goes: kernels that it needs; nulls, intervals, token sets and the panel.

    python -m benchmarks.kernels.compare_share A.gguf B.gguf --panel

The kernels are, for each model, one graph of neighbors, LLE weights over the first 10 of them and the
intrinsic dimension of every token. The comparison needs graphs of 200 neighbors; the goal is set beside those
of 1,200 that the paper's setting needs: a whole of at most 1.1 times these kernels. Both ratios are given.
Each round loads the models anew, compares them and searches for 1,200 neighbors; a ratio is of one round.
--output FOLDER writes the figures to compare_share.json and compare_share.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import embgeom
from benchmarks.compare.problem import Size
from benchmarks.compare.record import new_record, write_whole

KERNELS = ("knn", "lle", "dimension_of")
OTHERS = (
    "match",
    "classify",
    "tokens_that_count",
    "global_similarity_estimate",
    "_local_estimates",
    "panel_estimates",
    "curves",
    "_cautions",
    "token_groups",
)
SECONDS: dict[str, float] = defaultdict(float)
LARGE_K = 1200
LARGE = f"knn of {LARGE_K:,} neighbors"


def time_calls(module: Any, names: tuple[str, ...]) -> None:
    """Replace functions of a module by such that add up the seconds of their outermost calls."""
    inside: list[str] = []

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            inside.append(name)
            try:
                result = function(*arguments, **options)
                # A generator works only while it is read.
                return iter(list(result)) if name in ("_cautions", "token_groups") else result
            finally:
                inside.pop()
                if not inside:
                    SECONDS[name] += time.perf_counter() - begin

        call.__name__ = name
        return call

    for name in names:
        setattr(module, name, wrapped(name, getattr(module, name)))


def measured(
    a: embgeom.Embeddings, b: embgeom.Embeddings, **options: Any
) -> tuple[embgeom.Comparison, dict[str, float]]:
    """Compare, print a line for each part, and return the result and the seconds of its parts."""
    SECONDS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", embgeom.EmbgeomWarning)
        begin = time.perf_counter()
        found = embgeom.compare(a, b, **options)
        whole = time.perf_counter() - begin
    kernels = sum(SECONDS[name] for name in KERNELS)
    rest = whole - sum(SECONDS.values())
    parts = {"whole": whole, "kernels": kernels, **SECONDS, "other token sets and rest": rest}
    print(f"compare {whole:.1f} s, of which kernels {kernels:.1f} s: {whole / kernels:.2f} times", flush=True)
    for name, taken in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {taken:7.2f} s", flush=True)
    return found, {name: round(taken, 2) for name, taken in parts.items()}


def large_graphs(a: embgeom.Embeddings, b: embgeom.Embeddings, found: embgeom.Comparison) -> float:
    """Return the seconds of a graph of 1,200 neighbors for each model."""
    both = (a.matrix[found.match.ids_a], b.matrix[found.match.ids_b])
    begin = time.perf_counter()
    for rows in both:
        embgeom.knn(rows, k=LARGE_K, center=True, threads=found.options.threads, progress=False)
    return round(time.perf_counter() - begin, 2)


def line(name: str, values: list[float]) -> str:
    """Return a row of the table: the rounds, and their median."""
    return f"| {name} | {' | '.join(f'{value:.2f}' for value in [*values, median(values)])} |"


def page(record: dict[str, Any]) -> str:
    """Return the record as a page."""
    runs = record["runs"]
    names = dict.fromkeys(name for run in runs.values() for name in run)
    ratios = [run["whole"] / run["kernels"] for run in runs.values()]
    larger = [run["whole"] / (run["kernels"] - run["knn"] + run[LARGE]) for run in runs.values()]
    return "\n".join(
        [
            "# What a comparison costs beside the kernels that it needs",
            "",
            f"{record['rows']:,} shared tokens of {' and '.join(record['models'])}, "
            f"{' and '.join(map(str, record['columns']))} columns, {record['threads']} threads of "
            f"{record['cores']} cores of {record['processor']} ({record['instructions']}), {record['date']}, "
            f"commit {record['revision']}. "
            f"Seconds; every measure with its interval and its nulls. docs/speed.md says what the "
            f"parts are. {record['remark']}".rstrip(),
            "",
            f"| part | {' | '.join(runs)} | median |",
            "|---|" + "---|" * (len(runs) + 1),
            *(line(name.strip("_"), [run.get(name, 0.0) for run in runs.values()]) for name in names),
            line("**whole / kernels**", ratios),
            line(f"**whole / kernels with {LARGE}**", larger),
            "",
        ]
    )


def main() -> None:
    """Measure, and print the shares of the parts and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--panel", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="a folder for compare_share.json and compare_share.md")
    parser.add_argument("--remark", default="", help="what else ran on the machine, for the record")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    time_calls(importlib.import_module("embgeom.comparison.compare"), (*KERNELS, *OTHERS))
    runs: dict[str, dict[str, float]] = {}
    for number in range(1, options.rounds + 1):
        # What a comparison finds out about a model is kept with it.
        a, b = embgeom.load(options.a), embgeom.load(options.b)
        found, parts = measured(a, b, panel=options.panel, threads=options.threads)
        runs[f"round {number}"] = parts | {LARGE: large_graphs(a, b, found)}
    print(f"{len(found.match)} tokens, {a.matrix.shape[1]} and {b.matrix.shape[1]} columns")
    print(found.summary())
    if options.output:
        columns = [model.matrix.shape[1] for model in (a, b)]
        record = new_record(Size(len(found.match), columns[0], found.options.threads))
        del record["cases"], record["quick"]
        record |= {"models": [a.name, b.name], "columns": columns, "runs": runs}
        record["remark"] = options.remark
        write_whole(options.output / "compare_share.json", json.dumps(record, indent=1) + "\n")
        write_whole(options.output / "compare_share.md", page(record))


if __name__ == "__main__":
    main()
