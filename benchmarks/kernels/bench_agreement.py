"""Positions of neighbors in other lists, and agreement of relabeled lists: sets the lengths of short ones."""

import numpy as np
import pytest

from embgeom._common.native import core

N = 46145


def lists(k):
    rng = np.random.default_rng(0)
    start = rng.integers(0, N, (2, N, 1))
    return ((start + 7 * np.arange(k)) % N).astype(np.int32)


@pytest.mark.parametrize("k", [10, 32, 48, 64, 200])
def bench_positions(benchmark, k):
    a, b = lists(k)
    benchmark(lambda: core.positions(a, b, threads=1, progress=None))


@pytest.mark.parametrize("k", [10, 16, 24, 200, 1200])
def bench_relabeled(benchmark, k):
    a, b = lists(k)
    labels = np.array([np.random.default_rng(i).permutation(N) for i in range(4)], dtype=np.int32)
    values = np.ones((N, k))
    benchmark(lambda: core.relabeled_agreement(a, values, b, values, labels, threads=1, progress=None))
