"""The block of a direction that stands alone in its file, which does not say it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.errors import EmbgeomWarning, LoadError
from embgeom.loading.folder import parse_json, read_bytes

_MOST_BYTES = 1 << 16
_UNSAID = " and does not say of which block; pass block="


def lone_block(file: Path, tensor: npt.NDArray[np.float32], block: int | None) -> int:
    """Return the block of the only tensor of a file, as the caller says it.

    Raises
    ------
    LoadError
        If the tensor has several rows, or no block is given; the message says what is known of it.

    Warns
    -----
    EmbgeomWarning
        If a file beside it says that the block before the one given is meant.
    """
    if tensor.ndim > 1 and (rows := tensor.size // max(1, tensor.shape[-1])) != 1:
        raise LoadError(_many_rows(file, tensor, rows, block))
    layer, sure = _layer_beside(file)
    beside = "" if layer is None else f"{_metadata(file).name} beside it {_input_of(layer, sure)}"
    if block is None:
        raise LoadError(f"{file} holds one direction{f'; {beside}' if beside else _UNSAID}")
    if block == layer:
        warnings.warn(f"{file} is read for block {block}; {beside}", EmbgeomWarning, stacklevel=5)
    return block


def _many_rows(file: Path, tensor: npt.NDArray[np.float32], rows: int, block: int | None) -> str:
    wanted = "row i for block i - 1" if block is None else f"row {block + 1} for block {block}"
    counted = "row i for block i" if block is None else f"row {block}"
    return (
        f"{file} holds one tensor of shape {tensor.shape}, and does not say of which block each of its "
        f"{rows} rows is. Of layers + 1 rows, as persona vectors have, row 0 is the output of the "
        f"embeddings: take {wanted}. Of one row for each layer take {counted}. Save it by itself, "
        "torch.save({block: row}, path)"
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
        f"the output of block {layer - 1}" if layer else "the output of the embeddings, which is no block's"
    )
    if not sure:
        return (
            f"says layer {layer}, and not whether its input or its output is meant: code for refusal "
            f"directions means the *input*, {before}; pass block="
        )
    way = f": pass block={layer - 1}" if layer else ""
    return f"says layer {layer}, and in files of this kind that is the *input* of the layer, {before}{way}"
