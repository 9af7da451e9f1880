"""The formats of vector files: safetensors, PyTorch, NumPy, and GGUF, the control vectors of llama.cpp.

A GGUF control vector holds one-dimensional tensors ``direction.<i>``, i >= 1. llama.cpp adds ``direction.i``
to the output of its layer i, counted from 0: ``common_control_vector_load`` keeps it at index i - 1 of a
buffer, and ``llama_adapter_cvec::apply`` takes the tensor of layer i from index i - 1. So i is a layer's
number as it is everywhere in embgeom, and layer 0 is never steered. repeng means the same. Since every reader
adds what is called ``direction``, directions for another operation bear its name instead.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom._common.writing import save_tensors
from embgeom.errors import InputError, LoadError
from embgeom.loading.checkpoint.torch_file import check_sum, load_torch
from embgeom.loading.folder import LocalFile, parse_json
from embgeom.loading.gguf.file import GGUFFile
from embgeom.loading.matrix_files.array_file import ArrayFile
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.steering.directions import Direction, Directions
from embgeom.steering.foreign_files import names_a_scale
from embgeom.steering.operations import Intervention

# More than a direction for each of 1,000 layers of the widest models: what is larger is a model.
_MOST_NUMBERS = 1 << 25
_MOST_BYTES = 1 << 28
_KEY = "embgeom"
CONTROL_VECTOR = "controlvector"
_GGUF_KNOWN = (
    "general.architecture", "general.alignment",
    f"{CONTROL_VECTOR}.model_hint", f"{CONTROL_VECTOR}.layer_count",
)  # fmt: skip
_GGUF_NAME = re.compile(r"direction\.(\d{1,6})", re.ASCII)
_GGUF_STORED = ("F32", "F16", "BF16")
# Where the directions are in .pt files that say more than them: ours, and those of steering-vectors.
_PT_WRAPPERS = ("directions", "layer_activations")


class Content(NamedTuple):
    """What a file holds: embgeom's own header, the tensors by name, and what else the file says of them."""

    header: dict[str, str]
    tensors: Mapping[Any, Direction]
    facts: Mapping[str, object]


def _by_name(header: dict[str, str], directions: Directions) -> dict[str, Direction]:
    name = header.get("operation", "direction")
    return {f"{name}.{layer}": direction for layer, direction in directions.items()}


def write_safetensors(path: Path, header: dict[str, str], directions: Directions) -> None:
    # The library writes entries of metadata in an order that differs from run to run, so there is only one.
    save_tensors(_by_name(header, directions), path, {_KEY: json.dumps(header)})


def read_safetensors(path: Path) -> Content:
    file = SafetensorsFile(path)
    _check_size({name: file.shape(name) for name in file.names}, path)
    header = _header(file.metadata.get(_KEY, "{}"), path)
    facts = {key: note for key, note in file.metadata.items() if key != _KEY}
    return Content(header, {name: file.read(name) for name in file.names}, facts)


def write_npz(path: Path, header: dict[str, str], directions: Directions) -> None:
    arrays: dict[str, Any] = {_KEY: np.array(json.dumps(header)), **_by_name(header, directions)}
    with path.open("wb") as stream:
        np.savez(stream, **arrays)


def read_arrays(path: Path) -> Content:
    """Return the arrays of a .npz by name, or the one of a .npy; scalars are facts or our header."""
    file = ArrayFile(path)
    if file.bytes > _MOST_BYTES:
        raise LoadError(f"{path} unpacks to {file.bytes} bytes, too many for a steering vector")
    arrays = {name: file.read(name) for name in file.names}
    facts = {name: array.item() for name, array in arrays.items() if array.ndim == 0}
    vectors = {name: array for name, array in arrays.items() if name not in facts}
    _check_size({name: array.shape for name, array in vectors.items()}, path)
    for name, array in vectors.items():
        if array.dtype.kind != "f":
            raise LoadError(
                f"{name!r} in {path} is {array.dtype}; a direction is an array of floating-point numbers"
            )
    with np.errstate(over="ignore"):
        tensors = {name: array.astype(np.float32) for name, array in vectors.items()}
    return Content(_header(facts.pop(_KEY, "{}"), path), tensors, facts)


def _header(text: object, path: Path) -> dict[str, str]:
    """Return embgeom's own header, strings by name, that a file holds as JSON."""
    held = parse_json(str(text).encode("utf-8", "surrogatepass"), f"the header in {path}")
    return {k: v for k, v in held.items() if isinstance(v, str)} if isinstance(held, dict) else {}


