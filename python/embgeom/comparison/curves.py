"""How far two models agree over the number of neighbors and over the share of variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy.typing as npt

from embgeom._common.progress import Progress
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


def overlap_curve(
    neighbors_a: Neighbors,
    neighbors_b: Neighbors,
    ks: Sequence[int] = KS,
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Curve:
    """Return the neighbor overlap over k, from one graph of each model.

    Parameters
    ----------
    neighbors_a, neighbors_b : Neighbors
        What `knn` returned for the same tokens of both models.
    ks : sequence of int
        Numbers of neighbors; those that the graphs do not hold are left out.
    strata, draws, seed, threads, progress
        As for `overlap_estimate`.
    """
    held = tuple(k for k in ks if k <= min(neighbors_a.k, neighbors_b.k))
    nearest = ([side.first(k) for side in (neighbors_a, neighbors_b)] for k in held)
    options: dict[str, Any] = {"strata": strata, "draws": draws, "seed": seed}
    estimates = (overlap_estimate(*pair, **options, threads=threads, progress=progress) for pair in nearest)
    return Curve("neighbor_overlap", "k", held, tuple(estimates))


def weight_curve(
    of_a: Sequence[LLE],
    of_b: Sequence[LLE],
    *,
    strata: npt.ArrayLike | None = None,
    draws: int = 200,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Curve:
    """Return the weight cosine over k, from the weights of both models for each k.

    The neighbors of all of them come from one graph by `Neighbors.first`. Other arguments are as for
    `weight_cosine_estimate`.
    """
    options: dict[str, Any] = {"strata": strata, "draws": draws, "seed": seed}
    estimates = (
        weight_cosine_estimate(*pair, **options, threads=threads, progress=progress)
        for pair in zip(of_a, of_b, strict=True)
    )
    return Curve("weight_cosine", "k", tuple(side.weights.shape[1] for side in of_a), tuple(estimates))


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
