"""What the readers of vector files give to whoever makes a vector of it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError

# More than a direction for each of 1,000 layers of the widest models: what is larger is a model.
_MOST_NUMBERS = 1 << 25


class Content(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    header : dict of str to str
        What embgeom, or the format itself, says of the vector.
    tensors : dict of name to ndarray of float32
        The tensors, whatever their shapes.
    facts : mapping of str to object
        What another tool says beside the tensors: strings, numbers and truth values.
    """

    header: dict[str, str]
    tensors: Mapping[Any, npt.NDArray[np.float32]]
    facts: Mapping[str, object]


def check_size(shapes: Mapping[Any, tuple[int, ...]], file: Path) -> None:
    """Refuse, before they are read, tensors that are together too large for a steering vector.

    Raises
    ------
    LoadError
        If they are.
    """
    numbers = sum(map(prod, shapes.values()))
    if numbers > _MOST_NUMBERS:
        largest = max(shapes, key=lambda name: prod(shapes[name]))
        raise LoadError(
            f"{file} holds {numbers} numbers, {largest!r:.60} of shape {tuple(shapes[largest])} among them; "
            "a steering vector is one row for each layer: name the file of the vector, not that of a model"
        )