def write_gguf(path: Path, header: dict[str, str], directions: Directions) -> None:
    """Write the keys and tensors that llama.cpp and repeng expect, and the header under keys of its own."""
    if "operation" in header:
        raise InputError(
            f"the vector's operation is {header['operation']!r}, and llama.cpp, whose format .gguf is, adds "
            "every direction; take .safetensors or .pt"
        )
    if 0 in directions:
        others = [layer for layer in directions if layer]
        way = f"write the others, vector.select_layers({others}).save(...), or " if others else ""
        what = (
            "the vector has a direction for layer 0, which llama.cpp, whose format .gguf is, never steers; "
        )
        raise InputError(f"{what}{way}take .safetensors or .pt", command=f"{what}take .safetensors or .pt")
    gguf = need("gguf", f"{path}, a GGUF file,", or_else="; or take .safetensors")
    writer = gguf.GGUFWriter(path, CONTROL_VECTOR)
    try:
        writer.add_string(f"{CONTROL_VECTOR}.model_hint", header["model"])
        writer.add_uint32(f"{CONTROL_VECTOR}.layer_count", len(directions))
        for key, value in header.items():
            writer.add_string(f"{_KEY}.{key}", value)
        for layer, direction in directions.items():
            writer.add_tensor(f"direction.{layer}", direction)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read_gguf(path: Path) -> Content:
    def accept(architecture: str) -> None:
        if architecture != CONTROL_VECTOR:
            raise LoadError(
                f"{path} is a GGUF file of the architecture {architecture!r}, not a control vector "
                f"({CONTROL_VECTOR!r}); name the file of the vector, not that of the model"
            )

    file = GGUFFile(path, accept)
    accept(file.text("general.architecture") or "")
    ours = f"{_KEY}."
    header = {key.removeprefix(ours): file.text(key) or "" for key in file.keys if key.startswith(ours)}
    header.setdefault("model", file.text(f"{CONTROL_VECTOR}.model_hint") or "")
    others = [key for key in file.keys if key not in _GGUF_KNOWN and not key.startswith(ours)]
    facts = {key: "an array" if (value := file.scalar(key)) is None else value for key in others}
    _check_size({name: file.shape(name) for name in file.names}, path)
    for name in file.names:
        found = _GGUF_NAME.fullmatch(name)
        if found is None or int(found[1]) == 0:
            raise LoadError(
                f"{path} holds the tensor {name!r}; those of a control vector are named direction.<layer>, "
                "with layers from 1 on"
            )
        if len(file.shape(name)) != 1:
            raise LoadError(f"{name} in {path} has {len(file.shape(name))} dimensions; a direction has one")
        if (stored := file.dtype(name)) not in _GGUF_STORED:
            raise LoadError(f"{name} in {path} is stored as {stored}; {', '.join(_GGUF_STORED)} are read")
    return Content(header, {name: file.read(name) for name in file.names}, facts)


def write_pt(path: Path, header: dict[str, str], directions: Directions) -> None:
    """Write ``{"directions": {layer: tensor}, ...}``, the rest of it the header."""
    torch = need("torch", f"{path}, a PyTorch file,", or_else="; or take .safetensors")
    tensors = {layer: torch.tensor(direction) for layer, direction in directions.items()}
    # Written straight to a file, the archive would bear that file's temporary name inside.
    stream = io.BytesIO()
    torch.save({**header, header.get("operation", "directions"): tensors}, stream)
    path.write_bytes(stream.getvalue())


def write_steered(path: Path, intervention: Intervention, directions: Directions, hookpoints: str) -> None:
    """Write what lm-evaluation-harness's model ``steered`` reads: an action for each hooked module."""
    torch = need("torch", f"{path}, a PyTorch file,")
    if path.suffix != ".pt":
        raise InputError(f"lm-evaluation-harness reads {path.name} only as a .pt; name one")
    if not isinstance(hookpoints, str) or hookpoints.count("{}") != 1:
        raise InputError(f'hookpoints = {hookpoints!r:.60} must hold {{}} once, as "layers.{{}}" does')
    if isinstance(intervention.value, tuple):
        raise InputError("lm-evaluation-harness sets a coordinate by its clamp, and keeps none between two")
    action = "add" if intervention.operation == "add" else "clamp"
    held = {
        hookpoints.replace("{}", str(layer)): {
            "steering_vector": torch.tensor(direction),
            # The coordinate along the direction of length 1.
            "steering_coefficient": 1.0
            if action == "add"
            else (intervention.value or 0.0) * float(np.linalg.norm(direction.astype(np.float64))),
            "action": action,
            "bias": None,
            "head_index": None,
        }
        for layer, direction in directions.items()
    }
    stream = io.BytesIO()
    torch.save(held, stream)
    path.write_bytes(stream.getvalue())


