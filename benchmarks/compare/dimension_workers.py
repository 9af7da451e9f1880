"""Eigenvalues by SciPy, in this process or in several of one thread each.

LAPACK's eigenvalues gain little from threads, so a process for each core is the best that SciPy can do. The
workers import this file, which therefore needs nothing but NumPy and SciPy.
"""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchmarks.compare.contender import Call
    from benchmarks.compare.problem import Problem

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# What a worker keeps between two parts of the work.
_kept: dict[str, np.ndarray] = {}


def by_scipy_processes(problem: Problem) -> Call:
    """Share the tokens among as many processes of one thread as there are threads.

    The workers are started and have read the matrix before the clock starts.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))  # for the workers; this process only waits
    # A pool for each worker, so that none can take another's part.
    workers = [ProcessPoolExecutor(1, get_context("spawn")) for _ in range(problem.threads)]
    parts = np.array_split(problem.lists, len(workers))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.npy"
        np.save(file, problem.x)
        for ready in [worker.submit(_get_ready, file, problem.lists[:1]) for worker in workers]:
            ready.result()

    def call() -> np.ndarray:
        work = [w.submit(_spectra, part) for w, part in zip(workers, parts, strict=True) if len(part)]
        return np.concatenate([done.result() for done in work])

    return call


def _get_ready(file: Path, lists: np.ndarray) -> None:
    _kept["x"] = np.load(file)
    _spectra(lists)


def _spectra(lists: np.ndarray) -> np.ndarray:
    return np.array([_spectrum(_kept["x"][list_]) for list_ in lists])


def _spectrum(rows: np.ndarray) -> np.ndarray:
    """Return the ascending eigenvalues of the rows' covariance, up to its scale."""
    from scipy.linalg import eigvalsh
    from scipy.linalg.blas import ssyrk

    rows -= rows.mean(axis=0)
    wide = rows.shape[0] < rows.shape[1]  # the smaller of the two Gram matrices has all eigenvalues
    # The transpose of a C array is the Fortran array that BLAS wants, so nothing is copied.
    gram = ssyrk(1.0, rows.T, trans=int(wide), lower=1)
    return eigvalsh(gram, driver="evd", overwrite_a=True, check_finite=False)
