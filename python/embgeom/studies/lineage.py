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
from embgeom.comparison.nulls import NORMAL_QUANTILE
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
        same models form a branch; 1 for the last, which has all models. Neighborhoods of tokens overlap, so
        the resamples of each pair are spread to at least the measure's 95 % interval.
    draws : int
        How many.
    same_tokens : bool
        Whether all pairs are over the same tokens, which are resampled together; otherwise each pair is
        resampled by itself, and support is approximate.
    """

    measure: str
    models: tuple[str, ...]
    linkage: npt.NDArray[np.float64]
    support: npt.NDArray[np.float64]
    draws: int
    same_tokens: bool

    def __repr__(self) -> str:
        return f"Lineage({len(self.models)} models by {self.measure}, {self.draws} resamples)"

    def branches(self) -> list[tuple[int, ...]]:
        """Return the models of each row of `linkage`, in ascending order."""
        return branches(self.linkage)

    def tables(self) -> list[Block]:
        """Return a row for each branch."""
        # The last branch has all models, whatever is resampled.
        shares = [*(f"{share:.0%}" for share in self.support[:-1].tolist()), ""]
        rows = [
            (" + ".join(self.models[i] for i in branch), f"{1 - height:.3f}", share)
            for branch, height, share in zip(
                self.branches(), self.linkage[:, 2].tolist(), shares, strict=True
            )
        ]
        support = "support" if self.same_tokens else "support (approximate)"
        return [Table(f"tree of models by {self.measure}", ("branch", "similarity", support), rows)]


def lineage(
    measure: str,
    models: Sequence[str],
    values: dict[tuple[int, int], Float64Vector],
    half_widths: dict[tuple[int, int], float],
    *,
    same_tokens: bool,
    seed: int,
    draws: int = DRAWS,
) -> Lineage:
    """Return the tree of m models whose similarities are the means of a value for each token.

    `values` has those of every pair (a, b) of models with a < b, NaN where a token has none; `half_widths`
    half of the 95 % interval of each mean, which allows for tokens that depend on one another, as resamples
    of single tokens do not. With `same_tokens` all pairs are over the same ones, resampled together.
    """
    pairs = sorted(values)
    observed = np.array([np.nanmean(values[pair]) for pair in pairs])
    tree = _linkage(len(models), pairs, observed)
    random, means = generator(seed, "lineage"), np.empty((draws, len(pairs)))
    for draw in range(draws):
        counts: Float64Vector | None = None
        for column, pair in enumerate(pairs):
            if counts is None or not same_tokens:
                n = len(values[pair])
                counts = np.bincount(random.integers(n, size=n), minlength=n).astype(np.float64)
            means[draw, column] = _weighted_mean(values[pair], counts)
    known = np.array([half_widths[pair] for pair in pairs])
    spread = NORMAL_QUANTILE * means.std(axis=0)
    wider = np.maximum(np.divide(known, spread, out=np.ones_like(known), where=spread > 0.0), 1.0)
    center = means.mean(axis=0)
    means = center + (means - center) * np.nan_to_num(wider, nan=1.0)
    wanted, found = branches(tree), np.zeros(len(tree))
    for resample in means:
        drawn = set(branches(_linkage(len(models), pairs, resample)))
        found += [branch in drawn for branch in wanted]
    return Lineage(measure, tuple(models), tree, found / draws, draws, same_tokens)


def branches(tree: Float64Matrix) -> list[tuple[int, ...]]:
    """Return the leaves of each row of a linkage, in ascending order."""
    clusters: list[tuple[int, ...]] = [(leaf,) for leaf in range(len(tree) + 1)]
    for one, other in tree[:, :2].astype(int).tolist():
        clusters.append(tuple(sorted(clusters[one] + clusters[other])))
    return clusters[len(tree) + 1 :]


def _weighted_mean(values: Float64Vector, counts: Float64Vector) -> float:
    """Return the mean of the values that are not NaN, each as often as it was drawn."""
    weights = np.where(np.isnan(values), 0.0, counts)
    return float(weights @ np.nan_to_num(values) / max(weights.sum(), 1.0))


def _linkage(count: int, pairs: Sequence[tuple[int, int]], similarities: Float64Vector) -> Float64Matrix:
    hierarchy: Any = need("scipy.cluster.hierarchy", "a tree of models", extra="study")
    distances = np.zeros((count, count))
    for (a, b), similarity in zip(pairs, similarities.tolist(), strict=True):
        distances[a, b] = 1.0 - similarity
    tree: Float64Matrix = hierarchy.linkage(distances[np.triu_indices(count, 1)], method="average")
    return tree
