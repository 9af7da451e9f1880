"""The record of what was measured, where and with what: made, merged and saved."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.compare.blas import library_path
from benchmarks.compare.problem import Size

# Packages, by the modules that they bring.
PACKAGES = {
    **{"embgeom": "embgeom", "numpy": "numpy", "faiss": "faiss-cpu", "torch": "torch", "scipy": "scipy"},
    **{"sklearn": "scikit-learn", "skdim": "scikit-dimension", "threadpoolctl": "threadpoolctl"},
    "distributed": "distributed",
}
# Numbers that were measured under different settings do not belong into one table.
SETTINGS = ("rows", "columns", "threads", "processor", "instructions", "blas_core", "quick")

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
        "instructions": instructions(),
        "blas_core": blas_core(),
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES.values() if (found := installed_version(name))},
        "revision": revision(),
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


def revision() -> str | None:
    """Return the last commit that changed code, with a + where files differ from it; None outside of git."""
    code = ("cpp", "python", "benchmarks/compare")
    commit = git_output("log", "-1", "--format=%h", "--", *code)
    return commit + "+" * bool(git_output("status", "--porcelain", "--", *code)) if commit else None


def git_output(*command: str) -> str:
    root = Path(__file__).resolve().parents[2]
    try:
        return subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        return ""


def loaded_versions() -> dict[str, str]:
    """Return the versions of the packages that this process has loaded."""
    loaded = {
        package: installed_version(package) for module, package in PACKAGES.items() if module in sys.modules
    }
    return {package: found for package, found in loaded.items() if found}


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


def instructions() -> str:
    """Return the widest instructions that embgeom's kernels use."""
    # Imported here: processes that time other libraries load this file, too.
    from embgeom._common.native import core

    return core.instruction_set().split(",")[0]


def blas_core() -> str | None:
    """Return the kind of core for which embgeom's OpenBLAS has chosen its kernels."""
    path = library_path()
    if path is None:
        return None
    library = ctypes.CDLL(str(path))
    library.scipy_openblas_get_corename.restype = ctypes.c_char_p
    return library.scipy_openblas_get_corename().decode()
