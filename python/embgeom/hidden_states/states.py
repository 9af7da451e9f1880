"""The residual stream of a transformers model: behind the embeddings and behind each layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import ProgressCallable
from embgeom.errors import InputError
from embgeom.hidden_states.positions import Tokenized
from embgeom.lm.language_model import LanguageModel, load_language_model, model_name
from embgeom.lm.layers import find
from embgeom.lm.passes import EMBEDDING, in_batches, inference, read_layers

States = npt.NDArray[np.float32]


def opened(model: Any) -> LanguageModel:
    """Return a model and tokenizer: those that were given as a pair, or those in a folder, as float32.

    Raises
    ------
    InputError
        If `model` is neither, or transformers is missing.
    LoadError
        If the folder does not hold a model that transformers reads.
    """
    if isinstance(model, tuple) and len(model) == 2:
        return LanguageModel(*model)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"a model is a folder or (model, tokenizer) of transformers, not {type(model).__name__}"
        )
    return load_language_model(model, local_files_only=True, dtype="float32")


def residual_states(
    model: Any,
    prompts: Sequence[Tokenized],
    *,
    batch_size: int,
    report: ProgressCallable | None,
    phase: str,
) -> States:
    """Run a model and keep its residual stream at the prompts' places.

    Parameters
    ----------
    model : transformers.PreTrainedModel
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
    ndarray of float32, shape (layers + 1, p, d)
        First what goes into layer 0, then the output of each layer, before any last norm.

    Raises
    ------
    InputError
        If the model's layers are not found, or a state is NaN or infinite.
    """
    layout = find(model)
    layers = [EMBEDDING, *layout.numbers(None)]
    starts = np.cumsum([0, *(len(prompt.places) for prompt in prompts)])
    states: States | None = None
    done = 0
    with inference(model):
        for batch in in_batches([prompt.ids for prompt in prompts], batch_size):
            chosen = [prompts[place] for place in batch]
            read = read_layers(model, layout, [p.ids for p in chosen], [p.places for p in chosen], layers)
            if states is None:
                states = np.empty((len(layers), starts[-1], read.shape[2]), dtype=np.float32)
            states[:, np.concatenate([np.arange(starts[place], starts[place + 1]) for place in batch])] = read
            done += len(batch)
            if report:
                report(phase, done, len(prompts))
    if states is None:
        raise InputError("there are no prompts to read")
    if not np.isfinite(states).all():
        raise InputError(
            f"hidden states of {model_name(model)} hold NaN or infinity; load it as float32 or bfloat16"
        )
    return states
