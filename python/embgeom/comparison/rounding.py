"""Rows that differ only by how they are stored: equal, or equal once one is rounded."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix

Format = Literal["bfloat16", "float16"]
Side = Literal["base", "tuned"]
_Mask = npt.NDArray[np.bool_]
_PIECE = 4096


def rounded(x: Float32Matrix, to: Format) -> Float32Matrix:
    """Return numbers rounded to the nearest of a format, as float32."""
    if to == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    # To the upper 16 bits of the float32; a tie goes to the even one.
    bits = x.view(np.uint32)
    up = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    upper: Float32Matrix = ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)
    return upper


def equal_rows(base: Float32Matrix, tuned: Float32Matrix) -> tuple[_Mask, dict[tuple[Side, Format], _Mask]]:
    """Return which rows are equal, and which are once those of one side are rounded to a format."""
    equal = np.empty(len(base), dtype=bool)
    alike = {
        (side, to): np.empty(len(base), dtype=bool) for side in get_args(Side) for to in get_args(Format)
    }
    for begin in range(0, len(base), _PIECE):
        part = slice(begin, begin + _PIECE)
        x, y = base[part], tuned[part]
        equal[part] = (x == y).all(axis=1)
        for (side, to), mask in alike.items():
            first, second = (x, y) if side == "base" else (y, x)
            mask[part] = (rounded(first, to) == second).all(axis=1) & ~equal[part]
    return equal, alike
