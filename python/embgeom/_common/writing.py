"""Files and folders that are written atomically, and never over what is read."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom._common.temporary import Place, flush_folder, place_beside, sweep
from embgeom.errors import InputError, OutputError

# What a folder of results consists of. A folder with anything else in it is never overwritten.
RESULT_FILES = (
    "coherence.safetensors",
    "comparison.json",
    "comparison.safetensors",
    "diff.json",
    "diff.safetensors",
    "inspection.json",
    "inspection.safetensors",
    "tokens.csv",
    "tokens.parquet",
)

# What is read with a file of a model in the same folder.
_BESIDE = re.compile(
    r"(generation_)?config\.json|(special_tokens|added_tokens|tokenizer|tekken)\w*\.json"
    r"|(vocab|merges|tokens)\.\w+"
    r"|.*(\.index\.json|\.model|\.tiktoken|-\d{5}-of-\d{5}\.\w+)",
    re.DOTALL,
)

Name = str | PathLike[str]


# A process that is killed leaves the old or the new folder complete, and a temporary one, which the next run
# removes. (Where the system cannot exchange two folders in one step, the old one may wait there until then.)
@contextmanager
def new_folder(folder: Name, *, overwrite: bool = False, inputs: Iterable[Name] = ()) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the name `folder` once it is complete, or is removed."""
    target = _resolved(folder)
    check_kept({"the output": target}, inputs)
    check_writable(target, overwrite=overwrite)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        with reported(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with place_beside(target) as place:
                place.new.mkdir()
                yield place.new
                for file in place.new.iterdir():
                    file.chmod(place.mode)
                    _flush(file)
                flush_folder(place.new)
                _take_place(place, target, overwrite)
                flush_folder(target.parent)
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def write_file(path: Name, write: Callable[[Path], object], *, inputs: Iterable[Name] = ()) -> None:
    """Call `write` with a temporary path, and give the file its name once it is complete."""
    target = _resolved(path)
    check_kept({"the output": target}, inputs)
    check_file_writable(target)
    with reported(target), place_beside(target) as place:
        write(place.new)
        # Some libraries make files that only their owner can read.
        place.new.chmod(place.mode)
        _flush(place.new)
        place.new.replace(target)
        flush_folder(target.parent)


def cache_root(folder: Name | None = None) -> Path:
    """Return the folder of all caches: the one given, that of EMBGEOM_CACHE, or Hugging Face's for assets."""
    if named := folder or os.environ.get("EMBGEOM_CACHE"):
        return Path(named).expanduser()
    from huggingface_hub.constants import HF_ASSETS_CACHE

    return Path(HF_ASSETS_CACHE)


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file, or raise an OSError, also where the library has an exception of its own."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def check_writable(folder: Name, *, overwrite: bool = False) -> None:
    """Check early that results can be written to a folder; what it holds may be earlier results alone."""
    target = _resolved(folder)
    sweep(target.parent)
    with reported(target):
        if target.exists() and not target.is_dir():
            raise OutputError(f"{target} is a file; name a folder for the results")
        held = sorted(file.name for file in target.iterdir()) if target.is_dir() else []
        if held and not overwrite:
            raise OutputError(
                f"{target} holds something already; name another folder, "
                "or allow to overwrite it (overwrite=True, --overwrite)"
            )
        if strangers := [name for name in held if name not in RESULT_FILES]:
            raise OutputError(
                f"{target} also holds {strangers[0]!r}, which would be lost; "
                "name another folder, or move it away"
            )
        _try_to_write(next(parent for parent in target.parents if parent.exists()))


def check_file_writable(path: Name) -> None:
    target = _resolved(path)
    sweep(target.parent)
    with reported(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"{target} is not an ordinary file; name another one")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: there is no folder {target.parent}")
        _try_to_write(target.parent)


def check_kept(outputs: Mapping[str, Name | None], inputs: Iterable[Name | None]) -> None:
    """Refuse to write over or into what is read, by whatever links, or one output over another."""
    written = {option: _resolved(path) for option, path in outputs.items() if path is not None}
    for (one, path), (other, other_path) in combinations(written.items(), 2):
        if path == other_path or path in other_path.parents or other_path in path.parents:
            relation = "the same file" if path == other_path else "one inside the other"
            raise InputError(f"{one} {outputs[one]} and {other} {outputs[other]} are {relation}; name two")
    for name in inputs:
        if name is not None:
            for path in written.values():
                _check_apart(path, os.fspath(name))


def _check_apart(output: Path, name: str) -> None:
    if not name or "\0" in name:
        return
    with suppress(RuntimeError):  # an unknown user
        name = str(Path(name).expanduser())
    source = Path(os.path.realpath(name))
    # Also where neither is there yet: a folder would stand before a model of that name on the Hub.
    if output == source:
        raise OutputError(f"{output} would be written over {name}, which is read; name another file")
    with suppress(OSError):
        if source.is_dir() and source in output.parents:
            raise OutputError(f"{output} lies in {name}, which is read; name another folder")
        if source.exists() and output in source.parents:
            raise OutputError(f"{output} holds {name}, which is read; name another folder")
        if not output.is_file():
            return
        for file in _read_with(source):
            if file.exists() and output.samefile(file):
                raise OutputError(
                    f"{output} would be written over {file}, which is read with {name}; name another file"
                )


def _read_with(source: Path) -> Iterator[Path]:
    """Give the files that may be read with a file or folder: links may lead to them from anywhere."""
    yield source
    if source.is_dir():
        for pattern in ("*", "*/*"):
            yield from (file for file in source.glob(pattern) if file.is_file())
    elif source.is_file():
        yield from (file for file in source.parent.iterdir() if _BESIDE.fullmatch(file.name))
        if source.suffix == ".npy":
            yield from (source.with_suffix(end) for end in (".tokens.txt", ".tokens.json", ".txt", ".json"))


def _resolved(path: Name) -> Path:
    try:
        name = os.fspath(path)
    except TypeError:
        raise OutputError(f"{path!r} is not the name of an output; name a folder or file") from None
    if not name:
        raise OutputError("the name of the output is empty; name a folder or file")
    if "\0" in name:
        raise OutputError(f"{name!r} holds a NUL character, which no name of a file can; name another")
    # A symbolic link stays, and what it points to is written.
    return Path(os.path.realpath(path))


def _try_to_write(folder: Path) -> None:
    # Whether a file system takes files (permissions, read-only mounts, quotas) shows only by making one.
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def reported(target: Path) -> Iterator[None]:
    """Turn an OSError into the error that `target` cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _take_place(place: Place, target: Path, overwrite: bool) -> None:
    """Give the new folder its name; an old one is removed only after that."""
    # Another process may have written there since the first check.
    check_writable(target, overwrite=overwrite)
    if not target.exists() or not any(target.iterdir()):
        place.new.replace(target)
    elif not _exchange(place.new, target):
        try:
            target.replace(place.old)
            place.new.replace(target)
        except BaseException:
            if not target.exists():
                place.old.replace(target)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, where the system can: Python has no call for it."""
    if not sys.platform.startswith("linux"):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _flush(file: Path) -> None:
    # A disk that is full may say so only when its cache is written out.
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())
