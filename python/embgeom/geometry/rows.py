"""What there is to know of a matrix's rows before measuring anything: lengths, zero rows, equal rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_matrix
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.threads import resolve_threads


@dataclass(frozen=True, eq=False, repr=False)
class RowStats:
    """The rows of a matrix of n rows, looked at one by one.

    Attributes
    ----------
    norms : ndarray of float64, shape (n,)
        Euclidean length of each row.
    first_equal : ndarray of int64, shape (n,)
        The first row that holds the same numbers (0.0 and -0.0 are the same): the row's own number for
        all but repeated rows.
    """

    norms: npt.NDArray[np.float64]
    first_equal: npt.NDArray[np.int64]

    def __repr__(self) -> str:
        zero, repeated = np.count_nonzero(self.zero), np.count_nonzero(self.repeated)
        return f"RowStats({len(self.norms)} rows, {zero} zero, {repeated} equal to an earlier one)"

    @property
    def zero(self) -> npt.NDArray[np.bool_]:
        """Which rows are zero, shape (n,): they have no direction, hence no cosine similarity."""
        zero: npt.NDArray[np.bool_] = self.norms == 0.0
        return zero

    @property
    def repeated(self) -> npt.NDArray[np.bool_]:
        """Which rows equal an earlier row, shape (n,)."""
        repeated: npt.NDArray[np.bool_] = self.first_equal != np.arange(len(self.first_equal))
        return repeated


def row_stats(x: npt.ArrayLike, *, threads: int | None = None, progress: Progress = False) -> RowStats:
    """Measure the rows of `x`, find the zero and the repeated ones, and refuse what is not finite.

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        Real numbers; anything but float32 is converted to it once.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

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
    >>> scan = embgeom.row_stats([[3.0, 4.0], [0.0, 0.0], [3.0, 4.0]])
    >>> scan.norms.tolist(), scan.first_equal.tolist()
    ([5.0, 0.0, 5.0], [0, 1, 0])
    """
    matrix = as_matrix(x)
    with reporter(progress, "rows") as report:
        norms, first_equal = core.row_stats(matrix, threads=resolve_threads(threads), progress=report)
    return RowStats(norms, first_equal)
