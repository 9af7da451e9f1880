"""Texts that a model writes, the same whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embgeom._common.checks import check_seed
from embgeom.errors import InputError
from embgeom.lm.passes import in_batches, inference, padded


def continuations(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    seed: int,
) -> list[str]:
    from transformers import LogitsProcessorList

    ends = _ends(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    config = _plain_config(max_new_tokens, ends, pad)
    texts = [""] * len(prompts)
    with inference(model):
        for indices in in_batches(prompts, batch_size):
            # What is written continues at the right, so here padding stands on the left.
            batch = padded(model, [prompts[index] for index in indices], left=True, pad=pad)
            sampling = [GumbelSampling(seed, indices, temperature)] if temperature > 0 else []
            processors = LogitsProcessorList([_check_numbers, *sampling])
            written = model.generate(**batch, generation_config=config, logits_processor=processors)
            for index, row in zip(indices, written[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                end = next((at for at, token in enumerate(row) if token in ends), len(row))
                texts[index] = tokenizer.decode(row[:end], skip_special_tokens=True)
    return texts


def _check_numbers(_input_ids: Any, scores: Any) -> Any:
    # The largest of NaN would be a text, too.
    if bool(scores.isnan().any()):
        raise InputError(
            "the model gives NaN, so there is no likeliest token: use a smaller scale, or float32 or bfloat16"
        )
    return scores


class GumbelSampling:
    """Makes the likeliest token a sampled one, by Gumbel noise from each prompt's own random numbers.

    The largest of ``logit / temperature + noise`` is distributed as the softmax of ``logit / temperature``.
    """

    def __init__(self, seed: int, indices: Sequence[int], temperature: float) -> None:
        import torch

        self._temperature = temperature
        states = [np.random.SeedSequence([check_seed(seed), index]).generate_state(1)[0] for index in indices]
        self._generators = [torch.Generator().manual_seed(int(state)) for state in states]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        size = scores.shape[-1]
        waits = [torch.empty(size).exponential_(generator=generator) for generator in self._generators]
        return scores / self._temperature - torch.stack(waits).log().to(scores.device)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        return []
    return [int(end) for end in ends] if isinstance(ends, list | tuple) else [int(ends)]


def _plain_config(max_new_tokens: int, ends: list[int], pad: int) -> Any:
    """Return a config by which the likeliest token is taken each time, without beams and penalties."""
    from transformers import GenerationConfig

    # Values that are left out come from the model's own config, which may ask for sampling and penalties;
    # tokens that it never lets a model write stay forbidden.
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=0,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_k=50,
        top_p=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        eos_token_id=ends or None,
        pad_token_id=pad,
    )
