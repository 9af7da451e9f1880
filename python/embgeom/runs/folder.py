"""The folder of a run: its manifest, the blocks that are done, and the result."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import IndexMatrix
from embgeom._common.record import Arrays, array_digest, digest, plain, write_json
from embgeom._common.result import Result
from embgeom._common.temporary import PLACE, sweep
from embgeom._common.writing import reported, save_tensors, write_file
from embgeom.errors import EmbgeomWarning, LoadError, OutputError, first_line
from embgeom.runs.compute import Block, Task

_FORMAT = 1
_MANIFEST, _BLOCKS, _LOCK, _OWNER = "manifest.json", "blocks", "lock", "owner"
# What all blocks of a run have in common. What computed a result does not matter once it is there.
_ALWAYS, _PACKAGE = ("parameters", "matrix", "rows"), ("embgeom", "build")
_KEY = "embgeom"
_AnyResult = TypeVar("_AnyResult", bound=Result)
# The types of arrays in blocks, as safetensors calls them.
_KINDS = {"I32": np.int32, "F32": np.float32, "U8": np.uint8, "BOOL": np.bool_}


class RunFolder:
    """A folder that this process has locked, whose manifest agrees with what is asked for."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self._manifest = path, manifest
        self._result = path / f"{manifest['parameters']['task']}.safetensors"
        self._cuts: dict[Task, list[int]] = manifest["blocks"]
        # Blocks of another run would not be taken for this one's, even if copied here.
        self._run = digest([manifest.get(name) for name in (*_ALWAYS, *_PACKAGE)])

    @property
    def is_finished(self) -> bool:
        """Whether the result is there: it is once the manifest has its checksum."""
        return self._manifest["result"] is not None and self._result.exists()

    def prepare(self, cuts: dict[Task, list[int]]) -> None:
        """Make room for blocks; stages without any are cut as is best now, by other threads or workers."""
        for stage, cut in cuts.items():
            if stage not in self._cuts or not any(self._file(block).exists() for block in self.blocks(stage)):
                self._cuts[stage] = cut
        self._manifest["result"] = None
        self._write_manifest()
        with reported(self.path):
            (self.path / _BLOCKS).mkdir(exist_ok=True)

    def blocks(self, stage: Task) -> list[Block]:
        """Return all blocks of a stage."""
        cuts = self._cuts[stage]
        return [Block(stage, number, *cuts[number : number + 2]) for number in range(len(cuts) - 1)]

    def missing(self, stage: Task) -> list[Block]:
        """Return the blocks that are not there, or damaged."""
        sweep(self.path / _BLOCKS)
        blocks = self.blocks(stage)
        missing = [block for block in blocks if not self._read_block(block, {}, 0, block.end - block.begin)]
        if damaged := [self._file(block).name for block in missing if self._file(block).exists()]:
            warnings.warn(
                f"damaged, so computed again: {', '.join(damaged)} in {self.path / _BLOCKS}; if that happens "
                "repeatedly, name a folder on another disk",
                EmbgeomWarning,
                stacklevel=6,
            )
        return missing

    def write(self, block: Block, arrays: Arrays) -> None:
        """Keep a block: once this returns it is on the disk, and before that it is not there at all."""
        header = {"run": self._run, "block": block, "sha256": _block_digest(arrays)}

        def write(path: Path) -> None:
            save_tensors(arrays, path, {_KEY: json.dumps(header)})

        write_file(self._file(block), write)

    def note(self, stage: Task, instruction_set: str) -> None:
        """Keep with which instruction set a block was computed."""
        known = self.instruction_sets(stage)
        if instruction_set not in known:
            known.append(instruction_set)
            self._write_manifest()

    def instruction_sets(self, stage: Task) -> list[str]:
        """Return the instruction sets of all blocks of a stage so far."""
        known: list[str] = self._manifest["instruction_sets"].setdefault(stage, [])
        return known

    def read(self, stage: Task, name: str, begin: int, end: int) -> npt.NDArray[Any]:
        """Return an array's rows of tokens `begin` to `end`, of which only those are read."""
        from safetensors import SafetensorError, safe_open

        parts = []
        for block in self.blocks(stage):
            if begin < block.end and end > block.begin:
                first, last = max(begin, block.begin), min(end, block.end)
                try:
                    with safe_open(self._file(block), framework="numpy") as file:
                        parts.append(file.get_slice(name)[first - block.begin : last - block.begin])
                except (OSError, SafetensorError) as error:
                    raise LoadError(
                        f"{self._file(block)} was damaged during the run ({first_line(error)}); repeat the "
                        "call, which computes it again"
                    ) from error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def neighbors(self, block: Block) -> IndexMatrix | None:
        """Return the neighbors of a block's tokens; None in the stage that finds them."""
        return None if block.stage == "knn" else self.read("knn", "indices", block.begin, block.end)

    def assembled(self, stage: Task) -> Arrays | None:
        """Return the arrays of a whole stage, in memory once; None if a block is damaged."""
        whole: Arrays = {}
        blocks = self.blocks(stage)
        intact = (self._read_block(block, whole, block.begin, blocks[-1].end) for block in blocks)
        return whole if all(intact) else None

    def finish(self, result: Result) -> None:
        """Write the result: once this returns it is on the disk."""
        result.save(self._result)
        self._manifest["result"] = _result_digest(result)
        self._write_manifest()

    def load(self, kind: type[_AnyResult]) -> _AnyResult:
        """Read the result."""
        way_out = f"delete {self.path} and repeat the call, or name another folder"
        try:
            result = kind.load(self._result)
        except LoadError as error:
            raise LoadError(f"{error}; if it is damaged, {way_out}") from error
        if _result_digest(result) != self._manifest["result"]:
            raise LoadError(f"{self._result} is damaged or of another run (its checksum differs); {way_out}")
        return result

    def remove_blocks(self) -> None:
        """Remove what the result has made superfluous, and nothing that a run does not write."""
        sweep(self.path / _BLOCKS)
        with suppress(OSError):
            for block in (block for stage in self._cuts for block in self.blocks(stage)):
                self._file(block).unlink(missing_ok=True)
            (self.path / _BLOCKS).rmdir()

    def _file(self, block: Block) -> Path:
        return self.path / _BLOCKS / f"{block.name}.safetensors"

    def _write_manifest(self) -> None:
        checked = {**self._manifest, "sha256": digest(self._manifest)}
        write_file(self.path / _MANIFEST, lambda partial: write_json(partial, checked))

    def _read_block(self, block: Block, arrays: Arrays, begin: int, count: int) -> bool:
        """Read a block to its place in arrays of `count` rows, and return whether it is intact."""
        from safetensors import SafetensorError, safe_open

        path, rows, found = self._file(block), slice(begin, begin + block.end - block.begin), {}
        try:
            # It checks that the header fits the file. Mapped, its arrays would be in memory twice.
            with safe_open(path, framework="numpy") as checked, path.open("rb") as file:
                header = json.loads((checked.metadata() or {})[_KEY])
                tensors = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                start = file.tell()
                for name in checked.keys():  # noqa: SIM118
                    kind, shape = _KINDS[tensors[name]["dtype"]], tensors[name]["shape"]
                    if name not in arrays:
                        arrays[name] = np.empty((count, *shape[1:]), kind)
                    found[name] = arrays[name][rows]
                    file.seek(start + tensors[name]["data_offsets"][0])
                    fits = (*found[name].shape,) == (*shape,) and found[name].dtype == kind
                    if not fits or file.readinto(found[name].data) != found[name].nbytes:
                        return False
        except (OSError, SafetensorError, ValueError, KeyError):
            return False
        return bool(header == {"run": self._run, "block": list(block), "sha256": _block_digest(found)})


