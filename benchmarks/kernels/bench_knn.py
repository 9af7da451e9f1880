"""Time of knn over a whole vocabulary: n^2 d multiplications, and the choice of the best k of each row."""

import numpy as np
import pytest

from embgeom import knn
from tests.oracles import reference


def check(found, x, sample, **options):
    """Compare the sampled lists with the oracle's."""
    ranking = reference.rank(x, rows=sample, **options)
    reference.assert_same_neighbors(found.indices[sample], found.similarities[sample], ranking)


@pytest.mark.parametrize("metric", ["cosine", "inner_product", "euclidean"])
def bench_metrics(measure, x, threads, sample, metric):
    found = measure(knn, x, 10, metric=metric, threads=threads, rounds=2)
    check(found, x, sample, metric=metric)


@pytest.mark.parametrize("k", [1, 100, 1200])
def bench_list_lengths(measure, x, threads, sample, k):
    k = min(k, len(x) - 1)
    found = measure(knn, x, k, threads=threads, rounds=1)
    check(found, x, sample)


@pytest.mark.parametrize("share", [0.3, 1.0])
def bench_equal_rows(measure, x, threads, sample, share):
    # Tokens that were never trained share a row: 15,000 of GPT-2's size, and nothing else.
    x = x.copy()
    x[np.random.default_rng(2).permutation(len(x))[: int(share * len(x))]] = x[sample[0]]
    found = measure(knn, x, 10, threads=threads, rounds=1)
    check(found, x, sample)


def bench_few_queries(measure, x, threads, sample):
    # 256 rows against all: what a person at a prompt waits for.
    rows = sample.repeat(11)[:256]
    found = measure(knn, x, 10, rows=rows, threads=threads)
    ranking = reference.rank(x, rows=rows[::11])
    reference.assert_same_neighbors(found.indices[::11], found.similarities[::11], ranking)
