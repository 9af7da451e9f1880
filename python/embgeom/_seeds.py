"""What seeds may be."""

from __future__ import annotations

import operator

from embgeom.errors import InputError


def check_seed(seed: int) -> int:
    """Return `seed` as an int, or say what it may be."""
    try:
        number = operator.index(seed)
    except TypeError:
        raise InputError(f"seed must be a whole number, not {seed!r}") from None
    if number < 0:
        raise InputError(f"seed = {number} must be at least 0")
    return number
