"""The residual stream in what a layer takes and gives."""

from __future__ import annotations

from typing import Any

from embgeom.errors import InputError


def in_output(output: Any, layer: int, hidden_size: int | None) -> Any:
    """Return the residual stream in what a layer gives, a tensor (batch, length, hidden_size).

    Raises
    ------
    InputError
        If there is none of that shape, as in models whose layers give several streams at once.
    """
    hidden = output[0] if isinstance(output, tuple | list) and output else output
    shape = tuple(getattr(hidden, "shape", ()))
    if len(shape) != 3 or hidden_size not in (None, shape[-1]):
        raise InputError(
            f"layer {layer} gives a {type(hidden).__name__} of shape {shape}, not (batch, length, "
            f"{hidden_size or 'hidden_size'}): it keeps no single residual stream, so the model can "
            "neither be steered nor read"
        )
    return hidden


def in_input(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the residual stream in what a layer is given, a tensor (batch, length, hidden_size).

    Raises
    ------
    InputError
        If there is none of that shape.
    """
    given = args[0] if args else named.get("hidden_states")
    if getattr(given, "ndim", 0) != 3:
        shape = tuple(getattr(given, "shape", ()))
        raise InputError(
            f"layer 0 is given a {type(given).__name__} of shape {shape}, not (batch, length, hidden_size): "
            "it keeps no single residual stream, so the model cannot be read"
        )
    return given


def with_stream(output: Any, hidden: Any) -> Any:
    """Return what a layer gives with another residual stream in it."""
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    return [hidden, *output[1:]] if isinstance(output, list) else hidden
