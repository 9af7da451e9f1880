"""A regular file that is opened once, so that all that is read of it is of one state."""

from __future__ import annotations

import errno
import os
import stat
import weakref
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import byte_bar
from embgeom.embeddings.provenance import FileState
from embgeom.errors import LoadError

_PIECE = 1 << 24


class LocalFile:
    """An open regular file; it is closed when nothing refers to it any more."""

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
            raise LoadError(f"{str(path)!r} is no name of a file: {error}") from error
        if stat.S_ISDIR(status.st_mode):
            raise unreadable(path, IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)))
        if not stat.S_ISREG(status.st_mode):
            raise LoadError(f"{path} is not a regular file; name one, or save what it gives to one")
        self.size = status.st_size
        self.state = FileState.of(status)

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to `end`."""
        content = bytearray(end - begin)
        self._read_into(memoryview(content), begin)
        return bytes(content)

    def stream(self) -> IO[bytes]:
        """Return a reader from the beginning of the file on; closing it leaves the file open."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return open(self._descriptor, "rb", closefd=False)

    def array(
        self, begin: int, dtype: np.dtype[np.generic], shape: tuple[int, ...], *, progress: bool = False
    ) -> npt.NDArray[np.generic]:
        """Return an array of the file's bytes: mapped, or copied where the file system maps none."""
        try:
            with self.stream() as stream:
                return np.asarray(np.memmap(stream, dtype=dtype, mode="r", offset=begin, shape=shape))
        except (OSError, ValueError):
            # Some network, FUSE and container file systems cannot map a file, but all can read it.
            return self._copy(begin, dtype, shape, progress)

    def check_unchanged(self) -> None:
        """Refuse what was read if the file was written to since it was opened."""
        if FileState.of(os.fstat(self._descriptor)) != self.state:
            raise LoadError(f"{self.path} was written to while it was read; load it again")

    def _copy(
        self, begin: int, dtype: np.dtype[np.generic], shape: tuple[int, ...], progress: bool
    ) -> npt.NDArray[np.generic]:
        try:
            array = np.empty(shape, dtype=dtype)
        except (MemoryError, ValueError) as error:
            raise LoadError(f"{self.path}: there is no memory for an array of shape {list(shape)}") from error
        self._read_into(array.reshape(-1).view(np.uint8).data, begin, progress)
        return array

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
    """Return the error for a file that the system does not let us read."""
    return LoadError(f"{path} cannot be read: {error.strerror or error}; check the path and its permissions")
