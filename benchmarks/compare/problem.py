"""The problems that contenders solve: one seeded matrix for all of them, and what is asked about it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

Array = np.ndarray


def synthetic(n: int, d: int, seed: int) -> Array:
    """Return (n, d) float32 rows like embeddings: clusters, an offset, falling variances, zeros, equals."""
    rng = np.random.default_rng(seed)
    scales = (1 / np.arange(1, d + 1) ** 0.4).astype(np.float32)
    centres = rng.standard_normal((max(1, n // 50), d), dtype=np.float32) * scales
    x = rng.standard_normal((n, d), dtype=np.float32)
    x *= scales
    x += centres[rng.integers(0, len(centres), n)]
    x += 0.5 * scales * rng.standard_normal(d, dtype=np.float32)
    x[rng.choice(n, n // 500, replace=False)] = 0
    x[rng.choice(n, n // 500, replace=False)] = x[n // 2]
    return x


@dataclass(frozen=True)
class Size:
    """How large a run is.

    `quick` shrinks what does not follow from the rows, such as repetitions; with `full`, no part of a study
    is scaled from a sample of tokens.
    """

    rows: int
    columns: int
    threads: int
    quick: bool = False
    full: bool = False


@dataclass(frozen=True)
class Problem:
    """What a contender is given. Attributes that a measure does not use stay None.

    Attributes
    ----------
    x : ndarray of float32, shape (n, d)
        The matrix of the vocabulary.
    tokens : ndarray of int64, shape (m,)
        The rows that something is asked about.
    queries : ndarray of float32, shape (m, d), or None
        Other vectors whose neighbors are wanted instead.
    lists : ndarray of int32, shape (m, k), or None
        The neighbors of each token.
    other : ndarray of float32, shape (n, d / 2), or None
        A second model's matrix.
    """

    x: Array
    threads: int
    tokens: Array
    k: int = 0
    queries: Array | None = None
    lists: Array | None = None
    other: Array | None = None
    center: bool = False
    quick: bool = False

    @cached_property
    def unit(self) -> Array:
        """The rows at length 1, rows of zeros as they are."""
        return unit_rows(self.x)

    @cached_property
    def asked(self) -> Array:
        """The unit vectors whose neighbors are wanted."""
        return self.unit[: len(self.tokens)] if self.queries is None else unit_rows(self.queries)


def unit_rows(x: Array) -> Array:
    """Scale each row to length 1, and leave rows of zeros."""
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(lengths == 0, 1, lengths)


def fitting_k(k: int, rows: int) -> int:
    """Return k, or what a matrix of so few rows (a trial, a warm-up) can have."""
    return min(k, rows // 3)


def knn_problem(size: Size, limit: int | None, *, k: int, query_count: int | None = None) -> Problem:
    """Ask for the neighbors of each row, of the first `limit` rows, or of `query_count` other vectors."""
    x = synthetic(size.rows, size.columns, seed=0)
    k = fitting_k(k, size.rows)
    if query_count is None:
        return Problem(x, size.threads, tokens=np.arange(size.rows)[:limit], k=k, quick=size.quick)
    count = min(query_count, size.rows, limit or query_count)
    queries = synthetic(count, size.columns, seed=7)
    return Problem(x, size.threads, tokens=np.arange(count), k=k, queries=queries, quick=size.quick)


def local_problem(size: Size, limit: int | None, *, k: int) -> Problem:
    """Ask about tokens whose neighbors are given.

    Random lists do as well as true ones: the arithmetic does not depend on who the neighbors are, and
    distant rows are the worst for the memory.
    """
    x = synthetic(size.rows, size.columns, seed=0)
    rng = np.random.default_rng(2)
    tokens = np.arange(size.rows) if limit is None else rng.permutation(size.rows)[:limit]
    k = fitting_k(k, size.rows)
    return Problem(x, size.threads, tokens, k, lists=distinct_lists(tokens, size.rows, k), quick=size.quick)


def distinct_lists(tokens: Array, rows: int, k: int) -> Array:
    """Draw k different rows for each token, never itself.

    One row is drawn from each of k equal parts of the matrix, so none can come twice. The parts are those
    of the rows without the token, hence the step over it.
    """
    rng = np.random.default_rng(3)
    edges = np.arange(k + 1) * (rows - 1) // k
    lists = np.empty((len(tokens), k), dtype=np.int32)
    for column, part in enumerate(rng.permutation(k)):
        lists[:, column] = rng.integers(edges[part], edges[part + 1], len(tokens))
    lists += lists >= tokens[:, None]
    return lists


def pair_problem(size: Size, limit: int | None, *, center: bool) -> Problem:
    """Ask how alike two models are, of which the second is half as wide and related to the first."""
    x = synthetic(size.rows, size.columns, seed=0)
    rng = np.random.default_rng(4)
    width = max(1, size.columns // 2)
    turn = rng.standard_normal((size.columns, width), dtype=np.float32) / np.float32(np.sqrt(width))
    other = x @ turn + np.float32(0.1) * rng.standard_normal((size.rows, width), dtype=np.float32)
    return Problem(
        x, size.threads, np.arange(size.rows)[:limit], other=other, center=center, quick=size.quick
    )
