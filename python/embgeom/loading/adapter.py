"""A PEFT adapter on disk, and what it makes of its base's embedding, output matrix and final norm.

A module that an adapter knows is named as in the running model, and a tensor of the base as in its file, so
the two are brought together by the last part of their names. What is known of adapters: a whole copy
(``modules_to_save``), the base's own matrix as it was when it was saved, LoRA, and replaced rows (trainable
tokens). Whatever else touches the matrix is refused by its name.
"""

from __future__ import annotations

import math
import re
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from embgeom._common.arrays import Float32Matrix
from embgeom.errors import LoadError
from embgeom.loading.architectures import LEAVES, USUAL, WHOLE_NAMES
from embgeom.loading.checkpoint.checkpoint import open_file
from embgeom.loading.folder import read_json
from embgeom.loading.source import Source, find_folder, find_source

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MODELS = tuple(f"{name}{end}" for end in ("", ".index.json")
                for name in ("model.safetensors", "pytorch_model.bin"))  # fmt: skip
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_OF_LAYERS = re.compile(r"\.\d+\.")
_PREFIX = "base_model.model."
_WHOLE, _SAVED_BASE, _ROWS = "whole", "base", "rows"
# The end of a tensor's name after its module -> what it is to it; "" for what has no effect on its weight. An
# adapter's own name may stand in it.
_PARTS = {
    r"modules_to_save(\.\w+)?\.weight": _WHOLE,
    r"base_layer\.weight": _SAVED_BASE,
    r"(token_adapter\.)?trainable_tokens_delta(\.\w+)?": _ROWS,
    r"lora_embedding_A(\.\w+)?": "embedding A",
    r"lora_embedding_B(\.\w+)?": "embedding B",
    r"lora_A(\.\w+)?\.weight": "A",
    r"lora_B(\.\w+)?\.weight": "B",
    r"lora_magnitude_vector(\.\w+)*": "DoRA",
    r"weight": _WHOLE,
    r"(\w+\.)*bias|original_module\..*|(token_adapter\.)?trainable_tokens_original.*": "",
}
_SIDES = {side: {name.rpartition(".")[2] for name in (*USUAL[side], *WHOLE_NAMES[side])} for side in USUAL}
_SIDES["output"].add("unembed")
# Adapters that are not base + scaled B A, and those for which the base was changed when they began.
_OTHER_LORA = ("use_dora", "use_qalora", "alora_invocation_tokens", "arrow_config", "use_bdlora",
               "kasa_config", "monteclora_config", "velora_config")  # fmt: skip
_PLAIN_INIT = (None, True, False, "gaussian", "eva", "orthogonal")


