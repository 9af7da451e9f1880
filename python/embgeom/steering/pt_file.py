"""Steering vectors as PyTorch files: a plain dict of tensors and strings."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.optional import need
from embgeom.errors import LoadError, first_line
from embgeom.loading.checkpoint.torch_file import check_sum
from embgeom.loading.folder import LocalFile
from embgeom.steering.content import Content, check_size
from embgeom.steering.declared import names_factor

# Where the directions are, in files that say more than them: ours, and those of steering-vectors.
_WRAPPERS = ("directions", "layer_activations")
_ADDED_TO_LAYERS = "decoder_block"


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write ``{"directions": {layer: tensor}, ...}``, the rest of it the header.

    Raises
    ------
    InputError
        If torch is not installed.
    """
    torch = _torch(path)
    tensors = {layer: torch.tensor(direction) for layer, direction in directions.items()}
    # Written straight to a file, the archive would bear that file's temporary name inside.
    stream = io.BytesIO()
    torch.save({**header, "directions": tensors}, stream)
    path.write_bytes(stream.getvalue())


def read(path: Path) -> Content:
    """Return the header, the tensors by name, and what stands beside them; a lone tensor is ``"tensor"``.

    Raises
    ------
    LoadError
        If the file is no PyTorch file, holds anything but tensors and plain values, or is too large for a
        vector.
    InputError
        If torch is not installed.
    """
    torch, file = _torch(path), LocalFile(path)
    content = _load(file)
    if isinstance(content, torch.Tensor):
        content = {"tensor": content}
    if not isinstance(content, Mapping):
        raise LoadError(f"{path} holds a {type(content).__name__}; a table {{layer: tensor}} is looked for")
    facts = {key: value for key, value in content.items() if _is_fact(key, value)}
    header = {key: value for key, value in facts.items() if isinstance(value, str)}
    _check_layer_type(header, path)
    tensors = next((content[name] for name in _WRAPPERS if name in content), None)
    if tensors is None:
        tensors = {key: value for key, value in content.items() if key not in facts}
    if isinstance(tensors, torch.Tensor):
        tensors = {"tensor": tensors}
    if not isinstance(tensors, Mapping):
        raise LoadError(f"{path} holds its directions as a {type(tensors).__name__}, not {{layer: tensor}}")
    for name, tensor in tensors.items():
        _check_tensor(tensor, name, path)
    check_size({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path)
    for name, tensor in tensors.items():
        check_sum(tensor, f"{name!r} in {path}", file)
    return Content(header, {name: _array(tensor, name, path) for name, tensor in tensors.items()}, facts)


def _is_fact(key: Any, value: Any) -> bool:
    """Return whether a value beside the tensors says something of them; a number alone says nothing sure."""
    return isinstance(key, str) and (isinstance(value, str) or (names_factor(key) and _is_number(value)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _torch(path: Path) -> Any:
    return need("torch", f"{path}, a PyTorch file,", or_else="; or take .safetensors")


def _load(file: LocalFile) -> Any:
    import torch

    path = file.path
    try:
        with file.stream() as stream, warnings.catch_warnings():
            # Of files by other picklers torch says that it may not read them; then an error says so.
            warnings.simplefilter("ignore")
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise LoadError(
            f"{path} is damaged, or holds objects that run code when they are loaded, so it was not loaded. "
            "If you trust it, load it with the library that wrote it and save its tensors by "
            "torch.save({layer: tensor}, path)"
        ) from error
    except Exception as error:
        # torch.load raises what its unpickler, its zip reader or the system raises, and documents none of it.
        raise LoadError(
            f"{path} cannot be read as a PyTorch file ({type(error).__name__}: "
            f"{first_line(error)}); fetch it again"
        ) from error


def _check_layer_type(header: dict[str, str], path: Path) -> None:
    kind = header.get("layer_type", _ADDED_TO_LAYERS)
    if kind != _ADDED_TO_LAYERS:
        raise LoadError(
            f"{path} is for the outputs of layers of type {kind!r}; only directions for whole layers "
            f"({_ADDED_TO_LAYERS!r}) are steering vectors here"
        )


def _check_tensor(tensor: Any, name: Any, path: Path) -> None:
    import torch

    if _is_number(tensor):
        raise LoadError(
            f"{path} holds {name!r} = {tensor!r} beside its tensors, and embgeom does not know what that "
            "means for them; save the tensors alone, torch.save({layer: tensor}, path)"
        )
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        what = str(tensor.dtype) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise LoadError(f"{name!r} in {path} is {what}; a direction is a tensor of floating-point numbers")
    if tensor.is_nested or tensor.layout != torch.strided:
        raise LoadError(f"{name!r} in {path} is no plain tensor, but nested or sparse; save its values alone")


def _array(tensor: Any, name: Any, path: Path) -> npt.NDArray[np.float32]:
    try:
        array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise LoadError(f"{name!r} in {path} is no plain tensor: {error}") from error
    if not array.any() and bool(tensor.any()):
        raise LoadError(f"{name!r} in {path} is too small for float32, and would be 0")
    return array
