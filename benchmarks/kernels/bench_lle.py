"""Time of lle: a Gram matrix (k^2 d) and a solve (k^3) for each token."""

from dataclasses import replace

import numpy as np
import pytest

from embgeom import lle
from tests.oracles import reference


def lists_of(n, k):
    """Return k row numbers for each row, spread over the matrix.

    The arithmetic does not depend on who the neighbors are, and distant rows are the worst case for memory:
    so no search is needed first.
    """
    steps = 1 + np.random.default_rng(2).choice(n - 1, size=k, replace=False)
    return (np.arange(n)[:, None] + steps) % n


@pytest.mark.parametrize("k", [10, 50, 200])
def bench_weights(measure, x, threads, sample, k):
    lists = lists_of(len(x), min(k, len(x) - 1))
    result = measure(lle, x, lists, threads=threads, rounds=2)
    for row in sample:
        expected = reference.lle(x[np.append(lists[row], row)], [np.arange(lists.shape[1])], rows=[-1])
        fields = ("weights", "residuals", "status", "indices")
        found = replace(result, **{name: getattr(result, name)[[row]] for name in fields})
        reference.assert_same_weights(found, expected)
