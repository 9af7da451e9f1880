"""LLE against the oracle: weights where the system determines them, residuals and status everywhere."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom import knn, lle
from embgeom.errors import InputError
from embgeom.geometry.lle import LLEStatus
from tests.helpers import real_data
from tests.oracles import reference, strategies
from tests.oracles import tolerances as tol

REGS = (1e-3, 1e-1, 1e-6, 0.0)


def gaussian(n=50, d=16, seed=3):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def bits(result):
    return result.weights.tobytes(), result.residuals.tobytes(), result.status.tobytes()


def check(x, neighbors, *, lists=None, rows=None, **options):
    """Compare one call with the oracle, which takes plain lists."""
    result = lle(x, neighbors, rows=rows, **options)
    lists = neighbors if lists is None else lists
    expected = reference.lle(x, lists, rows=rows, reg=options.get("reg", 1e-3))
    assert len(expected) == len(result.weights)
    reference.assert_same_weights(result, expected)
    return result


@given(
    strategies.matrices(min_rows=2, tiles=False), st.integers(1, 9), st.sampled_from(REGS), strategies.threads
)
def test_nearest_neighbors(x, k, reg, threads):
    neighbors = knn(x, min(k, len(x) - 1), metric="euclidean")
    check(x, neighbors, lists=neighbors.indices, reg=reg, threads=threads)


@given(strategies.matrices(tiles=False), st.integers(1, 9), st.sampled_from(REGS), strategies.seeds)
def test_any_lists(x, k, reg, seed):
    # Lists need not be nearest neighbors: they may repeat a row, hold the token itself, or have gaps.
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(0, len(x), (len(x), k))
    neighbors[rng.random(neighbors.shape) < 0.02] = -1
    check(x, neighbors, reg=reg)


@given(strategies.matrices(families=("integers",), tiles=False), st.integers(2, 6), strategies.seeds)
def test_status_of_integers(x, k, seed):
    # Small integers decide in exact arithmetic whether a Gram matrix is singular; the kernel has float64.
    neighbors = np.random.default_rng(seed).integers(0, len(x), (len(x), k))
    for reg in (1e-3, 0.0):
        check(x, neighbors, reg=reg)


@pytest.mark.parametrize("k", [1, 2, 16, 17, 64, 65, 130])
def test_longer_lists(k):
    x = gaussian(200, 64)
    neighbors = knn(x, k, rows=np.arange(40))
    result = check(x, neighbors, lists=neighbors.indices)
    assert (result.status == (LLEStatus.OK if k <= 64 else LLEStatus.RANK_DEFICIENT)).all()


@pytest.mark.parametrize("k", [*range(1, 15), 25, 49, 82, 96, 97, 199, 200, 201, 202])
@pytest.mark.parametrize("d", [1, 3, 100, 271])
def test_small_and_large_systems(k, d):
    # Blocks of three and four rows with a rest, vectors with a rest, pieces with a rest; both sides of the
    # order at which BLAS and LAPACK take over.
    x = gaussian(240, d)
    neighbors = np.array([np.random.default_rng(row).permutation(239)[:k] for row in range(6)])
    neighbors += neighbors >= np.arange(6)[:, None]
    expected = reference.lle(x, neighbors, rows=np.arange(6))
    results = [lle(x, neighbors, rows=np.arange(6), threads=threads) for threads in (1, 2, 7)]
    reference.assert_same_weights(results[0], expected)
    assert bits(results[0]) == bits(results[1]) == bits(results[2])


def in_the_span_of_the_others(k, gap):
    """Rows of which the last is the sum of two others but for `gap`; lists that end or begin with it."""
    rng = np.random.default_rng(k)
    x = np.zeros((k + 1, 256), np.float32)
    x[1:k, :k] = rng.integers(-4, 5, (k - 1, k))
    x[k] = x[1] + x[2]
    x[k, 255] = gap
    return x, np.array([np.arange(1, k + 1), np.arange(k, 0, -1)])


@pytest.mark.parametrize("k", [4, 11])
@pytest.mark.parametrize("gap", [1e-1, 1e-3, 1e-6, 1e-8, 1e-9, 0.0])
@pytest.mark.parametrize("reg", [1e-3, 0.0])
def test_near_rank_deficiency(k, gap, reg):
    x, lists = in_the_span_of_the_others(k, gap)
    check(x, lists, rows=[0, 0], reg=reg)


@pytest.mark.parametrize("k", [40, 95, 200, 201, 250])
@pytest.mark.parametrize(("gap", "status"), [(0.1, LLEStatus.OK), (0.0, LLEStatus.RANK_DEFICIENT)])
def test_rank_of_larger_systems(k, gap, status):
    # The oracle's exact elimination would take minutes here; these are far from the tolerance.
    x, lists = in_the_span_of_the_others(k, gap)
    assert lle(x, lists, rows=[0, 0]).status.tolist() == [status, status]


@pytest.mark.parametrize("k", [5, 60, 201])
@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1e20, 1e37])
def test_extreme_scales(k, scale):
    # A product of k pivots is far outside the range of float64, the pivots themselves are not.
    x = gaussian(k + 1, 2 * k) * np.float32(scale)
    result = check(x, [np.arange(1, k + 1)], rows=[0])
    assert result.status.tolist() == [LLEStatus.OK]


@pytest.mark.parametrize("k", [6, 64, 65, 90])
def test_equal_rows_in_short_and_long_lists(k):
    x = gaussian(k + 3, 128)
    x[k + 1] = x[2]
    x[k + 2] = x[0]
    plain = np.arange(1, k + 1)
    lists = np.array([plain, plain, plain, plain])
    lists[1, -1] = 1  # the same row twice
    lists[2, -1] = k + 1  # equal to row 2
    lists[3, -1] = k + 2  # equal to the token
    result = lle(x, lists, rows=[0] * 4)
    assert result.status.tolist() == [LLEStatus.OK] + 3 * [LLEStatus.DUPLICATE]
    if k == 6:  # The oracle eliminates in rational numbers: too slow for long lists.
        check(x, lists, rows=[0] * 4)


def test_shapes_and_types():
    x = gaussian()
    result = lle(x, knn(x, 5))
    assert result.weights.shape == (50, 5) and result.weights.dtype == np.float32
    assert result.residuals.shape == (50,) and result.residuals.dtype == np.float32
    assert result.status.shape == (50,) and result.status.dtype == np.uint8
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.weights = None


def test_numbers_of_the_statuses():
    # Scripts store these numbers.
    assert [(s.name, int(s)) for s in LLEStatus] == [
        ("OK", 0), ("DUPLICATE", 1), ("RANK_DEFICIENT", 2),
        ("COINCIDENT", 3), ("NO_NEIGHBORS", 4), ("SINGULAR", 5),
    ]  # fmt: skip


def test_every_status():
    x = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [2, 0, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    lists = [[1, 2], [1, 3], [1, 4], [5, 6], [1, -1], [1, 5], [2, 2]]
    result = lle(x, lists, rows=[0] * len(lists))
    assert result.status.tolist() == [
        LLEStatus.OK,
        LLEStatus.DUPLICATE,  # 1 and 3 are equal
        LLEStatus.RANK_DEFICIENT,  # 0, 1 and 4 lie on a line
        LLEStatus.COINCIDENT,
        LLEStatus.NO_NEIGHBORS,
        LLEStatus.DUPLICATE,  # 5 equals the token
        LLEStatus.DUPLICATE,  # 2 twice
    ]
    assert result.weights[3].tolist() == [0.5, 0.5] and result.residuals[3] == 0
    assert np.isnan(result.weights[4]).all() and np.isnan(result.residuals[4])
    exact = lle(x, lists, rows=[0] * len(lists), reg=0)
    assert exact.status.tolist() == [0, 5, 5, 3, 4, 5, 5]
    np.testing.assert_array_equal(np.isnan(exact.residuals), exact.status >= LLEStatus.NO_NEIGHBORS)


def test_a_line_is_reconstructed():
    # Token 0 is one quarter of the way from row 1 to row 2, and a third row is off the line.
    x = np.array([[1, 1, 0], [0, 0, 0], [4, 4, 0], [1, 1, 5]], np.float32)
    result = lle(x, [[1, 2, 3]], rows=[0], reg=1e-9)
    np.testing.assert_allclose(result.weights[0], [0.75, 0.25, 0], atol=1e-6)
    assert result.residuals[0] < 1e-6


def test_a_residual_keeps_its_digits_where_terms_cancel():
    # x - y is 1 and -3, so w is (12 + r, 4 + r) / (16 + 2 r) with r = 10 reg: far less than the root of what
    # rounding leaves of w' G w.
    x = np.array([[1], [0], [4]], np.float32)
    result = lle(x, [[1, 2]], rows=[0], reg=1e-8)
    np.testing.assert_allclose(result.residuals, 2e-7 / (16 + 2e-7), rtol=1e-4)


@given(strategies.matrices(min_rows=3, tiles=False), strategies.threads)
def test_bits_do_not_depend_on_threads(x, threads):
    neighbors = knn(x, min(6, len(x) - 1), metric="euclidean")
    assert bits(lle(x, neighbors, threads=threads)) == bits(lle(x, neighbors, threads=1))


@given(
    strategies.matrices(families=("gaussian", "clustered", "duplicates"), min_rows=3, plain=True, tiles=False)
)
def test_powers_of_two_change_residuals_alone(x):
    # Weights are free of scale, and a power of two scales without rounding.
    neighbors = knn(x, min(5, len(x) - 1), metric="euclidean")
    one, other = lle(x, neighbors), lle(x * np.float32(2.0**20), neighbors)
    np.testing.assert_array_equal(one.weights, other.weights)
    np.testing.assert_array_equal(one.residuals * np.float32(2.0**20), other.residuals)


def test_lists_of_selected_rows():
    x = gaussian()
    rows = np.array([7, 3, 49, 3])
    whole = lle(x, knn(x, 6))
    neighbors = knn(x, 6, rows=rows)
    for part in (
        lle(x, neighbors),
        lle(x, neighbors.indices, rows=rows),
        lle(x, neighbors.indices, rows=list(rows)),
    ):
        np.testing.assert_array_equal(part.weights, whole.weights[rows])
        np.testing.assert_array_equal(part.residuals, whole.residuals[rows])


@pytest.mark.parametrize("type_", [np.int8, np.uint8, np.int32, np.int64, np.uint64, ">i4"])
def test_integer_types_and_layouts(type_):
    x = gaussian()
    indices = knn(x, 6).indices
    expected = bits(lle(x, indices))
    assert bits(lle(x, indices.astype(type_))) == expected
    assert bits(lle(x, indices.tolist())) == expected
    for layout in strategies.LAYOUTS:
        odd = strategies.lay_out(x, layout)
        assert bits(lle(odd, strategies.lay_out(indices, layout).astype(type_, order="K"))) == expected


def test_without_neighbors():
    x = gaussian(6, 4)
    x[[1, 4]] = 0
    neighbors = knn(x, 3)
    result = lle(x, neighbors)
    assert result.status.tolist() == [0, 4, 0, 0, 4, 0]
    assert np.isnan(result.weights[[1, 4]]).all()
    # With k = 4 every list ends in -1, as only three others have a direction.
    assert (lle(x, knn(x, 4)).status == LLEStatus.NO_NEIGHBORS).all()


@pytest.mark.parametrize(("change", "options", "message"), [
    ({"place": (7, 2), "value": 50}, {}, r"(?s)\b7\b.*\b50\b|\b50\b.*\b7\b"),
    ({"place": (9, 0), "value": -2}, {}, r"(?s)\b9\b.*-2\b|-2\b.*\b9\b"),
    ({"place": (9, 0), "value": 2**40}, {}, str(2**40)),
    ({"shape": np.s_[:49]}, {}, None),
    ({"shape": np.s_[:, 0]}, {}, None),
    ({"shape": np.s_[:, :0]}, {}, None),
    ({"type": np.float64}, {}, "float64"),
    ({"type": bool}, {}, "bool"),
    ({}, {"reg": -1e-3}, "-0.001"),
    ({}, {"reg": np.nan}, "nan"),
    ({}, {"reg": np.inf}, "inf"),
    ({}, {"threads": 0}, "0"),
    ({}, {"rows": [1, 2]}, None),
    ({"shape": np.s_[:2]}, {"rows": [1, 50]}, "50"),
    ({"shape": np.s_[:2]}, {"rows": [-1, 4]}, "-1"),
    ({"shape": np.s_[:2]}, {"rows": [1.0, 4.0]}, None),
])  # fmt: skip
def test_errors_carry_the_value(change, options, message):
    x = gaussian()
    indices = knn(x, 6).indices.astype(change.get("type", np.int64))
    if "place" in change:
        indices[change["place"]] = change["value"]
    with pytest.raises(InputError, match=message):
        lle(x, indices[change.get("shape", np.s_[:])], **options)


def test_errors_of_the_matrix():
    x = gaussian()
    neighbors = knn(x, 3)
    x[13, 1] = np.nan
    with pytest.raises(InputError, match=r"\b13\b"):
        lle(x, neighbors)
    with pytest.raises(InputError):
        lle(x[0], neighbors)
    with pytest.raises(InputError):
        lle(x[:40], neighbors)


@pytest.mark.model
@pytest.mark.parametrize("model", real_data.MODELS)
@pytest.mark.parametrize("k", [10, 30])
def test_real_vocabularies(model, k):
    x = real_data.embeddings(model)
    neighbors = knn(x, k)
    check(x, neighbors, lists=neighbors.indices)


@pytest.mark.model
@pytest.mark.parametrize("model", real_data.FOREIGN)
def test_other_libraries(model):
    # scikit-learn solved the same systems in float64 and rounded its weights to float32, as we do.
    x, peers = real_data.embeddings(model), real_data.peers(model)
    neighbors, theirs = peers["l2_idx"][:, :10], peers["lle_w_k10"].astype(np.float64)
    result = check(x, neighbors)
    wide = x.astype(np.float64)
    for row, true in enumerate(reference.lle(x, neighbors)):
        room = tol.rounded(theirs[row])
        assert true.condition <= 1001  # as reg = 1e-3 sees to
        error = np.abs(result.weights[row] - theirs[row])
        assert (error <= room + tol.weight_atol(theirs[row], true.condition)).all(), f"row {row}"
        # Their weights are rounded: that moves their residual by half an ulp of each weight times its row.
        residual = np.linalg.norm(wide[row] - theirs[row] @ wide[neighbors[row]])
        lengths = np.linalg.norm(wide[neighbors[row]], axis=1)
        assert abs(result.residuals[row] - residual) <= room @ lengths + tol.rounded(residual), f"row {row}"
