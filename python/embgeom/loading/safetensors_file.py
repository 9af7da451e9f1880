"""One tensor of a safetensors file, by memory map where that can be; nothing else of the file is read.

The file is 8 bytes for the length of the header, the header (JSON: name -> dtype, shape, data_offsets) and
the data. A header can lie, so every claim that a read relies on is checked when the file is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.convert import READ_AS, check_dtype, to_float32
from embgeom.loading.folder import LocalFile, parse_json

_LENGTH_BYTES = 8
# The limit of the format itself; a longer "header" is the sign of another kind of file.
_MAX_HEADER = 100_000_000
# No more dimensions than NumPy 1 allows; and NumPy multiplies the lengths even where one of them is 0.
_MAX_DIMENSIONS = 32
_MAX_NUMBERS = 1 << 60


class Bytes(Protocol):
    """A file of which any bytes can be had."""

    path: Path
    size: int

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to `end`."""


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsHeader:
    """The header of a safetensors file, wherever that is."""

    def __init__(self, file: Bytes) -> None:
        self.path = file.path
        header, self.data_start = _read_header(file)
        data_bytes = file.size - self.data_start
        metadata = header.pop("__metadata__", None)
        self.entries = {name: _entry(file.path, name, value, data_bytes) for name, value in header.items()}
        _check_overlap(file.path, self.entries)
        _check_covered(file.path, self.entries, data_bytes)
        self.names: tuple[str, ...] = tuple(self.entries)
        notes = metadata.items() if isinstance(metadata, dict) else ()
        self.metadata: dict[str, str] = {name: note for name, note in notes if isinstance(note, str)}
        self.aliases: dict[str, str] = {
            name: held
            for name, held in self.metadata.items()
            if held in self.entries and name not in self.entries
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.entries[name].shape

    def dtype(self, name: str) -> str:
        """Return the stored type of a tensor, as the file names it."""
        return self.entries[name].dtype


class SafetensorsFile(SafetensorsHeader):
    """An open safetensors file; its header and its tensors are read of one state of it."""

    def __init__(self, path: Path) -> None:
        self._file = LocalFile(path)
        self.state = self._file.state
        super().__init__(self._file)

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Read one tensor as float32."""
        entry = self.entries[name]
        check_dtype(entry.dtype, f"{name} in {self.path}")
        if prod(entry.shape) == 0:
            return np.empty(entry.shape, dtype=np.float32)
        # A scalar is read as an array of one number, for which alone there are pieces to convert.
        raw = self._file.array(
            self.data_start + entry.begin, READ_AS[entry.dtype], entry.shape or (1,), progress=progress
        )
        result = to_float32(raw, entry.dtype, name, progress=progress)
        self._file.check_unchanged()
        return result.reshape(entry.shape)


def _read_header(file: Bytes) -> tuple[dict[str, Any], int]:
    """Return the header, and where the data starts in the file."""
    head = file.read(0, min(_LENGTH_BYTES, file.size))
    length = int.from_bytes(head, "little")
    start = _LENGTH_BYTES + length
    if file.size < _LENGTH_BYTES or length > _MAX_HEADER or start > file.size:
        raise LoadError(
            f"{file.path} ({file.size} bytes) is no complete safetensors file: its header would have "
            f"{length} bytes; fetch the file again (a Git LFS pointer looks like this, too)"
        )
    header = parse_json(file.read(_LENGTH_BYTES, start), f"the header of {file.path}", unique_keys=True)
    if not isinstance(header, dict):
        raise LoadError(
            f"the header of {file.path} is a JSON {type(header).__name__}, not an object; fetch it again"
        )
    return header, start


def _entry(path: Path, name: str, value: Any, data_bytes: int) -> Entry:
    def wrong(why: str) -> LoadError:
        return LoadError(f"{path}: the header's entry for {name} {why}; the file is corrupt, fetch it again")

    if not isinstance(value, dict):
        raise wrong("is not an object")
    dtype: Any = value.get("dtype")
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    if not isinstance(dtype, str):
        raise wrong(f"has the dtype {dtype!r:.80}")
    if not _counts(shape) or len(shape) > _MAX_DIMENSIONS or prod(filter(None, shape)) > _MAX_NUMBERS:
        raise wrong(f"has the shape {shape!r:.80}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"has the data_offsets {offsets!r:.80}")
    begin, end = offsets
    if end > data_bytes:
        raise wrong(
            f"ends at byte {end} of the data, of which the file holds {data_bytes} (it may be cut short)"
        )
    if dtype in READ_AS and end - begin != prod(shape) * READ_AS[dtype].itemsize:
        raise wrong(f"spans {end - begin} bytes, but {dtype} of shape {shape} needs another number")
    return Entry(dtype, tuple(shape), begin, end)


def _counts(values: Any) -> bool:
    """Return whether `values` is a list of integers that are not negative."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_overlap(path: Path, entries: dict[str, Entry]) -> None:
    filled = sorted((e.begin, e.end, name) for name, e in entries.items() if e.end > e.begin)
    for (_, end, name), (begin, _, following) in pairwise(filled):
        if begin < end:
            raise LoadError(
                f"{path}: {name} and {following} overlap in the data; the file is corrupt, fetch it again"
            )


def _check_covered(path: Path, entries: dict[str, Entry], data_bytes: int) -> None:
    """Refuse data that belong to no tensor, before, between or behind those of the tensors."""
    covered = 0
    for begin, end in sorted((entry.begin, entry.end) for entry in entries.values()):
        if begin > covered:
            break
        covered = max(covered, end)
    if covered != data_bytes:
        raise LoadError(
            f"{path} holds {data_bytes} bytes of data, and its header tells of no tensor at byte {covered}; "
            "the file is corrupt, fetch it again"
        )
