"""Steering vectors as GGUF files: the control vectors of llama.cpp.

Such a file holds one-dimensional tensors ``direction.<i>``, i >= 1. llama.cpp adds ``direction.i`` to the
output of its layer i, counted from 0: ``common_control_vector_load`` keeps it at place i - 1 of a buffer, and
``llama_adapter_cvec::apply`` takes the tensor of layer i from place i - 1. So i is a layer's number as it is
everywhere in embgeom, and layer 0 is never steered. repeng means the same.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.optional import need
from embgeom.errors import InputError, LoadError
from embgeom.loading.gguf.file import GGUFFile
from embgeom.steering.content import Content, check_size

_ARCHITECTURE = "controlvector"
OWNED = f"{_ARCHITECTURE}."
_KNOWN = (
    "general.architecture", "general.alignment", f"{OWNED}model_hint", f"{OWNED}layer_count",
)  # fmt: skip
_STORED = ("F32", "F16", "BF16")
_OURS = "embgeom."
_NAME = re.compile(r"direction\.(\d{1,6})", re.ASCII)


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the keys and tensors that llama.cpp and repeng expect, and the header under keys of its own.

    Raises
    ------
    InputError
        If there is a direction for layer 0, or gguf is not installed.
    """
    if 0 in directions:
        others = [layer for layer in directions if layer]
        way = f"write the others, vector.select_layers({others}).save(...), or " if others else ""
        raise InputError(
            "the vector has a direction for layer 0, and llama.cpp, whose format .gguf is, never steers its "
            f"layer 0; {way}take .safetensors or .pt"
        )
    writer = _gguf(path).GGUFWriter(path, _ARCHITECTURE)
    try:
        writer.add_string(f"{_ARCHITECTURE}.model_hint", header["model"])
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(directions))
        for key, value in header.items():
            writer.add_string(_OURS + key, value)
        for layer, direction in directions.items():
            writer.add_tensor(f"direction.{layer}", direction)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read(path: Path) -> Content:
    """Return the header, the tensors by name, and what other keys say.

    Raises
    ------
    LoadError
        If the file is no GGUF file, is cut short, or is no control vector.
    """

    def accept(architecture: str) -> None:
        if architecture != _ARCHITECTURE:
            raise LoadError(
                f"{path} is a GGUF file of the architecture {architecture!r}, not a control vector "
                f"({_ARCHITECTURE!r}); name the file of the vector, not that of the model"
            )

    file = GGUFFile(path, accept)
    accept(file.text("general.architecture") or "")
    header = {key.removeprefix(_OURS): file.text(key) or "" for key in file.keys if key.startswith(_OURS)}
    header.setdefault("model", file.text(f"{_ARCHITECTURE}.model_hint") or "")
    others = [key for key in file.keys if key not in _KNOWN and not key.startswith(_OURS)]
    facts = {key: "an array" if (value := file.scalar(key)) is None else value for key in others}
    check_size({name: file.shape(name) for name in file.names}, path)
    return Content(header, {name: _direction(file, name) for name in file.names}, facts)


def _gguf(path: Path) -> Any:
    return need("gguf", f"{path}, a GGUF file,", or_else="; or take .safetensors")


def _direction(file: GGUFFile, name: str) -> npt.NDArray[np.float32]:
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) == 0:
        raise LoadError(
            f"{file.path} holds the tensor {name!r}; those of a control vector are named direction.<layer>, "
            "with layers from 1 on"
        )
    if len(file.shape(name)) != 1:
        raise LoadError(f"{name} in {file.path} has {len(file.shape(name))} dimensions; a direction has one")
    if file.dtype(name) not in _STORED:
        raise LoadError(
            f"{name} in {file.path} is stored as {file.dtype(name)}; {', '.join(_STORED)} are read"
        )
    return file.read(name)
