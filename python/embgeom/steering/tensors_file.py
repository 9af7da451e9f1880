"""Steering vectors as safetensors: ``direction.<layer>``, and the header in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom._common.writing import save_tensors
from embgeom.loading.folder import parse_json
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.steering.content import Content, check_size

_KEY = "embgeom"


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the file."""
    # The library writes entries of metadata in an order that differs from run to run, so there is only one.
    metadata = {_KEY: json.dumps(header)}
    save_tensors({f"direction.{layer}": direction for layer, direction in directions.items()}, path, metadata)


def read(path: Path) -> Content:
    """Return the header, the tensors by name, and what else the metadata say.

    Raises
    ------
    LoadError
        If the file is no safetensors file of floating-point numbers, or too large for a vector.
    """
    file = SafetensorsFile(path)
    check_size({name: file.shape(name) for name in file.names}, path)
    text = file.metadata.get(_KEY, "{}").encode("utf-8", "surrogatepass")
    held = parse_json(text, f"the header in {path}")
    notes = held.items() if isinstance(held, dict) else ()
    header = {key: note for key, note in notes if isinstance(note, str)}
    facts: dict[str, object] = {key: note for key, note in file.metadata.items() if key != _KEY}
    return Content(header, {name: file.read(name) for name in file.names}, facts)
