"""Steering vectors as safetensors: ``direction.<block>``, and the header in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom._writing import save_tensors
from embgeom.loading.folder import parse_json
from embgeom.loading.safetensors_file import SafetensorsFile

_KEY = "embgeom"


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the file."""
    # The library writes entries of metadata in an order that differs from run to run, so there is only one.
    metadata = {_KEY: json.dumps(header)}
    save_tensors({f"direction.{block}": direction for block, direction in directions.items()}, path, metadata)


def read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[np.float32]]]:
    """Return the header and the tensors by name.

    Raises
    ------
    LoadError
        If the file is no safetensors file of floating-point numbers.
    """
    file = SafetensorsFile(path)
    text = file.metadata.get(_KEY, "{}").encode("utf-8", "surrogatepass")
    held = parse_json(text, f"the header in {path}")
    notes = held.items() if isinstance(held, dict) else ()
    header = {key: note for key, note in notes if isinstance(note, str)}
    return header, {name: file.read(name) for name in file.names}
