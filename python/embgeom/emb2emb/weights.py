"""How much each pair of tokens counts in a fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector
from embgeom.emb2emb.arrays import real_array
from embgeom.emb2emb.solve import Method
from embgeom.errors import InputError


def checked_weights(weights: npt.ArrayLike | None, count: int, method: Method) -> Float64Vector | None:
    """Return the weights of all pairs as float64, None where all count the same.

    Raises
    ------
    InputError
        If they are not one finite number for each pair, from 0 on and not all 0, or the method takes none.
    """
    if weights is None:
        return None
    if method == "lle":
        raise InputError("method 'lle' fits nothing, so weights have no meaning for it")
    values = real_array(weights, "weights")
    if values.shape != (count,):
        raise InputError(
            f"weights must be one number for each of the {count} pairs, not of shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError("weights must be finite, not negative, and not all zero")
    return values


def normalized(weights: Float64Vector) -> Float64Vector:
    """Scale the weights of the pairs that are fitted on to mean 1.

    Raises
    ------
    InputError
        If all of these are 0.
    """
    if not weights.any():
        raise InputError("weights are zero for all pairs that are not held out; weigh more pairs")
    # The largest first, so that no sum overflows.
    weights = weights / weights.max()
    return np.asarray(weights / weights.mean())
