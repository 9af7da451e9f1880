"""Which rows of a matrix were hardly trained, found from rows that are known to be untrained.

A row that training never reached stays where the optimizer left it: in a tied or an output matrix all such
rows are pushed in one direction, in an input matrix they keep their small random start. So a row counts as
untrained that points where known untrained rows (the seeds) point, or that lies close to their mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix
from embgeom._common.threads import in_threads, one_blas_thread

THRESHOLD = 0.5
"""Rows whose similarity to the seeds is above this count as untrained, where there are 64 columns or more."""
FEWEST_SEEDS = 4
MOST_WRONG = {"frequent words": 0.05, "single letters": 0.5}
"""The share of tokens that are trained, by their kind, above which a set of seeds is refused."""
_PIECE = 8192
# Rows that stay in the cache while they are measured.
_FEW = 256
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detection:
    """How untrained rows were found."""

    # Which known rows they were found from; empty where no set of seeds agreed, and nothing was found.
    seeds: str
    n_seeds: int
    # Rows whose similarity is above it count as untrained.
    threshold: float
    # Of each row with the seeds, (V,): the larger of the cosine with their mean direction, after subtracting
    # the mean of ordinary rows, and 1 less the distance to their mean in units of the median row's. 1 for a
    # row like the seeds; NaN where nothing was found.
    similarity: npt.NDArray[np.float32]
    # Share of the seeds that are found from the other half of them: whether they agree, not how many of the
    # untrained rows are found.
    recall: float | None
    # Of other rows that are known to be unused, by their kind: how many were found, of how many.
    others: dict[str, tuple[int, int]]
    # The same for text tokens that are trained, which should not be found: words in lower case early in the
    # vocabulary, and the letters a to z in a vocabulary that is mostly Latin.
    control: dict[str, tuple[int, int]]

    @property
    def mask(self) -> _Mask:
        """Which rows count as untrained, shape (V,)."""
        return np.asarray(self.similarity > self.threshold)


@one_blas_thread()
def detect(
    x: Float32Matrix, candidates: Mapping[str, _Mask], control: Mapping[str, _Mask], *, threads: int = 1
) -> Detection:
    """Find untrained rows from the first of the sets of candidates whose rows agree with each other."""
    # The cosine of random directions has a standard deviation of 1 / sqrt(d): four of them are no chance.
    threshold = max(THRESHOLD, 4 / float(np.sqrt(x.shape[1])))
    whole = _sum_of_rows(x, threads)
    for name, known in candidates.items():
        rows = np.flatnonzero(known)
        if len(rows) < FEWEST_SEEDS:
            continue
        half, other = rows[::2], rows[1::2]
        to_half, to_other, similarity = _similarities(x, whole, (half, other, rows), threshold, threads)
        recall = float(np.mean(np.concatenate([to_half[other], to_other[half]]) > threshold))
        mask = similarity > threshold
        wrong = _found(mask, control)
        # Rows that were trained after all do not find each other; and whatever finds frequent words is wrong,
        # or letters as often as seeds: rows of bytes may be alike because they are bytes.
        if recall < 0.5 or any(hits > MOST_WRONG[kind] * of for kind, (hits, of) in wrong.items()):
            continue
        others = _found(mask, {other: each for other, each in candidates.items() if other != name})
        return Detection(name, len(rows), threshold, similarity, recall, others, wrong)
    nothing = np.full(len(x), np.nan, dtype=np.float32)
    return Detection("", 0, threshold, nothing, None, {}, _found(nothing > threshold, control))


def _found(mask: _Mask, kinds: Mapping[str, _Mask]) -> dict[str, tuple[int, int]]:
    """Return how many rows of each kind were found, of how many, where there are any."""
    return {
        kind: (int(np.count_nonzero(mask & rows)), int(np.count_nonzero(rows)))
        for kind, rows in kinds.items()
        if rows.any()
    }


def _sum_of_rows(x: Float32Matrix, threads: int) -> npt.NDArray[np.float64]:
    # Sums of whole pieces, and what is measured of single rows, do not depend on the number of threads.
    pieces = [x[begin : begin + _PIECE] for begin in range(0, len(x), _PIECE)]
    sums = in_threads(lambda piece: piece.sum(axis=0, dtype=np.float64), pieces, threads)
    return np.asarray(np.sum([np.zeros(x.shape[1]), *sums], axis=0))


def _similarities(
    x: Float32Matrix,
    whole: npt.NDArray[np.float64],
    seeds: Sequence[npt.NDArray[np.intp]],
    threshold: float,
    threads: int,
) -> npt.NDArray[np.float32]:
    """Return the similarity of all rows to each set of seeds, as `Detection.similarity` explains it."""
    centers = np.stack([x[rows].mean(axis=0, dtype=np.float64) for rows in seeds])
    ordinary = np.ones((len(seeds), len(x)), dtype=bool)
    for of_set, rows in zip(ordinary, seeds, strict=True):
        of_set[rows] = False
    similarity = np.zeros(ordinary.shape, dtype=np.float32)
    # Where many rows are untrained they move the mean and the usual distance, so both are taken twice.
    for _ in range(2):
        some = np.flatnonzero(ordinary.any(axis=1))
        if not len(some):
            break
        others = [_sum_of_rows(x[~of_set], threads) for of_set in ordinary[some]]
        means = (whole - others) / np.count_nonzero(ordinary[some], axis=1, keepdims=True)
        similarity[some] = _to_centers(x, whole / len(x), centers[some], means, ordinary[some], threads)
        ordinary[some] &= similarity[some] <= threshold
    return similarity


def _to_centers(
    x: Float32Matrix,
    middle: npt.NDArray[np.float64],
    centers: npt.NDArray[np.float64],
    means: npt.NDArray[np.float64],
    ordinary: _Mask,
    threads: int,
) -> npt.NDArray[np.float32]:
    """Return the similarity of all rows to each center, seen from the mean of its ordinary rows."""
    # All means are near that of all rows, from which deviations are taken once: so little cancels.
    origin = middle.astype(np.float32)
    shifts, directions = (means - origin).astype(np.float32), (centers - means).astype(np.float32)
    lengths = np.linalg.norm(directions, axis=1)
    lengths[lengths == 0] = 1
    square, across = np.einsum("ij,ij->i", shifts, shifts), np.einsum("ij,ij->i", shifts, directions)
    vectors = np.concatenate([shifts, directions]).T.copy()
    cosine, distance = (np.empty((len(x), len(centers)), dtype=np.float32) for _ in range(2))

    def measure(piece: slice) -> None:
        off = x[piece] - origin
        from_origin, products = np.einsum("ij,ij->i", off, off)[:, None], off @ vectors
        squares = from_origin - 2 * products[:, : len(centers)] + square
        # What is left of a row at the mean itself is rounding.
        squares[squares < 1e-6 * (from_origin + square)] = 0
        along, norms = products[:, len(centers) :] - across, np.sqrt(squares)
        np.divide(along, norms * lengths, out=cosine[piece], where=norms > 0)
        cosine[piece][norms == 0] = 0
        distance[piece] = np.sqrt(np.maximum(squares - 2 * along + lengths**2, 0))

    def measure_all(piece: slice) -> None:
        for begin in range(piece.start, piece.stop, _FEW):
            measure(slice(begin, min(begin + _FEW, piece.stop)))

    pieces = [slice(begin, min(begin + _PIECE, len(x))) for begin in range(0, len(x), _PIECE)]
    in_threads(measure_all, pieces, threads)
    usual = np.array([np.median(of[rows]) for of, rows in zip(distance.T, ordinary, strict=True)])
    usual[usual == 0] = 1
    return np.asarray(np.maximum(cosine, 1 - distance / usual.astype(np.float32)).T)
