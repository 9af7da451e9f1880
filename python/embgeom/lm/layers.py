"""Where a model keeps its transformer layers, and the residual stream in what they take and give."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from embgeom._common.arrays import as_matrix
from embgeom._common.checks import need, whole_number
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.geometry.rows import row_stats
from embgeom.loading.architectures import LAYER_PATHS


@dataclass(frozen=True, eq=False)
class Layout:
    """The layers of a model, where they are, and the modules around them."""

    layers: Any
    path: str
    # From the model itself down to the module whose forward pass runs the layers.
    above: tuple[Any, ...]
    # None where the model's config does not tell.
    hidden_size: int | None

    @property
    def stack(self) -> Any:
        """The module that holds the list of layers: its forward pass runs them."""
        return self.above[-1]

    def numbers(self, layers: int | Iterable[int] | None) -> list[int]:
        """Return layer numbers in ascending order, each checked against the model; None means all."""
        count = len(self.layers)
        numbers = list(range(count)) if layers is None else sorted(set(layer_numbers(layers)))
        if numbers[-1] >= count:
            raise InputError(
                f"there is no layer {numbers[-1]}: the model has {count} layers at {self.path}, 0 to "
                f"{count - 1}"
            )
        return numbers


class Projection(NamedTuple):
    """The linear map between a residual stream and an unembedding of another size."""

    name: str
    module: Any
    size: int


def need_torch() -> Any:
    return need("torch", "steering a model")


def config_of(model: Any) -> Any:
    """Return the config of a model's language part, or None where it has none."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def layer_numbers(layers: int | Iterable[int]) -> list[int]:
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


def matching_layer(layer: int, from_count: int, to_count: int) -> int:
    """Return the layer of another model at the same relative depth.

    Parameters
    ----------
    layer : int
        A layer, counted from 0.
    from_count, to_count : int
        How many layers its model and the other model have.

    Returns
    -------
    int
        The layer, counted from 0, whose output has passed the share of layers nearest to
        ``(layer + 1) / from_count``; the deeper one where two are equally near. Never less than 0.

    Raises
    ------
    InputError
        If there is no such layer.

    Notes
    -----
    A simple guess, which knows nothing of the models; `StateComparison.match_layers` compares their states.

    Examples
    --------
    >>> import embgeom
    >>> [embgeom.matching_layer(layer, 4, 6) for layer in range(4)]
    [1, 2, 4, 5]
    """
    from_count = whole_number(from_count, "from_count", 1)
    to_count = whole_number(to_count, "to_count", 1)
    layer = whole_number(layer, "layer", 0, from_count - 1, hint="; layers are counted from 0")
    # In whole numbers, so that halves are rounded alike everywhere.
    passed = (2 * (layer + 1) * to_count + from_count) // (2 * from_count)
    return max(0, passed - 1)


def find(model: Any, layer_modules: Any = None) -> Layout:
    """Find the layers of a causal language model; `layer_modules` is their list, or its path in the model.

    A list at a path that is usual for layers and as long as the config says comes first, then the only list
    of that length, then the only list at a usual path.
    """
    torch = need_torch()
    _check_supported(model, torch)
    lists = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m)}
    path = _given(lists, layer_modules) if layer_modules is not None else _found(model, lists)
    steps = path.split(".")[:-1]
    above = tuple(model.get_submodule(".".join(steps[:depth])) for depth in range(len(steps) + 1))
    sizes = (getattr(config_of(module), "hidden_size", None) for module in reversed(above))
    return Layout(lists[path], path, above, next((size for size in sizes if isinstance(size, int)), None))


def _check_supported(model: Any, torch: Any) -> None:
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


def _given(lists: dict[str, Any], layer_modules: Any) -> str:
    for path, modules in lists.items():
        if modules is layer_modules or path == layer_modules:
            return path
    kind = type(layer_modules).__name__
    shown = repr(layer_modules) if isinstance(layer_modules, str) else f"the {kind} given"
    known = ", ".join(lists) or "none"
    raise InputError(f"layer_modules: {shown} is not a ModuleList in the model; its lists are: {known}")


def _found(model: Any, lists: dict[str, Any]) -> str:
    depth = getattr(config_of(model), "num_hidden_layers", None)
    deep = [path for path, modules in lists.items() if len(modules) == depth]
    only = deep[0] if len(deep) == 1 else None
    if found := _usual(deep) or only or (None if deep else _usual(list(lists))):
        return found
    shown = ", ".join(f"{path} ({len(modules)})" for path, modules in lists.items()) or "none"
    raise InputError(
        f"the layers of {type(model).__name__} are not found among its lists of modules, which are: {shown}; "
        'say where they are: layer_modules="path.to.the.list", or the torch.nn.ModuleList itself'
    )


