"""Transferring vectors by their neighbors: weights that rebuild a vector in one model, used in the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix
from embgeom._common.checks import real_number, whole_number
from embgeom.errors import InputError
from embgeom.geometry.knn import knn
from embgeom.geometry.lle import lle

_BATCH = 256
# Where neighbors are more than columns, only the regularization makes their weights determined.
_LEAST_REG = 1e-12


def check_reg(reg: object) -> float:
    """Return the regularization as a float, or say what it may be."""
    number = real_number(reg, "reg")
    if not _LEAST_REG <= number < np.inf:
        raise InputError(f"reg = {number} must be {_LEAST_REG:g} at least and finite")
    return number


@dataclass(frozen=True, eq=False)
class NeighborMap:
    """The shared tokens' rows in both models, by which a vector is transferred.

    A vector is scaled to the mean length of its k nearest source rows (by cosine), rebuilt from them by LLE
    weights, and the same combination of target rows, scaled back, is its image. So it is transferred as an
    embedding would be; the map is not linear.

    Attributes
    ----------
    source, target : ndarray of float32, shapes (n, d_s) and (n, d_t)
        Row i of both belongs to one token.
    k : int
        How many neighbors.
    reg : float
        The regularization of `embgeom.lle`.

    Raises
    ------
    InputError
        If `k` or `reg` is out of its range, or fewer than k source rows are not zero.
    """

    source: Float32Matrix
    target: Float32Matrix
    k: int
    reg: float

    def __post_init__(self) -> None:
        count = len(self.source)
        whole_number(self.k, "k", 1, count, f": there are {count} tokens to fit on")
        check_reg(self.reg)
        # A direction has no cosine with a row of zeros, which is nobody's neighbor.
        if (alive := int(np.count_nonzero(self.source.any(axis=1)))) < self.k:
            raise InputError(f"k = {self.k}, but only {alive} source rows are not zero; take fewer neighbors")

    def transfer(self, vectors: npt.NDArray[np.float64], threads: int) -> npt.NDArray[np.float64]:
        """Transfer vectors (m, d_s) over, to (m, d_t) float64; a vector of zeros stays one."""
        pieces = range(0, len(vectors), _BATCH)
        return np.concatenate([self._transfer(vectors[b : b + _BATCH], threads) for b in pieces])

    def _transfer(self, vectors: npt.NDArray[np.float64], threads: int) -> npt.NDArray[np.float64]:
        lengths = np.linalg.norm(vectors, axis=1)
        transferred = np.zeros((len(vectors), self.target.shape[1]))
        alive = np.flatnonzero(lengths > 0)
        if len(alive) == 0:
            return transferred
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
        # One by one, since the neighbors of all vectors at once may be larger than the target's matrix.
        images = np.stack(
            [w @ self.target[near].astype(np.float64) for w, near in zip(weights, found, strict=True)]
        )
        transferred[alive] = images * (lengths[alive] / sizes)[:, None]
        return transferred
