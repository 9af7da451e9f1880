"""What a steering vector does to a state: it is added, or changes the state's coordinate along the direction.

With a direction v, the coordinate of a state h is c = (h . v) / (v . v): how many times it holds v. By every
operation but addition h becomes h + s (c' - c) v, where c' is the coordinate that is wanted and s the scale:
with 0 nothing happens, with 1 all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from embgeom._common.checks import real_number
from embgeom.errors import InputError
from embgeom.lm.layers import need_torch
from embgeom.steering.directions import Direction, Directions

Operation = Literal["add", "ablate", "project_to", "clamp"]
# What c' is: a number, or the least and the most that it may be.
Value = float | tuple[float | None, float | None] | None
OPERATIONS: tuple[Operation, ...] = get_args(Operation)


class Intervention(NamedTuple):
    """An operation with its value."""

    operation: Operation
    value: Value


def checked(operation: Operation, value: Value, directions: Directions) -> Value:
    """Return the value of an operation, which it must fit."""
    if operation not in OPERATIONS:
        raise InputError(f"operation = {operation!r:.40} is unknown: use {', '.join(OPERATIONS)}")
    if operation != "add" and (zeros := [layer for layer, row in directions.items() if not row.any()]):
        raise InputError(
            f"the direction of layer {zeros[0]} is zero, so no state has a coordinate along it to {operation}"
        )
    if operation == "project_to":
        wanted = real_number(1.0 if value is None else value, "value")
        if not math.isfinite(wanted):
            raise InputError(f"value = {wanted} is not finite")
        return wanted
    if operation == "clamp":
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise InputError(f'value = {value!r:.40}: "clamp" needs a pair, the least and the most, or None')
        low, high = (None if end is None else real_number(end, "value") for end in value)
        least, most = _ends((low, high))
        if not least <= most or low == high is None:
            raise InputError(f"value = {value!r:.60} leaves nothing between its ends, or everything")
        return low, high
    if value is not None:
        raise InputError(f'value = {value!r:.40} has no meaning for "{operation}"; leave it out')
    return None


def _ends(value: tuple[float | None, float | None]) -> tuple[float, float]:
    low, high = value
    return -math.inf if low is None else low, math.inf if high is None else high


def change(
    intervention: Intervention, direction: Direction, layer: int, factor: float
) -> Callable[[Any], Any]:
    """Return what makes of the states of a layer, (..., hidden_size), those that are steered."""
    if intervention.operation == "add":
        added = _OnDevice(_scaled(direction, layer, factor), layer)
        return lambda hidden: hidden + added.like(hidden)
    along = direction.astype(np.float64)
    unit = _OnDevice((along / np.linalg.norm(along)).astype(np.float32), layer)
    norm = float(np.linalg.norm(along))
    value = intervention.value
    ends = _ends(value) if isinstance(value, tuple) else (value or 0.0, value or 0.0)
    least, most = (end * norm for end in ends)

    def moved(hidden: Any) -> Any:
        # Half precision would round the sum over thousands of columns.
        wide = hidden.float()
        axis = unit.like(wide)
        length = (wide @ axis)[..., None]
        return (wide + factor * (length.clamp(least, most) - length) * axis).to(hidden.dtype)

    return moved


class _OnDevice:
    """A direction as a tensor of the dtype and on the device of the states that it meets."""

    def __init__(self, direction: Direction, layer: int) -> None:
        self._direction, self._layer = direction, layer
        self._ready = need_torch().from_numpy(direction)

    def like(self, hidden: Any) -> Any:
        if self._ready.device != hidden.device or self._ready.dtype != hidden.dtype:
            self._ready = self._converted(hidden)
        return self._ready

    def _converted(self, hidden: Any) -> Any:
        torch, largest = need_torch(), float(np.abs(self._direction).max())
        if largest > torch.finfo(hidden.dtype).max:
            raise InputError(
                f"the scaled direction of layer {self._layer} reaches {largest:.3g}, more than "
                f"{hidden.dtype} holds; use a smaller scale, or load the model in bfloat16"
            )
        return torch.from_numpy(self._direction).to(device=hidden.device, dtype=hidden.dtype)


def _scaled(direction: Direction, layer: int, factor: float) -> Direction:
    with np.errstate(over="ignore"):
        scaled = (direction.astype(np.float64) * factor).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise InputError(
            f"the direction of layer {layer} times {factor:g} exceeds float32; use a smaller scale"
        )
    return scaled
