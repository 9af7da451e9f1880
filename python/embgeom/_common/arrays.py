"""What arrays the kernels get: the only file that decides on dtypes and memory layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.foreign import to_numpy
from embgeom.errors import InputError

Float32Matrix = npt.NDArray[np.float32]
Float32Vector = npt.NDArray[np.float32]
Float64Matrix = npt.NDArray[np.float64]
Float64Vector = npt.NDArray[np.float64]
IndexMatrix = npt.NDArray[np.int32]
RowNumbers = npt.NDArray[np.int64]

_LARGEST_ROW_COUNT = np.iinfo(np.int32).max


def as_matrix(x: npt.ArrayLike, name: str = "x") -> Float32Matrix:
    """Return `x` as a C-contiguous float32 matrix, `x` itself where it is one already."""
    array = as_real_array(x, name)
    if array.ndim != 2:
        raise InputError(f"{name} must be a matrix (rows, columns), not of shape {array.shape}")
    if 0 in array.shape:
        raise InputError(f"{name} is empty: its shape is {array.shape}")
    if array.shape[0] > _LARGEST_ROW_COUNT:
        raise InputError(f"{name} has {array.shape[0]} rows; at most {_LARGEST_ROW_COUNT} can be numbered")
    if array.dtype == np.float32:
        return np.require(array, requirements=["C", "A"])
    # An overflow is reported below with its row and column instead of by NumPy's warning.
    with np.errstate(over="ignore", under="ignore"):
        matrix = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.itemsize > 4:
        refuse_lost_rows(array, matrix, name)
    return matrix


def as_row_numbers(rows: npt.ArrayLike, row_count: int, name: str = "rows") -> RowNumbers:
    """Return `rows` as a vector of row numbers in [0, row_count)."""
    array = as_integers(rows, name)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be a vector of at least one row number, not of shape {array.shape}")
    outside = (array < 0) | (array >= row_count)
    if outside.any():
        index = int(np.argmax(outside))
        raise InputError(
            f"{name}[{index}] = {array[index]} is not a row of x: row numbers lie in [0, {row_count})"
        )
    # A copy, so that the numbers cannot change after they were checked.
    return np.array(array, dtype=np.int64, order="C")


def as_neighbor_list(neighbors: npt.ArrayLike, row_count: int) -> IndexMatrix:
    """Return `neighbors` as an int32 matrix of row numbers in [-1, row_count); -1 stands for no neighbor."""
    array = as_integers(neighbors, "neighbors")
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"neighbors must be a matrix (tokens, k), not of shape {array.shape}")
    if array.min() < -1 or array.max() >= row_count:
        outside = (array < -1) | (array >= row_count)
        row, column = np.unravel_index(int(np.argmax(outside)), array.shape)
        raise InputError(
            f"neighbors[{row}, {column}] = {array[row, column]} is not a row of x, which has {row_count} "
            "rows: row numbers lie in [0, n), and -1 stands for no neighbor"
        )
    return np.require(array, dtype=np.int32, requirements=["C", "A"])


def as_real_array(x: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Return `x` as an array of real numbers of any shape and type, `x` itself where it is one already."""
    array = to_numpy(x, name)
    is_real = array.dtype.kind in "bui" or np.issubdtype(array.dtype, np.floating)
    # Extension types such as ml_dtypes.bfloat16 are of kind "V" and convert to float32 exactly.
    if not is_real and not array.dtype.name.startswith(("bfloat16", "float8")):
        raise InputError(f"{name} must hold real numbers, not {array.dtype}")
    return array


def as_integers(x: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """Return `x` as an array of integers of any shape."""
    array = as_real_array(x, name)
    if array.dtype.kind not in "ui" and array.size > 0:
        raise InputError(f"{name} must hold integers, not {array.dtype}")
    return array


def refuse_lost_rows(array: npt.NDArray[Any], matrix: Float32Matrix, name: str) -> None:
    """Name the first number or row that float32 cannot hold; the kernels report what was not finite."""
    for begin in range(0, len(matrix), 4096):
        piece = slice(begin, begin + 4096)
        lost = np.isinf(matrix[piece]) & np.isfinite(array[piece])
        if lost.any():
            row, column = np.unravel_index(int(np.argmax(lost)), lost.shape)
            value = array[begin + row, column]
            raise InputError(
                f"{name}: row {begin + row}, column {column} is {value}, too large for float32; "
                "rescale the matrix"
            )
        vanished = ~matrix[piece].any(axis=1) & array[piece].astype(bool).any(axis=1)
        if vanished.any():
            raise InputError(
                f"{name}: all of row {begin + int(np.argmax(vanished))} is too small for float32, and would "
                "be 0; rescale the matrix"
            )
