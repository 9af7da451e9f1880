"""The weight that a running torch module computes with, adapters included; torch is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embgeom._common.foreign import is_tensor, quantized_kind
from embgeom.errors import InputError

# What holds scales beside a weight multiplies with more than the weight; what holds codes has none.
_SCALED = (
    "weight_scale",
    "weight_scale_inv",
    "scales",
    "qweight",
    "W_q",
    "quant_state",
    "SCB",
    "weight_packed",
)


@dataclass(frozen=True)
class Weight:
    """The matrix of one side of a running model."""

    tensor: Any
    stored: Any
    notes: tuple[str, ...] = ()

    def shares(self, other: Weight) -> bool:
        """Return whether both are one matrix: the same numbers of the same memory."""
        if self.tensor is not self.stored or other.tensor is not other.stored:
            same = _place(self.stored) == _place(other.stored) and self.tensor.shape == other.tensor.shape
            if not same:
                return False
            # Two adapters that are kept alike are multiplied out in different orders.
            apart = (self.tensor - other.tensor).abs().max()
            return bool(apart <= 1e-5 * self.tensor.abs().max())
        return self.tensor is other.tensor or _place(self.tensor) == _place(other.tensor)


def weight_of(module: Any, what: str) -> Weight:
    """Return the matrix that an embedding or a linear layer computes with."""
    if hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
        return weight_of(_saved_copy(module), what)
    module = getattr(module, "token_adapter", module)
    if hasattr(module, "base_layer"):
        return _adapted(module, what)
    return _plain(module, what)


def _plain(module: Any, what: str) -> Weight:
    weight = getattr(module, "weight", None)
    held = [field for field in _SCALED if hasattr(module, field)]
    quantized = quantized_kind(module) or (quantized_kind(weight) if is_tensor(weight) else None)
    if quantized or held or callable(weight):
        how = quantized or f"{type(module).__name__}, with {held[0] if held else 'packed weights'}"
        raise InputError(
            f"{what} is quantized ({how}): load the model without quantization_config, or in bf16"
        )
    if not is_tensor(weight):
        raise InputError(
            f"{what} is a {type(module).__name__} without a weight, so no matrix can be had of it"
        )
    if not weight.is_floating_point():
        raise InputError(f"{what} holds {weight.dtype}, not floating point: it is quantized or packed")
    if not _is_held(module):
        raise InputError(
            f"{what} computes its weight before each pass (weight_norm, spectral_norm, pruning), and the one "
            "at hand may be of an earlier pass: make it permanent by torch.nn.utils.remove_weight_norm, "
            "remove_spectral_norm or prune.remove"
        )
    # The layer of GPT-2 and its time keeps its weight as (width, rows).
    return Weight(weight.T if type(module).__name__ == "Conv1D" else weight, weight)


def _is_held(module: Any) -> bool:
    """Return whether the weight is the layer's own, or computed anew whenever it is asked for."""
    parameters, buffers = getattr(module, "_parameters", None), getattr(module, "_buffers", {})
    return parameters is None or "weight" in parameters or "weight" in buffers or _is_parametrized(module)


def _is_parametrized(module: Any) -> bool:
    """Return whether torch.nn.utils.parametrize computes the weight from others."""
    return "weight" in (getattr(module, "parametrizations", None) or ())


def _saved_copy(module: Any) -> Any:
    """Return the copy of a module (modules_to_save) that an active adapter puts in its place."""
    active = [] if module.disable_adapters else list(module.active_adapters)
    copies = [module.modules_to_save[name] for name in active if name in module.modules_to_save]
    return copies[0] if copies else module.original_module


def _adapted(module: Any, what: str) -> Weight:
    base = weight_of(module.base_layer, what)
    kind = type(module).__name__
    merged = list(getattr(module, "merged_adapters", ()))
    if module.disable_adapters:
        if merged:
            raise InputError(
                f"{what} ({kind}) is merged with an adapter that is switched off: unmerge it first"
            )
        return base
    active = [name for name in module.active_adapters if name not in merged]
    if hasattr(module, "get_merged_weights"):
        active = [name for name in active if name in module.trainable_tokens_delta]
        changed = module.get_merged_weights(active) if active else base.tensor
    elif type(module).__module__.startswith("peft.tuners.lora."):
        active = [name for name in active if name in module.lora_A or name in module.lora_embedding_A]
        if variants := [name for name in active if name in getattr(module, "lora_variant", {})]:
            variant = type(module.lora_variant[variants[0]]).__name__
            raise _unmerged(f"{what} has an adapter of another kind than LoRA ({variant})")
        changed = base.tensor
        for name in active:
            changed = changed.detach().float() + module.get_delta_weight(name).detach().float()
    else:
        raise _unmerged(f"{what} has an adapter of the kind {type(module).__module__}.{kind}")
    if not active:
        return base
    return Weight(changed, base.stored, (f"with the adapter {', '.join(active)} added to {what}",))


def _unmerged(what: str) -> InputError:
    return InputError(f"{what}, which is not merged here: load model.merge_and_unload()")


def _place(tensor: Any) -> tuple[Any, ...]:
    """Where the numbers of a tensor lie, and how."""
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
