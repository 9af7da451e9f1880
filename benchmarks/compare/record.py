"""The record of what was measured, where and with what: made, merged and saved."""

from __future__ import annotations

import ctypes
import json
import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.compare.blas import library_path
from benchmarks.compare.problem import Size

PACKAGES = (
    *("embgeom", "numpy", "faiss-cpu", "torch", "scipy", "scikit-learn", "scikit-dimension"),
    "threadpoolctl",
)
# Numbers that were measured under different settings do not belong into one table.
SETTINGS = ("rows", "columns", "threads", "processor", "quick")

Record = dict[str, Any]


class RecordDiffers(ValueError):
    """An earlier record was made under other settings; the message names them."""


def new_record(size: Size) -> Record:
    """Return an empty record with the machine and the versions it is made with."""
    return {
        "rows": size.rows,
        "columns": size.columns,
        "threads": size.threads,
        "quick": size.quick,
        "processor": processor(),
        "cores": os.cpu_count(),
        "blas_core": blas_core(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := installed_version(name))},
        "date": today(),
        "cases": {},
    }


def continued(file: Path, fresh: Record) -> Record:
    """Return the fresh record with the cases that an earlier one at `file` holds.

    Raises
    ------
    RecordDiffers
        If the earlier one was made under other settings.
    """
    if not file.exists():
        return fresh
    earlier = json.loads(file.read_text(encoding="utf-8"))
    other = [
        f"{key} {earlier.get(key)!r}, now {fresh[key]!r}"
        for key in SETTINGS
        if earlier.get(key) != fresh[key]
    ]
    if other:
        raise RecordDiffers(
            f"{file} was measured with {'; '.join(other)}: "
            "name another --output, or measure everything again without --only"
        )
    return fresh | {"cases": earlier["cases"]}


def write_whole(file: Path, text: str) -> None:
    """Write a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def today() -> str:
    return datetime.now(timezone.utc).date().isoformat()


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def blas_core() -> str | None:
    """Return the kind of core for which embgeom's OpenBLAS has chosen its kernels."""
    path = library_path()
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    return library.scipy_openblas_get_corename().decode()
