"""Attention sinks: positions with enormous states that say nothing of the text, and what the others hold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

# A state this many times as long as the median state of its text is a sink. Ordinary states of one layer
# differ by factors of up to three; sinks are 80 to 150 times as long as the median in SmolLM2 and Qwen2.5.
_TIMES_MEDIAN = 10.0
# The least variance of a coordinate, as a share of the median, that counts as such.
_LEAST = 0.01


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


class StateMoments(NamedTuple):
    """Sums over the states of some layers that are no sinks: how many, the states, their squares."""

    # float64, (layers,), and twice (layers, hidden_size).
    counts: Float64Array
    totals: Float64Array
    squares: Float64Array

    @classmethod
    def of(cls, states: npt.NDArray[Any]) -> StateMoments:
        """Return those of one layer's states (n, hidden_size)."""
        rows = states.astype(np.float64)
        return cls(
            np.array([len(rows)], np.float64), rows.sum(axis=0)[None], np.square(rows).sum(axis=0)[None]
        )

    def joined(self, other: StateMoments) -> StateMoments:
        return StateMoments(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def spread(self) -> Float64Array:
        """The root of the number of coordinates times the harmonic mean of their variances, by layer.

        In the direction of a coordinate in which states hardly differ a model notices little changes, and of
        the few coordinates in which they differ enormously the harmonic mean takes no notice.
        """
        counts = np.where(self.counts > 0, self.counts, np.nan)[:, None]
        variances = np.maximum(self.squares / counts - (self.totals / counts) ** 2, 0)
        # One coordinate that never changes must not be the whole mean.
        least = _LEAST * np.median(variances, axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            harmonic = 1 / np.mean(1 / np.maximum(variances, least), axis=1)
        spread: Float64Array = np.sqrt(variances.shape[1] * harmonic)
        return spread
