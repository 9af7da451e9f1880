"""Intrinsic dimension of neighborhoods: a covariance and its eigenvalues for each token."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare.contender import Call, Case, Contender
from benchmarks.compare.dimension_workers import by_scipy_processes
from benchmarks.compare.problem import Array, Problem, Size, local_problem
from tests.oracles import reference
from tests.oracles import tolerances as tol

K = 1200
ROWS = 16384
VARIANCE = 0.95
TOKENS = 64
FEW_TOKENS = 8
SAMPLE = 16


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    return lambda: embgeom.intrinsic_dimension(
        problem.x, problem.lists, variance=VARIANCE, rows=problem.tokens, threads=problem.threads
    )


def by_torch(problem: Problem, batch: int = 1, in_threads: bool = False) -> Call:
    """Take a batch at a time on all threads, or a batch in each thread."""
    import torch

    x, lists = torch.from_numpy(problem.x), torch.from_numpy(problem.lists).long()

    def spectrum(some: slice) -> torch.Tensor:
        rows = x[lists[some]]
        rows -= rows.mean(dim=1, keepdim=True)
        wide = rows.shape[1] < rows.shape[2]  # the smaller of the two Gram matrices has all eigenvalues
        return torch.linalg.eigvalsh(torch.bmm(rows, rows.mT) if wide else torch.bmm(rows.mT, rows))

    def call() -> Array:
        torch.set_num_threads(1 if in_threads else problem.threads)
        with ThreadPoolExecutor(problem.threads if in_threads else 1) as pool:
            parts = [slice(begin, begin + batch) for begin in range(0, len(lists), batch)]
            return torch.cat(list(pool.map(spectrum, parts))).numpy()

    return call


def by_numpy(problem: Problem) -> Call:
    """Take one token in each thread: NumPy lets others run meanwhile, SciPy does not."""
    from threadpoolctl import threadpool_limits

    def spectrum(neighbors: Array) -> Array:
        rows = problem.x[neighbors]
        rows -= rows.mean(axis=0)
        # NumPy multiplies a matrix by its own transpose in half the time.
        return np.linalg.eigvalsh(rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows)

    def call() -> Array:
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(problem.threads) as pool:
            return np.array(list(pool.map(spectrum, problem.lists)))

    return call


def gram_and_reduction(problem: Problem) -> Call:
    """Take the two large steps alone, on one thread: the Gram matrix and LAPACK's ssytrd."""
    from scipy.linalg.lapack import ssytrd, ssytrd_lwork
    from threadpoolctl import threadpool_limits

    def reduce(neighbors: Array) -> None:
        rows = problem.x[neighbors]
        rows -= rows.mean(axis=0)
        gram = rows @ rows.T if rows.shape[0] < rows.shape[1] else rows.T @ rows
        # The matrix is symmetric, so its transpose, which LAPACK takes without a copy, does as well.
        ssytrd(gram.T, lower=1, lwork=int(ssytrd_lwork(len(gram))[0]), overwrite_a=1)

    def call() -> None:
        with threadpool_limits(1, "blas"):
            for neighbors in problem.lists:
                reduce(neighbors)

    return call


def by_sklearn(problem: Problem, solver: str) -> Call:
    from sklearn.decomposition import PCA

    pca = PCA(n_components=None, svd_solver=solver)
    return lambda: np.array(
        [pca.fit(problem.x[list_]).explained_variance_[::-1].copy() for list_ in problem.lists]
    )


def by_skdim(problem: Problem) -> Call:
    from skdim.id import lPCA

    return lambda: np.array(
        [lPCA(ver="ratio", alphaRatio=VARIANCE).fit(problem.x[list_]).dimension_ for list_ in problem.lists]
    )


def components(problem: Problem, spectra: Array) -> Array:
    """Count the largest eigenvalues that reach the share, for each row of ascending eigenvalues."""
    rank = min(problem.k - 1, problem.x.shape[1])
    shares = np.cumsum(spectra[:, ::-1][:, :rank].astype(np.float64).clip(min=0), axis=1)
    return 1 + (shares < VARIANCE * shares[:, -1:]).sum(axis=1)


def check(problem: Problem, answer: Any, exact: bool, sample: int = SAMPLE) -> dict[str, float]:
    """Return the share of tokens whose number is not that of the float64 singular values.

    The answer is the numbers, or embgeom's result, which says for which tokens float64 had to decide.
    """
    found = getattr(answer, "n_components", answer)
    places = range(min(sample, len(problem.lists)))
    true = reference.intrinsic_dimension(problem.x, problem.lists[: len(places)])
    wrong = []
    for place in places:
        fewest, most = true[place].range(VARIANCE, tol.SHARE_MARGIN)
        wrong.append(not fewest <= found[place] <= most)
        assert not (exact and wrong[-1]), f"token {place}: {found[place]}, not {fewest} to {most}"
    decided = {} if found is answer else {"float64": float(answer.decided_in_float64.mean())}
    return {"error": float(np.mean(wrong))} | decided


TORCH_OPTIONS = tuple(
    {"batch": batch, "in_threads": in_threads} for batch, in_threads in ((1, False), (8, False), (1, True))
)
CONTENDERS = (
    Contender("embgeom", "embgeom", by_embgeom, limit=TOKENS),
    Contender("NumPy, in threads", "numpy", by_numpy, components, limit=TOKENS),
    Contender("scipy, in processes", "scipy", by_scipy_processes, components, limit=TOKENS),
    Contender("torch", "torch", by_torch, components, options=TORCH_OPTIONS, limit=TOKENS),
    Contender(
        "scikit-learn PCA",
        "sklearn",
        by_sklearn,
        components,
        options=({"solver": "covariance_eigh"}, {"solver": "full"}),
        slow=True,
        limit=FEW_TOKENS,
    ),
    Contender("scikit-dimension lPCA", "skdim", by_skdim, slow=True, limit=FEW_TOKENS),
)


def narrow_problem(size: Size, limit: int | None, *, columns: int) -> Problem:
    """Ask for some tokens of a matrix of so many columns, on one thread."""
    if size.quick:
        columns = min(columns, size.columns)
    return local_problem(Size(min(size.rows, ROWS), columns, 1, size.quick), limit, k=K)


def steps_alone(columns: int) -> Case:
    return Case(
        f"steps-{columns}",
        f"intrinsic dimension beside its two large steps, d = {columns}, k = {K}, one thread",
        partial(narrow_problem, columns=columns),
        check,
        (
            Contender("embgeom", "embgeom", by_embgeom, limit=TOKENS),
            Contender("Gram matrix and ssytrd, float32", "scipy", gram_and_reduction, limit=TOKENS),
        ),
        unit=("ms a token", 1e3),
        per_token=True,
    )


CASES = (
    Case(
        "dimension",
        f"intrinsic dimension, k = {K}",
        partial(local_problem, k=K),
        check,
        CONTENDERS,
        unit=("ms a token", 1e3),
        per_token=True,
        tuning_limit=16,
    ),
    *(steps_alone(columns) for columns in (768, 1024, 1536, 2048, 4096)),
)
