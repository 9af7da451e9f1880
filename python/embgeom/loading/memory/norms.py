"""The norm before the unembedding of a running model: the module that is one, and what it does to vectors."""

from __future__ import annotations

import re
from typing import Any, get_args

import numpy as np

from embgeom._common.arrays import as_real_array
from embgeom.embeddings.norm import FinalNorm, Kind
from embgeom.errors import InputError, LoadError
from embgeom.loading.architectures import USUAL_NORMS

# Norms of what goes into the first layer, except LFM2's, which is its last and is called so.
_OF_EMBEDDINGS = re.compile(r"emb(?!edding_norm$)")
_IS_NORM = re.compile(r"norm|^ln(_|$)", re.IGNORECASE)
_MAKE = "make one with embgeom.FinalNorm.from_weights(weight, kind)"


def final_norm_of(model: Any) -> FinalNorm:
    """Return the final norm of a model in memory; what kind it is, is measured."""
    if isinstance(model, type) or not hasattr(model, "named_modules"):
        raise InputError(
            f"{type(model).__name__} is no model: give a folder, a Hugging Face id or a model of transformers"
        )
    name, module = _find(model)
    rng = np.random.default_rng(0)
    parameter = next(iter(module.parameters()), None)
    like = next(model.parameters()) if parameter is None else parameter
    width = len(like) if parameter is not None else model.get_input_embeddings().weight.shape[1]
    # The mean is far from 0, so that centering shows.
    probe = like.new_tensor(rng.standard_normal((4, width)) + 1.0)
    try:
        given = as_real_array(probe, "the probe").astype(np.float64)
        got = as_real_array(module(probe), name).astype(np.float64)
    except Exception as error:
        # A module takes and raises what it likes.
        raise LoadError(f"{name} cannot be run as a norm ({error}); {_MAKE}") from error
    if (bias := getattr(module, "bias", None)) is not None:
        got = got - as_real_array(bias, "its bias").astype(np.float64)
    stored = getattr(module, "weight", None)
    weight = np.ones(width) if stored is None else as_real_array(stored, "its weight").astype(np.float64)
    tolerance = 1e-3 if str(like.dtype) in ("torch.float32", "torch.float64") else 3e-2
    for kind in get_args(Kind):
        norm = FinalNorm.from_weights(weight, kind)
        centered = given - given.mean(axis=1, keepdims=True) if norm.centers else given
        wanted = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True)) * norm.weight
        if got.shape == wanted.shape and np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max():
            return norm
    raise LoadError(f"{name} ({type(module).__name__}) is a norm of no known kind; {_MAKE}")


def _find(model: Any) -> tuple[str, Any]:
    """Return the norm that stands beside the largest list of layers, and its path."""
    if own := _norm_of_head(model):
        raise LoadError(
            f"the head of {type(model).__name__} transforms and normalizes ({own}) before the unembedding, "
            f"so that no norm can be folded into it; {_MAKE}"
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
        raise LoadError(
            f"{type(model).__name__} has no list of layers, so its final norm is not known; {_MAKE}"
        )
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
            f"the final norm of {type(model).__name__} cannot be told: beside its layers there is {found}; "
            f"{_MAKE}"
        )
    return norms[0]


def _norm_of_head(model: Any) -> str | None:
    """Return the norm within the head of a masked model, as BERT's has one behind a layer of its own."""
    if not re.search("MaskedLM|PreTraining", type(model).__name__):
        return None
    trunk = getattr(model, "base_model", None)
    inside = set(trunk.modules()) if trunk is not None and trunk is not model else set()
    outside = ((path, part) for path, part in model.named_modules() if part not in inside)
    return next((path for path, _ in outside if path and _IS_NORM.search(path.split(".")[-1])), None)
