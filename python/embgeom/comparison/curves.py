"""How far two models agree over the number of neighbors and over the share of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from embgeom.comparison.nulls import Estimate, correlation_estimate, overlap_estimate, weight_cosine_estimate
from embgeom.geometry.dimension import IntrinsicDimension
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE

KS = (10, 50, 200, 1200)
"""Numbers of neighbors that a curve is over by default, as far as a graph holds them."""


@dataclass(frozen=True)
class Curve:
    """A measure over a parameter: what two models share at each of its values.

    Attributes
    ----------
    name : str
        The measure: ``"neighbor_overlap"``, ``"weight_cosine"`` or ``"dimension_spearman"``.
    over : str
        The parameter: ``"k"``, or ``"variance"`` for the share of variance that defines a dimension.
    at : tuple of float
        Its values.
    estimates : tuple of Estimate
        The measure at each of them.
    """

    name: str
    over: str
    at: tuple[float, ...]
    estimates: tuple[Estimate, ...]


def overlap_curve(a: Neighbors, b: Neighbors, ks: Sequence[int] = KS, **options: Any) -> Curve:
    """Return the neighbor overlap over each k that both graphs hold; options are those of its estimate."""
    held = tuple(k for k in ks if k <= min(a.k, b.k))
    estimates = tuple(overlap_estimate(a.first(k), b.first(k), **options) for k in held)
    return Curve("neighbor_overlap", "k", held, estimates)


def weight_curve(of_a: Sequence[LLE], of_b: Sequence[LLE], **options: Any) -> Curve:
    """Return the weight cosine over k, from the weights of both models over the first k of one graph."""
    estimates = tuple(weight_cosine_estimate(a, b, **options) for a, b in zip(of_a, of_b, strict=True))
    return Curve("weight_cosine", "k", tuple(side.weights.shape[1] for side in of_a), estimates)


def correlation_curve(
    of_a: Sequence[IntrinsicDimension],
    of_b: Sequence[IntrinsicDimension],
    over: Literal["k", "variance"] = "k",
    *,
    strata: npt.ArrayLike | None = None,
    neighbors: tuple[Neighbors, Neighbors] | None = None,
) -> Curve:
    """Return the rank correlation of intrinsic dimensions over k or over the share of variance.

    `of_a` and `of_b` hold the dimensions of the same tokens of both models, for each value of the parameter;
    `neighbors` are those that they are over, or more, for intervals that allow for tokens that share some.
    """
    estimates = []
    for pair in zip(of_a, of_b, strict=True):
        near = neighbors and (neighbors[0].first(pair[0].k), neighbors[1].first(pair[1].k))
        counts = (side.defined for side in pair)
        estimates.append(correlation_estimate(*counts, kind="spearman", strata=strata, neighbors=near))
    return Curve("dimension_spearman", over, tuple(getattr(side, over) for side in of_a), tuple(estimates))
