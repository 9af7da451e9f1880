"""Means and variances of measures when the tokens of one model are relabeled at random, in closed form."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector, RowNumbers, as_integers
from embgeom._common.checks import check_seed
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import array_digest
from embgeom._common.threads import keep_going
from embgeom.errors import InputError
from embgeom.geometry.agreement import positions
from embgeom.geometry.similarity import SimilarityTerms, UnitRows

# Lists are taken in pieces, and those whose mutual entries are sought in larger ones: 40 bytes an entry.
_ENTRIES_AT_A_TIME = 1 << 20
_MUTUAL_AT_A_TIME = 1 << 22
# Relabelings are drawn in pieces of 64 MiB.
_LABELS_AT_A_TIME = 1 << 24
# The sums of the lists of a study's models, which meet in many pairs; several threads add to them.
_SUMS_OF: dict[str, Directed] = {}
_ADDING = threading.Lock()
_MOST_SUMS = 256


def generator(seed: int, use: str) -> np.random.Generator:
    """Return random numbers for one use, which have nothing in common with those for others."""
    return np.random.default_rng([check_seed(seed), *use.encode()])


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
    def bounds(self) -> RowNumbers:
        """Where each stratum begins in `order`, and where the last one ends."""
        return np.append(self.begins, len(self.order))

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
    # Where all relabelings give one sum, rounding may leave less than 0.
    return max(linear + 2.0 * rest / (n * (n - 3.0)), 0.0)


@dataclass(frozen=True)
class Directed:
    """Sums of a directed relation A with an empty diagonal, from which its moments follow."""

    # The sums of A_ij, A_ij^2 and A_ij A_ji.
    total: float
    squares: float
    mutual: float
    # The sums over tokens of squared row sums, squared column sums, and row sum times column sum.
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


@dataclass(frozen=True)
class Relation:
    """A directed relation: each token's neighbors, with values times the token's scale, or 1 for each."""

    indices: npt.NDArray[Any]
    values: Float32Matrix | None
    scales: Float64Vector | None = None

    @classmethod
    def from_weights(cls, indices: npt.NDArray[Any], weights: Float32Matrix) -> Relation:
        """Return weights with each token's scaled to length 1; the scale is 0 where all of them are."""
        lengths = np.sqrt(np.einsum("ij,ij->i", weights, weights, dtype=np.float64))
        scales = np.divide(1.0, lengths, out=np.zeros(len(weights)), where=lengths > 0.0)
        return cls(indices, weights, scales)

    def entries(
        self, begin: int = 0, end: int | None = None, low: int = 0, high: int | None = None
    ) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any], Float64Vector | None]]:
        """Give token, neighbor and value of the entries whose tokens and neighbors are in two ranges."""
        n, k = self.indices.shape
        end = n if end is None else end
        step = max(1, _ENTRIES_AT_A_TIME // k)
        for first in range(begin, end, step):
            keep_going()
            piece = slice(first, min(first + step, end))
            near = self.indices[piece]
            kept = near >= low if high is None else (near >= low) & (near < high)
            values = None if self.values is None else self.scaled(piece)[kept]
            yield np.nonzero(kept)[0] + first, near[kept], values

    def scaled(self, piece: slice) -> npt.NDArray[np.float64]:
        """Return the values of some tokens times their scales."""
        if self.values is None:
            raise RuntimeError("a relation without values has nothing to scale")
        values = self.values[piece].astype(np.float64)
        return values if self.scales is None else values * self.scales[piece, None]

    def for_kernel(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64] | None]:
        """Return neighbors and scaled values as the kernel takes them."""
        return self.indices, None if self.values is None else self.scaled(slice(None))

    def unit_values(self, piece: slice) -> npt.NDArray[np.float64]:
        """Return the values of some tokens, of length 1 in all."""
        if self.values is not None:
            return self.scaled(piece)
        near = self.indices[piece]
        return np.full(near.shape, near.shape[1] ** -0.5)

    def directed(self) -> Directed:
        """Return the sums of the lists, which are kept by what these hold."""
        arrays = self.indices, self.values, self.scales
        key = " ".join("" if array is None else array_digest(array) for array in arrays)
        found = _SUMS_OF.get(key)
        if found is None:
            found = self.measured()
            with _ADDING:
                _SUMS_OF[key] = found
                while len(_SUMS_OF) > _MOST_SUMS:
                    del _SUMS_OF[next(iter(_SUMS_OF))]
        return found

    def measured(self) -> Directed:
        """Return what `directed` keeps."""
        n = len(self.indices)
        outward, inward, in_degree = np.zeros((3, n))
        total = squares = 0.0
        for tokens, neighbors, values in self.entries():
            outward += np.bincount(tokens, values, n)
            inward += np.bincount(neighbors, values, n)
            in_degree += np.bincount(neighbors, None, n)
            total += float(len(tokens) if values is None else values.sum())
            squares += float(len(tokens) if values is None else values @ values)
        return Directed(
            total, squares, self._mutual(in_degree),
            float(outward @ outward), float(inward @ inward), float(outward @ inward),
        )  # fmt: skip

    def _mutual(self, in_degree: Float64Vector) -> float:
        """Return the sum of A_ij A_ji, from the entries that leave and that reach a few tokens at a time."""
        n, k = self.indices.shape
        numbers = np.cumsum(in_degree + k) // _MUTUAL_AT_A_TIME
        bounds = np.flatnonzero(np.diff(numbers, prepend=-1.0)).tolist()
        total = 0.0
        for begin, end in zip(bounds, [*bounds[1:], n], strict=True):
            # Pairs with earlier tokens were counted with these, and those with later ones count twice.
            leaving = self._keyed(self.entries(begin, end, low=begin), begin)
            for low, high, factor in ((begin, end, 1.0), (end, n, 2.0)):
                reaching = self._keyed(self.entries(low, high, begin, end), begin, reaching=True)
                total += factor * _matched(leaving, reaching)
        return total

    def _keyed(
        self, entries: Iterator[tuple[Any, Any, Any]], begin: int, *, reaching: bool = False
    ) -> tuple[RowNumbers, Float64Vector | None]:
        """Return a key of each entry's two tokens, and its value; entries that reach have the other's key."""
        keys, values = [np.zeros(0, np.int64)], [np.zeros(0)]
        for tokens, neighbors, held in entries:
            here, there = (neighbors, tokens) if reaching else (tokens, neighbors)
            keys.append((here.astype(np.int64) - begin) * len(self.indices) + there)
            if held is not None:
                values.append(held)
        return np.concatenate(keys), None if self.values is None else np.concatenate(values)

    def sums_over_strata(self, numbers: npt.NDArray[Any], count: int) -> npt.NDArray[np.float64]:
        sums = np.zeros(count * count)
        for tokens, neighbors, values in self.entries():
            sums += np.bincount(numbers[tokens] * count + numbers[neighbors], values, count * count)
        return sums.reshape(count, count)


