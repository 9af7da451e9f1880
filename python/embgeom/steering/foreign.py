"""What files of other tools say of a direction's use, and which layer one that stands alone belongs to.

A direction is added to the residual stream as it is. A file of another tool may say that it is to be
projected out, or multiplied first, or added elsewhere; to ignore that would steer by something that nobody
meant.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.errors import EmbgeomWarning, LoadError
from embgeom.loading.folder import parse_json, read_bytes

_OPERATION = frozenset((
    "mode", "operation", "operator", "op", "action", "intervention", "application", "apply", "kind", "type",
    "method", "function", "func", "fn", "steering",
))  # fmt: skip
_PLACE = frozenset(("hook", "hookpoint", "site", "location", "component", "stream", "module"))
_SCALE = frozenset((
    "scale", "scaling", "coefficient", "coefficients", "coeff", "coef", "strength", "multiplier", "factor",
    "gain", "alpha", "intensity", "weight", "scales", "weights", "factors",
))  # fmt: skip
# How a vector was found is often called its type or method, which says nothing of its use.
_OF_USE = _PLACE | _OPERATION - {"type", "method", "kind", "steering"}
# Words of operations other than addition, by how they begin.
_NOT_ADDED = re.compile(
    r"\b(project|proj\b|ablat|ortho|erase|erasure|remov|null(ify|space)|subtract|clamp|clip\b|replac|rotat"
    r"|multipl|affine|reflect|mirror|overwrit|leace|inlp)",
    re.IGNORECASE,
)
_ADDED = re.compile(
    r"\b(add|sum\b|plus\b|actadd|caa\b|resid(ual)?(_?stream)?(_?post)?\b|decoder_?block|block_?output|output\b"
    r"|steer|control)",
    re.IGNORECASE,
)
_YES = ("1", "true", "yes", "on")
_NO = ("", "0", "false", "no", "none", "null", "off")
_MOST_BYTES = 1 << 16


def check_declared(facts: Mapping[str, object], file: Path, owned: str) -> None:
    """Refuse or warn of what a file says of its directions that adding them as they are would not obey.

    An operation that is not addition is refused; a factor other than 1, and another place or operation that
    is not known, is a warning, as is any key that begins with `owned`, which is about a vector's use alone.
    """
    for key, value in facts.items():
        said, words = f"{file} says {key} = {value!r:.60}", _words(key)
        if _is_other_operation(words, value):
            raise LoadError(
                f"{said}, and a steering vector is added to the residual stream; a direction that is meant "
                "otherwise is not read as one"
            )
        factor, problem = _factor(words, value), None
        if factor is not None and factor != 1:
            problem = f"which is not applied: multiply the loaded vector by it, {factor:g} * vector"
        elif factor is None and (_is_unclear(words, value) or key.startswith(owned)):
            problem = (
                "which embgeom does not obey: its directions are added, as they are, to the outputs of the "
                "layers that they name"
            )
        if problem:
            warnings.warn(f"{said}, {problem}", EmbgeomWarning, stacklevel=4)


def names_factor(key: str) -> bool:
    """Return whether a key names what directions are to be multiplied with."""
    return bool(_words(key) & _SCALE)


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))


def _is_other_operation(words: set[str], value: object) -> bool:
    if isinstance(value, str) and words & _OPERATION and _NOT_ADDED.search(value.replace("_", " ")):
        return True
    yes = value.strip().lower() in _YES if isinstance(value, str) else value == 1
    # A key that is true, such as ``ablate``.
    return yes and any(map(_NOT_ADDED.match, words)) and not words & _SCALE


def _factor(words: set[str], value: object) -> float | None:
    if not words & _SCALE or isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _is_unclear(words: set[str], value: object) -> bool:
    if not isinstance(value, str) or value.strip().lower() in _NO:
        return False
    return bool(words & _SCALE) or (bool(words & _OF_USE) and not _ADDED.search(value))


def lone_layer(file: Path, tensor: npt.NDArray[np.float32], layer: int | None) -> int:
    """Return the layer of the only tensor of a file, as the caller says it; a file beside it may object."""
    if tensor.ndim > 1 and (rows := tensor.size // max(1, tensor.shape[-1])) != 1:
        wanted = "row i for layer i - 1" if layer is None else f"row {layer + 1} for layer {layer}"
        counted = "row i for layer i" if layer is None else f"row {layer}"
        raise LoadError(
            f"{file} holds one tensor of shape {tensor.shape}, and does not say of which layer each of its "
            f"{rows} rows is. Of layers + 1 rows, as persona vectors have, row 0 is the output of the "
            f"embeddings: take {wanted}. Of one row for each layer take {counted}. Save it by itself, "
            "torch.save({layer: row}, path)"
        )
    beside = file.with_name(f"{file.stem}_metadata.json")
    stated, sure = _layer_in(beside)
    meaning = "" if stated is None else f"{beside.name} beside it {_input_of(stated, sure)}"
    if layer is None:
        raise LoadError(
            f"{file} holds one direction"
            + (f"; {meaning}" if meaning else " and does not say of which layer; pass layer=")
        )
    if layer == stated:
        warnings.warn(f"{file} is read for layer {layer}; {meaning}", EmbgeomWarning, stacklevel=5)
    return layer


def _layer_in(metadata: Path) -> tuple[int | None, bool]:
    """Return the layer that ``direction_metadata.json`` names, and whether it is sure to be one's input."""
    try:
        if not metadata.is_file() or metadata.stat().st_size > _MOST_BYTES:
            return None, False
        found = parse_json(read_bytes(metadata), str(metadata))
    except (OSError, LoadError):
        return None, False
    layer = found.get("layer") if isinstance(found, dict) else None
    # With the position of the token beside it, it is written by the code for refusal directions.
    return (layer, "pos" in found) if type(layer) is int and layer >= 0 else (None, False)


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
