"""The final norm of a model, read from its checkpoint alone."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom.embeddings.norm import FinalNorm
from embgeom.errors import EmbgeomWarning, LoadError
from embgeom.loading.adapter import Adapter, adapter_source
from embgeom.loading.architectures import USUAL_NORMS, Architecture
from embgeom.loading.checkpoint.checkpoint import Checkpoint, open_checkpoint
from embgeom.loading.checkpoint.choice import matches, module_of, pick_one
from embgeom.loading.config import ModelConfig
from embgeom.loading.gguf.model import GGUFModel, find_gguf
from embgeom.loading.memory import final_norm_of, unwrapped
from embgeom.loading.source import HubOptions, enter, find_local, find_source, refuse_options

if TYPE_CHECKING:
    from typing_extensions import Unpack

_ENDS = (".weight", ".w", ".scale", ".gamma", ".g")
_BIASES = (".bias", ".b", ".beta")
_MAKE = "make one with embgeom.FinalNorm.from_weights(weight, kind)"


def load_final_norm(
    model: Any,
    *,
    adapter: str | os.PathLike[str] | None = None,
    subfolder: str | None = None,
    progress: bool = False,
    **hub: Unpack[HubOptions],
) -> FinalNorm:
    """Load the norm between a model's last layer and its unembedding.

    Parameters
    ----------
    model : str, path-like, or object
        A folder, a GGUF file, a bundled example or a Hugging Face id, as in `embgeom.load`; or a model of
        transformers in memory, whose norm is run on a few vectors to see what it does.
    adapter : str or path-like, optional
        The folder or id of a PEFT adapter of the model, which may hold a norm of its own.
    subfolder : str, optional
        The folder within the model that holds its weights, as in `embgeom.load`.
    progress : bool
        Whether to show progress bars, or a line a minute in a log.
    **hub
        ``revision``, ``cache_dir``, ``token`` and ``local_files_only``, as in `embgeom.load`.

    Returns
    -------
    FinalNorm
        To be folded into the rows of the unembedding by `embgeom.Emb2Emb.fit`. Its bias, if it has one, adds
        the same to a token's logit whatever the residual stream, and is left out.

    Raises
    ------
    LoadError
        If the model cannot be read, has no final norm or none under a known name, or has several and the
        names do not tell which is meant.
    InputError
        If an option has no meaning for the model, as `subfolder` for a file.

    Warns
    -----
    EmbgeomWarning
        If the type is not known and the norm has no bias, or the norm multiplies with 1 + weight and the
        weights are around 1, as in conversions that store the sum.

    Notes
    -----
    The ``model_type`` in config.json tells the name of the norm, whether it multiplies with 1 + weight, as
    Gemma's does, subtracts the mean, or has no weight (which is 1 then). In a masked language model, and in a
    model whose layers end with norms of their own, it is the norm that the output matrix is applied to. For
    types that are not known, a norm with a bias is taken for a LayerNorm and one without for an RMSNorm.

    Examples
    --------
    >>> import embgeom
    >>> small, large = (embgeom.load_final_norm(folder) for folder in embgeom.examples.pair())
    >>> small.weight.shape, small.centers, large.weight.shape, large.centers
    ((128,), True, (192,), False)
    """
    if not isinstance(model, str | os.PathLike):
        refuse_options("what is in memory", adapter=adapter, subfolder=subfolder, **hub)
        return final_norm_of(unwrapped(model)[0])
    source, (path, is_file) = find_source(model, progress=progress, **hub), find_local(model)
    if is_file:
        refuse_options(f"{model}, a file", subfolder=subfolder)
    else:
        source = enter(source, subfolder)
    if (gguf := find_gguf(path if is_file else source)) is not None:
        refuse_options(f"{model}, a GGUF model", adapter=adapter)
        return GGUFModel(gguf).final_norm()
    config, checkpoint = ModelConfig.read(source), open_checkpoint(source)
    family = config.architecture
    name = _weight_name(checkpoint, family)
    if name is None and family and family.weightless and config.hidden_size:
        return FinalNorm.from_weights(np.ones(config.hidden_size), family.kind)
    if name is None:
        raise _no_norm(checkpoint, family)
    weight = checkpoint.file(name).read(name)
    if family and config.hidden_size != config.columns and weight.shape == (config.hidden_size,):
        raise LoadError(
            f"{checkpoint.where}: {name} acts on a residual stream of hidden size {config.hidden_size}, "
            f"which the model projects to {config.columns} before the output matrix: it cannot be folded"
        )
    if adapter is not None:
        changed = Adapter(adapter_source(adapter, progress=progress, **hub)).vector(name)
        weight = weight if changed is None else changed
    has_bias = any(module_of(name) + end in checkpoint.names for end in _BIASES)
    kind = family.kind if family else "layer_norm" if has_bias else "rms_norm"
    if family is None and not has_bias:
        _warn(
            f"model_type {config.model_type!r} is not known; {name}, which has no bias, is taken for an "
            f"RMSNorm that multiplies with its weight. If it is not, {_MAKE}"
        )
    if kind.endswith("plus_one") and abs(float(np.median(weight)) - 1.0) < 0.25:
        _warn(
            f"this model multiplies with 1 + weight, but the values of {name} are around 1, so that 1 + "
            f"weight is around 2: a conversion (MLX's) may have stored 1 + weight already; then {_MAKE}"
        )
    return FinalNorm.from_weights(weight, kind)


def _warn(message: str) -> None:
    warnings.warn(message, EmbgeomWarning, stacklevel=3)


def _weight_name(checkpoint: Checkpoint, family: Architecture | None) -> str | None:
    for module in () if family is None else family.norm:
        if found := matches(checkpoint.names, module, _ENDS):
            return _only(checkpoint, found)
    if family and (family.why_no_norm or family.weightless):
        return None
    # Where a family's own names are not there, that of a norm after the embedding is not another name for it.
    usual = [module for module in USUAL_NORMS if family is None or module != "embedding_norm"]
    found = [n for module in usual for n in matches(checkpoint.names, module, _ENDS) if "encoder" not in n]
    return _only(checkpoint, found) if found else None


def _only(checkpoint: Checkpoint, found: list[str]) -> str:
    if len(found) > 1:
        found = pick_one(found, "decoder")
    if len(found) > 1:
        # The model's own norm stands where its embedding or its layers stand.
        beside = {module_of(module_of(n)) for n in checkpoint.names if "embed" in n or "wte" in n}
        found = [n for n in found if module_of(module_of(n)) in beside] or found
    if len(found) > 1:
        raise LoadError(
            f"{checkpoint.where} holds {len(found)} norms that may be the final one: "
            f"{', '.join(found[:5])}; {_MAKE}"
        )
    return found[0]


def _no_norm(checkpoint: Checkpoint, family: Architecture | None) -> LoadError:
    if family and family.why_no_norm:
        return LoadError(f"{checkpoint.where} has no final norm to fold: {family.why_no_norm}")
    names = ", ".join(USUAL_NORMS if family is None else family.norm)
    return LoadError(f"{checkpoint.where} holds no final norm under a known name ({names}); {_MAKE}")
