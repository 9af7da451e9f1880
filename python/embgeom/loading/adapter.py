"""A PEFT adapter on disk, and what it makes of its base's embedding, output matrix and final norm.

A module that an adapter knows is named as in the running model, and a tensor of the base as in its file, so
the two are brought together by the last part of their names. What is known of adapters: a whole copy
(``modules_to_save``), the base's own matrix as it was when it was saved, LoRA, and replaced rows (trainable
tokens). Whatever else touches the matrix is refused by its name.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.adapter_names import ROWS, SAVED_BASE, SIDES, WHOLE, split_name
from embgeom.loading.checkpoint.checkpoint import open_file
from embgeom.loading.folder import Source, TensorFile, read_json
from embgeom.loading.source import find_folder, find_source

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MODELS = tuple(f"{stem}.{end}" for stem, end in (("model", "safetensors"), ("pytorch_model", "bin")))
_MODELS += tuple(f"{name}.index.json" for name in _MODELS)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_OF_LAYERS = re.compile(r"\.\d+\.")
# Adapters that are not base + scaled B A, and those for which the base was changed when they began.
_OTHER_LORA = ("use_dora", "use_qalora", "alora_invocation_tokens", "arrow_config", "use_bdlora",
               "kasa_config", "monteclora_config", "velora_config")  # fmt: skip
_PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Adapter:
    """An adapter that has been opened."""

    name: str
    config: dict[str, Any]
    file: TensorFile

    @classmethod
    def read(cls, source: Source) -> Adapter:
        """Open the adapter at `source`."""
        path = source.find(CONFIG)
        weights = next((found for name in _WEIGHTS if (found := source.find(name))), None)
        if path is None or weights is None:
            missing = CONFIG if path is None else " or ".join(_WEIGHTS)
            raise LoadError(f"{source.name} is no PEFT adapter: it holds no {missing}")
        return cls(source.name, read_json(path), open_file(weights))

    def matrix(
        self, base: npt.NDArray[np.float32], tensor: str, which: str, tied: bool
    ) -> tuple[npt.NDArray[np.float32], bool, tuple[str, ...]]:
        """Return the matrix of one side as the base computes with it under this adapter."""
        module, other = self._modules(base, tensor, which, tied)
        done = []
        columns = base.shape[1]
        if tied and other and (name := self._parts(other).get(SAVED_BASE)):
            # One matrix of the base lies under both sides, and the adapter brings it along.
            base = self.file.read(name)
            done.append(f"{name} of {self.name} in place of {tensor}")
        tied_base, tied = tied, tied and self._keeps_tie(module, other)
        module = module or (other if tied else None)
        if module is None:
            return base, tied, tuple(done)
        parts = self._parts(module)
        if tied_base and other and ROWS in self._parts(other) and ROWS not in parts:
            raise LoadError(
                f"{self.name} changes {module}, and replaces rows of the base's tied matrix by {other}: "
                f"{_MERGE}"
            )
        done.append(f"the adapter {self.name} was trained on {self.config.get('base_model_name_or_path')}")
        if name := parts.get(WHOLE) or parts.get(SAVED_BASE):
            base = self.file.read(name)
            done.append(f"{name} of {self.name} in place of {tensor}")
        if {"A", "B", "embedding A", "embedding B", "DoRA"} & parts.keys():
            base, how = self._with_lora(base, module, parts)
            done.append(how)
        if name := parts.get(ROWS):
            base = self._with_rows(base, module, name)
            done.append(f"rows of {self.name}, {name}, in place of those of {tensor}")
        if base.ndim != 2 or base.shape[1] != columns:
            raise self._unfit(module, f"a tensor of shape {list(base.shape)}, not of {columns} columns,")
        return base, tied, tuple(done)

    def vector(self, tensor: str) -> npt.NDArray[np.float32] | None:
        """Return the adapter's copy of a norm's weight, by its name in the base's file, or None."""
        norm = tensor.split(".")[-2]
        for module in self._outside_layers():
            path = module.split(".")
            if norm not in path:
                continue
            parts = self._parts(module)
            if path[-1] != norm or parts.keys() - {WHOLE}:
                raise LoadError(
                    f"{self.name} changes {module}, a norm, which embgeom does not merge: {_MERGE}"
                )
            if WHOLE in parts:
                return self.file.read(parts[WHOLE])
        return None

    def _modules(self, base: Any, tensor: str, which: str, tied: bool) -> tuple[str | None, str | None]:
        """Return the modules of the adapter that change the matrix of a side, and that of the other."""
        other_side = "output" if which == "input" else "input"
        known = {which: set(SIDES[which]), other_side: set(SIDES[other_side])}
        own_name = tensor.split(".")[-2] if "." in tensor else tensor
        if not tied or own_name not in known[other_side]:
            known[which].add(own_name)
            known[other_side].discard(own_name)
        sides: dict[str, list[str]] = {which: [], other_side: []}
        for module in self._outside_layers():
            side = next((s for s in sides if module.split(".")[-1] in known[s]), None)
            if side:
                sides[side].append(module)
            elif odd := [
                n
                for n in self._tensors(module)
                if len(base) in self.file.shape(n) or own_name in n.split(".")
            ]:
                raise LoadError(
                    f"{self.name} ({self.config.get('peft_type')}) holds {odd[0]}, which may "
                    f"change the {which} matrix in a way that embgeom does not know: {_MERGE}"
                )
        for found in sides.values():
            if len(found) > 1:
                raise LoadError(
                    f"{self.name} changes {' and '.join(found)}: embgeom cannot tell which counts; {_MERGE}"
                )
        own, other = (next(iter(sides[side]), None) for side in (which, other_side))
        return own, other

    def _keeps_tie(self, own: str | None, other: str | None) -> bool:
        """Return whether both sides of a tied base stay one: rows are replaced in both at once."""
        changed = [module for module in (own, other) if module is not None]
        kept = self.config.get("ensure_weight_tying") is True
        return kept or not changed or (len(changed) == 1 and self._parts(changed[0]).keys() == {ROWS})

    def _outside_layers(self) -> list[str]:
        """Return the modules that the adapter changes outside of the model's layers, in order."""
        found = {split_name(name)[0]: None for name in self.file.names if not _OF_LAYERS.search(name)}
        return [module for module in found if module]

    def _tensors(self, module: str) -> list[str]:
        return [name for name in self.file.names if split_name(name)[0] == module]

    def _parts(self, module: str) -> dict[str, str]:
        """Return what the adapter holds of a module: part -> the tensor's name; unknown parts are refused."""
        parts: dict[str, str] = {}
        for name in self._tensors(module):
            part = split_name(name)[1]
            if part is None:
                raise LoadError(
                    f"{self.name} changes {module} by {name}, of the kind {self.config.get('peft_type')}, "
                    f"and embgeom merges LoRA, modules_to_save and trainable tokens alone: {_MERGE}"
                )
            if part:
                parts[part] = name
        return parts

    def _with_lora(
        self, base: npt.NDArray[np.float32], module: str, parts: dict[str, str]
    ) -> tuple[npt.NDArray[np.float32], str]:
        other = [key for key in _OTHER_LORA if self.config.get(key)]
        if "DoRA" in parts or other:
            kind = "DoRA" if "DoRA" in parts or other[0] == "use_dora" else other[0]
            raise LoadError(f"{self.name} changes {module} by {kind}, which embgeom does not merge: {_MERGE}")
        begun = self.config.get("init_lora_weights")
        if begun not in _PLAIN_INIT and SAVED_BASE not in parts:
            raise LoadError(
                f"{self.name} began with init_lora_weights={begun!r}, which changes its base: {_MERGE}"
            )
        if "embedding A" in parts and "embedding B" in parts:
            left, right = (self.file.read(parts[f"embedding {part}"]).T for part in "AB")
        elif "A" in parts and "B" in parts:
            left, right = self.file.read(parts["B"]), self.file.read(parts["A"])
        else:
            raise LoadError(f"{self.name} holds one half of the LoRA of {module}; fetch it again")
        if (len(left), right.shape[1], left.shape[1]) != (*base.shape, len(right)):
            raise self._unfit(module, f"a LoRA of {left.shape} by {right.shape} for a base of {base.shape}")
        rank = len(right)
        said = self._for_module("rank_pattern", module, self.config.get("r"))
        alpha = self._for_module("alpha_pattern", module, self.config.get("lora_alpha"))
        if said != rank or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise LoadError(
                f"{self.name}: {module} has a LoRA of rank {rank}, and {CONFIG} says r = {said!r} and "
                f"lora_alpha = {alpha!r}; fetch both again"
            )
        scale = alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        merged = base + np.float32(scale) * (left @ right)
        return merged, f"LoRA of rank {rank} of {self.name} added to {module}, times {scale:g}"

    def _for_module(self, pattern: str, module: str, default: Any) -> Any:
        """Return the value of the first pattern of a table that fits a module's name."""
        table = self.config.get(pattern)
        for key, value in table.items() if isinstance(table, dict) else ():
            try:
                if re.match(rf"(.*\.)?({key})$", module):
                    return value
            except re.error as error:
                raise LoadError(f"{self.name}: {key!r} in {pattern} is no pattern: {error}") from error
        return default

    def _with_rows(self, base: npt.NDArray[np.float32], module: str, name: str) -> npt.NDArray[np.float32]:
        indices = self.config.get("trainable_token_indices") or self.config.get("token_indices")
        if isinstance(indices, dict):
            indices = next((rows for key, rows in indices.items() if module.endswith(key)), None)
        rows = self.file.read(name)
        fits = (
            isinstance(indices, list)
            and all(type(row) is int and 0 <= row < len(base) for row in indices)
            and rows.shape == (len(indices), base.shape[1])
        )
        if not fits:
            raise self._unfit(
                module, f"rows {str(indices)[:60]} with {list(rows.shape)} numbers for {base.shape}"
            )
        changed = np.array(base)
        changed[indices] = rows
        return changed

    def _unfit(self, module: str, what: str) -> LoadError:
        base = self.config.get("base_model_name_or_path")
        return LoadError(
            f"{self.name} does not fit this base: it holds {what} at {module}; it was trained on {base}, and "
            "if rows were added there, save it with save_embedding_layers=True"
        )


