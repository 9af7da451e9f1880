"""Changing the residual stream by directions while a model runs, at some positions."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy.typing as npt

from embgeom._common.checks import real_number
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.layers import Layout, find, need_torch, projection, stream_in_output, with_stream
from embgeom.lm.tracker import ForwardContext, PassTracker
from embgeom.steering.directions import Directions, placed
from embgeom.steering.operations import Intervention, change

Positions = Literal["all", "generated"]
# A boolean mask over the columns of the prompts, (prompts, columns) or (columns,).
Mask = npt.ArrayLike
# Returns the states of a layer as they are to be.
Change = Callable[[Any], Any]
# Returns a bool tensor (batch, length); None means all positions.
Chooser = Callable[[ForwardContext], Any]


def apply(
    directions: Directions,
    intervention: Intervention,
    model: Any,
    scale: float | Mapping[int, float],
    layers: int | Iterable[int] | None,
    positions: Positions | Mask,
    generated: bool,
    layer_modules: Any,
) -> Handle:
    layout = find(model, layer_modules)
    size = len(next(iter(directions.values())))
    if layout.hidden_size is not None and layout.hidden_size != size:
        raise InputError(
            f"the vector has hidden size {size}, the residual stream of {type(model).__name__} "
            f"{layout.hidden_size}: {_unlike(layout, size)}"
        )
    steered = placed(directions, layers)
    layout.numbers(steered)
    factors = _factors(scale, list(steered))
    changes = {layer: change(intervention, row, layer, factors[layer]) for layer, row in steered.items()}
    return Handle(layout, changes, size, chooser(positions, generated))


class Handle:
    """A vector that is applied to a model, until `remove` or the end of a ``with`` block.

    Attributes
    ----------
    layers : tuple of int
        The layers whose output it changes.
    active : bool
        Whether it is still applied.
    """

    def __init__(self, layout: Layout, changes: dict[int, Change], size: int, choose: Chooser) -> None:
        self.layers = tuple(changes)
        self.active = True
        self._size = size
        self._model_passes = self._stack_passes = 0
        # How often the layer ran that ran most often in one pass of the model, and which it is.
        self._repeated = (1, self.layers[0])
        self._skipped: Counter[int] = Counter()
        self._choose = choose
        self._chosen: tuple[ForwardContext | None, Any] = (None, None)
        self._tracker = PassTracker.for_model(layout)
        self._undo: list[Callable[[], None]] = []
        self._tracker.subscribe(self)
        for layer, steered in changes.items():
            hook = self._changer(layer, steered)
            # Before other hooks, so that whoever records the layer's output records what goes on from it.
            self._undo.append(layout.layers[layer].register_forward_hook(hook, prepend=True).remove)

    def remove(self) -> None:
        """End it: the model is as it was before, but for other vectors. May be called again.

        Warns
        -----
        EmbgeomWarning
            If the model ran meanwhile, and a layer not with it, or more than once in one pass.
        """
        self._end(warn=True)

    def check(self) -> None:
        """Make sure that the vector was added wherever the model ran.

        Raises
        ------
        InputError
            If a layer was steered in none of the model's forward passes so far.
        """
        if (missed := self._missed()) and missed[1] == 0:
            raise InputError(_left_out(*missed))

    def stack_ran(self, layers: Counter[int]) -> None:
        """Note a forward pass of the stack, in which these layers were steered so many times."""
        self._stack_passes += 1
        self._skipped.update(set(self.layers) - set(layers))

    def model_ran(self, layers: Counter[int]) -> None:
        """Note a forward pass of the model, in which these layers were steered so many times."""
        self._model_passes += 1
        for layer, times in layers.items():
            self._repeated = max(self._repeated, (times, layer))

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end(warn=error is None)

    def _end(self, *, warn: bool) -> None:
        was_active, self.active = self.active, False
        while self._undo:
            self._undo.pop()()
        self._tracker.unsubscribe(self)
        if not (warn and was_active):
            return
        # At the user's call of `remove`, or the end of a `with` block.
        if missed := self._missed():
            warnings.warn(_left_out(*missed), EmbgeomWarning, stacklevel=3)
        times, layer = self._repeated
        if times > 1:
            warnings.warn(
                f"layer {layer} ran {times} times in one forward pass, and the vector acted each time: a "
                "model that runs its layers in a loop is steered more strongly than one that does not; use a "
                "smaller scale",
                EmbgeomWarning,
                stacklevel=3,
            )

    def _missed(self) -> tuple[int, int, int] | None:
        """Return the layer that was steered least, in how many passes it was, of how many; None if in all."""
        # A model that calls the forward of the stack itself runs none of the stack's hooks either.
        passes = self._stack_passes or self._model_passes
        layer = max(self.layers, key=self._skipped.__getitem__)
        skipped = self._skipped[layer] if self._stack_passes else passes
        return (layer, passes - skipped, passes) if skipped else None

    def __repr__(self) -> str:
        return f"Handle(layers {', '.join(map(str, self.layers))}, {'active' if self.active else 'removed'})"

    def _changer(self, layer: int, change: Change) -> Callable[..., Any]:
        def steer(_layer: Any, _args: Any, output: Any) -> Any:
            hidden = stream_in_output(output, layer, self._size)
            steered = self._where_chosen(hidden, change(hidden))
            self._tracker.layer_ran(self, layer)
            return with_stream(output, steered)

        return steer

    def _where_chosen(self, hidden: Any, steered: Any) -> Any:
        """Return `steered` at the positions that are steered, `hidden` elsewhere."""
        context = self._tracker.context
        if context is None:
            raise InputError(
                "the layers ran outside the model's forward pass, so their positions are not known"
            )
        seen, chosen = self._chosen
        if seen is not context:
            chosen = self._choose(context)
            self._chosen = (context, chosen)
        if (context.batch, context.length) != tuple(hidden.shape[:2]):
            raise InputError(
                f"a layer gives {tuple(hidden.shape[:2])} positions, but the model got {context.batch} "
                f"sequences of {context.length}; such a model cannot be steered"
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
    return "it is another model's; embgeom.Emb2Emb.transfer transfers a vector to this one"


def _left_out(layer: int, steered: int, passes: int) -> str:
    return (
        f"layer {layer} was steered in {steered} of {passes} forward passes: in the others the model left it "
        "out, or ran it past its hooks, by layer.forward(x) instead of layer(x); load the model as "
        "transformers has it, without layer dropping or a fast path of another library"
    )


def _factors(scale: float | Mapping[int, float], layers: list[int]) -> dict[int, float]:
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


def chooser(positions: Positions | Mask, generated: bool) -> Chooser:
    if isinstance(positions, str) and positions in ("all", "generated"):
        if not generated:
            raise InputError(
                f"generated=False goes with a mask over the prompt, not with positions={positions!r}"
            )
        return (lambda context: context.valid) if positions == "all" else _from_last_prompt_token
    mask = _mask(positions)
    return lambda context: _in_mask(context, mask, generated)


def _from_last_prompt_token(context: ForwardContext) -> Any:
    columns_of_prompt = context.length if context.prompt is None else context.prompt.columns
    # Outside of generate, whatever comes after a filled cache counts as new.
    if context.start >= columns_of_prompt or (context.prompt is None and context.start > 0):
        return context.valid
    columns = need_torch().arange(context.start, context.start + context.length, device=context.device)[None]
    last = _last_prompt_column(context, columns_of_prompt)
    chosen = (columns >= columns_of_prompt) | (columns == last)
    return _and_valid(chosen.expand(context.batch, -1), context)


def _last_prompt_column(context: ForwardContext, columns: int) -> Any:
    """Return the column of each sequence's last prompt token, (batch, 1); padding may follow it."""
    torch = need_torch()
    if context.prompt is not None and context.prompt.valid is not None:
        valid = _for_batch(context.prompt.valid.to(context.device), context)
    elif context.valid is not None and context.start == 0 and context.length >= columns:
        valid = context.valid[:, :columns]
    else:
        return columns - 1
    return torch.where(valid, torch.arange(columns, device=valid.device), -1).amax(1, keepdim=True)


