"""Maps as safetensors files, with everything that says where they come from."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embgeom._writing import check_file_writable, write_file
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.neighbors import NeighborMap
from embgeom.emb2emb.score import Scores
from embgeom.emb2emb.solve import Method
from embgeom.errors import LoadError, OutputError

FORMAT = "embgeom.emb2emb/1"
SUFFIX = ".safetensors"

Arrays = dict[str, npt.NDArray[Any]]


def save(carrier: Emb2Emb, path: str | PathLike[str]) -> None:
    """Write a map; see `Emb2Emb.save`.

    Raises
    ------
    OutputError
        If the file cannot be written, or its name does not end in ``.safetensors``.
    """
    from safetensors.numpy import save_file

    check_path(path)
    arrays: Arrays = {
        "logits_matrix": carrier.logits_matrix,
        "source_mean": carrier.source_mean,
        "target_mean": carrier.target_mean,
    }
    if carrier.matrix is not None:
        arrays["matrix"] = carrier.matrix
    if carrier.neighbors is not None:
        arrays |= {"source_rows": carrier.neighbors.source, "target_rows": carrier.neighbors.target}
    about: dict[str, Any] = {
        "method": carrier.method,
        "scores": carrier.scores and carrier.scores.as_dict(),
        "shuffled": carrier.shuffled and carrier.shuffled.as_dict(),
        "provenance": carrier.provenance,
    }
    if carrier.neighbors is not None:
        about |= {"k": carrier.neighbors.k, "reg": carrier.neighbors.reg}
    metadata = {"format": FORMAT, "about": json.dumps(about)}
    # The writer takes an array's memory as it lies, so each has to lie in C order.
    packed = {name: np.array(array, order="C") for name, array in arrays.items()}
    write_file(path, lambda partial: save_file(packed, partial, metadata))


def check_path(path: str | PathLike[str]) -> None:
    """Find out before a fit whether its map can be written.

    Raises
    ------
    OutputError
        If the file's name does not end in ``.safetensors``, or it cannot be written.
    """
    if Path(path).suffix != SUFFIX:
        raise OutputError(f"{path} does not end in {SUFFIX}, the format that maps are kept in")
    check_file_writable(path)


def load(path: str | PathLike[str]) -> Emb2Emb:
    """Read a map; see `Emb2Emb.load`.

    Raises
    ------
    LoadError
        If the file cannot be read, is no map, or its parts do not fit each other.
    """
    arrays, about = _read(Path(path))
    try:
        method: Method = about["method"]
        if method not in get_args(Method):
            raise ValueError(f"its method is {method!r}")
        neighbors = None
        if method == "lle":
            neighbors = NeighborMap(arrays["source_rows"], arrays["target_rows"], about["k"], about["reg"])
        found = Emb2Emb(
            method,
            None if method == "lle" else arrays["matrix"],
            arrays["logits_matrix"],
            neighbors,
            arrays["source_mean"],
            arrays["target_mean"],
            scores=about["scores"] and Scores(**about["scores"]),
            shuffled=about["shuffled"] and Scores(**about["shuffled"]),
            provenance=about["provenance"],
        )
        _check_shapes(found)
    except (KeyError, TypeError, ValueError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise LoadError(f"{path} is no complete map: {why}; fit and save it again") from error
    return found


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise LoadError(
                    f"{path} is no map of this version of embgeom: its format is "
                    f"{metadata.get('format')!r}, not {FORMAT!r}"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, json.loads(metadata["about"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise LoadError(f"{path} cannot be read as a map: {error}") from error


def _check_shapes(found: Emb2Emb) -> None:
    widths = found.widths
    for name, array in (("matrix", found.matrix), ("logits_matrix", found.logits_matrix)):
        if array is not None and array.shape != widths:
            raise ValueError(f"{name} has the shape {array.shape}, but the means are of widths {widths}")
    if found.neighbors is not None:
        sides = found.neighbors.source, found.neighbors.target
        if tuple(side.shape[1] for side in sides) != widths or len(sides[0]) != len(sides[1]):
            raise ValueError(f"its rows have the shapes {sides[0].shape} and {sides[1].shape}")
    rows = () if found.neighbors is None else (found.neighbors.source, found.neighbors.target)
    everything = (found.matrix, found.logits_matrix, found.source_mean, found.target_mean, *rows)
    if not all(np.isfinite(array).all() for array in everything if array is not None):
        raise ValueError("a number in it is NaN or infinite")