def read_pt(path: Path) -> Content:
    """Return the header, the tensors by name, and what stands beside them; a lone tensor is ``"tensor"``."""
    torch, file = need("torch", f"{path}, a PyTorch file,", or_else="; or take .safetensors"), LocalFile(path)
    held = load_torch(file, mapped=False)
    if isinstance(held, torch.Tensor):
        held = {"tensor": held}
    if not isinstance(held, Mapping):
        raise LoadError(f"{path} holds a {type(held).__name__}; a table {{layer: tensor}} is looked for")
    facts = {key: value for key, value in held.items() if _is_fact(key, value)}
    header = {key: value for key, value in facts.items() if isinstance(value, str)}
    if (kind := header.get("layer_type", "decoder_block")) != "decoder_block":
        raise LoadError(
            f"{path} is for the outputs of layers of type {kind!r}; only directions for whole layers "
            "('decoder_block') are steering vectors here"
        )
    wrappers = (*_PT_WRAPPERS, header.get("operation"))
    tensors = next((held[name] for name in wrappers if name in held), None)
    if tensors is None:
        tensors = {key: value for key, value in held.items() if key not in facts}
    if not isinstance(tensors, Mapping):
        raise LoadError(f"{path} holds its directions as a {type(tensors).__name__}, not {{layer: tensor}}")
    for name, tensor in tensors.items():
        _check_tensor(tensor, name, path)
    _check_size({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path)
    for name, tensor in tensors.items():
        check_sum(tensor, f"{name!r} in {path}", file)
    return Content(header, {name: _array(tensor, name, path) for name, tensor in tensors.items()}, facts)


def _is_fact(key: Any, value: Any) -> bool:
    """Return whether a value beside the tensors says something of them; a number alone says nothing sure."""
    is_number = isinstance(value, int | float)
    return isinstance(key, str) and (isinstance(value, str) or (is_number and names_a_scale(key)))


def _check_tensor(tensor: Any, name: Any, path: Path) -> None:
    import torch

    where = f"{name!r} in {path}"
    if isinstance(tensor, int | float):
        raise LoadError(
            f"{path} holds {name!r} = {tensor!r} beside its tensors, and embgeom does not know what that "
            "means for them; save the tensors alone, torch.save({layer: tensor}, path)"
        )
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        what = str(tensor.dtype) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise LoadError(f"{where} is {what}; a direction is a tensor of floating-point numbers")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise LoadError(f"{where} is not a plain tensor, but nested or sparse; save its values alone")


def _array(tensor: Any, name: Any, path: Path) -> npt.NDArray[np.float32]:
    try:
        array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise LoadError(f"{name!r} in {path} is not a plain tensor: {error}") from error
    if not array.any() and bool(tensor.any()):
        raise LoadError(f"{name!r} in {path} is too small for float32, and would be 0")
    return array


def _check_size(shapes: Mapping[Any, tuple[int, ...]], file: Path) -> None:
    """Refuse, before they are read, tensors that are together too large for a steering vector."""
    numbers = sum(map(prod, shapes.values()))
    if numbers > _MOST_NUMBERS:
        largest = max(shapes, key=lambda name: prod(shapes[name]))
        raise LoadError(
            f"{file} holds {numbers} numbers, {largest!r:.60} of shape {tuple(shapes[largest])} among them; "
            "a steering vector is one row for each layer: name the file of the vector, not that of a model"
        )


WRITERS: dict[str, Callable[[Path, dict[str, str], Directions], None]] = {
    ".safetensors": write_safetensors,
    ".pt": write_pt,
    ".npz": write_npz,
    ".gguf": write_gguf,
}
READERS: dict[str, Callable[[Path], Content]] = {
    ".safetensors": read_safetensors,
    ".pt": read_pt,
    ".gguf": read_gguf,
    ".npy": read_arrays,
    ".npz": read_arrays,
}
