"""Which block of the target each block of a vector goes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from embgeom._common.checks import whole_number
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector


def places(
    vector: SteeringVector,
    blocks: Mapping[int, int] | int | None,
    depths: tuple[int | None, int | None],
) -> dict[int, int]:
    """Return the target's block for each block of the vector that is carried.

    Parameters
    ----------
    vector : SteeringVector
        The vector.
    blocks : int or mapping of int to int, optional
        What the user asked for; see `Emb2Emb.transfer`.
    depths : pair of (int or None)
        How many blocks the source and the target have, where it is known.

    Returns
    -------
    dict of int to int
        By block of the vector.

    Raises
    ------
    InputError
        If the vector lacks a block, two blocks go to one, or a model has no such block.
    """
    for block in vector.blocks:
        _check(block, depths[0], f"the vector has a direction for block {block}", "source")
    if blocks is None:
        found = _by_depth(vector.blocks, *depths)
    elif isinstance(blocks, Mapping):
        found = _by_mapping(vector, blocks)
    else:
        place = whole_number(blocks, "blocks", 0)
        if len(vector.blocks) != 1:
            raise InputError(
                f"blocks = {blocks!r} is one block, but the vector has {len(vector.blocks)}: choose one by "
                "vector.at([block]), or give a mapping from its blocks to the target's"
            )
        found = {vector.blocks[0]: place}
    for old, new in found.items():
        _check(new, depths[1], f"block {old} of the vector goes to block {new}", "target")
    return found


def _by_mapping(vector: SteeringVector, blocks: Mapping[int, int]) -> dict[int, int]:
    if not blocks:
        raise InputError("blocks = {} carries nothing over; map a block of the vector to one of the target")
    found = {
        whole_number(old, "a block of the vector in blocks", 0): whole_number(new, f"blocks[{old!r}]", 0)
        for old, new in blocks.items()
    }
    vector.at(found)
    if len(set(found.values())) != len(blocks):
        raise InputError(f"blocks = {dict(blocks)} sends two blocks to one of the target")
    return found


def _by_depth(blocks: tuple[int, ...], source: int | None, target: int | None) -> dict[int, int]:
    """Send blocks to the same ones, or, between models of unlike depth, to those that lie equally deep."""
    if source is None or target is None or source == target:
        return {block: block for block in blocks}
    from embgeom.lm.depth import relative_depth

    nearest: dict[int, int] = {}
    for block in blocks:
        place = relative_depth(block, source, target)
        rival = nearest.get(place, block)
        # The deeper of two that are equally near counts, as `relative_depth` decides, too.
        nearest[place] = min(block, rival, key=lambda b: (abs((b + 1) * target - (place + 1) * source), -b))
    return {block: place for place, block in nearest.items()}


def _check(block: int, depth: int | None, what: str, side: str) -> None:
    if depth is not None and block >= depth:
        raise InputError(
            f"{what}, but the {side} of the map has {depth} blocks, counted from 0: choose blocks up to "
            f"{depth - 1}, by {'vector.at' if side == 'source' else 'blocks='}"
        )
