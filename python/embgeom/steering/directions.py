"""The directions of a steering vector: one for each of some blocks, all of one width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom.errors import InputError
from embgeom.lm.blocks import block_numbers

Direction = npt.NDArray[np.float32]


def checked(directions: Mapping[int, npt.ArrayLike]) -> dict[int, Direction]:
    """Return the directions in ascending order of blocks, as read-only float32.

    Raises
    ------
    InputError
        If there is none, a block is no number of a block, or a direction does not fit.
    """
    if not isinstance(directions, Mapping):
        raise InputError(f"directions are a mapping from blocks to arrays, not a {type(directions).__name__}")
    if not directions:
        raise InputError("a steering vector needs a direction for one block at least")
    for block in directions:
        if not isinstance(block, int | np.integer) or isinstance(block, bool) or block < 0:
            raise InputError(f"block {block!r} is no number of a block; blocks are counted from 0")
    found = {int(block): _direction(directions[block], block) for block in sorted(directions)}
    if len({len(direction) for direction in found.values()}) != 1:
        widths = {block: len(direction) for block, direction in found.items()}
        raise InputError(f"the directions differ in length: {widths}")
    return found


def placed(directions: Mapping[int, Direction], blocks: int | Iterable[int] | None) -> dict[int, Direction]:
    """Return the direction for each block that is to be steered: a single one may be put at any blocks.

    Raises
    ------
    InputError
        If a block is no number of a block, or has none of several directions.
    """
    if blocks is None:
        return dict(directions)
    wanted = sorted(set(block_numbers(blocks)))
    if len(directions) == 1:
        (direction,) = directions.values()
        return dict.fromkeys(wanted, direction)
    return chosen(directions, wanted)


def chosen(directions: Mapping[int, Direction], blocks: Iterable[int]) -> dict[int, Direction]:
    """Return the directions of some blocks.

    Raises
    ------
    InputError
        If a block has none.
    """
    wanted = list(blocks)
    if missing := [block for block in wanted if block not in directions]:
        raise InputError(
            f"the vector has no direction for block {missing[0]}; it has some for "
            f"{', '.join(map(str, directions))}"
        )
    return {block: directions[block] for block in wanted}


def _direction(values: npt.ArrayLike, block: int) -> Direction:
    given = as_real_array(values, f"the direction of block {block}")
    with np.errstate(over="ignore", under="ignore"):
        direction = np.array(given, dtype=np.float32)
    if direction.ndim != 1 or direction.size == 0:
        raise InputError(f"the direction of block {block} has shape {direction.shape}, not (width,)")
    if not np.isfinite(direction).all():
        raise InputError(f"the direction of block {block} holds NaN, infinity or a number beyond float32")
    if not direction.any() and given.astype(bool).any():
        raise InputError(f"the direction of block {block} is too small for float32, and would be 0")
    direction.flags.writeable = False
    return direction
