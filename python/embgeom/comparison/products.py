"""The products of two centered matrices, and what relabeling the rows of one makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector, RowNumbers, as_matrix
from embgeom._common.checks import whole_number
from embgeom._common.native import core
from embgeom._common.threads import in_threads, keep_going, resolve_threads
from embgeom.comparison.relabeling import Strata, generator
from embgeom.errors import InputError

# Rows are centered and multiplied in pieces, so that no float64 copy of a matrix is made.
_ROWS_AT_A_TIME = 4096
# So many in float64 stay in the cache.
_FEW_ROWS = 128
# Above this number of tokens, relabeled cross products are drawn from the normal distribution they tend to.
_FEW_TOKENS = 4096
# A drawn nuclear norm takes some d^3 multiply-adds: 20 are drawn of a 600 x 600 matrix, 200 of 278 x 278.
_DRAWN_PRODUCTS = 20 * 600**3
FEWEST_DRAWS = 20
# Of many tokens, strata are dealt out to so many bundles, if their cross products take no more than 256 MiB.
_BUNDLES = 24
_MOST_STORED = 1 << 26
_COMBINED_DRAWS = 40
# Normal matrices stand for relabeled ones up to this share of variance that they do not know of.
_MOST_LONG_ROW_SHARE = 0.1


@dataclass(frozen=True)
class Pair:
    """Two matrices with centered columns and rows of mean squared length 1, and the products of columns.

    `p` and `q` are the squared lengths of their rows, `terms` the shares of single rows in the squared norms
    of `xx`, `xy` and `yy`.
    """

    x: Float32Matrix
    y: Float32Matrix
    p: Float64Vector
    q: Float64Vector
    xx: Float64Matrix
    xy: Float64Matrix
    yy: Float64Matrix
    terms: tuple[Float64Vector, Float64Vector, Float64Vector]

    @classmethod
    def from_arrays(cls, a: npt.ArrayLike, b: npt.ArrayLike, threads: int | None) -> Pair:
        x, y = (_standardized(as_matrix(side, name), name, threads) for side, name in ((a, "a"), (b, "b")))
        if len(x) != len(y):
            raise InputError(f"a has {len(x)} rows and b has {len(y)}: row i of both must be the same token")
        products, terms = core.row_products(x, y, threads=resolve_threads(threads), progress=keep_going)
        p, q = (np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (x, y))
        return cls(x, y, p, q, *products, terms)

    def __len__(self) -> int:
        return len(self.x)

    def met(self, rows: RowNumbers, order: npt.NDArray[Any]) -> tuple[Float32Matrix, float]:
        """Return the cross product of some tokens with those they are relabeled as, and the sum of p q."""
        others, cross = order[rows], np.zeros(self.xy.shape)
        for piece in _pieces(len(rows)):
            keep_going()
            cross += self.x[rows[piece]].T @ self.y[others[piece]]
        return cross.astype(np.float32), float(self.p[rows] @ self.q[others])

    def measured(self, cross: npt.NDArray[Any], meeting: float) -> tuple[float, float]:
        """Return the sum over pairs of U-centered products of a relabeling, and its nuclear norm."""
        n, wide = len(self), cross.astype(np.float64)
        constant = float(self.p.sum() * self.q.sum()) / ((n - 1.0) * (n - 2.0))
        hsic = float(np.sum(wide * wide)) - n / (n - 2.0) * meeting + constant
        return hsic, _nuclear_norm(wide)

    @property
    def effective_n(self) -> float:
        """How many rows of one length would share the squared length as evenly, in the worse model."""
        return min(float(lengths.sum()) ** 2 / float(lengths @ lengths) for lengths in (self.p, self.q))


@dataclass(frozen=True)
class Relabeled:
    """What follows from the cross products of relabelings within strata.

    `hsic` are the sums over pairs of U-centered products, `norms` the nuclear norms: a row for each group of
    relabelings that are independent of each other.
    """

    strata: Strata
    hsic: Float64Matrix
    norms: Float64Matrix

    @classmethod
    def draw(
        cls, pair: Pair, labels: npt.NDArray[Any], draws: int, seed: int, threads: int | None
    ) -> Relabeled:
        """Relabel as often as asked for few tokens; or relabel bundles of strata, and combine these."""
        strata = Strata.from_labels(labels)
        draws, random = whole_number(draws, "draws", 2), generator(seed, "products")
        if len(pair) > _FEW_TOKENS and len(strata) > 1:
            draws = min(draws, FEWEST_DRAWS)
        bundles, versions = _bundles(pair, strata, draws)
        orders = [strata.draw(random, 1)[0] for _ in range(versions)]
        if len(bundles) == 1:
            found = in_threads(lambda order: pair.measured(*pair.met(bundles[0], order)), orders, threads)
        else:
            met = in_threads(
                lambda task: pair.met(*task), [(rows, order) for rows in bundles for order in orders], threads
            )
            # In a group each version of a bundle is used once, so that no two relabelings share any.
            shifts = random.integers(versions, size=(-(-_COMBINED_DRAWS // versions), 1, len(bundles)))
            chosen = (np.arange(versions)[:, None] + shifts) % versions + np.arange(len(bundles)) * versions
            combined: list[list[int]] = chosen.reshape(-1, len(bundles)).tolist()
            found = in_threads(lambda draw: pair.measured(*_added(met, draw)), combined, threads)
        hsic, norms = np.array(found).T.reshape(2, -1, versions)
        return cls(strata, hsic, norms)

    @classmethod
    def of_all(cls, pair: Pair, draws: int, seed: int, threads: int | None) -> Relabeled:
        """Exchange all tokens."""
        return cls.draw(pair, np.zeros(len(pair), dtype=np.int64), draws, seed, threads)

    def sums_over_strata(self, x: Float32Matrix, p: Float64Vector) -> Float64Matrix:
        """Return the sums of one model's U-centered products over the pairs i != j of each two strata."""
        parts, sizes = self.strata.parts(), self.strata.sizes
        rows = np.stack([x[self.strata.order[part]].sum(axis=0, dtype=np.float64) for part in parts])
        c, lengths = (np.add.reduceat(v[self.strata.order], self.strata.begins) for v in (shift(p), p))
        sums: Float64Matrix = rows @ rows.T - np.outer(c, sizes) - np.outer(sizes, c)
        sums[np.diag_indices(len(sums))] += 2.0 * c - lengths
        return sums


