"""One tensor of a safetensors file, by memory map; nothing else of the file is read.

The file is 8 bytes for the length of the header, the header (JSON: name -> dtype, shape, data_offsets) and
the data. A header can lie, so every claim that a read relies on is checked when the file is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.convert import READ_AS, check_dtype, to_float32
from embgeom.loading.folder import parse_json, unreadable

_LENGTH_BYTES = 8
# The limit of the format itself; a longer "header" is the sign of another kind of file.
_MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """An open safetensors file.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    path : Path
        The file.
    names : tuple of str
        The tensors it holds.
    aliases : dict of str to str
        Tensors left out because they share memory with one that is held: name -> held name.
    metadata : dict of str to str
        What the file says of itself; empty where it says nothing.

    Raises
    ------
    LoadError
        If the file cannot be read, is cut short, or its header contradicts itself or the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header, self._data_start, data_bytes = _read_header(path)
        metadata = header.pop("__metadata__", None)
        self._entries = {name: _entry(path, name, value, data_bytes) for name, value in header.items()}
        _check_overlap(path, self._entries)
        _check_covered(path, self._entries, data_bytes)
        self.names: tuple[str, ...] = tuple(self._entries)
        notes = metadata.items() if isinstance(metadata, dict) else ()
        self.metadata: dict[str, str] = {name: note for name, note in notes if isinstance(note, str)}
        self.aliases: dict[str, str] = {
            name: held
            for name, held in self.metadata.items()
            if held in self._entries and name not in self._entries
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """Return the stored type of a tensor, as the file names it."""
        return self._entries[name].dtype

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Read one tensor as float32.

        Parameters
        ----------
        name : str
            One of `names`.
        progress : bool
            Whether to show a progress bar of the conversion.

        Returns
        -------
        ndarray of float32
            A view of the file where it is stored so, else a converted copy.

        Raises
        ------
        LoadError
            If the tensor is of no type that can be read, or the file cannot be mapped.
        """
        entry = self._entries[name]
        check_dtype(entry.dtype, f"{name} in {self.path}")
        read_as = READ_AS[entry.dtype]
        if prod(entry.shape) == 0:
            return np.empty(entry.shape, dtype=np.float32)
        try:
            mapped = np.memmap(
                self.path, dtype=read_as, mode="r", offset=self._data_start + entry.begin, shape=entry.shape
            )
        except (OSError, ValueError) as error:
            raise LoadError(f"{self.path} cannot be mapped into memory: {error}") from error
        return to_float32(np.asarray(mapped), entry.dtype, name, progress=progress)


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return the header, where the data starts in the file, and how many bytes of data there are."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            start = _LENGTH_BYTES + length
            if size < _LENGTH_BYTES or length > _MAX_HEADER or start > size:
                raise LoadError(
                    f"{path} ({size} bytes) is no complete safetensors file: its header would have {length} "
                    "bytes; fetch the file again (a Git LFS pointer looks like this, too)"
                )
            text = stream.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    header = parse_json(text, f"the header of {path}", unique_keys=True)
    if not isinstance(header, dict):
        raise LoadError(
            f"the header of {path} is a JSON {type(header).__name__}, not an object; fetch it again"
        )
    return header, start, size - start


def _entry(path: Path, name: str, value: Any, data_bytes: int) -> _Entry:
    def wrong(why: str) -> LoadError:
        return LoadError(f"{path}: the header's entry for {name} {why}; the file is corrupt, fetch it again")

    if not isinstance(value, dict):
        raise wrong("is not an object")
    dtype: Any = value.get("dtype")
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    if not isinstance(dtype, str):
        raise wrong(f"has the dtype {dtype!r}")
    if not _counts(shape):
        raise wrong(f"has the shape {shape!r}")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise wrong(f"has the data_offsets {offsets!r}")
    begin, end = offsets
    if end > data_bytes:
        raise wrong(
            f"ends at byte {end} of the data, of which the file holds {data_bytes} (it may be cut short)"
        )
    if dtype in READ_AS and end - begin != prod(shape) * READ_AS[dtype].itemsize:
        raise wrong(f"spans {end - begin} bytes, but {dtype} of shape {shape} needs another number")
    return _Entry(dtype, tuple(shape), begin, end)


def _counts(values: Any) -> bool:
    """Return whether `values` is a list of integers that are not negative."""
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_overlap(path: Path, entries: dict[str, _Entry]) -> None:
    filled = sorted((e.begin, e.end, name) for name, e in entries.items() if e.end > e.begin)
    for (_, end, name), (begin, _, following) in pairwise(filled):
        if begin < end:
            raise LoadError(
                f"{path}: {name} and {following} overlap in the data; the file is corrupt, fetch it again"
            )


def _check_covered(path: Path, entries: dict[str, _Entry], data_bytes: int) -> None:
    used = max((entry.end for entry in entries.values()), default=0)
    if used != data_bytes:
        raise LoadError(
            f"{path} holds {data_bytes} bytes of data, but its header tells of {used}; "
            "the file is corrupt, fetch it again"
        )
