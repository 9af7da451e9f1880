"""Files on this machine: regular files opened once, JSON and text, and the folder of a model.

And stored numbers as float32, converted in chunks, so that no second copy of the tensor is ever held.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import refuse_lost_rows
from embgeom._common.progress import byte_bar
from embgeom.embeddings.provenance import FileState
from embgeom.errors import InputError, LoadError

# How each stored type is read from the file; NumPy has no bfloat16, so its bits are read.
READ_AS: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
_CHUNK_BYTES = 1 << 24
# Far above the size of any vocabulary or tokenizer.
_MOST_BYTES = 1 << 30
_PIECE = 1 << 24


class LocalFile:
    """An open regular file; replacing the path later does not change what is read.

    The file is closed when nothing refers to this object any more.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A FIFO that nobody writes to would make a plain open wait forever.
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._descriptor)
            status = os.fstat(self._descriptor)
        except OSError as error:
            raise unreadable(path, error) from error
        except ValueError as error:
            raise LoadError(f"{str(path)!r} is not the name of a file: {error}") from error
        if stat.S_ISDIR(status.st_mode):
            raise unreadable(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"{path} is not a regular file; name one, or save what it gives to one")
        self.size = status.st_size
        self.state = FileState.from_status(status)

    def read(self, begin: int, end: int) -> bytes:
        data = bytearray(end - begin)
        self._read_into(memoryview(data), begin)
        return bytes(data)

    def stream(self) -> IO[bytes]:
        """Return a stream from the beginning of the file; closing it leaves the file open."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return open(self._descriptor, "rb", closefd=False)

    def array(
        self, begin: int, dtype: np.dtype[Any], shape: tuple[int, ...], *, progress: bool = False
    ) -> npt.NDArray[Any]:
        """Return an array of the file's bytes, mapped if possible, in C order."""
        if 0 in shape:
            return np.empty(shape, dtype)
        try:
            with self.stream() as stream:
                return np.asarray(np.memmap(stream, dtype=dtype, mode="r", offset=begin, shape=shape))
        except (OSError, ValueError):
            # Some network, FUSE and container file systems cannot map a file, but all can read it.
            pass
        try:
            array = np.empty(shape, dtype=dtype)
        except (MemoryError, ValueError) as error:
            raise LoadError(f"{self.path}: there is no memory for an array of shape {list(shape)}") from error
        self._read_into(array.reshape(-1).view(np.uint8).data, begin, progress)
        return array

    def check_unchanged(self) -> None:
        if FileState.from_status(os.fstat(self._descriptor)) != self.state:
            raise LoadError(f"{self.path} was written to while it was read; load it again")

    def _read_into(self, into: memoryview, begin: int, progress: bool = False) -> None:
        done = 0
        with byte_bar(f"reading {self.path.name}", len(into), progress) as bar:
            while done < len(into):
                try:
                    got = os.preadv(self._descriptor, [into[done : done + _PIECE]], begin + done)
                except OSError as error:
                    raise unreadable(self.path, error) from error
                if got == 0:
                    raise LoadError(f"{self.path} ends before byte {begin + len(into)}; fetch it again")
                done += got
                bar.update(got)


def unreadable(path: Path, error: OSError) -> LoadError:
    return LoadError(f"{path} cannot be read: {error.strerror or error}; check the path and its permissions")


def is_file(path: Path) -> bool:
    """Return whether the file exists; a name that is too long for the file system does not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path) -> bytes:
    file = LocalFile(path)
    if file.size > _MOST_BYTES:
        raise LoadError(f"{path} holds more than {_MOST_BYTES >> 20} MiB, which no list or text does")
    return file.read(0, file.size)


def read_lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): a token may hold any of the rarer characters at which that splits.
        text = read_bytes(path).decode("utf-8").replace("\r\n", "\n")
        return text.removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise LoadError(f"{path} is not UTF-8 text ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    parsed = parse_json(read_bytes(path), str(path))
    if not isinstance(parsed, dict):
        raise LoadError(f"{path} holds a JSON {type(parsed).__name__}, not an object; fetch the file again")
    return parsed


def parse_json(text: bytes | str, where: str, *, unique_keys: bool = False) -> Any:
    """Return the value of a JSON text; of a repeated key the last value counts, if it is allowed at all."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key occurs twice")
        return made

    try:
        return json.loads(text, object_pairs_hook=once if unique_keys else None)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{where} is not valid JSON ({error}); fetch it again, or mend it") from error


@dataclass(frozen=True)
class Folder:
    """A model folder on this machine, with the commit of its files if known."""

    path: Path
    revision: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label or self.path.resolve().name

    def find(self, filename: str) -> Path | None:
        path = self.path / filename
        try:
            path.stat()
        except (FileNotFoundError, ValueError):
            # A ValueError means a name that no file can have, such as one with a lone surrogate.
            return None
        except OSError as error:
            raise unreadable(path, error) from error
        return path

    locate = find

    def list_local(self, pattern: str) -> list[Path]:
        return sorted(self.path.glob(pattern))


def is_inside(path: str) -> bool:
    """Return whether a relative path, as a file of a model names it, stays inside the model."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\0" not in path


def check_dtype(stored: str, tensor: str) -> None:
    if stored not in READ_AS:
        raise LoadError(
            f"{tensor} is stored as {stored}, which embgeom does not read (it reads {', '.join(READ_AS)}); "
            "a quantized model has to be dequantized first, or take the original checkpoint"
        )


def check_matrix(shape: tuple[int, ...], where: str) -> None:
    if len(shape) != 2 or 0 in shape:
        raise LoadError(f"{where} has shape {list(shape)}; it must be (tokens, hidden_size) and not empty")


def to_float32(
    raw: npt.NDArray[np.generic], stored: str, tensor: str, *, progress: bool = False
) -> npt.NDArray[np.float32]:
    if raw.dtype == np.float32 and raw.flags.c_contiguous and raw.flags.aligned:
        return raw.view(np.float32)
    if raw.ndim == 0:
        return to_float32(raw.reshape(1), stored, tensor).reshape(())
    result = np.empty(raw.shape, dtype=np.float32)
    step = max(1, _CHUNK_BYTES // max(1, raw[:1].nbytes))
    with byte_bar(f"converting {tensor}", raw.nbytes, progress) as bar:
        for start in range(0, len(raw), step):
            chunk, out = raw[start : start + step], result[start : start + step]
            if stored == "BF16":
                # A bfloat16 is the upper half of the float32 of the same value.
                np.left_shift(chunk, 16, out=out.view(np.uint32), dtype=np.uint32)
            else:
                with np.errstate(over="ignore", under="ignore"):
                    out[...] = chunk
            bar.update(chunk.nbytes)
    if stored == "F64" and raw.size:
        shape = (1, -1) if raw.ndim == 1 else (len(raw), -1)
        try:
            refuse_lost_rows(raw.reshape(shape), result.reshape(shape), tensor)
        except InputError as error:
            raise LoadError(str(error)) from error
    return result
