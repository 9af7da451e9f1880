"""Time of global_similarity: three products of n d^2 multiplications, whatever the number of pairs."""

import numpy as np
import pytest

from embgeom import global_similarity
from embgeom.geometry.similarity import similarity_terms
from tests.oracles import reference


@pytest.fixture(scope="module")
def other(x):
    """Return a second model's matrix: half as wide, and related to the first."""
    rng = np.random.default_rng(4)
    width = max(1, x.shape[1] // 2)
    turn = rng.standard_normal((x.shape[1], width), dtype=np.float32) / np.float32(np.sqrt(width))
    return x @ turn + np.float32(0.1) * rng.standard_normal((len(x), width), dtype=np.float32)


@pytest.mark.parametrize("center", [False, True])
def bench_all_pairs(measure, x, other, threads, center):
    value = measure(global_similarity, x, other, center=center, threads=threads)
    # The oracle takes all pairs of some rows; the pairs of all rows correlate like them, up to sampling.
    some, room = reference.global_similarity(x, other, center=center, sample=600, seed=5)
    assert abs(value - some) < 0.1
    # On the same rows the two must agree to the last digits.
    exact = global_similarity(x, other, center=center, sample=600, seed=5, threads=threads)
    assert abs(exact - some) <= room


@pytest.mark.parametrize("center", [False, True])
def bench_terms(measure, x, other, threads, center):
    terms = measure(similarity_terms, x, other, center=center, threads=threads)
    assert terms.value == global_similarity(x, other, center=center, threads=threads)


def bench_sample(measure, x, other, threads):
    size = min(len(x), 1000)
    value = measure(global_similarity, x, other, sample=size, seed=6, threads=threads)
    expected, room = reference.global_similarity(x, other, sample=size, seed=6)
    assert abs(value - expected) <= room
