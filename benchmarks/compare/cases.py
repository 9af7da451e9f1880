"""All cases, in the order in which they are measured; here, too, the time of `import embgeom`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from functools import partial

import numpy as np

from benchmarks.compare import alternating, dimension, knn, lle, runs, similarity, study, threads
from benchmarks.compare.contender import Call, Case, Contender, Timed, no_check
from benchmarks.compare.problem import Problem, Size

REPEATS = 10


def nothing_to_build(size: Size, limit: int | None) -> Problem:
    return Problem(np.zeros((1, 1), np.float32), size.threads, np.arange(1), quick=size.quick)


def by_interpreter(problem: Problem, statement: str) -> Call:
    """Time whole interpreters, from start to exit; the median stands for all."""

    def once() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - begin

    def call() -> Timed:
        return Timed(statistics.median(once() for _ in range(1 if problem.quick else REPEATS)))

    return call


def statement(name: str, text: str, library: str) -> Contender:
    return Contender(name, library, partial(by_interpreter, statement=text))


IMPORT = Case(
    "import",
    "a fresh interpreter",
    nothing_to_build,
    no_check,
    (
        statement("embgeom", "import embgeom", "embgeom"),
        statement("import numpy", "import numpy", "numpy"),
        statement("no import", "pass", "sys"),
    ),
    unit=("ms", 1e3),
)
CASES = (
    *knn.CASES,
    *lle.CASES,
    *dimension.CASES,
    *similarity.CASES,
    IMPORT,
    *alternating.CASES,
    *study.CASES,
    *runs.CASES,
    *threads.CASES,
)
MEASURES = tuple(dict.fromkeys(case.measure for case in CASES))
BY_NAME = {case.name: case for case in CASES}
