"""What it costs to keep the blocks of a run on the disk, and to go on after an interruption."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare import dimension
from benchmarks.compare.contender import Call, Case, Contender
from benchmarks.compare.problem import Problem, Size, knn_problem

# Some blocks' worth of tokens, on two cores.
ROWS, TOKENS, K = 16384, 4096, 1200
CHECKED = 128


def run_problem(size: Size, limit: int | None) -> Problem:
    """Ask for the intrinsic dimension of a part of the tokens."""
    return knn_problem(Size(min(size.rows, ROWS), size.columns, size.threads, size.quick), TOKENS, k=K)


def options_of(problem: Problem) -> dict[str, Any]:
    return {
        **{"k": problem.k, "variance": dimension.VARIANCE},
        **{"rows": problem.tokens, "threads": problem.threads},
    }


def in_memory(problem: Problem) -> Call:
    import embgeom

    return lambda: embgeom.intrinsic_dimension(problem.x, **options_of(problem))


def in_a_folder(problem: Problem, interruptions: int = 0) -> Call:
    """Run in a folder, and stop it so many times on the way."""
    import embgeom

    def call() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            run = partial(embgeom.run, "dimension", problem.x, folder, **options_of(problem))
            for number in range(interruptions):
                begun = (number + 1) / (interruptions + 1)
                try:
                    run(progress=partial(interrupt, begun=begun))
                except KeyboardInterrupt:
                    continue
            return run()

    return call


def interrupt(task: str, done: int, total: int, begun: float) -> None:
    """Do what Ctrl-C does when this share of the tokens is done."""
    if task == "dimensions" and done >= begun * total:
        raise KeyboardInterrupt


def check(problem: Problem, found: Any, exact: bool) -> dict[str, float]:
    """Compare some tokens with float64, and all bits of theirs with what the plain function returns."""
    import embgeom

    few = replace(problem, tokens=problem.tokens[:CHECKED])
    plain = in_memory(few)()
    for name in ("n_components", "participation_ratio", "explained_variance_ratio"):
        of_run, of_call = (getattr(each, name)[:CHECKED].view(np.uint32) for each in (found, plain))
        assert (of_run == of_call).all(), f"{name} of the run is not that of the plain function"
    lists = embgeom.knn(problem.x, problem.k, rows=few.tokens, threads=problem.threads).indices
    directed = np.flatnonzero((lists >= 0).all(axis=1))
    return dimension.check(
        replace(problem, lists=lists[directed]), found.n_components[:CHECKED][directed], exact=True
    )


CASES = (
    Case(
        "runs",
        f"intrinsic dimension of {TOKENS:,} of {ROWS:,} tokens, kept in a folder",
        run_problem,
        check,
        (
            Contender("embgeom", "embgeom", in_memory),
            Contender("run in a folder", "embgeom", in_a_folder),
            Contender(
                "run interrupted once and resumed",
                "embgeom",
                partial(in_a_folder, interruptions=1),
                slow=True,
            ),
        ),
    ),
)
