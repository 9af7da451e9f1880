"""What a vector's file says of its use: a direction that is not meant to be added as it is.

A direction is added to the residual stream as it is. A file of another tool may say that it is to be
projected out, or multiplied first, or added elsewhere; to pass over that would steer by something that nobody
meant.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

from embgeom.errors import EmbgeomWarning, LoadError

Facts = Mapping[str, object]

_OPERATION = frozenset((
    "mode", "operation", "operator", "op", "action", "intervention", "application", "apply", "kind", "type",
    "method", "function", "func", "fn", "steering",
))  # fmt: skip
_PLACE = frozenset(("hook", "hookpoint", "site", "location", "component", "stream", "module"))
_SCALE = frozenset((
    "scale", "scaling", "coefficient", "coefficients", "coeff", "coef", "strength", "multiplier", "factor",
    "gain", "alpha", "intensity", "weight", "scales", "weights", "factors",
))  # fmt: skip
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
_NO = ("", "0", "false", "no", "none", "null", "off")


def check_declared(facts: Facts, file: Path, owned: str | None = None) -> None:
    """Refuse or warn of what a file says of its directions that adding them as they are would not obey.

    Parameters
    ----------
    facts : mapping of str to object
        What the file says beside the directions: strings, numbers and truth values.
    file : Path
        The file, for messages.
    owned : str, optional
        The beginning of keys that are about nothing but the vector's use, so that any is worth a warning.

    Raises
    ------
    LoadError
        If the file names an operation that is not addition.

    Warns
    -----
    EmbgeomWarning
        If it names a factor other than 1, or another place or operation that is not known.
    """
    for key, value in facts.items():
        said = f"{file} says {key} = {value!r:.60}"
        words = _words(key)
        if _is_other_operation(words, value):
            raise LoadError(
                f"{said}, and a steering vector is added to the residual stream; a direction that is meant "
                "otherwise is not read as one"
            )
        if (factor := _factor(words, value)) is not None:
            if factor != 1:
                _warn(f"{said}, which is not applied: multiply the loaded vector by it, {factor:g} * vector")
        elif _is_unclear(words, value) or (owned is not None and key.startswith(owned)):
            _warn(
                f"{said}, which embgeom does not obey: its directions are added, as they are, to the outputs "
                "of the layers that they name"
            )


def names_factor(key: str) -> bool:
    """Return whether a key names what directions are to be multiplied with."""
    return bool(_words(key) & _SCALE)


def _words(key: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()))


def _is_other_operation(words: set[str], value: object) -> bool:
    if isinstance(value, str):
        named = words & _OPERATION and _NOT_ADDED.search(value.replace("_", " "))
        return bool(named) or (_says_yes(value) and _names_operation(words))
    return isinstance(value, bool | int | float) and value == 1 and _names_operation(words)


def _names_operation(words: set[str]) -> bool:
    """Return whether a key that is true, such as ``ablate``, names an operation that is not addition."""
    return any(_NOT_ADDED.match(word) for word in words) and not words & _SCALE


def _says_yes(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on")


def _factor(words: set[str], value: object) -> float | None:
    if not (words & _SCALE) or isinstance(value, bool):
        return None
    try:
        return float(value) if isinstance(value, str | int | float) else None
    except ValueError:
        return None


def _is_unclear(words: set[str], value: object) -> bool:
    if not isinstance(value, str) or value.strip().lower() in _NO:
        return False
    if words & _SCALE:
        return True
    # How a vector was found is often called its type or method, which says nothing of its use.
    asked = words & (_PLACE | _OPERATION - {"type", "method", "kind", "steering"})
    return bool(asked) and not _ADDED.search(value)


def _warn(message: str) -> None:
    warnings.warn(message, EmbgeomWarning, stacklevel=5)
