"""Transferring arrays over a map."""

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

TransferMode = Literal["primal", "dual", "logits"]


def transfer_array(
    mapping: Emb2Emb,
    vectors: npt.ArrayLike,
    mode: TransferMode | None,
    norm: float | None,
    threads: int | None,
) -> npt.NDArray[np.float32]:
    """Transfer one vector or a stack of them; see `Emb2Emb.transfer`.

    Raises
    ------
    InputError
        If the shape or a value does not fit, or a result to be scaled is zero.
    """
    array = vectors_of_width(vectors, mapping.widths[0], repr(mapping))
    transferred = transfer_rows(mapping, np.atleast_2d(array), mode, threads)
    if norm is not None:
        transferred = _scaled(transferred, norm)
    if not (np.abs(transferred) <= np.finfo(np.float32).max).all():
        raise InputError(f"{mapping!r} transfers the vectors to numbers beyond float32; scale them down")
    return transferred.reshape(*array.shape[:-1], -1).astype(np.float32)


def predict_rows(mapping: Emb2Emb, rows: npt.ArrayLike, threads: int | None) -> npt.NDArray[np.float64]:
    """Predict one row or several; see `Emb2Emb.predict`.

    Raises
    ------
    InputError
        If the shape or a value does not fit.
    """
    array = vectors_of_width(rows, mapping.widths[0], repr(mapping))
    transferred = transfer_rows(mapping, np.atleast_2d(array) - mapping.source_mean, "primal", threads)
    return (transferred + mapping.target_mean).reshape(*array.shape[:-1], -1)


def check_mode(mode: TransferMode) -> TransferMode:
    """Return `mode`, or say which there are.

    Raises
    ------
    InputError
        If it is none of them.
    """
    if not isinstance(mode, str) or mode not in get_args(TransferMode):
        raise InputError(f"mode = {mode!r} is unknown: use one of {', '.join(get_args(TransferMode))}")
    return mode


def default_mode(mapping: Emb2Emb) -> TransferMode:
    """Return the mode of a map where none is asked for."""
    return "primal" if mapping.neighbors is not None else "dual"


def transfer_rows(
    mapping: Emb2Emb, vectors: npt.NDArray[np.float64], mode: TransferMode | None, threads: int | None
) -> npt.NDArray[np.float64]:
    """Transfer vectors (m, d_s) by one of the modes, to (m, d_t) float64.

    Raises
    ------
    InputError
        If the mode is unknown, or "dual" is asked of a map that is not linear.
    """
    team = resolve_threads(threads)
    mode = default_mode(mapping) if mode is None else check_mode(mode)
    if mode == "primal" and mapping.neighbors is not None:
        return mapping.neighbors.transfer(vectors, team)
    matrices = {"primal": "matrix", "dual": "dual_matrix", "logits": "logits_matrix"}
    # What is too large is told of by its user, not by NumPy's warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(vectors @ getattr(mapping, matrices[mode]))


def _scaled(transferred: npt.NDArray[np.float64], norm: float) -> npt.NDArray[np.float64]:
    length = real_number(norm, "norm")
    if not (np.isfinite(length) and length >= 0):
        raise InputError(f"norm = {length} is no length; give a number from 0 on")
    lengths = np.linalg.norm(transferred, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise InputError("a vector is transferred to zero, which has no norm to change")
    return np.asarray(transferred * (length / lengths))
