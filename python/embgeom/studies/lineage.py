"""A tree of models: which models share the most, and how certain each branch is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Matrix, Float64Vector
from embgeom._common.checks import need
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table
from embgeom.comparison.relabeling import generator

DRAWS = 1000


@dataclass(frozen=True, eq=False, repr=False)
class Lineage(Result):
    """A tree of m models by average linkage of 1 - similarity.

    Attributes
    ----------
    measure : str
        The measure of similarity, a mean over tokens.
    models : tuple of str
        The names of its leaves.
    linkage : ndarray of float64, shape (m - 1, 4)
        As `scipy.cluster.hierarchy.linkage` returns it, so that SciPy's ``dendrogram`` draws it.
    support : ndarray of float64, shape (m - 1,)
        For each row of `linkage`, the share of `draws` trees from resampled tokens (bootstrap) in which the
        same models form a branch.
    draws : int
        How many.
    """

    measure: str
    models: tuple[str, ...]
    linkage: npt.NDArray[np.float64]
    support: npt.NDArray[np.float64]
    draws: int

    def __repr__(self) -> str:
        return f"Lineage({len(self.models)} models by {self.measure}, {self.draws} resamples)"

    def branches(self) -> list[tuple[int, ...]]:
        """Return the models of each row of `linkage`, in ascending order."""
        return branches(self.linkage)

    def tables(self) -> list[Block]:
        """Return a row for each branch."""
        rows = [
            (" + ".join(self.models[i] for i in branch), f"{1 - height:.3f}", f"{support:.0%}")
            for branch, height, support in zip(
                self.branches(), self.linkage[:, 2].tolist(), self.support.tolist(), strict=True
            )
        ]
        return [Table(f"tree of models by {self.measure}", ("branch", "similarity", "support"), rows)]


def lineage(
    measure: str,
    models: Sequence[str],
    values: dict[tuple[int, int], Float64Vector],
    *,
    seed: int,
    draws: int = DRAWS,
) -> Lineage:
    """Return the tree of m models whose similarities are the means of a value for each token.

    `values` has those of every pair (a, b) of models with a < b; NaN where a token has none. Pairs with
    equally many tokens are over the same ones, which are drawn together.
    """
    pairs = sorted(values)
    tree = _linkage(len(models), pairs, [float(np.nanmean(values[pair])) for pair in pairs])
    wanted, found = branches(tree), np.zeros(len(tree))
    random = generator(seed, "lineage")
    for _ in range(draws):
        counts: dict[int, Float64Vector] = {}
        means = [_resampled(values[pair], counts, random) for pair in pairs]
        drawn = set(branches(_linkage(len(models), pairs, means)))
        found += [branch in drawn for branch in wanted]
    return Lineage(measure, tuple(models), tree, found / draws, draws)


def branches(tree: Float64Matrix) -> list[tuple[int, ...]]:
    """Return the leaves of each row of a linkage, in ascending order."""
    clusters: list[tuple[int, ...]] = [(leaf,) for leaf in range(len(tree) + 1)]
    for one, other in tree[:, :2].astype(int).tolist():
        clusters.append(tuple(sorted(clusters[one] + clusters[other])))
    return clusters[len(tree) + 1 :]


def _resampled(values: Float64Vector, counts: dict[int, Float64Vector], random: np.random.Generator) -> float:
    """Return the mean over as many tokens, drawn with replacement."""
    n = len(values)
    if n not in counts:
        counts[n] = np.bincount(random.integers(n, size=n), minlength=n).astype(np.float64)
    weights = np.where(np.isnan(values), 0.0, counts[n])
    return float(weights @ np.nan_to_num(values) / max(weights.sum(), 1.0))


def _linkage(count: int, pairs: Sequence[tuple[int, int]], similarities: Sequence[float]) -> Float64Matrix:
    hierarchy: Any = need("scipy.cluster.hierarchy", "a tree of models", extra="study")
    distances = np.zeros((count, count))
    for (a, b), similarity in zip(pairs, similarities, strict=True):
        distances[a, b] = 1.0 - similarity
    tree: Float64Matrix = hierarchy.linkage(distances[np.triu_indices(count, 1)], method="average")
    return tree
