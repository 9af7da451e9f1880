"""The folder of a run: its manifest, the blocks that are done, and the result."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.record import Arrays, array_digest, digest, plain, write_json
from embgeom._common.result import Result
from embgeom._common.temporary import PLACE, sweep
from embgeom._common.writing import reported, save_tensors, write_file
from embgeom.errors import OutputError, first_line
from embgeom.runs.compute import Block, Task

_FORMAT = 1
_MANIFEST, _BLOCKS, _LOCK = "manifest.json", "blocks", "lock"
_BEFORE_ANYTHING = (_LOCK, _BLOCKS)
_HELD = ("parameters", "matrix", "rows", "blocks")
_KEY = "embgeom"
# The types of arrays in blocks, as safetensors calls them.
_KINDS = {"I32": np.int32, "F32": np.float32, "U8": np.uint8, "BOOL": np.bool_}
# In what two runs may differ whose values would tell nobody anything.
_UNSAID = {"rows": "it is about other rows", "matrix sha256": "the numbers of its matrix are others"}


class RunFolder:
    """A folder that this process has locked, whose manifest agrees with what is asked for."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self._manifest = path, manifest
        self.result = path / f"{manifest['parameters']['task']}.safetensors"
        self._cuts: dict[Task, list[int]] = manifest["blocks"]
        # Blocks of another run would not be taken for this one's, even if copied here.
        self._run = digest([manifest[name] for name in _HELD])

    def blocks(self, stage: Task) -> list[Block]:
        """Return all blocks of a stage."""
        cuts = self._cuts[stage]
        return [Block(stage, number, *cuts[number : number + 2]) for number in range(len(cuts) - 1)]

    def missing(self, stage: Task) -> list[Block]:
        """Return the blocks that are not there, or damaged."""
        sweep(self.path / _BLOCKS)
        return [block for block in self.blocks(stage) if not self._is_intact(block)]

    def write(self, block: Block, arrays: Arrays) -> None:
        """Keep a block: once this returns it is on the disk, and before that it is not there at all."""
        header = {"run": self._run, "block": block.name, "sha256": _block_digest(arrays)}

        def write(path: Path) -> None:
            save_tensors(arrays, path, {_KEY: json.dumps(header)})

        write_file(self._file(block), write)

    def note(self, stage: Task, instruction_set: str) -> None:
        """Keep with which instruction set a block was computed."""
        known = self.instruction_sets(stage)
        if instruction_set not in known:
            known.append(instruction_set)
            write_file(self.path / _MANIFEST, lambda partial: write_json(partial, self._manifest))

    def instruction_sets(self, stage: Task) -> list[str]:
        """Return the instruction sets of all blocks of a stage so far."""
        known: list[str] = self._manifest["instruction_sets"].setdefault(stage, [])
        return known

    def read(self, stage: Task, name: str, begin: int, end: int) -> npt.NDArray[Any]:
        """Return an array's rows of tokens `begin` to `end`, of which only those are read."""
        from safetensors import safe_open

        parts = []
        for block in self.blocks(stage):
            if begin < block.end and end > block.begin:
                with safe_open(self._file(block), framework="numpy") as file:
                    first, last = max(begin, block.begin), min(end, block.end)
                    parts.append(file.get_slice(name)[first - block.begin : last - block.begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def assembled(self, stage: Task) -> Arrays:
        """Return the arrays of a whole stage, in memory once: blocks are read to where they belong."""
        whole: Arrays = {}
        blocks = self.blocks(stage)
        for block in blocks:
            with self._file(block).open("rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
                begin = file.tell()
                for name in sorted(header.keys() - {"__metadata__"}):
                    kind, (_, *rest) = _KINDS[header[name]["dtype"]], header[name]["shape"]
                    if name not in whole:
                        whole[name] = np.empty((blocks[-1].end, *rest), kind)
                    file.seek(begin + header[name]["data_offsets"][0])
                    file.readinto(whole[name][block.begin : block.end].data)
        return whole

    def finish(self, result: Result) -> None:
        """Write the result, and remove the blocks only when it is on the disk."""
        result.save(self.result)
        self.remove_blocks()

    def remove_blocks(self) -> None:
        """Remove what the result has made superfluous."""
        shutil.rmtree(self.path / _BLOCKS, ignore_errors=True)

    def _file(self, block: Block) -> Path:
        return self.path / _BLOCKS / f"{block.name}.safetensors"

    def _is_intact(self, block: Block) -> bool:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self._file(block), framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                header = json.loads((file.metadata() or {})[_KEY])
        except (OSError, SafetensorError, ValueError, KeyError):
            return False
        return bool(header == {"run": self._run, "block": block.name, "sha256": _block_digest(arrays)})


@contextmanager
def open_run(
    folder: str | PathLike[str], identity: Mapping[str, Any], describe: Callable[[], Mapping[str, Any]]
) -> Iterator[RunFolder]:
    """Give the folder of a run, made if it is not there, while no other process has it.

    `identity` is what a run must have in common with one that is continued; `describe` gives the rest of a
    new manifest, its blocks among them.
    """
    path = Path(folder)
    identity = plain({"format": _FORMAT, **identity})
    with reported(path):
        path.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            sweep(path)
            file = path / _MANIFEST
            if file.exists():
                manifest = _read_manifest(file)
                _refuse_another(path, manifest, identity)
            else:
                _refuse_strangers(path)
                manifest = plain({**identity, **describe(), "instruction_sets": {}})
                write_file(file, lambda partial: write_json(partial, manifest))
            run = RunFolder(path, manifest)
            if not run.result.exists():
                (path / _BLOCKS).mkdir(exist_ok=True)
            yield run


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    # The lock ends with the process however that dies, so a dead one is not in the way.
    with (path / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another process computes in {path}; wait until it has ended, or name another folder"
            ) from None
        except OSError:
            pass  # The file system knows no locks.
        yield


def _read_manifest(file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not manifest.keys() >= {"format", *_HELD}:
            raise ValueError("it lacks entries")
    except ValueError as error:
        raise OutputError(
            f"{file} is not the manifest of a run ({first_line(error)}); name another folder"
        ) from error
    return manifest


def _refuse_strangers(path: Path) -> None:
    held = sorted(file.name for file in path.iterdir())
    strangers = [name for name in held if name not in _BEFORE_ANYTHING and not PLACE.fullmatch(name)]
    if strangers:
        raise OutputError(
            f"{path} holds {strangers[0]!r} and no run that could be continued; name another folder"
        )


def _refuse_another(path: Path, manifest: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Name the first thing in which the run that a folder holds differs from the one asked for."""
    for name, wanted in _flat(identity).items():
        held = _flat(manifest).get(name)
        if held != wanted:
            what = _UNSAID.get(name, f"its {name.removeprefix('parameters ')} is {held}, not {wanted}")
            raise OutputError(
                f"{path} holds another run: {what}; name another folder, or give what that run was given"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _block_digest(arrays: Arrays) -> str:
    return digest({name: array_digest(arrays[name]) for name in sorted(arrays)})