_MERGE = "merge it with merge_and_unload and load the merged model"


def adapter_source(adapter: str | PathLike[str], **options: Any) -> Source:
    """Return where an adapter's files are; `revision` among the options is its base's."""
    options["revision"] = None
    return find_folder(adapter) or find_source(adapter, **options)


def adapter_within(source: Source, asked: str, file: Path | None, tensor: str | None) -> Source | None:
    """Return `source` if it holds an adapter beside the model itself, which transformers then applies."""
    if (file is not None and file.name not in _WEIGHTS) or (file is not None and tensor is not None):
        return None
    path = source.find(CONFIG)
    if path is None:
        return None
    has_model = any(source.find(name) for name in _MODELS)
    if file is not None or not has_model:
        base = read_json(path).get("base_model_name_or_path") or "BASE"
        raise LoadError(
            f"{asked} is a PEFT adapter of {base}, and its base is not here; merge it (merge_and_unload), or "
            f"name the base: load({str(base)!r}, adapter={asked!r}) (--adapter)"
        )
    return source if any(source.find(name) for name in _WEIGHTS) else None


def tokenizer_source(base: Source, adapter: Source | None) -> Source:
    """Return the adapter's files where they hold a tokenizer, which may have tokens that the base has not."""
    return adapter if adapter and any(adapter.find(name) for name in _TOKENIZERS) else base
