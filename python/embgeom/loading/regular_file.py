"""A file that is opened once: its header and its data come through one descriptor."""

from __future__ import annotations

import mmap
import os
import stat
import weakref
from pathlib import Path

from embgeom.errors import LoadError
from embgeom.loading.folder import unreadable

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
}


def check_regular(path: Path) -> None:
    """Refuse a path that cannot be read, or is no regular file, before anything is opened.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    LoadError
        If there is no such file, or it is a pipe, a device or a directory, which a reader may wait for
        without end.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise LoadError(f"{str(path)!r} is no path of a file: {error}") from error
    if not stat.S_ISREG(mode):
        what = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise LoadError(f"{path} is {what}, not a regular file; name a file")


class RegularFile:
    """An open regular file. If another file takes its name, this one is still read.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    path : Path
        The file.
    size : int
        Its bytes when it was opened.

    Raises
    ------
    LoadError
        If it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        check_regular(path)
        try:
            # A pipe that takes the file's place in this moment must not block.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise unreadable(path, error) from error
        weakref.finalize(self, os.close, descriptor)
        self.path = path
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise LoadError(f"{path} is not a regular file; name a file")
        self.size = found.st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return `count` bytes from `offset` on.

        Raises
        ------
        LoadError
            If the file has fewer, or cannot be read.
        """
        parts = []
        while count > 0:
            try:
                part = os.pread(self._descriptor, count, offset)
            except OSError as error:
                raise unreadable(self.path, error) from error
            if not part:
                raise LoadError(f"{self.path} ends before byte {offset + count}: it is cut short")
            parts.append(part)
            offset, count = offset + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def view(self, offset: int, count: int) -> memoryview:
        """Return the file's own pages, or a copy where the file system refuses to map them.

        Raises
        ------
        LoadError
            If the bytes can be neither mapped nor read.
        """
        before = offset % mmap.ALLOCATIONGRANULARITY
        try:
            pages = mmap.mmap(
                self._descriptor, before + count, access=mmap.ACCESS_READ, offset=offset - before
            )
        except (OSError, ValueError):
            return memoryview(self.read(offset, count))
        return memoryview(pages)[before:]