def _bundles(pair: Pair, strata: Strata, draws: int) -> tuple[list[RowNumbers], int]:
    """Return the tokens of bundles of strata, and how often each is to be relabeled."""
    # Any combination of relabeled bundles is a relabeling within strata: 24 bundles that were relabeled three
    # times say as much of the variance as some 20 relabelings, for a seventh of the time.
    whole, stored = [np.arange(len(pair))], _MOST_STORED // pair.xy.size
    if len(pair) <= _FEW_TOKENS or len(strata) == 1:
        return whole, draws
    loads = np.zeros(_BUNDLES)
    members: list[list[int]] = [[] for _ in range(_BUNDLES)]
    for stratum in np.argsort(-strata.sizes, kind="stable").tolist():
        bundle = int(np.argmin(loads))
        loads[bundle] += strata.sizes[stratum]
        members[bundle].append(stratum)
    # Each version but one of a bundle is a degree of freedom, for its share of the variance.
    versions = 1 + math.ceil(_COMBINED_DRAWS * float(np.sum((loads / loads.sum()) ** 2)))
    if versions >= draws or versions * _BUNDLES > stored:
        return whole, draws
    parts = strata.parts()
    rows = [np.concatenate([strata.order[parts[s]] for s in bundle]) for bundle in members if bundle]
    return rows, versions


def _added(met: list[tuple[Float32Matrix, float]], draw: list[int]) -> tuple[Float64Matrix, float]:
    """Return the cross product of a relabeling, and its sum of p q, from those of its bundles."""
    cross = met[draw[0]][0].copy()
    for version in draw[1:]:
        cross += met[version][0]
    return cross.astype(np.float64), sum(met[version][1] for version in draw)


