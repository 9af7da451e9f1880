"""Forward passes over texts of unequal length, and texts that a model writes; the model is left as it was."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from embgeom._common.checks import check_seed, whole_number
from embgeom.errors import EmbgeomError, InputError, first_line
from embgeom.lm.layers import config_of, need_torch

# Where a model keeps the states that are used again, see `embgeom.lm.reuse`.
REUSED = "_embgeom_reused"

Tokens = Sequence[int]


_locks: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_locking = threading.Lock()


@contextmanager
def alone(model: Any) -> Iterator[None]:
    """Let other threads wait that read the model: they would see what this one adds to its states."""
    with _locking:
        lock = _locks.setdefault(model, threading.RLock())
    with lock:
        yield


@contextmanager
def inference(model: Any) -> Iterator[None]:
    """Switch dropout and gradients off, and then give each module back its mode; one thread at a time."""
    with alone(model):
        before = [module for module in model.modules() if module.training]
        try:
            if before:
                model.eval()
            with need_torch().no_grad():
                yield
        finally:
            for module in before:
                module.training = True


def longest_text(model: Any) -> int | None:
    """Return how many tokens a model reads at most, as its config says; None where it says nothing."""
    limit = getattr(config_of(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def check_lengths(model: Any, sequences: Sequence[Tokens], what: str, *, least: int, room: int = 0) -> None:
    """Refuse a sequence that is too short, or too long for the model with `room` more tokens."""
    most = longest_text(model)
    for number, sequence in enumerate(sequences):
        if len(sequence) < least:
            raise InputError(
                f"{what} {number} has {len(sequence)} tokens, but {least} at least are needed; leave it out"
            )
        if most is not None and len(sequence) + room > most:
            more, fewer = (f" and {room} new ones", ", take fewer new ones") if room else ("", "")
            raise InputError(
                f"{what} {number} has {len(sequence)} tokens{more}, more than the {most} that the model "
                f"takes; shorten it{fewer}, or leave it out"
            )


def in_batches(sequences: Sequence[Tokens], batch_size: int) -> Iterator[list[int]]:
    """Give the indices of sequences batch by batch, those of like length together.

    The longest come first: a batch too large for the memory fails at once.
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def padded(model: Any, sequences: Sequence[Tokens], *, left: bool = False, pad: int = 0) -> dict[str, Any]:
    """Return ``input_ids`` and ``attention_mask`` where the model takes them.

    Padding stands on the right unless `left`: a causal model's tokens never see it there, so any token will
    do, and the first token of each text stands at position 0, as when it is alone.
    """
    torch, device = need_torch(), _input_device(model)
    length = max(map(len, sequences))
    ids = torch.full((len(sequences), length), pad)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        columns = slice(length - len(sequence), None) if left else slice(len(sequence))
        ids[row, columns], mask[row, columns] = torch.tensor(sequence), 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


class PassEnded(Exception):
    """Raised by a hook that has seen enough: ends a forward pass early."""


def forward(model: Any, batch: dict[str, Any], **more: Any) -> Any:
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
    try:
        return model(**named)
    except (EmbgeomError, MemoryError, need_torch().OutOfMemoryError, PassEnded):
        raise
    except Exception as error:
        # A model's own code may raise anything.
        raise InputError(
            f"{type(model).__name__} cannot read texts: {type(error).__name__}: {first_line(error)}; give a "
            "causal language model that needs nothing but texts, with its own tokenizer"
        ) from error


def next_log_probabilities(
    model: Any, sequences: Sequence[Tokens], batch_size: int
) -> Iterator[tuple[int, Any]]:
    """Give the index of each sequence and the float32 log-probabilities (vocabulary,) of what follows.

    Padding stands on the right: a causal model's tokens never see it, so neither positions nor the rest of
    the batch change a number, whatever the architecture.
    """
    import torch

    with inference(model):
        for indices in in_batches(sequences, batch_size):
            batch = padded(model, [sequences[index] for index in indices])
            lasts = [len(sequences[index]) - 1 for index in indices]
            logits = logits_at(model, batch, range(len(lasts)), lasts)
            yield from zip(indices, torch.log_softmax(logits.float(), dim=-1), strict=True)


def word_log_probabilities(
    model: Any, prompts: Sequence[Tokens], words: Sequence[tuple[int, ...]], batch_size: int
) -> list[dict[tuple[int, ...], float]]:
    """Return, for each prompt, the log-probability that each word follows it: the sum over its tokens."""
    begun = sorted({word[:at] for word in words for at in range(len(word))})
    asked = [(number, start) for number in range(len(prompts)) for start in begun]
    sequences = [[*prompts[number], *start] for number, start in asked]
    found = [dict.fromkeys(words, 0.0) for _ in prompts]
    for index, logs in next_log_probabilities(model, sequences, batch_size):
        number, start = asked[index]
        for word in words:
            if len(word) > len(start) and word[: len(start)] == start:
                found[number][word] += float(logs[word[len(start)]])
    return found


def logits_at(model: Any, batch: dict[str, Any], rows: Sequence[int], columns: Sequence[int]) -> Any:
    """Return the logits (positions, vocabulary) at some positions of a batch.

    Others are not unembedded where the model has an unembedding that takes the states of all positions: with
    a large vocabulary that would be most of the work, and of the memory.
    """
    torch, shape = need_torch(), batch["input_ids"].shape
    states: Any = getattr(model, REUSED, None)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    at = torch.tensor(rows), torch.tensor(columns)
    chosen = 0

    def choose(_head: Any, args: tuple[Any, ...]) -> Any:
        nonlocal chosen
        if not args or args[0].ndim != 3 or args[0].shape[:2] != shape:
            return None
        chosen += 1
        return (args[0][tuple(index.to(args[0].device) for index in at)][None], *args[1:])

    def call() -> Any:
        return forward(model, batch).logits

    def run() -> Any:
        return call() if states is None else states.run(batch, call)

    hook = None if head is None else head.register_forward_pre_hook(choose)
    try:
        logits = run()
    finally:
        if hook is not None:
            hook.remove()
    if chosen == 1 and logits.shape[:2] == (1, len(rows)):
        return logits[0]
    if chosen:
        logits = run()
    return logits[tuple(index.to(logits.device) for index in at)]


def _input_device(model: Any) -> Any:
    weights = next(model.parameters())
    # A class that wraps a model may not know where its embedding is.
    with suppress(AttributeError, NotImplementedError):
        weights = model.get_input_embeddings().weight
    # Offloaded weights have no device; whoever offloaded them moves the input, too.
    return "cpu" if weights.device.type == "meta" else weights.device


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
