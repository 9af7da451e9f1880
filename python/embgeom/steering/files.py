"""Steering vectors as files: what they say of themselves, whatever the format."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from embgeom._common.checks import whole_number
from embgeom._common.record import rebuilt
from embgeom._common.writing import check_file_writable, write_file
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import EmbgeomError, InputError, LoadError, OutputError
from embgeom.loading.folder import parse_json
from embgeom.steering.directions import Direction, checked, checked_norms
from embgeom.steering.formats import CONTROL_VECTOR, READERS, WRITERS, check_declared, lone_layer

FORMAT = "embgeom.steering_vector"
VERSION = "1"
CONVENTION = "added to the output of layer i, counted from 0"
_HEADER = ("format", "format_version", "layers", "model", "model_info", "provenance", "state_norms")

# Names of tensors that say no more than a layer number. A name like "hidden_states.3" is not among them:
# hidden states are counted from the embeddings on, so it means another place.
_NAME = re.compile(r"(?:(?:direction|layer|block)s?[._])?(\d{1,6})", re.ASCII)


class Fields(NamedTuple):
    """The fields of a `SteeringVector`, in their order."""

    directions: dict[int, Direction]
    model: str
    provenance: dict[str, Any]
    model_info: ModelInfo
    state_norms: dict[int, float]


def save(path: str | PathLike[str], vector: Fields) -> None:
    target = _path(path, WRITERS, OutputError)
    try:
        vector.model.encode("utf-8")
        written = {
            "model_info": json.dumps(asdict(vector.model_info)),
            "provenance": json.dumps(vector.provenance),
            "state_norms": json.dumps(vector.state_norms),
        }
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the model's name and the provenance cannot be written: {error}; a name is a string, and a "
            "provenance a dict of strings, numbers, lists and dicts"
        ) from error
    header = {
        "format": FORMAT,
        "format_version": VERSION,
        "layers": CONVENTION,
        "model": vector.model,
        **written,
    }
    write_file(target, lambda partial: WRITERS[target.suffix](partial, header, vector.directions))


def check_vector_path(path: str | PathLike[str]) -> None:
    check_file_writable(_path(path, WRITERS, OutputError))


def load(path: str | PathLike[str], layer: int | None) -> Fields:
    if layer is not None:
        layer = whole_number(layer, "layer", 0)
    file = _path(path, READERS, LoadError)
    header, tensors, facts = READERS[file.suffix](file)
    if "logits_matrix" in tensors:
        raise LoadError(f"{file} is a map of embgeom; a steering vector is expected")
    provenance, info, norms = _checked_header(header, file)
    ours = (*_HEADER, "layer_type")
    check_declared({k: v for k, v in facts.items() if k not in ours}, file, f"{CONTROL_VECTOR}.")
    try:
        directions = checked(_by_layer(tensors, file, layer))
    except InputError as error:
        raise LoadError(f"{file} holds no steering vector: {error}") from error
    return Fields(directions, header.get("model", ""), provenance, info, norms)


def _path(path: str | PathLike[str], formats: Mapping[str, Any], kind: type[EmbgeomError]) -> Path:
    try:
        file = Path(path).expanduser()
        os.fsencode(file)
        if "\0" in os.fspath(file):
            raise ValueError("it holds a NUL")
    except (TypeError, ValueError, RuntimeError) as error:
        raise kind(f"{path!r} is not the path of a file: {error}") from error
    if file.suffix not in formats:
        raise kind(
            f"{file} has the suffix {file.suffix!r}, which says no format; name a file in "
            f"{', '.join(formats)}"
        )
    return file


def _checked_header(
    header: Mapping[str, str], file: Path
) -> tuple[dict[str, Any], ModelInfo, dict[int, float]]:
    """Return the provenance, the model and its state norms; refuse what a later version may have changed."""
    if header.get("format") != FORMAT:
        return {"imported_from": file.name}, ModelInfo(), {}
    if header.get("format_version") != VERSION:
        raise LoadError(
            f"{file} is of format version {header.get('format_version')!r}, and this embgeom reads "
            f"version {VERSION}; upgrade embgeom"
        )
    if header.get("layers") != CONVENTION:
        raise LoadError(
            f"{file} says of its directions {header.get('layers')!r}; only those {CONVENTION!r} are read"
        )
    held = {}
    for key in ("provenance", "model_info", "state_norms"):
        # A lone surrogate, which no UTF-8 holds, is no reason to lose a vector.
        text = header.get(key, "{}").encode("utf-8", "surrogatepass")
        held[key] = parse_json(text, f"the {key} in {file}")
        if not isinstance(held[key], dict):
            raise LoadError(f"the {key} in {file} is a JSON {type(held[key]).__name__}, not an object")
    try:
        info: ModelInfo = rebuilt(ModelInfo, asdict(ModelInfo()) | held["model_info"], {})
    except (TypeError, ValueError) as error:
        raise LoadError(f"the model_info in {file} does not describe a model: {error}") from error
    try:
        # The keys of a JSON object are strings.
        norms = checked_norms({int(layer): norm for layer, norm in held["state_norms"].items()})
    except (ValueError, InputError) as error:
        raise LoadError(f"the state_norms in {file} are not norms by layer: {error}") from error
    return held["provenance"], info, norms


def _by_layer(tensors: Mapping[Any, Direction], file: Path, layer: int | None) -> dict[int, Direction]:
    numbers = {name: _layer(name) for name in tensors}
    unclear = [name for name, number in numbers.items() if number is None]
    if unclear and len(tensors) > 1:
        raise LoadError(
            f"{file} holds {unclear[0]!r} among {len(tensors)} tensors, which names no layer; "
            f"the directions are to be named 'direction.<layer>' ({CONVENTION})"
        )
    if unclear:
        ((name, tensor),) = tensors.items()
        return {lone_layer(file, tensor, layer): _row(tensor, name, file)}
    if layer is not None:
        raise LoadError(
            f"{file} says itself that its layers are {', '.join(map(str, numbers.values()))}; leave out "
            f"layer={layer}, and choose among them with SteeringVector.select_layers"
        )
    directions: dict[int, Direction] = {}
    for name, number in numbers.items():
        if number is None or number in directions:
            raise LoadError(f"{file} holds two directions for layer {number}, one of them as {name!r}")
        directions[number] = _row(tensors[name], name, file)
    return directions


def _layer(name: Any) -> int | None:
    if isinstance(name, int) and not isinstance(name, bool):
        return name
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    return int(found[1]) if found else None


def _row(tensor: Direction, name: Any, file: Path) -> Direction:
    """Return a direction as (d,); dimensions of length 1 before that, as of a batch, are dropped."""
    if tensor.ndim == 0 or tensor.size != tensor.shape[-1]:
        raise LoadError(
            f"{name!r} in {file} has shape {tensor.shape}, and a direction is (d,); "
            "save the row of each layer as a tensor of its own, under the layer's number"
        )
    return tensor.reshape(-1)
