"""Any number of threads: the same bits, and no end of the process."""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks.compare import knn
from benchmarks.compare.contender import Call, Case, Contender
from benchmarks.compare.problem import Array, Problem, Size, knn_problem

ROWS, TOKENS, K = 4096, 512, 250
COUNTS = (64, 192, 1000)


def few_rows(size: Size, limit: int | None) -> Problem:
    """Ask about a part of a small matrix, with lists so long that LAPACK is called for each."""
    return knn_problem(Size(min(size.rows, ROWS), size.columns, size.threads, size.quick), TOKENS, k=K)


def by_embgeom(problem: Problem, threads: int | None = None) -> Call:
    import embgeom

    x, rows = problem.x, problem.tokens
    options = {"threads": threads or problem.threads}

    def call() -> tuple[Array, ...]:
        found = embgeom.knn(x, problem.k, **options)
        lists = found.indices[rows]
        solved = embgeom.lle(x, lists, rows=rows, **options)
        sizes = embgeom.intrinsic_dimension(x, lists, rows=rows, **options)
        return (
            *(found.indices, found.similarities, solved.weights, solved.residuals),
            *(sizes.n_components, sizes.participation_ratio, sizes.explained_variance_ratio),
        )

    return call


def check(problem: Problem, arrays: tuple[Array, ...], exact: bool) -> dict[str, float]:
    """Return the share of numbers whose bits are not those that one thread gives."""
    others = by_embgeom(problem, threads=1)()
    different = sum(
        np.count_nonzero(a.view(np.uint32) != b.view(np.uint32)) for a, b in zip(arrays, others, strict=True)
    )
    assert not different, f"{different} numbers are others than on one thread"
    if exact:
        knn.check(problem, (arrays[0][problem.tokens], arrays[1][problem.tokens]), exact)
    return {"error": different / sum(array.size for array in arrays)}


CASES = (
    Case(
        "threads",
        f"more threads than cores: knn, LLE and dimension, {ROWS:,} rows, k = {K}",
        few_rows,
        check,
        (
            Contender("embgeom", "embgeom", by_embgeom),
            *(
                Contender(f"{count} threads", "embgeom", partial(by_embgeom, threads=count))
                for count in COUNTS
            ),
        ),
    ),
)
