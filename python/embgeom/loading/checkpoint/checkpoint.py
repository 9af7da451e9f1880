"""The tensors of a model, whether one file holds them or many; only the file that is needed is opened.

And the rows of a model2vec file of few vectors, which a running model finds by a mapping, and weighs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.checkpoint.torch_file import TorchFile
from embgeom.loading.folder import check_dtype, is_inside, read_json
from embgeom.loading.hub.tensors import HubSafetensors
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.loading.source import Source

USUAL_STEMS = ("model", "pytorch_model")
TORCH_SUFFIXES = (".bin", ".pt", ".pth")
TensorFile = SafetensorsFile | HubSafetensors | TorchFile
# The vectors of a model2vec file.
_EMBEDDINGS = ("embeddings", "embedding.weight")


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
        path = str(file.path)
        checkpoint = cls(path, dict.fromkeys(file.names, path), lambda _: file)
        checkpoint.aliases = file.aliases
        return checkpoint

    @classmethod
    def indexed(cls, source: Source, index: Path) -> Checkpoint:
        table = read_json(index).get("weight_map")
        if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
            raise LoadError(f"{index} has no weight_map from tensor to file; fetch it again")

        def open_shard(name: str) -> TensorFile:
            if not is_inside(name):
                raise LoadError(f"{index} names the shard {name!r}, which lies outside the model")
            if path := source.locate(name):
                return open_file(path)
            held = [p.name for pattern in ("*.safetensors", "*.bin") for p in source.list_local(pattern)]
            there = f" (it holds {listed(held)})" if held else ""
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
        return self.file(name).shape(name)

    def origin(self, name: str) -> dict[str, Any]:
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
    found = f" (it holds {listed(names)}: name one of these files)" if names else ""
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
        f"({listed(shards, 1)})",
    )


def listed(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def embeddings_name(names: Iterable[str]) -> str | None:
    """Return the tensor of vectors in a file of model2vec that holds more than these, else None."""
    held = set(names)
    name = next((name for name in _EMBEDDINGS if name in held), None)
    return name if name and held - {name} and held <= {name, "mapping", "weights"} else None


def token_rows(path: Path, name: str) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the row of each token as the running model computes it, mapped and weighed, and notes."""
    file = SafetensorsFile(path)
    check_dtype(file.dtype(name), f"{name} in {path}")
    # NumPy has no bfloat16.
    vectors: npt.NDArray[Any] = file.read(name) if file.dtype(name) == "BF16" else file.array(name)
    mapping, weights = (file.array(key) if key in file.names else None for key in ("mapping", "weights"))
    count, notes = len(vectors), []
    if mapping is not None:
        fits = mapping.ndim == 1 and mapping.dtype.kind in "iu" and mapping.size > 0
        if not fits or not 0 <= int(mapping.min()) <= int(mapping.max()) < count:
            raise LoadError(f"{path}: mapping does not name rows of {name}; fetch it again")
        vectors = vectors[mapping]
        notes.append(f"model2vec: {count} vectors stand for {len(vectors)} tokens, by its mapping")
    if weights is not None:
        if weights.shape != (len(vectors),) or weights.dtype.kind != "f":
            raise LoadError(
                f"{path}: weights {list(weights.shape)} are not one for each of {len(vectors)} tokens"
            )
        vectors = vectors * weights[:, None]
        notes.append("model2vec: each row is multiplied with its weight")
    with np.errstate(over="ignore", under="ignore"):
        return vectors.astype(np.float32), tuple(notes)
