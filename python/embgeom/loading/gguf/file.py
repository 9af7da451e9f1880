"""One tensor of a GGUF file; nothing else of its data is read.

A float32 tensor is the file's own pages. Any other is converted a few rows at a time, so that the matrix and
one piece of it are all that is held.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.optional import need
from embgeom.errors import LoadError
from embgeom.loading.convert import READ_AS, steps, to_float32
from embgeom.loading.folder import LocalFile
from embgeom.loading.gguf.header import GGUFHeader, TensorInfo

_PIECE_BYTES = 1 << 23
# A tensor of this size is not worth a mapping, which lasts as long as the array.
_SMALL_BYTES = 1 << 16

_INTEGERS = ("I8", "I16", "I32", "I64")

_Convert = Callable[[bytes, int], npt.NDArray[np.float32]]


class GGUFFile:
    """An open GGUF file, used like a `SafetensorsFile`."""

    def __init__(self, path: Path, accept: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._file = LocalFile(path)
        self.state = self._file.state
        self.header = GGUFHeader(self._file, accept)
        self.names: tuple[str, ...] = tuple(self.header.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, rows first."""
        return self.header.tensors[name].shape

    def dtype(self, name: str) -> str:
        """Return the stored type of a tensor: F32, Q8_0, ..."""
        return self.header.tensors[name].dtype

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Read one tensor as float32."""
        info = self.header.tensors[name]
        stored = READ_AS[info.dtype].newbyteorder(self.header.order) if info.dtype in READ_AS else None
        if prod(info.shape) == 0:
            return np.empty(info.shape, dtype=np.float32)
        if stored is not None and (stored == np.float32 or info.dtype == "F64"):
            raw = self._whole(info, stored)
            result = to_float32(raw, info.dtype, name, progress=progress)
            self._file.check_unchanged()
            return result

        def convert(piece: bytes, rows: int) -> npt.NDArray[np.float32]:
            raw = np.frombuffer(piece, stored).reshape(rows, -1)
            return to_float32(raw, info.dtype, name)

        result = self._in_pieces(
            name, info, convert if stored is not None else self._dequantiser(name, info), progress=progress
        )
        self._file.check_unchanged()
        return result

    def _whole(self, info: TensorInfo, stored: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
        if info.bytes > _SMALL_BYTES:
            return self._file.array(info.offset, stored, info.shape)
        return np.frombuffer(self._file.read(info.offset, info.offset + info.bytes), stored).reshape(
            info.shape
        )

    def same_bytes(self, a: str, other: GGUFFile, b: str) -> bool:
        """Return whether two tensors are stored alike, bit for bit; it stops at the first difference."""
        mine, its = self.header.tensors[a], other.header.tensors[b]
        if (mine.dtype, mine.shape) != (its.dtype, its.shape):
            return False
        return all(
            self._file.read(mine.offset + at, mine.offset + end)
            == other._file.read(its.offset + at, its.offset + end)
            for at in range(0, mine.bytes, _PIECE_BYTES)
            if (end := min(at + _PIECE_BYTES, mine.bytes))
        )

    def _in_pieces(
        self, name: str, info: TensorInfo, convert: _Convert, *, progress: bool
    ) -> npt.NDArray[np.float32]:
        columns = info.shape[-1] if info.shape else 1
        rows = prod(info.shape) // columns
        result = np.empty((rows, columns), dtype=np.float32)
        step = max(1, _PIECE_BYTES // (4 * columns))
        for start in steps(rows, step, name, progress):
            count = min(step, rows - start)
            begin = info.offset + start * info.row_bytes
            piece = self._file.read(begin, begin + count * info.row_bytes)
            result[start : start + count] = convert(piece, count)
        return result.reshape(info.shape)

    def _dequantiser(self, name: str, info: TensorInfo) -> _Convert:
        where = f"{name} in {self.path} is stored as {info.dtype}"
        if not info.row_bytes or info.dtype in _INTEGERS:
            raise LoadError(f"{where}, which is no type of a model's numbers that embgeom reads")
        if self.header.order == ">":
            raise LoadError(
                f"{where} in big-endian order, in which only F32, F16, BF16 and F64 are read; take the "
                "little-endian file"
            )
        gguf: Any = need("gguf", where + ", which", extra="gguf", or_else="; or take an F16 or F32 file")
        quants: Any = need("gguf.quants", where + ", which", extra="gguf")
        try:
            kind = gguf.GGMLQuantizationType(info.type_number)
            quants.dequantize(np.zeros((1, info.row_bytes), dtype=np.uint8), kind)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise LoadError(
                f"{where}, which the installed gguf package cannot dequantise ({error}); upgrade gguf, or "
                "take a file of another type"
            ) from error

        def convert(piece: bytes, rows: int) -> npt.NDArray[np.float32]:
            blocks = np.frombuffer(piece, np.uint8).reshape(rows, -1)
            # A damaged scale may be infinite; the scan of the rows names the row then.
            with np.errstate(all="ignore"):
                values: npt.NDArray[np.float32] = quants.dequantize(blocks, kind)
            return values

        return convert
