"""Steering vectors from single words, by the unembedding alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embgeom._common.record import versions
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.lm.layers import layer_numbers

if TYPE_CHECKING:
    from embgeom.steering.vector import SteeringVector


def from_words(
    unembedding: Embeddings | str | PathLike[str],
    positive: Sequence[str],
    negative: Sequence[str] = (),
    *,
    layers: int | Iterable[int],
    name: str | None = None,
) -> SteeringVector:
    """Make a vector from single words: the mean of their rows in the unembedding, without a forward pass.

    Parameters
    ----------
    unembedding : Embeddings, str or path
        The model's unembedding as ``embgeom.load(model, "output")`` returns it, or what to load.
    positive : sequence of str
        Words to make likelier, each a single token, found as `Embeddings.index` finds it. Words inside a
        text are best written with the space before them: ``" joy"``.
    negative : sequence of str
        Words to make less likely. Without any, the mean over all tokens but special ones is subtracted:
        raising every token's logit alike changes nothing.
    layers : int or iterable of int
        The layers that get the direction, each the same.
    name : str, optional
        What to call the model; the name of `unembedding` by default.

    Returns
    -------
    SteeringVector
        The mean row of the positive words minus that of the negative ones. Its length is that of rows of
        an unembedding, far below that of a residual stream: `with_norm` sets it.

    Raises
    ------
    InputError
        If words are no single token (all of them are named), there is no positive one, or `unembedding` is
        an input embedding that is no unembedding, too.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:large", "output")
    >>> embgeom.SteeringVector.from_words(model, [" happy", " glad"], [" sad"], layers=3)
    SteeringVector('example:large', layers 3, hidden_size 192)
    """
    # Not at the head: the class takes its method `from_words` from this module.
    from embgeom.steering.vector import SteeringVector

    numbers = layer_numbers(layers)
    words = {"positive": _listed(positive, "positive"), "negative": _listed(negative, "negative")}
    if not words["positive"]:
        raise InputError("positive holds no word; give one at least")
    model = _unembedding(unembedding)
    rows = _rows(model, words)
    other = _mean(model, rows["negative"] or _all_tokens(model))
    direction = (_mean(model, rows["positive"]) - other).astype(np.float32)
    if not direction.any():
        raise InputError("the positive and the negative words have the same mean, so there is no direction")
    source = model.provenance
    provenance = {
        "made_by": "from_words",
        **words,
        "rows": rows,
        "model": model.name,
        "unembedding": list(model.matrix.shape),
        "source": source.source,
        "commit": source.revision,
        "tensor": source.tensor,
        "versions": versions(),
    }
    return SteeringVector(dict.fromkeys(numbers, direction), name or model.name, provenance, model.model_info)


def _listed(words: Sequence[str], side: str) -> list[str]:
    if isinstance(words, str):
        raise InputError(f"{side} = {words!r} is one string; give a list of words")
    return list(words)


def _unembedding(given: Embeddings | str | PathLike[str]) -> Embeddings:
    if isinstance(given, str | PathLike):
        from embgeom.loading import load

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


def _rows(model: Embeddings, words: dict[str, list[str]]) -> dict[str, list[int]]:
    """Return the rows of the words, or name all of those that are no single token."""
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
            f"them as the model does, with the space before them ({missing[0][1]})"
        ) from missing[0][1]
    return rows


def _all_tokens(model: Embeddings) -> list[int]:
    return [int(row) for row in np.flatnonzero(model.has_token & ~model.special & ~model.zero)]


def _mean(model: Embeddings, rows: list[int]) -> npt.NDArray[np.float64]:
    # Row by row in batches, so that a whole vocabulary is never copied in float64.
    total = np.zeros(model.matrix.shape[1])
    for start in range(0, len(rows), 4096):
        total += model.matrix[rows[start : start + 4096]].sum(axis=0, dtype=np.float64)
    return total / len(rows)
