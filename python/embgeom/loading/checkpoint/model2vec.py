"""The rows of a model2vec file of few vectors, which a running model finds by a mapping, and weighs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.safetensors_file import SafetensorsFile

_EMBEDDINGS = ("embeddings", "embedding.weight")
_MAPPING, _WEIGHTS = "mapping", "weights"


def embeddings_name(names: Iterable[str]) -> str | None:
    """Return the tensor of vectors in a file of model2vec which holds more than these."""
    held = set(names)
    name = next((name for name in _EMBEDDINGS if name in held), None)
    return name if name and held - {name} and held <= {name, _MAPPING, _WEIGHTS} else None


def token_rows(path: Path, name: str) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the row of each token as the running model computes it: mapped, and weighed."""
    file = SafetensorsFile(path)
    held = {key: file.array(key) for key in file.names}
    vectors, mapping, weights = held[name], held.get(_MAPPING), held.get(_WEIGHTS)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise LoadError(
            f"{path}: {name} is {vectors.dtype} {list(vectors.shape)}, not a matrix of floating point; take "
            "the model that was not quantized"
        )
    if mapping is not None:
        if mapping.ndim != 1 or mapping.dtype.kind not in "iu" or not _fits(mapping, len(vectors)):
            raise LoadError(f"{path}: {_MAPPING} does not name rows of {name}; fetch it again")
        vectors = vectors[mapping]
    if weights is not None:
        if weights.shape != (len(vectors),) or weights.dtype.kind != "f":
            raise LoadError(
                f"{path}: {_WEIGHTS} {list(weights.shape)} are not one for each of {len(vectors)} tokens"
            )
        vectors = vectors * weights[:, None]
    few = f"{len(held[name])} vectors stand for {len(vectors)} tokens, by its mapping"
    notes = ([few] if mapping is not None else []) + (
        ["each row is multiplied with its weight"] if weights is not None else []
    )
    with np.errstate(over="ignore", under="ignore"):
        return vectors.astype(np.float32), tuple(f"model2vec: {note}" for note in notes)


def _fits(mapping: npt.NDArray[np.integer], rows: int) -> bool:
    return mapping.size > 0 and int(mapping.min()) >= 0 and int(mapping.max()) < rows
