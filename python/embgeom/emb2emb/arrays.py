"""Arrays that users give to maps, as float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom.errors import InputError

# Far above any vector, and far enough below the limit of float32 for what a map makes of it.
_LARGEST = 1e30


def real_array(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    """Return real numbers as a float64 array, or say that they are none.

    Raises
    ------
    InputError
        If `values` is no array of real numbers: strings, complex numbers, a masked array, rows that differ
        in length.
    """
    return as_real_array(values, name).astype(np.float64, copy=False)


def vectors_of_width(vectors: npt.ArrayLike, width: int, what: str) -> npt.NDArray[np.float64]:
    """Return one vector (width,) or a stack of them (m, width) as float64.

    Parameters
    ----------
    vectors : array_like
        What the user gave.
    width : int
        The length of each.
    what : str
        What takes them, for the message.

    Returns
    -------
    ndarray of float64, shape (width,) or (m, width)
        The vectors.

    Raises
    ------
    InputError
        If the shape is another, there are none, or a number is NaN, infinite or too large.
    """
    array = real_array(vectors, "the vectors")
    if array.ndim not in (1, 2) or array.shape[-1] != width:
        raise InputError(
            f"{what} takes vectors of width {width}, ({width},) or (m, {width}), not of shape {array.shape}"
        )
    if array.size == 0:
        raise InputError(f"there are no vectors: their shape is {array.shape}")
    if not (np.abs(array) < _LARGEST).all():
        raise InputError(f"the vectors hold NaN, infinity, or a number beyond {_LARGEST:g}")
    return array
