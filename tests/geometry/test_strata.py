"""Sums within strata and ranks against NumPy's products of whole matrices in float64."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from embgeom._common.native import core
from embgeom.errors import InputError
from tests.oracles import strategies

# Sums of products of float32 numbers: each rounds by 2^-24 of its size, and roundings do not add up.
FLOAT32 = 1e-5


def problem(sizes, d, seed=0):
    """Directions as the kernel takes them, where strata begin, and the directions in their order."""
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    matrix = rng.standard_normal((n + 3, d)).astype(np.float32) + np.float32(0.5)
    order = rng.permutation(n + 3)[:n]
    center = rng.standard_normal(d)
    inverse = 1 / np.linalg.norm(matrix[order] - center, axis=1)
    u = (matrix[order] - center) * inverse[:, None]
    begins = np.concatenate(([0], np.cumsum(sizes)))
    return (matrix, order, center, inverse, u.mean(axis=0)), begins, u


def deviations(u, begins):
    parts = [u[b:e] for b, e in pairwise(begins)]
    means = np.array([part.mean(axis=0) for part in parts])
    return means, [part - mean for part, mean in zip(parts, means, strict=True)]


def check_moments(sizes, d, threads, rtol, seed=0):
    directions, begins, u = problem(sizes, d, seed)
    means, parts = deviations(u, begins)
    found = core.stratum_moments(directions, begins, threads=threads, progress=None)
    np.testing.assert_allclose(found[0], means, atol=1e-13)
    np.testing.assert_allclose(found[1], [np.sum(part**2) for part in parts], rtol=1e-11, atol=1e-13)
    along = [np.sum((part @ mean) ** 2) for part, mean in zip(parts, means, strict=True)]
    np.testing.assert_allclose(found[2], along, rtol=1e-11, atol=1e-13)
    scatters = np.array([(part.T @ part).ravel() for part in parts])
    products = scatters @ scatters.T
    np.testing.assert_allclose(found[3], products, atol=rtol * products.max())
    assert (found[3] == found[3].T).all()
    return found


def check_norms(sizes, d_a, d_b, threads, rtol, seed=0):
    a, begins, u = problem(sizes, d_a, seed)
    b, _, v = problem(sizes, d_b, seed + 1)
    (means_a, parts_a), (means_b, parts_b) = deviations(u, begins), deviations(v, begins)
    rng = np.random.default_rng(seed)
    shared, factors = rng.standard_normal((d_a, d_b)), rng.standard_normal(len(sizes))
    found = core.stratum_norms(
        a, b, begins, means_a, means_b, shared=shared, factors=factors, threads=threads, progress=None
    )
    expected = [
        np.sum((part_a @ (shared + f * np.outer(mean_a, mean_b)) @ part_b.T) ** 2)
        for part_a, part_b, mean_a, mean_b, f in zip(parts_a, parts_b, means_a, means_b, factors, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=rtol * max(expected))
    return found


sizes_of_few = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(sizes_of_few, st.integers(1, 24), strategies.threads, st.integers(0, 99))
def test_moments(sizes, d, threads, seed):
    check_moments(sizes, d, threads, 1e-12, seed)


@given(sizes_of_few, st.integers(1, 24), st.integers(1, 24), strategies.threads, st.integers(0, 99))
def test_norms(sizes, d_a, d_b, threads, seed):
    check_norms(sizes, d_a, d_b, threads, 1e-12, seed)


# Several strips of columns; several pieces of rows; several blocks of strata; float32, with deep products.
@pytest.mark.parametrize(
    ("sizes", "d", "rtol"),
    [
        ([3, 40, 5], 300, 1e-12),
        ([1200, 1, 700], 20, 1e-12),
        ([2] * 400, 9, 1e-12),
        ([4000, 60, 40], 140, FLOAT32),
        ([11] * 400, 70, FLOAT32),
    ],
)
def test_pieces_and_threads_of_moments(sizes, d, rtol):
    first = check_moments(sizes, d, 1, rtol)
    for threads in (2, 7):
        for found, alone in zip(check_moments(sizes, d, threads, rtol), first, strict=True):
            assert found.tobytes() == alone.tobytes()


@pytest.mark.parametrize(
    ("sizes", "widths", "rtol"),
    [([1200, 1, 700, 30], (20, 40), 1e-12), ([4000, 60, 40], (90, 70), FLOAT32), ([600, 9], (9, 700), 1e-12)],
)
def test_pieces_and_threads_of_norms(sizes, widths, rtol):
    found = [check_norms(sizes, *widths, threads, rtol).tobytes() for threads in (1, 2, 7)]
    assert len(set(found)) == 1


@given(st.lists(st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0]), max_size=60))
def test_ranks(values):
    x = np.array(values, dtype=np.float32)
    order, ranks = core.rank(x, progress=None)
    np.testing.assert_array_equal(ranks, rankdata(x) - 1)
    np.testing.assert_array_equal(order, np.argsort(x, kind="stable"))


def test_ranks_of_many_values():
    x = np.random.default_rng(0).standard_normal(300_000).astype(np.float32).round(4)
    order, ranks = core.rank(x, progress=None)
    np.testing.assert_array_equal(ranks, rankdata(x) - 1)
    np.testing.assert_array_equal(order, np.argsort(x, kind="stable"))


def centered_ranks(x):
    return rankdata(x) - (len(x) + 1) / 2


def check_rank_correlation(x, others, atol):
    products = x.astype(np.float64) @ x.T.astype(np.float64)
    ranks, wanted = centered_ranks(others), centered_ranks(products[np.triu_indices(len(x), 1)])
    lengths = np.linalg.norm(ranks) * np.linalg.norm(wanted)
    expected = ranks @ wanted / lengths if lengths > 0 else 0.0
    np.testing.assert_allclose(core.rank_correlation(x, ranks, progress=None), expected, atol=atol)


# Products of small whole numbers are exact, and no step has two of them.
@given(st.integers(2, 90), st.integers(1, 5), st.integers(0, 99))
def test_rank_correlation_with_products(m, d, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (m, d)).astype(np.float32)
    check_rank_correlation(x, rng.integers(0, 9, m * (m - 1) // 2), 1e-12)


def test_steps_of_rank_correlation_do_not_show():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((700, 30)).astype(np.float32)
    other = x @ x.T + 8 * rng.standard_normal((700, 700))
    check_rank_correlation(x, other[np.triu_indices(700, 1)], 1e-7)


def test_rank_correlation_wants_a_rank_for_each_pair():
    with pytest.raises(InputError, match="one rank for each pair"):
        core.rank_correlation(np.ones((4, 2), np.float32), np.zeros(5), progress=None)


@pytest.mark.parametrize(
    ("n", "d_x", "d_y", "rtol"), [(50, 7, 4, 1e-12), (60, 1300, 400, 1e-12), (4200, 9, 6, 1e-6)]
)
def test_products_of_columns(n, d_x, d_y, rtol):
    rng = np.random.default_rng(1)
    x, y = (rng.standard_normal((n, d)).astype(np.float32) for d in (d_x, d_y))
    found = [core.row_products(x, y, threads=threads, progress=None) for threads in (1, 3)]
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    pairs = ((wide_x, wide_x), (wide_x, wide_y), (wide_y, wide_y))
    for (left, right), product, terms in zip(pairs, *found[0], strict=True):
        expected = left.T @ right
        np.testing.assert_allclose(product, expected, atol=rtol * np.abs(expected).max())
        of_rows = np.einsum("ij,jk,ik->i", left, expected, right, optimize=True)
        np.testing.assert_allclose(terms, of_rows, atol=10 * rtol * np.abs(of_rows).max())
    for one, three in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        assert one.tobytes() == three.tobytes()
