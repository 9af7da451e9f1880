"""A file of a cache that is fetched piece by piece, continues where it stopped, and appears when whole."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embgeom._common.temporary import flush_folder
from embgeom.errors import LoadError

# Another process that is fetching the same is waited for as long as its file grows within this time.
_STUCK = 60.0
_POLL = 0.1
# What a disk should still have once the file is there.
_SPARE = 1 << 24
_WAY_OUT = "make room, or name another folder for what is fetched by cache_dir= or the variable EMBGEOM_CACHE"


class PartialFile:
    """What is there of a file, open for more."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def begin_with(self, head: bytes, total: int) -> None:
        """Keep what is there if it begins with `head` and is no longer than `total`; else begin anew."""
        kept = os.pread(self._file.fileno(), len(head), 0)
        if kept != head or self.size > total:
            self.restart()
            self.write(head)

    def restart(self) -> None:
        """Throw away what is there."""
        self._file.truncate(0)
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Add bytes at the end."""
        left = memoryview(piece)
        while left:
            done = self._file.write(left) or 0
            left = left[done:]
            self.size += done


@contextmanager
def appearing(path: Path, total: int | None) -> Iterator[PartialFile | None]:
    """Give what is there of the file at `path`, which takes that name at the end of the block."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(path) as (file, name):
            if file is None:
                yield None
                return
            partial = PartialFile(file)
            _check_space(path, 0 if total is None else total - partial.size)
            yield partial
            os.fsync(file.fileno())
            name.replace(path)
            flush_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> LoadError:
    """Return the error for a file of the cache that the system does not let us write."""
    return LoadError(f"{path} cannot be written: {error.strerror or error}; {_WAY_OUT}")


def discard(path: Path) -> None:
    """Throw away what is there of a file that will not be completed."""
    with suppress(OSError):
        _partial(path).unlink()


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[io.FileIO | None, Path]]:
    """Give a file that no other process writes to, and its name; no file if `path` appeared meanwhile."""
    partial = _partial(path)
    deadline, length = time.monotonic() + _STUCK, -1
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    while not path.exists():
        with io.FileIO(os.open(partial, flags, 0o666), "r+") as file:
            locked = _lock(file)
            if locked and _is_at(file, partial):
                # The other process may have completed the file just before this one was made.
                if path.exists():
                    partial.unlink()
                    break
                yield file, partial
                return
            grown = os.fstat(file.fileno()).st_size
        if grown != length:
            deadline, length = time.monotonic() + _STUCK, grown
        if locked is None or time.monotonic() > deadline:
            if grown == 0:
                partial.unlink(missing_ok=True)
            with _own_file(path) as (file, name):
                yield file, name
            return
        if not locked:
            time.sleep(_POLL)
    yield None, partial


@contextmanager
def _own_file(path: Path) -> Iterator[tuple[io.FileIO, Path]]:
    """Give a new file beside `path`, for where nothing can be locked or the other process is stuck."""
    descriptor, own = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o644)
        with io.FileIO(descriptor, "r+") as file:
            yield file, Path(own)
    finally:
        Path(own).unlink(missing_ok=True)


def _lock(file: io.FileIO) -> bool | None:
    """Lock a file for this process alone until it is closed; None where the file system has no locks."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Return whether an open file still has a name; it has another one once its process has completed it."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed + _SPARE > free:
        raise LoadError(
            f"{path.parent} has room for {free / 1e9:.1f} GB, and {needed / 1e9:.1f} GB are to be fetched; "
            f"{_WAY_OUT}"
        )
