"""The layer of a direction that stands alone in its file, which does not say it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.errors import EmbgeomWarning, LoadError
from embgeom.loading.folder import parse_json, read_bytes

_MOST_BYTES = 1 << 16
_UNSAID = " and does not say of which layer; pass layer="


def lone_layer(file: Path, tensor: npt.NDArray[np.float32], layer: int | None) -> int:
    """Return the layer of the only tensor of a file, as the caller says it.

    Raises
    ------
    LoadError
        If the tensor has several rows, or no layer is given; the message says what is known of it.

    Warns
    -----
    EmbgeomWarning
        If a file beside it says that the layer before the one given is meant.
    """
    if tensor.ndim > 1 and (rows := tensor.size // max(1, tensor.shape[-1])) != 1:
        raise LoadError(_many_rows(file, tensor, rows, layer))
    stated, sure = _layer_beside(file)
    beside = "" if stated is None else f"{_metadata(file).name} beside it {_input_of(stated, sure)}"
    if layer is None:
        raise LoadError(f"{file} holds one direction{f'; {beside}' if beside else _UNSAID}")
    if layer == stated:
        warnings.warn(f"{file} is read for layer {layer}; {beside}", EmbgeomWarning, stacklevel=5)
    return layer


def _many_rows(file: Path, tensor: npt.NDArray[np.float32], rows: int, layer: int | None) -> str:
    wanted = "row i for layer i - 1" if layer is None else f"row {layer + 1} for layer {layer}"
    counted = "row i for layer i" if layer is None else f"row {layer}"
    return (
        f"{file} holds one tensor of shape {tensor.shape}, and does not say of which layer each of its "
        f"{rows} rows is. Of layers + 1 rows, as persona vectors have, row 0 is the output of the "
        f"embeddings: take {wanted}. Of one row for each layer take {counted}. Save it by itself, "
        "torch.save({layer: row}, path)"
    )


def _metadata(file: Path) -> Path:
    return file.with_name(f"{file.stem}_metadata.json")


def _layer_beside(file: Path) -> tuple[int | None, bool]:
    """Return the layer that ``direction_metadata.json`` names, and whether it is sure to be one's input."""
    beside = _metadata(file)
    try:
        if not beside.is_file() or beside.stat().st_size > _MOST_BYTES:
            return None, False
        content = parse_json(read_bytes(beside), str(beside))
    except (OSError, LoadError):
        return None, False
    layer = content.get("layer") if isinstance(content, dict) else None
    # With the position of the token beside it, it is written by the code for refusal directions.
    return (layer, "pos" in content) if type(layer) is int and layer >= 0 else (None, False)


def _input_of(layer: int, sure: bool) -> str:
    before = (
        f"the output of layer {layer - 1}" if layer else "the output of the embeddings, which is no layer's"
    )
    if not sure:
        return (
            f"says layer {layer}, and not whether its input or its output is meant: code for refusal "
            f"directions means the *input*, {before}; pass layer="
        )
    way = f": pass layer={layer - 1}" if layer else ""
    return f"says layer {layer}, and in files of this kind that is the *input* of the layer, {before}{way}"
