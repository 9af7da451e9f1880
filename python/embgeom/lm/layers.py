"""Where a model keeps its transformer layers, whatever its layout."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from embgeom._common.optional import need
from embgeom.errors import InputError
from embgeom.loading.architectures import LAYER_PATHS

_WAY_OUT = 'say where they are: layer_modules="path.to.the.list", or the torch.nn.ModuleList itself'


@dataclass(frozen=True, eq=False)
class Layout:
    """The layers of a model and what stands around them.

    Attributes
    ----------
    layers : torch.nn.ModuleList
        The layers, in the order in which they run.
    path : str
        The list's name in the model, such as ``"model.layers"``.
    stack : torch.nn.Module
        The module that holds the list: its forward pass runs the layers.
    above : tuple of torch.nn.Module
        The modules from the model itself down to `stack`, both included.
    hidden_size : int or None
        The size of the residual stream; None where the model's config does not tell.
    """

    layers: Any
    path: str
    stack: Any
    above: tuple[Any, ...]
    hidden_size: int | None

    def numbers(self, layers: int | Iterable[int] | None) -> list[int]:
        """Return numbers of layers in ascending order, each checked against the model; None means all.

        Raises
        ------
        InputError
            If one is no whole number or the model has no such layer, or there is none.
        """
        if layers is None:
            return list(range(len(self.layers)))
        numbers = sorted(set(layer_numbers(layers)))
        if numbers[-1] >= len(self.layers):
            raise InputError(
                f"there is no layer {numbers[-1]}: the model has {len(self.layers)} layers at {self.path}, "
                f"0 to {len(self.layers) - 1}"
            )
        return numbers


def layer_numbers(layers: int | Iterable[int]) -> list[int]:
    """Return the numbers of layers as a list, of one number or of several.

    Raises
    ------
    InputError
        If there is none, or one is no whole number from 0 on.
    """
    try:
        given = list(layers) if isinstance(layers, Iterable) else [layers]
        numbers = [operator.index(layer) for layer in given]
    except TypeError:
        raise InputError(f"layers = {layers!r} must be a layer number or several of them") from None
    if not numbers:
        raise InputError("layers is empty; name one layer at least, or leave it out")
    if min(numbers) < 0:
        raise InputError(f"layer {min(numbers)} is not a layer number; layers are counted from 0")
    return numbers


def need_torch() -> Any:
    """Return the module torch.

    Raises
    ------
    InputError
        If it is not installed.
    """
    return need("torch", "steering a model")


def find(model: Any, layer_modules: Any = None) -> Layout:
    """Find the transformer layers of a causal language model.

    Parameters
    ----------
    model : torch.nn.Module
        A model of transformers, or a wrapper around one, such as PEFT's.
    layer_modules : str or torch.nn.ModuleList, optional
        The layers, or their path in the model, where they are not found by themselves.

    Returns
    -------
    Layout
        The layers, the module that runs them, and the hidden size.

    Raises
    ------
    InputError
        If `model` is no module of transformers' make, is compiled or an encoder with a decoder, or its layers
        are not found.

    Notes
    -----
    A list at a path that is usual for layers and as long as the config says comes first, then the only
    list of that length, then the only list at a usual path.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from embgeom.lm.layers import find
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=8, n_head=2, vocab_size=16))
    >>> layout = find(model)
    >>> layout.path, len(layout.layers), layout.hidden_size
    ('transformer.h', 3, 8)
    """
    torch = need_torch()
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"a {type(model).__name__} cannot be steered: give the model itself, a torch.nn.Module such as "
            "transformers.AutoModelForCausalLM.from_pretrained returns"
        )
    names = {kind.__name__ for kind in type(model).__mro__}
    if names & {"HookedRootModule", "HookedTransformer"} or hasattr(model, "run_with_hooks"):
        raise InputError(
            f"a {type(model).__name__} of TransformerLens is not supported, neither to be steered nor to be "
            "read: load the model with embgeom.steering.load_language_model or transformers, or add "
            "vector.directions[i] yourself at its hook blocks.i.hook_resid_post"
        )
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in model.modules()):
        raise InputError("a compiled model cannot be steered: give the model as it was before torch.compile")
    if getattr(config_of(model), "is_encoder_decoder", False):
        raise InputError(
            f"{type(model).__name__} has an encoder and a decoder; only causal models are steered"
        )
    lists = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m)}
    path = _given(lists, layer_modules) if layer_modules is not None else _found(model, lists)
    steps = path.split(".")[:-1]
    above = tuple(model.get_submodule(".".join(steps[:depth])) for depth in range(len(steps) + 1))
    return Layout(lists[path], path, above[-1], above, _hidden_size(above))


def config_of(model: Any) -> Any:
    """Return the config of a model's language part, or None where it has none."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _given(lists: dict[str, Any], layer_modules: Any) -> str:
    """Return the path of the list that the user gave."""
    for path, modules in lists.items():
        if modules is layer_modules or path == layer_modules:
            return path
    shown = (
        repr(layer_modules) if isinstance(layer_modules, str) else f"the {type(layer_modules).__name__} given"
    )
    known = ", ".join(lists) or "none"
    raise InputError(f"layer_modules: {shown} is no ModuleList in the model; its lists are: {known}")


def _found(model: Any, lists: dict[str, Any]) -> str:
    """Return the path of the list that holds the layers, as far as names and lengths tell."""
    depth = getattr(config_of(model), "num_hidden_layers", None)
    deep = [path for path, modules in lists.items() if len(modules) == depth]
    if (usual := _usual(deep)) is not None:
        return usual
    if len(deep) == 1:
        return deep[0]
    if not deep and (usual := _usual(list(lists))) is not None:
        return usual
    shown = ", ".join(f"{path} ({len(modules)})" for path, modules in lists.items()) or "none"
    raise InputError(
        f"the layers of {type(model).__name__} are not found among its lists of modules, which are: {shown}; "
        + _WAY_OUT
    )


def _usual(paths: list[str]) -> str | None:
    """Return the path with the best of the usual endings, if it is the only one with that ending."""
    for known in LAYER_PATHS:
        ending = [path for path in paths if f".{path}".endswith(f".{known}")]
        if ending:
            return ending[0] if len(ending) == 1 else None
    return None


def _hidden_size(above: tuple[Any, ...]) -> int | None:
    for module in reversed(above):
        size = getattr(config_of(module), "hidden_size", None)
        if isinstance(size, int):
            return size
    return None
