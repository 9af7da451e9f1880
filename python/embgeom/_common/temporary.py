"""Places for what is not complete yet: each run has its own, and those of dead runs are swept."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

PLACE = re.compile(r"\.embgeom-.*\.partial-\w{8}", re.DOTALL)
# Bytes of a target's name that the name of its place repeats, which stays below the limit of 255.
_REPEATED = 100
_LOCK = "lock"
_TRIES = 5


class Place(NamedTuple):
    """A folder beside a target: its name for what is to take its place (`new`) and to leave it (`old`)."""

    new: Path
    old: Path
    mode: int


# While a place is in use its lock is held, which ends with the process however that dies. So no name,
# process number or age has to say whether it is in use, which threads and containers could get wrong.
@contextmanager
def place_beside(target: Path) -> Iterator[Place]:
    """Give a place beside a target, and remove what is left in it at the end."""
    folder, lock = _make(target)
    try:
        for part in ("new", "old"):
            (folder / part).mkdir()
        mode = (folder / _LOCK).stat().st_mode & 0o777
        yield Place(folder / "new" / target.name, folder / "old" / target.name, mode)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def sweep(folder: Path) -> None:
    """Remove the places in a folder that dead runs have left; what one was about to exchange is put back."""
    try:
        entries = [entry for entry in os.scandir(folder) if PLACE.fullmatch(entry.name)]
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            own = entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            if not own or not entry.is_dir(follow_symlinks=False):
                continue
            place = Path(entry.path)
            if (lock := _hold(place)) is None:
                continue
            try:
                for old in (place / "old").glob("*"):
                    if not os.path.lexists(place.parent / old.name):
                        old.rename(place.parent / old.name)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(lock)


def _make(target: Path) -> tuple[Path, int | None]:
    name = os.fsencode(target.name)[:_REPEATED].decode(errors="ignore")
    for attempt in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=f".embgeom-{name}.partial-", dir=target.parent))
        if (lock := _hold(folder)) is not None:
            return folder, lock
        # Another run has met the new folder before it was locked, and sweeps it; or the file system knows no
        # locks, and then nobody sweeps.
        if attempt < _TRIES - 1:
            shutil.rmtree(folder, ignore_errors=True)
    (folder / _LOCK).touch()
    return folder, None


def _hold(place: Path) -> int | None:
    """Lock a place for this process; None where another one holds it, or it is gone."""
    path = place / _LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.lstat()):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def flush_folder(folder: Path) -> None:
    """Write a folder out: until then a new name in it is lost with the power."""
    # Some file systems cannot do this for folders, and have no need of it.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
