"""Agreement of neighbor lists and weights against sets and dictionaries; correlations against NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom._common.native import core
from embgeom.errors import InputError
from embgeom.geometry import agreement
from embgeom.geometry.agreement import neighbor_overlap, pearson, spearman, weight_cosine
from tests.oracles import relabeling


def slow_overlap(indices_a, indices_b):
    shares = []
    for row_a, row_b in zip(indices_a.tolist(), indices_b.tolist(), strict=True):
        shares.append(len(set(row_a) & set(row_b) - {-1}) / len(row_a))
    return shares


def slow_weight_cosine(indices_a, weights_a, indices_b, weights_b):
    cosines = []
    for neighbors_a, row_a, neighbors_b, row_b in zip(
        *(array.tolist() for array in (indices_a, weights_a, indices_b, weights_b)), strict=True
    ):
        a = dict(zip(neighbors_a, row_a, strict=True))
        b = dict(zip(neighbors_b, row_b, strict=True))
        dot = math.fsum(weight * b.get(neighbor, 0.0) for neighbor, weight in a.items() if neighbor >= 0)
        norm = math.sqrt(math.fsum(w * w for w in row_a) * math.fsum(w * w for w in row_b))
        cosines.append(dot / norm if norm > 0.0 else math.nan)
    return cosines


def slow_ranks(values):
    """The mean place of a value among the sorted ones: how many are smaller, and half of its equals."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


@st.composite
def neighbor_lists(draw, shape):
    """Row numbers without repetition in a row, ended by -1 where there are no more, in any integer type."""
    n, k = shape
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few row numbers make many neighbors common; more than int32 can multiply by n must work, too.
    span = draw(st.sampled_from([k, k + 2, 3 * k, 2**31 - 2]))
    lists = np.array([rng.choice(span, k, replace=False) if span < 10**6 else rng.integers(0, span, k)
                      for _ in range(n)]).reshape(n, k)  # fmt: skip
    for row in lists:
        row[k - int(rng.integers(0, k + 1)) * draw(st.integers(0, 1)) :] = -1
    return lists.astype(draw(st.sampled_from([np.int32, np.int64])))


shapes = st.tuples(st.integers(1, 12), st.integers(1, 7))


@given(st.data(), shapes)
def test_overlap(data, shape):
    a, b = data.draw(neighbor_lists(shape)), data.draw(neighbor_lists(shape))
    found = neighbor_overlap(a, b)
    assert found.dtype == np.float64
    assert found.tolist() == slow_overlap(a, b)
    # The share is of k on both sides, so it does not matter which model comes first.
    assert found.tolist() == neighbor_overlap(b, a).tolist()


@given(st.data(), shapes, st.sampled_from([np.float32, np.float64]))
def test_weight_cosine(data, shape, dtype):
    a, b = data.draw(neighbor_lists(shape)), data.draw(neighbor_lists(shape))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    weights = []
    for indices in (a, b):
        # As `lle` has it, a token that lacks a neighbor has no weights at all.
        w = rng.standard_normal(shape).astype(dtype)
        w[(indices < 0).any(axis=1)] = np.nan
        w[rng.random(shape[0]) < 0.1] = 0.0
        weights.append(w)
    w_a, w_b = weights
    found = weight_cosine(a, w_a, b, w_b)
    np.testing.assert_allclose(found, slow_weight_cosine(a, w_a, b, w_b), rtol=1e-13, atol=1e-15)
    assert (np.isnan(found) | (np.abs(found) <= 1.0)).all()


@given(st.data(), shapes)
def test_pieces_change_nothing(data, shape):
    a, b = data.draw(neighbor_lists(shape)), data.draw(neighbor_lists(shape))
    whole = neighbor_overlap(a, b)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_ENTRIES_PER_PIECE", 3)
        assert neighbor_overlap(a, b).tolist() == whole.tolist()


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_equal_weights_have_a_cosine_of_one_and_no_more(k, seed):
    rng = np.random.default_rng(seed)
    indices = np.array([rng.permutation(20)[:k] for _ in range(30)])
    weights = rng.standard_normal((30, k))
    cosine = weight_cosine(indices, weights, indices[:, ::-1], weights[:, ::-1])
    assert (cosine <= 1.0).all() and (cosine > 1.0 - 1e-12).all()


def test_by_hand():
    indices = np.array([[1, 2], [0, 2], [-1, -1]], dtype=np.int32)
    others = np.array([[2, 1], [2, 3], [-1, -1]], dtype=np.int32)
    assert neighbor_overlap(indices, others).tolist() == [1.0, 0.5, 0.0]
    weights = np.array([[0.6, 0.8], [0.6, 0.8], [np.nan, np.nan]])
    cosine = weight_cosine(indices, weights, others, weights)
    assert cosine[:2] == pytest.approx([0.96, 0.48])
    assert np.isnan(cosine[2])


