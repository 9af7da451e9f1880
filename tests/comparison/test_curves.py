"""Curves over k and over the share of variance hold what the measures give one by one."""

import pytest

import embgeom
from embgeom.comparison.curves import correlation_curve, overlap_curve, weight_curve
from embgeom.comparison.nulls import correlation_estimate, overlap_estimate, weight_cosine_estimate
from tests.comparison.test_panel import pair


@pytest.fixture(scope="module")
def graphs():
    a, b = pair(120, 8, 6)
    return (a, b), tuple(embgeom.knn(side, 50) for side in (a, b))


def test_overlap_over_k(graphs):
    matrices, neighbors = graphs
    curve = overlap_curve(*neighbors, ks=(5, 20, 50, 200), seed=1)
    assert (curve.name, curve.over, curve.at) == ("neighbor_overlap", "k", (5, 20, 50))
    expected = [overlap_estimate(*(embgeom.knn(x, k) for x in matrices), seed=1) for k in curve.at]
    assert curve.estimates == tuple(expected)


def test_weights_over_k(graphs):
    matrices, neighbors = graphs
    sides = [
        [embgeom.lle(x, near.first(k)) for k in (5, 10)] for x, near in zip(matrices, neighbors, strict=True)
    ]
    curve = weight_curve(*sides)
    assert (curve.name, curve.over, curve.at) == ("weight_cosine", "k", (5, 10))
    assert curve.estimates[1] == weight_cosine_estimate(sides[0][1], sides[1][1])


def test_dimensions_over_k_and_over_variance(graphs):
    matrices, neighbors = graphs
    measured = [
        {share: embgeom.intrinsic_dimension(x, near, variance=share) for share in (0.5, 0.9)}
        for x, near in zip(matrices, neighbors, strict=True)
    ]
    curve = correlation_curve(*(list(side.values()) for side in measured), "variance", neighbors=neighbors)
    assert (curve.name, curve.over, curve.at) == ("dimension_spearman", "variance", (0.5, 0.9))
    of_a, of_b = (side[0.9].n_components for side in measured)
    assert curve.estimates[1] == correlation_estimate(of_a, of_b, kind="spearman", neighbors=neighbors)
    assert correlation_curve([measured[0][0.5]], [measured[1][0.5]]).at == (50,)
