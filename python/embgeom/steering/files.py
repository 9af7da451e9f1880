"""Steering vectors as files: what they say of themselves, whatever the format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import whole_number
from embgeom._common.record import rebuilt
from embgeom._common.writing import check_file_writable, write_file
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import EmbgeomError, InputError, LoadError, OutputError
from embgeom.loading.folder import LocalFile, parse_json
from embgeom.steering import arrays_file, gguf_file, pt_file, tensors_file
from embgeom.steering.content import Content
from embgeom.steering.declared import check_declared
from embgeom.steering.lone import lone_layer
from embgeom.steering.vector import SteeringVector

FORMAT = "embgeom.steering_vector"
VERSION = 1
CONVENTION = "added to the output of layer i, counted from 0"

# Names of tensors that say no more than a layer number. A name like "hidden_states.3" is not among them:
# hidden states are counted from the embeddings on, so it means another place.
_NAME = re.compile(r"(?:(?:direction|layer|block)s?[._])?(\d{1,6})", re.ASCII)

# What embgeom itself writes, in formats that keep it beside the tensors, or the formats do.
_OWN = ("format", "format_version", "layers", "model", "model_info", "provenance", "layer_type")

Header = dict[str, str]
Tensors = Mapping[Any, npt.NDArray[np.float32]]


_Write = Callable[[Path, Header, dict[int, npt.NDArray[np.float32]]], None]
_WRITERS: dict[str, _Write] = {
    ".safetensors": tensors_file.write,
    ".pt": pt_file.write,
    ".gguf": gguf_file.write,
}
_READERS: dict[str, Callable[[Path], Content]] = {
    ".safetensors": tensors_file.read,
    ".pt": pt_file.read,
    ".gguf": gguf_file.read,
    ".npy": arrays_file.read,
    ".npz": arrays_file.read,
}


def save_vector(vector: SteeringVector, path: str | PathLike[str]) -> None:
    """Write a vector as a file; see `SteeringVector.save`."""
    target = _path(path, _WRITERS, OutputError)
    write, header = _WRITERS[target.suffix], _header(vector)
    write_file(target, lambda partial: write(partial, header, vector.directions))


def check_vector_path(path: str | PathLike[str]) -> None:
    """Find out before long work whether a vector can be written: the suffix, and the place.

    Raises
    ------
    OutputError
        If the suffix says no format, or the file cannot be written.
    """
    check_file_writable(_path(path, _WRITERS, OutputError))


def load_vector(path: str | PathLike[str], *, layer: int | None = None) -> SteeringVector:
    """Read a vector from a file; see `SteeringVector.load`."""
    if layer is not None:
        layer = whole_number(layer, "layer", 0)
    file = _path(path, _READERS, LoadError)
    # What is no regular file may make a reader wait without end.
    LocalFile(file)
    header, tensors, facts = _READERS[file.suffix](file)
    provenance = _provenance(header, file)
    check_declared({k: v for k, v in facts.items() if k not in _OWN}, file, gguf_file.OWNED)
    try:
        directions = _by_layer(tensors, file, layer)
        return SteeringVector(directions, header.get("model", ""), provenance, _model_info(header, file))
    except InputError as error:
        raise LoadError(f"{file} holds no steering vector: {error}") from error


def _path(path: str | PathLike[str], formats: Mapping[str, Any], kind: type[EmbgeomError]) -> Path:
    """Return the path, or say which suffixes there are."""
    try:
        file = Path(path).expanduser()
        os.fsencode(file)
        if "\0" in os.fspath(file):
            raise ValueError("it holds a NUL")
    except (TypeError, ValueError, RuntimeError) as error:
        raise kind(f"{path!r} is no path of a file: {error}") from error
    if file.suffix not in formats:
        raise kind(
            f"{file} has the suffix {file.suffix!r}, which says no format; name a file in "
            f"{', '.join(formats)}"
        )
    return file


def _header(vector: SteeringVector) -> Header:
    try:
        vector.model.encode("utf-8")
        provenance, info = json.dumps(vector.provenance), json.dumps(asdict(vector.model_info))
    except (TypeError, ValueError, RecursionError, AttributeError) as error:
        raise InputError(
            f"the model's name and the provenance cannot be written: {error}; a name is a string, and a "
            "provenance a dict of strings, numbers, lists and dicts"
        ) from error
    return {
        "format": FORMAT,
        "format_version": str(VERSION),
        "layers": CONVENTION,
        "model": vector.model,
        "model_info": info,
        "provenance": provenance,
    }


def _provenance(header: Header, file: Path) -> dict[str, Any]:
    """Return the provenance, and refuse what a later version may have changed."""
    if header.get("format") != FORMAT:
        return {"imported_from": file.name}
    if header.get("format_version") != str(VERSION):
        raise LoadError(
            f"{file} is of format version {header.get('format_version')!r}, and this embgeom reads "
            f"version {VERSION}; upgrade embgeom"
        )
    if header.get("layers") != CONVENTION:
        raise LoadError(
            f"{file} says of its directions {header.get('layers')!r}; only those {CONVENTION!r} are read"
        )
    # A lone surrogate, which no UTF-8 holds, is no reason to lose a vector.
    text = header.get("provenance", "").encode("utf-8", "surrogatepass")
    provenance = parse_json(text, f"the provenance in {file}")
    if not isinstance(provenance, dict):
        raise LoadError(f"the provenance in {file} is a JSON {type(provenance).__name__}, not an object")
    return provenance


def _model_info(header: Header, file: Path) -> ModelInfo:
    """Return which model the header names."""
    text = header.get("model_info", "{}").encode("utf-8", "surrogatepass")
    try:
        return cast(ModelInfo, rebuilt(ModelInfo, asdict(ModelInfo()) | parse_json(text, str(file)), {}))
    except (TypeError, ValueError) as error:
        raise LoadError(f"the model_info in {file} does not describe a model: {error}") from error


def _by_layer(tensors: Tensors, file: Path, layer: int | None) -> dict[int, npt.NDArray[np.float32]]:
    """Return the directions by layer: as their names say, or the only one by `layer`."""
    layers = {name: _layer(name) for name in tensors}
    unclear = [name for name, found in layers.items() if found is None]
    if unclear and len(tensors) > 1:
        raise LoadError(
            f"{file} holds {unclear[0]!r} among {len(tensors)} tensors, which names no layer; "
            f"the directions are to be named 'direction.<layer>' ({CONVENTION})"
        )
    if unclear:
        ((name, tensor),) = tensors.items()
        return {lone_layer(file, tensor, layer): _row(tensor, name, file)}
    if layer is not None:
        named = ", ".join(map(str, layers.values()))
        raise LoadError(
            f"{file} says itself that its layers are {named}; leave out layer={layer}, "
            "and choose among them with SteeringVector.select_layers"
        )
    directions: dict[int, npt.NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        place = layers[name]
        if place is None or place in directions:
            raise LoadError(f"{file} holds two directions for layer {place}, one of them as {name!r}")
        directions[place] = _row(tensor, name, file)
    return directions


def _layer(name: Any) -> int | None:
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return int(found[1]) if found else None


def _row(tensor: npt.NDArray[np.float32], name: Any, file: Path) -> npt.NDArray[np.float32]:
    """Return a direction as (d,); dimensions of length 1 before that, as of a batch, are dropped."""
    if tensor.ndim == 0 or tensor.size != tensor.shape[-1]:
        raise LoadError(
            f"{name!r} in {file} has shape {tensor.shape}, and a direction is (d,); "
            "save the row of each layer as a tensor of its own, under the layer's number"
        )
    return tensor.reshape(-1)
