"""The tensors of a safetensors file, each mapped where possible; nothing else of the file is read.

The file is 8 bytes for the length of the header, the header (JSON: name -> dtype, shape, data_offsets) and
the data. A header can lie, so every claim that a read relies on is checked. The library safetensors would
check it only by mapping a whole file at a path, but of a file on the Hub the header alone is here, some file
systems map no files, and another file may take the path meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.folder import READ_AS, LocalFile, check_dtype, parse_json, to_float32

# The stored types that can be read.
_TYPES = READ_AS | {
    f"{kind.upper()}{8 * size}": np.dtype(f"<{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)
}
_LENGTH_BYTES = 8
# The limit of the format itself; a longer "header" is the sign of another kind of file.
_MAX_HEADER = 100_000_000
# No more dimensions than NumPy 1 allows; and NumPy multiplies the lengths even where one of them is 0.
_MAX_DIMENSIONS = 32
_MAX_NUMBERS = 1 << 60


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor: its stored type, its shape, and where its bytes lie in the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsHeader:
    """The header of a safetensors file of `size` bytes, local or remote; `read` returns a range of its bytes.

    `aliases` are tensors that were not stored because they share memory with another: name -> stored name.
    """

    def __init__(self, path: Path, size: int, read: Callable[[int, int], bytes]) -> None:
        self.path = path
        length = int.from_bytes(read(0, min(_LENGTH_BYTES, size)), "little")
        self.data_start = _LENGTH_BYTES + length
        if size < _LENGTH_BYTES or length > _MAX_HEADER or self.data_start > size:
            raise LoadError(
                f"{path} ({size} bytes) is not a complete safetensors file: its header would have {length} "
                "bytes; fetch the file again (a Git LFS pointer looks like this, too)"
            )
        header = parse_json(read(_LENGTH_BYTES, self.data_start), f"the header of {path}", unique_keys=True)
        if not isinstance(header, dict):
            raise LoadError(
                f"the header of {path} is a JSON {type(header).__name__}, not an object; fetch it again"
            )
        metadata = header.pop("__metadata__", None)
        notes = metadata.items() if isinstance(metadata, dict) else ()
        self.metadata: dict[str, str] = {name: note for name, note in notes if isinstance(note, str)}
        data_bytes = size - self.data_start
        self.entries = {name: self._entry(name, value, data_bytes) for name, value in header.items()}
        self._check_covered(data_bytes)
        self.names: tuple[str, ...] = tuple(self.entries)
        self.aliases: dict[str, str] = {
            name: held
            for name, held in self.metadata.items()
            if held in self.entries and name not in self.entries
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> str:
        return self.entries[name].dtype

    def _entry(self, name: str, value: Any, data_bytes: int) -> Entry:
        value = value if isinstance(value, dict) else {}
        dtype, shape, offsets = (value.get(key) for key in ("dtype", "shape", "data_offsets"))
        wrong = None
        if not isinstance(dtype, str):
            wrong = f"the dtype {dtype!r:.80}"
        elif not _counts(shape) or len(shape) > _MAX_DIMENSIONS or prod(filter(None, shape)) > _MAX_NUMBERS:
            wrong = f"the shape {shape!r:.80}"
        elif not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            wrong = f"the data_offsets {offsets!r:.80}"
        elif offsets[1] > data_bytes:
            wrong = (
                f"its end at byte {offsets[1]} of the data, of which the file holds {data_bytes} (it may be "
                "cut short)"
            )
        elif dtype in _TYPES and offsets[1] - offsets[0] != (size := prod(shape) * _TYPES[dtype].itemsize):
            wrong = f"{offsets[1] - offsets[0]} bytes, but {dtype} of shape {shape} takes {size}"
        if wrong:
            raise self._corrupt(f"the header's entry for {name} has {wrong}")
        return Entry(dtype, tuple(shape), *offsets)

    def _check_covered(self, data_bytes: int) -> None:
        """Raise if tensors overlap, or if bytes belong to no tensor."""
        covered, before = 0, ""
        for begin, end, name in sorted((e.begin, e.end, name) for name, e in self.entries.items()):
            if begin < covered and end > begin:
                raise self._corrupt(f"{before} and {name} overlap in the data")
            if begin > covered:
                break
            covered, before = max(covered, end), name
        if covered != data_bytes:
            raise self._corrupt(f"byte {covered} of its {data_bytes} bytes of data belongs to no tensor")

    def _corrupt(self, why: str) -> LoadError:
        return LoadError(f"{self.path}: {why}; the file is corrupt, fetch it again")


class SafetensorsFile(SafetensorsHeader):
    """An open safetensors file; header and tensors come from the same state of it."""

    def __init__(self, path: Path) -> None:
        self._file = LocalFile(path)
        self.state = self._file.state
        super().__init__(path, self._file.size, self._file.read)

    def array(self, name: str, *, progress: bool = False) -> npt.NDArray[Any]:
        """Return one tensor in its stored type; bfloat16, which NumPy lacks, as its bits in uint16."""
        entry = self.entries[name]
        if entry.dtype not in _TYPES:
            check_dtype(entry.dtype, f"{name} in {self.path}")
        begin, dtype = self.data_start + entry.begin, _TYPES[entry.dtype]
        array = self._file.array(begin, dtype, entry.shape, progress=progress)
        self._file.check_unchanged()
        return array

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Return one tensor as float32: a view of the file where it is stored so and can be mapped."""
        check_dtype(self.dtype(name), f"{name} in {self.path}")
        raw = self.array(name, progress=progress)
        result = to_float32(raw, self.dtype(name), name, progress=progress)
        self._file.check_unchanged()
        return result


def _counts(values: Any) -> bool:
    """Return whether `values` is a list of integers that are not negative."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)
