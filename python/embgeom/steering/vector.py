"""A steering vector: one direction for each of some layers of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from embgeom._common.checks import real_number
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError
from embgeom.lm.layers import layer_numbers
from embgeom.steering import hooks, training, words
from embgeom.steering.directions import Direction, checked, chosen


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """Directions that are added to the residual stream of a model to change what it says.

    Made by `train` from contrastive pairs, by `from_words` from the unembedding, by `load`, or by
    `embgeom.Emb2Emb.transfer` from another model's vector.

    Attributes
    ----------
    directions : dict of int to ndarray of float32, shape (d,)
        By layer, counted from 0. The direction of layer i is added to the *output* of layer i. transformers
        returns that as ``hidden_states[i + 1]``, but as ``hidden_states[i]`` in Mamba, Mamba 2, FalconMamba
        and RWKV; and nearly every model's ``hidden_states[-1]`` has passed the final norm, so that the last
        layer's output is not among them. Layers come in ascending order; arrays are read-only.
    model : str
        The model that it is for.
    provenance : dict
        How it came about, ready for JSON: what was trained on, with which options, from which model; what
        changes directions adds to it.
    model_info : ModelInfo
        Which model it was made from; without a name where that is not known.

    Raises
    ------
    InputError
        If there is no direction, a layer is negative, directions differ in length, or one holds NaN or
        infinity.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom import SteeringVector
    >>> joy = SteeringVector({2: np.array([3.0, 4.0])}, model="toy")
    >>> joy, joy.norms
    (SteeringVector('toy', layers 2, hidden_size 2), {2: 5.0})
    >>> (2 * joy - joy).directions[2].tolist()
    [3.0, 4.0]
    """

    directions: dict[int, Direction]
    model: str = "model"
    provenance: dict[str, Any] = field(default_factory=dict)
    model_info: ModelInfo = field(default_factory=ModelInfo)

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", checked(self.directions))
        for name, kind in (("model", str), ("provenance", Mapping)):
            if not isinstance(value := getattr(self, name), kind):
                raise InputError(f"{name} = {value!r:.60} is no {kind.__name__.lower()}")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a direction, in ascending order."""
        return tuple(self.directions)

    @property
    def hidden_size(self) -> int:
        """The length of each direction: the hidden size of the model."""
        return len(next(iter(self.directions.values())))

    @property
    def norms(self) -> dict[int, float]:
        """The Euclidean norm of each direction."""
        return {layer: float(np.linalg.norm(v.astype(np.float64))) for layer, v in self.directions.items()}

    def select_layers(self, layers: int | Iterable[int]) -> SteeringVector:
        """Return the vector with the directions of some of its layers only.

        Raises
        ------
        InputError
            If a layer has no direction.
        """
        return replace(self, directions=chosen(self.directions, layer_numbers(layers)))

    def with_norm(self, norm: float | SteeringVector) -> SteeringVector:
        """Return the vector scaled to a norm in every layer, or to another vector's norms, layer by layer.

        Raises
        ------
        InputError
            If a direction is zero, `norm` is negative or not finite, or the other vector lacks a layer.
        """
        if isinstance(norm, SteeringVector):
            wanted = norm.select_layers(self.layers).norms
        else:
            length = real_number(norm, "norm")
            if not 0 <= length < np.inf:
                raise InputError(f"norm = {length} is no length; give a finite number from 0 on")
            wanted = dict.fromkeys(self.layers, length)
        if zeros := [layer for layer, length in self.norms.items() if length == 0]:
            raise InputError(f"the direction of layer {zeros[0]} is zero, so it has no norm to change")
        scaled: dict[int, Any] = {
            layer: self.directions[layer].astype(np.float64) * (wanted[layer] / length)
            for layer, length in self.norms.items()
        }
        norms = {str(layer): length for layer, length in wanted.items()}
        return replace(self, directions=scaled, provenance={**self.provenance, "scaled_to_norms": norms})

    train = staticmethod(training.train)
    from_words = staticmethod(words.from_words)
    apply = hooks.apply

    def save(self, path: str | PathLike[str]) -> None:
        """Write the vector as one file, whole or not at all; a file that exists is replaced.

        Parameters
        ----------
        path : str or path-like
            The suffix says the format: ``.safetensors``, ``.pt`` (PyTorch), or ``.gguf``, the control vectors
            of llama.cpp. All hold the directions as float32, the model and the provenance.

        Raises
        ------
        OutputError
            If the file cannot be written, or has another suffix.
        InputError
            If the provenance is not ready for JSON, a GGUF file is asked of a vector with a direction for
            layer 0, which llama.cpp never steers, or the package that writes the format is missing.

        See Also
        --------
        load : Read it again; what the formats mean by a layer is said there.
        """
        from embgeom.steering.files import save_vector

        save_vector(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], *, layer: int | None = None) -> SteeringVector:
        """Read a vector from a file that `save` or another tool has written; no code in it is run.

        Parameters
        ----------
        path : str or path-like
            ``.safetensors`` and ``.pt``: what `save` writes, or tensors of shape (d,) by layer: ``{3: ...}``,
            ``{"3": ...}``, ``{"direction.3": ...}``, ``{"layer_3": ...}``, in a .pt also under
            ``"directions"`` or, as in the library steering-vectors, ``"layer_activations"``; or one tensor
            alone. ``.npz`` and ``.npy``: the same by NumPy.
            ``.gguf``: a control vector of llama.cpp or repeng.
        layer : int, optional
            The layer, counted from 0, of a tensor that stands alone in its file.

        Returns
        -------
        SteeringVector
            float16 and bfloat16 are read exactly, float64 is rounded.

        Raises
        ------
        LoadError
            If the file cannot be read, holds no steering vector, or says that its directions are meant for
            another operation than addition.

        Warns
        -----
        EmbgeomWarning
            If the file names a factor, which is not applied, or a place that embgeom does not know.
        InputError
            If `layer` is no layer, or the package that reads the format is missing.

        Notes
        -----
        A file of another tool is taken to mean by layer i what `directions` means by layer i: added to the
        output of layer i, counted from 0. That is so in repeng, in steering-vectors and in llama.cpp, which
        adds ``direction.i`` to the output of its layer i, counted from 0, and so never steers layer 0.
        llama.cpp's own cvector-generator, though, stores as ``direction.<i + 1>`` what it measured behind
        layer i; it is read as llama.cpp applies it.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from embgeom import SteeringVector
        >>> joy = SteeringVector({2: np.array([3.0, 4.0])}, model="toy")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     joy.save(Path(folder) / "joy.safetensors")
        ...     SteeringVector.load(Path(folder) / "joy.safetensors")
        SteeringVector('toy', layers 2, hidden_size 2)
        """
        from embgeom.steering.files import load_vector

        return load_vector(path, layer=layer)

    def __add__(self, other: SteeringVector) -> SteeringVector:
        """Add another vector of the same hidden size; a layer that one of them lacks counts as zero."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        if self.hidden_size != other.hidden_size:
            raise InputError(
                f"vectors of hidden size {self.hidden_size} and {other.hidden_size} do not add up; "
                "carry one of them over with embgeom.Emb2Emb.transfer first"
            )
        zero = np.zeros(self.hidden_size, dtype=np.float32)
        layers = sorted({*self.layers, *other.layers})
        sums = {b: self.directions.get(b, zero) + other.directions.get(b, zero) for b in layers}
        return SteeringVector(
            sums, self.model, {"sum_of": [self.provenance, other.provenance]}, self.model_info
        )

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + (-other)

    def __mul__(self, factor: float) -> SteeringVector:
        if not isinstance(factor, int | float | np.number):
            return NotImplemented
        # In float64, so that neither the factor nor the product is rounded to nothing on the way.
        scaled: dict[int, Any] = {b: v.astype(np.float64) * float(factor) for b, v in self.directions.items()}
        return SteeringVector(
            scaled, self.model, {"times": float(factor), "of": self.provenance}, self.model_info
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> SteeringVector:
        if not isinstance(divisor, int | float | np.number):
            return NotImplemented
        if divisor == 0:
            raise InputError("a steering vector cannot be divided by 0")
        return self * (1 / float(divisor))

    def __neg__(self) -> SteeringVector:
        return self * -1

    def __repr__(self) -> str:
        layers = ", ".join(map(str, self.layers))
        return f"SteeringVector({self.model!r}, layers {layers}, hidden_size {self.hidden_size})"
