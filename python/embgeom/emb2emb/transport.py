"""Carrying arrays and steering vectors over a map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import numpy as np
import numpy.typing as npt

from embgeom._numbers import real_number, whole_number
from embgeom._threads import resolve_threads
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.emb2emb.map import Emb2Emb, Transport
    from embgeom.steering import SteeringVector


# Far above any vector, and far enough below the limit of float32 for what a map makes of it.
_LARGEST = 1e30


def carry_array(
    carrier: Emb2Emb,
    vectors: npt.ArrayLike,
    transport: Transport | None,
    norm: float | None,
    threads: int | None,
) -> npt.NDArray[np.float32]:
    """Carry one vector or a stack of them; see `Emb2Emb.transfer`.

    Raises
    ------
    InputError
        If the shape or a value does not fit, or a result to be scaled is zero.
    """
    try:
        array = np.asarray(vectors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"the vectors are not an array of real numbers: {error}") from None
    width = carrier.widths[0]
    if array.ndim not in (1, 2) or array.shape[-1] != width:
        raise InputError(
            f"{carrier!r} takes vectors of width {width}, (d,) or (m, d), not of shape {array.shape}"
        )
    if array.size == 0:
        raise InputError(f"there are no vectors: their shape is {array.shape}")
    if not (np.abs(array) < _LARGEST).all():
        raise InputError(f"the vectors hold NaN, infinity, or a number beyond {_LARGEST:g}")
    carried = carry_rows(carrier, np.atleast_2d(array), transport, threads)
    if norm is not None:
        carried = _scaled(carried, norm)
    return carried.reshape(*array.shape[:-1], -1).astype(np.float32)


def default_transport(carrier: Emb2Emb) -> Transport:
    """Return the transport of a map where none is asked for."""
    return "primal" if carrier.neighbors is not None else "dual"


def carry_rows(
    carrier: Emb2Emb, vectors: npt.NDArray[np.float64], transport: Transport | None, threads: int | None
) -> npt.NDArray[np.float64]:
    """Carry vectors (m, d_s) by one of the transports, to (m, d_t) float64.

    Raises
    ------
    InputError
        If the transport is unknown, or "dual" is asked of a map that is not linear.
    """
    from embgeom.emb2emb.map import Transport

    transport = transport or default_transport(carrier)
    if transport not in get_args(Transport):
        raise InputError(f"transport = {transport!r} is unknown: use one of {', '.join(get_args(Transport))}")
    if transport == "primal" and carrier.neighbors is not None:
        return carrier.neighbors.carry(vectors, resolve_threads(threads))
    matrices = {"primal": "matrix", "dual": "dual_matrix", "logits": "logits_matrix"}
    return np.asarray(vectors @ getattr(carrier, matrices[transport]))


def carry_vector(
    carrier: Emb2Emb,
    vector: SteeringVector,
    transport: Transport | None,
    blocks: Mapping[int, int] | int | None,
    norm: float | SteeringVector | None,
    threads: int | None,
) -> SteeringVector:
    """Carry a steering vector; see `Emb2Emb.transfer`.

    Raises
    ------
    InputError
        If the width or a block does not fit, or a result to be scaled is zero.
    """
    from embgeom.steering import SteeringVector

    places = _places(vector, blocks)
    stack = np.stack([vector.directions[block] for block in places])
    carried = carry_array(carrier, stack, transport, None, threads)
    names = carrier.provenance.get("names", ["source", "target"])
    result = SteeringVector(
        dict(zip(places.values(), carried, strict=True)),
        model=names[1],
        provenance={
            "carried_from": {"model": vector.model, "provenance": vector.provenance},
            "transport": transport or default_transport(carrier),
            "blocks": {str(old): new for old, new in places.items()},
            "map": carrier.provenance,
        },
    )
    return result if norm is None else result.with_norm(norm)


def _places(vector: SteeringVector, blocks: Mapping[int, int] | int | None) -> dict[int, int]:
    """Return the target's block for each block of the vector that is carried."""
    if blocks is None:
        return {block: block for block in vector.blocks}
    if not isinstance(blocks, Mapping):
        if len(vector.blocks) != 1:
            raise InputError(
                f"blocks = {blocks!r} is one block, but the vector has {len(vector.blocks)}: choose one by "
                "vector.at([block]), or give a mapping from its blocks to the target's"
            )
        return {vector.blocks[0]: whole_number(blocks, "blocks", 0)}
    if not blocks:
        raise InputError("blocks = {} carries nothing over; map a block of the vector to one of the target")
    vector.at(blocks)
    places = {old: whole_number(new, f"blocks[{old}]", 0) for old, new in blocks.items()}
    if len(set(places.values())) != len(places):
        raise InputError(f"blocks = {dict(blocks)} sends two blocks to one of the target")
    return places


def _scaled(carried: npt.NDArray[np.float64], norm: float) -> npt.NDArray[np.float64]:
    length = real_number(norm, "norm")
    if not (np.isfinite(length) and length >= 0):
        raise InputError(f"norm = {length} is no length; give a number from 0 on")
    lengths = np.linalg.norm(carried, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise InputError("a vector is carried to zero, which has no norm to change")
    return np.asarray(carried * (length / lengths))
