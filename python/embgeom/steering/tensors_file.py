"""Steering vectors as safetensors: ``direction.<block>``, and the header as the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.loading.safetensors_file import SafetensorsFile

# The format asks that the data begin at a multiple of this.
_ALIGNMENT = 8


def write(path: Path, header: dict[str, str], directions: dict[int, npt.NDArray[np.float32]]) -> None:
    """Write the file: the length of the table, the table (JSON), the numbers."""
    table: dict[str, object] = {"__metadata__": header}
    end = 0
    for block, direction in directions.items():
        begin, end = end, end + direction.nbytes
        table[f"direction.{block}"] = {"dtype": "F32", "shape": direction.shape, "data_offsets": [begin, end]}
    text = json.dumps(table).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for direction in directions.values():
            stream.write(direction.astype("<f4").tobytes())


def read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[np.float32]]]:
    """Return the header and the tensors by name.

    Raises
    ------
    LoadError
        If the file is no safetensors file of floating-point numbers.
    """
    file = SafetensorsFile(path)
    return file.metadata, {name: file.read(name) for name in file.names}
