"""An open GGUF file: its keys, and one tensor of it at a time; nothing else of its data is read.

A header can lie, so every count is checked against the bytes that are there before anything is made of it,
and every tensor against the file's end, its alignment and its neighbors. Values are read when asked for; a
vocabulary that is not needed is skipped. A float32 tensor is the file's own pages. Any other is
converted a few rows at a time, so that the matrix and one piece of it are all that is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from struct import Struct
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom._common.progress import byte_bar
from embgeom.errors import LoadError
from embgeom.loading.folder import READ_AS, LocalFile, to_float32

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_ALIGNMENT = 32
# A limit of the format, and one far beyond what any model needs: more is the sign of a damaged file.
_MAX_DIMENSIONS = 4
_MAX_NUMBERS = 1 << 60
_PIECE_BYTES = 1 << 23

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = dict(enumerate(("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u1"))) | {10: "u8", 11: "i8", 12: "f8"}
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

# Integer types, in which no model stores a matrix.
_WHOLE = ("I8", "I16", "I32", "I64")

_T = TypeVar("_T")
_Convert = Callable[[bytes, int], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies and how it is stored; a type that is not known has rows of 0 bytes.

    The shape is in NumPy's order, which is the reverse of the file's.
    """

    dtype: str
    type_number: int
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    @property
    def bytes(self) -> int:
        return self.row_bytes * prod(self.shape[:-1]) if prod(self.shape) else 0


@dataclass(frozen=True)
class _Value:
    """Where the value of a key lies: an array of items, or one item; `offset` and `end` are in bytes."""

    is_array: bool
    item: int
    count: int
    offset: int
    end: int


def _corrupt(file: LocalFile, why: str) -> LoadError:
    return LoadError(f"{file.path} is not a complete GGUF file: {why}; fetch it again")


