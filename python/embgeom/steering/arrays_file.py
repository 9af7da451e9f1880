"""Directions saved by NumPy: one array in a .npy, or several by the names of their layers in a .npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.matrix_files.array_file import ArrayFile
from embgeom.steering.content import Content, check_size

_MOST_BYTES = 1 << 28


def read(path: Path) -> Content:
    """Return the arrays by name, the one of a .npy as ``"array"``; scalars of a .npz are facts.

    Raises
    ------
    LoadError
        If the file cannot be read, holds pickled objects or no floating-point numbers, or is too large for a
        vector.
    """
    file = ArrayFile(path)
    if file.bytes > _MOST_BYTES:
        raise LoadError(f"{path} unpacks to {file.bytes} bytes, too many for a steering vector")
    arrays = {name: file.read(name) for name in file.names}
    facts = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    vectors = {name: array for name, array in arrays.items() if name not in facts}
    check_size({name: array.shape for name, array in vectors.items()}, path)
    return Content({}, {name: _float32(array, name, path) for name, array in vectors.items()}, facts)


def _float32(array: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[np.float32]:
    if array.dtype.kind != "f":
        raise LoadError(
            f"{name!r} in {path} is {array.dtype}; a direction is an array of floating-point numbers"
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
