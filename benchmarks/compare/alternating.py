"""embgeom and torch taking turns in one process.

Two OpenMP runtimes and two BLAS libraries each keep threads; where those of one spin while the other works,
both slow down. Each side is timed alone, in a process that never loads the other, and in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.compare.contender import Call, Case, Contender, Timed, no_check
from benchmarks.compare.knn import by_embgeom, by_torch
from benchmarks.compare.problem import Problem, Size, knn_problem

K = 10
TURNS = 5
# As long as several turns of all spinning threads, and short enough for five turns of each.
ROWS = 16384

Prepare = Callable[[Problem], Callable[[], Any]]


def fewer_rows(size: Size, limit: int | None) -> Problem:
    return knn_problem(Size(min(size.rows, ROWS), size.columns, size.threads, size.quick), limit, k=K)


def in_turns(problem: Problem, timed: Prepare, between: Prepare | None) -> Call:
    """Time one side, the median of all turns; between two turns the other side works."""
    mine = timed(problem)
    other = between(problem) if between else lambda: None

    def turn() -> float:
        other()
        begin = time.perf_counter()
        mine()
        return time.perf_counter() - begin

    def call() -> Timed:
        return Timed(statistics.median(turn() for _ in range(TURNS)))

    return call


def side(name: str, library: str, timed: Prepare, between: Prepare | None = None) -> Contender:
    alone = name.partition(",")[0] if between else None
    return Contender(name, library, partial(in_turns, timed=timed, between=between), alone=alone)


CASES = (
    Case(
        "alternating",
        f"in turns with torch, knn, k = {K}, {ROWS} rows at most",
        fewer_rows,
        no_check,
        (
            side("embgeom", "embgeom", by_embgeom),
            side("embgeom, after torch", "torch", by_embgeom, by_torch),
            side("torch", "torch", by_torch),
            side("torch, after embgeom", "torch", by_torch, by_embgeom),
        ),
    ),
)
