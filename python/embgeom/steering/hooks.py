"""Adding a steering vector to the residual stream while a model runs."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.checks import real_number
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.layers import Layout, find, need_torch
from embgeom.lm.projection import projection
from embgeom.lm.stream import in_output, with_stream
from embgeom.lm.watching import View, Watch
from embgeom.steering.directions import Direction, placed
from embgeom.steering.positions import Chosen, chooser

if TYPE_CHECKING:
    from embgeom.steering.vector import SteeringVector


def apply(
    vector: SteeringVector,
    model: Any,
    scale: float | Mapping[int, float] = 1.0,
    *,
    layers: int | Iterable[int] | None = None,
    positions: Any = "all",
    generated: bool = True,
    layer_modules: Any = None,
) -> Handle:
    """Add the vector to a model's residual stream, until the handle is removed.

    Parameters
    ----------
    vector : SteeringVector
        What is added. As a method, `SteeringVector.apply`, the vector is `self`.
    model : torch.nn.Module
        A causal language model of transformers, or a wrapper around it, on any devices. Steer it before it
        is compiled.
    scale : float, or mapping of int to float
        The factor of every direction, or of each layer's.
    layers : int or iterable of int, optional
        Only these layers of the vector. A vector with a single direction may be put at others.
    positions : {"all", "generated"} or bool array_like, shape (batch, prompt length) or (prompt length,)
        ``"all"``: each token of the prompt and each generated one. ``"generated"``: from the prompt's last
        token on, since that one makes the first new token. Or a mask over the columns of the prompt,
        padding included. Padding is never steered.
    generated : bool
        With a mask: whether the tokens after the prompt are steered, too.
    layer_modules : str or torch.nn.ModuleList, optional
        The layers, or their path in the model, where they are not found by themselves.

    Returns
    -------
    Handle
        At work already. ``with vector.apply(model): ...`` removes it in the end whatever happens;
        ``handle.remove()`` does otherwise.

    Raises
    ------
    InputError
        If the hidden sizes differ, the model has no such layer, its layers are not found, or an option is
        unknown; while the model runs, if a mask does not fit the prompt or the scaled direction exceeds
        what the model's dtype holds.

    Warns
    -----
    EmbgeomWarning
        When the handle is removed, if the model has run meanwhile and left out a steered layer, or ran it
        past its hooks (``layer.forward(x)`` instead of ``layer(x)``, as some fast paths do).

    Notes
    -----
    The attention mask that the model receives tells padding; without one every position counts, as it
    does for the model. ``inputs_embeds`` are positions like tokens. Inside ``generate`` all holds with and
    without a cache, in beams, samples and chunks. Where the model is called by other means, a call with an
    empty cache is a prompt and a call with a filled one goes on from it; so in a loop of one's own without
    a cache ``"generated"`` would start at each call's last token: a mask with `generated` says it instead.

    Several vectors in one model add up. The hidden states that a model returns are the steered ones.
    Gradients pass. While a vector is at work, ``generate`` compiles nothing.

    Examples
    --------
    >>> import embgeom
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    >>> joy = embgeom.SteeringVector.from_words(folder, [" happy"], [" sad"], layers=2)
    >>> prompt = tokenizer("Once upon a time", return_tensors="pt")
    >>> with joy.apply(model, 2.0) as handle:
    ...     steered = model.generate(**prompt, max_new_tokens=3, do_sample=False)
    >>> handle.active
    False
    """
    layout = find(model, layer_modules)
    if layout.hidden_size is not None and layout.hidden_size != vector.hidden_size:
        raise InputError(
            f"the vector has hidden size {vector.hidden_size}, the residual stream of {type(model).__name__} "
            f"{layout.hidden_size}: {_unlike(layout, vector.hidden_size)}"
        )
    directions = placed(vector.directions, layers)
    layout.numbers(directions)
    factors = _factors(scale, list(directions))
    scaled = {layer: _scaled(direction, layer, factors[layer]) for layer, direction in directions.items()}
    return Handle(layout, scaled, chooser(positions, generated))


def remove_all(model: Any, layer_modules: Any = None) -> None:
    """Remove every vector that is at work in a model, those whose handles are lost included.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    layer_modules : str or torch.nn.ModuleList, optional
        Where its layers are, as it was given to `SteeringVector.apply`.

    Raises
    ------
    InputError
        If the model's layers are not found.
    """
    for handle in Watch.of(find(model, layer_modules)).subscribers:
        handle.remove()


class Handle:
    """A vector at work in a model, until `remove` or the end of a ``with`` block.

    Attributes
    ----------
    layers : tuple of int
        The layers whose output it changes.
    active : bool
        Whether it is still at work.
    """

    def __init__(self, layout: Layout, directions: dict[int, Direction], chosen: Chosen) -> None:
        self.layers = tuple(directions)
        self.active = True
        self._model_passes = self._stack_passes = 0
        self._skipped: Counter[int] = Counter()
        self._choose = chosen
        self._chosen: tuple[View | None, Any] = (None, None)
        self._watch = Watch.of(layout)
        self._undo: list[Callable[[], None]] = []
        try:
            self._watch.subscribe(self)
            for layer, direction in directions.items():
                hook = self._adder(layer, direction)
                # Before other hooks, so that whoever records the layer's output records what goes on from it.
                self._undo.append(layout.layers[layer].register_forward_hook(hook, prepend=True).remove)
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """End it: the model is as it was before, but for other vectors. May be called again.

        Warns
        -----
        EmbgeomWarning
            If the model ran meanwhile, and a layer not with it.
        """
        self._end(told=True)

    def check(self) -> None:
        """Make sure that the vector was added wherever the model ran.

        Raises
        ------
        InputError
            If a layer was steered in none of the model's forward passes so far.
        """
        if (missed := self._missed()) and missed[1] == 0:
            raise InputError(_left_out(*missed))

    def stack_ran(self, layers: set[int]) -> None:
        """Note a forward pass of the stack, in which these layers were steered."""
        self._stack_passes += 1
        self._skipped.update(set(self.layers) - layers)

    def model_ran(self) -> None:
        """Note a forward pass of the model."""
        self._model_passes += 1

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end(told=error is None)

    def _end(self, *, told: bool) -> None:
        was_active, self.active = self.active, False
        while self._undo:
            self._undo.pop()()
        self._watch.unsubscribe(self)
        if told and was_active and (missed := self._missed()):
            # Of the user's call of `remove`, or the end of a `with` block.
            warnings.warn(_left_out(*missed), EmbgeomWarning, stacklevel=3)

    def _missed(self) -> tuple[int, int, int] | None:
        """Return the layer that was steered least, in how many passes it was, of how many; None if in all."""
        # A model that calls the forward of the stack itself runs none of the stack's hooks either.
        passes = self._stack_passes or self._model_passes
        layer = max(self.layers, key=self._skipped.__getitem__)
        skipped = self._skipped[layer] if self._stack_passes else passes
        return (layer, passes - skipped, passes) if skipped else None

    def __repr__(self) -> str:
        return f"Handle(layers {', '.join(map(str, self.layers))}, {'active' if self.active else 'removed'})"

    def _adder(self, layer: int, direction: Direction) -> Callable[..., Any]:
        """Return the hook that adds a direction to a layer's output."""
        ready = need_torch().from_numpy(direction)

        def add(_layer: Any, _args: Any, output: Any) -> Any:
            nonlocal ready
            hidden = in_output(output, layer, len(direction))
            if ready.device != hidden.device or ready.dtype != hidden.dtype:
                ready = _converted(direction, layer, hidden)
            steered = self._where_chosen(hidden, hidden + ready)
            self._watch.layer_ran(self, layer)
            return with_stream(output, steered)

        return add

    def _where_chosen(self, hidden: Any, steered: Any) -> Any:
        """Return `steered` at the positions that are steered, `hidden` elsewhere."""
        view = self._watch.view
        if view is None:
            raise InputError(
                "the layers ran outside the model's forward pass, so nothing tells their positions"
            )
        seen, chosen = self._chosen
        if seen is not view:
            chosen = self._choose(view)
            self._chosen = (view, chosen)
        if (view.batch, view.length) != tuple(hidden.shape[:2]):
            raise InputError(
                f"a layer gives {tuple(hidden.shape[:2])} positions, but the model got {view.batch} "
                f"sequences of {view.length}; such a model cannot be steered"
            )
        if chosen is None:
            return steered
        return need_torch().where(chosen.to(hidden.device)[..., None], steered, hidden)


