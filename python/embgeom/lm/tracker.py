"""What each forward pass of a model is about: which columns of the sequence, which of them padding."""

from __future__ import annotations

import copy
import functools
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from embgeom.errors import InputError
from embgeom.lm.layers import Layout, need_torch

_CACHES = ("cache", "past_key_values", "cache_params")
_INPUTS = ("inputs_embeds", "input_ids")
_MARK = "_embgeom_pass_tracker"


@dataclass(frozen=True, eq=False)
class Prompt:
    """The prompt of a call of ``generate``, before it is repeated for beams and samples."""

    sequences: int
    # Padding included.
    columns: int
    # Which are tokens by the caller's attention mask, bool (sequences, columns); None if none was passed.
    valid: Any


@dataclass(frozen=True, eq=False)
class ForwardContext:
    """What one forward pass is about: `length` columns of `batch` sequences, from column `start` on."""

    batch: int
    length: int
    # How much the cache holds already.
    start: int
    # Which positions are tokens, not padding, bool (batch, length); None means all.
    valid: Any
    # None where the model is called by other means than ``generate``.
    prompt: Prompt | None
    # Where the model receives its inputs.
    device: Any


class PassTracker:
    """Notes the context of each forward pass of a stack of layers, for as long as someone subscribes.

    The attention mask and the cache are read where the stack receives them: everything that runs a model
    passes there, wrappers included. ``generate`` alone knows where a prompt ends, so that method of the
    modules above is wrapped on the instance. After each pass of the stack subscribers hear by `stack_ran`
    which of their layers ran, and by `model_ran` of each pass of the model: one that calls
    ``layer.forward(x)`` runs no hook.
    """

    def __init__(self, layout: Layout) -> None:
        self._stack, self._model = layout.stack, layout.above[0]
        self._generators = [m for m in layout.above if callable(getattr(type(m), "generate", None))]
        self._parameters = tuple(inspect.signature(layout.stack.forward).parameters)
        self._subscribers: list[Any] = []
        self._undo: list[Callable[[], None]] = []
        # Two threads may generate with one model, each with a context of its own.
        self._local = threading.local()
        self._latest: ForwardContext | None = None
        # A cache of recurrent states does not tell how much it holds.
        self._passed: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    @staticmethod
    def for_model(layout: Layout) -> PassTracker:
        return layout.stack.__dict__.get(_MARK) or PassTracker(layout)

    @property
    def context(self) -> ForwardContext | None:
        """The context of the forward pass under way in this thread."""
        # Backward recomputes checkpointed layers, on a GPU in a thread that saw no forward pass.
        return getattr(self._local, "context", self._latest)

    @property
    def subscribers(self) -> tuple[Any, ...]:
        return tuple(self._subscribers)

    def subscribe(self, who: Any) -> None:
        """Track from now on, at least until `who` unsubscribes."""
        self._subscribers.append(who)
        if len(self._subscribers) == 1:
            self._stack.__dict__[_MARK] = self
            self._undo.append(self._stack.register_forward_pre_hook(self._note, with_kwargs=True).remove)
            self._undo.append(self._stack.register_forward_hook(self._stack_ran).remove)
            self._undo.append(self._model.register_forward_pre_hook(self._model_starts).remove)
            self._undo.append(self._model.register_forward_hook(self._model_ran).remove)
            for module in self._generators:
                self._undo.append(_replace_generate(module, self._noting_prompt(module.generate)))

    def unsubscribe(self, who: Any) -> None:
        """Forget `who`, and track no more if nobody is left."""
        if who in self._subscribers:
            self._subscribers.remove(who)
        if not self._subscribers:
            self._stack.__dict__.pop(_MARK, None)
            while self._undo:
                self._undo.pop()()
            self._latest = None

    def layer_ran(self, who: Any, layer: int) -> None:
        for scope in ("stack", "model"):
            self._ran(scope)[who, layer] += 1

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "a model cannot be copied or pickled while a vector is applied to it, since the copy would go on "
            "being steered by this one's handle: remove the handle first, or leave its `with` block"
        )

    def _ran(self, scope: str) -> Counter[tuple[Any, int]]:
        """Return how often who steered which layer so far, in this pass of the stack or of the model."""
        ran: Counter[tuple[Any, int]] = self._local.__dict__.setdefault(scope, Counter())
        return ran

    def _steered(self, scope: str) -> Iterator[tuple[Any, Counter[int]]]:
        """Give each subscriber with how often each of its layers was steered in the pass that ends."""
        ran = self._ran(scope).copy()
        # An error that ends a pass ends it here, too, so that only whole passes count.
        self._ran(scope).clear()
        for who in self.subscribers:
            yield who, Counter({layer: times for (other, layer), times in ran.items() if other is who})

    def _stack_ran(self, *_: Any) -> None:
        for who, layers in self._steered("stack"):
            who.stack_ran(layers)

    def _model_ran(self, *_: Any) -> None:
        for who, layers in self._steered("model"):
            who.model_ran(layers)

    def _model_starts(self, *_: Any) -> None:
        self._ran("model").clear()

    def _noting_prompt(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """Return `generate` with the prompt known while it runs."""

        @functools.wraps(generate)
        def steered_generate(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._local, "prompt", None)
            self._local.prompt = _prompt(args, kwargs) or outer
            try:
                return generate(*args, **_uncompiled(getattr(generate, "__self__", None), kwargs))
            finally:
                self._local.prompt = outer

        return steered_generate

    def _note(self, _stack: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._ran("stack").clear()
        given = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        inputs = next((given[name] for name in _INPUTS if given.get(name) is not None), None)
        if inputs is None:
            self._local.context = self._latest = None
            return
        batch, length = inputs.shape[:2] if inputs.ndim > 1 else (1, inputs.shape[0])
        mask = given.get("attention_mask")
        cache = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        start = self._start(cache, mask, length)
        prompt = getattr(self._local, "prompt", None)
        valid = _valid(mask, start, length)
        context = ForwardContext(batch, length, start, valid, prompt, inputs.device)
        self._local.context = self._latest = context

    def _start(self, cache: Any, mask: Any, length: int) -> int:
        """Return how many columns came before those of this forward pass."""
        if cache is None:
            return 0
        if isinstance(cache, tuple):
            return int(cache[0][0].shape[-2]) if cache else 0
        try:
            return int(cache.get_seq_length())
        except (AttributeError, ValueError):
            # The mask over columns, if there is one, is as long as the sequence so far.
            so_far = mask.shape[1] - length if getattr(mask, "ndim", None) == 2 else 0
            start = max(so_far, self._passed.get(cache, 0))
            self._passed[cache] = start + length
            return start


def _replace_generate(module: Any, method: Callable[..., Any]) -> Callable[[], None]:
    """Give an instance a ``generate`` of its own, and return what takes it away again."""
    held, before = module.__dict__, module.__dict__.get("generate")
    held["generate"] = method

    def undo() -> None:
        if held.get("generate") is method:
            del held["generate"]
            if before is not None:
                held["generate"] = before

    return undo


def _uncompiled(owner: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of ``generate`` with compilation switched off, where it knows of it."""
    # A graph compiled before would run without the hooks, one compiled now would keep them.
    given: Any = kwargs.get("generation_config")
    if hasattr(given, "disable_compile"):
        # With a config of the caller's own, options are not to be given one by one.
        config = copy.copy(given)
        config.disable_compile = True
        return {**kwargs, "generation_config": config}
    if hasattr(getattr(owner, "generation_config", None), "disable_compile"):
        return {**kwargs, "disable_compile": True}
    return kwargs


def _prompt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Prompt | None:
    """Return the prompt in the arguments of ``generate``, None where it is not to be seen there."""
    torch, mask = need_torch(), kwargs.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        # With a filled cache the inputs may be the new tokens alone; the mask is always whole.
        return Prompt(mask.shape[0], mask.shape[1], mask.bool())
    given = (kwargs.get("inputs_embeds"), *args[:1], kwargs.get("inputs"), kwargs.get("input_ids"))
    inputs = next((value for value in given if isinstance(value, torch.Tensor)), None)
    return None if inputs is None or inputs.ndim < 2 else Prompt(inputs.shape[0], inputs.shape[1], None)


def _valid(mask: Any, start: int, length: int) -> Any:
    """Return which positions of a forward pass are tokens, bool (batch, length); None means all."""
    torch = need_torch()
    if isinstance(mask, dict):
        # One mask for each kind of attention; all agree on padding.
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, torch.Tensor):
        return None
    if mask.ndim == 2:
        # Some callers pass the mask of the new columns alone.
        start = start if mask.shape[1] >= start + length else max(mask.shape[1] - length, 0)
        valid = mask[:, start : start + length].bool()
        return valid if valid.shape[1] == length else None
    return _diagonal(mask, start, length) if mask.ndim == 4 else None


def _diagonal(mask: Any, start: int, length: int) -> Any:
    """Return which queries of a mask (batch, 1, query, key) may look at themselves: padding may not."""
    # A cache with a window holds the latest keys only, so they end where the queries do.
    first = start - max(start + length - mask.shape[-1], 0)
    if first < 0 or mask.shape[-2] != length:
        return None
    diagonal = mask[:, 0].diagonal(offset=first, dim1=-2, dim2=-1)
    if diagonal.is_floating_point():
        return diagonal > need_torch().finfo(diagonal.dtype).min / 2
    return diagonal.bool()
