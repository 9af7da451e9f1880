"""Correlation of all pairwise cosines of two models: closed form against brute force over the pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.compare.blas import closed_form_products
from benchmarks.compare.contender import EMBEDDED_BLAS, Call, Case, Contender
from benchmarks.compare.problem import Array, Problem, pair_problem
from tests.oracles import reference

Sums = Array  # of a, b, a a, b b and a b over pairs, in float64
SAMPLE = 600


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    return lambda: embgeom.global_similarity(
        problem.x, problem.other, center=problem.center, threads=problem.threads
    )


def directions(problem: Problem, dtype: type = np.float32) -> tuple[Array, Array]:
    """Return the unit rows of both models, without the rows that have no direction in one of them."""
    both = [matrix.astype(np.float64) for matrix in (problem.x, problem.other)]
    directed = both[0].any(axis=1) & both[1].any(axis=1)
    both = [matrix[directed] for matrix in both]
    if problem.center:
        both = [matrix - matrix.mean(axis=0) for matrix in both]
    lengths = [np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in both]
    used = ((lengths[0] > 0) & (lengths[1] > 0))[:, 0]
    a, b = ((m[used] / length[used]).astype(dtype) for m, length in zip(both, lengths, strict=True))
    return a, b


def correlation(sums: Sums, count: int) -> float:
    """Return the correlation over ordered pairs of different rows, from sums with the pairs (i, i)."""
    pairs = count * (count - 1)
    mean_a, mean_b, square_a, square_b, product = (sums - count) / pairs  # a cosine with itself is 1
    return float((product - mean_a * mean_b) / np.sqrt((square_a - mean_a**2) * (square_b - mean_b**2)))


def over_pairs(
    problem: Problem, count: int, block: int, sums_of: Callable[[slice, slice], Sums], once: bool
) -> Call:
    """Add up `sums_of` over the pairs of all rows, a block at a time.

    With `once` a block meets only itself and the rows after it, and the latter count twice. Where the problem
    is about fewer tokens, to try settings, only so many rows meet the others.
    """
    asked = min(count, len(problem.tokens))

    def call() -> float:
        total = np.zeros(5)
        for begin in range(0, asked, block):
            end = min(begin + block, count)
            rows = slice(begin, end)
            if not once:
                total += sums_of(rows, slice(0, count))
                continue
            total += sums_of(rows, rows)
            if end < count:
                total += 2 * sums_of(rows, slice(end, count))
        return correlation(total, count)

    return call


def by_torch(problem: Problem, block: int = 256, dots: str = "bmm") -> Call:
    """Multiply by blocks; sums along a row of products are float32, those over rows are float64.

    torch's own float64 sum of float32 numbers is several times slower than all else together.
    """
    import torch

    a, b = (torch.from_numpy(matrix) for matrix in directions(problem))
    spare = [torch.empty(block * len(a)) for _ in range(3)]

    def sums_of(rows: slice, others: slice) -> Sums:
        shape = (rows.stop - rows.start, others.stop - others.start)
        first, second, product = (buffer[: shape[0] * shape[1]].view(shape) for buffer in spare)
        torch.mm(a[rows], a[others].T, out=first)
        torch.mm(b[rows], b[others].T, out=second)
        by_row = [first.sum(dim=1), second.sum(dim=1)]
        for left, right in ((first, first), (second, second), (first, second)):
            if dots == "bmm":
                by_row.append(torch.bmm(left[:, None], right[:, :, None])[:, 0, 0])
            else:
                by_row.append(torch.mul(left, right, out=product).sum(dim=1))
        return torch.stack(by_row).double().sum(dim=1).numpy()

    return over_pairs(problem, len(a), block, sums_of, once=True)


def by_numpy(problem: Problem, block: int = 256) -> Call:
    """Do the same in NumPy, whose einsum adds up products without keeping them."""
    a, b = directions(problem)
    spare = [np.empty(block * len(a), dtype=np.float32) for _ in range(2)]

    def sums_of(rows: slice, others: slice) -> Sums:
        shape = (rows.stop - rows.start, others.stop - others.start)
        first, second = (buffer[: shape[0] * shape[1]].reshape(shape) for buffer in spare)
        np.matmul(a[rows], a[others].T, out=first)
        np.matmul(b[rows], b[others].T, out=second)
        by_row = [first.sum(axis=1), second.sum(axis=1)]
        for left, right in ((first, first), (second, second), (first, second)):
            by_row.append(np.einsum("ij,ij->i", left, right))
        return np.array(by_row).sum(axis=1, dtype=np.float64)

    return over_pairs(problem, len(a), block, sums_of, once=False)


def check(problem: Problem, value: float, exact: bool) -> dict[str, float]:
    """Compare with the closed form in NumPy float64; embgeom also with explicit pairs of some rows."""
    a, b = directions(problem, np.float64)
    sums_a, sums_b = a.sum(axis=0), b.sum(axis=0)
    products = [(m.T @ n) for m, n in ((a, a), (b, b), (a, b))]
    sums = [sums_a @ sums_a, sums_b @ sums_b, *((product**2).sum() for product in products)]
    error = abs(value - correlation(np.array(sums), len(a)))
    if exact:
        import embgeom

        # Six standard deviations of what float32 products of so many rows may err (docs/numerics.md).
        room = 12 * 2.0**-24 * 320 / (3 * len(a)) ** 0.5 if len(a) >= 4096 else 1e-11
        assert error < room, f"{value} is off by {error}"
        options = {"center": problem.center, "sample": SAMPLE, "seed": 5}
        some, room = reference.global_similarity(problem.x, problem.other, **options)
        found = embgeom.global_similarity(problem.x, problem.other, threads=problem.threads, **options)
        assert abs(found - some) <= room, f"{found} on a sample, not {some}"
    return {"error": error}


TORCH_OPTIONS = tuple({"block": block, "dots": dots} for block in (256, 1024) for dots in ("bmm", "mul"))


def case(center: bool) -> Case:
    return Case(
        "similarity",
        f"global similarity, {'centered' if center else 'not centered'}",
        partial(pair_problem, center=center),
        check,
        (
            Contender("embgeom", "embgeom", by_embgeom),
            Contender("its own products at sgemm's speed", EMBEDDED_BLAS, closed_form_products),
            Contender("torch, each pair once", "torch", by_torch, options=TORCH_OPTIONS, slow=True),
            Contender("NumPy, all pairs", "numpy", by_numpy, slow=True),
        ),
        tuning_limit=2048,
    )


CASES = (case(center=False), case(center=True))
