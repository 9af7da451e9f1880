"""The kernels, their multiply-adds by formula, and the points at which each is timed."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks.compare import dimension, knn, lle, similarity
from benchmarks.compare.problem import Problem, Size, knn_problem, local_problem, pair_problem

# Kernels that work token by token are timed on all tokens, or on as many as make about so many multiply-adds:
# by then, what a call does once for the whole matrix no longer counts.
TOKEN_WORK = 1.5e10
FEWEST_TOKENS = 8
# A point is timed again until it has taken this long, or five times.
SECONDS, REPEATS = 1.0, 5


@dataclass(frozen=True)
class Point:
    """What the cost depends on."""

    rows: int
    columns: int
    k: int
    threads: int


@dataclass(frozen=True)
class Kernel:
    """A kernel and how to time it.

    Attributes
    ----------
    name, formula : str
        What it is called, and its multiply-adds in words.
    work : callable
        ``work(point)``: multiply-adds of a whole call, or of one token where `per_token`.
    build, prepare, check
        As in the comparison with other libraries.
    base : Point
        The point around which one number at a time is varied.
    axes : tuple of str
        The numbers that are.
    """

    name: str
    formula: str
    work: Callable[[Point], float]
    build: Callable[[Point, int | None], Problem]
    prepare: Callable[[Problem], Callable[[], Any]]
    check: Callable[[Problem, Any], Any]
    base: Point
    axes: tuple[str, ...] = ("rows", "columns", "k", "threads")
    per_token: bool = False

    def tokens(self, point: Point) -> int | None:
        """Return how many tokens are timed; None for all, where the kernel does not go token by token."""
        if not self.per_token:
            return None
        fitting = FEWEST_TOKENS * math.ceil(TOKEN_WORK / self.work(point) / FEWEST_TOKENS)
        return fitting if fitting < point.rows else None

    def points(self, axis: str, values: dict[str, tuple[int, ...]]) -> list[Point]:
        """Return the points along an axis."""
        return [replace(self.base, **{axis: value}) for value in values[axis]]


def size(point: Point) -> Size:
    return Size(point.rows, point.columns, point.threads)


def dimension_work(point: Point) -> float:
    smaller = min(point.k, point.columns)
    return smaller * point.k * point.columns / 2 + 2 * smaller**3 / 3


def kernels(rows: int, columns: int, threads: int) -> tuple[Kernel, ...]:
    """Return the kernels around a base of so many rows and columns."""
    base = Point(rows, columns, 10, threads)
    return (
        Kernel(
            "knn",
            "V² d / 2",
            lambda p: p.rows**2 * p.columns / 2,
            lambda p, limit: knn_problem(size(p), limit, k=p.k),
            knn.by_embgeom,
            lambda problem, found: knn.check(problem, knn.own_lists(problem, found), True),
            base,
        ),
        Kernel(
            "lle",
            "k² d / 2 + k³ / 3 a token",
            lambda p: p.k**2 * p.columns / 2 + p.k**3 / 3,
            lambda p, limit: local_problem(size(p), limit, k=p.k),
            lle.by_embgeom,
            lambda problem, result: lle.check(problem, result.weights, True),
            base,
            per_token=True,
        ),
        Kernel(
            "intrinsic_dimension",
            "p k d / 2 + 2 p³ / 3 a token, p = min(k, d)",
            dimension_work,
            lambda p, limit: local_problem(size(p), limit, k=p.k),
            dimension.by_embgeom,
            lambda problem, result: dimension.check(problem, result.n_components, True),
            replace(base, k=min(dimension.K, rows // 3)),
            per_token=True,
        ),
        Kernel(
            "global_similarity",
            "V (d d' + d² / 2 + d'² / 2), d' = d / 2",
            lambda p: p.rows * p.columns**2 * (1 / 2 + 1 / 2 + 1 / 8),
            lambda p, limit: pair_problem(size(p), limit, center=True),
            similarity.by_embgeom,
            lambda problem, value: similarity.check(problem, value, True),
            base,
            axes=("rows", "columns", "threads"),
        ),
    )


def time_point(kernel: Kernel, point: Point, check: bool) -> dict[str, Any]:
    """Time a kernel at a point: the median of some calls, for each token where it goes token by token."""
    problem = kernel.build(point, kernel.tokens(point))
    call = kernel.prepare(problem)
    times: list[float] = []
    while not times or (sum(times) < SECONDS and len(times) < REPEATS):
        begin = time.perf_counter()
        answer = call()
        times.append(time.perf_counter() - begin)
    if check:
        kernel.check(problem, answer)
    per = len(problem.tokens) if kernel.per_token else 1
    seconds = statistics.median(times) / per
    return asdict(point) | {
        "tokens": len(problem.tokens),
        "seconds": seconds,
        "rate": kernel.work(point) / seconds,
        "calls": len(times),
    }


def thread_counts() -> tuple[int, ...]:
    """Return 1, 2, 4 ... up to the cores, and their number itself."""
    cores = os.cpu_count() or 1
    return tuple(sorted({*(2**i for i in range(cores.bit_length())), cores}))