def _matched(a: tuple[RowNumbers, Float64Vector | None], b: tuple[RowNumbers, Float64Vector | None]) -> float:
    """Return the sum of products of the values, or ones, of equal keys."""
    (keys_a, values_a), (keys_b, values_b) = a, b
    if values_a is None or values_b is None:
        return float(len(np.intersect1d(keys_a, keys_b, assume_unique=True)))
    _, at_a, at_b = np.intersect1d(keys_a, keys_b, assume_unique=True, return_indices=True)
    return float(values_a[at_a] @ values_b[at_b])


def relabeled_agreement(
    a: Relation, b: Relation, strata: Strata, draws: int, generator: np.random.Generator, *,
    threads: int, progress: Progress,
) -> Float64Vector:  # fmt: skip
    """Return the sum of a_ij b_kl over i and j, where k and l are the labels of i and j, for many draws."""
    step, lists = max(1, _LABELS_AT_A_TIME // len(strata.order)), (*a.for_kernel(), *b.for_kernel())
    with reporter(progress, "nulls") as report:
        return np.concatenate([
            core.relabeled_agreement(
                *lists, strata.draw(generator, min(step, draws - begin)), threads=threads,
                progress=report or keep_going,
            )
            for begin in range(0, draws, step)
        ])  # fmt: skip


def stratified_mean(sums_a: Float64Matrix, sums_b: Float64Matrix, sizes: RowNumbers) -> float:
    """Return the mean of sum A_ij B_ij under relabeling within strata, from sums over pairs of strata."""
    size = sizes.astype(np.float64)
    pairs = np.outer(size, size) - np.diag(size)
    return float(np.sum(sums_a * sums_b / np.where(pairs > 0.0, pairs, 1.0)))


def error_of_lists(a: Relation, b: Relation, cosines: Float64Vector, threads: int | None) -> float:
    """Return the standard error of the mean cosine of the tokens' values, which are of length 1.

    NaN where fewer than two tokens have one.
    """
    # A token counts by its own cosine, and as a neighbor by what it adds to those of others. The squares of
    # the latter are in the variance of either end, so they are subtracted once.
    known = ~np.isnan(cosines)
    if (count := int(known.sum())) < 2:
        return math.nan
    c = np.where(known, cosines, 0.0)
    n, k = a.indices.shape
    effect = np.where(known, c - c.sum() / count, 0.0)
    alone, twice = float(effect @ effect), 0.0
    step = max(1, _ENTRIES_AT_A_TIME // k)
    for begin in range(0, n, step):
        keep_going()
        piece = slice(begin, begin + step)
        near_a, near_b = a.indices[piece], b.indices[piece]
        of_a, of_b = a.unit_values(piece), b.unit_values(piece)
        at = positions(near_a, near_b, threads)
        of_b_at_a = np.where(at >= 0, np.take_along_axis(of_b, np.maximum(at, 0), axis=1), 0.0)
        half = c[piece, None] / 2.0
        adds_a = of_a * of_b_at_a - half * (of_a**2 + of_b_at_a**2)
        adds_b = np.where(positions(near_b, near_a, threads) < 0, -half * of_b**2, 0.0)
        for near, adds in ((near_a, adds_a), (near_b, adds_b)):
            there = near >= 0
            effect += np.bincount(near[there], adds[there], n)
            twice += float(np.sum(adds[there] ** 2))
    return math.sqrt(max(float(effect @ effect) - twice, alone) / (count * (count - 1.0)))


def error_of_neighborhoods(
    effect: Float64Vector, indices: npt.NDArray[Any], some: RowNumbers | None
) -> tuple[float, float]:
    """Return the error of a sum whose terms covary as tokens share neighbors, and n / (k + 1).

    The m tokens are `some` of all n, or all of them.
    """
    m, k = indices.shape
    if len(effect) != m:
        raise InputError(f"the neighbors are those of {m} tokens, but there are {len(effect)} values")
    rows = np.arange(m) if some is None else some
    # Of how many tokens some rows are is not said; the neighbors of a sample come close to the last.
    n = max(int(rows.max()), int(indices.max())) + 1
    through = np.bincount(rows, effect, n)
    step = max(1, _ENTRIES_AT_A_TIME // k)
    for begin in range(0, m, step):
        near = indices[begin : begin + step]
        there = near >= 0
        through += np.bincount(near[there], np.repeat(effect[begin : begin + step], there.sum(axis=1)), n)
    if n <= k + 1:
        return math.inf, 1.0  # All tokens have the same neighbors: nothing tells how far their numbers err.
    # What such groups of k + 1 tokens have in common is lost with their mean.
    return math.sqrt(float(through @ through) / (k + 1.0) * n / (n - k - 1.0)), n / (k + 1.0)


def vector_moments(x: Float64Vector, y: Float64Vector, strata: Strata) -> tuple[float, float]:
    """Return mean and variance of sum x_i y_i under relabeling within strata."""
    mean = variance = 0.0
    for part in strata.parts():
        a, b = x[strata.order[part]], y[strata.order[part]]
        mean += len(a) * float(a.mean() * b.mean())
        if len(a) > 1:
            variance += float(np.sum((a - a.mean()) ** 2) * np.sum((b - b.mean()) ** 2) / (len(a) - 1.0))
    return mean, variance


class _Within:
    """One model's directions in strata: their means, and by stratum what they deviate from these."""

    def __init__(self, unit: UnitRows, rows: RowNumbers, strata: Strata, threads: int) -> None:
        self.unit, self.strata, ordered = unit, strata, rows[strata.order]
        self.directions = unit.matrix, ordered, unit.center, unit.inverse[ordered], unit.mean
        self.means, self.squares, self.along, self.products = core.stratum_moments(
            self.directions, strata.bounds, threads=threads, progress=keep_going
        )

    def sums(self) -> Float64Matrix:
        """Return the sum of y_ij over the pairs i != j of each two strata."""
        size = self.strata.sizes.astype(np.float64)
        shifts = self.means - self.unit.mean
        n, added = float(size.sum()), shifts * size[:, None]
        # y_ii, before the mean over pairs is subtracted, is the mean of all squared deviations.
        same = float(self.squares.sum() + np.sum(shifts * added)) / n
        along = added @ self.unit.mean
        sums = np.outer(along, size) + np.outer(size, along) + added @ added.T
        sums += same / (n - 1.0) * (np.outer(size, size) - np.diag(size))
        result: Float64Matrix = sums - np.diag(same * size)
        return result

    def rests(self) -> Float64Matrix:
        """Return for each two strata the sum of squares of what pairs have beyond their two tokens."""
        size = self.strata.sizes.astype(np.float64)
        # A token does not meet itself, and three tokens of a stratum determine their three pairs.
        large = np.maximum(size, 4.0)
        within = (
            np.diag(self.products) - self.squares**2 / (large - 1.0) - 4.0 * size * self.along / (large - 2.0)
        )
        rests: Float64Matrix = self.products.copy()
        np.fill_diagonal(rests, np.where(size > 3.0, within, 0.0))
        return rests


def stratified_moments(terms: SimilarityTerms, strata: Strata, threads: int) -> tuple[float, float]:
    """Return mean and variance of the sum of y_a y_b over pairs, relabeled within strata of the used rows."""
    a, b = (_Within(unit, terms.used, strata, threads) for unit in (terms.a, terms.b))
    linear = _linear_variance(a, b, threads)
    size = strata.sizes.astype(np.float64)
    pairs = np.outer(size - 1.0, size - 1.0)
    np.fill_diagonal(pairs, size * (size - 3.0))
    rest = np.where(pairs > 0.0, a.rests() * b.rests() / np.where(pairs > 0.0, pairs, 1.0), 0.0)
    variance = linear + 2.0 * float(rest.sum())
    return stratified_mean(a.sums(), b.sums(), strata.sizes), max(variance, 0.0)


def _linear_variance(a: _Within, b: _Within, threads: int) -> float:
    """Return the variance of what single tokens contribute: sum_i c(i, label of i)."""
    size = a.strata.sizes.astype(np.float64)
    # A token does not meet itself; and in a stratum of two, the one pair stays what it is.
    factors = np.where(size > 2.0, 2.0 * size / np.where(size > 2.0, size - 2.0, 1.0), -size)
    norms = core.stratum_norms(
        a.directions, b.directions, a.strata.bounds, a.means, b.means,
        shared=(a.means * size[:, None]).T @ b.means, factors=factors, threads=threads, progress=keep_going,
    )  # fmt: skip
    # One token of a stratum has no deviation.
    return 4.0 * float(np.sum(norms / np.maximum(size - 1.0, 1.0)))


def check_square(indices: npt.NDArray[Any], n: int) -> None:
    """Raise `InputError` unless neighbors are others of the n tokens."""
    if indices.max() >= n:
        raise InputError(
            f"neighbor {int(indices.max())} is not one of the {n} tokens: relabeling needs the neighbors of "
            "all tokens, numbered among them"
        )
    itself = np.zeros(n, dtype=bool)
    for column in indices.T:
        itself |= column == np.arange(n)
    if itself.any():
        raise InputError(f"token {int(np.argmax(itself))} is among its own neighbors")


def labels_of_strata(strata: npt.ArrayLike | None, n: int) -> npt.NDArray[Any] | None:
    """Return the stratum of each token, checked."""
    if strata is None:
        return None
    labels = as_integers(strata, "strata")
    if labels.shape != (n,):
        raise InputError(f"strata must be one number for each of the {n} tokens, not of shape {labels.shape}")
    return labels


def dominated(effective_n: float, n: int) -> bool:
    """Return whether few of n rows have so much of the squared length that a null is far from normal."""
    # With fewer, unrelated rows of lognormal length have p < 0.001 five to ten times too often.
    return effective_n < min(400.0, n / 2.0)
