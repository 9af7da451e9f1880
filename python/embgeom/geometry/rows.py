"""A matrix's rows: norms, zero rows, equal rows, and the tokens that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, RowNumbers, as_matrix
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, distribution
from embgeom._common.threads import in_threads, resolve_threads
from embgeom.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class RowStats(Result, Tabular):
    """Facts on each row of a matrix of n rows; returned by `row_stats`.

    Attributes
    ----------
    norms : ndarray of float64, shape (n,)
        Euclidean norm of each row.
    first_equal : ndarray of int64, shape (n,)
        The first row that holds the same numbers (0.0 and -0.0 are the same): the row's own number unless
        an earlier row equals it.
    """

    _large: ClassVar[bool] = True

    norms: Float64Vector
    first_equal: RowNumbers

    def __repr__(self) -> str:
        zero, repeated = np.count_nonzero(self.zero), np.count_nonzero(self.repeated)
        return f"RowStats({len(self.norms)} rows, {zero} zero, {repeated} equal to an earlier one)"

    # Kept, since a loop over rows asks for them once for each.
    @cached_property
    def zero(self) -> npt.NDArray[np.bool_]:
        """Which rows are zero, shape (n,): they have no direction, hence no cosine similarity."""
        zero: npt.NDArray[np.bool_] = self.norms == 0.0
        zero.flags.writeable = False
        return zero

    @cached_property
    def repeated(self) -> npt.NDArray[np.bool_]:
        """Which rows equal an earlier row, shape (n,)."""
        repeated: npt.NDArray[np.bool_] = self.first_equal != np.arange(len(self.first_equal))
        repeated.flags.writeable = False
        return repeated

    def tables(self) -> list[Block]:
        """Return the counts and the quantiles of the norms."""
        return [repr(self), distribution({"norm": self.norms})]

    def columns(self) -> Columns:
        """Return a row for each row of the matrix."""
        return {
            "norm": self.norms,
            "zero": self.zero,
            "first_equal": self.first_equal,
            "repeated": self.repeated,
        }


def row_stats(x: npt.ArrayLike, *, threads: int | None = None, progress: Progress = False) -> RowStats:
    """Measure the rows of `x`, find zero and repeated ones, and refuse numbers that are not finite.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        Real numbers; anything but float32 is converted to it once.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    RowStats

    Raises
    ------
    InputError
        If a value is NaN or infinite; the message names the first such row and column.

    Notes
    -----
    O(n d) time, O(n) memory.

    Examples
    --------
    >>> import embgeom
    >>> stats = embgeom.row_stats([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]])
    >>> stats.norms.tolist(), stats.first_equal.tolist()
    ([5.0, 0.0, 5.0], [0, 1, 0])
    """
    matrix = as_matrix(x)
    with reporter(progress, "rows") as report:
        norms, first_equal = core.row_stats(matrix, threads=resolve_threads(threads), progress=report)
    return RowStats(norms, first_equal)


# Rows that are converted to float64 at a time.
_PIECE = 1024


def mean_row(matrix: Float32Matrix, threads: int | None = None) -> Float64Vector:
    """Return the float64 mean of the rows that are not zero, and refuse numbers that are not finite."""

    def add_up(begin: int) -> tuple[Float64Vector, int]:
        piece = matrix[begin : begin + _PIECE]
        with np.errstate(invalid="ignore"):
            return piece.sum(axis=0, dtype=np.float64), int(np.count_nonzero(piece.any(axis=1)))

    total, count = np.zeros(matrix.shape[1]), 0
    with np.errstate(invalid="ignore"):
        for of_piece, rows in in_threads(add_up, range(0, len(matrix), _PIECE), threads):
            total += of_piece
            count += rows
    if not np.isfinite(total).all():
        row_stats(matrix)  # It names the row and the column.
    mean: Float64Vector = total / max(count, 1)
    return mean


def centered(
    matrix: Float32Matrix, mean: Float64Vector | None = None, threads: int | None = None
) -> Float32Matrix:
    """Return the rows minus their mean, or another one, rounded to float32 once; zero rows stay zero."""
    middle = mean_row(matrix, threads) if mean is None else mean
    result = np.empty_like(matrix)

    def subtract(begin: int) -> None:
        piece, out = matrix[begin : begin + _PIECE], result[begin : begin + _PIECE]
        # The kernels report what overflows.
        with np.errstate(over="ignore"):
            np.subtract(piece, middle, out=out, casting="same_kind")
        out[~piece.any(axis=1)] = 0.0

    in_threads(subtract, range(0, len(matrix), _PIECE), threads)
    return result


def tokens_of(x: object) -> list[str] | None:
    """Return the tokens that the rows stand for where `x` knows them, as an `Embeddings` does."""
    return x.tokens if hasattr(x, "tokens") and hasattr(x, "token_bytes") else None


def check_same_tokens(a: list[str] | None, b: list[str] | None) -> None:
    """Refuse rows that are known to stand for different tokens: comparing them means nothing."""
    if a is None or b is None or a is b or a == b:
        return
    if len(a) != len(b):
        differ = f"{len(a)} rows and {len(b)}"
    else:
        row = next(i for i, (one, other) in enumerate(zip(a, b, strict=True)) if one != other)
        differ = f"row {row} is {a[row]!r} and {b[row]!r}"
    raise InputError(
        f"the rows are different tokens ({differ}): take the same tokens of both by "
        "ids_a, ids_b = embgeom.match(a, b), then a.matrix[ids_a] and b.matrix[ids_b]"
    )


def token_columns(rows: npt.NDArray[np.integer[Any]], tokens: list[str] | None, name: str = "") -> Columns:
    """Return a column of row numbers, and one of their tokens where those are known; -1 stands for none."""
    row, token = (f"{name}_row", f"{name}_token") if name else ("row", "token")
    if tokens is None:
        return {row: rows}
    return {row: rows, token: [tokens[number] if number >= 0 else None for number in rows.tolist()]}
