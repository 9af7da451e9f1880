"""Hubs: rows that are among the nearest neighbors of very many others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embgeom._common.arrays import RowNumbers
from embgeom.errors import InputError
from embgeom.geometry.knn import Neighbors

K = 10
"""Neighbors over which hubs are counted, as in the literature."""
TOP = 0.01


@dataclass(frozen=True, eq=False)
class Hubs:
    """How often each of n rows is among the nearest neighbors of others.

    Attributes
    ----------
    in_degree : ndarray of int64, shape (n,)
        In how many of the lists each row is.
    lists, k : int
        How many lists there are, and neighbors in each.
    center : bool
        Whether the mean row was subtracted before the search.

    References
    ----------
    Radovanović, Nanopoulos, & Ivanović (2010). Hubs in space: popular nearest neighbors in high-dimensional
    data. JMLR 11.
    """

    in_degree: RowNumbers
    lists: int
    k: int
    center: bool

    @classmethod
    def from_neighbors(cls, neighbors: Neighbors, n: int, *, k: int = K, center: bool = False) -> Hubs:
        """Count hubs over the first `k` neighbors of each list; `n` rows could be in them."""
        first = neighbors.indices[:, : min(k, neighbors.k)]
        if first.size and first.max() >= n:
            raise InputError(f"the neighbors are numbered up to {first.max()}, beyond n = {n} rows")
        counts = np.bincount(first[first >= 0], minlength=n).astype(np.int64)
        return cls(counts, len(first), first.shape[1], center)

    @property
    def skewness(self) -> float:
        """The skewness of the in-degree: 0 if it is symmetric about its mean, large where there are hubs."""
        off = self.in_degree - self.in_degree.mean()
        spread = float(np.sqrt(np.mean(off**2)))
        return float(np.mean(off**3)) / spread**3 if spread > 0 else float("nan")

    @property
    def top_share(self) -> float:
        """The share of all entries of lists that are among the 1 % of rows with the largest in-degree."""
        top = np.sort(self.in_degree)[::-1][: max(1, round(TOP * len(self.in_degree)))]
        return float(top.sum() / max(self.in_degree.sum(), 1))

    def greatest(self, count: int) -> RowNumbers:
        """Return the rows of largest in-degree, largest first; equal ones in the order of rows."""
        return np.argsort(-self.in_degree, kind="stable")[:count].astype(np.int64)
