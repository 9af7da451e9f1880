"""Models, layers, tensors, frames and word vectors in memory: their matrix, and a model's final norm.

None of their libraries is imported.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_matrix, as_real_array
from embgeom._common.foreign import (
    TAKEN,
    column_of,
    is_frame,
    is_lazy_frame,
    is_tensor,
    is_word_vectors,
    quantized_kind,
    type_name,
    word_vectors,
)
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.norm import FinalNorm, NormKind
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading.architectures import USUAL_NORMS
from embgeom.loading.assemble import LoadRequest, assemble
from embgeom.loading.config import ModelConfig
from embgeom.loading.source import find_folder, find_source
from embgeom.loading.tokenizers.reading import given_tokens, read_tokens, token_table
from embgeom.loading.tokenizers.table import TokenTable

# A layer that holds scales multiplies with more than its weight, and one that holds codes has no weight.
_SCALED = ("weight_scale", "weight_scale_inv", "scales", "W_q", "weight_packed")
# Norms of the first layer's input; LFM2's embedding_norm is its last norm despite its name.
_OF_EMBEDDINGS = re.compile(r"emb(?!edding_norm$)")
_IS_NORM = re.compile(r"norm|^ln(_|$)", re.IGNORECASE)
_MAKE = "make one with embgeom.FinalNorm.from_weights(weight, kind)"


def load_object(model: Any, request: LoadRequest) -> Embeddings:
    if isinstance(model, Embeddings):
        raise InputError(f"{model!r} is loaded already: pass it to the functions as it is")
    outer, (model, own_tokenizer) = type(model).__name__, unwrapped(model)
    if request.vocabulary is None:
        request = replace(request, vocabulary=given_tokens(own_tokenizer, None))
    if is_model(model):
        matrix, provenance, name = _of_model(model, request.which)
        table = request.tokens(lambda: _tokens_beside(model))
    elif hasattr(model, "named_parameters") and hasattr(model, "weight"):
        # A layer such as nn.Embedding or nn.Linear.
        weight = weight_of(model, f"the {type(model).__name__}")
        matrix, name = weight.matrix("its weight"), type(model).__name__
        provenance = Provenance(f"{name} in memory", dtype=type_name(weight.stored), notes=weight.notes)
        table = request.tokens(lambda: _no_tokens(f"a {name}"))
    elif is_word_vectors(model):
        vectors = word_vectors(model)
        matrix, name = as_matrix(model, "the word vectors"), type(model).__name__
        words = replace(token_table(list(vectors.index_to_key)), token_format=TokenFormat.words())
        table = request.tokens(lambda: words)
        provenance = Provenance(f"{name} in memory", dtype=type_name(model))
    elif is_frame(model):
        numbers, texts = _split_frame(model)
        matrix, name = as_matrix(numbers, "the frame"), "frame"
        table = request.tokens(lambda: token_table(texts) if texts else _no_tokens("a frame without strings"))
        provenance = Provenance("frame", dtype=type_name(numbers))
    elif _may_be_array(model):
        matrix, name = as_matrix(model, "the matrix"), "array" if own_tokenizer is None else outer
        table = request.tokens(lambda: _no_tokens("an array"))
        source = "array" if own_tokenizer is None else f"{outer} in memory"
        provenance = Provenance(source, dtype=type_name(model))
    else:
        raise LoadError(
            f"{model!r:.60} is neither a path nor a Hugging Face id, nor a model of transformers; {TAKEN}"
        )
    return assemble(matrix, table, name, provenance, request)


def unwrapped(model: Any) -> tuple[Any, Any]:
    """Return the model inside a pipeline, a sentence embedder or a parallel wrapper, and its tokenizer."""
    tokenizer = getattr(model, "tokenizer", None)
    if is_model(model):
        return model, None
    if tokenizer is not None and hasattr(model, "_first_module"):
        # A sentence embedder's first module holds the model of transformers, or the table of a static one.
        first = model._first_module()
        inner = (getattr(first, name, None) for name in ("auto_model", "embedding", "model"))
        return next((part for part in inner if part is not None), first), tokenizer
    if tokenizer is not None and is_model(getattr(model, "model", None)):
        return model.model, tokenizer
    if tokenizer is not None and isinstance(getattr(model, "embedding", None), np.ndarray):
        return _static_rows(model), tokenizer
    if hasattr(model, "named_parameters") and is_model(getattr(model, "module", None)):
        return model.module, None
    return model, None


def _static_rows(model: Any) -> npt.NDArray[Any]:
    """Return the rows that a static model of model2vec sums up, one for each token."""
    rows: npt.NDArray[Any] = model.embedding
    if (mapping := getattr(model, "token_mapping", None)) is not None:
        rows = rows[mapping]
    if (weights := getattr(model, "weights", None)) is not None:
        rows = rows * weights[:, None]
    return rows


def is_model(x: object) -> bool:
    """Return whether `x` is a model that gives its embedding, as those of transformers do."""
    return callable(getattr(x, "get_input_embeddings", None)) and not isinstance(x, type)


def _of_model(model: Any, which: Which) -> tuple[npt.NDArray[np.float32], Provenance, str]:
    kind = type(getattr(model, "get_base_model", lambda: model)()).__name__
    weight, other = _side(model, which), None
    if weight is None:
        raise InputError(
            f"{kind} has no {which} matrix (get_{which}_embeddings() gives none): load the class with a "
            "head, such as AutoModelForCausalLM, or pass the weight itself with vocabulary="
        )
    with suppress(InputError):
        # The other side only decides whether the two are one, and may be unreadable.
        other = _side(model, "output" if which == "input" else "input")
    config: Any = getattr(model, "config", None)
    origin = str(getattr(config, "name_or_path", "") or "")
    named = model.named_parameters(remove_duplicate=False)
    provenance = Provenance(
        source=f"{kind} in memory" + (f", made from {origin}" if origin else ""),
        revision=getattr(config, "_commit_hash", None),
        tensor=next((name for name, parameter in named if parameter is weight.stored), None),
        dtype=type_name(weight.stored),
        tied=other is not None and weight.shares(other),
        num_layers=ModelConfig.parse(config.to_dict() if hasattr(config, "to_dict") else {}).num_layers,
        notes=weight.notes,
    )
    return weight.matrix(f"the {which} matrix of {kind}"), provenance, Path(origin).name or kind


def _side(model: Any, side: str) -> Weight | None:
    try:
        module = getattr(model, f"get_{side}_embeddings")()
    except (AttributeError, NotImplementedError):
        return None
    return None if module is None else weight_of(module, f"the {side} layer")


def _may_be_array(x: object) -> bool:
    """Return whether `x` may be an array, so that the error says what is wrong with it."""
    kinds = is_tensor(x) or isinstance(x, list | tuple | np.ndarray) or hasattr(x, "__array__")
    return kinds or is_lazy_frame(x) or hasattr(x, "tocsr") or hasattr(x, "__dlpack__")


def _tokens_beside(model: Any) -> TokenTable:
    """Read the tokenizer of the folder or cached repository that a model was made from, without a network."""
    config = getattr(model, "config", None)
    origin, revision = getattr(config, "name_or_path", None), getattr(config, "_commit_hash", None)
    if not origin:
        return _no_tokens(f"a {type(model).__name__}")
    try:
        folder = find_folder(origin)
        return read_tokens(folder or find_source(origin, revision=revision, local_files_only=True))
    except EmbgeomError as error:
        raise InputError(
            f"no tokenizer of {origin} is available ({error}); pass tokenizer=, or vocabulary="
        ) from error


def _no_tokens(what: str) -> TokenTable:
    raise InputError(
        f"{what} does not say which token each row is: pass tokenizer=, or vocabulary=, a list or file of "
        "one token for each row"
    )


def _split_frame(frame: Any) -> tuple[Any, list[str] | None]:
    """Return the columns of numbers of a frame, and its strings: its one column of them, or its index."""
    columns = range(len(frame.columns))
    texts = {column: words for column in columns if (words := _words(column_of(frame, column)))}
    found = list(texts.values())
    if hasattr(frame, "index") and not callable(frame.index) and (words := _words(frame.index)):
        found.append(words)
    if len(found) > 1:
        raise InputError(
            f"the frame has {len(found)} columns or indices of strings: keep the one that holds the tokens"
        )
    if not (numbers := [column for column in columns if column not in texts]):
        raise InputError("the frame has no columns of numbers: each column is one dimension")
    return column_of(frame, numbers), next(iter(found), None)


def _words(column: Any) -> list[str] | None:
    values = [] if np.asarray(column).dtype.kind in "biuf" else list(column)
    return values if all(isinstance(value, str) for value in values) else None


@dataclass(frozen=True)
class Weight:
    """The matrix of one side of a running model, and the parameter that it was made of."""

    tensor: Any
    stored: Any
    notes: tuple[str, ...] = ()

    def matrix(self, name: str) -> npt.NDArray[np.float32]:
        """Return the matrix in its own memory, as training the model further would change it."""
        matrix = as_matrix(self.tensor, name)
        shared = self.stored.device.type == "cpu" and matrix.ctypes.data == self.stored.data_ptr()
        return matrix.copy() if shared else matrix

    def shares(self, other: Weight) -> bool:
        """Return whether both are one matrix: the same numbers of the same memory."""
        if _memory(self.stored) != _memory(other.stored) or self.tensor.shape != other.tensor.shape:
            return False
        if self.tensor is self.stored and other.tensor is other.stored:
            return True
        # Two adapters that are kept alike are multiplied out in different orders.
        apart = (self.tensor - other.tensor).abs().max()
        return bool(apart <= 1e-5 * self.tensor.abs().max())


def weight_of(module: Any, what: str) -> Weight:
    if hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
        # An active adapter puts a copy of its own in the layer's place.
        active = [] if module.disable_adapters else list(module.active_adapters)
        copies = [module.modules_to_save[name] for name in active if name in module.modules_to_save]
        return weight_of(copies[0] if copies else module.original_module, what)
    module = getattr(module, "token_adapter", module)
    if hasattr(module, "base_layer"):
        return _adapted(module, what)
    weight = getattr(module, "weight", None)
    held = [field for field in _SCALED if hasattr(module, field)]
    quantized = quantized_kind(module) or (quantized_kind(weight) if is_tensor(weight) else None)
    if quantized or held or callable(weight):
        how = quantized or f"{type(module).__name__}, with {held[0] if held else 'packed weights'}"
        raise InputError(
            f"{what} is quantized ({how}): load the model without quantization_config, or in bf16"
        )
    if not is_tensor(weight):
        raise InputError(f"{what} is a {type(module).__name__} without a weight, so it has no matrix")
    if not weight.is_floating_point():
        raise InputError(f"{what} holds {weight.dtype}, not floating point: it is quantized or packed")
    # Whether the weight is the layer's own, or computed by torch.nn.utils.parametrize when it is asked for.
    kept = [getattr(module, name, None) or () for name in ("_parameters", "_buffers", "parametrizations")]
    if hasattr(module, "_parameters") and not any("weight" in names for names in kept):
        raise InputError(
            f"{what} computes its weight before each pass (weight_norm, spectral_norm, pruning), and the "
            "present one may be of an earlier pass: make it permanent by torch.nn.utils.remove_weight_norm, "
            "remove_spectral_norm or prune.remove"
        )
    # The layer of GPT-2 and its time keeps its weight as (hidden_size, rows).
    return Weight(weight.T if type(module).__name__ == "Conv1D" else weight, weight)


def final_norm_of(model: Any) -> FinalNorm:
    if isinstance(model, type) or not hasattr(model, "named_modules"):
        raise InputError(
            f"{type(model).__name__} is not a model: give a folder, a Hugging Face id or a model of "
            "transformers"
        )
    name, module = _find_norm(model)
    parameter = next(iter(module.parameters()), None)
    like = next(model.parameters()) if parameter is None else parameter
    size = len(like) if parameter is not None else model.get_input_embeddings().weight.shape[1]
    # The mean is far from 0, so that centering shows.
    probe = like.new_tensor(np.random.default_rng(0).standard_normal((4, size)) + 1.0)
    try:
        given, got = _numbers(probe, "the probe"), _numbers(module(probe), name)
    except Exception as error:
        # A module may expect anything, and raise anything.
        raise LoadError(f"{name} cannot be run as a norm ({error}); {_MAKE}") from error
    if (bias := getattr(module, "bias", None)) is not None:
        got = got - _numbers(bias, "its bias")
    stored = getattr(module, "weight", None)
    weight = np.ones(size) if stored is None else _numbers(stored, "its weight")
    tolerance = 1e-3 if str(like.dtype) in ("torch.float32", "torch.float64") else 3e-2
    for kind in get_args(NormKind):
        norm = FinalNorm.from_weights(weight, kind)
        centered = given - given.mean(axis=1, keepdims=True) if norm.centers else given
        wanted = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True)) * norm.weight
        if got.shape == wanted.shape and np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max():
            return norm
    raise LoadError(f"{name} ({type(module).__name__}) is a norm of an unknown kind; {_MAKE}")


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
    unknown, changed = "", base.tensor
    if hasattr(module, "get_merged_weights"):
        active = [name for name in active if name in module.trainable_tokens_delta]
        changed = module.get_merged_weights(active) if active else changed
    elif type(module).__module__.startswith("peft.tuners.lora."):
        active = [name for name in active if name in module.lora_A or name in module.lora_embedding_A]
        if variants := [name for name in active if name in getattr(module, "lora_variant", {})]:
            unknown = f"of another kind than LoRA ({type(module.lora_variant[variants[0]]).__name__})"
        else:
            for name in active:
                changed = changed.detach().float() + module.get_delta_weight(name).detach().float()
    else:
        unknown = f"of the kind {type(module).__module__}.{kind}"
    if unknown:
        raise InputError(
            f"{what} has an adapter {unknown}, which is not merged here: load model.merge_and_unload()"
        )
    note = f"with the adapter {', '.join(active)} added to {what}"
    return Weight(changed, base.stored, (note,)) if active else base


def _memory(tensor: Any) -> tuple[Any, ...]:
    return (str(tensor.device), tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


def _numbers(tensor: Any, name: str) -> npt.NDArray[np.float64]:
    return as_real_array(tensor, name).astype(np.float64)


def _find_norm(model: Any) -> tuple[str, Any]:
    """Return the norm that stands beside the largest list of layers, and its path."""
    kind = type(model).__name__
    if head := _norm_of_head(model):
        raise LoadError(
            f"the head of {kind} transforms and normalizes ({head}) before the unembedding, so that no norm "
            f"can be folded into it; {_MAKE}"
        )
    root = model
    if callable(getattr(model, "get_decoder", None)):
        root = model.get_decoder() or model
    beside = [
        (sum(parameter.numel() for parameter in part.parameters()), path, holder)
        for path, holder in root.named_modules()
        for part in holder.children()
        if type(part).__name__ == "ModuleList"
    ]
    if not beside:
        raise LoadError(f"{kind} has no list of layers, so its final norm is not known; {_MAKE}")
    _, path, holder = max(beside, key=lambda found: found[0])
    norms = [
        (f"{path}.{name}".lstrip("."), child)
        for name, child in holder.named_children()
        if (_IS_NORM.search(name) or "norm" in type(child).__name__.lower())
        and not _OF_EMBEDDINGS.search(name)
        and type(child).__name__ not in ("ModuleList", "Identity")
    ]
    usual = [norm for norm in norms if norm[0].split(".")[-1] in USUAL_NORMS]
    norms = usual if len(norms) > 1 else norms
    if len(norms) != 1:
        found = " and ".join(name for name, _ in norms) or "none"
        raise LoadError(
            f"the final norm of {kind} is ambiguous or missing: beside its layers there is {found}; {_MAKE}"
        )
    return norms[0]


def _norm_of_head(model: Any) -> str | None:
    """Return the norm within the head of a masked model, as BERT's has one after a layer of its own."""
    if not re.search("MaskedLM|PreTraining", type(model).__name__):
        return None
    trunk = getattr(model, "base_model", None)
    inside = set(trunk.modules()) if trunk is not None and trunk is not model else set()
    outside = ((path, part) for path, part in model.named_modules() if part not in inside)
    return next((path for path, _ in outside if path and _IS_NORM.search(path.split(".")[-1])), None)