def _in_mask(context: ForwardContext, mask: Any, generated: bool) -> Any:
    torch, prompt = need_torch(), context.prompt
    if prompt is not None and prompt.columns != mask.shape[1]:
        raise InputError(
            f"positions: the mask has {mask.shape[1]} columns, the prompt {prompt.columns}; "
            "it needs one for each column of input_ids, padding included"
        )
    prompts = context.batch if prompt is None else prompt.sequences
    if len(mask) not in (1, prompts):
        raise InputError(
            f"positions: the mask has {len(mask)} rows for {prompts} prompts; it needs one for each, or one "
            "for all"
        )
    if context.start >= mask.shape[1]:
        return context.valid if generated else torch.zeros((context.batch, context.length), dtype=torch.bool)
    in_prompt = _for_batch(mask.to(context.device), context)
    in_prompt = in_prompt[:, context.start : context.start + context.length]
    after = in_prompt.new_full((context.batch, context.length - in_prompt.shape[1]), generated)
    return _and_valid(torch.cat([in_prompt, after], dim=1), context)


def _mask(positions: Mask) -> Any:
    torch = need_torch()
    try:
        mask = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f'positions = {positions!r:.60} is unknown: use "all", "generated" or a boolean mask'
        ) from None
    if mask.ndim == 1:
        mask = mask[None]
    if mask.ndim != 2 or mask.numel() == 0 or not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(
            f"positions: a mask is boolean and of shape (batch, prompt length), not {mask.dtype} "
            f"of shape {tuple(mask.shape)}"
        )
    return mask.bool()


def _for_batch(rows: Any, context: ForwardContext) -> Any:
    """Return rows of a mask, each repeated as generate repeats its sequence: for beams and samples."""
    if context.batch % len(rows):
        raise InputError(f"positions: {len(rows)} rows of a mask do not fit a batch of {context.batch}")
    return rows.repeat_interleave(context.batch // len(rows), dim=0)


def _and_valid(chosen: Any, context: ForwardContext) -> Any:
    return chosen if context.valid is None else chosen & context.valid
