"""The products of two centered matrices, and what relabeling the rows of one makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector, as_matrix
from embgeom._common.checks import whole_number
from embgeom.comparison.relabeling import Strata, generator
from embgeom.errors import InputError

# Rows are centered and multiplied in pieces, so that no float64 copy of a matrix is made.
_ROWS_AT_A_TIME = 4096
_ROWS_OF_SHORT_SUMS = 1024
# Above this number of tokens, relabeled cross products are drawn from the normal distribution they tend to.
_FEW_TOKENS = 4096
# A drawn nuclear norm takes some d^3 multiply-adds: 50 are drawn of a 600 x 600 matrix, 200 of 378 x 378.
_DRAWN_PRODUCTS = 50 * 600**3
FEWEST_DRAWS = 20
# Normal matrices stand for relabeled ones up to this share of variance that they do not know of.
_MOST_LONG_ROW_SHARE = 0.1


@dataclass(frozen=True)
class Pair:
    """Two matrices with centered columns and rows of mean squared length 1, and the products of columns.

    `p` and `q` are the squared lengths of their rows.
    """

    x: Float32Matrix
    y: Float32Matrix
    p: Float64Vector
    q: Float64Vector
    xx: Float64Matrix
    xy: Float64Matrix
    yy: Float64Matrix

    @classmethod
    def from_arrays(cls, a: npt.ArrayLike, b: npt.ArrayLike) -> Pair:
        x, y = (_standardized(as_matrix(side, name), name) for side, name in ((a, "a"), (b, "b")))
        if len(x) != len(y):
            raise InputError(f"a has {len(x)} rows and b has {len(y)}: row i of both must be the same token")
        d = x.shape[1]
        p, q = np.empty(len(x)), np.empty(len(x))
        products = np.zeros((d + y.shape[1],) * 2)
        # As in the kernels, products of many rows are in float32, over short sums.
        dtype, step = (np.float32, _ROWS_OF_SHORT_SUMS) if len(x) > _FEW_TOKENS else (np.float64, len(x))
        for begin in range(0, len(x), step):
            piece = slice(begin, begin + step)
            both = np.hstack([x[piece], y[piece]], dtype=dtype)
            products += both.T @ both
            for lengths, side in ((p, x), (q, y)):
                lengths[piece] = np.einsum("ij,ij->i", side[piece], side[piece], dtype=np.float64)
        return cls(x, y, p, q, products[:d, :d], products[:d, d:], products[d:, d:])

    def __len__(self) -> int:
        return len(self.x)

    @property
    def effective_n(self) -> float:
        """How many rows of one length would share the squared length as evenly, in the worse model."""
        return min(float(lengths.sum()) ** 2 / float(lengths @ lengths) for lengths in (self.p, self.q))

    def row_terms(self, of: Literal["xx", "xy", "yy"]) -> Float64Vector:
        """Return the shares of single rows in the squared norm of a product, in float32."""
        left, right = (self.x if side == "x" else self.y for side in of)
        return bilinear(left, getattr(self, of), right)


@dataclass(frozen=True)
class Relabeled:
    """What follows from the cross products of relabelings within strata.

    `hsic` are the sums over pairs of U-centered products, `norms` the nuclear norms.
    """

    strata: Strata
    hsic: Float64Vector
    norms: Float64Vector

    @classmethod
    def draw(cls, pair: Pair, labels: npt.NDArray[Any], draws: int, seed: int) -> Relabeled:
        n, strata = len(pair), Strata.from_labels(labels)
        draws = whole_number(draws, "draws", 2)
        random = generator(seed, "products")
        if n > _FEW_TOKENS:
            draws = min(draws, FEWEST_DRAWS)
        hsic, norms = np.empty(draws), np.empty(draws)
        for i in range(draws):
            order = strata.draw(random, 1)[0]
            cross = np.zeros(pair.xy.shape)
            for piece in _pieces(n):
                cross += pair.x[piece].T @ pair.y[order[piece]]
            diagonal = n / (n - 2.0) * float(pair.p @ pair.q[order])
            constant = pair.p.sum() * pair.q.sum() / ((n - 1.0) * (n - 2.0))
            hsic[i] = np.sum(cross * cross) - diagonal + constant
            norms[i] = _nuclear_norm(cross)
        return cls(strata, hsic, norms)

    @classmethod
    def of_all(cls, pair: Pair, draws: int, seed: int) -> Relabeled:
        """Exchange all tokens."""
        return cls.draw(pair, np.zeros(len(pair), dtype=np.int64), draws, seed)

    def sums_over_strata(self, x: Float32Matrix, p: Float64Vector) -> Float64Matrix:
        """Return the sums of one model's U-centered products over the pairs i != j of each two strata."""
        parts, sizes = self.strata.parts(), self.strata.sizes
        rows = np.stack([x[self.strata.order[part]].sum(axis=0, dtype=np.float64) for part in parts])
        c, lengths = (np.add.reduceat(v[self.strata.order], self.strata.begins) for v in (shift(p), p))
        sums: Float64Matrix = rows @ rows.T - np.outer(c, sizes) - np.outer(sizes, c)
        sums[np.diag_indices(len(sums))] += 2.0 * c - lengths
        return sums


