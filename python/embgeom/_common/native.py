"""The only file that loads the compiled extension."""

from __future__ import annotations

import os

_VARIABLE = "OPENBLAS_NUM_THREADS"

# OpenBLAS starts one thread for each core as soon as it is loaded, and reads this variable only then. The
# kernels call it from their own threads, so its pool would do nothing but take memory.
_before = os.environ.get(_VARIABLE)
os.environ[_VARIABLE] = "1"
try:
    import embgeom._core as core
finally:
    if _before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _before

__all__ = ["core"]
