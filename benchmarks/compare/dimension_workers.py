"""Eigenvalues by SciPy, in this process or in several of one thread each.

LAPACK's eigenvalues gain little from threads, so a process for each core is the best that SciPy can do. The
workers import this file, which therefore needs nothing but NumPy and SciPy.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.compare.contender import Call
    from benchmarks.compare.problem import Problem

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# So many lists go to a worker at a time.
PART = 32
# What a worker keeps between two parts of the work.
_kept: dict[str, np.ndarray] = {}

Spectra = Callable[[np.ndarray], np.ndarray]


def by_scipy_processes(problem: Problem) -> Call:
    """Share the tokens among as many processes of one thread as there are threads."""
    spectra = start_workers(problem)
    return lambda: spectra(problem.lists)


def start_workers(problem: Problem, precision: str = "float32") -> Spectra:
    """Start the processes, and return a function from lists to the spectra of their rows.

    The workers are started and have mapped the matrix before the clock starts.
    """
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        np.save(file, problem.x)
        context = get_context("spawn")
        pool = ProcessPoolExecutor(
            problem.threads, context, initializer=_get_ready, initargs=(file, precision)
        )
        list(pool.map(_wait_for_all, [problem.threads] * problem.threads))
    os.environ.update({name: value for name, value in before.items() if value is not None})

    def spectra(lists: np.ndarray) -> np.ndarray:
        parts = [lists[begin : begin + PART].astype(np.int32) for begin in range(0, len(lists), PART)]
        return np.concatenate(list(pool.map(_spectra, parts)))

    return spectra


def _get_ready(file: Path, precision: str) -> None:
    from scipy.linalg import lapack  # noqa: F401  Loaded here, not while the clock runs.

    _kept["x"] = np.load(file, mmap_mode="r")
    _kept["type"] = np.zeros(0, precision)


def _wait_for_all(count: int) -> None:
    """Keep a worker busy for so long that each of them starts."""
    time.sleep(0.2 * count)


def _spectra(lists: np.ndarray) -> np.ndarray:
    return np.array([_spectrum(_kept["x"][list_].astype(_kept["type"].dtype, copy=False)) for list_ in lists])


def _spectrum(rows: np.ndarray) -> np.ndarray:
    """Return the ascending eigenvalues of the rows' covariance, up to its scale.

    LAPACK's ssyevd and NumPy, which calls it, give ssytrd too little room for its blocks: called with enough,
    it takes two thirds of the time.
    """
    from scipy.linalg import lapack
    from scipy.linalg.blas import dsyrk, ssyrk

    rows -= rows.mean(axis=0)
    letter, syrk = ("s", ssyrk) if rows.dtype == np.float32 else ("d", dsyrk)
    wide = rows.shape[0] < rows.shape[1]  # the smaller of the two Gram matrices has all eigenvalues
    # The transpose of a C array is the Fortran array that BLAS wants, so nothing is copied.
    gram = syrk(1.0, rows.T, trans=int(wide), lower=1)
    reduce, room, solve = (getattr(lapack, f"{letter}{name}") for name in ("sytrd", "sytrd_lwork", "sterf"))
    _, diagonal, beside, _, _ = reduce(gram, lower=1, lwork=int(room(len(gram))[0]), overwrite_a=1)
    return solve(diagonal, beside)[0]
