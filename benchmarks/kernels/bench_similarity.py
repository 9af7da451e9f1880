"""Time of global_similarity: three products of n d^2 multiplications, whatever the number of pairs."""

import numpy as np
import pytest

from embgeom import global_similarity
from embgeom._common.native import core
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


def strata(n):
    """Return the strata of a vocabulary: 75 tokens each, some of more than a thousand."""
    sizes = np.maximum(10 * np.random.default_rng(7).lognormal(1.2, 1.2, n // 75), 10)
    return np.rint(np.concatenate(([0], np.cumsum(sizes) * n / sizes.sum()))).astype(np.int64)


def directions(x):
    """Return a matrix as the kernel takes it, with a random order, without a center and a mean."""
    order, zero = np.random.default_rng(8).permutation(len(x)), np.zeros(x.shape[1])
    return x, order, zero, inverse_norms(x)[order], zero


def inverse_norms(x):
    """Return 1 / norm of each row, 0 for a row of zeros, which has no direction."""
    norms = np.linalg.norm(x, axis=1)
    return np.divide(1, norms, where=norms > 0, out=np.zeros(len(x)))


def bench_strata(measure, x, threads):
    begins = strata(len(x))
    means, *_, products = measure(core.stratum_moments, directions(x), begins, threads=threads, progress=None)
    assert np.allclose(np.diff(begins) @ means, inverse_norms(x) @ x, atol=0.01)
    assert (products >= 0).all()


def bench_strata_between(measure, x, other, threads):
    begins = strata(len(x))
    a, b = directions(x), directions(other)
    means = [core.stratum_moments(each, begins, threads=threads, progress=None)[0] for each in (a, b)]
    norms = measure(
        core.stratum_norms, a, b, begins, *means, shared=means[0].T @ means[1],
        factors=np.ones(len(begins) - 1), threads=threads, progress=None,
    )  # fmt: skip
    assert (norms >= 0).all()


def bench_products_of_columns(measure, x, other, threads):
    (*_, products), _ = measure(core.row_products, x, other, threads=threads, progress=None)
    assert np.allclose(products, other.T.astype(np.float64) @ other, rtol=1e-4, atol=1e-3)


def bench_ranks(measure):
    values = np.random.default_rng(9).standard_normal(2_000_000).astype(np.float32)
    order, _ = measure(core.rank, values, progress=None)
    assert (np.diff(values[order]) >= 0).all()
