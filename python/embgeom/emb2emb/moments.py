"""The sums over a vocabulary from which a map is fitted: one pass over both matrices, by the kernel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embgeom._common.arrays import Float64Matrix, Float64Vector
from embgeom._common.native import core
from embgeom._common.progress import ProgressCallable
from embgeom.emb2emb.rows import PreparedRows


@dataclass(frozen=True, eq=False)
class Moments:
    """Weighted sums over pairs of rows x (d_x) and y (d_y).

    ``xx``, ``xy`` and ``yy`` are the sums of x x', x y' and y y', of deviations from the weighted means
    where `centered`; otherwise ``x_mean`` and ``y_mean`` are zero. ``count`` is the number of pairs of
    weight above 0.
    """

    xx: Float64Matrix
    xy: Float64Matrix
    yy: Float64Matrix
    x_mean: Float64Vector
    y_mean: Float64Vector
    count: int
    centered: bool

    @cached_property
    def spectrum(self) -> tuple[Float64Vector, Float64Matrix]:
        """Eigenvalues of xx, ascending and none below zero, and its eigenvectors by column."""
        values, vectors = np.linalg.eigh(self.xx)
        return np.maximum(values, 0.0), vectors

    def swapped(self) -> Moments:
        return Moments(self.yy, self.xy.T, self.xx, self.y_mean, self.x_mean, self.count, self.centered)


def gather(
    source: PreparedRows,
    target: PreparedRows,
    *,
    weights: Float64Vector | None,
    center: bool,
    threads: int,
    progress: ProgressCallable | None,
) -> Moments:
    """Add up the moments of paired rows; weights have mean 1, so that sums compare with unweighted ones."""
    xx, xy, yy, x_sum, y_sum = core.paired_products(
        source.matrix,
        target.matrix,
        source.rows,
        target.rows,
        x_factors=source.factors,
        y_factors=target.factors,
        roots=None if weights is None else np.sqrt(weights),
        threads=threads,
        progress=progress,
    )
    xx, xy, yy = source.fold_both(xx, source), source.fold_both(xy, target), target.fold_both(yy, target)
    total = float(len(source)) if weights is None else float(weights.sum())
    x_mean, y_mean = source.fold(x_sum) / total, target.fold(y_sum) / total
    if center:
        xx -= total * np.outer(x_mean, x_mean)
        xy -= total * np.outer(x_mean, y_mean)
        yy -= total * np.outer(y_mean, y_mean)
    else:
        x_mean, y_mean = np.zeros_like(x_mean), np.zeros_like(y_mean)
    count = len(source) if weights is None else int(np.count_nonzero(weights))
    return Moments(xx, xy, yy, x_mean, y_mean, count, center)
