"""The one place that loads the compiled extension."""

from __future__ import annotations

import os


def _load_without_blas_threads() -> None:
    """Import the extension while the environment tells its BLAS to start no threads of its own.

    OpenBLAS starts one thread for each core as soon as it is loaded, and reads this variable only then. The
    kernels call it from their own threads, so its pool would do nothing but take memory.
    """
    variable = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        pass
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


_load_without_blas_threads()

import embgeom._core as core  # noqa: E402

__all__ = ["core"]
