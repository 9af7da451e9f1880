"""Rows of a model as the map sees them: folded, scaled to length 1, never copied as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.norm import FinalNorm
from embgeom.errors import InputError

_CHUNK = 4096


def check_norm(norm: FinalNorm | None, side: object, name: str) -> None:
    """Find out whether a norm can be folded into the rows of a side.

    Parameters
    ----------
    norm : FinalNorm or None
        The norm; None always can.
    side : Embeddings or array_like
        The model.
    name : str
        ``"source"`` or ``"target"``, for the message.

    Raises
    ------
    InputError
        If the norm is no `FinalNorm`, or the side is an input embedding that no norm comes before.
    """
    if norm is None:
        return
    if not isinstance(norm, FinalNorm):
        raise InputError(
            f"{name}_norm = {norm!r:.40} is no FinalNorm: make one with embgeom.load_final_norm(model) or "
            "embgeom.FinalNorm.from_weights(weight, kind)"
        )
    if isinstance(side, Embeddings) and side.which == "input" and not side.provenance.tied:
        raise InputError(
            f"{name}_norm is the norm before the unembedding, but {side.name} is the input embedding of a "
            "model that does not tie the two: give the unembedding (embgeom.load(model, 'output') or "
            f"Embeddings.from_array(..., which='output')), or leave {name}_norm out"
        )


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

    matrix: Float32Matrix
    rows: RowNumbers
    norm: FinalNorm | None
    factors: npt.NDArray[np.float64] | None

    @classmethod
    def prepare(
        cls, matrix: Float32Matrix, rows: RowNumbers, norm: FinalNorm | None, normalize: bool
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
