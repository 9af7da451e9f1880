"""Attention sinks: positions with enormous states that say nothing of the text, left out of every mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A state this many times as long as the median state of its text is a sink. Ordinary states of one layer
# differ by factors of up to three; sinks are 80 to 150 times as long as the median in SmolLM2 and Qwen2.5.
_TIMES_MEDIAN = 10.0


def kept_positions(norms: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return which positions of a text are no attention sinks, by the norms of their states.

    `norms` is (..., positions) of one text, from its first token on, with the special tokens that the
    tokenizer adds; leading axes, such as layers, stand for themselves. The first position is a sink whatever
    token it holds, and so is each that is more than ten times as long as the median of the later ones.
    """
    lengths = np.asarray(norms, dtype=np.float64)
    kept: npt.NDArray[Any] = np.zeros(lengths.shape, dtype=bool)
    if lengths.shape[-1] > 1:
        later = lengths[..., 1:]
        # Written so that NaN is kept: whoever takes the mean must see it.
        kept[..., 1:] = ~(later > _TIMES_MEDIAN * np.median(later, axis=-1, keepdims=True))
    return kept