class Adapter:
    """An adapter that has been opened: its name, its configuration and its tensors."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        path = source.find(CONFIG)
        weights = next((found for name in _WEIGHTS if (found := source.find(name))), None)
        if path is None or weights is None:
            missing = CONFIG if path is None else " or ".join(_WEIGHTS)
            raise LoadError(f"{self.name} is not a PEFT adapter: it holds no {missing}")
        self.config, self.file = read_json(path), open_file(weights)
        # The modules outside of the model's layers that it changes: module -> (tensor, what it is to it).
        self._modules: dict[str, list[tuple[str, str | None]]] = {}
        for name in self.file.names:
            if not _OF_LAYERS.search(name):
                module, part = _split_name(name)
                self._modules.setdefault(module, []).append((name, part))

    def matrix(
        self, base: Float32Matrix, tensor: str, which: str, tied: bool
    ) -> tuple[Float32Matrix, bool, tuple[str, ...]]:
        """Return a base's matrix of one side under this adapter, whether it is still tied, and what was done.

        An adapter of one side of a tied base leaves the other as it is, unless it replaces rows, or says that
        it keeps the tie. Where it changes nothing, `base` itself is returned, and no notes.
        """
        module, other = self._find(base, tensor, which, tied)
        done: list[str] = []
        columns = base.shape[1]

        def replace_by(name: str) -> Float32Matrix:
            done.append(f"{name} of {self.name} in place of {tensor}")
            return self.file.read(name)

        if tied and other and (name := self._parts(other).get(_SAVED_BASE)):
            # One matrix of the base lies under both sides, and the adapter brings it along.
            base = replace_by(name)
        tied_base, tied = tied, tied and self._keeps_tie(module, other)
        module = module or (other if tied else None)
        if module is None:
            return base, tied, tuple(done)
        parts = self._parts(module)
        if tied_base and other and _ROWS in self._parts(other) and _ROWS not in parts:
            raise self._unmerged(f"changes {module}, and replaces rows of the base's tied matrix by {other}")
        done.append(f"the adapter {self.name} was trained on {self.config.get('base_model_name_or_path')}")
        if name := parts.get(_WHOLE) or parts.get(_SAVED_BASE):
            base = replace_by(name)
        if {"A", "B", "embedding A", "embedding B", "DoRA"} & parts.keys():
            base, how = self._with_lora(base, module, parts)
            done.append(how)
        if name := parts.get(_ROWS):
            base = self._with_rows(base, module, name)
            done.append(f"rows of {self.name}, {name}, in place of those of {tensor}")
        if base.ndim != 2 or base.shape[1] != columns:
            raise self._unfit(module, f"a tensor of shape {list(base.shape)}, not of {columns} columns,")
        return base, tied, tuple(done)

    def vector(self, tensor: str) -> Float32Matrix | None:
        """Return the adapter's copy of a norm's weight, by its name in the base's file, or None."""
        norm = tensor.split(".")[-2]
        for module in (m for m in self._modules if norm in m.split(".")):
            parts = self._parts(module)
            if module.split(".")[-1] != norm or parts.keys() - {_WHOLE}:
                raise self._unmerged(f"changes {module}, a norm, which embgeom does not merge")
            if _WHOLE in parts:
                return self.file.read(parts[_WHOLE])
        return None

    def _find(
        self, base: Float32Matrix, tensor: str, which: str, tied: bool
    ) -> tuple[str | None, str | None]:
        """Return the modules of the adapter that change the matrix of a side, and that of the other."""
        other_side = "output" if which == "input" else "input"
        known = {which: set(_SIDES[which]), other_side: set(_SIDES[other_side])}
        stored = tensor.split(".")[-2] if "." in tensor else tensor
        if not tied or stored not in known[other_side]:
            known[which].add(stored)
            known[other_side].discard(stored)
        sides: dict[str, list[str]] = {which: [], other_side: []}
        for module, tensors in self._modules.items():
            side = next((s for s in sides if module.split(".")[-1] in known[s]), None)
            if side:
                sides[side].append(module)
                continue
            for name, _ in tensors:
                if len(base) in self.file.shape(name) or stored in name.split("."):
                    raise self._unmerged(
                        f"({self.config.get('peft_type')}) holds {name}, which may change the {which} matrix "
                        "in a way that embgeom does not know"
                    )
        for found in sides.values():
            if len(found) > 1:
                raise self._unmerged(f"changes {' and '.join(found)}, and embgeom cannot tell which counts")
        chosen, other = (next(iter(found), None) for found in sides.values())
        return chosen, other

    def _keeps_tie(self, chosen: str | None, other: str | None) -> bool:
        """Return whether both sides of a tied base stay one: rows are replaced in both at once."""
        changed = [module for module in (chosen, other) if module is not None]
        kept = self.config.get("ensure_weight_tying") is True
        return kept or not changed or (len(changed) == 1 and self._parts(changed[0]).keys() == {_ROWS})

    def _parts(self, module: str) -> dict[str, str]:
        """Return what the adapter holds of a module: part -> the tensor's name; unknown parts are refused."""
        for name, part in self._modules[module]:
            if part is None:
                raise self._unmerged(
                    f"changes {module} by {name}, of the kind {self.config.get('peft_type')}, and embgeom "
                    "merges LoRA, modules_to_save and trainable tokens alone"
                )
        return {part: name for name, part in self._modules[module] if part}

    def _with_lora(
        self, base: Float32Matrix, module: str, parts: dict[str, str]
    ) -> tuple[Float32Matrix, str]:
        other = [key for key in _OTHER_LORA if self.config.get(key)]
        if "DoRA" in parts or other:
            kind = "DoRA" if "DoRA" in parts or other[0] == "use_dora" else other[0]
            raise self._unmerged(f"changes {module} by {kind}, which embgeom does not merge")
        begun = self.config.get("init_lora_weights")
        if begun not in _PLAIN_INIT and _SAVED_BASE not in parts:
            raise self._unmerged(f"began with init_lora_weights={begun!r}, which changes its base")
        if {"embedding A", "embedding B"} <= parts.keys():
            left, right = (self.file.read(parts[f"embedding {part}"]).T for part in "AB")
        elif {"A", "B"} <= parts.keys():
            left, right = (self.file.read(parts[part]) for part in "BA")
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
        table = self.config.get(pattern)
        for key, value in table.items() if isinstance(table, dict) else ():
            try:
                if re.match(rf"(.*\.)?({key})$", module):
                    return value
            except re.error as error:
                raise LoadError(f"{self.name}: {key!r} in {pattern} is not a pattern: {error}") from error
        return default

    def _with_rows(self, base: Float32Matrix, module: str, name: str) -> Float32Matrix:
        indices = self.config.get("trainable_token_indices") or self.config.get("token_indices")
        if isinstance(indices, dict):
            indices = next((rows for key, rows in indices.items() if module.endswith(key)), None)
        rows = self.file.read(name)
        listed: list[Any] = indices if isinstance(indices, list) else [None]
        valid = all(type(row) is int and 0 <= row < len(base) for row in listed)
        if not valid or rows.shape != (len(listed), base.shape[1]):
            raise self._unfit(
                module, f"rows {str(indices)[:60]} with {list(rows.shape)} numbers for {base.shape}"
            )
        changed = np.array(base)
        changed[listed] = rows
        return changed

    def _unmerged(self, why: str) -> LoadError:
        return LoadError(f"{self.name} {why}: merge it with merge_and_unload and load the merged model")

    def _unfit(self, module: str, what: str) -> LoadError:
        base = self.config.get("base_model_name_or_path")
        return LoadError(
            f"{self.name} does not fit this base: it holds {what} at {module}; it was trained on {base}, and "
            "if rows were added there, save it with save_embedding_layers=True"
        )


