"""The residual stream of a model that reads texts: states after some layers, and their spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import ProgressCallable
from embgeom.errors import InputError
from embgeom.examples import moods
from embgeom.lm.attention_sinks import StateMoments, kept_positions
from embgeom.lm.language_model import model_name
from embgeom.lm.layers import Layout, find, need_torch, stream_in_input, stream_in_output
from embgeom.lm.passes import PassEnded, Tokens, forward, in_batches, inference, longest_text, padded
from embgeom.lm.tokenizing import encode

# The number of what goes into layer 0.
EMBEDDING = -1


def check_single_runs(model: Any, layout: Layout, tokens: Tokens) -> None:
    """Refuse a model that runs a layer several times in a pass, which reading, ended early, would not see."""
    runs: Counter[int] = Counter()

    def counting(number: int) -> Callable[..., None]:
        return lambda *_: runs.update([number])

    with ExitStack() as hooks:
        for number in range(len(layout.layers)):
            hooks.callback(layout.layers[number].register_forward_hook(counting(number)).remove)
        forward(model, padded(model, [tokens[:1]]))
    if repeated := [number for number, times in sorted(runs.items()) if times > 1]:
        raise InputError(
            f"layer {repeated[0]} runs {runs[repeated[0]]} times in one forward pass: of a model that runs "
            "its layers in a loop it is not known which of a layer's outputs is meant, so it cannot be read"
        )


class LayerStates(NamedTuple):
    """The residual stream after some layers: states at some positions, and what is known of all."""

    # float32, (layers, chosen positions of all texts, hidden_size).
    states: npt.NDArray[np.float32]
    # Which positions are no sinks, of each text (layers, its tokens).
    kept: list[npt.NDArray[np.bool_]]
    # Of the positions that are no sinks.
    moments: StateMoments


def read_states(
    model: Any,
    layout: Layout,
    sequences: Sequence[Tokens],
    positions: Sequence[Iterable[int]],
    layers: Sequence[int],
) -> LayerStates:
    """Return the residual stream after some layers, at some positions of each text of a batch, text by text.

    `layers` ascend, and `EMBEDDING` is what goes into layer 0. The pass ends after the last of them: neither
    later layers nor the unembedding are computed.
    """
    torch, batch = need_torch(), padded(model, sequences)
    rows = torch.tensor([row for row, chosen in enumerate(positions) for _ in chosen], dtype=torch.long)
    columns = torch.tensor([int(at) for chosen in positions for at in chosen], dtype=torch.long)
    read: dict[int, npt.NDArray[np.float32]] = {}
    kept: dict[int, npt.NDArray[np.bool_]] = {}
    moments: dict[int, StateMoments] = {}

    def keep(layer: int, hidden: Any) -> None:
        if hidden.shape[:2] != batch["input_ids"].shape:
            raise InputError(
                f"a layer works on {tuple(hidden.shape[:2])} positions, but the model got {len(sequences)} "
                f"texts of {batch['input_ids'].shape[1]} tokens; such a model cannot be read"
            )
        at = hidden[rows.to(hidden.device), columns.to(hidden.device)]
        read[layer] = at.detach().float().cpu().numpy()
        # Half precision holds no square of a sink's norm.
        norms = torch.linalg.vector_norm(hidden.detach(), dim=-1, dtype=torch.float32).double().cpu().numpy()
        mine = np.zeros(norms.shape, dtype=bool)
        for row, sequence in enumerate(sequences):
            mine[row, : len(sequence)] = kept_positions(norms[row, : len(sequence)])
        rest = hidden.detach()[torch.from_numpy(mine).to(hidden.device)]
        moments[layer] = StateMoments.of(rest.float().cpu().numpy())
        kept[layer] = mine
        if layer == layers[-1]:
            raise PassEnded

    def after(layer: int) -> Callable[..., None]:
        return lambda _layer, _args, out: keep(layer, stream_in_output(out, layer, layout.hidden_size))

    def before(_layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(EMBEDDING, stream_in_input(args, named))

    with ExitStack() as hooks:
        for layer in layers:
            if layer == EMBEDDING:
                handle = layout.layers[0].register_forward_pre_hook(before, with_kwargs=True)
            else:
                handle = layout.layers[layer].register_forward_hook(after(layer))
            hooks.callback(handle.remove)
        with suppress(PassEnded):
            forward(model, batch)
    if missing := [layer for layer in layers if layer not in read]:
        raise InputError(
            f"layer {missing[0]} was left out of the model's forward pass, or run past its hooks, by "
            "layer.forward(x) instead of layer(x), so it cannot be read; load the model as transformers has "
            "it, without a fast path of another library"
        )
    each = np.stack([kept[layer] for layer in layers])
    return LayerStates(
        np.stack([read[layer] for layer in layers]),
        [each[:, row, : len(sequence)] for row, sequence in enumerate(sequences)],
        StateMoments(*map(np.concatenate, zip(*(moments[layer] for layer in layers), strict=True))),
    )


class Tokenized(NamedTuple):
    """One prompt in one model's tokens, and the indices of those that are compared."""

    ids: list[int]
    positions: npt.NDArray[np.int64]