def bilinear(left: Float32Matrix, matrix: Float64Matrix, right: Float32Matrix) -> Float64Vector:
    """Return l_i' M r_i for each row, in float32: enough for intervals."""
    narrow = matrix.astype(np.float32)
    terms = [row_dots(left[piece] @ narrow, right[piece]) for piece in _pieces(len(left))]
    return np.concatenate(terms).astype(np.float64)


def row_dots(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the inner product of each row with the same row of another matrix."""
    return np.asarray(np.einsum("ij,ij->i", left, right))


def _pieces(n: int) -> list[slice]:
    return [slice(begin, begin + _ROWS_AT_A_TIME) for begin in range(0, n, _ROWS_AT_A_TIME)]


def check_rows(matrix: Float32Matrix, name: str) -> None:
    """Raise `InputError` if rows are not finite, or are all equal."""
    if not np.isfinite(matrix).all():
        row = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise InputError(f"{name}: row {row} holds a number that is not finite")
    if (matrix == matrix[:1]).all():
        raise InputError(f"all rows of {name} are equal, so that nothing can be compared")


def _standardized(matrix: Float32Matrix, name: str) -> Float32Matrix:
    """Return the matrix with its mean row subtracted and divided by its Frobenius norm over sqrt(n)."""
    n = len(matrix)
    if n < 4:
        raise InputError(f"{name} has {n} rows; the measures of the panel need 4")
    check_rows(matrix, name)
    mean = matrix.mean(axis=0, dtype=np.float64)
    result, square = np.empty_like(matrix), 0.0
    # Each matrix is scaled first: squares of large numbers overflow float32.
    largest = float(np.abs(matrix).max())
    for piece in _pieces(n):
        rows = (matrix[piece] - mean) / largest
        square += float(np.vdot(rows, rows))
        result[piece] = rows
    result *= np.float32(1.0 / math.sqrt(square / n))
    return result


def relabeled_norms(pair: Pair, draws: int, seed: int) -> Float64Vector:
    """Return nuclear norms of relabeled cross products, or of normal matrices where those tend to them."""
    d_a, d_b = pair.xy.shape
    most = int(_DRAWN_PRODUCTS / (float(d_a) * d_b * min(d_a, d_b)))
    draws = min(whole_number(draws, "draws", 2), max(most, FEWEST_DRAWS))
    if len(pair) > _FEW_TOKENS and _long_row_share(pair) < _MOST_LONG_ROW_SHARE:
        return _normal_norms(pair, draws, seed)
    return Relabeled.of_all(pair, draws, seed).norms


def _normal_norms(pair: Pair, draws: int, seed: int) -> Float64Vector:
    """Return nuclear norms of normal matrices with the covariance of a relabeled cross product."""
    # Singular values do not change with rotations, so variances along principal axes are all that matters.
    random = generator(seed, "normal products")
    spread_x, spread_y = (
        np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0.0)) for products in (pair.xx, pair.yy)
    )
    spread = np.outer(spread_x, spread_y) / math.sqrt(len(pair) - 1.0)
    drawn = (spread * random.standard_normal(spread.shape) for _ in range(draws))
    return np.array([_nuclear_norm(matrix) for matrix in drawn])


def _long_row_share(pair: Pair) -> float:
    """Return how much of the variance of |X'PY|^2 comes from what a token's own two lengths multiply to."""
    # A normal matrix knows nothing of it: with few long rows, the sum depends on whether they meet.
    n, share = len(pair), 1.0 / (2.0 * len(pair))
    for lengths, products in ((pair.p, pair.xx), (pair.q, pair.yy)):
        share *= (n * float(lengths @ lengths) / float(lengths.sum()) ** 2 - 1.0) * (
            float(np.trace(products)) ** 2 / float(np.sum(products * products))
        )
    return share


def shift(p: Float64Vector) -> Float64Vector:
    """Return the c_i of the U-centered products x_i x_j - c_i - c_j, whose rows sum to 0."""
    n = float(len(p))
    return np.asarray(p.sum() / (2.0 * (n - 1.0) * (n - 2.0)) - p / (n - 2.0))


def _nuclear_norm(matrix: Float64Matrix) -> float:
    # Eigenvalues of the product take a third of the time of singular values, whose sum they give to 1e-8.
    product = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0.0)).sum())
