"""Carrying vectors by their neighbors: weights that rebuild a vector in one model, used in the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._arrays import FloatMatrix
from embgeom.knn import knn
from embgeom.lle import lle

_BATCH = 256


@dataclass(frozen=True, eq=False)
class NeighborMap:
    """The shared tokens' rows in both models, by which a vector is carried.

    A vector is scaled to the mean length of its k nearest source rows (by cosine), rebuilt from them by LLE
    weights, and the same combination of target rows, scaled back, is its image. So it is carried as an
    embedding would be; the map is not linear.

    Attributes
    ----------
    source, target : ndarray of float32, shapes (n, d_s) and (n, d_t)
        Row i of both belongs to one token.
    k : int
        How many neighbors.
    reg : float
        The regularization of `embgeom.lle`.
    """

    source: FloatMatrix
    target: FloatMatrix
    k: int
    reg: float

    def carry(self, vectors: npt.NDArray[np.float64], threads: int) -> npt.NDArray[np.float64]:
        """Carry vectors (m, d_s) over, to (m, d_t) float64; a vector of zeros stays one."""
        pieces = range(0, len(vectors), _BATCH)
        return np.concatenate([self._carry(vectors[b : b + _BATCH], threads) for b in pieces])

    def _carry(self, vectors: npt.NDArray[np.float64], threads: int) -> npt.NDArray[np.float64]:
        lengths = np.linalg.norm(vectors, axis=1)
        carried = np.zeros((len(vectors), self.target.shape[1]))
        alive = np.flatnonzero(lengths > 0)
        if len(alive) == 0:
            return carried
        units = (vectors[alive] / lengths[alive, None]).astype(np.float32)
        found = knn(self.source, self.k, queries=units, threads=threads).indices
        # Of the matrix only the rows that are somebody's neighbor are needed; the vectors follow them.
        used, places = np.unique(found, return_inverse=True)
        places = places.reshape(found.shape)
        rows = self.source[used]
        sizes = np.linalg.norm(rows.astype(np.float64), axis=1)[places].mean(axis=1)
        everything = np.concatenate([rows, units * sizes[:, None].astype(np.float32)])
        weights = lle(
            everything,
            places.astype(np.int32),
            rows=np.arange(len(used), len(everything)),
            reg=self.reg,
            threads=threads,
        ).weights.astype(np.float64)
        images = np.einsum("mk,mkd->md", weights, self.target[used].astype(np.float64)[places])
        carried[alive] = images * (lengths[alive] / sizes)[:, None]
        return carried