def residual_states(
    model: Any,
    prompts: Sequence[Tokenized],
    *,
    batch_size: int,
    report: ProgressCallable | None,
    phase: str,
    layers: Sequence[int] | None = None,
    layer_modules: Any = None,
) -> LayerStates:
    """Return the residual stream at the prompts' positions, float32 of shape (layers, p, d).

    After each of `layers`, which ascend; by default first what goes into layer 0, then the output of each
    layer, before any last norm.
    """
    if not prompts:
        raise InputError("there are no prompts to read")
    layout = find(model, layer_modules)
    layers = [EMBEDDING, *layout.numbers(None)] if layers is None else layout.numbers(layers)
    starts = np.cumsum([0, *(len(prompt.positions) for prompt in prompts)])
    states, done = np.empty((0, 0, 0), dtype=np.float32), 0
    kept: dict[int, npt.NDArray[np.bool_]] = {}
    moments: list[StateMoments] = []
    with inference(model):
        check_single_runs(model, layout, prompts[0].ids)
        for batch in in_batches([prompt.ids for prompt in prompts], batch_size):
            ids, positions = zip(*(prompts[index] for index in batch), strict=True)
            read = read_states(model, layout, ids, positions, layers)
            if done == 0:
                states = np.empty((len(layers), starts[-1], read.states.shape[2]), dtype=np.float32)
            columns = np.concatenate([np.arange(starts[index], starts[index + 1]) for index in batch])
            states[:, columns] = read.states
            kept.update(zip(batch, read.kept, strict=True))
            moments.append(read.moments)
            done += len(batch)
            if report:
                report(phase, done, len(prompts))
    if not np.isfinite(states).all():
        raise InputError(
            f"hidden states of {model_name(model)} hold NaN or infinity; load it as float32 or bfloat16"
        )
    return LayerStates(
        states, [kept[index] for index in range(len(prompts))], reduce(StateMoments.joined, moments)
    )


def state_spread(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str] | None = None,
    layers: int | Iterable[int] | None = None,
    *,
    batch_size: int = 8,
    layer_modules: Any = None,
) -> dict[int, float]:
    """Measure how far a model's states differ from each other, after each layer.

    A steering vector is long or short by comparison with that. What all states share says nothing, and in
    some models it is by far the largest part of them; nor do a few coordinates in which they differ
    enormously. `Emb2Emb.transfer` takes its lengths from it.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    texts : sequence of str, optional
        What it reads; by default the 30 neutral texts of ``embgeom.examples.moods``, so that different
        models are compared on the same text.
    layers : int or iterable of int, optional
        The layers, counted from 0; all by default.
    batch_size : int
        Texts in one forward pass.
    layer_modules : str or torch.nn.ModuleList, optional
        The layers, or their path in the model, where they are not found by themselves.

    Returns
    -------
    dict of int to float
        By layer, the square root of the number of coordinates times the harmonic mean of their variances:
        the length of a vector that changes each coordinate by a typical standard deviation. All positions
        count but attention sinks: the first of each text, and those whose state is more than ten times as
        long as the median of the text.

    Raises
    ------
    InputError
        If the texts hold no two states, the model gives NaN or infinity, or its layers are not found or
        cannot be read.

    Notes
    -----
    One forward pass up to the last of `layers` for each `batch_size` texts. What goes beyond a model's
    longest context is not read.

    Examples
    --------
    >>> from embgeom.steering import load_language_model, state_spread
    >>> spread = state_spread(*load_language_model("example:small"), layers=[0, 3])
    >>> {layer: round(length) for layer, length in spread.items()}
    {0: 18, 3: 27}
    """
    numbers = find(model, layer_modules).numbers(layers)
    encoded = [
        encode(tokenizer, text)[: longest_text(model)]
        for text in (moods.neutral_texts() if texts is None else texts)
    ]
    sequences = [tokens for tokens in encoded if len(tokens) > 1]
    if not sequences:
        raise InputError("no text has two tokens, and the first of each is not counted; give longer texts")
    nowhere = np.empty(0, dtype=np.int64)
    prompts = [Tokenized(tokens, nowhere) for tokens in sequences]
    how: Any = {"batch_size": batch_size, "report": None, "phase": "", "layer_modules": layer_modules}
    moments = residual_states(model, prompts, layers=numbers, **how).moments
    if moments.counts.min() < 2:
        raise InputError("the texts hold a single state, the first of each not counted; give longer texts")
    spread = moments.spread
    if not np.isfinite(spread).all():
        layer = numbers[int(np.argmin(np.isfinite(spread)))]
        raise InputError(
            f"layer {layer} gives NaN or infinity for a text; load the model in bfloat16 or float32"
        )
    return dict(zip(numbers, spread.tolist(), strict=True))
