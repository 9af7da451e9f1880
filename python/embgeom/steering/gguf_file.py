"""Steering vectors as GGUF files: the control vectors of llama.cpp.

Such a file holds one-dimensional tensors ``direction.<i>``, i >= 1. llama.cpp adds ``direction.i`` to the
output of its layer i, counted from 0: ``common_control_vector_load`` keeps it at place i - 1 of a buffer, and
``llama_adapter_cvec::apply`` takes the tensor of layer i from place i - 1. So i is a block's number as it is
everywhere in embgeom, and layer 0 is never steered. repeng means the same.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._optional import need
from embgeom.errors import InputError, LoadError

_ARCHITECTURE = "controlvector"
_OURS = "embgeom."
_NAME = re.compile(r"direction\.(\d{1,6})", re.ASCII)


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the keys and tensors that llama.cpp and repeng expect, and the header under keys of its own.

    Raises
    ------
    InputError
        If there is a direction for block 0, or gguf is not installed.
    """
    if 0 in directions:
        others = [block for block in directions if block]
        way = f"write the others, vector.at({others}).save(...), or " if others else ""
        raise InputError(
            "the vector has a direction for block 0, and llama.cpp, whose format .gguf is, never steers its "
            f"layer 0; {way}take .safetensors or .pt"
        )
    writer = _gguf(path).GGUFWriter(path, _ARCHITECTURE)
    try:
        writer.add_string(f"{_ARCHITECTURE}.model_hint", header["model"])
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(directions))
        for key, value in header.items():
            writer.add_string(_OURS + key, value)
        for block, direction in directions.items():
            writer.add_tensor(f"direction.{block}", direction)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[np.float32]]]:
    """Return the header and the tensors by name.

    Raises
    ------
    LoadError
        If the file is no GGUF file, is cut short, or is no control vector.
    InputError
        If gguf is not installed.
    """
    gguf = _gguf(path)
    try:
        # A damaged file's lengths are whatever stands there, and sums of them overflow.
        with np.errstate(all="ignore"):
            reader = gguf.GGUFReader(path)
        notes = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:
        # The reader checks little, so what it raises depends on where it stumbles.
        raise LoadError(
            f"{path} is no complete GGUF file ({type(error).__name__}: {error}); fetch it again"
        ) from error
    architecture = notes.get("general.architecture")
    if architecture != _ARCHITECTURE:
        raise LoadError(
            f"{path} is a GGUF file of the architecture {architecture!r}, not a control vector "
            f"({_ARCHITECTURE!r}); name the file of the vector, not that of the model"
        )
    texts = {key: note for key, note in notes.items() if isinstance(note, str)}
    header = {key.removeprefix(_OURS): note for key, note in texts.items() if key.startswith(_OURS)}
    header.setdefault("model", texts.get(f"{_ARCHITECTURE}.model_hint", ""))
    return header, {tensor.name: _direction(gguf, reader, tensor, path) for tensor in reader.tensors}


def _gguf(path: Path) -> Any:
    return need("gguf", f"{path}, a GGUF file,", or_else="; or take .safetensors")


def _direction(gguf: Any, reader: Any, tensor: Any, path: Path) -> npt.NDArray[np.float32]:
    name, kinds = tensor.name, gguf.GGMLQuantizationType
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) == 0:
        raise LoadError(
            f"{path} holds the tensor {name!r}; those of a control vector are named direction.<layer>, "
            "with layers from 1 on"
        )
    if len(tensor.shape) != 1:
        raise LoadError(f"{name} in {path} has {len(tensor.shape)} dimensions; a direction has one")
    if tensor.tensor_type not in (kinds.F32, kinds.F16, kinds.BF16):
        raise LoadError(
            f"{name} in {path} is stored as {tensor.tensor_type.name}; F32, F16 and BF16 are read"
        )
    if tensor.tensor_type == kinds.BF16:
        order = "<" if reader.endianess == gguf.GGUFEndian.LITTLE else ">"
        # A bfloat16 is the upper half of the float32 of the same value.
        halves = np.frombuffer(tensor.data.tobytes(), dtype=f"{order}u2").astype(np.uint32)
        return (halves << 16).view(np.float32)
    converted: npt.NDArray[np.float32] = tensor.data.astype(np.float32)
    return converted
