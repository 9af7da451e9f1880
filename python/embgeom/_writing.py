"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom.errors import OutputError

# What a folder of results consists of. A folder with anything else in it is never overwritten.
RESULT_FILES = ("arrays.npz", "tokens.csv", "tokens.parquet", "comparison.json", "inspection.json")


@contextmanager
def new_folder(folder: str | PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the name `folder` once it is complete.

    On any error or interruption the temporary folder and the parents made for it are removed, and what
    stood at `folder` is untouched. (A process killed between the two renames of an overwriting leaves
    both, whole, in hidden folders beside it.)

    Raises
    ------
    OutputError
        If `folder` holds something already (unless `overwrite`), or cannot be written.
    """
    target = _resolved(folder)
    check_writable(target, overwrite=overwrite)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        with _reported(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_folder(target) as partial:
                yield partial
                for file in partial.iterdir():
                    _flush(file)
                partial.chmod(0o777 & ~_umask())
                _take_place(partial, target, overwrite)
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def write_file(path: str | PathLike[str], write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path, and give the file its name once it is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    target = _resolved(path)
    check_file_writable(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with _reported(target):
            write(partial)
            # Some libraries make files that only their owner can read.
            partial.chmod(0o666 & ~_umask())
            _flush(partial)
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file.

    Raises
    ------
    OSError
        If it cannot be written, as a full disk is told of by the library in an exception of its own.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def check_writable(folder: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Find out before a long computation whether its results can be written.

    Raises
    ------
    OutputError
        If `folder` is a file, holds something already (unless `overwrite`, and then anything but earlier
        results), or cannot be made where it should be.
    """
    target = _resolved(folder)
    with _reported(target):
        if target.exists() and not target.is_dir():
            raise OutputError(f"{target} is a file; name a folder for the results")
        held = sorted(file.name for file in target.iterdir()) if target.is_dir() else []
        if held and not overwrite:
            raise OutputError(
                f"{target} holds something already; name another folder, "
                "or allow to overwrite it (overwrite=True, --overwrite)"
            )
        # What a killed run has left of earlier results is ours, too.
        if strangers := [name for name in held if name not in RESULT_FILES and ".partial-" not in name]:
            raise OutputError(
                f"{target} also holds {strangers[0]!r}, which would be lost; "
                "name another folder, or move it away"
            )
        _try_to_write(next(parent for parent in target.parents if parent.exists()))


def check_file_writable(path: str | PathLike[str]) -> None:
    """Find out before a long computation whether a file can be written; a file that exists is replaced.

    Raises
    ------
    OutputError
        If `path` is a folder or a device, or its folder is absent or takes no files.
    """
    target = _resolved(path)
    with _reported(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"{target} is no ordinary file; name another one")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: there is no folder {target.parent}")
        _try_to_write(target.parent)


def _resolved(path: str | PathLike[str]) -> Path:
    if not os.fspath(path):
        raise OutputError("the name of the output is empty; name a folder or file")
    # A symbolic link stays, and what it points to is written.
    return Path(os.path.realpath(path))


def _try_to_write(folder: Path) -> None:
    # Whether a file system takes files (permissions, read-only mounts, quotas) shows only by making one.
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside `target`, and remove what is left of it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _take_place(partial: Path, target: Path, overwrite: bool) -> None:
    """Rename `partial` to `target`; what stood there goes only after the new folder is in its place."""
    # Another process may have written there since the first check.
    check_writable(target, overwrite=overwrite)
    if not target.exists() or not any(target.iterdir()):
        partial.replace(target)
        return
    with _temporary_folder(target) as old:
        try:
            target.replace(old)
            partial.replace(target)
        except BaseException:
            if not target.exists():
                old.replace(target)
            raise


def _flush(file: Path) -> None:
    # A disk that is full may say so only when its cache is written out.
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
