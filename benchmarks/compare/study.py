"""Everything that a study of one model needs, beside the best script with other libraries.

Neighbors for k = 10 and k = 1,200 (one search: the shorter lists begin the longer ones), LLE weights over 10
neighbors, the intrinsic dimension of each token, norms and equal rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare import dimension, knn, lle
from benchmarks.compare.contender import Call, Case, Contender, Timed
from benchmarks.compare.dimension_workers import start_workers
from benchmarks.compare.problem import Array, Problem, Size, knn_problem
from benchmarks.compare.usage import cpu_seconds

K, FEW = 1200, 10
# Each token costs the same, so the intrinsic dimension is timed on so many unless all are asked for.
TOKENS = 256
CHECKED = 48
# The fastest settings of the cases for k = 1,200 and for LLE.
FAISS_OPTIONS = {"query_block": 4096, "base_block": 4096}
TORCH_OPTIONS = {"dtype": "float32", "solver": "solve", "batch": 256}


@dataclass(frozen=True)
class Study:
    """What is found out: lists for all rows, weights for all rows, numbers of components of some."""

    indices: Array
    similarities: Array
    weights: Array
    n_components: Array
    first_equal: Array


@dataclass
class Clock:
    """Adds up what the parts of a study take."""

    seconds: dict[str, float] = field(default_factory=dict)
    cpu: float = 0.0
    scaled: bool = False

    def part(self, name: str, call: Callable[[], Any], times: float = 1.0) -> Any:
        """Time a part, which counts so many times."""
        cpu, begin = cpu_seconds(), time.perf_counter()
        answer = call()
        self.seconds[name] = (time.perf_counter() - begin) * times
        self.cpu += (cpu_seconds() - cpu) * times
        self.scaled |= times != 1
        return answer

    def timed(self, study: Study) -> Timed:
        """Return the study with its times."""
        return Timed(sum(self.seconds.values()), study, self.cpu, self.seconds, self.scaled)


def study_problem(size: Size, limit: int | None, *, rows: int, columns: int) -> Problem:
    """Ask for the intrinsic dimension of some tokens, and for all else of all tokens."""
    if size.quick:
        rows, columns = min(rows, size.rows), min(columns, size.columns)
    problem = knn_problem(Size(rows, columns, size.threads, size.quick), None, k=K)
    if size.full or limit is None:
        return problem
    # Rows of zeros have no neighbors; a token without any would be no token's share.
    directed = np.flatnonzero(problem.x.any(axis=1))
    sample = np.random.default_rng(5).choice(directed, min(limit, len(directed)), replace=False)
    return replace(problem, tokens=np.sort(sample))


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    x, options = problem.x, {"threads": problem.threads}
    some = {} if len(problem.tokens) == len(x) else {"rows": problem.tokens}

    def call() -> Timed:
        clock = Clock()
        stats = clock.part("rows", lambda: embgeom.row_stats(x, **options))
        found = clock.part("knn", lambda: embgeom.knn(x, problem.k, **options))
        near = replace(found, indices=found.indices[:, :FEW], similarities=found.similarities[:, :FEW])
        weights = clock.part("lle", lambda: embgeom.lle(x, near, **options).weights)
        lists = found.indices[problem.tokens] if some else found
        components = clock.part(
            "dimension",
            lambda: embgeom.intrinsic_dimension(x, lists, variance=dimension.VARIANCE, **some, **options),
            len(x) / len(problem.tokens),
        ).n_components
        return clock.timed(Study(found.indices, found.similarities, weights, components, stats.first_equal))

    return call


def by_script(problem: Problem, precision: str = "float32") -> Call:
    """Search by faiss, weights by torch, eigenvalues by SciPy's LAPACK in as many processes as threads."""
    import faiss  # noqa: F401  Loaded here, as the others are: what is imported is not timed.
    import torch  # noqa: F401

    x, everybody = problem.x, replace(problem, tokens=np.arange(len(problem.x)))
    spectra = start_workers(problem, precision)

    def neighbors() -> tuple[Array, Array]:
        fresh = replace(everybody)  # which has not scaled its rows yet
        return knn.without_itself(fresh, knn.by_faiss(fresh, **FAISS_OPTIONS)())

    def call() -> Timed:
        clock = Clock()
        first_equal = clock.part("rows", lambda: row_facts(x)[1])
        indices, similarities = clock.part("knn", neighbors)
        near = replace(everybody, k=FEW, lists=indices[:, :FEW])
        weights = clock.part("lle", lle.by_torch(near, **TORCH_OPTIONS))
        components = clock.part(
            "dimension",
            lambda: dimension.components(problem, spectra(indices[problem.tokens])),
            len(x) / len(problem.tokens),
        )
        return clock.timed(Study(indices, similarities, weights, components, first_equal))

    return call


def row_facts(x: Array) -> tuple[Array, Array]:
    """Return norms, and for each row the first that equals it, found by a dictionary of their bytes."""
    first: dict[bytes, int] = {}
    equal = [first.setdefault((row + np.float32(0)).tobytes(), place) for place, row in enumerate(x)]
    return np.linalg.norm(x, axis=1), np.array(equal)


def check(problem: Problem, study: Study, exact: bool) -> dict[str, float]:
    """Check each part by the check of its own case; the error is that of the intrinsic dimension."""
    everybody = replace(problem, tokens=np.arange(len(problem.x)))
    graph = knn.check(everybody, (study.indices, study.similarities), exact)
    rng = np.random.default_rng(1)
    directed = np.flatnonzero(problem.x[problem.tokens].any(axis=1))
    places = rng.choice(directed, min(CHECKED, len(directed)), replace=False)
    tokens = problem.tokens[places]
    lists = study.indices[tokens]
    some = replace(problem, tokens=tokens, lists=lists)
    wrong = dimension.check(some, study.n_components[places], exact, sample=CHECKED)
    # A token that equals all of its neighbors has no weights that are better than others.
    unequal = (problem.x[lists[:, :FEW]] != problem.x[tokens, None]).any(axis=(1, 2))
    near = replace(problem, k=FEW, tokens=tokens[unequal], lists=lists[unequal][:, :FEW])
    weights = lle.check(near, study.weights[tokens[unequal]], exact)
    assert (study.first_equal == row_facts(problem.x)[1]).all(), "equal rows"
    return {"error": wrong["error"], "recall": graph["recall"], "weight_error": weights["error"]}


def study_of(name: str, rows: int, columns: int) -> Case:
    return Case(
        name,
        f"study of one model, {rows:,} x {columns:,}",
        partial(study_problem, rows=rows, columns=columns),
        check,
        (
            Contender("embgeom", "embgeom", by_embgeom, limit=TOKENS),
            Contender("script: faiss, torch, SciPy", "faiss", by_script, limit=TOKENS),
            Contender(
                "the same, dimension in float64",
                "faiss",
                partial(by_script, precision="float64"),
                limit=TOKENS,
                slow=True,
            ),
        ),
    )


CASES = (
    study_of("study-768", 16384, 768),
    study_of("study-2048", 16384, 2048),
    study_of("study-whole", 50257, 768),
)