def _usual(paths: list[str]) -> str | None:
    """Return the path with the best of the usual endings, if it is the only one with that ending."""
    for known in LAYER_PATHS:
        ending = [path for path in paths if f".{path}".endswith(f".{known}")]
        if ending:
            return ending[0] if len(ending) == 1 else None
    return None


def stream_in_output(output: Any, layer: int, hidden_size: int | None) -> Any:
    """Return the residual stream in what a layer gives, a tensor (batch, length, hidden_size)."""
    hidden = output[0] if isinstance(output, tuple | list) and output else output
    shape = tuple(getattr(hidden, "shape", ()))
    if len(shape) != 3 or hidden_size not in (None, shape[-1]):
        raise InputError(
            f"layer {layer} gives a {type(hidden).__name__} of shape {shape}, not (batch, length, "
            f"{hidden_size or 'hidden_size'}): it keeps no single residual stream, so the model can neither "
            "be steered nor read"
        )
    return hidden


def stream_in_input(args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return the residual stream in what layer 0 is given, a tensor (batch, length, hidden_size)."""
    given = args[0] if args else named.get("hidden_states")
    if getattr(given, "ndim", 0) != 3:
        raise InputError(
            f"layer 0 is given a {type(given).__name__} of shape {tuple(getattr(given, 'shape', ()))}, not "
            "(batch, length, hidden_size): it keeps no single residual stream, so the model cannot be read"
        )
    return given


def with_stream(output: Any, hidden: Any) -> Any:
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    return [hidden, *output[1:]] if isinstance(output, list) else hidden


def projection(layout: Layout) -> Projection | None:
    torch = need_torch()
    heads = [m.get_output_embeddings() for m in layout.above if hasattr(m, "get_output_embeddings")]
    shape: Any = next((head.weight.shape for head in heads if hasattr(head, "weight")), ())
    if layout.hidden_size is None or len(shape) != 2 or shape[1] == layout.hidden_size:
        return None
    for name, module in layout.above[0].named_modules():
        # Layers hold linear maps of any shape; the projection stands beside them.
        fits = isinstance(module, torch.nn.Linear) and module.weight.shape == (shape[1], layout.hidden_size)
        if fits and not name.startswith(f"{layout.path}."):
            return Projection(name, module, int(shape[1]))
    return None


def fold_projection(unembedding: Embeddings, model: Any, layer_modules: Any = None) -> Embeddings:
    """Return the unembedding times the model's projection: rows as long as the residual stream.

    OPT-350m's residual stream has 1,024 columns, which ``project_out`` takes to the 512 of the unembedding.
    Maps that transfer steering vectors, and vectors of words, need rows as long as the residual stream.

    Parameters
    ----------
    unembedding : Embeddings
        What ``embgeom.load(name, "output")`` returns, V x w.
    model : transformers.PreTrainedModel
        The same model, with its projection from d to w columns.
    layer_modules : str or torch.nn.ModuleList, optional
        The model's layers, where they are not found by themselves.

    Returns
    -------
    Embeddings
        V x d, in float32, computed in float64: the logits of a normed state h are these rows times h.

    Raises
    ------
    InputError
        If the model has no such projection, or the sizes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom import Embeddings
    >>> from embgeom.steering import fold_projection
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> config = OPTConfig(vocab_size=3, hidden_size=8, word_embed_proj_dim=4, num_hidden_layers=1,
    ...     ffn_dim=8, num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    >>> rows = Embeddings.from_array(np.eye(3, 4), ["a", "b", "c"], which="output")
    >>> fold_projection(rows, OPTForCausalLM(config))
    Embeddings('array', output, 3 x 8)
    """
    found, columns = projection(find(model, layer_modules)), unembedding.matrix.shape[1]
    if found is None:
        raise InputError(
            f"{type(model).__name__} does not project its residual stream: take the unembedding as it is"
        )
    if columns != found.size:
        raise InputError(
            f"{unembedding!r} has {columns} columns, but {found.name} of {type(model).__name__} gives "
            f"{found.size}: it is another model's"
        )
    weight = found.module.weight.detach().double().cpu().numpy()
    matrix = as_matrix(unembedding.matrix.astype("float64") @ weight, "the matrix").view()
    matrix.flags.writeable = False
    notes = (*unembedding.provenance.notes, f"the rows are multiplied with {found.name}, {weight.shape}")
    provenance = replace(unembedding.provenance, notes=notes)
    return replace(unembedding, matrix=matrix, row_stats=row_stats(matrix), provenance=provenance)
