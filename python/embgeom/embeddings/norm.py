"""The norm before the unembedding, and how it is folded into the unembedding's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom.errors import InputError

NormKind = Literal["layer_norm", "layer_norm_plus_one", "rms_norm", "rms_norm_plus_one"]


@dataclass(frozen=True, eq=False, repr=False)
class FinalNorm:
    """The norm that a model applies to its residual stream before the unembedding.

    The logit of a token with row u is u . (g * n(h)), where n scales the residual stream h to a fixed length
    (a LayerNorm subtracts the mean of h first) and g is the norm's weight. With g folded in, the row u * g
    acts on n(h) directly: a direction added to h then changes the logits by its product with folded rows, but
    for the scaling.

    Attributes
    ----------
    weight : ndarray of float64, shape (d,)
        What each coordinate is multiplied with: for kinds ``..._plus_one``, one more than what the file
        holds.
    centers : bool
        Whether the norm subtracts the mean over coordinates, as a LayerNorm does.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom.embeddings.norm import FinalNorm
    >>> gemma = FinalNorm.from_weights([0.5, -0.5], "rms_norm_plus_one")
    >>> gemma.fold(np.array([[2.0, 2.0]])).tolist()
    [[3.0, 1.0]]
    """

    weight: npt.NDArray[np.float64]
    centers: bool

    def __repr__(self) -> str:
        low, high = self.weight.min(), self.weight.max()
        kind = "a LayerNorm" if self.centers else "an RMSNorm"
        return f"FinalNorm({kind} of {len(self.weight)} coordinates, weights {low:.3g} to {high:.3g})"

    @classmethod
    def from_weights(cls, weight: npt.ArrayLike, kind: NormKind) -> FinalNorm:
        """Make one from a weight as the model's file holds it.

        Parameters
        ----------
        weight : array_like, shape (d,)
            The weight.
        kind : {"layer_norm", "layer_norm_plus_one", "rms_norm", "rms_norm_plus_one"}
            How the model uses it; Gemma multiplies with 1 + weight.

        Raises
        ------
        InputError
            If the kind is unknown, or the weight is not a vector of finite numbers.
        """
        values = np.array(as_real_array(weight, "the weight of a final norm"), dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise InputError(
                f"the weight of a final norm is a vector of finite numbers, not of shape {values.shape} "
                "or with NaN or infinity"
            )
        if not isinstance(kind, str) or kind not in get_args(NormKind):
            raise InputError(
                f"kind = {kind!r} is no kind of norm: use one of {', '.join(get_args(NormKind))}"
            )
        return cls(values + 1.0 if kind.endswith("plus_one") else values, kind.startswith("layer_norm"))

    def fold(self, rows: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return rows (m, d) or a row (d,) of an unembedding with the norm folded in.

        A LayerNorm also sees no mean of the residual stream, so rows lose their mean over coordinates.
        """
        folded = as_real_array(rows, "the rows").astype(np.float64, copy=False) * self.weight
        return folded - folded.mean(axis=-1, keepdims=True) if self.centers else folded