class _Reader:
    """Reads values of a header from an offset on, never beyond the end of the file."""

    def __init__(self, file: LocalFile, order: Literal["little", "big"], offset: int) -> None:
        self._file, self._order, self._stream = file, order, file.stream()
        self._stream.seek(offset)

    @property
    def position(self) -> int:
        return self._stream.tell()

    def check_count(self, count: int, size: int, what: str) -> None:
        """Refuse a count of things of `size` bytes or more for which the rest of the file is too short."""
        if count * size > self._file.size - self.position:
            raise _corrupt(self._file, f"it would hold {count} {what}, more than it has room for")

    def take(self, count: int) -> bytes:
        if len(taken := self._stream.read(count)) < count:
            raise _corrupt(self._file, "it ends within its header")
        return taken

    def skip(self, count: int) -> None:
        if count > self._file.size - self.position:
            raise _corrupt(self._file, "it ends within its header")
        self._stream.seek(count, 1)

    def uint(self, size: int = 8) -> int:
        return int.from_bytes(self.take(size), self._order)

    def string(self, what: str) -> str:
        length = self.uint()
        self.check_count(length, 1, "bytes in one string")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise _corrupt(self._file, f"{what} is not UTF-8 ({error})") from error

    def strings(self, count: int, size: int, key: str) -> list[str]:
        """Return the strings of an array, which take `size` bytes with their lengths."""
        held, length, end, found = self.take(size), Struct("<Q" if self._order == "little" else ">Q"), 0, []
        # A vocabulary has hundreds of thousands.
        for row in range(count):
            begin = end + length.size
            if begin > size or (end := begin + length.unpack_from(held, end)[0]) > size:
                raise _corrupt(self._file, f"{key} is longer than when it was opened")
            try:
                found.append(held[begin:end].decode("utf-8"))
            except UnicodeDecodeError as error:
                raise _corrupt(self._file, f"{key}[{row}] is not UTF-8 ({error})") from error
        return found

    def numbers(self, kind: int, count: int) -> npt.NDArray[Any]:
        dtype = np.dtype(_SCALARS[kind]).newbyteorder(self._order)
        return np.frombuffer(self.take(count * dtype.itemsize), dtype)

    def step_over(self, key: str) -> _Value:
        """Return where the value of a key lies, and move past it."""
        kind = self.uint(4)
        item, count = (self.uint(4), self.uint()) if kind == _ARRAY else (kind, 1)
        begin, is_array = self.position, kind == _ARRAY
        if item == _STRING:
            self.check_count(count, 8, "strings in one key")
            left = self._file.size - self.position
            # A vocabulary has hundreds of thousands.
            read, seek, order = self._stream.read, self._stream.seek, self._order
            for _ in range(count):
                length = int.from_bytes(read(8), order)
                left -= 8 + length
                if left < 0:
                    raise _corrupt(self._file, "it ends within its header")
                seek(length, 1)
        elif item in _SCALARS:
            size = np.dtype(_SCALARS[item]).itemsize
            self.check_count(count, size, "numbers in one key")
            self.skip(count * size)
        else:
            what = "an array" if is_array else "a value"
            raise _corrupt(self._file, f"{key!r} has {what} of type {item}, which is not read")
        return _Value(is_array, item, count, begin, self.position)

    def tensor(self, name: str, alignment: int) -> TensorInfo:
        """Return where a tensor lies, with its offset counted from the start of the data."""
        what, dimensions = f"the tensor {name!r}", self.uint(4)
        if dimensions > _MAX_DIMENSIONS:
            raise _corrupt(self._file, f"{what} has {dimensions} dimensions")
        lengths = [self.uint() for _ in range(dimensions)]
        # NumPy multiplies the lengths even where one of them is 0.
        if prod(filter(None, lengths)) > _MAX_NUMBERS:
            raise _corrupt(self._file, f"{what} has the lengths {lengths}")
        number, offset = self.uint(4), self.uint()
        if offset % alignment:
            raise _corrupt(self._file, f"{what} begins at byte {offset}, which is not aligned")
        dtype, block, size = _TYPES.get(number, (f"type {number}", 1, 0))
        columns = lengths[0] if lengths else 1
        if columns % block:
            raise _corrupt(self._file, f"{what} has rows of {columns} values, in blocks of {block} ({dtype})")
        return TensorInfo(dtype, number, tuple(reversed(lengths)), offset, columns // block * size)


class GGUFFile:
    """An open GGUF file, used like a `SafetensorsFile`; its keys are read by their type.

    A key that is absent is None, and one of another type a LoadError. `accept` is called with the
    architecture before the rest of the header is read, to refuse it early.
    """

    def __init__(self, path: Path, accept: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._file = LocalFile(path)
        self.state = self._file.state
        self._order = self._byte_order()
        reader = _Reader(self._file, self._order, 8)
        tensors, keys = reader.uint(), reader.uint()
        # The shortest key has 13 bytes, the shortest entry of a tensor 24.
        reader.check_count(keys, 13, "keys")
        reader.check_count(tensors, 24, "tensors")
        self._values: dict[str, _Value] = {}
        for _ in range(keys):
            key = reader.string("a key")
            if key in self._values:
                raise _corrupt(self._file, f"the key {key!r} occurs twice")
            self._values[key] = reader.step_over(key)
            if accept is not None and key == "general.architecture":
                position = reader.position
                accept(self.text(key) or "")
                # Both readers share one file descriptor.
                reader = _Reader(self._file, self._order, position)
        self.keys = tuple(self._values)
        self._tensors = self._read_tensors(reader.position, tensors)
        self.names = tuple(self._tensors)

    def text(self, key: str) -> str | None:
        return self._get(key, str, "a string")

    def integer(self, key: str) -> int | None:
        return self._get(key, int, "an integer")

    def strings(self, key: str) -> list[str] | None:
        return self._get(key, list, "an array of strings")

    def integers(self, key: str) -> npt.NDArray[np.int64] | None:
        value = self._get(key, np.ndarray, "an array of integers")
        if value is not None and value.dtype.kind == "f":
            raise _corrupt(self._file, f"{key} is not an array of integers")
        return None if value is None else value.astype(np.int64)

    def scalar(self, key: str) -> str | float | bool | None:
        """Return a single value of any type; None for an array."""
        value: str | float | bool | None = None if self._values[key].is_array else self._value(key)
        return value

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def dtype(self, name: str) -> str:
        return self._tensors[name].dtype

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Return one tensor as float32: a view of the file where it is stored so, else a converted copy."""
        info = self._tensors[name]
        if 0 in info.shape:
            return np.empty(info.shape, dtype=np.float32)
        if info.dtype in ("F32", "F64"):
            stored = READ_AS[info.dtype].newbyteorder(self._order)
            raw = self._file.array(info.offset, stored, info.shape)
            result = to_float32(raw, info.dtype, name, progress=progress)
        else:
            result = self._in_pieces(name, info, progress)
        self._file.check_unchanged()
        return result

    def same_bytes(self, a: str, other: GGUFFile, b: str) -> bool:
        """Return whether two tensors are stored alike, bit for bit; it stops at the first difference."""
        mine, its = self._tensors[a], other._tensors[b]
        if (mine.dtype, mine.shape) != (its.dtype, its.shape):
            return False
        return all(
            self._file.read(mine.offset + at, mine.offset + end)
            == other._file.read(its.offset + at, its.offset + end)
            for at in range(0, mine.bytes, _PIECE_BYTES)
            if (end := min(at + _PIECE_BYTES, mine.bytes))
        )

    def _byte_order(self) -> Literal["little", "big"]:
        head = self._file.read(0, min(8, self._file.size))
        if head[:4] != MAGIC:
            raise LoadError(
                f"{self.path} ({self._file.size} bytes) is not a GGUF file, which begins with the letters "
                "GGUF; fetch it again (a Git LFS pointer looks like this, too)"
            )
        version = int.from_bytes(head[4:8], "little")
        order: Literal["little", "big"] = "little" if version & 0xFFFF else "big"
        version = int.from_bytes(head[4:8], order)
        if len(head) == 8 and version not in _VERSIONS:
            raise LoadError(
                f"{self.path} is a GGUF file of version {version}; embgeom reads versions 2 and 3; convert "
                "the model again with a current llama.cpp"
            )
        return order

    def _get(self, key: str, kind: type[_T], wanted: str) -> _T | None:
        if key not in self._values:
            return None
        value = self._value(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _corrupt(self._file, f"{key} is not {wanted}")
        return value

    def _value(self, key: str) -> Any:
        value = self._values[key]
        reader = _Reader(self._file, self._order, value.offset)
        held: Any
        if value.item == _STRING:
            held = reader.strings(value.count, value.end - value.offset, key)
        else:
            numbers = reader.numbers(value.item, value.count)
            held = numbers.astype(bool) if value.item == _BOOL else numbers
        if value.is_array:
            return held
        return held[0] if value.item == _STRING else held[0].item()

    def _read_tensors(self, position: int, count: int) -> dict[str, TensorInfo]:
        alignment = self.integer("general.alignment") if "general.alignment" in self._values else _ALIGNMENT
        reader = _Reader(self._file, self._order, position)
        if not alignment or alignment % 8 or alignment & (alignment - 1):
            raise _corrupt(self._file, f"general.alignment is {alignment}")
        found: dict[str, TensorInfo] = {}
        for _ in range(count):
            name = reader.string("the name of a tensor")
            if name in found:
                raise _corrupt(self._file, f"the tensor {name!r} occurs twice")
            found[name] = reader.tensor(name, alignment)
        start = -(-reader.position // alignment) * alignment
        found = {name: replace(info, offset=start + info.offset) for name, info in found.items()}
        filled = sorted((i.offset, i.offset + i.bytes, name) for name, i in found.items())
        for _, end, name in filled:
            if end > self._file.size:
                raise LoadError(
                    f"{self.path} has {self._file.size} bytes, and its tensor {name!r} would end at byte "
                    f"{end}: it is cut short; fetch it again"
                )
        for (_, end, name), (begin, _, following) in pairwise(f for f in filled if f[1] > f[0]):
            if begin < end:
                raise _corrupt(self._file, f"the tensors {name!r} and {following!r} overlap")
        return found

    def _in_pieces(self, name: str, info: TensorInfo, progress: bool) -> npt.NDArray[np.float32]:
        convert = self._converter(name, info)
        columns = info.shape[-1] if info.shape else 1
        rows = prod(info.shape) // columns
        result = np.empty((rows, columns), dtype=np.float32)
        step = max(1, _PIECE_BYTES // (4 * columns))
        with byte_bar(f"converting {name}", info.bytes, progress) as bar:
            for start in range(0, rows, step):
                count = min(step, rows - start)
                begin = info.offset + start * info.row_bytes
                piece = self._file.read(begin, begin + count * info.row_bytes)
                result[start : start + count] = convert(piece, count)
                bar.update(len(piece))
        return result.reshape(info.shape)

    def _converter(self, name: str, info: TensorInfo) -> _Convert:
        if info.dtype in READ_AS:
            stored = READ_AS[info.dtype].newbyteorder(self._order)
            return lambda piece, rows: to_float32(
                np.frombuffer(piece, stored).reshape(rows, -1), info.dtype, name
            )
        where = f"{name} in {self.path} is stored as {info.dtype}"
        if not info.row_bytes or info.dtype in _WHOLE:
            raise LoadError(f"{where}, which embgeom does not read as numbers of a model")
        if self._order == "big":
            raise LoadError(
                f"{where} in big-endian order, in which only {', '.join(READ_AS)} are read; take the "
                "little-endian file"
            )
        gguf: Any = need("gguf", where + ", which", extra="gguf", or_else="; or take an F16 or F32 file")
        quants: Any = need("gguf.quants", where + ", which", extra="gguf")
        try:
            kind = gguf.GGMLQuantizationType(info.type_number)
            quants.dequantize(np.zeros((1, info.row_bytes), dtype=np.uint8), kind)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise LoadError(
                f"{where}, which the installed gguf package cannot dequantize ({error}); upgrade gguf, or "
                "take a file of another type"
            ) from error

        def convert(piece: bytes, rows: int) -> npt.NDArray[np.float32]:
            # A damaged scale may be infinite; row_stats then reports the row.
            with np.errstate(all="ignore"):
                values: npt.NDArray[np.float32] = quants.dequantize(
                    np.frombuffer(piece, np.uint8).reshape(rows, -1), kind
                )
            return values

        return convert
