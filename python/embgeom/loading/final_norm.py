"""The final norm of a model, read from its checkpoint alone."""

from __future__ import annotations

import os
import re
from typing import Any

from embgeom.errors import InputError, LoadError
from embgeom.final_norm import FinalNorm, Kind
from embgeom.loading.adapter import Adapter, adapter_source
from embgeom.loading.checkpoint import Checkpoint, open_checkpoint
from embgeom.loading.folder import read_json
from embgeom.loading.gguf_model import GGUFModel, find_gguf
from embgeom.loading.memory import refuse_options, unwrapped
from embgeom.loading.norm_module import final_norm_of
from embgeom.loading.source import find_local, find_source
from embgeom.loading.subfolder import enter

# The end of the weight's name, outside of any block.
_NAMES = (
    "ln_f.weight",
    "final_layer_norm.weight",
    "final_layernorm.weight",
    "norm_f.weight",
    "ln_out.weight",
    "norm.weight",
)
_ELSEWHERE = re.compile(r"(^|\.)(layers?|h|blocks?)\.\d+\.|vision|visual|audio|image|encoder")
# Models by the model_type of their config whose norms multiply with 1 + weight, and whose LayerNorms have
# no bias; others have a LayerNorm where the checkpoint holds a bias for it, and an RMSNorm where not.
_PLUS_ONE = frozenset(
    {
        "gemma", "gemma2", "gemma3", "gemma3_text", "paligemma", "qwen3_5", "qwen3_5_text", "qwen3_next",
        "recurrent_gemma", "vaultgemma",
    }
)  # fmt: skip
_LAYER_NORM_PLUS_ONE = frozenset({"nemotron"})
_LAYER_NORM_WITHOUT_BIAS = frozenset({"cohere", "cohere2", "dbrx", "mpt"})


def load_final_norm(
    model: Any,
    *,
    adapter: str | os.PathLike[str] | None = None,
    subfolder: str | None = None,
    **options: Any,
) -> FinalNorm:
    """Load the weight of the norm between a model's last block and its unembedding.

    Parameters
    ----------
    model : str, path-like, or object
        A folder, a GGUF file, a bundled example or a Hugging Face id, as in `embgeom.load`; or a model of
        transformers in memory, whose norm is run on a few vectors to see what it does.
    adapter : str or path-like, optional
        The folder or id of a PEFT adapter of the model, which may hold a norm of its own.
    subfolder : str, optional
        The folder within the model that holds its weights, as in `embgeom.load`.
    **options
        ``revision``, ``cache_dir``, ``token``, ``local_files_only`` and ``progress``, as in `embgeom.load`.

    Returns
    -------
    FinalNorm
        To be folded into the rows of the unembedding by `embgeom.Emb2Emb.fit`. It centers where the
        checkpoint holds a bias for it, as LayerNorms have and RMSNorms have not.

    Raises
    ------
    LoadError
        If the model cannot be read, or has no final norm under a name that is known.
    InputError
        If an option has no meaning for the model, as `subfolder` for a file.

    Notes
    -----
    The ``model_type`` in config.json tells whose norms multiply with 1 + weight, as Gemma's do, and whose
    LayerNorms have no bias. Of models that are not known so, a norm with a bias is a LayerNorm, one without
    an RMSNorm.

    Examples
    --------
    >>> import embgeom
    >>> small, large = (embgeom.load_final_norm(folder) for folder in embgeom.examples.pair())
    >>> small.weight.shape, small.centers, large.weight.shape, large.centers
    ((128,), True, (192,), False)
    """
    if not isinstance(model, str | os.PathLike):
        refuse_options("what is in memory", adapter=adapter, subfolder=subfolder, **options)
        return final_norm_of(unwrapped(model)[0])
    source, (path, is_file) = find_source(model, **options), find_local(model)
    if is_file and subfolder is not None:
        raise InputError(
            f"subfolder={subfolder!r} is for a folder or a Hugging Face id, and {model} is a file"
        )
    if not is_file:
        source = enter(source, subfolder)
    if (gguf := find_gguf(path if is_file else source)) is not None:
        refuse_options(f"{model}, a GGUF model", adapter=adapter)
        return GGUFModel(gguf).final_norm()
    checkpoint = open_checkpoint(source)
    name = _weight_name(checkpoint)
    weight = checkpoint.file(name).read(name)
    if adapter is not None:
        own = Adapter.read(adapter_source(adapter, **options)).vector(name)
        weight = weight if own is None else own
    config = source.find("config.json")
    model_type = "" if config is None else str(read_json(config).get("model_type", ""))
    has_bias = name.removesuffix("weight") + "bias" in checkpoint.names
    return FinalNorm.of(weight, _kind(model_type, has_bias))


def _kind(model_type: str, has_bias: bool) -> Kind:
    if model_type in _LAYER_NORM_PLUS_ONE:
        return "layer_norm_plus_one"
    if model_type in _PLUS_ONE:
        return "rms_norm_plus_one"
    return "layer_norm" if has_bias or model_type in _LAYER_NORM_WITHOUT_BIAS else "rms_norm"


def _weight_name(checkpoint: Checkpoint) -> str:
    for end in _NAMES:
        found = [
            name
            for name in checkpoint.names
            if (name == end or name.endswith("." + end)) and not _ELSEWHERE.search(name)
        ]
        if len(found) == 1:
            return found[0]
    raise LoadError(
        f"{checkpoint.where} holds no final norm under a name that is known ({', '.join(_NAMES)}); "
        "make one with embgeom.FinalNorm.of(weight, kind)"
    )
