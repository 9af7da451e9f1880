"""Reconstruction weights of locally linear embedding, for given neighbors."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks.compare.contender import Call, Case, Contender
from benchmarks.compare.problem import Array, Problem, local_problem
from tests.oracles import tolerances as tol

REG = 1e-3
SAMPLE = 64
SKLEARN_TOKENS = 4000


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    return lambda: embgeom.lle(
        problem.x, problem.lists, reg=REG, rows=problem.tokens, threads=problem.threads
    )


def by_torch(problem: Problem, dtype: str = "float32", solver: str = "cholesky", batch: int = 256) -> Call:
    """Solve a batch of tokens at once: gather, one batched product, one batched solve."""
    import torch

    x = torch.from_numpy(problem.x)
    lists, tokens = torch.from_numpy(problem.lists).long(), torch.from_numpy(problem.tokens)
    precision = getattr(torch, dtype)
    ones = torch.ones((1, problem.k, 1), dtype=precision)

    def solve(system: torch.Tensor) -> torch.Tensor:
        if solver == "cholesky":
            return torch.cholesky_solve(ones.expand(len(system), -1, -1), torch.linalg.cholesky(system))
        return torch.linalg.solve(system, ones)

    def weights(some: slice) -> torch.Tensor:
        # Where float64 is wanted, float32 rows are gathered and then converted: half the traffic.
        neighbors = x[lists[some]].to(precision)
        neighbors -= x[tokens[some], None].to(precision)
        gram = torch.bmm(neighbors, neighbors.mT)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        trace = diagonal.sum(dim=1, keepdim=True)
        diagonal += REG * torch.where(trace > 0, trace, 1)  # 0 where a token equals all of its neighbors
        solution = solve(gram)[:, :, 0]
        return (solution / solution.sum(dim=1, keepdim=True)).float()

    def call() -> Array:
        out = torch.empty((len(tokens), problem.k))
        for begin in range(0, len(tokens), batch):
            out[begin : begin + batch] = weights(slice(begin, begin + batch))
        return out.numpy()

    return call


def by_sklearn(problem: Problem) -> Call:
    from sklearn.manifold._locally_linear import barycenter_weights

    tokens = problem.x[problem.tokens]
    return lambda: barycenter_weights(tokens, problem.x, problem.lists, reg=REG)


def own_weights(_: Problem, result: Any) -> Array:
    return result.weights


def check(problem: Problem, weights: Array, exact: bool) -> dict[str, float]:
    """Compare the weights of some tokens with those of a float64 solve."""
    count = len(problem.tokens)
    sample = np.random.default_rng(1).choice(count, size=min(SAMPLE, count), replace=False)
    errors = []
    for place in sample:
        x = problem.x[np.append(problem.lists[place], problem.tokens[place])].astype(np.float64)
        differences = x[:-1] - x[-1]
        gram = differences @ differences.T
        system = gram + REG * np.trace(gram) * np.eye(len(gram))
        true = np.linalg.solve(system, np.ones(len(gram)))
        true /= true.sum()
        error = np.abs(weights[place].astype(np.float64) - true)
        if exact:
            assert (error <= tol.weight_atol(true, np.linalg.cond(system))).all(), f"token {place}: {error}"
        errors.append(error.max())
    return {"error": float(max(errors))}


TORCH_OPTIONS = tuple(
    {"dtype": dtype, "solver": solver, "batch": batch}
    for dtype, solver, batch in product(("float32", "float64"), ("cholesky", "solve"), (64, 256, 1024))
)


def weights_case(k: int) -> Case:
    return Case(
        "lle",
        f"LLE, k = {k}",
        partial(local_problem, k=k),
        check,
        (
            Contender("embgeom", "embgeom", by_embgeom, own_weights),
            Contender("torch", "torch", by_torch, options=TORCH_OPTIONS),
            Contender("scikit-learn", "sklearn", by_sklearn, slow=True, limit=SKLEARN_TOKENS),
        ),
        unit=("µs a token", 1e6),
        per_token=True,
        tuning_limit=4096,
    )


CASES = tuple(weights_case(k) for k in (10, 50, 100))
