"""A steering vector: one direction for each of some layers of a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import numpy as np

from embgeom._common.progress import Progress
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError
from embgeom.lm.language_model import model_info, model_name
from embgeom.lm.layers import layer_numbers
from embgeom.steering import files, hooks, operations, training
from embgeom.steering.directions import Direction, check_length, checked, checked_spread, chosen
from embgeom.steering.hooks import Mask, Positions
from embgeom.steering.operations import Operation, Value


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """Directions by which the residual stream of a model is changed, to change what it says.

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
        What to call the model that it is for.
    provenance : dict
        How it came about, ready for JSON: what was trained on, with which options, from which model; what
        changes directions adds to it.
    model_info : ModelInfo
        Which model it was made from; without a name where that is not known.
    state_spread : dict of int to float
        How far the model's states differ after each layer that was read, as
        `embgeom.steering.state_spread` measures it; empty where that is not known.
    operation : {"add", "ablate", "project_to", "clamp"}
        What is done to a state: the direction is added to it, or its coordinate along the direction (how many
        times it holds the direction) becomes 0, or `value`, or is kept between the two of `value`.
        ``dataclasses.replace(vector, operation="ablate")`` makes a vector of another operation.
    value : float, pair or None
        The coordinate for ``"project_to"``, 1 by default; for ``"clamp"`` the least and the most, None for no
        such end. As a multiple of the direction: 1 is the direction's own length.

    Raises
    ------
    InputError
        If there is no direction, a layer is negative, directions differ in length, or one holds NaN or
        infinity; or an operation is unknown or lacks its value.

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
    state_spread: dict[int, float] = field(default_factory=dict)
    operation: Operation = "add"
    value: Value = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", checked(self.directions))
        object.__setattr__(self, "state_spread", checked_spread(self.state_spread))
        value = operations.checked(self.operation, self.value, self.directions)
        object.__setattr__(self, "value", value)
        for name, kind in (("model", str), ("provenance", Mapping), ("model_info", ModelInfo)):
            if not isinstance(value := getattr(self, name), kind):
                raise InputError(f"{name} = {value!r:.60} is not a {kind.__name__.lower()}")

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a direction, in ascending order."""
        return tuple(self.directions)

    @property
    def hidden_size(self) -> int:
        """The length of each direction: the size of the model's residual stream."""
        return len(next(iter(self.directions.values())))

    @property
    def norms(self) -> dict[int, float]:
        """The Euclidean norm of each direction."""
        return {layer: float(np.linalg.norm(v.astype(np.float64))) for layer, v in self.directions.items()}

    @classmethod
    def train(
        cls,
        model: Any,
        tokenizer: Any,
        pairs: Iterable[Sequence[str]],
        *,
        layers: int | Iterable[int] | None = None,
        method: training.Method = "mean",
        token_position: training.TokenPosition = "last",
        batch_size: int = 8,
        add_special_tokens: bool = True,
        skip_long: bool = False,
        name: str | None = None,
        layer_modules: Any = None,
        progress: Progress = False,
    ) -> SteeringVector:
        """Make a vector from pairs of texts that differ in what is to be steered.

        Parameters
        ----------
        model : transformers.PreTrainedModel
            A causal language model, on any device and of any floating dtype.
        tokenizer : transformers.PreTrainedTokenizerBase
            Its tokenizer. It need not have a padding token, and is not changed.
        pairs : iterable of (str, str)
            A positive and a negative text each, such as `embgeom.steering.read_pairs` reads.
        layers : int or iterable of int, optional
            The layers to read and give directions for, counted from 0; all by default.
        method : {"mean", "pca"}
            ``"mean"``: the mean of positive minus negative. ``"pca"``: the first principal component of these
            differences, not centered. Its sign is such that positive texts lie higher on the average, its
            length the root mean square of the differences' projections on it; so scale 1 means much the same
            for both methods.
        token_position : {"last", "mean", "answer"} or negative int
            Where the residual stream is read: at each text's last token; the mean over its tokens; the mean
            over those after the beginning that the two texts of the pair share; or at the token at that index
            from the end. Tokens that the tokenizer adds do not count, nor in means attention sinks: the first
            token, and those whose state is more than ten times as long as the median of the text.
        batch_size : int
            Texts in one forward pass. It has no effect on the result but by rounding.
        add_special_tokens : bool
            Let the tokenizer add its special tokens; False for texts that hold them, as chat templates do.
        skip_long : bool
            Leave out pairs of which a text is longer than the model reads, instead of raising an error.
        name : str, optional
            What to call the model; by default what it was loaded as.
        layer_modules : str or torch.nn.ModuleList, optional
            The layers, or their path in the model, where they are not found by themselves.
        progress : bool or callable
            True for a bar on standard error, or a line a minute in a log; or a callable
            ``(phase, done, total)``.

        Returns
        -------
        SteeringVector
            With a direction for each of `layers`. Its provenance holds the options, the pairs' number and
            SHA-256, the model's name, commit and the SHA-256 of its config, and versions; for means over
            positions how many were left out as sinks, by layer; for ``"pca"`` the share of the differences'
            squares that each direction explains. `state_spread` is that of 30 neutral texts.

        Raises
        ------
        InputError
            If an option is unknown, a text is too short or (unless `skip_long`) too long to be read, no pair
            differs up to where it is read, a direction is zero, or the model cannot read the texts or gives
            NaN; or its layers are not found, do not run as modules, once each, or keep no single stream.

        Warns
        -----
        EmbgeomWarning
            If texts begin with the beginning-of-text token twice or lack the one that the tokenizer adds, are
            read at the token that ends a text, or all at the same last token; or if there are fewer than ten
            pairs.

        Notes
        -----
        Two forward passes in eval mode for each `batch_size` pairs, up to the last of `layers`, and those of
        `embgeom.steering.state_spread`. Differences are summed in float64; ``"pca"`` keeps them, 4 bytes for
        each pair, layer and column, and solves an eigenproblem of the smaller of pairs and hidden size for
        each layer. Vectors that are applied to the model act while it is read.

        References
        ----------
        Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.
        Zou et al. (2023). Representation engineering. arXiv:2310.01405.

        Examples
        --------
        >>> import embgeom
        >>> small = embgeom.steering.load_language_model("example:small")
        >>> pairs = [("Tom was happy.", "Tom was sad."), ("They laughed.", "They cried.")]
        >>> embgeom.SteeringVector.train(*small, pairs, layers=[1, 2])
        SteeringVector('example:small', layers 1, 2, hidden_size 128)
        """
        options = training.TrainOptions(method, token_position, batch_size, add_special_tokens, skip_long)
        found, made, norms = training.train(model, tokenizer, pairs, layers, options, layer_modules, progress)
        return cls(checked(found), name or model_name(model), made, model_info(model), norms)

    @classmethod
    def from_words(
        cls,
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
            Words to make likelier, each a single token, found as `Embeddings.row_of` finds it. Words inside a
            text are best written with a leading space: ``" joy"``.
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
            If words are not single tokens (all of them are named), there is no positive one, or `unembedding`
            is an input embedding that is not an unembedding, too.

        Examples
        --------
        >>> import embgeom
        >>> model = embgeom.load("example:large", "output")
        >>> embgeom.SteeringVector.from_words(model, [" happy", " glad"], [" sad"], layers=3)
        SteeringVector('example:large', layers 3, hidden_size 192)
        """
        numbers, model = layer_numbers(layers), training.unembedding_of(unembedding)
        direction, provenance = training.from_words(model, positive, negative)
        return cls(dict.fromkeys(numbers, direction), name or model.name, provenance, model.model_info)

    def apply(
        self,
        model: Any,
        scale: float | Mapping[int, float] = 1.0,
        *,
        layers: int | Iterable[int] | None = None,
        positions: Positions | Mask = "all",
        generated: bool = True,
        layer_modules: Any = None,
    ) -> hooks.Handle:
        """Change a model's residual stream by the vector's operation, until the handle is removed.

        Parameters
        ----------
        model : torch.nn.Module
            A causal language model of transformers, or a wrapper around it, on any devices. Steer it before
            it is compiled.
        scale : float, or mapping of int to float
            The factor of every direction, or of each layer's. Of another operation than addition, how much of
            it is done: nothing with 0, all of it with 1.
        layers : int or iterable of int, optional
            Only these layers of the vector. A vector with a single direction may be put at others.
        positions : {"all", "generated"} or bool array_like, shape (batch, prompt length) or (prompt length,)
            ``"all"``: each token of the prompt and each generated one. ``"generated"``: from the prompt's
            last token on, since that one makes the first new token. Or a mask over the columns of the prompt,
            padding included. Padding is never steered.
        generated : bool
            With a mask: whether the tokens after the prompt are steered, too.
        layer_modules : str or torch.nn.ModuleList, optional
            The layers, or their path in the model, where they are not found by themselves.

        Returns
        -------
        Handle
            Active already. ``with vector.apply(model): ...`` or ``handle.remove()`` removes it.

        Raises
        ------
        InputError
            If the hidden sizes differ, the model has no such layer, its layers are not found, or an option is
            unknown; while the model runs, if a mask does not fit the prompt or the scaled direction exceeds
            what the model's dtype holds.

        Warns
        -----
        EmbgeomWarning
            When the handle is removed, if the model has run meanwhile and left out a steered layer, ran it
            past its hooks (``layer.forward(x)`` instead of ``layer(x)``, as some fast paths do), or ran it
            several times in one pass, as looped models do.

        Notes
        -----
        The attention mask that the model receives tells padding; without one every position counts. Inside
        ``generate`` all holds with and without a cache, in beams, samples and chunks. Outside, a call with an
        empty cache is a prompt and one with a filled cache continues it; so in a loop of one's own without a
        cache ``"generated"`` would start at each call's last token: pass a mask with `generated` instead.

        Several vectors in one model act one after the other, the latest first. The hidden states that a model
        returns are the steered ones. Gradients pass. While a vector is applied, nothing is compiled.

        Examples
        --------
        >>> import embgeom
        >>> model, tokenizer = embgeom.steering.load_language_model("example:small")
        >>> joy = embgeom.SteeringVector.from_words("example:small", [" happy"], [" sad"], layers=2)
        >>> prompt = tokenizer("Once upon a time", return_tensors="pt").to(model.device)
        >>> with joy.apply(model, 2.0) as handle:
        ...     steered = model.generate(**prompt, max_new_tokens=3, do_sample=False)
        >>> handle.active
        False
        """
        intervention = operations.Intervention(self.operation, self.value)
        return hooks.apply(
            self.directions, intervention, model, scale, layers, positions, generated, layer_modules
        )

    def select_layers(self, layers: int | Iterable[int]) -> SteeringVector:
        """Return the vector with the directions of some of its layers only.

        Raises
        ------
        InputError
            If a layer has no direction.
        """
        return replace(self, directions=chosen(self.directions, layers))

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
            wanted = dict.fromkeys(self.layers, check_length(norm))
        if zeros := [layer for layer, length in self.norms.items() if length == 0]:
            raise InputError(f"the direction of layer {zeros[0]} is zero, so it has no norm to change")
        factors = {layer: wanted[layer] / length for layer, length in self.norms.items()}
        norms = {str(layer): length for layer, length in wanted.items()}
        return self._scaled(factors, {**self.provenance, "scaled_to_norms": norms})

    def save(self, path: str | PathLike[str], *, hookpoints: str | None = None) -> None:
        """Write the vector as one file, atomically; a file that exists is replaced.

        Parameters
        ----------
        path : str or path-like
            The suffix says the format: ``.safetensors``, ``.pt`` (PyTorch), ``.npz`` (NumPy), or ``.gguf``,
            the control vectors of llama.cpp. All hold the directions as float32, the model and the
            provenance; and the operation such that no reader takes it for addition.
        hookpoints : str, optional
            What layers are called in the model, such as ``"layers.{}"`` in Llama, ``"h.{}"`` in GPT-2: a
            ``.pt`` is written that lm-evaluation-harness reads as ``steer_path`` of its model ``steered``.

        Raises
        ------
        OutputError
            If the file cannot be written, or has another suffix.
        InputError
            If the provenance is not ready for JSON, the package that writes the format is missing, or the
            format does not know the operation or, as GGUF, directions for layer 0.
        """
        held = files.Fields(*(getattr(self, name) for name in files.Fields._fields))
        files.save(path, held, hookpoints)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        layer: int | None = None,
        operation: Operation | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> SteeringVector:
        """Read a vector from a file that `save` or another tool has written; no code in it is run.

        Parameters
        ----------
        path : str or path-like
            ``.safetensors``, ``.pt``, ``.npz`` and ``.npy``: what `save` writes, or tensors of shape (d,) by
            layer: ``{3: ...}``, ``{"direction.3": ...}``, ``{"layer_3": ...}``, in a .pt also under
            ``"directions"`` or, as in the library steering-vectors, ``"layer_activations"``; or one alone.
            ``.gguf``: a control vector of llama.cpp or repeng. ``owner/name/path/to/file``: a file on the
            Hugging Face Hub, where there is none on this machine.
        layer : int, optional
            The layer, counted from 0, of a tensor that stands alone in its file, or whose row to take from
            persona vectors.
        operation : {"add", "ablate", "project_to"}, optional
            What to do with the directions of another tool's file, also where the file says that they are not
            to be added.
        revision : str, optional
            Branch, tag or commit of a file on the Hub.
        local_files_only : bool
            Whether to use what the cache holds and fetch nothing.

        Returns
        -------
        SteeringVector
            float16 and bfloat16 are read exactly, float64 is rounded.

        Raises
        ------
        LoadError
            If the file cannot be read or found, holds no steering vector, or says that its directions are
            meant for another operation than addition, and `operation` is not given.
        InputError
            If `layer` is not a layer, or the package that reads the format is missing.

        Warns
        -----
        EmbgeomWarning
            If the file names a factor, which is not applied, or a place that embgeom does not know.

        Notes
        -----
        Layer i of another tool's file is taken to mean what `directions` means, as in repeng,
        steering-vectors and llama.cpp. Of persona vectors (``*_response_avg_diff.pt`` and the like) row i + 1
        is read for layer i, and the last one, which has passed the final norm, for none. A ``direction.pt``
        whose ``direction_metadata.json`` names layer i, as code for refusal directions writes, means the
        input of that layer, so it is read for layer i - 1.

        Examples
        --------
        >>> import tempfile
        >>> from embgeom import SteeringVector
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     SteeringVector({2: [3.0, 4.0]}, model="toy").save(f"{folder}/joy.safetensors")
        ...     SteeringVector.load(f"{folder}/joy.safetensors")
        SteeringVector('toy', layers 2, hidden_size 2)
        """
        return cls(*files.load(path, layer, operation, revision, local_files_only))

    def __add__(self, other: SteeringVector) -> SteeringVector:
        """Add another vector of the same hidden size; a layer that one of them lacks counts as zero."""
        if not isinstance(other, SteeringVector):
            return NotImplemented
        if self.hidden_size != other.hidden_size:
            raise InputError(
                f"vectors of hidden size {self.hidden_size} and {other.hidden_size} do not add up; "
                "transfer one of them with embgeom.Emb2Emb.transfer first"
            )
        if {self.operation, other.operation} != {"add"}:
            raise InputError("only vectors that are added can be summed; apply these one after the other")
        zero = np.zeros(self.hidden_size, dtype=np.float32)
        layers = sorted({*self.layers, *other.layers})
        sums = {b: self.directions.get(b, zero) + other.directions.get(b, zero) for b in layers}
        made, spread = {"sum_of": [self.provenance, other.provenance]}, other.state_spread | self.state_spread
        return replace(self, directions=sums, provenance=made, state_spread=spread)

    def __sub__(self, other: SteeringVector) -> SteeringVector:
        return self + (-other)

    def __mul__(self, factor: float) -> SteeringVector:
        if not isinstance(factor, int | float | np.number):
            return NotImplemented
        factors = dict.fromkeys(self.layers, float(factor))
        return self._scaled(factors, {"times": float(factor), "of": self.provenance})

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

    def _scaled(self, factors: dict[int, float], provenance: dict[str, Any]) -> SteeringVector:
        # In float64, so that neither a factor nor a product is rounded to nothing on the way.
        scaled: dict[int, Any] = {b: v.astype(np.float64) * factors[b] for b, v in self.directions.items()}
        return replace(self, directions=scaled, provenance=provenance)
