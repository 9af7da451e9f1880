"""The header of a GGUF file: its keys, and where its tensors lie.

A header can lie, so every count is checked against the bytes that are there before anything is made of it,
and every tensor against the file's end, its alignment and its neighbors. Values are read when asked for; a
vocabulary that nobody asks for is only stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile
from embgeom.loading.gguf.cursor import MAX_NAME, MAX_TEXT, Cursor, corrupt, cut_short

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
# Limits of the format, or far beyond what any model needs: more is the sign of a damaged file.
_MAX_DIMENSIONS = 4
_MAX_NUMBERS = 1 << 60
# Types are numbered without gaps, some forty by now.
_MAX_TYPE = 255
_MAX_ENTRIES = 1 << 20
_MAX_STRINGS = 1 << 24

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "u1",
    1: "i1",
    2: "u2",
    3: "i2",
    4: "u4",
    5: "i4",
    6: "f4",
    7: "u1",
    10: "u8",
    11: "i8",
    12: "f8",
}
_BOOL = 7
# The number of each type in the file: its name, the values in one block and the bytes of one block.
# fmt: off
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8),
    28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}
# fmt: on


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and how it is stored."""

    dtype: str
    type_number: int
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    @property
    def bytes(self) -> int:
        """The bytes of the whole tensor."""
        return self.row_bytes * prod(self.shape[:-1]) if prod(self.shape) else 0


@dataclass(frozen=True)
class _Value:
    kind: int
    offset: int
    item: int = 0
    count: int = 1


