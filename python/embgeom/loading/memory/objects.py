"""From models, tensors, frames and word vectors in memory to an `Embeddings`, without their libraries."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_matrix
from embgeom._common.foreign import (
    TAKEN,
    column_of,
    is_frame,
    is_lazy_frame,
    is_tensor,
    is_word_vectors,
    type_name,
    word_vectors,
)
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading.assemble import LoadRequest, assemble
from embgeom.loading.config import ModelConfig
from embgeom.loading.memory.modules import Weight, weight_of
from embgeom.loading.source import find_folder, find_source
from embgeom.loading.tokenizers.reading import given_tokens, read_tokens, token_table
from embgeom.loading.tokenizers.table import TokenTable


def load_object(model: Any, request: LoadRequest) -> Embeddings:
    """Load from an object in memory; see `embgeom.load`."""
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
    """Return the values of a column of strings; None for any other."""
    values = [] if np.asarray(column).dtype.kind in "biuf" else list(column)
    return values if all(isinstance(value, str) for value in values) else None
