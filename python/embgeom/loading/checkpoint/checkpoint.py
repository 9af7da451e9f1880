"""The tensors of a model, whether one file holds them or many; only the file that is needed is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from embgeom.errors import LoadError
from embgeom.loading.checkpoint.torch_file import TorchFile
from embgeom.loading.folder import is_inside, read_json
from embgeom.loading.hub.tensors import HubSafetensors
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.loading.source import Source

USUAL_STEMS = ("model", "pytorch_model")
TORCH_SUFFIXES = (".bin", ".pt", ".pth")
TensorFile = SafetensorsFile | HubSafetensors | TorchFile


class Checkpoint:
    """All tensors of a model by name; a file is opened (and fetched) when a tensor in it is asked for.

    `aliases` are other names of its tensors (alias -> name), which only a single file tells.
    """

    def __init__(self, where: str, files: dict[str, str], open_file: Callable[[str], TensorFile]) -> None:
        self.where = where
        self._files = files
        self._open_file = open_file
        self._opened: dict[str, TensorFile] = {}
        self.sharded = len(set(files.values())) > 1
        self.names: tuple[str, ...] = tuple(files)
        self.aliases: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()

    @classmethod
    def single(cls, file: TensorFile) -> Checkpoint:
        """Return the checkpoint of one file."""
        path = str(file.path)
        checkpoint = cls(path, dict.fromkeys(file.names, path), lambda _: file)
        checkpoint.aliases = file.aliases
        return checkpoint

    @classmethod
    def indexed(cls, source: Source, index: Path) -> Checkpoint:
        """Return the checkpoint of an index file: a table from tensor name to shard."""
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
            raise LoadError(f"{index} has no weight_map from tensor to file; fetch it again")

        def open_shard(name: str) -> TensorFile:
            if not is_inside(name):
                raise LoadError(f"{index} names the shard {name!r}, which lies outside the model")
            if path := source.locate(name):
                return open_file(path)
            held = [p.name for pattern in ("*.safetensors", "*.bin") for p in source.list_local(pattern)]
            there = f" (it holds {_first(held)})" if held else ""
            raise LoadError(
                f"{index} names the shard {name}, which {source.name} does not hold{there}; fetch it, or the "
                "index that belongs to the files"
            )

        return cls(str(index), table, open_shard)

    def file(self, name: str) -> TensorFile:
        """Return the open file that holds a tensor, opened (and fetched) by the first call."""
        shard = self._files[name]
        if shard not in self._opened:
            self._opened[shard] = self._open_file(shard)
        file = self._opened[shard]
        if name not in file.names:
            raise LoadError(f"{self.where} says that {name} is in {shard}, but it is not; fetch both again")
        return file

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.file(name).shape(name)

    def origin(self, name: str) -> dict[str, Any]:
        """Return what a `Provenance` says of the file that a tensor was read from."""
        file = self.file(name)
        if isinstance(file, HubSafetensors):
            return file.origin(name)
        return {"file": file.path, "state": file.state}

    def whole_file(self, name: str) -> Path:
        """Return the local path of the file that holds a tensor, fetched whole if need be."""
        file = self.file(name)
        return file.whole_file() if isinstance(file, HubSafetensors) else file.path


def open_file(path: Path | HubSafetensors) -> TensorFile:
    """Open one file of tensors by its suffix; one that is open already is returned."""
    if not isinstance(path, Path):
        return path
    if path.suffix in TORCH_SUFFIXES:
        return TorchFile(path)
    if path.suffix == ".safetensors":
        return SafetensorsFile(path)
    raise LoadError(
        f"{path} has the suffix {path.suffix!r}; embgeom reads .safetensors, {', '.join(TORCH_SUFFIXES)}, "
        ".gguf, .npy, .npz and word vectors (.txt, .vec, .kv), and folders that hold the first of these"
    )


def open_checkpoint(source: Source) -> Checkpoint:
    """Find the tensors of the model at `source`, safetensors first."""
    for stem, suffix in zip(USUAL_STEMS, ("safetensors", "bin"), strict=True):
        index_name = f"{stem}.{suffix}.index.json"
        if path := source.locate(f"{stem}.{suffix}"):
            checkpoint = Checkpoint.single(open_file(path))
            checkpoint.notes = _other_index(source, f"{stem}.{suffix}", index_name)
            return checkpoint
        if index := source.find(index_name):
            return Checkpoint.indexed(source, index)
    others = source.list_local("*.safetensors")
    if len(others) == 1:
        return Checkpoint.single(open_file(others[0]))
    names = [path.name for path in others]
    found = f" (it holds {_first(names)}: name one of these files)" if names else ""
    raise LoadError(
        f"{source.name} holds neither model.safetensors nor pytorch_model.bin, nor an index of either{found}"
        "; fetch the weights, or name the file that holds them"
    )


def _other_index(source: Source, file: str, index_name: str) -> tuple[str, ...]:
    """Return a note if an index beside a single file, which transformers reads, names other files."""
    # Only where looking costs nothing: of a repository, the index would have to be fetched.
    indices = source.list_local(index_name)
    table = read_json(indices[0]).get("weight_map") if indices else None
    shards = sorted({str(v) for v in table.values()} - {file}) if isinstance(table, dict) else []
    if not shards:
        return ()
    return (
        f"{file} was read, as transformers does; {index_name} beside it names other files "
        f"({_first(shards, 1)})",
    )


def _first(names: list[str], most: int = 5) -> str:
    """Return the first of several names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
