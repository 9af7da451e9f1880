"""The formats of vector files: safetensors, PyTorch, NumPy, and GGUF, the control vectors of llama.cpp.

A GGUF control vector holds one-dimensional tensors ``direction.<i>``, i >= 1. llama.cpp adds ``direction.i``
to the output of its layer i, counted from 0: ``common_control_vector_load`` keeps it at index i - 1 of a
buffer, and ``llama_adapter_cvec::apply`` takes the tensor of layer i from index i - 1. So i is a layer's
number as it is everywhere in embgeom, and layer 0 is never steered. repeng means the same.

And what files of other tools say of their directions' use, and of the layer of one that stands alone.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom._common.writing import save_tensors
from embgeom.errors import EmbgeomWarning, InputError, LoadError
from embgeom.loading.checkpoint.torch_file import check_sum, load_torch
from embgeom.loading.folder import LocalFile, parse_json, read_bytes
from embgeom.loading.gguf.file import GGUFFile
from embgeom.loading.matrix_files.array_file import ArrayFile
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.steering.directions import Direction, Directions

# A direction is added to the residual stream as it is. A file of another tool may say that it is to be
# projected out, or multiplied first, or added elsewhere; to ignore that would steer by something that nobody
# meant.
_OPERATION = frozenset((
    "mode", "operation", "operator", "op", "action", "intervention", "application", "apply", "kind", "type",
    "method", "function", "func", "fn", "steering",
))  # fmt: skip
_PLACE = frozenset(("hook", "hookpoint", "site", "location", "component", "stream", "module"))
_SCALE = frozenset((
    "scale", "scaling", "coefficient", "coefficients", "coeff", "coef", "strength", "multiplier", "factor",
    "gain", "alpha", "intensity", "weight", "scales", "weights", "factors",
))  # fmt: skip
# How a vector was found is often called its type or method, which says nothing of its use.
_OF_USE = _PLACE | _OPERATION - {"type", "method", "kind", "steering"}
# Words of operations other than addition, by how they begin.
_NOT_ADDED = re.compile(
    r"\b(project|proj\b|ablat|ortho|erase|erasure|remov|null(ify|space)|subtract|clamp|clip\b|replac|rotat"
    r"|multipl|affine|reflect|mirror|overwrit|leace|inlp)",
    re.IGNORECASE,
)
_ADDED = re.compile(
    r"\b(add|sum\b|plus\b|actadd|caa\b|resid(ual)?(_?stream)?(_?post)?\b|decoder_?block|block_?output|output\b"
    r"|steer|control)",
    re.IGNORECASE,
)
_YES = ("1", "1.0", "true", "yes", "on")
_NO = ("", "0", "false", "no", "none", "null", "off")
_MOST_METADATA = 1 << 16
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


def write_safetensors(path: Path, header: dict[str, str], directions: Directions) -> None:
    # The library writes entries of metadata in an order that differs from run to run, so there is only one.
    tensors = {f"direction.{layer}": direction for layer, direction in directions.items()}
    save_tensors(tensors, path, {_KEY: json.dumps(header)})


def read_safetensors(path: Path) -> Content:
    file = SafetensorsFile(path)
    _check_size({name: file.shape(name) for name in file.names}, path)
    text = file.metadata.get(_KEY, "{}").encode("utf-8", "surrogatepass")
    held = parse_json(text, f"the header in {path}")
    header = {k: v for k, v in held.items() if isinstance(v, str)} if isinstance(held, dict) else {}
    facts = {key: note for key, note in file.metadata.items() if key != _KEY}
    return Content(header, {name: file.read(name) for name in file.names}, facts)


def read_arrays(path: Path) -> Content:
    """Return the arrays of a .npz by name, or the one of a .npy; scalars are facts."""
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
        return Content({}, {name: array.astype(np.float32) for name, array in vectors.items()}, facts)


def write_gguf(path: Path, header: dict[str, str], directions: Directions) -> None:
    """Write the keys and tensors that llama.cpp and repeng expect, and the header under keys of its own."""
    if 0 in directions:
        others = [layer for layer in directions if layer]
        way = f"write the others, vector.select_layers({others}).save(...), or " if others else ""
        raise InputError(
            "the vector has a direction for layer 0, and llama.cpp, whose format .gguf is, never steers its "
            f"layer 0; {way}take .safetensors or .pt"
        )
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
    torch.save({**header, "directions": tensors}, stream)
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
    tensors = next((held[name] for name in _PT_WRAPPERS if name in held), None)
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
    return isinstance(key, str) and (isinstance(value, str) or (is_number and bool(_words(key) & _SCALE)))


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
    ".gguf": write_gguf,
}
READERS: dict[str, Callable[[Path], Content]] = {
    ".safetensors": read_safetensors,
    ".pt": read_pt,
    ".gguf": read_gguf,
    ".npy": read_arrays,
    ".npz": read_arrays,
}


def check_declared(facts: Mapping[str, object], file: Path, owned: str) -> None:
    """Refuse or warn of what a file says of its directions that adding them as they are would not obey.

    An operation that is not addition is refused; a factor other than 1, and another place or operation that
    is not known, is a warning, as is any key that begins with `owned`, which is about a vector's use alone.
    """
    for key, value in facts.items():
        said, words, text = f"{file} says {key} = {value!r:.60}", _words(key), str(value).strip().lower()
        of_scale, is_text = bool(words & _SCALE), isinstance(value, str)
        other = is_text and words & _OPERATION and _NOT_ADDED.search(text.replace("_", " "))
        # A key that is true, such as ``ablate``.
        if other or (text in _YES and not of_scale and any(map(_NOT_ADDED.match, words))):
            raise LoadError(
                f"{said}, and a steering vector is added to the residual stream; a direction that is meant "
                "otherwise is not read as one"
            )
        factor = None
        if of_scale and isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError):
                factor = float(value)
        unclear = of_scale or (words & _OF_USE and not _ADDED.search(text))
        if factor not in (None, 1.0):
            problem = f"which is not applied: multiply the loaded vector by it, {factor:g} * vector"
        elif factor is None and (key.startswith(owned) or (is_text and text not in _NO and unclear)):
            problem = (
                "which embgeom does not obey: its directions are added, as they are, to the outputs of the "
                "layers that they name"
            )
        else:
            continue
        warnings.warn(f"{said}, {problem}", EmbgeomWarning, stacklevel=4)


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))


def lone_layer(file: Path, tensor: npt.NDArray[np.float32], layer: int | None) -> int:
    """Return the layer of the only tensor of a file, as the caller says it; a file beside it may object."""
    if tensor.ndim > 1 and (rows := tensor.size // max(1, tensor.shape[-1])) != 1:
        wanted = "row i for layer i - 1" if layer is None else f"row {layer + 1} for layer {layer}"
        counted = "row i for layer i" if layer is None else f"row {layer}"
        raise LoadError(
            f"{file} holds one tensor of shape {tensor.shape}, and does not say of which layer each of its "
            f"{rows} rows is. Of layers + 1 rows, as persona vectors have, row 0 is the output of the "
            f"embeddings: take {wanted}. Of one row for each layer take {counted}. Save it by itself, "
            "torch.save({layer: row}, path)"
        )
    stated, meaning = _stated_layer(file.with_name(f"{file.stem}_metadata.json"))
    if layer is None:
        raise LoadError(
            f"{file} holds one direction"
            + (f"; {meaning}" if meaning else " and does not say of which layer; pass layer=")
        )
    if layer == stated:
        warnings.warn(f"{file} is read for layer {layer}; {meaning}", EmbgeomWarning, stacklevel=5)
    return layer


def _stated_layer(metadata: Path) -> tuple[int | None, str]:
    """Return the layer that ``direction_metadata.json`` names, and what it says by that."""
    try:
        small = metadata.is_file() and metadata.stat().st_size <= _MOST_METADATA
        found = parse_json(read_bytes(metadata), str(metadata)) if small else None
    except (OSError, LoadError):
        found = None
    held = found if isinstance(found, dict) else {}
    layer = held.get("layer")
    if type(layer) is not int or layer < 0:
        return None, ""
    before = (
        f"the output of layer {layer - 1}" if layer else "the output of the embeddings, which is no layer's"
    )
    says = f"{metadata.name} beside it says layer {layer}, and"
    # With the position of the token beside it, it is written by the code for refusal directions.
    if "pos" in held:
        way = f": pass layer={layer - 1}" if layer else ""
        return layer, f"{says} in files of this kind that is the *input* of the layer, {before}{way}"
    return layer, (
        f"{says} not whether its input or its output is meant: code for refusal directions means the "
        f"*input*, {before}; pass layer="
    )