@contextmanager
def open_run(
    folder: str | PathLike[str],
    identity: Mapping[str, Any],
    describe: Callable[[], Mapping[str, Any]],
    cut: Callable[[], dict[Task, list[int]]],
) -> Iterator[RunFolder]:
    """Give the folder of a run, made if it is not there, while no other process has it.

    `identity` is what a run must have in common with one that is continued, `describe` gives the rest of a
    new manifest, and `cut` where blocks begin.
    """
    path = Path(folder)
    identity = plain({"format": _FORMAT, **identity})
    # A run that has ended is read without a lock, also where nothing can be written.
    run = _held(path, identity)
    with ExitStack() as held:
        if run is None or not run.is_finished:
            with reported(path):
                if path.exists() and not path.is_dir():
                    raise OutputError(f"{path} is a file; name a folder for the run")
                path.mkdir(parents=True, exist_ok=True)
                _refuse_strangers(path)
                held.enter_context(locked(path))
                sweep(path)
            rest: dict[str, Any] = {"blocks": {}, "instruction_sets": {}, "result": None}
            run = _held(path, identity) or RunFolder(path, plain({**identity, **describe(), **rest}))
            if not run.is_finished:
                run.prepare(cut())
        yield run


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a folder while no other process does; its file `lock` stays."""
    # The lock ends with the process however that dies, so a dead one is not in the way.
    with (path / _LOCK).open("a") as file, ExitStack() as held:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise OutputError(
                f"{path} is in use by another process; wait until that ends, or name another folder"
            ) from None
        except OSError:
            held.enter_context(_owned(path / _OWNER))
        yield


@contextmanager
def _owned(file: Path) -> Iterator[None]:
    """Hold a folder by a file, where the file system does not support locks."""
    try:
        with file.open("x", encoding="utf-8") as owner:
            owner.write(f"process {os.getpid()} on {platform.node()}")
    except FileExistsError:
        owner_name = file.read_text(encoding="utf-8") or "another process"
        raise OutputError(
            f"{file.parent} is in use by {owner_name}; its file system does not support locks: if that "
            f"process has ended, delete {file} and repeat the call"
        ) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _held(path: Path, identity: Mapping[str, Any]) -> RunFolder | None:
    """Return the run that a folder holds, if any; refuse one that is not the one asked for."""
    file = path / _MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        is_ours = isinstance(manifest, dict) and manifest.keys() >= {"format", "parameters", "sha256"}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OutputError(f"{file} cannot be read: {error.strerror}; check its permissions") from error
    except (ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise OutputError(f"{file} is not the manifest of a run, or is damaged; name another folder")
    # It covers all that is in there, so that nothing else need be checked.
    if manifest.pop("sha256") != digest(manifest):
        raise OutputError(f"{file} is damaged (its checksum differs); delete {path}, or name another folder")
    run_folder = RunFolder(path, manifest)
    _refuse_another(path, manifest, identity, finished=run_folder.is_finished)
    return run_folder


def _refuse_strangers(path: Path) -> None:
    """Refuse a folder that is not empty without a manifest, which is the first thing that a run writes."""
    held = sorted(file.name for file in path.iterdir())
    strangers = [name for name in held if name not in (_LOCK, _OWNER) and not PLACE.fullmatch(name)]
    if strangers and not (path / _MANIFEST).exists():
        raise OutputError(
            f"{path} holds {strangers[0]!r} and no run that could be continued; name another folder"
        )


def _refuse_another(
    path: Path, manifest: Mapping[str, Any], identity: Mapping[str, Any], *, finished: bool
) -> None:
    """Name the first thing in which the run that a folder holds differs from the one asked for."""
    held = _flat(manifest)
    for name, wanted in _flat(identity).items():
        before = held.get(name)
        if before == wanted:
            continue
        if name not in _PACKAGE:
            raise OutputError(
                f"{path} holds another run: {_difference(name, before, wanted)}; name another folder, or "
                "give what that run was given"
            )
        if not finished:
            told = before if name == "embgeom" else f"another build of {held.get('embgeom')}"
            raise OutputError(
                f"the run in {path} was begun with another embgeom ({told}), whose results may have other "
                "bits; name a new folder, or continue with that version and build"
            )


def _difference(name: str, held: Any, wanted: Any) -> str:
    if name == "matrix sha256":
        return "its matrix has different values"
    if name != "rows":
        return f"its {name.removeprefix('parameters ')} is {held}, not {wanted}"
    one, other = ("all rows" if rows is None else f"{len(rows)} rows" for rows in (held, wanted))
    return f"it is about {one}, not {other}" if one != other else f"it is about {one}, but not these"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _block_digest(arrays: Arrays) -> str:
    return digest({name: array_digest(arrays[name]) for name in sorted(arrays)})


def _result_digest(result: Result) -> str:
    arrays: Arrays = {}
    return digest([plain(result, arrays), _block_digest(arrays)])
