"""Writing maps as safetensors files, with everything that says where they come from."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.writing import check_file_writable, save_tensors, write_file
from embgeom.errors import InputError, OutputError

if TYPE_CHECKING:
    from embgeom.emb2emb.map import Emb2Emb

FORMAT = "embgeom.emb2emb/1"
SUFFIX = ".safetensors"


def save(mapping: Emb2Emb, path: str | PathLike[str]) -> None:
    """Write a map; see `Emb2Emb.save`.

    Raises
    ------
    OutputError
        If the file cannot be written, or its name does not end in ``.safetensors``.
    InputError
        If `path` is no path, or the provenance is not ready for JSON.
    """
    if not isinstance(path, str | PathLike):
        raise InputError(f"path = {path!r:.60} names no file")
    path = Path(path).expanduser()
    check_path(path)
    arrays: dict[str, npt.NDArray[Any]] = {
        "logits_matrix": mapping.logits_matrix,
        "source_mean": mapping.source_mean,
        "target_mean": mapping.target_mean,
    }
    if mapping.matrix is not None:
        arrays["matrix"] = mapping.matrix
    if mapping.neighbors is not None:
        arrays |= {"source_rows": mapping.neighbors.source, "target_rows": mapping.neighbors.target}
    about: dict[str, Any] = {
        "method": mapping.method,
        "scores": mapping.scores and mapping.scores.to_dict(),
        "shuffled": mapping.shuffled and mapping.shuffled.to_dict(),
        "provenance": mapping.provenance,
    }
    if mapping.neighbors is not None:
        about |= {"k": mapping.neighbors.k, "reg": mapping.neighbors.reg}
    try:
        # The library writes several entries in an order that differs from run to run, so there is one.
        metadata = {FORMAT: json.dumps(about, allow_nan=False)}
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"the provenance of the map cannot be written: {error}; it is a dict of strings, finite numbers, "
            "lists and dicts"
        ) from error
    # The writer takes an array's memory as it lies, so each has to lie in C order.
    packed = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_file(path, lambda partial: save_tensors(packed, partial, metadata), inputs=_inputs(mapping))


def _inputs(mapping: Emb2Emb) -> list[str]:
    """Return the files that the map was fitted on, as far as the provenance tells."""
    sides = [mapping.provenance.get(side) for side in ("source", "target")]
    read = [side.get("provenance") for side in sides if isinstance(side, dict)]
    files = [about.get(name) for about in read if isinstance(about, dict) for name in ("file", "tokenizer")]
    return [file for file in files if isinstance(file, str)]


def check_path(path: str | PathLike[str]) -> None:
    """Find out before a fit whether its map can be written.

    Raises
    ------
    OutputError
        If the file's name does not end in ``.safetensors``, or it cannot be written.
    """
    file = Path(path).expanduser()
    if file.suffix != SUFFIX:
        raise OutputError(f"{path} does not end in {SUFFIX}, the format that maps are kept in")
    check_file_writable(file)
