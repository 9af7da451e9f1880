"""Neighbors and weights on other sets of tokens are those of a search and of a fit on these."""

import numpy as np
import pytest

import embgeom
from embgeom.comparison.comparison import CompareOptions, LocalGeometry
from embgeom.comparison.token_sets import Side
from embgeom.geometry.rows import centered as subtracted
from embgeom.geometry.rows import mean_row


def side_of(x, counts, center):
    mean = mean_row(x[counts]) if center else None
    kept = x[counts] if mean is None else subtracted(x[counts], mean)
    graph = embgeom.knn(x[counts], 8, center=center)
    np.testing.assert_array_equal(graph.indices, embgeom.knn(kept, 8).indices)
    local = LocalGeometry(graph, embgeom.lle(x[counts], graph), embgeom.intrinsic_dimension(kept, graph))
    return Side(x, mean, graph, graph, local)


def check_measured(side, counts, inside):
    found, weights = side.measured(counts, inside, CompareOptions(k=8), threads=1, progress=False)
    expected = embgeom.knn(side.searched(inside, 1), 8)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
    again = embgeom.lle(side.rows[inside], expected)
    for name in ("weights", "residuals", "status", "indices"):
        np.testing.assert_array_equal(getattr(weights, name), getattr(again, name))


@pytest.mark.parametrize("center", [False, True])
def test_neighbors_and_weights_among_more_tokens_are_those_of_a_search(center):
    rng = np.random.default_rng(3)
    half = rng.standard_normal((90, 4)).astype(np.float32)
    # Copies up to rounding: their cosines with others differ in float64 alone, or not at all.
    x = np.concatenate([half, half / np.float32(3), 2 * half])
    counts = rng.random(len(x)) < 0.5
    check_measured(side_of(x, counts, center), counts, np.ones_like(counts))


@pytest.mark.parametrize("center", [False, True])
def test_neighbors_and_weights_among_fewer_tokens_are_those_of_a_search(center):
    rng = np.random.default_rng(4)
    counts = rng.random(270) < 0.9
    inside = counts & (rng.random(270) < 0.9)
    check_measured(side_of(rng.standard_normal((270, 4)).astype(np.float32), counts, center), counts, inside)
