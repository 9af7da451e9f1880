"""Rows of a model as the map sees them: folded, scaled to length 1, never copied as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._arrays import FloatMatrix, RowNumbers
from embgeom.errors import InputError
from embgeom.final_norm import FinalNorm

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """Some rows of a matrix, and what is done to each before it is used.

    Attributes
    ----------
    matrix : ndarray of float32, shape (V, d)
        The model's matrix.
    rows : ndarray of int64, shape (n,)
        Which of its rows.
    norm : FinalNorm or None
        The norm that is folded into them.
    factors : ndarray of float64, shape (n,), or None
        What each folded row is multiplied with: 1 / its length where rows are normalized.
    """

    matrix: FloatMatrix
    rows: RowNumbers
    norm: FinalNorm | None
    factors: npt.NDArray[np.float64] | None

    @classmethod
    def prepare(
        cls, matrix: FloatMatrix, rows: RowNumbers, norm: FinalNorm | None, normalize: bool
    ) -> PreparedRows:
        """Work out the factors.

        Raises
        ------
        InputError
            If the norm is of another width.
        """
        if norm is not None and len(norm.weight) != matrix.shape[1]:
            raise InputError(
                f"the final norm has {len(norm.weight)} weights, but the matrix {matrix.shape[1]} columns"
            )
        prepared = cls(matrix, rows, norm, None)
        if not normalize:
            return prepared
        lengths = np.concatenate(
            [np.linalg.norm(prepared.take(piece), axis=1) for piece in prepared.pieces()]
        )
        return cls(matrix, rows, norm, np.divide(1.0, lengths, out=np.zeros(len(rows)), where=lengths > 0))

    def pieces(self) -> list[slice]:
        """Return slices that cover the rows, each small."""
        return [slice(begin, begin + _CHUNK) for begin in range(0, len(self.rows), _CHUNK)]

    def take(self, places: slice | RowNumbers) -> npt.NDArray[np.float64]:
        """Return some of the rows, by their places among `rows`, as the map sees them, float64."""
        taken = self.fold(self.matrix[self.rows[places]].astype(np.float64))
        return taken if self.factors is None else taken * self.factors[places, None]

    def choose(self, places: RowNumbers) -> PreparedRows:
        """Return the rows at some places."""
        factors = None if self.factors is None else self.factors[places]
        return PreparedRows(self.matrix, self.rows[places], self.norm, factors)

    def fold(self, vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Fold the final norm into vectors (d,) or rows (m, d) of the matrix."""
        return vectors if self.norm is None else self.norm.fold(vectors)

    def fold_both(self, sums: npt.NDArray[np.float64], other: PreparedRows) -> npt.NDArray[np.float64]:
        """Fold sums of products x y' of rows of this and of another matrix: folding is linear."""
        return np.asarray(self.fold(other.fold(sums).T).T)
