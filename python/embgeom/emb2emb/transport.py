"""Carrying arrays over a map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import real_number
from embgeom._common.threads import resolve_threads
from embgeom.emb2emb.arrays import vectors_of_width
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.emb2emb.map import Emb2Emb

Transport = Literal["primal", "dual", "logits"]


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
    array = vectors_of_width(vectors, carrier.widths[0], repr(carrier))
    carried = carry_rows(carrier, np.atleast_2d(array), transport, threads)
    if norm is not None:
        carried = _scaled(carried, norm)
    if not (np.abs(carried) <= np.finfo(np.float32).max).all():
        raise InputError(f"{carrier!r} carries the vectors to numbers beyond float32; scale them down")
    return carried.reshape(*array.shape[:-1], -1).astype(np.float32)


def predict_rows(carrier: Emb2Emb, rows: npt.ArrayLike, threads: int | None) -> npt.NDArray[np.float64]:
    """Predict one row or several; see `Emb2Emb.predict`.

    Raises
    ------
    InputError
        If the shape or a value does not fit.
    """
    array = vectors_of_width(rows, carrier.widths[0], repr(carrier))
    carried = carry_rows(carrier, np.atleast_2d(array) - carrier.source_mean, "primal", threads)
    return (carried + carrier.target_mean).reshape(*array.shape[:-1], -1)


def check_transport(transport: Transport) -> Transport:
    """Return `transport`, or say which there are.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if not isinstance(transport, str) or transport not in get_args(Transport):
        raise InputError(f"transport = {transport!r} is unknown: use one of {', '.join(get_args(Transport))}")
    return transport


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
    team = resolve_threads(threads)
    transport = default_transport(carrier) if transport is None else check_transport(transport)
    if transport == "primal" and carrier.neighbors is not None:
        return carrier.neighbors.carry(vectors, team)
    matrices = {"primal": "matrix", "dual": "dual_matrix", "logits": "logits_matrix"}
    # What is too large is told of by its user, not by NumPy's warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(vectors @ getattr(carrier, matrices[transport]))


def _scaled(carried: npt.NDArray[np.float64], norm: float) -> npt.NDArray[np.float64]:
    length = real_number(norm, "norm")
    if not (np.isfinite(length) and length >= 0):
        raise InputError(f"norm = {length} is no length; give a number from 0 on")
    lengths = np.linalg.norm(carried, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise InputError("a vector is carried to zero, which has no norm to change")
    return np.asarray(carried * (length / lengths))
