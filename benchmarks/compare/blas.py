"""Plain float32 matrix products by the OpenBLAS that embgeom carries: what the hardware gives at most."""

from __future__ import annotations

import ctypes
import importlib.util
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.compare.contender import Call, Timed
from benchmarks.compare.problem import Problem, unit_rows

ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112
BLOCK = 4096
REPEATS = 3


def library_path() -> Path | None:
    """Return the file of the OpenBLAS inside embgeom; None where it was built with another BLAS."""
    # The package is found without importing it: nothing of embgeom may run beside what is timed here.
    spec = importlib.util.find_spec("embgeom")
    folders = spec.submodule_search_locations if spec else None
    found = [file for folder in folders or () for file in Path(folder).glob("_openblas/libscipy_openblas*")]
    return found[0] if found else None


class Blas:
    """Products of float32 matrices on a fixed number of threads."""

    def __init__(self, threads: int) -> None:
        self._library = ctypes.CDLL(str(library_path()))
        self._library.scipy_openblas_set_num_threads(threads)

    def product_with_transposed(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """Set out (m, n) = a (m, d) b' of b (n, d)."""
        self._multiply(PLAIN, TRANSPOSED, len(a), len(b), a.shape[1], a, b, out)

    def transposed_product(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        """Set out (p, q) = a' b of a (n, p), b (n, q)."""
        self._multiply(TRANSPOSED, PLAIN, a.shape[1], b.shape[1], len(a), a, b, out)

    def _multiply(self, turn_a, turn_b, m, n, inner, a, b, out) -> None:
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        places = [array.ctypes.data_as(ctypes.c_void_p) for array in (a, b, out)]
        widths = [array.strides[0] // array.itemsize for array in (a, b, out)]
        self._library.scipy_cblas_sgemm(
            *(ROW_MAJOR, turn_a, turn_b, m, n, inner, one, places[0], widths[0]),
            *(places[1], widths[1], zero, places[2], widths[2]),
        )


def all_products(problem: Problem) -> Call:
    """Multiply each vector asked about with every row, a block at a time, and choose nothing."""
    blas, base, asked = Blas(problem.threads), problem.unit, problem.asked
    # Memory is touched before the clock starts: nothing but the products is to be timed.
    out = np.full((min(BLOCK, len(asked)), len(base)), np.float32(0))

    def call() -> None:
        for begin in range(0, len(asked), BLOCK):
            block = asked[begin : begin + BLOCK]
            blas.product_with_transposed(block, base, out[: len(block)])

    return call


def closed_form_products(problem: Problem) -> Call:
    """Time what the closed form of the global similarity multiplies, at the speed of sgemm.

    A'A and B'B are symmetric, so half of their full products counts.
    """
    blas = Blas(problem.threads)
    a, b = unit_rows(problem.x), unit_rows(problem.other)

    def seconds(first: np.ndarray, second: np.ndarray) -> float:
        out = np.empty((first.shape[1], second.shape[1]), dtype=np.float32)
        times = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            blas.transposed_product(first, second, out)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    def call() -> Timed:
        return Timed(seconds(a, b) + (seconds(a, a) + seconds(b, b)) / 2)

    return call
