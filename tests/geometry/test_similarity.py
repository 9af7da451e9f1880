"""Global similarity against the correlation of all pairs of cosines, written out."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom import global_similarity
from embgeom.errors import InputError
from embgeom.geometry.similarity import similarity_terms
from tests.helpers import real_data
from tests.oracles import reference, relabeling, strategies
from tests.oracles import tolerances as tol


def gaussian(n, d, seed=3):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def related(n, d_a, d_b, *, shared=0.0, seed=3):
    """Two matrices that arrange n rows somewhat alike, with `shared` added to every coordinate."""
    a = gaussian(n, d_a, seed)
    b = a[:, :1] + gaussian(n, d_b, seed + 1)
    b[:, : min(d_a, d_b)] += a[:, : min(d_a, d_b)]
    return a + np.float32(shared), b + np.float32(shared)


def check(a, b, *, threads=None, **options):
    """Compare one call with the oracle, as far as float64 determines the answer."""
    a, b = np.asarray(a), np.asarray(b)
    expected, room = reference.global_similarity(a, b, **options)
    if expected is None or room > tol.UNDETERMINED_CORRELATION:
        # The variance of the similarities is zero or all rounding: an error or a correlation, never nonsense.
        with contextlib.suppress(InputError):
            assert -1 <= global_similarity(a, b, threads=threads, **options) <= 1
        return None
    value = global_similarity(a, b, threads=threads, **options)
    assert isinstance(value, float) and -1 <= value <= 1
    room += tol.float32_products_atol(min(len(a), options.get("sample", len(a))), (a.shape[1], b.shape[1]))
    assert abs(value - expected) <= room, f"{value} is not {expected} +- {room}"
    return value


@given(st.data(), st.booleans(), st.booleans(), strategies.threads)
def test_all_pairs(data, center, include_diagonal, threads):
    n, d = data.draw(strategies.shapes(min_rows=3))
    a = data.draw(strategies.matrices(shape=(n, d)))
    b = data.draw(strategies.matrices(shape=(n, data.draw(st.integers(1, 24)))))
    check(a, b, center=center, include_diagonal=include_diagonal, threads=threads)


@given(st.data(), st.booleans(), st.integers(3, 45), st.integers(0, 5))
def test_samples(data, center, sample, seed):
    n = data.draw(st.integers(3, 40))
    a = data.draw(strategies.matrices(families=("gaussian", "integers"), shape=(n, 7)))
    b = data.draw(strategies.matrices(families=("gaussian", "duplicates"), shape=(n, 5)))
    check(a, b, center=center, sample=sample, seed=seed)


def test_by_hand():
    # Cosines of a: 0, 1, 0 over the pairs 01, 02, 12. Cosines of b: 0, 0, 1. Their correlation is -1/2.
    a, b = [[1, 0], [0, 1], [2, 0]], [[3, 0], [0, 1], [0, 5]]
    assert global_similarity(a, b) == pytest.approx(-0.5, abs=1e-14)
    # The three pairs count twice, the diagonal adds three pairs of ones: 9 terms.
    expected = np.corrcoef([0, 0, 1, 1, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1, 1])[0, 1]
    assert global_similarity(a, b, include_diagonal=True) == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("center", [False, True])
def test_with_itself_turned_and_scaled(center):
    x = gaussian(200, 12)
    turn = np.linalg.qr(gaussian(12, 12, seed=4).astype(np.float64))[0]
    assert global_similarity(x, x, center=center) == pytest.approx(1, abs=1e-12)
    assert global_similarity(x, 8 * x, center=center) == pytest.approx(1, abs=1e-12)
    # The turned rows are rounded to float32, which moves each cosine by some eps32.
    assert global_similarity(x, 3 * x @ turn, center=center) == pytest.approx(1, abs=1e-6)
    assert abs(global_similarity(x, gaussian(200, 12, seed=9), center=center)) < 0.1


@pytest.mark.parametrize("center", [False, True])
def test_symmetric(center):
    a, b = gaussian(100, 8), gaussian(100, 5, seed=4) + np.float32(0.5)
    one, other = global_similarity(a, b, center=center), global_similarity(b, a, center=center)
    assert one == pytest.approx(other, abs=1e-14)


@pytest.mark.parametrize("include_diagonal", [False, True])
@pytest.mark.parametrize("center", [False, True])
def test_zero_rows_are_left_out_in_pairs(center, include_diagonal):
    # A shared offset: if zero rows entered the mean, they would come out of it as rows that all look alike.
    a, b = gaussian(60, 8) + np.float32(0.5), gaussian(60, 5, seed=4) + np.float32(0.5)
    a[[3, 7]] = 0
    b[[7, 20]] = -0.0
    kept = np.delete(np.arange(60), [3, 7, 20])
    for options in ({}, {"sample": 30, "seed": 5}, {"sample": 58}):
        options |= {"center": center, "include_diagonal": include_diagonal}
        want = global_similarity(a[kept], b[kept], **options)
        assert global_similarity(a, b, **options) == pytest.approx(want, abs=1e-13)


@pytest.mark.parametrize("center", [False, True])
def test_a_value_that_is_not_finite_is_told_of_beside_a_zero_row(center):
    a, b = gaussian(9, 3), gaussian(9, 2)
    a[4], b[4, 1] = 0, np.inf
    with pytest.raises(InputError, match=r"\b4\b"):
        global_similarity(a, b, center=center)


def test_centring_takes_the_mean_of_the_rows_drawn():
    a, b = gaussian(50, 6) + np.float32(2), gaussian(50, 4, seed=5) - np.float32(1)
    rows = np.random.default_rng(12).choice(50, size=20, replace=False)
    for center in (False, True):
        value = global_similarity(a, b, center=center, sample=20, seed=12)
        assert value == pytest.approx(global_similarity(a[rows], b[rows], center=center), abs=1e-12)
    assert global_similarity(a, b, sample=20, seed=13) != global_similarity(a, b, sample=20, seed=12)
    assert (
        global_similarity(a, b, sample=50) == global_similarity(a, b) == global_similarity(a, b, sample=999)
    )


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads(threads):
    a, b = gaussian(700, 20), gaussian(700, 30, seed=4)
    one = global_similarity(a, b, threads=1)
    assert global_similarity(a, b, threads=threads) == one


@pytest.mark.parametrize("scale", [1e-18, 1e18])
def test_scale_does_not_matter(scale):
    a, b = gaussian(100, 20), gaussian(100, 30, seed=4)
    rows = scale ** np.random.default_rng(0).random((100, 1))
    check((a * rows).astype(np.float32), b)
    check((a * scale).astype(np.float32), b, center=True)


def test_more_columns_than_rows():
    check(gaussian(40, 300), gaussian(40, 700, seed=4))
    check(gaussian(3, 300), gaussian(3, 1, seed=4), center=True)


def test_cosines_near_one():
    # Embeddings share a long common direction: all cosines are about 0.99, only later digits vary.
    rng = np.random.default_rng(7)
    a = (10 + rng.standard_normal((300, 16))).astype(np.float32)
    b = (a[:, :10] + 0.5 * rng.standard_normal((300, 10))).astype(np.float32)
    assert check(a, b) is not None
    assert check(a, b, center=True) is not None


@pytest.mark.parametrize(("a", "b", "options"), [
    (np.ones((5, 2)), gaussian(5, 3), {}),  # all rows equal
    (np.ones((5, 2)), gaussian(5, 3), {"center": True}),  # and nothing left after centering
    (np.eye(6), gaussian(6, 3), {}),  # all at right angles
    ([[1], [2], [3], [9]], gaussian(4, 3), {}),  # one column, one sign
    (gaussian(2, 2), gaussian(2, 3), {}),
    (gaussian(9, 2), gaussian(9, 3), {"sample": 2}),
    (gaussian(9, 2), gaussian(9, 3), {"sample": 0}),
    (gaussian(9, 2), gaussian(9, 3), {"sample": -4}),
    (gaussian(9, 2), gaussian(8, 3), {}),
    (gaussian(9, 2)[0], gaussian(9, 3), {}),
    (gaussian(9, 2), gaussian(9, 3), {"threads": 0}),
    (np.diag([1, 1, 0, 0]), gaussian(4, 3), {}),  # two rows left
])  # fmt: skip
def test_what_has_no_answer_is_an_error(a, b, options):
    with pytest.raises(InputError):
        global_similarity(a, b, **options)
    if "threads" not in options and len(a) == len(b):
        with pytest.raises(InputError):
            global_similarity(b, a, **options)


def test_errors_carry_the_value():
    with pytest.raises(InputError, match=r"(?s)\b9\b.*\b8\b"):
        global_similarity(gaussian(9, 2), gaussian(8, 3))
    bad = gaussian(9, 3)
    bad[5, 1] = np.nan
    for pair in ((bad, gaussian(9, 2)), (gaussian(9, 2), bad)):
        with pytest.raises(InputError, match=r"\b5\b"):
            global_similarity(*pair)


def test_orthogonal_rows_vary_with_their_diagonal():
    assert global_similarity(np.eye(5), np.eye(5), include_diagonal=True) == pytest.approx(1, abs=1e-14)


@pytest.mark.model
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("model", real_data.MODELS)
def test_real_vocabularies(model, center):
    x = real_data.embeddings(model)
    noisy = x + 0.3 * x.std() * gaussian(*x.shape)
    value = check(x, noisy[:, : x.shape[1] // 2], center=center)
    assert 0.1 < value < 1
    check(x, noisy, center=center, sample=300, seed=1)


def check_many(a, b, *, center=True, include_diagonal=False):
    """Compare with the correlation of all pairs, multiplied by BLAS: thousands of rows take seconds."""
    used = a.any(axis=1) & b.any(axis=1)
    units = [m[used].astype(np.float64) for m in (a, b)]
    if center:
        units = [m - m.mean(axis=0) for m in units]
    used = units[0].any(axis=1) & units[1].any(axis=1)
    units = [m[used] / np.linalg.norm(m[used], axis=1, keepdims=True) for m in units]
    pairs = ~np.eye(used.sum(), dtype=bool) | include_diagonal
    cosines = [(u @ u.T)[pairs] for u in units]
    expected = np.corrcoef(*(c - c.mean() for c in cosines))[0, 1]
    value = global_similarity(a, b, center=center, include_diagonal=include_diagonal)
    room = tol.float32_products_atol(used.sum(), (a.shape[1], b.shape[1]))
    assert abs(value - expected) <= 1e-11 + room, f"{value} is not {expected}"


# Products are float32 from 4096 rows on, where these are twice the columns; rows are summed in pieces of 320
# and groups of 1280, columns are cut into strips of at most 384.
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("include_diagonal", [False, True])
@pytest.mark.parametrize("shared", [0, 10])  # with 10, all cosines are about 0.99
def test_many_rows(center, include_diagonal, shared):
    a, b = related(4500, 48, 20, shared=shared)
    a[17], b[[17, 400]] = 0, 0
    check_many(a, b, center=center, include_diagonal=include_diagonal)


@pytest.mark.parametrize("n", [319, 321, 1280, 1281, 4095, 4096, 4159, 4161, 5120, 5121])
def test_pieces_of_rows(n):
    check_many(*related(n, 9, 5))


@pytest.mark.parametrize(("n", "d_a", "d_b"), [
    (400, 255, 257), (400, 383, 384), (400, 385, 769), (300, 1300, 20),  # float64
    (4200, 384, 385), (4200, 20, 1300),  # float32, in one block of strips and in more
])  # fmt: skip
def test_strips_of_columns(n, d_a, d_b):
    check_many(*related(n, d_a, d_b))


def test_many_rows_on_any_number_of_threads():
    a, b = related(9000, 400, 130, shared=1)
    one = global_similarity(a, b, threads=1)
    assert [global_similarity(a, b, threads=threads) for threads in (2, 7)] == [one, one]


def test_many_equal_cosines_are_an_error():
    same = np.outer(np.arange(1, 5001), gaussian(1, 3)).astype(np.float32)
    for x in (np.ones((5000, 2)), same, np.arange(1, 5001)[:, None]):
        with pytest.raises(InputError, match="same cosine"):
            global_similarity(x, gaussian(5000, 3))


def test_copies_of_two_rows():
    # All cosines are one of two, so the correlation is 1; equal roundings add up instead of canceling.
    rng = np.random.default_rng(3)
    which = np.sort(rng.integers(0, 2, 100_000))
    a, b = (rng.standard_normal((2, d)).astype(np.float32)[which] for d in (16, 8))
    assert abs(global_similarity(a, b) - 1) < 3e-6


def check_terms(terms, a, b, center, rtol):
    """Compare the sums of each row with those over all its cosines, written out."""
    used = terms.used
    x, y = (relabeling.cosines(reference.as_float64(m)[used], center) for m in (a, b))
    for m in (x, y):
        np.fill_diagonal(m, 0.0)
    n = len(used)
    for sums, total, (left, right) in zip(terms.sums, terms.total, ((x, x), (x, y), (y, y)), strict=True):
        expected = (left * right).sum(axis=1)
        room = rtol * np.sqrt((left**2).sum(axis=1).max() * (right**2).sum(axis=1).max())
        np.testing.assert_allclose(sums[used], expected, atol=room, rtol=0)
        np.testing.assert_allclose(total, expected.sum(), atol=n * room, rtol=0)
        assert not np.delete(sums, used).any()
    for along, m in zip(terms.along, (x, y), strict=True):
        scale = np.abs(m).sum(axis=1).max() + 1e-9
        np.testing.assert_allclose(n * along[used], m.sum(axis=1), atol=1e-9 * scale, rtol=0)


@given(st.data(), st.booleans(), strategies.threads)
def test_terms_of_each_row(data, center, threads):
    n = data.draw(st.integers(5, 40))
    a = data.draw(
        strategies.matrices(families=("gaussian", "clustered"), shape=(n, data.draw(st.integers(2, 24))))
    )
    b = data.draw(strategies.matrices(families=("gaussian", "duplicates"), shape=(n, 7)))
    expected, room = reference.global_similarity(a, b, center=center)
    if expected is None or room > 1e-9:
        return
    terms = similarity_terms(a, b, center=center, threads=threads)
    assert terms.value == global_similarity(a, b, center=center)
    check_terms(terms, a, b, center, rtol=1e-6)


@pytest.mark.parametrize("center", [False, True])
def test_terms_of_many_strips_and_zero_rows(center):
    # 1,300 and 400 columns are four strips and two, in more than one square of three by three.
    a, b = related(60, 1300, 400, shared=0.1)
    a[5], b[17] = 0, 0
    check_terms(similarity_terms(a, b, center=center), a, b, center, rtol=1e-12)


@pytest.mark.parametrize("center", [False, True])
def test_terms_of_many_rows_are_in_float32_and_of_any_number_of_threads(center):
    a, b = related(4200, 6, 9, shared=0.5)
    terms = [similarity_terms(a, b, center=center, threads=threads) for threads in (1, 2, 7)]
    check_terms(terms[0], a, b, center, rtol=1e-5)
    for other in terms[1:]:
        assert other.value == terms[0].value and other.total == terms[0].total
        for found, first in zip(other.sums + other.along, terms[0].sums + terms[0].along, strict=True):
            assert found.tobytes() == first.tobytes()
