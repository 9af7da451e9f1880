"""A direction from single words, by the unembedding alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.record import versions
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.loading import load


def unembedding_of(given: Embeddings | str | PathLike[str]) -> Embeddings:
    """Return the matrix by which a model writes words, loaded if it is given by name."""
    if isinstance(given, str | PathLike):
        return load(given, "output")
    if not isinstance(given, Embeddings):
        raise InputError(
            f"an object of type {type(given).__name__} has no tokens to look words up in; give "
            "embgeom.load(model, 'output'), or the model's name"
        )
    if given.which != "output" and not given.provenance.tied:
        raise InputError(
            f"{given!r} is an input embedding, but words are written by the unembedding: load it by "
            "embgeom.load(model, 'output')"
        )
    return given


def from_words(
    model: Embeddings, positive: Sequence[str], negative: Sequence[str]
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    words = {"positive": positive, "negative": negative}
    for side, listed in words.items():
        if isinstance(listed, str):
            raise InputError(f"{side} = {listed!r} is one string; give a list of words")
    if not positive:
        raise InputError("positive holds no word; give one at least")
    rows = _rows(model, words)
    ordinary = np.flatnonzero(model.has_token & ~model.special & ~model.zero).tolist()
    direction = _mean(model, rows["positive"]) - _mean(model, rows["negative"] or ordinary)
    if not direction.any():
        raise InputError("the positive and the negative words have the same mean, so there is no direction")
    return direction.astype(np.float32), {
        "made_by": "from_words",
        **{side: list(listed) for side, listed in words.items()},
        "rows": rows,
        "model": model.name,
        "unembedding": list(model.matrix.shape),
        "source": model.provenance.source,
        "commit": model.provenance.revision,
        "tensor": model.provenance.tensor,
        "versions": versions(),
    }


def _rows(model: Embeddings, words: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return the rows of the words, or name all of those that are not a single token."""
    rows: dict[str, list[int]] = {side: [] for side in words}
    missing = []
    for side, listed in words.items():
        for word in listed:
            try:
                rows[side].append(model.row_of(word))
            except InputError as error:
                missing.append((word, error))
    if missing:
        named = ", ".join(repr(word) for word, _ in missing)
        raise InputError(
            f"no single token of {model.name} spells {named}; leave out words of several tokens, or write "
            f"them as the model does, with a leading space ({missing[0][1]})"
        ) from missing[0][1]
    return rows


def _mean(model: Embeddings, rows: list[int]) -> npt.NDArray[np.float64]:
    # In batches, so that a whole vocabulary is never copied in float64.
    total = np.zeros(model.matrix.shape[1])
    for start in range(0, len(rows), 4096):
        total += model.matrix[rows[start : start + 4096]].sum(axis=0, dtype=np.float64)
    return total / len(rows)