class GGUFHeader:
    """What a GGUF file says before its data."""

    def __init__(self, file: LocalFile, accept: Callable[[str], None] | None = None) -> None:
        self._file = file
        head = file.read(0, min(24, file.size))
        self.order = _byte_order(head, file)
        tensors, keys = struct.unpack(f"{self.order}QQ", head[8:])
        cursor = Cursor(file, self.order, 24)
        # The shortest key has 13 bytes, the shortest entry of a tensor 24.
        cursor.check_count(keys, 13, _MAX_ENTRIES, "keys")
        cursor.check_count(tensors, 24, _MAX_ENTRIES, "tensors")
        self._values: dict[str, _Value] = {}
        for _ in range(keys):
            key = cursor.string(MAX_NAME)
            if key in self._values:
                raise corrupt(file, f"the key {key!r} occurs twice")
            self._values[key] = _step_over(cursor)
            if accept is not None and key == "general.architecture":
                accept(self.text(key) or "")
        self.tensors = self._tensors(cursor, tensors)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys, in the order of the file."""
        return tuple(self._values)

    def text(self, key: str) -> str | None:
        """Return a string, or None where there is no such key; another type is a LoadError."""
        if (value := self._values.get(key)) is None:
            return None
        if value.kind != _STRING:
            raise self._other_type(key, "a string")
        return self._cursor(value).string(MAX_TEXT)

    def integer(self, key: str) -> int | None:
        """Return an integer, or None where there is no such key; another type is a LoadError."""
        if (value := self._values.get(key)) is None:
            return None
        if value.kind not in _SCALARS or _SCALARS[value.kind][0] == "f" or value.kind == _BOOL:
            raise self._other_type(key, "an integer")
        return int(self._numbers(value, value.kind)[0])

    def scalar(self, key: str) -> str | float | bool | None:
        """Return a single value of whatever type; None for an array and where there is no such key."""
        value = self._values.get(key)
        if value is None or value.kind == _ARRAY:
            return None
        if value.kind == _STRING:
            return self.text(key)
        number = self._numbers(value, value.kind)[0]
        return bool(number) if value.kind == _BOOL else number.item()

    def strings(self, key: str) -> list[str] | None:
        """Return an array of strings, or None where there is no such key; another type is a LoadError."""
        if (value := self._values.get(key)) is None:
            return None
        if value.kind != _ARRAY or value.item != _STRING:
            raise self._other_type(key, "an array of strings")
        return self._cursor(value).strings(value.count, key)

    def integers(self, key: str) -> npt.NDArray[np.int64] | None:
        """Return an array of integers, or None where there is no such key; another type is a LoadError."""
        if (value := self._values.get(key)) is None:
            return None
        if value.kind != _ARRAY or value.item not in _SCALARS or _SCALARS[value.item][0] == "f":
            raise self._other_type(key, "an array of integers")
        return self._numbers(value, value.item).astype(np.int64)

    def _numbers(self, value: _Value, kind: int) -> npt.NDArray[np.generic]:
        dtype = np.dtype(_SCALARS[kind]).newbyteorder(self.order)
        return np.frombuffer(
            self._file.read(value.offset, value.offset + value.count * dtype.itemsize), dtype
        )

    def _cursor(self, value: _Value) -> Cursor:
        return Cursor(self._file, self.order, value.offset)

    def _other_type(self, key: str, wanted: str) -> LoadError:
        return corrupt(self._file, f"{key} is not {wanted}")

    def _tensors(self, cursor: Cursor, count: int) -> dict[str, TensorInfo]:
        alignment = self.integer("general.alignment") if "general.alignment" in self._values else _ALIGNMENT
        if not alignment or alignment % 8 or alignment & (alignment - 1):
            raise corrupt(self._file, f"general.alignment is {alignment}")
        found: dict[str, TensorInfo] = {}
        for _ in range(count):
            name = cursor.string(MAX_NAME)
            if name in found:
                raise corrupt(self._file, f"the tensor {name!r} occurs twice")
            found[name] = _info(cursor, name, alignment)
        start = -(-cursor.checked_position() // alignment) * alignment
        placed = {
            name: TensorInfo(i.dtype, i.type_number, i.shape, start + i.offset, i.row_bytes)
            for name, i in found.items()
        }
        _check_places(self._file, placed)
        return placed


def _byte_order(head: bytes, file: LocalFile) -> Literal["<", ">"]:
    if head[:4] != _MAGIC:
        raise LoadError(
            f"{file.path} ({file.size} bytes) is no GGUF file, which begins with the letters GGUF; fetch it "
            "again (a Git LFS pointer looks like this, too)"
        )
    if len(head) < 24:
        raise cut_short(file)
    version = int.from_bytes(head[4:8], "little")
    order: Literal["<", ">"] = "<"
    if version & 0xFFFF == 0:
        version, order = int.from_bytes(head[4:8], "big"), ">"
    if version not in _VERSIONS:
        raise LoadError(
            f"{file.path} is a GGUF file of version {version}; embgeom reads versions 2 and 3; convert the "
            "model again with a current llama.cpp"
        )
    return order


def _step_over(cursor: Cursor) -> _Value:
    """Return the type and place of a value, and go behind it."""
    kind = cursor.u4()
    if kind == _STRING:
        place = cursor.position
        cursor.skip(cursor.u8())
        return _Value(kind, place)
    if kind in _SCALARS:
        place = cursor.position
        cursor.skip(np.dtype(_SCALARS[kind]).itemsize)
        cursor.checked_position()
        return _Value(kind, place)
    if kind != _ARRAY:
        raise corrupt(cursor.file, f"a key has a value of type {kind}, which there is not")
    item, count = cursor.u4(), cursor.u8()
    place = cursor.position
    if item == _STRING:
        cursor.check_count(count, 8, _MAX_STRINGS, "strings in one key")
        cursor.skip_strings(count)
    elif item in _SCALARS:
        size = np.dtype(_SCALARS[item]).itemsize
        cursor.check_count(count, size, cursor.file.size, "numbers in one key")
        cursor.skip(count * size)
    else:
        raise corrupt(cursor.file, f"a key has an array of type {item}, which is not read")
    return _Value(kind, place, item, count)


def _info(cursor: Cursor, name: str, alignment: int) -> TensorInfo:
    """Return where a tensor lies, with its offset still counted from the start of the data."""
    file, dimensions = cursor.file, cursor.u4()
    if dimensions > _MAX_DIMENSIONS:
        raise corrupt(file, f"the tensor {name!r} has {dimensions} dimensions")
    lengths = [cursor.u8() for _ in range(dimensions)]
    # NumPy multiplies the lengths even where one of them is 0.
    if prod(filter(None, lengths)) > _MAX_NUMBERS:
        raise corrupt(file, f"the tensor {name!r} has the lengths {lengths}")
    number, offset = cursor.u4(), cursor.u8()
    if number > _MAX_TYPE:
        raise corrupt(file, f"the tensor {name!r} is of type {number}, which there is not")
    if offset % alignment:
        raise corrupt(file, f"the tensor {name!r} begins at byte {offset}, which is not aligned")
    dtype, block, size = _TYPES.get(number, (f"type {number}", 1, 0))
    columns = lengths[0] if lengths else 1
    if columns % block:
        raise corrupt(
            file, f"the tensor {name!r} has rows of {columns} values, in blocks of {block} ({dtype})"
        )
    return TensorInfo(dtype, number, tuple(reversed(lengths)), offset, columns // block * size)


def _check_places(file: LocalFile, tensors: dict[str, TensorInfo]) -> None:
    for name, info in tensors.items():
        if info.offset + info.bytes > file.size:
            raise LoadError(
                f"{file.path} has {file.size} bytes, and its tensor {name!r} would end at byte "
                f"{info.offset + info.bytes}: it is cut short; fetch it again"
            )
    filled = sorted((i.offset, i.offset + i.bytes, name) for name, i in tensors.items() if i.bytes)
    for (_, end, name), (begin, _, following) in pairwise(filled):
        if begin < end:
            raise corrupt(file, f"the tensors {name!r} and {following!r} overlap")
