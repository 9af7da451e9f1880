"""The directions of a steering vector: one for each of some layers, all of one hidden size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom._common.checks import real_number
from embgeom._common.record import digest
from embgeom.errors import InputError
from embgeom.lm.layers import layer_numbers

Direction = npt.NDArray[np.float32]
Directions = Mapping[int, Direction]


def checked(directions: Mapping[int, npt.ArrayLike]) -> dict[int, Direction]:
    if not isinstance(directions, Mapping):
        raise InputError(f"directions are a mapping from layers to arrays, not a {type(directions).__name__}")
    if not directions:
        raise InputError("a steering vector needs a direction for one layer at least")
    for layer in directions:
        if not isinstance(layer, int | np.integer) or isinstance(layer, bool) or layer < 0:
            raise InputError(f"layer {layer!r} is not a layer number; layers are counted from 0")
    found = {int(layer): _direction(directions[layer], layer) for layer in sorted(directions)}
    sizes = {layer: len(direction) for layer, direction in found.items()}
    if len(set(sizes.values())) != 1:
        raise InputError(f"the directions differ in length: {sizes}")
    return found


def checked_spread(spread: Mapping[int, float]) -> dict[int, float]:
    """Return the spread of a model's states by layer, in ascending order."""
    if not isinstance(spread, Mapping):
        raise InputError(f"state_spread = {spread!r:.60} is not a mapping from layers to the states' spread")
    for layer, length in spread.items():
        whole = isinstance(layer, int | np.integer) and not isinstance(layer, bool) and layer >= 0
        if not whole or not 0 < real_number(length, f"state_spread[{layer!r}]") < np.inf:
            raise InputError(
                f"state_spread: {layer!r}: {length!r} is not a layer and a positive, finite length"
            )
    return {int(layer): float(spread[layer]) for layer in sorted(spread)}


def placed(directions: Directions, layers: int | Iterable[int] | None) -> dict[int, Direction]:
    if layers is None:
        return dict(directions)
    wanted = sorted(set(layer_numbers(layers)))
    if len(directions) == 1:
        (direction,) = directions.values()
        return dict.fromkeys(wanted, direction)
    return chosen(directions, wanted)


def chosen(directions: Directions, layers: int | Iterable[int]) -> dict[int, Direction]:
    wanted = layer_numbers(layers)
    if missing := [layer for layer in wanted if layer not in directions]:
        raise InputError(
            f"the vector has no direction for layer {missing[0]}; it has some for "
            f"{', '.join(map(str, directions))}"
        )
    return {layer: directions[layer] for layer in wanted}


def directions_digest(directions: Directions) -> str:
    return digest({str(layer): direction.tolist() for layer, direction in directions.items()})


def fingerprint(directions: Directions) -> dict[str, list[float]]:
    """Return numbers, layer by layer, that are the same for a positive multiple and for nothing else."""
    rows = {layer: direction.astype(np.float64) for layer, direction in directions.items()}
    length = np.sqrt(sum(float(row @ row) for row in rows.values())) or 1.0
    # Waves of unlike lengths, which lie across any direction as if drawn at random, on every machine alike.
    waves = np.cos(np.outer(np.arange(1, 17), np.arange(next(map(len, rows.values()))) ** 2.0))
    return {str(layer): (waves @ row / length).round(6).tolist() for layer, row in rows.items()}


def same_direction(one: Any, other: Any) -> bool:
    """Return whether two fingerprints are of one direction, but for rounding to 16 bits."""
    if not (isinstance(one, dict) and isinstance(other, dict) and one and one.keys() == other.keys()):
        return False
    return all(np.allclose(one[layer], other[layer], rtol=0, atol=0.01) for layer in one)


def _direction(values: npt.ArrayLike, layer: int) -> Direction:
    given = as_real_array(values, f"the direction of layer {layer}")
    with np.errstate(over="ignore", under="ignore"):
        direction = np.array(given, dtype=np.float32)
    if direction.ndim != 1 or direction.size == 0:
        raise InputError(f"the direction of layer {layer} has shape {direction.shape}, not (hidden_size,)")
    if not np.isfinite(direction).all():
        raise InputError(f"the direction of layer {layer} holds NaN, infinity or a number beyond float32")
    if not direction.any() and given.astype(bool).any():
        raise InputError(f"the direction of layer {layer} is too small for float32, and would be 0")
    direction.flags.writeable = False
    return direction


def check_length(norm: object) -> float:
    length = real_number(norm, "norm")
    if not 0 <= length < np.inf:
        raise InputError(f"norm = {length} is not a length; give a finite number from 0 on")
    return length
