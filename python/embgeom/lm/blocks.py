"""Where a model keeps its transformer blocks, whatever its layout."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from embgeom._common.optional import need
from embgeom.errors import InputError
from embgeom.loading.architectures import LAYER_PATHS

_WAY_OUT = 'say where they are: block_list="path.to.the.list", or the torch.nn.ModuleList itself'


@dataclass(frozen=True, eq=False)
class Layout:
    """The blocks of a model and what stands around them.

    Attributes
    ----------
    blocks : torch.nn.ModuleList
        The blocks, in the order in which they run.
    path : str
        The list's name in the model, such as ``"model.layers"``.
    stack : torch.nn.Module
        The module that holds the list: its forward pass runs the blocks.
    above : tuple of torch.nn.Module
        The modules from the model itself down to `stack`, both included.
    width : int or None
        The width of the residual stream; None where the model's config does not tell.
    """

    blocks: Any
    path: str
    stack: Any
    above: tuple[Any, ...]
    width: int | None

    def numbers(self, blocks: int | Iterable[int] | None) -> list[int]:
        """Return numbers of blocks in ascending order, each checked against the model; None means all.

        Raises
        ------
        InputError
            If one is no whole number or the model has no such block, or there is none.
        """
        if blocks is None:
            return list(range(len(self.blocks)))
        numbers = sorted(set(block_numbers(blocks)))
        if numbers[-1] >= len(self.blocks):
            raise InputError(
                f"there is no block {numbers[-1]}: the model has {len(self.blocks)} blocks at {self.path}, "
                f"0 to {len(self.blocks) - 1}"
            )
        return numbers


def block_numbers(blocks: int | Iterable[int]) -> list[int]:
    """Return the numbers of blocks as a list, of one number or of several.

    Raises
    ------
    InputError
        If there is none, or one is no whole number from 0 on.
    """
    try:
        given = list(blocks) if isinstance(blocks, Iterable) else [blocks]
        numbers = [operator.index(block) for block in given]
    except TypeError:
        raise InputError(f"blocks = {blocks!r} must be a number of a block or several of them") from None
    if not numbers:
        raise InputError("blocks is empty; name one block at least, or leave it out")
    if min(numbers) < 0:
        raise InputError(f"block {min(numbers)} is no number of a block; blocks are counted from 0")
    return numbers


def need_torch() -> Any:
    """Return the module torch.

    Raises
    ------
    InputError
        If it is not installed.
    """
    return need("torch", "steering a model")


def find(model: Any, block_list: Any = None) -> Layout:
    """Find the transformer blocks of a causal language model.

    Parameters
    ----------
    model : torch.nn.Module
        A model of transformers, or a wrapper around one, such as PEFT's.
    block_list : str or torch.nn.ModuleList, optional
        The blocks, or their path in the model, where they are not found by themselves.

    Returns
    -------
    Layout
        The blocks, the module that runs them, and the width.

    Raises
    ------
    InputError
        If `model` is no module of transformers' make, is compiled or an encoder with a decoder, or its blocks
        are not found.

    Notes
    -----
    A list at a path that is usual for blocks and as long as the config says comes first, then the only
    list of that length, then the only list at a usual path.

    Examples
    --------
    >>> from transformers import GPT2Config, GPT2LMHeadModel
    >>> from embgeom.lm.blocks import find
    >>> model = GPT2LMHeadModel(GPT2Config(n_layer=3, n_embd=8, n_head=2, vocab_size=16))
    >>> layout = find(model)
    >>> layout.path, len(layout.blocks), layout.width
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
    path = _given(lists, block_list) if block_list is not None else _found(model, lists)
    steps = path.split(".")[:-1]
    above = tuple(model.get_submodule(".".join(steps[:depth])) for depth in range(len(steps) + 1))
    return Layout(lists[path], path, above[-1], above, _width(above))


def config_of(model: Any) -> Any:
    """Return the config of a model's language part, or None where it has none."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _given(lists: dict[str, Any], block_list: Any) -> str:
    """Return the path of the list that the user gave."""
    for path, modules in lists.items():
        if modules is block_list or path == block_list:
            return path
    shown = repr(block_list) if isinstance(block_list, str) else f"the {type(block_list).__name__} given"
    known = ", ".join(lists) or "none"
    raise InputError(f"block_list: {shown} is no ModuleList in the model; its lists are: {known}")


def _found(model: Any, lists: dict[str, Any]) -> str:
    """Return the path of the list that holds the blocks, as far as names and lengths tell."""
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
        f"the blocks of {type(model).__name__} are not found among its lists of modules, which are: {shown}; "
        + _WAY_OUT
    )


def _usual(paths: list[str]) -> str | None:
    """Return the path with the best of the usual endings, if it is the only one with that ending."""
    for known in LAYER_PATHS:
        ending = [path for path in paths if f".{path}".endswith(f".{known}")]
        if ending:
            return ending[0] if len(ending) == 1 else None
    return None


def _width(above: tuple[Any, ...]) -> int | None:
    for module in reversed(above):
        width = getattr(config_of(module), "hidden_size", None)
        if isinstance(width, int):
            return width
    return None
