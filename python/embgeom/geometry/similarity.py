"""Global geometry: whether two models arrange the same tokens alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector, RowNumbers, as_matrix
from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.threads import resolve_threads
from embgeom.errors import InputError
from embgeom.geometry.rows import check_same_tokens, tokens_of


def global_similarity(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    center: bool = False,
    sample: int | None = None,
    include_diagonal: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> float:
    """Correlate the pairwise cosine similarities of the rows of `a` with those of the same rows of `b`.

    1: the same angles between rows in both (one matrix is the other rotated); 0: unrelated. The matrices may
    have different numbers of columns.

    Parameters
    ----------
    a, b : array_like, shapes (n, d_a) and (n, d_b), or Embeddings
        Row i of both is the same token. Rows that are zero in either are left out.
    center : bool
        First subtract the mean of the rows that are used. Embeddings often share a direction, which makes
        all cosines alike; without it, angles distinguish tokens.
    sample : int, optional
        Use this many rows only, drawn without replacement from those that are not zero in either matrix, as
        published figures do; all rows by default.
    include_diagonal : bool
        Count each row's similarity with itself (1 in both) as a pair, too.
    seed : int
        Seed of ``numpy.random.default_rng``, which draws the sample.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    float
        Pearson correlation over all ordered pairs of different rows, in [-1, 1].

    Raises
    ------
    InputError
        If the numbers of rows differ, fewer than 3 rows have a direction, a matrix has the same
        similarity for all pairs, `sample` is less than 3, a value is not finite, or `a` and `b` are
        `Embeddings` with different tokens.

    Notes
    -----
    Exact over all pairs without forming them: with unit rows A and B, the sum of products over pairs is
    ``|A'B|^2`` (squared Frobenius norm). n (d_a d_b + d_a^2 / 2 + d_b^2 / 2) multiply-adds: in float64 for
    fewer than 4096 rows or twice the columns; otherwise in float32 over short sums, which moves the
    correlation by 1e-9 to 1e-7, and by up to 3e-6 where all rows are copies of a few, whose roundings
    do not cancel. Memory besides the input: at most 70 MiB, 1.2 MiB for each thread, and
    16 n bytes.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> a = np.random.default_rng(0).standard_normal((50, 4))
    >>> rotation, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((4, 4)))
    >>> round(embgeom.global_similarity(a, a @ rotation), 6)
    1.0
    """
    first, second = _of_same_tokens(a, b)
    with reporter(progress, "similarity") as report:
        return core.global_similarity(
            first,
            second,
            _draw_sample(sample, first, second, seed),
            center=flag(center, "center"),
            include_diagonal=flag(include_diagonal, "include_diagonal"),
            threads=resolve_threads(threads),
            progress=report,
        )


def _draw_sample(
    sample: int | None, first: Float32Matrix, second: Float32Matrix, seed: int
) -> RowNumbers | None:
    if sample is None:
        return None
    size = whole_number(sample, "sample", 3, hint=": a correlation over pairs needs 3 rows")
    generator = np.random.default_rng(check_seed(seed))
    usable = np.flatnonzero(first.any(axis=1) & second.any(axis=1))
    if size >= len(usable):
        return None
    return np.sort(usable[generator.choice(len(usable), size, replace=False)]).astype(np.int64)


def _of_same_tokens(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Float32Matrix, Float32Matrix]:
    check_same_tokens(tokens_of(a), tokens_of(b))
    first, second = as_matrix(a, "a"), as_matrix(b, "b")
    if len(first) != len(second):
        raise InputError(
            f"a has {len(first)} rows and b has {len(second)}: row i of both must be the same token "
            "(embgeom.match pairs the tokens of two models)"
        )
    return first, second


@dataclass(frozen=True, eq=False)
class UnitRows:
    """A matrix's rows as directions: after subtracting `center`, divided by their length, minus `mean`."""

    matrix: Float32Matrix
    center: Float64Vector
    inverse: Float64Vector  # 1 / length of each row; 0 for those that are left out
    mean: Float64Vector  # of the directions

    def deviations(self, rows: npt.NDArray[np.integer]) -> Float64Matrix:
        """Return the directions of some rows minus their mean over all."""
        found: Float64Matrix = self.matrix[rows] - self.center
        found *= self.inverse[rows, None]
        found -= self.mean
        return found


@dataclass(frozen=True, eq=False)
class SimilarityTerms:
    """What baselines and intervals of `global_similarity` are made of; y are cosines minus their mean.

    `total` and `sums` are those of y_a y_a, y_a y_b and y_b y_b over pairs of different rows: all of them, or
    those of one row, shape (n,). `along` are the sums of y over the pairs of one row, divided by n, and
    `centering` is what each row does to the value by its part in the means that are subtracted.
    """

    value: float
    total: tuple[float, float, float]
    sums: tuple[Float64Vector, Float64Vector, Float64Vector]
    along: tuple[Float64Vector, Float64Vector]
    centering: Float64Vector | None
    a: UnitRows
    b: UnitRows

    @property
    def used(self) -> RowNumbers:
        """The rows that have a direction in both matrices."""
        return np.flatnonzero(self.a.inverse)


def similarity_terms(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    center: bool,
    threads: int | None = None,
    progress: Progress = False,
) -> SimilarityTerms:
    """Return the value of `global_similarity` and, for as much time again, its sums over single rows."""
    first, second = _of_same_tokens(a, b)
    with reporter(progress, "similarity") as report:
        value, total, sums, along, centering, of_a, of_b = core.similarity_terms(
            first,
            second,
            center=flag(center, "center"),
            threads=resolve_threads(threads),
            progress=report,
        )
    effect = centering if center else None
    return SimilarityTerms(value, total, sums, along, effect, UnitRows(first, *of_a), UnitRows(second, *of_b))
