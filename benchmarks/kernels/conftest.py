"""Matrices of the size that the package is for, seeded, one for all kernels; and the grid they make.

Run `python -m pytest benchmarks/kernels`. EMBGEOM_BENCH_ROWS, EMBGEOM_BENCH_COLUMNS and EMBGEOM_BENCH_THREADS
are lists such as 4096,50257 of which each combination is timed. Each benchmark checks its answer on a sample
of rows against the oracle; none asserts a time.
"""

import os

import numpy as np
import pytest

from benchmarks.compare.problem import synthetic


def grid(name: str, default: str) -> list[int]:
    """Return the numbers that an environment variable lists."""
    return [int(number) for number in os.environ.get(name, default).split(",")]


ROWS = grid("EMBGEOM_BENCH_ROWS", "16384,50257")  # the latter is GPT-2's vocabulary
COLUMNS = grid("EMBGEOM_BENCH_COLUMNS", "768")
THREADS = grid("EMBGEOM_BENCH_THREADS", f"1,{os.cpu_count()}" if (os.cpu_count() or 1) > 1 else "1")


@pytest.fixture(scope="session", params=[(n, d) for n in ROWS for d in COLUMNS], ids="{0[0]}x{0[1]}".format)
def x(request):
    """Return the matrix that all benchmarks share, and may not change."""
    matrix = synthetic(*request.param, seed=0)
    matrix.flags.writeable = False
    return matrix


@pytest.fixture(scope="session", params=THREADS, ids="threads={}".format)
def threads(request):
    """Return the number of threads asked for."""
    return request.param


@pytest.fixture
def measure(benchmark, x):
    """Return a function that times one call, records the work's size and returns the answer.

    A call takes seconds to minutes, so the rounds are few and chosen here, not by pytest-benchmark.
    """

    def timed(function, *args, rounds=3, **options):
        benchmark.extra_info.update(rows=x.shape[0], columns=x.shape[1], threads=options.get("threads"))
        return benchmark.pedantic(function, args, options, rounds=rounds, iterations=1, warmup_rounds=0)

    return timed


@pytest.fixture(scope="session")
def sample(x):
    """Return the row numbers that are checked."""
    return np.random.default_rng(1).choice(len(x), size=min(len(x), 24), replace=False)
