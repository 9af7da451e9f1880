"""From moments to a matrix A with y ~ x A: one function for each method.

The vocabulary is not seen any more: all is linear algebra in float64 on d x d matrices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Matrix, Float64Vector
from embgeom.emb2emb.moments import Moments
from embgeom.errors import InputError

Method = Literal["least_squares", "ridge", "procrustes", "low_rank", "lle"]
LINEAR = ("least_squares", "ridge", "procrustes", "low_rank")

# Ridge strengths that are tried, relative to the mean eigenvalue of x'x.
STRENGTHS = np.logspace(-9, 4, 66)
# The share of the fitted variance that a low-rank map keeps where no rank is given.
KEPT_VARIANCE = 0.95


@dataclass(frozen=True, eq=False)
class Solution:
    """A matrix, and what is worth knowing of how it was found."""

    matrix: Float64Matrix
    facts: dict[str, Any] = field(default_factory=dict)


def solve(
    moments: Moments, method: Method, *, ridge: float | None, rank: int | None, scaled: bool
) -> Solution:
    """Fit a map by one of the linear methods.

    Parameters
    ----------
    moments : Moments
        Of the pairs.
    method : {"least_squares", "ridge", "procrustes", "low_rank"}
        How.
    ridge : float, optional
        The strength for "ridge" and "low_rank", relative to the mean eigenvalue of x'x; by default the best
        of `STRENGTHS` by generalised cross-validation.
    rank : int, optional
        For "low_rank"; by default the fewest directions that keep 95 % of the fitted variance.
    scaled : bool
        Whether "procrustes" may scale.

    Returns
    -------
    Solution
        The matrix (d_x, d_y) float64.

    Raises
    ------
    InputError
        If the method is unknown.
    """
    if method == "least_squares":
        return least_squares(moments)
    if method == "ridge":
        return ridge_regression(moments, ridge)
    if method == "procrustes":
        return procrustes(moments, scaled)
    if method == "low_rank":
        return low_rank(moments, ridge, rank)
    raise InputError(f"method = {method!r} is unknown: use one of {', '.join(get_args(Method))}")


def least_squares(moments: Moments) -> Solution:
    """Return the least-squares map, of smallest norm where x'x determines no single one; its rank is told."""
    values, _ = moments.spectrum
    # Singular values of x below some 7e-7 of the largest (d = 2,048) are noise of float32 rows.
    tolerance = values[-1] * len(values) * np.finfo(np.float64).eps
    determined = values > tolerance
    rank = int(determined.sum())
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=determined)
    return Solution(_filtered(moments, inverse), {"rank": rank})


def ridge_regression(moments: Moments, ridge: float | None) -> Solution:
    """Return (x'x + s I)^-1 x'y with s = ridge times the mean eigenvalue of x'x."""
    values, _ = moments.spectrum
    scale = float(values.mean())
    facts: dict[str, Any] = {}
    if ridge is None:
        losses = gcv(moments, STRENGTHS * scale)
        ridge = float(STRENGTHS[int(np.argmin(losses))])
        facts["gcv"] = float(losses.min())
    strength = ridge * scale
    facts |= {"ridge": ridge, "degrees_of_freedom": float((values / (values + strength)).sum())}
    return Solution(_filtered(moments, 1.0 / (values + strength)), facts)


def gcv(moments: Moments, strengths: npt.NDArray[np.float64]) -> Float64Vector:
    """Return the generalised cross-validation score of each ridge strength.

    n RSS / (n - degrees of freedom)^2, an estimate of the squared error on tokens that were left out; all
    strengths from one eigendecomposition (Golub, Heath & Wahba 1979).
    """
    values, vectors = moments.spectrum
    seen = np.square(vectors.T @ moments.xy).sum(axis=1)  # |q_i' x'y|^2 for each eigenvector
    shrunk = 1.0 / (values[None, :] + strengths[:, None])
    residual = np.trace(moments.yy) - (seen * (2.0 * shrunk - values * shrunk**2)).sum(axis=1)
    freedom = (values * shrunk).sum(axis=1) + float(moments.centered)
    # With no freedom left, nothing is known about other tokens.
    left = np.maximum(moments.count - freedom, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = moments.count * np.maximum(residual, 0.0) / left**2
    return np.where(left > 1e-6 * moments.count, scores, np.inf)


def procrustes(moments: Moments, scaled: bool) -> Solution:
    """Return the matrix A with orthonormal rows or columns whose x A agrees most with y, scaled if wished.

    Of all such matrices this one has the greatest trace of A'x'y (Schoenemann 1966). With orthonormal rows,
    where y is at least as wide as x, that is the least squared error; with orthonormal columns x A is a
    projection of x, whose length depends on A, and no closed form is known for the least error. The scale is
    the one of least error for this A.
    """
    left, singular, right = np.linalg.svd(moments.xy, full_matrices=False)
    turn = left @ right
    if not scaled:
        return Solution(turn, {"scale": 1.0})
    length = float(np.sum((moments.xx @ turn) * turn))
    scale = float(singular.sum() / length) if length > 0 else 0.0
    return Solution(scale * turn, {"scale": scale})


def low_rank(moments: Moments, ridge: float | None, rank: int | None) -> Solution:
    """Return the ridge map, followed by a projection on the directions in which its fitted y vary most."""
    full = ridge_regression(moments, ridge)
    values, directions = np.linalg.eigh(full.matrix.T @ moments.xx @ full.matrix)
    values, directions = np.maximum(values[::-1], 0.0), directions[:, ::-1]
    if rank is None:
        rank = 1 + int(np.searchsorted(np.cumsum(values), KEPT_VARIANCE * values.sum()))
    # More directions than the narrower side has would be noughts.
    kept = directions[:, : min(rank, *full.matrix.shape)]
    return Solution(full.matrix @ kept @ kept.T, full.facts | {"rank": kept.shape[1]})


def dual(matrix: Float64Matrix) -> Float64Matrix:
    """Return the pseudo-inverse of a map's matrix, transposed: of the same shape.

    Directions that a fit determines by rounding alone (few tokens, a rank, a folded LayerNorm) are not
    inverted.
    """
    # They lie far below, what a fit from float32 rows determines far above this share of the largest.
    return np.asarray(np.linalg.pinv(matrix, rcond=1e-8).T)


def _filtered(moments: Moments, filters: Float64Vector) -> Float64Matrix:
    _, vectors = moments.spectrum
    return np.asarray((vectors * filters) @ (vectors.T @ moments.xy))
