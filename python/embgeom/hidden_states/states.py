"""The residual stream of a transformers model: behind the embeddings and behind each block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._progress import ProgressCallable
from embgeom.errors import InputError
from embgeom.hidden_states.positions import Tokenized
from embgeom.steering.blocks import find
from embgeom.steering.language_model import load_language_model
from embgeom.steering.reading import evaluating

States = npt.NDArray[np.float32]


class Loaded(NamedTuple):
    """A model with its tokenizer, and its name for tables."""

    name: str
    model: Any
    tokenizer: Any


def opened(model: Any) -> Loaded:
    """Return a model and tokenizer: those that were given as a pair, or those in a folder, as float32.

    Raises
    ------
    InputError
        If `model` is neither, or transformers is missing.
    LoadError
        If the folder does not hold a model that transformers reads.
    """
    if isinstance(model, tuple) and len(model) == 2:
        return Loaded(_name(model[0]), *model)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"a model is a folder or (model, tokenizer) of transformers, not {type(model).__name__}"
        )
    network, tokenizer = load_language_model(model, local_files_only=True)
    return Loaded(str(model), network, tokenizer)


def longest_context(model: Any) -> int:
    """Return how many tokens the model takes at most."""
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(longest) if longest else 1 << 30


def residual_states(
    loaded: Loaded,
    prompts: Sequence[Tokenized],
    *,
    batch_size: int,
    report: ProgressCallable | None,
    phase: str,
) -> States:
    """Run a model and keep its residual stream at the prompts' places.

    Parameters
    ----------
    loaded : Loaded
        The model.
    prompts : sequence of Tokenized
        The prompts, with p places in all.
    batch_size : int
        Prompts in one forward pass.
    report : callable or None
        Told how far it is.
    phase : str
        The name of this, for `report`.

    Returns
    -------
    ndarray of float32, shape (blocks + 1, p, d)
        First what goes into block 0, then the output of each block, before any last norm.

    Raises
    ------
    InputError
        If the model's blocks are not found, or a state is NaN or infinite.
    """
    import torch

    model = getattr(loaded.model, "base_model", loaded.model)
    layout = find(model)
    blocks = layout.blocks
    starts = np.cumsum([0, *(len(prompt.places) for prompt in prompts)])
    width = layout.width or model.get_input_embeddings().weight.shape[1]
    states = np.empty((len(blocks) + 1, starts[-1], width), dtype=np.float32)
    device = model.get_input_embeddings().weight.device
    # Prompts of like length share a batch, so that little is padded.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    with evaluating(model), torch.no_grad():
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            ids, mask = _padded([prompts[i].ids for i in batch])
            rows = np.repeat(np.arange(len(batch)), [len(prompts[i].places) for i in batch])
            columns = np.concatenate([prompts[i].places for i in batch])
            slots = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in batch])
            with _recording(blocks, rows, columns) as record:
                model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
            states[:, slots] = np.stack(record)
            if report:
                report(phase, first + len(batch), len(order))
    if not np.isfinite(states).all():
        raise InputError(
            f"hidden states of {loaded.name} hold NaN or infinity; load it as float32 or bfloat16"
        )
    return states


def _name(model: Any) -> str:
    named = getattr(getattr(model, "config", None), "name_or_path", "")
    return Path(named).name if named else type(model).__name__


def _padded(ids: list[list[int]]) -> tuple[Any, Any]:
    """Return tokens (b, longest) and their mask, padded behind: tokens never see what follows them."""
    import torch

    longest = max(map(len, ids))
    tokens = torch.zeros((len(ids), longest), dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, known in enumerate(ids):
        tokens[row, : len(known)] = torch.tensor(known)
        mask[row, : len(known)] = 1
    return tokens, mask


@contextmanager
def _recording(
    blocks: Any, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> Iterator[list[States]]:
    """Give a list that a forward pass fills: the residual stream at some places, block by block."""
    record: list[States] = []

    def keep(state: Any) -> None:
        record.append(state[rows, columns].float().cpu().numpy())

    def before(_: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        keep(args[0] if args else named["hidden_states"])

    def behind(_: Any, args: tuple[Any, ...], output: Any) -> None:
        keep(output[0] if isinstance(output, tuple) else output)

    handles = [blocks[0].register_forward_pre_hook(before, with_kwargs=True)]
    handles += [block.register_forward_hook(behind) for block in blocks]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()
