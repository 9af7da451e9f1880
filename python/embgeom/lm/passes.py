"""Forward passes over texts of unequal length, which leave the model as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import whole_number
from embgeom.errors import InputError
from embgeom.lm.layers import Layout, config_of, need_torch
from embgeom.lm.stream import in_input, in_output

# The number under which `read_layers` gives what goes into layer 0.
EMBEDDING = -1


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off, and afterwards give each module back the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with need_torch().no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training


def longest_text(model: Any) -> int | None:
    """Return how many tokens a model reads at most, as its config says; None where it says nothing."""
    limit = getattr(config_of(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def in_batches(sequences: Sequence[Sequence[int]], batch_size: int) -> Iterator[list[int]]:
    """Give the places of sequences batch by batch, those of like length together.

    The longest come first: a batch too large for the memory fails at once.
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    order = sorted(range(len(sequences)), key=lambda place: -len(sequences[place]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def padded(
    model: Any, sequences: Sequence[Sequence[int]], *, left: bool = False, pad: int = 0
) -> dict[str, Any]:
    """Return ``input_ids`` and ``attention_mask`` where the model takes them.

    Padding stands to the right unless `left`: a causal model's tokens never see it there, so any token will
    do, and the first token of each text stands at position 0, as when it is alone.
    """
    torch, device = need_torch(), _input_device(model)
    length = max(map(len, sequences))
    rows, masks = [], []
    for sequence in sequences:
        tokens, fill = list(sequence), [pad] * (length - len(sequence))
        rows.append(fill + tokens if left else tokens + fill)
        masks.append([0] * len(fill) + [1] * len(tokens) if left else [1] * len(tokens) + [0] * len(fill))
    return {
        "input_ids": torch.tensor(rows, device=device),
        "attention_mask": torch.tensor(masks, device=device),
    }


def forward(model: Any, batch: dict[str, Any], **more: Any) -> Any:
    """Run a model on what `padded` returns, without a cache.

    Raises
    ------
    InputError
        If it does not take tokens as models of transformers do.
    """
    taken = inspect.signature(model.forward).parameters
    named = {"use_cache": False, **batch, **more}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        if "input_ids" not in taken:
            raise InputError(
                f"the forward pass of {type(model).__name__} takes no input_ids; give a causal language "
                "model of transformers"
            )
        # Padding to the right needs no mask in a causal model.
        named = {name: value for name, value in named.items() if name in taken}
    return model(**named)


def read_layers(
    model: Any,
    layout: Layout,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Iterable[int]],
    layers: Sequence[int],
) -> npt.NDArray[np.float32]:
    """Return the residual stream at some places of each text, behind some layers.

    Parameters
    ----------
    model : torch.nn.Module
        The model, in the mode in which it is to run.
    layout : Layout
        Its layers.
    sequences : sequence of sequence of int
        The texts' tokens, one batch.
    places : sequence of iterable of int
        Which of each text's tokens are read, p in all.
    layers : sequence of int
        The layers whose output is read, in ascending order; `EMBEDDING` is what goes into layer 0.

    Returns
    -------
    ndarray of float32, shape (layers, p, d)
        Text by text. The pass ends behind the last layer that is read: neither later layers nor the
        unembedding are computed.

    Raises
    ------
    InputError
        If a layer keeps no single residual stream, or does not run as a module.
    """
    torch = need_torch()
    rows = torch.tensor([row for row, chosen in enumerate(places) for _ in chosen])
    columns = torch.tensor([int(place) for chosen in places for place in chosen])
    read: dict[int, npt.NDArray[np.float32]] = {}

    batch = padded(model, sequences)

    def keep(layer: int, hidden: Any) -> None:
        if hidden.shape[:2] != batch["input_ids"].shape:
            raise InputError(
                f"a layer works on {tuple(hidden.shape[:2])} positions, but the model got {len(sequences)} "
                f"texts of {batch['input_ids'].shape[1]} tokens; such a model cannot be read"
            )
        at = hidden[rows.to(hidden.device), columns.to(hidden.device)]
        read[layer] = at.detach().float().cpu().numpy()
        if layer == layers[-1]:
            raise _LastLayerRead

    def behind(layer: int) -> Callable[..., None]:
        return lambda _layer, _args, output: keep(layer, in_output(output, layer, layout.hidden_size))

    def before(_layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(EMBEDDING, in_input(args, named))

    with ExitStack() as hooks:
        for layer in layers:
            if layer == EMBEDDING:
                handle = layout.layers[0].register_forward_pre_hook(before, with_kwargs=True)
            else:
                handle = layout.layers[layer].register_forward_hook(behind(layer))
            hooks.callback(handle.remove)
        with suppress(_LastLayerRead):
            forward(model, batch)
    if missing := [layer for layer in layers if layer not in read]:
        raise InputError(
            f"layer {missing[0]} was left out of the model's forward pass, or run past its hooks, by "
            "layer.forward(x) instead of layer(x), so it cannot be read; load the model as transformers has "
            "it, without a fast path of another library"
        )
    return np.stack([read[layer] for layer in layers])


class _LastLayerRead(Exception):
    """Ends a forward pass once the last layer of interest has run."""


def _input_device(model: Any) -> Any:
    """Return the device to which a model's input goes."""
    weights = model.get_input_embeddings().weight if hasattr(model, "get_input_embeddings") else None
    if weights is None:
        weights = next(model.parameters())
    # Offloaded weights have no place; whoever offloaded them moves the input, too.
    return "cpu" if weights.device.type == "meta" else weights.device