def bilinear(
    left: Float32Matrix, matrix: Float64Matrix, right: Float32Matrix, threads: int | None
) -> Float64Vector:
    """Return l_i' M r_i for each row, in float32: enough for intervals."""
    narrow = matrix.astype(np.float32)
    terms = in_threads(
        lambda piece: np.einsum("ij,ij->i", left[piece] @ narrow, right[piece]), _pieces(len(left)), threads
    )
    return np.concatenate(terms).astype(np.float64)


def _pieces(n: int) -> list[slice]:
    return [slice(begin, begin + _ROWS_AT_A_TIME) for begin in range(0, n, _ROWS_AT_A_TIME)]


def check_rows(matrix: Float32Matrix, name: str) -> None:
    """Raise `InputError` if rows are not finite, or are all equal."""
    with np.errstate(all="ignore"):
        finite = bool(np.isfinite(matrix.sum()))  # what is not finite shows in the sum
    if not finite and not np.isfinite(matrix).all():
        row = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        raise InputError(f"{name}: row {row} holds a number that is not finite")
    if not any((matrix[piece] != matrix[:1]).any() for piece in _pieces(len(matrix))):
        raise InputError(f"all rows of {name} are equal, so that nothing can be compared")


def _standardized(matrix: Float32Matrix, name: str, threads: int | None) -> Float32Matrix:
    """Return the matrix with its mean row subtracted and divided by its Frobenius norm over sqrt(n)."""
    n = len(matrix)
    if n < 4:
        raise InputError(f"{name} has {n} rows; the measures of the panel need 4")
    check_rows(matrix, name)
    pieces = _pieces(n)
    sums = in_threads(lambda piece: matrix[piece].sum(axis=0, dtype=np.float64), pieces, threads)
    mean = np.sum(sums, axis=0) / n
    # Each matrix is scaled first: squares of large numbers overflow float32.
    largest = float(max(matrix.max(), -matrix.min()))
    result = np.empty_like(matrix)

    def center(piece: slice) -> float:
        square = 0.0
        for begin in range(piece.start, piece.stop, _FEW_ROWS):
            few = slice(begin, min(begin + _FEW_ROWS, piece.stop))
            rows = matrix[few] - mean
            rows /= largest
            result[few] = rows
            square += float(np.vdot(rows, rows))
        return square

    square = sum(in_threads(center, pieces, threads))
    result *= np.float32(1.0 / math.sqrt(square / n))
    return result


def relabeled_norms(pair: Pair, draws: int, seed: int, threads: int | None) -> Float64Vector:
    """Return nuclear norms of relabeled cross products, or of normal matrices where those tend to them."""
    d_a, d_b = pair.xy.shape
    most = int(_DRAWN_PRODUCTS / (float(d_a) * d_b * min(d_a, d_b)))
    draws = min(whole_number(draws, "draws", 2), max(most, FEWEST_DRAWS))
    if len(pair) > _FEW_TOKENS and _long_row_share(pair) < _MOST_LONG_ROW_SHARE:
        return _normal_norms(pair, draws, seed, threads)
    return Relabeled.of_all(pair, draws, seed, threads).norms.ravel()


def _normal_norms(pair: Pair, draws: int, seed: int, threads: int | None) -> Float64Vector:
    """Return nuclear norms of normal matrices with the covariance of a relabeled cross product."""
    # Singular values do not change with rotations, so variances along principal axes are all that matters.
    spread_x, spread_y = (
        np.sqrt(np.maximum(np.linalg.eigvalsh(products), 0.0)) for products in (pair.xx, pair.yy)
    )
    spread = np.outer(spread_x, spread_y) / math.sqrt(len(pair) - 1.0)

    def norm(draw: int) -> float:
        return _nuclear_norm(spread * generator(seed, f"normal product {draw}").standard_normal(spread.shape))

    return np.array(in_threads(norm, range(draws), threads))


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
