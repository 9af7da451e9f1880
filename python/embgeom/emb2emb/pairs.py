"""Which rows of two models belong together, and which of them are held out."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers, as_matrix, as_row_numbers
from embgeom._common.checks import check_seed, real_number
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.vocabulary import match, require_shared
from embgeom.errors import InputError
from embgeom.geometry.rows import row_stats

FEWEST_TOKENS = 4


@dataclass(frozen=True, eq=False)
class Pairs:
    """Paired rows of two matrices.

    Attributes
    ----------
    source, target : ndarray of float32
        The matrices.
    source_rows, target_rows : ndarray of int64, shape (n,)
        Which rows; entry i of both belongs to one token.
    described : dict
        Both sides, for the provenance.
    names : tuple of str
        What to call the two sides.
    """

    source: Float32Matrix
    target: Float32Matrix
    source_rows: RowNumbers
    target_rows: RowNumbers
    described: dict[str, Any]
    names: tuple[str, str]

    @classmethod
    def from_tokens(
        cls,
        source: Embeddings | npt.ArrayLike,
        target: Embeddings | npt.ArrayLike,
        tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None,
        threads: int,
    ) -> Pairs:
        """Pair the shared tokens of two models, the rows given, or the rows of two arrays one by one.

        Raises
        ------
        InputError
            If there are too few pairs, their numbers differ, only one side is an `Embeddings`, one is an
            input embedding and the other an unembedding, or a value is not finite.
        """
        _check_sides(source, target)
        matrices = [_matrix(side, name, threads) for side, name in ((source, "source"), (target, "target"))]
        described = {
            name: side.to_dict() if isinstance(side, Embeddings) else {"shape": list(matrix.shape)}
            for name, side, matrix in zip(("source", "target"), (source, target), matrices, strict=True)
        }
        names = tuple(
            side.name if isinstance(side, Embeddings) else name
            for side, name in ((source, "source"), (target, "target"))
        )
        if tokens is not None:
            ids = [
                as_row_numbers(rows, len(matrix), f"tokens[{i}]")
                for i, (rows, matrix) in enumerate(zip(_two(tokens), matrices, strict=True))
            ]
        elif isinstance(source, Embeddings) and isinstance(target, Embeddings):
            found = match(source, target)
            require_shared(found)
            ids = [found.ids_a, found.ids_b]
        elif isinstance(source, Embeddings) or isinstance(target, Embeddings):
            raise InputError(
                "an Embeddings and a plain array share no tokens: give two Embeddings, two arrays whose rows "
                "are paired, or tokens=(rows of the source, rows of the target)"
            )
        else:
            ids = [np.arange(len(matrix), dtype=np.int64) for matrix in matrices]
        if len(ids[0]) != len(ids[1]):
            raise InputError(
                f"the source has {len(ids[0])} rows and the target {len(ids[1])}: row i of both must be the "
                "same token (embgeom.match pairs the tokens of two models)"
            )
        if len(ids[0]) < FEWEST_TOKENS:
            raise InputError(f"{len(ids[0])} paired tokens; a map needs {FEWEST_TOKENS} at least")
        return cls(matrices[0], matrices[1], ids[0], ids[1], described, (names[0], names[1]))

    def __len__(self) -> int:
        return len(self.source_rows)

    def split(self, held_out: float, seed: int) -> tuple[RowNumbers, RowNumbers]:
        """Return the places to fit on, and those to hold out, each in ascending order.

        Raises
        ------
        InputError
            If `held_out` is no share in [0, 1), or leaves fewer than two tokens to fit on.
        """
        share = real_number(held_out, "held_out")
        if not 0 <= share < 1:
            raise InputError(f"held_out = {share} is no share of the tokens: it lies in [0, 1)")
        order = np.random.default_rng(check_seed(seed)).permutation(len(self)).astype(np.int64)
        count = max(round(share * len(self)), 1 if share > 0 else 0)
        if len(self) - count < 2:
            raise InputError(f"held_out = {share} of {len(self)} tokens leaves too few to fit on")
        return np.sort(order[count:]), np.sort(order[:count])


def _two(tokens: Any) -> tuple[npt.ArrayLike, npt.ArrayLike]:
    try:
        of_source, of_target = tokens
    except (TypeError, ValueError):
        raise InputError(
            f"tokens = {tokens!r:.40} are not two lists: give (rows of the source, rows of the target)"
        ) from None
    return of_source, of_target


def _matrix(side: Embeddings | npt.ArrayLike, name: str, threads: int) -> Float32Matrix:
    if isinstance(side, Embeddings):
        return side.matrix
    if isinstance(side, str | PathLike):
        raise InputError(f"the {name} is the name {str(side)!r:.80}: load it first, by embgeom.load({name})")
    matrix = as_matrix(side, f"the {name}")
    try:
        row_stats(matrix, threads=threads)
    except InputError as error:
        raise InputError(f"the {name}: {error}") from None
    return matrix


def _check_sides(source: object, target: object) -> None:
    if not (isinstance(source, Embeddings) and isinstance(target, Embeddings)):
        return
    tied = source.provenance.tied or target.provenance.tied
    if source.which != target.which and not tied:
        raise InputError(
            f"{source.name} is the {source.which} and {target.name} the {target.which} matrix of its model: "
            "give the same side of both (embgeom.load(model, 'output'))"
        )
