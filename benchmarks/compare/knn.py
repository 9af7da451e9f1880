"""Exact nearest neighbors: of all rows, and of other vectors."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare.blas import all_products
from benchmarks.compare.contender import EMBEDDED_BLAS, Call, Case, Contender
from benchmarks.compare.problem import Array, Problem, knn_problem
from tests.oracles import reference

Lists = tuple[Array, Array]
SAMPLE = 16
# How many rows the slowest are asked about.
SOME = 8192


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    options: dict[str, Any] = {"threads": problem.threads}
    if problem.queries is not None:
        options["queries"] = problem.queries
    return lambda: embgeom.knn(problem.x, problem.k, **options)


def wanted(problem: Problem) -> int:
    """Return how many neighbors to ask the others for: one more where a row finds itself, too."""
    return problem.k + (problem.queries is None)


def by_faiss(problem: Problem, query_block: int | None = None, base_block: int | None = None) -> Call:
    import faiss

    if query_block and base_block:
        faiss.cvar.distance_compute_blas_query_bs = query_block
        faiss.cvar.distance_compute_blas_database_bs = base_block
    index = faiss.IndexFlatIP(problem.x.shape[1])
    index.add(problem.unit)
    asked, count = problem.asked, wanted(problem)
    return lambda: index.search(asked, count)[::-1]


def by_torch(problem: Problem, block: int = 2048) -> Call:
    import torch

    base, asked = torch.from_numpy(problem.unit), torch.from_numpy(problem.asked)
    count = wanted(problem)

    def call() -> Lists:
        indices = torch.empty((len(asked), count), dtype=torch.int64)
        values = torch.empty((len(asked), count))
        products = torch.empty((min(block, len(asked)), len(base)))
        for begin in range(0, len(asked), block):
            some = asked[begin : begin + block]
            out = products[: len(some)]
            torch.mm(some, base.T, out=out)
            place = slice(begin, begin + len(some))
            torch.topk(out, count, out=(values[place], indices[place]))
        return indices.numpy(), values.numpy()

    return call


def by_numpy(problem: Problem, block: int = 1024) -> Call:
    base, asked, count = problem.unit, problem.asked, wanted(problem)

    def best(some: Array) -> Lists:
        products = some @ base.T
        members = np.argpartition(products, -count, axis=1)[:, -count:]
        values = np.take_along_axis(products, members, axis=1)
        order = np.argsort(-values, axis=1)
        return np.take_along_axis(members, order, axis=1), np.take_along_axis(values, order, axis=1)

    def call() -> Lists:
        parts = [best(asked[begin : begin + block]) for begin in range(0, len(asked), block)]
        indices, values = zip(*parts, strict=True)
        return np.concatenate(indices), np.concatenate(values)

    return call


def by_sklearn(problem: Problem) -> Call:
    from sklearn.neighbors import NearestNeighbors

    # scikit-learn's fast path knows the Euclidean distance, which orders unit rows as the cosine does. Rows
    # of zeros, which are nobody's neighbors, would come in between: they are put out of sight.
    base = np.where(problem.unit.any(axis=1, keepdims=True), problem.unit, np.float32(10))
    search = NearestNeighbors(
        n_neighbors=wanted(problem), algorithm="brute", metric="euclidean", n_jobs=problem.threads
    ).fit(base)
    asked = problem.asked

    def call() -> Lists:
        distances, indices = search.kneighbors(asked)
        return indices, 1 - distances**2 / 2

    return call


def own_lists(_: Problem, found: Any) -> Lists:
    return found.indices, found.similarities


def without_itself(problem: Problem, answer: Lists) -> Lists:
    """Remove each row from its own list, wherever it stands; the last where equal rows crowded it out."""
    indices, values = answer
    if problem.queries is not None:
        return indices, values
    itself = indices == problem.tokens[:, None]
    itself[:, -1] |= ~itself.any(axis=1)
    return tuple(array[~itself].reshape(len(array), -1) for array in (indices, values))


def check(problem: Problem, lists: Lists, exact: bool) -> dict[str, float]:
    """Compare the lists of some tokens with the oracle's.

    Recall counts the neighbors that are as near as the k-th nearest in float64, so whom of equal rows a
    contender takes does not matter.
    """
    asked = problem.x[problem.tokens] if problem.queries is None else problem.queries
    usable = np.flatnonzero(asked.any(axis=1))  # a row of zeros has no neighbors
    sample = np.random.default_rng(1).choice(usable, size=min(SAMPLE, len(usable)), replace=False)
    indices, similarities = lists[0][sample], lists[1][sample]
    if problem.queries is None:
        ranking = reference.rank(problem.x, rows=problem.tokens[sample])
    else:
        ranking = reference.rank(problem.x, queries=problem.queries[sample])
    if exact:
        reference.assert_same_neighbors(indices, similarities, ranking)
    true = np.take_along_axis(ranking.values, indices, axis=1)
    kth = -np.partition(np.nan_to_num(-ranking.values, nan=np.inf), problem.k - 1, axis=1)[:, problem.k - 1]
    near = true >= kth[:, None] - np.take_along_axis(ranking.slack, indices, axis=1)
    return {
        "error": float(np.nanmax(np.abs(similarities - true))),
        "recall": float(near.mean()),
    }


FAISS_BLOCKS = tuple(
    {"query_block": query_block, "base_block": base_block}
    for query_block, base_block in ((256, 1024), (1024, 1024), (4096, 4096), (512, 8192), (8192, 512))
)
EMBGEOM = Contender("embgeom", "embgeom", by_embgeom, own_lists)
GEMM = Contender("GEMM alone", EMBEDDED_BLAS, all_products)
FAISS_BEST = Contender("faiss, best blocks", "faiss", by_faiss, without_itself, options=FAISS_BLOCKS)
TORCH = Contender(
    "torch",
    "torch",
    by_torch,
    without_itself,
    options=tuple({"block": b} for b in (256, 1024, 4096)),
    slow=True,
)
NUMPY = Contender("NumPy", "numpy", by_numpy, without_itself, slow=True, limit=SOME)
SKLEARN = Contender("scikit-learn", "sklearn", by_sklearn, without_itself, slow=True, limit=SOME)


def self_join(k: int) -> Case:
    everybody = (EMBGEOM, GEMM, FAISS_BEST, TORCH, NUMPY, SKLEARN)
    build = partial(knn_problem, k=k)
    return Case("knn", f"knn, k = {k}", build, check, everybody, tuning_limit=4096)


def separate(k: int) -> Case:
    build = partial(knn_problem, k=k, query_count=8192)
    some = (EMBGEOM, GEMM, FAISS_BEST, TORCH)
    return Case("queries", f"8192 queries, k = {k}", build, check, some, tuning_limit=4096)


CASES = (*(self_join(k) for k in (10, 50, 1200)), *(separate(k) for k in (10, 50)))
