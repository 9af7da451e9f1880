"""Rows of a model as the map sees them: folded, scaled to length 1, never copied as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from embgeom._common.arrays import Float32Matrix, Float64Matrix, RowNumbers
from embgeom.embeddings.norm import FinalNorm
from embgeom.errors import InputError

_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class PreparedRows:
    """Rows `rows` of `matrix` (V, d), with `norm` folded in and each multiplied by its factor."""

    matrix: Float32Matrix
    rows: RowNumbers
    norm: FinalNorm | None = None
    factors: Float64Matrix | None = None

    @classmethod
    def prepare(
        cls, matrix: Float32Matrix, rows: RowNumbers, norm: FinalNorm | None, normalize: bool
    ) -> PreparedRows:
        """Return the rows with a norm folded in and, if asked, scaled to length 1."""
        if norm is not None and len(norm.weight) != matrix.shape[1]:
            raise InputError(
                f"the final norm has {len(norm.weight)} weights, but the matrix {matrix.shape[1]} columns"
            )
        prepared = cls(matrix, rows, norm)
        if not normalize:
            return prepared
        lengths = np.concatenate(
            [np.linalg.norm(prepared.take(piece), axis=1) for piece in prepared.pieces()]
        )
        return replace(prepared, factors=np.divide(1.0, lengths, out=np.zeros(len(rows)), where=lengths > 0))

    def __len__(self) -> int:
        return len(self.rows)

    def pieces(self) -> list[slice]:
        return [slice(begin, begin + _CHUNK) for begin in range(0, len(self), _CHUNK)]

    def take(self, positions: slice | RowNumbers) -> Float64Matrix:
        """Return the prepared rows at some positions in `rows`, float64."""
        taken = self.fold(self.matrix[self.rows[positions]].astype(np.float64))
        return taken if self.factors is None else taken * self.factors[positions, None]

    def choose(self, positions: RowNumbers) -> PreparedRows:
        factors = None if self.factors is None else self.factors[positions]
        return replace(self, rows=self.rows[positions], factors=factors)

    def mean(self) -> Float64Matrix:
        total = np.zeros(self.matrix.shape[1])
        for piece in self.pieces():
            total += self.take(piece).sum(axis=0)
        return total / len(self)

    def deviations(self, mean: Float64Matrix, out: Float32Matrix | None = None) -> Float32Matrix:
        """Return all prepared rows minus a mean, as float32; in float64 they would take too much memory."""
        if out is None:
            out = np.empty((len(self), len(mean)), dtype=np.float32)
        for piece in self.pieces():
            out[piece] = self.take(piece) - mean
        return out

    def fold(self, vectors: Float64Matrix) -> Float64Matrix:
        return vectors if self.norm is None else self.norm.fold(vectors)

    def fold_both(self, sums: Float64Matrix, other: PreparedRows) -> Float64Matrix:
        """Fold sums of products x y' of rows of this and of another matrix: folding is linear."""
        return np.asarray(self.fold(other.fold(sums).T).T)