def _unlike(layout: Layout, size: int) -> str:
    """Say why a vector of another size than the residual stream does not fit."""
    found = projection(layout)
    if found is not None and found.size == size:
        return (
            f"the model projects it to {size} before the unembedding ({found.name}), and the vector is of "
            "that size; make vectors of words and maps with embgeom.steering.fold_projection(unembedding, "
            "model)"
        )
    return "it is another model's; embgeom.Emb2Emb.transfer carries a vector over"


def _left_out(layer: int, steered: int, passes: int) -> str:
    return (
        f"layer {layer} was steered in {steered} of {passes} forward passes: in the others the model left it "
        "out, or ran it past its hooks, by layer.forward(x) instead of layer(x); load the model as "
        "transformers has it, without layer dropping or a fast path of another library"
    )


def _factors(scale: float | Mapping[int, float], layers: list[int]) -> dict[int, float]:
    """Return the factor for each layer."""
    if not isinstance(scale, Mapping):
        scale = dict.fromkeys(layers, scale)
    if odd := sorted(set(layers) ^ set(scale)):
        lacks = "has no number for" if odd[0] in layers else "has a number for"
        raise InputError(
            f"scale {lacks} layer {odd[0]}; the layers steered are {', '.join(map(str, layers))}"
        )
    factors = {layer: real_number(scale[layer], "scale") for layer in layers}
    if wrong := [factor for factor in factors.values() if not math.isfinite(factor)]:
        raise InputError(f"scale = {wrong[0]} is not finite")
    return factors


def _scaled(direction: Direction, layer: int, factor: float) -> Direction:
    with np.errstate(over="ignore"):
        scaled = (direction.astype(np.float64) * factor).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise InputError(
            f"the direction of layer {layer} times {factor:g} exceeds float32; use a smaller scale"
        )
    return scaled


def _converted(direction: Direction, layer: int, hidden: Any) -> Any:
    """Return a direction as a tensor of the device and dtype of a layer's output."""
    torch = need_torch()
    largest = float(np.abs(direction).max())
    if largest > torch.finfo(hidden.dtype).max:
        raise InputError(
            f"the scaled direction of layer {layer} reaches {largest:.3g}, more than {hidden.dtype} holds; "
            "use a smaller scale, or load the model in bfloat16"
        )
    return torch.from_numpy(direction).to(device=hidden.device, dtype=hidden.dtype)
