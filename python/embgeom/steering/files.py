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
from embgeom.loading.folder import is_file, parse_json
from embgeom.loading.hub.repository import HubRepo, split_file
from embgeom.steering.directions import Direction, checked, checked_spread
from embgeom.steering.foreign_files import check_declared, lone_layer, metadata_name, persona_rows
from embgeom.steering.formats import CONTROL_VECTOR, READERS, WRITERS, write_steered
from embgeom.steering.operations import OPERATIONS, Intervention, Operation, Value
from embgeom.steering.operations import checked as checked_value

FORMAT = "embgeom.steering_vector"
VERSION = "1"
CONVENTION = "added to the output of layer i, counted from 0"
CHANGED = "by the operation they change the output of layer i, counted from 0"
_HEADER = ("format", "format_version", "layers", "model", "model_info", "provenance", "state_spread")

# Names of tensors that say no more than a layer number. A name like "hidden_states.3" is not among them:
# hidden states are counted from the embeddings on, so it means another place.
_NAME = re.compile(r"(?:(?:direction|layer|block)s?[._])?(\d{1,6})", re.ASCII)


class Fields(NamedTuple):
    """The fields of a `SteeringVector`, in their order."""

    directions: dict[int, Direction]
    model: str
    provenance: dict[str, Any]
    model_info: ModelInfo
    state_spread: dict[int, float]
    operation: Operation
    value: Value


def save(path: str | PathLike[str], vector: Fields, hookpoints: str | None) -> None:
    target = _path(path, WRITERS, OutputError)
    if hookpoints is not None:
        intervention = Intervention(vector.operation, vector.value)
        write_file(
            target, lambda partial: write_steered(partial, intervention, vector.directions, hookpoints)
        )
        return
    try:
        vector.model.encode("utf-8")
        written = {
            "model_info": json.dumps(asdict(vector.model_info)),
            "provenance": json.dumps(vector.provenance),
            "state_spread": json.dumps(vector.state_spread),
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
    if vector.operation != "add":
        # An older reader refuses what is not said to be added, and one of another kind finds no "direction".
        header |= {"layers": CHANGED, "operation": vector.operation, "value": json.dumps(vector.value)}
    write_file(target, lambda partial: WRITERS[target.suffix](partial, header, vector.directions))


def check_vector_path(path: str | PathLike[str]) -> None:
    check_file_writable(_path(path, WRITERS, OutputError))


def load(
    path: str | PathLike[str],
    layer: int | None,
    operation: Operation | None,
    revision: str | None,
    local_files_only: bool,
) -> Fields:
    if layer is not None:
        layer = whole_number(layer, "layer", 0)
    if operation not in (None, "add", "ablate", "project_to"):
        raise InputError(
            f'operation = {operation!r:.40}: a file is read for "add", "ablate" or "project_to"; for another '
            "one use dataclasses.replace(vector, operation=..., value=...)"
        )
    file = _fetched(_path(path, READERS, LoadError), revision, local_files_only)
    header, tensors, facts = READERS[file.suffix](file)
    if "logits_matrix" in tensors:
        raise LoadError(f"{file} is a map of embgeom; a steering vector is expected")
    ours = header.get("format") == FORMAT
    intervention = _intervention(header, file) if ours else Intervention(operation or "add", None)
    if ours and operation not in (None, intervention.operation):
        raise InputError(
            f"{file} says itself that its operation is {intervention.operation!r}; leave out "
            f"operation={operation!r}, and change it with dataclasses.replace"
        )
    provenance, info, norms = _checked_header(header, file)
    known = (*_HEADER, "layer_type", *(("operation", "value") if ours else ()))
    declared = {key: fact for key, fact in facts.items() if key not in known}
    check_declared(declared, file, f"{CONTROL_VECTOR}.", refused=operation is None)
    try:
        directions = checked(_by_layer(_named(tensors, intervention.operation), file, layer))
        value = checked_value(*intervention, directions)
    except InputError as error:
        raise LoadError(f"{file} holds no steering vector: {error}") from error
    return Fields(directions, header.get("model", ""), provenance, info, norms, intervention.operation, value)


def _fetched(file: Path, revision: str | None, local_files_only: bool) -> Path:
    """Return a file, from the Hub if its name is that of one there and there is none here."""
    on_hub = None if is_file(file) or file.is_absolute() else split_file(file.as_posix())
    if on_hub is None or Path(file.parts[0]).is_dir():
        if revision is not None:
            raise InputError(f"revision = {revision!r} is for a file on the Hugging Face Hub, not for {file}")
        return file
    repo, name = on_hub
    source = HubRepo(repo, revision=revision, local_files_only=local_files_only)
    if (found := source.find(name)) is None:
        raise LoadError(f"the Hugging Face model {repo} holds no file {name}, and neither does this machine")
    if found.name == "direction.pt":
        # It says of which layer the direction beside it is, and need not be there.
        source.find(metadata_name(name))
    return found


def _intervention(header: Mapping[str, str], file: Path) -> Intervention:
    """Return what the directions of a file of ours are for."""
    operation: Any = header.get("operation", "add")
    if operation not in OPERATIONS:
        raise LoadError(f"{file} is for the operation {operation!r:.40}, which this embgeom does not know")
    value = parse_json(header.get("value", "null"), f"the value in {file}")
    return Intervention(operation, tuple(value) if isinstance(value, list) else value)


def _named(tensors: Mapping[Any, Direction], operation: Operation) -> Mapping[Any, Direction]:
    """Return tensors by names that hold no operation."""
    if operation == "add":
        return tensors
    return {k.removeprefix(f"{operation}.") if isinstance(k, str) else k: v for k, v in tensors.items()}


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
    """Return the provenance, the model and its states' spread; refuse what a later version may change."""
    if header.get("format") != FORMAT:
        return {"imported_from": file.name}, ModelInfo(), {}
    if header.get("format_version") != VERSION:
        raise LoadError(
            f"{file} is of format version {header.get('format_version')!r}, and this embgeom reads "
            f"version {VERSION}; upgrade embgeom"
        )
    wanted = CHANGED if "operation" in header else CONVENTION
    if header.get("layers") != wanted:
        raise LoadError(
            f"{file} says of its directions {header.get('layers')!r}; only those {wanted!r} are read"
        )
    held = {}
    for key in ("provenance", "model_info", "state_spread"):
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
        spread = checked_spread({int(layer): length for layer, length in held["state_spread"].items()})
    except (ValueError, InputError) as error:
        raise LoadError(f"the state_spread in {file} is not lengths by layer: {error}") from error
    return held["provenance"], info, spread


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
        if (rows := persona_rows(file, tensor, layer)) is not None:
            return rows
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
