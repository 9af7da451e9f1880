"""Directions saved by NumPy: one array in a .npy, or several by the names of their layers in a .npz."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.folder import unreadable
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
    try:
        with path.open("rb") as stream:
            arrays = _members(stream, path) if zipfile.is_zipfile(stream) else {"array": _array(stream)}
    except OSError as error:
        raise unreadable(path, error) from error
    except LoadError:
        raise
    except Exception as error:
        # A damaged file makes NumPy and zipfile raise ValueError, EOFError, BadZipFile, zlib's error, ...
        raise LoadError(
            f"{path} cannot be read as NumPy arrays ({type(error).__name__}: {error!s:.200}); save it again "
            "with np.save or np.savez"
        ) from error
    facts = {
        name: array.item() for name, array in arrays.items() if array.ndim == 0 and array.dtype != object
    }
    vectors = {name: array for name, array in arrays.items() if name not in facts}
    check_size({name: array.shape for name, array in vectors.items()}, path)
    return Content({}, {name: _float32(array, name, path) for name, array in vectors.items()}, facts)


def _array(stream: Any) -> npt.NDArray[Any]:
    stream.seek(0)
    array = np.lib.format.read_array(stream, allow_pickle=False)
    return np.asarray(array)


def _members(stream: Any, path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(stream) as archive:
        # What a compressed member unpacks to is in the archive's list.
        size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_BYTES:
            raise LoadError(f"{path} unpacks to {size} bytes, too many for a steering vector")
        found = {}
        for member in archive.infolist():
            with archive.open(member) as content:
                found[member.filename.removesuffix(".npy")] = np.lib.format.read_array(
                    content, allow_pickle=False
                )
    return found


def _float32(array: npt.NDArray[Any], name: str, path: Path) -> npt.NDArray[np.float32]:
    if array.dtype.kind != "f":
        raise LoadError(
            f"{name!r} in {path} is {array.dtype}; a direction is an array of floating-point numbers"
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
