"""Matrices of the size that the package is for: by default GPT-2's vocabulary, seeded, one for all kernels.

Run `pytest benchmarks/`. EMBGEOM_BENCH_ROWS and EMBGEOM_BENCH_COLUMNS shrink the work, EMBGEOM_BENCH_THREADS
sets `threads=`. Each benchmark checks its answer on a sample of rows against the oracle; none asserts a time.
"""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from matrices import synthetic

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the oracles

ROWS = int(os.environ.get("EMBGEOM_BENCH_ROWS", "50257"))
COLUMNS = int(os.environ.get("EMBGEOM_BENCH_COLUMNS", "768"))
THREADS = int(os.environ["EMBGEOM_BENCH_THREADS"]) if "EMBGEOM_BENCH_THREADS" in os.environ else None


@pytest.fixture(scope="session")
def x():
    """Return the matrix that all benchmarks share, and may not change."""
    matrix = synthetic(ROWS, COLUMNS, seed=0)
    matrix.flags.writeable = False
    return matrix


@pytest.fixture(scope="session")
def threads():
    """Return the number of threads asked for; None leaves it to the package."""
    return THREADS


@pytest.fixture
def measure(benchmark):
    """Return a function that times one call, records the work's size and returns the answer.

    A call takes seconds to minutes, so the rounds are few and chosen here, not by pytest-benchmark.
    """

    def timed(function, *args, rounds=3, **options):
        benchmark.extra_info.update(rows=ROWS, columns=COLUMNS, threads=options.get("threads"))
        return benchmark.pedantic(function, args, options, rounds=rounds, iterations=1, warmup_rounds=0)

    return timed


@pytest.fixture(scope="session")
def sample():
    """Return the row numbers that are checked."""
    return np.random.default_rng(1).choice(ROWS, size=min(ROWS, 24), replace=False)
