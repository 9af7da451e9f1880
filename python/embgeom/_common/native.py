"""The only file that loads the compiled extension."""

from __future__ import annotations

import ctypes
import hashlib
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import ClassVar

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

__all__ = ["build_digest", "core", "native_files", "source_digest"]


@cache
def build_digest() -> str:
    """Return the SHA-256, in hexadecimal, of the release and of the native code that computes results."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    sha = hashlib.sha256()
    # Run from a source tree, the package itself has no metadata.
    with suppress(PackageNotFoundError):
        sha.update(version("embgeom").encode())
    for file in native_files():
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


@cache
def source_digest() -> str:
    """Return the SHA-256, in hexadecimal, of the package's Python code, which computes some results too."""
    sha = hashlib.sha256()
    home = Path(__file__).resolve().parents[1]
    for file in sorted(home.rglob("*.py")):
        sha.update(f"{file.relative_to(home)}\n".encode() + file.read_bytes())
    return sha.hexdigest()


def native_files() -> list[Path]:
    """Return the files of the extension and of the BLAS and LAPACK that it was linked with."""
    files, extension, place = [Path(core.__file__)], ctypes.CDLL(core.__file__), _Place()
    # A wheel has its own OpenBLAS, whose names begin with scipy_. A system may split BLAS from LAPACK.
    for name in ("scipy_sgemm_", "sgemm_", "ssytrd_"):
        address = ctypes.cast(getattr(extension, name, 0), ctypes.c_void_p)
        if address and ctypes.CDLL(None).dladdr(address, ctypes.byref(place)):
            files.append(Path(os.fsdecode(place.file)))
    return list(dict.fromkeys(files))


class _Place(ctypes.Structure):
    """What the C library calls `Dl_info`."""

    _fields_: ClassVar = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]
