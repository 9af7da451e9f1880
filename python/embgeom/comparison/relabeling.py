"""Means and variances of measures when the tokens of one model are relabeled at random, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Matrix, Float64Vector, RowNumbers

# The scatters of all strata are compared a few columns at a time, in this many numbers.
_NUMBERS_AT_A_TIME = 1 << 23


@dataclass(frozen=True)
class Strata:
    """Tokens in the order of their strata; relabelings exchange tokens of one stratum only."""

    order: RowNumbers
    begins: RowNumbers
    sizes: RowNumbers

    @classmethod
    def from_labels(cls, labels: npt.NDArray[np.integer]) -> Strata:
        order = np.argsort(labels, kind="stable")
        ordered = labels[order]
        begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        return cls(order, begins, np.diff(np.r_[begins, len(labels)]))

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def numbers(self) -> RowNumbers:
        """The stratum of each token, numbered without gaps."""
        numbers = np.empty(len(self.order), dtype=np.int64)
        numbers[self.order] = np.repeat(np.arange(len(self)), self.sizes)
        return numbers

    def parts(self) -> list[slice]:
        """Where each stratum lies in `order`."""
        return [slice(b, b + s) for b, s in zip(self.begins.tolist(), self.sizes.tolist(), strict=True)]

    def draw(self, generator: np.random.Generator, draws: int) -> npt.NDArray[np.int32]:
        """Return relabelings, shape (draws, n)."""
        labels = np.empty((draws, len(self.order)), dtype=np.int32)
        for part in self.parts():
            members = self.order[part].astype(np.int32)
            labels[:, members] = generator.permuted(np.broadcast_to(members, (draws, len(members))), axis=1)
        return labels


def symmetric_variance(n: int, squares: tuple[float, float], row_squares: tuple[float, float]) -> float:
    """Return the variance of sum A_ij B_ij for symmetric A, B whose off-diagonal sums are 0 (Mantel 1967).

    `squares` are sum A_ij^2 over i != j, `row_squares` sum_i (sum_j A_ij)^2, of either matrix.
    """
    (t_a, t_b), (r_a, r_b) = squares, row_squares
    linear = 4.0 * r_a * r_b / ((n - 1.0) * (n - 2.0) ** 2)
    if n < 4:
        return linear
    rest = (t_a - 2.0 * r_a / (n - 2.0)) * (t_b - 2.0 * r_b / (n - 2.0))
    return linear + 2.0 * rest / (n * (n - 3.0))


@dataclass(frozen=True)
class Directed:
    """Sums of a directed relation with an empty diagonal, from which its moments follow.

    Attributes
    ----------
    total, squares, mutual
        The sums of A_ij, A_ij^2 and A_ij A_ji.
    outward, inward, through
        The sums over tokens of squared row sums, squared column sums, and row sum times column sum.
    """

    total: float
    squares: float
    mutual: float
    outward: float
    inward: float
    through: float


def directed_moments(n: int, a: Directed, b: Directed) -> tuple[float, float]:
    """Return mean and variance of sum A_ij B_ij under relabeling (quadratic assignment)."""
    pairs = n * (n - 1.0)
    mean = a.total * b.total / pairs
    # E sum^2, by how the index pairs (i, j) and (k, l) coincide.
    second = (a.squares * b.squares + a.mutual * b.mutual) / pairs
    if n > 2:
        outward, inward = (
            [side.outward - side.squares for side in (a, b)],
            [side.inward - side.squares for side in (a, b)],
        )
        through = [side.through - side.mutual for side in (a, b)]
        triples = outward[0] * outward[1] + inward[0] * inward[1] + 2.0 * through[0] * through[1]
        second += triples / (pairs * (n - 2.0))
    if n > 3:
        apart = [
            side.total**2 + side.squares + side.mutual - side.outward - side.inward - 2.0 * side.through
            for side in (a, b)
        ]
        second += apart[0] * apart[1] / (pairs * (n - 2.0) * (n - 3.0))
    return mean, max(second - mean * mean, 0.0)


def stratified_mean(sums_a: Float64Matrix, sums_b: Float64Matrix, sizes: RowNumbers) -> float:
    """Return the mean of sum A_ij B_ij under relabeling within strata, from sums over pairs of strata."""
    size = sizes.astype(np.float64)
    pairs = np.outer(size, size) - np.diag(size)
    return float(np.sum(sums_a * sums_b / np.where(pairs > 0.0, pairs, 1.0)))


def vector_moments(x: Float64Vector, y: Float64Vector, strata: Strata) -> tuple[float, float]:
    """Return mean and variance of sum x_i y_i under relabeling within strata."""
    mean = variance = 0.0
    for part in strata.parts():
        a, b = x[strata.order[part]], y[strata.order[part]]
        mean += len(a) * float(a.mean() * b.mean())
        if len(a) > 1:
            variance += float(np.sum((a - a.mean()) ** 2) * np.sum((b - b.mean()) ** 2) / (len(a) - 1.0))
    return mean, variance


def stratified_moments(
    e: Float64Matrix, m: Float64Vector, f: Float64Matrix, w: Float64Vector, strata: Strata
) -> tuple[float, float]:
    """Return mean and variance of the sum over pairs of two models' cosines, relabeled within strata.

    Rows of length 1 are m + e_i and w + f_i, where m and w are their means; the cosines have their mean over
    pairs subtracted.
    """
    sums, means, scatters = [], [], []
    for deviations, mean in ((e, m), (f, w)):
        ordered = deviations[strata.order]
        added = np.add.reduceat(ordered, strata.begins, axis=0)
        sums.append(_sums_over_strata(added, mean, strata.sizes, float(np.sum(deviations**2))))
        inner = added / strata.sizes[:, None]
        ordered -= np.repeat(inner, strata.sizes, axis=0)
        means.append(mean + inner)
        scatters.append(ordered)
    (e, f), (u, w) = scatters, means
    variance = _linear_variance(e, f, u, w, strata) + _rest_variance(e, f, u, w, strata)
    return stratified_mean(sums[0], sums[1], strata.sizes), variance


def _sums_over_strata(
    added: Float64Matrix, mean: Float64Vector, sizes: RowNumbers, squares: float
) -> Float64Matrix:
    """Return the sum of y_ij over the pairs i != j of each two strata."""
    n, along = float(sizes.sum()), added @ mean
    same = squares / n  # y_ii, before the mean over pairs is subtracted
    sums = np.outer(along, sizes) + np.outer(sizes, along) + added @ added.T
    sums += same / (n - 1.0) * (np.outer(sizes, sizes) - np.diag(sizes))
    result: Float64Matrix = sums - np.diag(same * sizes)
    return result


def _linear_variance(
    e: Float64Matrix, f: Float64Matrix, u: Float64Matrix, w: Float64Matrix, strata: Strata
) -> float:
    """Return the variance of what single tokens contribute: sum_i c(i, label of i)."""
    size = strata.sizes.astype(np.float64)
    across = (u * size[:, None]).T @ w
    total = 0.0
    for part, n, mean_u, mean_w in zip(strata.parts(), size, u, w, strict=True):
        if n < 2:
            continue
        # Within a stratum a token does not meet itself; in one of two, nothing changes.
        within = 2.0 * n / (n - 2.0) if n > 2 else -n
        left = e[part] @ across + within * np.outer(e[part] @ mean_u, mean_w)
        right = f[part]
        if n > right.shape[1]:
            total += 4.0 * float(np.sum((left.T @ left) * (right.T @ right))) / (n - 1.0)
        else:
            total += 4.0 * float(np.sum((left @ right.T) ** 2)) / (n - 1.0)
    return total


def _rest_variance(
    e: Float64Matrix, f: Float64Matrix, u: Float64Matrix, w: Float64Matrix, strata: Strata
) -> float:
    """Return the variance of what pairs contribute beyond their tokens."""
    size = strata.sizes.astype(np.float64)
    products = []
    for deviations, mean in ((e, u), (f, w)):
        product = _scatter_products(deviations, strata)
        along = np.add.reduceat(
            np.sum(deviations * np.repeat(mean, strata.sizes, axis=0), axis=1) ** 2, strata.begins
        )
        squares = np.add.reduceat(np.sum(deviations**2, axis=1), strata.begins)
        large = size > 3
        left = np.diag(product)[large] - squares[large] ** 2 / (size[large] - 1.0)
        diagonal = np.zeros(len(size))
        diagonal[large] = left - 4.0 * size[large] * along[large] / (size[large] - 2.0)
        np.fill_diagonal(product, diagonal)
        products.append(product)
    pairs = np.outer(size - 1.0, size - 1.0)
    np.fill_diagonal(pairs, size * (size - 3.0))
    possible = pairs > 0.0
    return 2.0 * float(np.sum(products[0][possible] * products[1][possible] / pairs[possible]))


def _scatter_products(deviations: Float64Matrix, strata: Strata) -> Float64Matrix:
    """Return tr(W_g W_h) of the scatters W_g = sum_i d_i d_i' of each two strata."""
    count, d = len(strata), deviations.shape[1]
    products = np.zeros((count, count))
    step = max(1, _NUMBERS_AT_A_TIME // (count * d))
    for begin in range(0, d, step):
        columns = deviations[:, begin : begin + step]
        scatters = np.stack([columns[part].T @ deviations[part] for part in strata.parts()])
        flat = scatters.reshape(count, -1)
        products += flat @ flat.T
    return products
