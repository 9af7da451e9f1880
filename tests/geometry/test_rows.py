"""Norms, equal rows and zero rows against the oracle; what counts as a matrix at all."""

import numpy as np
import pytest
from hypothesis import given

from embgeom.errors import InputError
from embgeom.geometry.rows import row_stats
from tests.oracles import reference, strategies
from tests.oracles import tolerances as tol


@given(strategies.matrices(), strategies.threads)
def test_against_oracle(x, threads):
    norms, first_equal, zero = reference.row_stats(x)
    scan = row_stats(x, threads=threads)
    assert (scan.norms.dtype, scan.first_equal.dtype, scan.zero.dtype) == (np.float64, np.int64, np.bool_)
    np.testing.assert_allclose(scan.norms, norms, rtol=tol.norm_rtol(x.shape[1]))
    np.testing.assert_array_equal(scan.first_equal, first_equal)
    np.testing.assert_array_equal(scan.zero, zero)


@given(strategies.matrices(families=("integers",), zeros=False, plain=True), strategies.threads)
def test_integers_are_exact(x, threads):
    np.testing.assert_array_equal(row_stats(x, threads=threads).norms, reference.row_stats(x)[0])


def test_many_equal_rows():
    # Reserved tokens: thousands of rows with a dozen distinct values, far apart and in no order.
    rng = np.random.default_rng(11)
    kinds = rng.integers(0, 13, 4000)
    x = rng.standard_normal((13, 33)).astype(np.float32)[kinds]
    first = np.array([np.flatnonzero(kinds == kind)[0] for kind in range(13)])
    np.testing.assert_array_equal(row_stats(x).first_equal, first[kinds])


def test_zeros_of_both_signs_are_equal():
    x = np.array([[0.0, 1], [-0.0, 1], [0, 0], [-0.0, 0], [1, 0]], dtype=np.float32)
    scan = row_stats(x)
    assert scan.first_equal.tolist() == [0, 0, 2, 2, 4]
    assert scan.zero.tolist() == [False, False, True, True, False]
    assert scan.norms.tolist() == [1, 1, 0, 0, 1]


def test_rows_that_differ_in_the_last_bit_are_not_equal():
    x = np.ones((3, 5), dtype=np.float32)
    x[1, 4] = np.nextafter(np.float32(1), np.float32(2))
    x[2, 0] = np.nextafter(np.float32(1), np.float32(0))
    assert row_stats(x).first_equal.tolist() == [0, 1, 2]


@pytest.mark.parametrize("d", [1, 2, 3, 31, 32, 33, 64, 97])
def test_every_coordinate_counts(d):
    # Row 1 + l differs from row 0 in coordinate l alone, and comes twice.
    x = np.zeros((2 * d + 1, d), dtype=np.float32)
    x[1 : d + 1] = np.eye(d) * 1e-40
    x[d + 1 :] = x[1 : d + 1]
    assert row_stats(x).first_equal.tolist() == [*range(d + 1), *range(1, d + 1)]


def test_extreme_rows():
    # The square of either is out of float32's range; the subnormal is not zero.
    x = np.array([[3e38, 3e38], [1e-45, 0], [0, 0]], dtype=np.float32)
    scan = row_stats(x)
    np.testing.assert_allclose(scan.norms, np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-15)
    assert scan.zero.tolist() == [False, False, True]


def test_the_matrix_is_rounded_to_float32_first():
    # So that float64 input gives the equal rows that every other kernel will see.
    scan = row_stats(np.array([[0, 0], [1.0, 0], [1.0 + 1e-12, 1e-60]]))
    assert scan.zero.tolist() == [True, False, False]
    assert scan.first_equal.tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="all of row 1 is too small for float32"):
        row_stats(np.array([[1.0, 0], [1e-60, 0]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("type_", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("row", [0, 611, 1299])
def test_what_is_not_finite_is_named(bad, type_, row):
    x = np.zeros((1300, 3), dtype=type_)
    x[row, 2] = bad
    with pytest.raises(InputError, match=rf"\b{row}\b"):
        row_stats(x)


def test_the_first_row_that_is_not_finite_is_named():
    x = np.zeros((3000, 4), dtype=np.float32)
    x[[17, 400, 2999]] = np.nan
    for threads in (1, 2, 7):
        with pytest.raises(InputError, match=r"\b17\b"):
            row_stats(x, threads=threads)


def test_what_float32_cannot_hold_is_not_finite():
    with pytest.raises(InputError, match=r"\b1\b"):
        row_stats(np.array([[1.0], [1e39], [1.0]]))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(3, np.float32),
        np.zeros((2, 2, 2), np.float32),
        np.float32(1),
        np.zeros((0, 4), np.float32),
        np.zeros((4, 0), np.float32),
        np.zeros((2, 2), np.complex64),
        np.array([["a", "b"]]),
        np.array([[object(), None]]),
        [[1.0, 2.0], [3.0]],
    ],
    ids=["1-D", "3-D", "0-D", "no rows", "no columns", "complex", "strings", "objects", "ragged"],
)
def test_what_is_no_matrix_is_refused(x):
    with pytest.raises(InputError):
        row_stats(x)


@pytest.mark.parametrize(
    "x", [[[3, 4], [0, 0]], np.array([[3, 4], [0, 0]], np.int8), ([3.0, 4.0], [0.0, 0.0])]
)
def test_lists_and_integers_are_converted(x):
    assert row_stats(x).norms.tolist() == [5, 0]


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_is_an_error(threads):
    with pytest.raises(InputError, match=str(threads)):
        row_stats(np.ones((2, 2), np.float32), threads=threads)
