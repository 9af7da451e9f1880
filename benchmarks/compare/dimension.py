"""Intrinsic dimension of neighborhoods: a covariance and its eigenvalues for each token."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.compare.contender import Call, Case, Contender
from benchmarks.compare.dimension_workers import by_scipy_processes, spectrum_by
from benchmarks.compare.problem import Array, Problem, local_problem
from tests.oracles import reference
from tests.oracles import tolerances as tol

K = 1200
VARIANCE = 0.95
TOKENS = 64
FEW_TOKENS = 8
SAMPLE = 16


def by_embgeom(problem: Problem) -> Call:
    import embgeom

    return lambda: embgeom.intrinsic_dimension(
        problem.x, problem.lists, variance=VARIANCE, rows=problem.tokens, threads=problem.threads
    )


def by_torch(problem: Problem, batch: int = 1) -> Call:
    import torch

    x, lists = torch.from_numpy(problem.x), torch.from_numpy(problem.lists).long()

    def spectrum(some: slice) -> torch.Tensor:
        rows = x[lists[some]]
        rows -= rows.mean(dim=1, keepdim=True)
        wide = rows.shape[1] < rows.shape[2]  # the smaller of the two Gram matrices has all eigenvalues
        return torch.linalg.eigvalsh(torch.bmm(rows, rows.mT) if wide else torch.bmm(rows.mT, rows))

    def call() -> Array:
        parts = [spectrum(slice(begin, begin + batch)) for begin in range(0, len(lists), batch)]
        return torch.cat(parts).numpy()

    return call


def by_scipy(problem: Problem, driver: str | None = None, routine: str = "syrk") -> Call:
    eigenvalues = spectrum_by(driver, routine)
    return lambda: np.array([eigenvalues(problem.x[list_]) for list_ in problem.lists])


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


def own_components(_: Problem, result: Any) -> Array:
    return result.n_components


def components(problem: Problem, spectra: Array) -> Array:
    """Count the largest eigenvalues that reach the share, for each row of ascending eigenvalues."""
    rank = min(problem.k - 1, problem.x.shape[1])
    shares = np.cumsum(spectra[:, ::-1][:, :rank].astype(np.float64).clip(min=0), axis=1)
    return 1 + (shares < VARIANCE * shares[:, -1:]).sum(axis=1)


def check(problem: Problem, found: Array, exact: bool) -> dict[str, float]:
    """Return the share of tokens whose number is not that of the float64 singular values."""
    places = range(min(SAMPLE, len(problem.lists)))
    true = reference.intrinsic_dimension(problem.x, problem.lists[: len(places)])
    wrong = []
    for place in places:
        fewest, most = true[place].range(VARIANCE, tol.SHARE_MARGIN)
        wrong.append(not fewest <= found[place] <= most)
        assert not (exact and wrong[-1]), f"token {place}: {found[place]}, not {fewest} to {most}"
    return {"error": float(np.mean(wrong))}


SCIPY_OPTIONS = tuple(
    {"driver": driver, "routine": routine} for driver in ("evd", None) for routine in ("syrk", "matmul")
)
CONTENDERS = (
    Contender("embgeom", "embgeom", by_embgeom, own_components, limit=TOKENS),
    Contender("torch, token by token", "torch", by_torch, components, limit=TOKENS),
    Contender(
        "torch, batched", "torch", by_torch, components, options=({"batch": 4}, {"batch": 16}), limit=TOKENS
    ),
    Contender("scipy", "scipy", by_scipy, components, options=SCIPY_OPTIONS, limit=TOKENS),
    Contender("scipy, in processes", "scipy", by_scipy_processes, components, limit=TOKENS),
    Contender(
        *("scikit-learn PCA, covariance_eigh", "sklearn", partial(by_sklearn, solver="covariance_eigh")),
        *(components,),
        slow=True,
        limit=FEW_TOKENS,
    ),
    Contender(
        *("scikit-learn PCA, full", "sklearn", partial(by_sklearn, solver="full"), components),
        slow=True,
        limit=FEW_TOKENS,
    ),
    Contender("scikit-dimension lPCA", "skdim", by_skdim, slow=True, limit=FEW_TOKENS),
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
)
