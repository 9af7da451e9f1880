"""Each way through the search is forced: guessed floors, too high ones, full buffers, equal similarities."""

import numpy as np
import pytest

from embgeom import knn
from tests.oracles import reference, strategies

RUN = 8  # consecutive rows that the kernel deals to one block


def phases_of(call, *args, **options):
    """Return what a call returns, and the phases that it reported."""
    seen = []

    def report(phase, done, total):
        if phase not in seen:
            seen.append(phase)

    return call(*args, progress=report, **options), seen


def check(found, x, exact=False, sample=None, **options):
    rows = np.arange(len(x)) if sample is None else sample
    ranking = reference.rank(x, rows=rows, **options)
    reference.assert_same_neighbors(
        found.indices[rows], found.similarities[rows], ranking, exact=exact, first_equal=None
    )


@pytest.mark.parametrize("d", [1, 5, 8, 9, 255, 256, 257, 264, 700])
@pytest.mark.parametrize("n", [2, 7, 25, 41, 95, 193, 502])
def test_edges_of_panels_and_pieces(n, d):
    # Products are computed six rows by sixteen or eight columns, and 256 coordinates at a time: all that is
    # left over at either edge must come out as the rest does.
    x = np.random.default_rng(n * d).standard_normal((n, d)).astype(np.float32)
    for k in {1, min(n - 1, 9)}:  # a short buffer is soon full, and products then decide what passes
        check(knn(x, k, threads=2), x)
    queries = np.random.default_rng(d).standard_normal((n // 2 + 3, d)).astype(np.float32)
    found = knn(x, min(n, 5), queries=queries, threads=2)
    ranking = reference.rank(x, queries=queries)
    reference.assert_same_neighbors(found.indices, found.similarities, ranking)


@pytest.mark.parametrize("metric", strategies.METRICS)
@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("k", [1, 10, 150, 900])
def test_guessed_floors(metric, threads, k):
    # Nine blocks or more: the first tile of each sets a floor, and later tiles raise it.
    x = np.random.default_rng(k).standard_normal((3203, 9)).astype(np.float32)
    found = knn(x, k, metric=metric, threads=threads)
    check(found, x, sample=np.arange(0, 3203, 61), metric=metric)
    np.testing.assert_array_equal(found.indices, knn(x, k, metric=metric, threads=3).indices)


@pytest.mark.parametrize("metric", strategies.METRICS)
@pytest.mark.parametrize("blocks", [9, 11, 13, 15, 17, 25, 27])
def test_floors_guessed_too_high(metric, blocks):
    # All neighbors of some rows lie in their own block, so what the first tile shows is not what the rest
    # holds: the guess is wrong for one of these numbers of blocks, and the search must notice.
    rng = np.random.default_rng(blocks)
    x = rng.standard_normal((1600, 12))
    together = np.arange(1600) // RUN % blocks == 0
    x[together] += 40 * np.eye(12)[0]
    check(knn(x.astype(np.float32), 60, metric=metric, threads=2), x.astype(np.float32), metric=metric)


def test_a_wrong_guess_is_asked_again():
    # With two threads 1,600 rows make 9 blocks of at most 192.
    x = np.random.default_rng(0).standard_normal((1600, 12)).astype(np.float32)
    together = np.arange(1600) // RUN % 9 == 0
    x[together, 0] += 40
    found, phases = phases_of(knn, x, 60, threads=2)
    assert "multiply again" in phases
    check(found, x)
    # A guess is too high for one query in some thousands; for none of these.
    plain = np.random.default_rng(1).standard_normal((1600, 12)).astype(np.float32)
    assert "multiply again" not in phases_of(knn, plain, 60, threads=2)[1]


def test_many_wrong_guesses_are_asked_again_in_parts():
    # 25 clusters that each lie in one of 25 blocks: what a block sees of itself deceives nearly all rows.
    # What is asked again at a time takes 32 MiB, some 3,800 rows of these.
    rng = np.random.default_rng(5)
    cluster = np.arange(9000) // RUN % 25
    x = (0.02 * rng.standard_normal((9000, 8)) + rng.standard_normal((25, 8))[cluster]).astype(np.float32)
    ends = []
    found = knn(x, 800, threads=2, progress=lambda phase, done, total: ends.append((phase, done == total)))
    assert ends.count(("multiply again", True)) > 1
    check(found, x, sample=np.r_[0:20, 4490:4510, 8980:9000])


@pytest.mark.parametrize("above", range(15, 45))
def test_what_a_guess_dropped_is_not_outrun(above):
    # Nine blocks of at most 192 rows. In block 1 `above` rows are nearer than the row `dropped`; for one of
    # these numbers a guess cuts right before it. `later` rounds to the same similarity and is farther: taken
    # in its place, it would make the list complete, and wrong.
    block = np.arange(1528) // RUN % 9
    places = [np.flatnonzero(block == b) for b in range(9)]
    x = np.zeros((1528, 2), np.float32)
    x[:, 0] = 0.4 - 0.01 * block - 1e-6 * np.arange(1528)
    x[places[1][:above], 0] = 1.1 + 0.001 * np.arange(above)
    x[places[1][above - 1], 0] = np.nextafter(np.float32(1), np.float32(2))
    dropped, later = places[1][above], places[2][0]
    x[dropped], x[later] = (1, 2**-26), (1, 2**-27)
    x[places[8][: 59 - above], 0] = 1.25 + 0.001 * np.arange(59 - above)
    found = knn(x, 60, metric="inner_product", queries=np.ones((1, 2), np.float32), threads=1)
    assert found.indices[0, -1] == dropped


@pytest.mark.parametrize("queries", ["rows", "queries"])
@pytest.mark.parametrize("metric", strategies.METRICS)
def test_a_wrong_guess_for_some_rows_or_other_vectors(metric, queries):
    x = np.random.default_rng(1).standard_normal((1600, 12)).astype(np.float32)
    for blocks in (9, 17):
        x[np.arange(1600) // RUN % blocks == 0, 0] += 40
    asked = {"rows": np.arange(0, 1600, 5)} if queries == "rows" else {"queries": x[3:400:7] + 0.01}
    found = knn(x, 70, metric=metric, threads=2, **asked)
    ranking = reference.rank(x, metric=metric, **asked)
    reference.assert_same_neighbors(found.indices, found.similarities, ranking)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("k", [1, 7, 300])
def test_rows_in_ascending_order_fill_buffers_again_and_again(threads, k):
    # Each row is nearer to the last than all before it: nothing that a buffer holds stays in it.
    x = np.stack([np.cos(np.linspace(0, 3, 2000)), np.sin(np.linspace(0, 3, 2000))], axis=1)
    x = x.astype(np.float32)
    found = knn(x, k, threads=threads)
    check(found, x, sample=np.r_[0:40, 900:940, 1960:2000])


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("metric", strategies.METRICS)
def test_many_equal_similarities(metric, threads):
    # Integers: each similarity is shared by many rows, and only row numbers tell them apart.
    x = np.random.default_rng(5).integers(-2, 3, (1500, 4)).astype(np.float32)
    check(knn(x, 40, metric=metric, threads=threads), x, exact=metric != "cosine", metric=metric)


@pytest.mark.parametrize("n", [RUN - 1, RUN, RUN + 1, 127, 129, 1343, 1344, 1345, 1535, 1536])
@pytest.mark.parametrize("threads", [1, 7])
def test_edges_of_runs_and_blocks(n, threads):
    # One thread makes seven full blocks of 1,344 rows; from 1,536 on blocks are twice as large.
    x = np.random.default_rng(n).integers(-9, 10, (n, 5)).astype(np.float32)
    check(
        knn(x, min(n - 1, 20), metric="euclidean", threads=threads),
        x,
        exact=True,
        sample=np.arange(0, n, 1 + n // 200),
        metric="euclidean",
    )


def eight_sums(a, b):
    """The documented dot product: eight partial sums of exact products, added up in a fixed tree."""
    products = np.zeros(-(-len(a) // 8) * 8)
    products[: len(a)] = a.astype(np.float64) * b.astype(np.float64)
    sums = np.zeros(8)
    for eight in products.reshape(-1, 8):
        sums += eight
    four = sums[:4] + sums[4:]
    two = four[:2] + four[2:]
    return two[0] + two[1]


@pytest.mark.parametrize("d", [1, 7, 8, 9, 31, 100])
def test_the_order_is_that_of_the_documented_sum(d):
    # Rows that differ in their last bits: another order of summation would order many of them differently.
    rng = np.random.default_rng(d)
    centre = rng.standard_normal(d) * 10.0 ** rng.uniform(-3, 3, d)
    x = (centre * (1 + 2e-7 * rng.standard_normal((300, d)))).astype(np.float32)
    scores = np.array([eight_sums(x[0], row) for row in x])
    order = np.lexsort((np.arange(300), -scores))
    found = knn(x, 299, metric="inner_product", queries=x[:1])
    np.testing.assert_array_equal(found.indices[0], order[:299])