def test_no_tokens():
    nothing = np.empty((0, 3), dtype=np.int32)
    assert neighbor_overlap(nothing, nothing).shape == (0,)
    assert weight_cosine(nothing, nothing.astype(float), nothing, nothing.astype(float)).shape == (0,)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (4,), (4, 0)])
def test_shapes_that_differ(shape):
    a, b = (np.broadcast_to(np.arange(s[-1]), s) for s in ((4, 4), shape))
    with pytest.raises(InputError, match=r"of one shape, not \(4, 4\) and"):
        neighbor_overlap(a, b)
    with pytest.raises(InputError, match="of one shape"):
        weight_cosine(a, a.astype(float), a, b.astype(float))
    with pytest.raises(InputError, match="of one shape"):
        weight_cosine(a, b.astype(float), a, a.astype(float))


def test_lists_of_no_neighbors():
    with pytest.raises(InputError, match=r"\(4, 0\)"):
        neighbor_overlap(np.zeros((4, 0), dtype=int), np.zeros((4, 0), dtype=int))


pairs = st.integers(2, 30).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(-3, 3), min_size=n, max_size=n)] * 2)
)


@given(pairs)
def test_correlations_of_ties(pair):
    for correlation, values in ((pearson, pair), (spearman, [slow_ranks(v) for v in pair])):
        found = correlation(*pair)
        if any(len(set(v)) == 1 for v in values):
            assert math.isnan(found)
        else:
            assert found == pytest.approx(np.corrcoef(*values)[0, 1], abs=1e-12)
            assert -1.0 <= found <= 1.0


@given(st.floats(-1e6, 1e6), st.integers(2, 40))
def test_a_constant_correlates_with_nothing(value, n):
    # The mean of equal numbers may differ from them in the last bit, which is no variance.
    for correlation in (pearson, spearman):
        assert math.isnan(correlation([value] * n, range(n)))
        assert math.isnan(correlation(range(n), [value] * n))


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_correlations_at_the_edges(correlation):
    assert math.isnan(correlation([1.0], [2.0])) and math.isnan(correlation([], []))
    assert correlation([1, 2], [5, 9]) == pytest.approx(1.0)
    assert correlation([1, 2], [9, 5]) == pytest.approx(-1.0)
    assert math.isnan(correlation([1.0, np.nan, 3.0], [1.0, 2.0, 4.0]))


@pytest.mark.parametrize("correlation", [pearson, spearman])
@pytest.mark.parametrize("b", [[1.0, 2.0], [[1.0, 2.0, 3.0]], 3.0])
def test_correlations_of_other_shapes(correlation, b):
    with pytest.raises(InputError, match=r"one length.*\(3,\)"):
        correlation([1.0, 2.0, 3.0], b)


def test_ranks_see_order_alone():
    x = np.random.default_rng(0).standard_normal(50)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert pearson(x, np.exp(x)) < 0.95


@pytest.mark.parametrize("k", [1, 47, 48, 49, 130])
def test_long_lists(k):
    rng = np.random.default_rng(k)
    a, b = (np.array([rng.choice(2 * k, k, replace=False) for _ in range(7)]) for _ in range(2))
    a[2, k // 2 :] = b[3, k // 3 :] = -1
    assert neighbor_overlap(a, b).tolist() == slow_overlap(a, b)


@given(st.data(), st.one_of(st.integers(3, 9), st.integers(16, 40)), st.booleans())
def test_relabeled_agreement(data, n, with_values):
    k = data.draw(st.integers(1, n - 1))  # long lists are looked up, short ones compared
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    lists = []
    for _ in range(2):
        lists.append(np.array([np.delete(rng.permutation(n), 0)[:k] for _ in range(n)], dtype=np.int32))
        lists[-1][rng.random((n, k)) < 0.2] = -1
        for i, row in enumerate(lists[-1]):
            row[row == i] = -1
    values = [rng.standard_normal((n, k)) for _ in range(2)] if with_values else [None, None]
    labels = np.array([rng.permutation(n) for _ in range(11)], dtype=np.int32)
    (a, b), (of_a, of_b) = lists, values
    found = [
        core.relabeled_agreement(a, of_a, b, of_b, labels, threads=threads, progress=None)
        for threads in (1, 2, 5)
    ]
    expected = relabeling.agreements(relabeling.matrix_of(a, of_a), relabeling.matrix_of(b, of_b), labels)
    np.testing.assert_allclose(found[0], expected, atol=1e-12)
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()


def test_relabeling_with_numbers_out_of_range():
    near, labels = np.array([[1], [0]], np.int32), np.array([[0, 1]], np.int32)
    for lists, wrong in ((near, labels + 1), (near + 1, labels), (near - 2, labels)):
        with pytest.raises(InputError, match="is not one of the 2 tokens"):
            core.relabeled_agreement(lists, None, lists, None, wrong, threads=1, progress=None)
