"""Which rows of two models belong together, how much each pair counts, and which are held out.

Rows are as the map sees them: folded, scaled to length 1, never copied as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import (
    Float32Matrix,
    Float64Matrix,
    Float64Vector,
    RowNumbers,
    as_matrix,
    as_real_array,
    as_row_numbers,
)
from embgeom._common.checks import real_number
from embgeom._common.record import array_digest
from embgeom.comparison.tokens import shared_rows
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.norm import FinalNorm
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError
from embgeom.geometry.rows import row_stats

_CHUNK = 4096
FEWEST_TOKENS = 4
Norms = tuple[FinalNorm | None, FinalNorm | None]


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

    def digests(self) -> list[Any]:
        """Return the SHA-256 of everything that decides on the rows."""
        norm = None if self.norm is None else [array_digest(self.norm.weight), self.norm.centers]
        factors = None if self.factors is None else array_digest(self.factors)
        return [array_digest(self.matrix), array_digest(self.rows), norm, factors]

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


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models: its matrix, and what is known of it."""

    matrix: Float32Matrix
    name: str
    info: ModelInfo
    description: dict[str, Any]

    @classmethod
    def read(cls, given: Embeddings | npt.ArrayLike, name: str, threads: int) -> Side:
        if isinstance(given, Embeddings):
            return cls(given.matrix, given.name, given.model_info, given.to_dict())
        if isinstance(given, str | PathLike):
            raise InputError(
                f"the {name} is the name {str(given)!r:.80}: load it first, by embgeom.load({name})"
            )
        matrix = as_matrix(given, f"the {name}")
        try:
            row_stats(matrix, threads=threads)
        except InputError as error:
            raise InputError(f"the {name}: {error}") from None
        return cls(matrix, name, ModelInfo(hidden_size=matrix.shape[1]), {"shape": list(matrix.shape)})


@dataclass(frozen=True, eq=False)
class Pairs:
    """Prepared rows of both models, of which row i belongs to one token."""

    source: PreparedRows
    target: PreparedRows

    def __len__(self) -> int:
        return len(self.target)

    def choose(self, positions: RowNumbers) -> Pairs:
        return Pairs(self.source.choose(positions), self.target.choose(positions))

    def shuffled(self, seed: int) -> Pairs:
        """Return the source rows, each paired with the target row of a random token."""
        order = np.random.default_rng([seed, 1]).permutation(len(self))
        return Pairs(self.source, self.target.choose(order.astype(np.int64)))


def pair_rows(
    source: Embeddings | npt.ArrayLike,
    target: Embeddings | npt.ArrayLike,
    sides: tuple[Side, Side],
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    threads: int,
) -> tuple[RowNumbers, RowNumbers]:
    """Return the rows given, those of the shared tokens that count, or all rows of two arrays."""
    rows: list[RowNumbers]
    if tokens is not None:
        both = zip(pair_of(tokens, "tokens", "rows"), sides, strict=True)
        rows = [as_row_numbers(ids, len(side.matrix), f"tokens[{i}]") for i, (ids, side) in enumerate(both)]
    elif isinstance(source, Embeddings) and isinstance(target, Embeddings):
        rows = list(shared_rows(source, target, threads=threads))
    elif isinstance(source, Embeddings) or isinstance(target, Embeddings):
        raise InputError(
            "an Embeddings and a plain array share no tokens: give two Embeddings, two arrays whose rows "
            "are paired, or tokens=(rows of the source, rows of the target)"
        )
    else:
        rows = [np.arange(len(side.matrix), dtype=np.int64) for side in sides]
    if len(rows[0]) != len(rows[1]):
        raise InputError(
            f"the source has {len(rows[0])} rows and the target {len(rows[1])}: row i of both must be the "
            "same token (embgeom.match pairs the tokens of two models)"
        )
    if len(rows[0]) < FEWEST_TOKENS:
        raise InputError(f"{len(rows[0])} paired tokens; a map needs {FEWEST_TOKENS} at least")
    return rows[0], rows[1]


def split(count: int, held_out: float, seed: int, what: str = "tokens") -> tuple[RowNumbers, RowNumbers]:
    """Return the positions to fit on, and those to hold out, each in ascending order."""
    share = real_number(held_out, "held_out")
    if not 0 <= share < 1:
        raise InputError(f"held_out = {share} is not a share of the {what}: it lies in [0, 1)")
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    held = max(round(share * count), 1 if share > 0 else 0)
    if count - held < 2:
        raise InputError(f"held_out = {share} of {count} {what} leaves too few to fit on")
    return np.sort(order[held:]), np.sort(order[:held])


def draw(positions: RowNumbers, most: int, seed: list[int]) -> RowNumbers:
    """Return the positions, or `most` of them in their order."""
    if len(positions) <= most:
        return positions
    return np.sort(np.random.default_rng(seed).choice(positions, most, replace=False))


def check_weights(weights: npt.ArrayLike | None, count: int, method: str) -> Float64Vector | None:
    if weights is None:
        return None
    if method == "lle":
        raise InputError("method 'lle' fits nothing, so weights have no meaning for it")
    values = as_real_array(weights, "weights").astype(np.float64, copy=False)
    if values.shape != (count,):
        raise InputError(
            f"weights must be one number for each of the {count} pairs, not of shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError("weights must be finite, not negative, and not all zero")
    return values


def mean_one(weights: Float64Vector) -> Float64Vector:
    """Scale the weights of the pairs that are fitted on to mean 1."""
    if not weights.any():
        raise InputError("weights are zero for all pairs that are not held out; weigh more pairs")
    # The largest first, so that no sum overflows.
    weights = weights / weights.max()
    return np.asarray(weights / weights.mean())


def check_sides(source: object, target: object, norms: Norms) -> None:
    """Raise InputError for two sides that are not comparable, or a norm that does not belong to its side."""
    for name, side, norm in zip(("source", "target"), (source, target), norms, strict=True):
        if norm is None:
            continue
        if not isinstance(norm, FinalNorm):
            raise InputError(
                f"the {name}'s norm = {norm!r:.40} is not a FinalNorm: make one with "
                "embgeom.load_final_norm(model) or embgeom.FinalNorm.from_weights(weight, kind)"
            )
        if isinstance(side, Embeddings) and side.which == "input" and not side.provenance.tied:
            raise InputError(
                f"the {name}'s norm is the norm before the unembedding, but {side.name} is the input "
                "embedding of a model that does not tie the two: give the unembedding (embgeom.load(model, "
                "'output') or Embeddings.from_array(..., which='output')), or leave that norm out"
            )
    if not (isinstance(source, Embeddings) and isinstance(target, Embeddings)):
        return
    if source.which != target.which and not (source.provenance.tied or target.provenance.tied):
        raise InputError(
            f"{source.name} is the {source.which} and {target.name} the {target.which} matrix of its model: "
            "give the same side of both (embgeom.load(model, 'output'))"
        )


def pair_of(given: Any, name: str, kind: str) -> tuple[Any, Any]:
    try:
        of_source, of_target = given
    except (TypeError, ValueError):
        raise InputError(
            f"{name} = {given!r:.40} are not two: give ({kind} of the source, {kind} of the target)"
        ) from None
    return of_source, of_target
