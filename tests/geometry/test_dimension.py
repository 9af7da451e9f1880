"""Intrinsic dimension against singular values in float64: the same integers, but for a stated margin."""

import dataclasses
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom import intrinsic_dimension, knn
from embgeom._common.native import core
from embgeom.errors import InputError
from tests.helpers import real_data
from tests.oracles import reference, strategies

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"


def gaussian(n=60, d=8, seed=3):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def decaying(n, d, seed):
    """Return points whose variances fall off slowly, as those of embeddings do, around a common offset."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) / np.arange(1, d + 1) ** 0.6 + 0.1 * rng.standard_normal(d)).astype(
        "f4"
    )


def bits(result):
    return (
        result.n_components.tobytes(),
        result.participation_ratio.tobytes(),
        result.explained_variance_ratio.tobytes(),
    )


def check(x, neighbors, lists, variance, **options):
    result = intrinsic_dimension(x, neighbors, variance=variance, **options)
    assert len(result.n_components) == len(lists)
    assert result.max_rank == min(lists.shape[1] - 1, x.shape[1])
    assert result.n_components.max(initial=-1) <= result.max_rank
    reference.assert_same_dimension(result, reference.intrinsic_dimension(x, lists), variance)
    return result


variances = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 1.0]) | st.floats(1e-3, 1)


@given(strategies.matrices(min_rows=2), st.integers(1, 60), variances, strategies.threads)
def test_nearest_neighbors(x, k, variance, threads):
    rows = np.arange(0, len(x), max(1, len(x) // 40))
    neighbors = knn(x, min(k, len(x) - 1), rows=rows)
    check(x, neighbors, neighbors.indices, variance, threads=threads)


@given(strategies.matrices(tiles=False), st.integers(1, 60), variances, strategies.seeds)
def test_any_lists(x, k, variance, seed):
    # Longer and shorter than d, with repeated rows, the token itself, and gaps.
    rng = np.random.default_rng(seed)
    neighbors = rng.integers(0, len(x), (len(x), k))
    neighbors[rng.random(neighbors.shape) < 0.003] = -1
    check(x, neighbors, neighbors, variance)


SHAPES = {
    # name: (n, d, k, rows by default); the thorough profile takes 2,000 rows of each.
    "tinystories-656k k=1200": (2048, 128, 1200, 500),
    "tinystories-656k k=50": (2048, 128, 50, 700),
    "example:small k=409": (4096, 128, 409, 200),
    "1500 x 64 k=1200": (1500, 64, 1200, 300),
    "3000 x 256 k=300": (3000, 256, 300, 300),
    "4000 x 768 k=1200": (4000, 768, 1200, 200),
}


@pytest.mark.model
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "768" in name else []) for name in SHAPES]
)
def test_integers_of_2000_rows(name):
    n, d, k, count = SHAPES[name]
    model = name.split()[0]
    x = real_data.embeddings(model) if model in real_data.MODELS else decaying(n, d, seed=n)
    assert x.shape == (n, d)
    count = min(n, 2000 if THOROUGH else count)
    rows = np.random.default_rng(1).choice(n, size=count, replace=False)
    neighbors = knn(x, k, rows=rows)
    result = check(x, neighbors, neighbors.indices, 0.95)
    assert bits(intrinsic_dimension(x, k=k, rows=rows)) == bits(result)


KINDS = {
    "flat": lambda rng, k, d: rng.standard_normal((k, d)),
    "decaying by axis": lambda rng, k, d: rng.standard_normal((k, d)) / np.arange(1, d + 1) ** 2,
    "heavy tails": lambda rng, k, d: rng.standard_t(1.5, (k, d)),
    "one far point": lambda rng, k, d: (
        rng.standard_normal((k, d)) * np.where(np.arange(k) == 3, 1e3, 1)[:, None]
    ),
    "one direction": lambda rng, k, d: rng.standard_normal((k, d)) + 30 * rng.standard_normal((k, 1)),
    "rank 9": lambda rng, k, d: rng.standard_normal((k, 9)) @ rng.standard_normal((9, d)),
    "zeros and ones": lambda rng, k, d: (rng.random((k, d)) < 0.3) * 1.0,
    "duplicates": lambda rng, k, d: rng.standard_normal((k, d))[rng.integers(0, 1 + k // 3, k)],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(300, 40), (40, 300), (130, 130), (600, 200), (9, 700), (700, 9)])
def test_integers_of_many_kinds(kind, k, d):
    rng = np.random.default_rng(k + d)
    x = np.concatenate([KINDS[kind](rng, k, d) for _ in range(3)]).astype(np.float32)
    lists = np.arange(3 * k).reshape(3, k)
    expected = reference.intrinsic_dimension(x, lists)
    for variance in (0.3, 0.95, 0.999, 1.0):
        result = intrinsic_dimension(x, lists, rows=np.arange(3), variance=variance)
        reference.assert_same_dimension(result, expected, variance)


SPECTRA = {
    "flat": np.ones_like,
    "i^-0.4": lambda i: i**-0.4,
    "i^-1": lambda i: i**-1.0,
    "i^-2": lambda i: i**-2.0,
    "exp(-i / 30)": lambda i: np.exp(-i / 30),
}
SIZES = {
    # (d, k): (tokens, tokens compared with the oracle)
    (64, 50): (200, 200),
    (64, 1200): (100, 100),
    (300, 200): (100, 100),
    (768, 100): (100, 100),
    (768, 1200): (40, 12),
    (1536, 1200): (40, 6),
    (2048, 500): (60, 20),
    (2048, 2000): (30, 3),
    (5376, 200): (60, 20),
    (5376, 1200): (40, 3),
}


def shares_and_bounds(x):
    """Return, for c below p, the shares of float32, their bounds, and the shares of float64."""
    shares, bounds = core.float32_shares(x, list(range(len(x))))
    true = reference.intrinsic_dimension(x, np.arange(len(x))[None])[0].shares
    known = min(len(true), len(shares) - 1)
    return shares[:known], bounds[:known], true[:known]


def test_shares_of_float32_err_within_their_bounds():
    # All shares are compared, so that a bound ten times too small fails, and one far too large does, too.
    uses = {}
    for k, d in [(50, 64), (300, 40), (200, 300), (600, 300), (300, 500), (9, 700), (130, 130)]:
        for kind in (*KINDS, *SPECTRA):
            rng = np.random.default_rng(k + d)
            if kind in KINDS:
                x = KINDS[kind](rng, k, d)
            else:
                x = rng.standard_normal((k, d)) * SPECTRA[kind](np.arange(1.0, d + 1))
            shares, bounds, true = shares_and_bounds(x.astype(np.float32))
            uses[kind, k, d] = float(np.max(np.abs(shares - true) / bounds, initial=0))
    worst = max(uses, key=uses.get)
    assert 0.05 < uses[worst] < 0.5, (worst, uses[worst])


@pytest.mark.parametrize("place", [0, 150, 299])
def test_the_place_of_a_large_variance_costs_no_accuracy(place):
    # A large diagonal element that is reduced last would take part in the roundings of all steps.
    x = np.random.default_rng(1).standard_normal((700, 300)).astype(np.float32)
    x[:, place] *= 1000
    shares, bounds, true = shares_and_bounds(x)
    assert np.max(np.abs(shares - true) / bounds) < 0.2


@pytest.mark.parametrize("seed", range(5, 9))
def test_a_row_that_dominates_is_counted_exactly(seed):
    x = np.random.default_rng(seed).standard_normal((700, 768))
    x[64] *= 8000
    x = x.astype(np.float32)
    expected = reference.intrinsic_dimension(x, np.arange(700)[None])
    for away in (-6e-5, -1e-5, -3e-6, 7e-7, 4e-6, 8e-6):
        variance = min(float(expected[0].shares[0] + away), 1.0)
        result = intrinsic_dimension(x, [np.arange(700)], rows=[0], variance=variance)
        reference.assert_same_dimension(result, expected, variance)


def test_probes_differ_between_neighborhoods_and_not_between_calls():
    # Rows 30 to 59 equal rows 0 to 29: only the row numbers, and so the signs, differ.
    x = np.concatenate([gaussian(30, 50)] * 2)
    one, other, again = (core.float32_shares(x, list(range(begin, begin + 30))) for begin in (0, 30, 0))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[0], other[0])
    assert (one[1][:-1] != other[1][:-1]).all()


@pytest.mark.parametrize(
    "order", [2, 3, 4, 5, 15, 16, 17, 31, 32, 33, 35, 48, 63, 64, 65, 97, 160, 161, 193, 259]
)
def test_orders_around_the_blocks_of_the_reduction(order):
    # Panels of 4 rows and 16 columns, blocks of 32 rows.
    for k, d in [(order, order + 3), (2 * order + 1, order)]:
        x = decaying(k + 40, d, seed=order)
        lists = np.argsort(np.random.default_rng(1).random((4, len(x))), axis=1)[:, :k]
        for variance in (0.5, 0.95):
            result = intrinsic_dimension(x, lists, rows=np.arange(4), variance=variance)
            reference.assert_same_dimension(result, reference.intrinsic_dimension(x, lists), variance)


@pytest.mark.parametrize("order", [20, 70, 200])
def test_a_matrix_that_needs_no_reduction(order):
    # Columns that do not correlate: every row of the Gram matrix is its own reflection.
    x = np.concatenate([np.diag(np.arange(1.0, order + 1)), -np.diag(np.arange(1.0, order + 1))]).astype("f4")
    lists = np.arange(2 * order)[None]
    result = intrinsic_dimension(x, lists, rows=[0], variance=0.8)
    reference.assert_same_dimension(result, reference.intrinsic_dimension(x, lists), 0.8)


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(
    ("d", "k"), [pytest.param(*size, marks=[pytest.mark.slow] * (size[0] * size[1] > 1e5)) for size in SIZES]
)
def test_float32_decides(spectrum, d, k):
    # Shares lie anywhere. Exact ties with the threshold, which only float64 can settle, are tested below.
    tokens, compared = SIZES[d, k]
    rng = np.random.default_rng(d + k)
    centers = rng.standard_normal((8, d)) * SPECTRA[spectrum](np.arange(1.0, d + 1))
    x = rng.standard_normal((2 * k, d)) * SPECTRA[spectrum](np.arange(1.0, d + 1))
    x = (x + centers[rng.integers(0, 8, 2 * k)]).astype(np.float32)
    lists = np.array([rng.choice(2 * k, k, replace=False) for _ in range(tokens)])
    rows = np.arange(tokens) % (2 * k)
    expected = reference.intrinsic_dimension(x, lists[:compared])
    for variance in (0.5, 0.95, 0.99):
        part = slice(None) if variance == 0.95 else slice(compared)
        result = intrinsic_dimension(x, lists[part], rows=rows[part], variance=variance)
        assert variance != 0.95 or result.decided_in_float64.mean() < 0.15
        reference.assert_same_dimension(result, expected, variance)


@pytest.mark.parametrize(
    ("model", "k"),
    [
        ("example:small", 50),
        ("example:small", 300),
        ("example:large", 100),
        pytest.param("example:large", 1200, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("variance", [0.5, 0.95, 0.99])
def test_float32_decides_for_real_rows(model, k, variance):
    x = real_data.embeddings(model)
    rows = np.random.default_rng(k).choice(len(x), 150, replace=False)
    neighbors = knn(x, k, rows=rows)
    result = check(x, neighbors, neighbors.indices, variance)
    assert result.decided_in_float64.mean() < 0.15


@pytest.mark.parametrize(("d", "k"), [(40, 100), (200, 100), (200, 190)])
def test_float64_decides_what_float32_cannot(d, k):
    rng = np.random.default_rng(d)
    x = rng.standard_normal((300, d)).astype(np.float32)
    lists = np.array([rng.choice(300, k, replace=False) for _ in range(5)])
    # No share exceeds 1, and k equal shares reach exactly half at the middle.
    assert intrinsic_dimension(x, lists, rows=range(5), variance=1.0).decided_in_float64.all()
    tied = np.concatenate([np.eye(d), -np.eye(d)]).astype(np.float32)
    result = intrinsic_dimension(tied, np.arange(2 * d)[None], rows=[0], variance=0.5)
    assert result.decided_in_float64.all() and result.n_components[0] == d // 2
    # Tokens whose answer needs no arithmetic are not decided by it.
    x[:] = 1
    assert not intrinsic_dimension(x, lists, rows=range(5)).decided_in_float64.any()


@pytest.mark.parametrize("variance", [0.999, 0.99999, 0.999995])
@pytest.mark.parametrize("power", [1, 2, 4])
@pytest.mark.parametrize(("d", "k"), [(100, 250), (400, 250)])
def test_shares_among_roundings(d, k, power, variance):
    # The last eigenvalues that count are no larger than float32 roundings of the first.
    rng = np.random.default_rng(power)
    x = rng.standard_normal((k, d)) / np.arange(1.0, d + 1) ** power
    x = (x @ np.linalg.qr(rng.standard_normal((d, d)))[0]).astype(np.float32)
    lists = np.array([rng.choice(k, k - 20, replace=False) for _ in range(8)])
    check(x, lists, lists, variance, rows=range(8))


@pytest.mark.parametrize("seed", [89, 242, 757, 1001, 1236])
def test_roundings_that_all_point_one_way(seed):
    # All neighbors but two are equal: a float32 sum adds the same small term to a large one again and again.
    rng = np.random.default_rng(seed)
    d, k = int(rng.choice([8, 16, 32])), 256
    far = rng.choice([-1, 1], d) * rng.uniform(0.9, 1, d)
    other = rng.standard_normal(d)
    other -= other @ far / (far @ far) * far
    length = np.linalg.norm(far) * np.sqrt(0.05 / 0.95) * (1 + rng.uniform(-1, 1) * 1e-4)
    x = np.zeros((k, d), np.float32)
    x[0], x[1] = far, other / np.linalg.norm(other) * length
    result = check(x, np.arange(k)[None], np.arange(k)[None], 0.95, rows=[0])
    assert result.explained_variance_ratio[0] <= 1


def hadamard(n):
    """Return a matrix of ones and minus ones with orthogonal rows; n is a power of two."""
    matrix = np.ones((1, 1), np.int64)
    while len(matrix) < n:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@pytest.mark.parametrize("width", [128, 256, 300])  # fewer columns than points, as many, more
@pytest.mark.parametrize("count", [1, 7, 60, 127])
def test_shares_beside_the_threshold(width, count):
    # Points +-a_i h_i along orthogonal h_i have the exact variances 2 n a_i^2 and a dense covariance. Float32
    # cannot tell on which side of the threshold such shares lie; float64 can.
    n = 128
    sizes = np.sort(np.random.default_rng(2).permutation(np.arange(100, 1000))[:n])[::-1]
    half = sizes[:, None] * hadamard(n)
    x = np.zeros((2 * n, width), np.float32)
    x[:, :n] = np.concatenate([half, -half])
    share = (sizes[:count] ** 2).sum() / (sizes**2).sum()
    for step in (0, 1e-11, 1e-9, 1e-7, 1e-5):
        for sign in (-1, 1):
            result = intrinsic_dimension(x, np.arange(2 * n)[None], rows=[0], variance=share + sign * step)
            assert result.n_components[0] == count + (step > 0 and sign > 0)


@pytest.mark.parametrize("scale", [1e-42, 1e-37, 1e-30, 1e-18, 1e18, 1e30, 1e38])
@pytest.mark.parametrize(("k", "d"), [(150, 30), (30, 150)])
def test_scales(scale, k, d):
    rng = np.random.default_rng(4)
    x = (scale * (rng.uniform(-1, 1, (k, d)) / np.arange(1, d + 1) ** 0.5 + 1)).astype(np.float32)
    lists = np.arange(k)[None]
    check(x, lists, lists, 0.95, rows=[0])


def test_a_power_of_two_changes_nothing():
    x = decaying(200, 50, seed=6)
    lists = np.arange(200)[None]
    results = [intrinsic_dimension(x * np.float32(2.0**power), lists, rows=[0]) for power in (-90, 0, 100)]
    assert len({bits(result) for result in results}) == 1


@pytest.mark.parametrize("k", [60, 400])
def test_bits_of_long_lists_do_not_depend_on_threads(k):
    x = decaying(500, 150, seed=7)
    neighbors = knn(x, k, rows=np.arange(40))
    one, two, seven = (bits(intrinsic_dimension(x, neighbors, threads=threads)) for threads in (1, 2, 7))
    assert one == two == seven


def test_shapes_and_types():
    x = gaussian()
    result = intrinsic_dimension(x, k=20)
    for array, type_ in (
        (result.n_components, np.int32),
        (result.participation_ratio, np.float32),
        (result.explained_variance_ratio, np.float32),
        (result.decided_in_float64, np.bool_),
    ):
        assert array.shape == (60,) and array.dtype == type_
    assert result.max_rank == 8
    assert intrinsic_dimension(x, k=5).max_rank == 4
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.max_rank = 3


def test_a_plane_has_two_dimensions():
    rng = np.random.default_rng(5)
    x = rng.integers(-50, 50, (300, 2)) @ rng.integers(-3, 4, (2, 12))
    result = intrinsic_dimension(x, knn(x, 40, metric="euclidean"), variance=1 - 1e-9)
    assert (result.n_components == 2).all()
    assert (result.explained_variance_ratio == 1).all()
    assert ((result.participation_ratio > 1) & (result.participation_ratio <= 2)).all()


def test_the_token_itself_is_not_in_its_neighborhood():
    # The neighbors vary along one axis alone; the token is far off along another.
    x = np.array([[0, 99], [1, 0], [2, 0], [4, 0]], np.float32)
    result = intrinsic_dimension(x, [[1, 2, 3]], rows=[0], variance=0.999)
    assert result.n_components.tolist() == [1] and result.participation_ratio.tolist() == [1]


def test_neighbors_that_coincide():
    x = np.ones((30, 4), np.float32) * np.float32(0.1)  # a mean of these in float32 would not be 0.1
    x[0] = [1, 2, 3, 4]
    result = intrinsic_dimension(x, k=20)
    assert result.n_components[0] == 0
    assert result.participation_ratio[0] == 0 and result.explained_variance_ratio[0] == 1
    one = intrinsic_dimension(x, k=1)
    assert one.max_rank == 0 and (one.n_components == 0).all() and (one.explained_variance_ratio == 1).all()


def test_rows_without_neighbors():
    x = gaussian(12)
    x[[2, 5]] = 0
    result = intrinsic_dimension(x, k=6)
    np.testing.assert_array_equal(np.flatnonzero(result.n_components == -1), [2, 5])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.explained_variance_ratio)), [2, 5])
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result.participation_ratio)), [2, 5])
    # A list with a gap is no list of k neighbors: with k = 10 only nine others have a direction.
    assert (intrinsic_dimension(x, k=10).n_components == -1).all()


def test_a_large_common_offset():
    # Means must be taken off before anything is squared: here they hold 14 of 16 digits of a square.
    rng = np.random.default_rng(8)
    x = (1e4 + 0.01 * rng.standard_normal((200, 10))).astype(np.float32)
    neighbors = knn(x, 60, metric="euclidean")
    check(x, neighbors, neighbors.indices, 0.9)


@given(strategies.matrices(min_rows=3, tiles=False), strategies.threads)
def test_bits_do_not_depend_on_threads(x, threads):
    neighbors = knn(x, min(20, len(x) - 1))
    one = intrinsic_dimension(x, neighbors, threads=1)
    assert bits(one) == bits(intrinsic_dimension(x, neighbors, threads=threads))


def test_metric_and_rows_choose_the_neighbors():
    x = decaying(300, 12, seed=2)
    rows = [5, 299, 5]
    for metric in strategies.METRICS:
        whole = intrinsic_dimension(x, k=40, metric=metric)
        assert bits(whole) == bits(intrinsic_dimension(x, knn(x, 40, metric=metric)))
        part = intrinsic_dimension(x, k=40, metric=metric, rows=rows)
        np.testing.assert_array_equal(part.explained_variance_ratio, whole.explained_variance_ratio[rows])
        lists = knn(x, 40, metric=metric, rows=rows).indices
        assert bits(part) == bits(intrinsic_dimension(x, lists, rows=rows))


@pytest.mark.parametrize(("options", "message"), [
    ({"variance": 0}, "0"),
    ({"variance": -0.5}, "-0.5"),
    ({"variance": 1.0001}, "1.0001"),
    ({"variance": np.nan}, "nan"),
    ({"k": 60}, r"(?s)60.*\b59\b|\b59\b.*60"),
    ({"k": 200}, r"(?s)200.*\b59\b|\b59\b.*200"),
    ({"k": 0}, "0"),
    ({"k": 5, "metric": "manhattan"}, "manhattan"),
    ({"k": 5, "rows": [60]}, "60"),
    ({"k": 5, "threads": 0}, "0"),
    ({"neighbors": np.zeros((59, 3), int)}, "59"),
    ({"neighbors": np.zeros((60, 3))}, "float64"),
    ({"neighbors": np.full((60, 3), 60)}, "60"),
    ({"neighbors": np.full((60, 3), -2)}, "-2"),
])  # fmt: skip
def test_errors_carry_the_value(options, message):
    with pytest.raises(InputError, match=message):
        intrinsic_dimension(gaussian(), **options)


def test_what_is_not_finite_is_named():
    x = gaussian()
    neighbors = knn(x, 5)
    x[13, 1] = np.inf
    with pytest.raises(InputError, match=r"\b13\b"):
        intrinsic_dimension(x, neighbors)
