"""States below a steered layer, computed once for each batch and reused for every vector and scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from embgeom.lm.layers import find, need_torch, stream_in_output, with_stream
from embgeom.lm.passes import REUSED, alone, forward, padded
from embgeom.lm.tokenizing import encode

# Of states that are kept, in bytes; a batch for which there is no room is computed whole each time.
MOST_BYTES = 1 << 30
_TRIAL = "Two and three are five."


class LowerStates:
    """What one layer gives for each batch, before anything is added to it, so that it runs once.

    The model's own code runs in any case: meanwhile the `forward` of these layers returns what was kept.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers
        self._kept: dict[bytes, Any] = {}
        self._room = MOST_BYTES

    def run(self, batch: dict[str, Any], call: Callable[[], Any]) -> Any:
        """Return what `call` returns, which runs the model on the batch."""
        key = b"".join(value.cpu().numpy().tobytes() for value in batch.values())
        key += repr(tuple(batch["input_ids"].shape)).encode()
        if key in self._kept:
            output, stream = self._kept[key]
            # Each pass has its own copy: hooks and later layers may add to it in place.
            with _forwards(
                self._layers, lambda _forward: lambda *_args, **_named: with_stream(output, stream.clone())
            ):
                return call()
        seen: list[Any] = []
        with _forwards(self._layers[-1:], lambda forward: _noting(forward, seen)):
            found = call()
        # What a layer gives when it runs once more in the same pass depends on what was added before.
        if len(seen) == 1 and (size := seen[0][1].nbytes) <= self._room:
            self._kept[key], self._room = seen[0], self._room - size
        return found

    def serves(self, model: Any, tokenizer: Any, hidden_size: int | None) -> bool:
        """Return whether the model gives the same logits after kept states, in a trial with other ones added.

        Layers may hand on more than their output: keys and values, for instance, that later layers share.
        """
        torch = need_torch()
        tokens = encode(tokenizer, _TRIAL)
        if not tokens:
            return False
        batch, other = padded(model, [tokens]), padded(model, [tokens[::-1]])

        def changed(_layer: Any, _args: Any, output: Any) -> Any:
            stream = stream_in_output(output, len(self._layers) - 1, hidden_size)
            return with_stream(output, stream.flip(-1))

        hook = self._layers[-1].register_forward_hook(changed)
        try:
            whole = self.run(batch, lambda: forward(model, batch)).logits
            # Whatever layers leave in other places is then of other texts.
            forward(model, other)
            again = self.run(batch, lambda: forward(model, batch)).logits if self._kept else None
        except Exception:
            # What a model raises that lacks something of the layers below is not to be foreseen; and one that
            # does not run at all says so when it is evaluated.
            return False
        finally:
            hook.remove()
        if again is None or not bool(whole.isfinite().any()):
            return False
        reach = 64 * torch.finfo(whole.dtype).eps * float(whole[whole.isfinite()].abs().max())
        return bool(torch.allclose(whole, again, rtol=0, atol=reach))


@contextmanager
def reused_below(model: Any, tokenizer: Any, layer: int, layer_modules: Any = None) -> Iterator[None]:
    """Let `logits_at` compute no batch twice up to this layer, where the model allows for it.

    Meanwhile nothing but what is added to the output of this layer and later ones may change the model.
    """
    layout = find(model, layer_modules)
    layers = [layout.layers[number] for number in range(layer + 1)]
    with alone(model):
        # States that are reused around this are of other layers.
        around = model.__dict__.pop(REUSED, None)
        try:
            if LowerStates(layers).serves(model, tokenizer, layout.hidden_size):
                model.__dict__[REUSED] = LowerStates(layers)
            yield
        finally:
            model.__dict__.pop(REUSED, None)
            if around is not None:
                model.__dict__[REUSED] = around


def _noting(forward: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    def note(*args: Any, **named: Any) -> Any:
        output = forward(*args, **named)
        stream = output[0] if isinstance(output, tuple | list) else output
        if hasattr(stream, "clone"):
            # Later layers may add to it in place.
            kept = stream.detach().clone()
            seen.append((with_stream(output, kept), kept))
        return output

    return note


@contextmanager
def _forwards(
    layers: Sequence[Any], replacement: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Replace the forward of layers meanwhile; their hooks run as before."""
    before = [(layer, layer.__dict__.get("forward"), layer.forward) for layer in layers]
    try:
        for layer, _, forward in before:
            layer.__dict__["forward"] = replacement(forward)
        yield
    finally:
        for layer, held, _ in before:
            layer.__dict__.pop("forward", None)
            if held is not None:
                layer.__dict__["forward"] = held
