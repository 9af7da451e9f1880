"""Time of intrinsic_dimension: a covariance (k d min(k, d)) and its eigenvalues (min(k, d)^3) for each token.

Some tokens only: at k = 1200 a whole vocabulary takes hours of one core, and each token costs the same.
"""

from dataclasses import replace

import numpy as np
import pytest

from embgeom import intrinsic_dimension
from tests.oracles import reference

TOKENS = 64


@pytest.mark.parametrize("k", [50, 300, 1200])
def bench_components(benchmark, measure, x, threads, k):
    n, k = len(x), min(k, len(x) - 1)
    rng = np.random.default_rng(3)
    rows = rng.choice(n, size=min(n, TOKENS if k > 300 else 8 * TOKENS), replace=False)
    steps = 1 + rng.choice(n - 1, size=k, replace=False)
    lists = (rows[:, None] + steps) % n
    result = measure(intrinsic_dimension, x, lists, rows=rows, threads=threads, rounds=2)
    benchmark.extra_info["decided_in_float64"] = float(result.decided_in_float64.mean())
    for place in rng.choice(len(rows), size=6, replace=False):
        expected = reference.intrinsic_dimension(x[lists[place]], [np.arange(k)])
        found = replace(
            result,
            n_components=result.n_components[[place]],
            participation_ratio=result.participation_ratio[[place]],
            explained_variance_ratio=result.explained_variance_ratio[[place]],
            decided_in_float64=result.decided_in_float64[[place]],
        )
        reference.assert_same_dimension(found, expected, 0.95)
