"""What files of other tools say of their directions: what they are for, and of which layers they are."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from embgeom.errors import EmbgeomWarning, LoadError
from embgeom.loading.folder import parse_json, read_bytes
from embgeom.steering.directions import Direction

# A direction is added to the residual stream as it is. A file of another tool may say that it is to be
# projected out, or multiplied first, or added elsewhere; to ignore that would steer by something that nobody
# meant.
_OPERATION = frozenset((
    "mode", "operation", "operator", "op", "action", "intervention", "application", "apply", "kind", "type",
    "method", "function", "func", "fn", "steering", "use", "usage",
))  # fmt: skip
_PLACE = frozenset(("hook", "hookpoint", "site", "location", "component", "stream", "module"))
_SCALE = frozenset((
    "scale", "scaling", "coefficient", "coefficients", "coeff", "coef", "strength", "multiplier", "factor",
    "gain", "alpha", "intensity", "weight", "scales", "weights", "factors", "sign",
))  # fmt: skip
_NEGATED = frozenset((
    "negate", "negated", "negative", "invert", "inverted", "inverse", "flip", "flipped", "reverse",
    "reversed",
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
_YES = ("1", "1.0", "true", "yes", "on")
_NO = ("", "0", "false", "no", "none", "null", "off")
_MOST_METADATA = 1 << 16
# Persona vectors: the mean difference over a trait's answers or prompts, a row for each of hidden_states.
_PERSONA = re.compile(r".+_(response_avg|prompt_avg|prompt_last)_diff\.(pt|npy)")


def check_declared(facts: Mapping[str, object], file: Path, owned: str, *, refused: bool) -> None:
    """Refuse or warn of what a file says of its directions that adding them as they are would not obey.

    An operation that is not addition is refused, unless the caller asks for one; a factor other than 1, and
    another place or operation that is not known, is a warning, as is any key that begins with `owned`, which
    is about a vector's use alone.
    """
    for key, value in facts.items():
        said, words, text = f"{file} says {key} = {value!r:.60}", _words(key), str(value).strip().lower()
        of_scale, is_text = bool(words & _SCALE), isinstance(value, str)
        other = is_text and words & _OPERATION and _NOT_ADDED.search(text.replace("_", " "))
        # A key that is true, such as ``ablate``.
        if other or (text in _YES and not of_scale and any(map(_NOT_ADDED.match, words))):
            if not refused:
                continue
            raise LoadError(
                f"{said}, and a steering vector is added to the residual stream; read what is meant "
                'otherwise by SteeringVector.load(path, operation="ablate"), or another operation'
            )
        factor = -1.0 if words & _NEGATED and text in _YES else None
        if of_scale and isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError):
                factor = float(value)
        unclear = of_scale or (words & _OF_USE and not _ADDED.search(text))
        if factor not in (None, 1.0):
            problem = f"which is not applied: multiply the loaded vector by it, {factor:g} * vector"
        elif factor is None and (key.startswith(owned) or (is_text and text not in _NO and unclear)):
            problem = (
                "which embgeom does not obey: its directions are added, as they are, to the outputs of the "
                "layers that they name"
            )
        else:
            continue
        warnings.warn(f"{said}, {problem}", EmbgeomWarning, stacklevel=4)


def names_a_scale(key: str) -> bool:
    return bool(_words(key) & _SCALE)


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))


def persona_rows(
    file: Path, tensor: npt.NDArray[np.float32], layer: int | None
) -> dict[int, Direction] | None:
    """Return the rows of persona vectors by layer, or the one of `layer`; None for another file."""
    if not _PERSONA.fullmatch(file.name) or tensor.ndim != 2 or len(tensor) < 3:
        return None
    # Row 0 is the output of the embeddings, and the last one has passed the final norm.
    rows = {number: tensor[number + 1] for number in range(len(tensor) - 2)}
    if layer is not None and layer not in rows:
        raise LoadError(f"{file} holds directions for the outputs of layers 0 to {max(rows)}, not of {layer}")
    return rows if layer is None else {layer: rows[layer]}


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
    stated, of_input, meaning = _stated_layer(file.with_name(metadata_name(file.name)))
    if layer is None and stated and of_input:
        return stated - 1
    if layer is None:
        raise LoadError(
            f"{file} holds one direction"
            + (f"; {meaning}" if meaning else " and does not say of which layer; pass layer=")
        )
    if layer == stated:
        warnings.warn(f"{file} is read for layer {layer}; {meaning}", EmbgeomWarning, stacklevel=5)
    return layer


def metadata_name(direction: str) -> str:
    """Return the name of the file that says of which layer the direction in another is."""
    return str(PurePosixPath(direction).with_name(f"{PurePosixPath(direction).stem}_metadata.json"))


def _stated_layer(metadata: Path) -> tuple[int | None, bool, str]:
    """Return the layer that ``direction_metadata.json`` names, if its input is meant, and both in words."""
    try:
        small = metadata.is_file() and metadata.stat().st_size <= _MOST_METADATA
        found = parse_json(read_bytes(metadata), str(metadata)) if small else None
    except (OSError, LoadError):
        found = None
    held = found if isinstance(found, dict) else {}
    layer = held.get("layer")
    if type(layer) is not int or layer < 0:
        return None, False, ""
    before = (
        f"the output of layer {layer - 1}" if layer else "the output of the embeddings, which is no layer's"
    )
    says = f"{metadata.name} beside it says layer {layer}, and"
    # With the position of the token beside it, it is written by the code for refusal directions.
    if "pos" in held:
        way = f": pass layer={layer - 1}" if layer else ""
        return layer, True, f"{says} in files of this kind that is the *input* of the layer, {before}{way}"
    return (
        layer,
        False,
        (
            f"{says} not whether its input or its output is meant: code for refusal directions means the "
            f"*input*, {before}; pass layer="
        ),
    )
