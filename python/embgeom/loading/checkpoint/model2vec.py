"""The rows of a model2vec file of few vectors, which a running model finds by a mapping, and weighs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.convert import check_dtype
from embgeom.loading.safetensors_file import SafetensorsFile

_EMBEDDINGS = ("embeddings", "embedding.weight")


def embeddings_name(names: Iterable[str]) -> str | None:
    """Return the tensor of vectors in a file of model2vec that holds more than these, else None."""
    held = set(names)
    name = next((name for name in _EMBEDDINGS if name in held), None)
    return name if name and held - {name} and held <= {name, "mapping", "weights"} else None


def token_rows(path: Path, name: str) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the row of each token as the running model computes it, mapped and weighed, and notes."""
    file = SafetensorsFile(path)
    check_dtype(file.dtype(name), f"{name} in {path}")
    # NumPy has no bfloat16.
    vectors: npt.NDArray[Any] = file.read(name) if file.dtype(name) == "BF16" else file.array(name)
    mapping, weights = (file.array(key) if key in file.names else None for key in ("mapping", "weights"))
    count, notes = len(vectors), []
    if mapping is not None:
        fits = mapping.ndim == 1 and mapping.dtype.kind in "iu" and mapping.size > 0
        if not fits or not 0 <= int(mapping.min()) <= int(mapping.max()) < count:
            raise LoadError(f"{path}: mapping does not name rows of {name}; fetch it again")
        vectors = vectors[mapping]
        notes.append(f"model2vec: {count} vectors stand for {len(vectors)} tokens, by its mapping")
    if weights is not None:
        if weights.shape != (len(vectors),) or weights.dtype.kind != "f":
            raise LoadError(
                f"{path}: weights {list(weights.shape)} are not one for each of {len(vectors)} tokens"
            )
        vectors = vectors * weights[:, None]
        notes.append("model2vec: each row is multiplied with its weight")
    with np.errstate(over="ignore", under="ignore"):
        return vectors.astype(np.float32), tuple(notes)
