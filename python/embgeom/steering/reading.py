"""Reading a model's residual stream where texts pass through its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError
from embgeom.steering.blocks import Layout, config_of, need_torch
from embgeom.steering.pairs import Pair

Read = Literal["last", "mean", "answer"] | int
# The tokens of a text, and the places among them at which it is read.
Text = tuple[list[int], list[int]]


def check_read(read: Read) -> Read:
    """Return `read`, or say what it may be."""
    if read in ("last", "mean", "answer"):
        return read
    if isinstance(read, int | np.integer) and not isinstance(read, bool) and read < 0:
        return int(read)
    raise InputError(f'read = {read!r} must be "last", "mean", "answer" or a negative place such as -2')


def tokenize(
    tokenizer: Any, pairs: Sequence[Pair], read: Read, add_special_tokens: bool, limit: int | None
) -> list[tuple[Text, Text]]:
    """Return the tokens of both texts of each pair, with the places at which they are read.

    Raises
    ------
    InputError
        If a text has no token to read, or has more than `limit`.
    """
    if not callable(tokenizer):
        raise InputError(
            f"tokenizer: a {type(tokenizer).__name__} does not split texts; give the model's own"
        )
    found = []
    for number, pair in enumerate(pairs):
        both = [_tokens(tokenizer, text, add_special_tokens) for text in pair]
        shared = _shared(both[0][0], both[1][0])
        texts = []
        for side, (tokens, special) in zip(("positive", "negative"), both, strict=True):
            where = f"the {side} text of pair {number}, {pair[side == 'negative']!r:.60},"
            if limit is not None and len(tokens) > limit:
                raise InputError(f"{where} has {len(tokens)} tokens; the model reads {limit} at most")
            places = _places(read, len(tokens), special, shared)
            if not places:
                raise InputError(f"{where} has {len(tokens)} tokens and none to read with read={read!r}")
            texts.append((tokens, places))
        found.append((texts[0], texts[1]))
    return found


def longest_text(model: Any) -> int | None:
    """Return how many tokens a model reads at most, as its config says; None where it says nothing."""
    limit = getattr(config_of(model), "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


class Reader:
    """Runs texts through a model and keeps what its blocks give at some places.

    Texts are padded on the right by hand, so neither the tokenizer's padding side nor its padding token
    matters, and the first token of each stands at position 0, as when it is alone. A pass ends at the last
    block that is read: neither later blocks nor the unembedding are computed.
    """

    def __init__(self, model: Any, layout: Layout, blocks: list[int]) -> None:
        self._model, self._layout, self._blocks = model, layout, blocks
        self._device = _input_device(model)

    def __call__(self, texts: Sequence[Text]) -> npt.NDArray[np.float64]:
        """Return the mean over each text's places, float64 of shape (texts, blocks, width).

        Each position is read in float32 at least; means are taken in float64.
        """
        torch = need_torch()
        longest = max(len(tokens) for tokens, _ in texts)
        # Padding repeats the text's last token: any token will do, and that one the model has.
        ids = torch.tensor([tokens + tokens[-1:] * (longest - len(tokens)) for tokens, _ in texts])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in texts])
        rows = torch.tensor([row for row, (_, places) in enumerate(texts) for _ in places])
        columns = torch.tensor([place for _, places in texts for place in places])
        read: dict[int, npt.NDArray[np.float64]] = {}

        def keep(block: int) -> Callable[..., None]:
            def hook(_block: Any, _args: Any, output: Any) -> None:
                hidden = output[0] if isinstance(output, tuple) else output
                at = hidden[rows.to(hidden.device), columns.to(hidden.device)]
                read[block] = at.detach().float().cpu().numpy().astype(np.float64)
                if block == self._blocks[-1]:
                    raise _LastBlockRead

            return hook

        removers = []
        try:
            removers += [
                self._layout.blocks[block].register_forward_hook(keep(block)).remove for block in self._blocks
            ]
            with torch.no_grad():
                self._model(
                    input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
                )
        except _LastBlockRead:
            pass
        finally:
            for remove in removers:
                remove()
        counts = [len(places) for _, places in texts]
        starts = np.cumsum([0, *counts[:-1]])
        sums = [np.add.reduceat(read[block], starts, axis=0) for block in self._blocks]
        means: npt.NDArray[np.float64] = np.stack(sums, axis=1) / np.array(counts)[:, None, None]
        return means


class _LastBlockRead(Exception):
    """Ends a forward pass once the last block of interest has run."""


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Switch dropout and the like off, and afterwards give each module back the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in before:
            module.training = training


def _tokens(tokenizer: Any, text: str, add_special_tokens: bool) -> tuple[list[int], list[int]]:
    """Return a text's tokens, and for each of them whether the tokenizer put it there by itself."""
    encoded = tokenizer(text, add_special_tokens=add_special_tokens, return_special_tokens_mask=True)
    tokens = [int(token) for token in encoded["input_ids"]]
    special = encoded.get("special_tokens_mask") if add_special_tokens else None
    return tokens, list(special or [0] * len(tokens))


def _shared(first: list[int], second: list[int]) -> int:
    """Return the length of the beginning that two lists of tokens share."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _places(read: Read, length: int, special: list[int], shared: int) -> list[int]:
    """Return the places at which a text is read; none where it is too short."""
    if read == "last":
        return [length - 1] if length else []
    if isinstance(read, int):
        return [length + read] if length + read >= 0 else []
    first = shared if read == "answer" else 0
    return [place for place in range(first, length) if not special[place]]


def _input_device(model: Any) -> Any:
    """Return the device to which a model's input goes."""
    weights = model.get_input_embeddings().weight if hasattr(model, "get_input_embeddings") else None
    if weights is None:
        weights = next(model.parameters())
    # Offloaded weights have no place; whoever offloaded them moves the input, too.
    return "cpu" if weights.device.type == "meta" else weights.device