def _split_name(name: str) -> tuple[str, str | None]:
    """Return the module that a tensor of an adapter changes, and what it is to it; None if not known."""
    words = name.removeprefix(_PREFIX).split(".")
    # A layer of the base has no module inside: what follows its name is the adapter's.
    inside = next((i + 1 for i, word in enumerate(words) if word in LEAVES), None)
    for pattern, part in _PARTS.items():
        match = re.fullmatch(rf"(?P<module>.+?)\.(?:{pattern})", ".".join(words))
        if match and (inside is None or match["module"].count(".") < inside):
            return match["module"], part
    return ".".join(words[:inside] if inside else words[:-1] or words), None


def adapter_source(adapter: str | PathLike[str], **options: Any) -> Source:
    """Return where an adapter's files are; `revision` among the options is its base's."""
    return find_folder(adapter) or find_source(adapter, **options | {"revision": None})


def adapter_within(source: Source, asked: str, file: Path | None, tensor: str | None) -> Source | None:
    """Return `source` if it holds an adapter beside the model itself, which transformers then applies.

    The model may have been asked for by a `file` of it, and a `tensor`; an adapter alone is an error.
    """
    if file is not None and (file.name not in _WEIGHTS or tensor is not None):
        return None
    if (path := source.find(CONFIG)) is None:
        return None
    if file is not None or not any(map(source.find, _MODELS)):
        base = read_json(path).get("base_model_name_or_path") or "BASE"
        raise LoadError(
            f"{asked} is a PEFT adapter of {base}, and its base is not here; merge it (merge_and_unload), or "
            f"name the base: load({str(base)!r}, adapter={asked!r}) (--adapter)"
        )
    return source if any(map(source.find, _WEIGHTS)) else None


def tokenizer_source(base: Source, adapter: Source | None) -> Source:
    """Return the adapter's files where they hold a tokenizer, which may have tokens that the base has not."""
    return adapter if adapter and any(map(adapter.find, _TOKENIZERS)) else base
