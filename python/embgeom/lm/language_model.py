"""A causal language model with its tokenizer, by the names that users give to models."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from embgeom._common.checks import need
from embgeom._common.record import digest
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError, LoadError, first_line
from embgeom.lm.layers import config_of, need_torch
from embgeom.loading.source import find_folder

# In the order in which they are tried: models of text alone come first.
_AUTO_CLASSES = ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModelForMultimodalLM")


class LanguageModel(NamedTuple):
    """A model of transformers and its tokenizer."""

    model: Any
    tokenizer: Any


def load_language_model(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    dtype: Any = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a whole causal language model, ready to be steered.

    A multimodal model is loaded whole; its language model is what is steered.

    Parameters
    ----------
    name : str or path-like
        A Hugging Face folder or id, or ``example:small`` or ``example:large``.
    revision : str, optional
        Branch, tag or commit of an id.
    local_files_only : bool
        Whether to use what the cache holds and fetch nothing.
    dtype : torch.dtype or str, optional
        What to compute in, as transformers has it. By default float32 on a CPU, and as the model is stored
        where there is an accelerator.
    trust_remote_code : bool
        Run the Python code that the folder or repository brings along, where it has code of its own.

    Returns
    -------
    LanguageModel
        ``model``, in evaluation mode, on the accelerator where there is one, and ``tokenizer``.

    Raises
    ------
    InputError
        If torch or transformers is not installed, or `name` is not a name.
    LoadError
        If the model cannot be found or read, lacks weights, or would run code of its own without
        `trust_remote_code`.

    Examples
    --------
    >>> from embgeom.steering import load_language_model
    >>> model, tokenizer = load_language_model("example:small")
    >>> model.config.num_hidden_layers, len(tokenizer)
    (4, 4096)
    """
    torch, transformers = need_torch(), need("transformers", "loading a model to steer it")
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"{name!r:.60} is not the name of a model: give a folder or an id")
    folder = find_folder(name, revision=revision)
    where = str(name) if folder is None or Path(name).is_file() else str(folder.path)
    # Left out, transformers would ask on standard output whether to run a model's own code.
    options: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": trust_remote_code}
    if revision is not None:
        options["revision"] = revision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None:
        dtype = "auto" if device == "cuda" else torch.float32
    try:
        with _silent_transformers():
            model = _loaded(transformers, where, {"dtype": dtype, **options})
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        tokenizer("a")
    except LoadError as error:
        raise LoadError(f"{name} {error}") from error
    except Exception as error:
        # What transformers raises for a damaged folder is not documented.
        first = first_line(error)
        if not trust_remote_code and ("custom code" in first or "trust_remote_code" in str(error)):
            raise LoadError(
                f"{name} is a model with Python code of its own, which is not run unasked: read it, and if "
                "you trust it pass trust_remote_code=True (--trust-remote-code)"
            ) from error
        raise LoadError(f"{name} cannot be loaded as a causal language model: {first}") from error
    if where != str(name):
        model.config.name_or_path = str(name)
    return LanguageModel(model.eval().to(device), tokenizer)


def _loaded(transformers: Any, where: str, options: dict[str, Any]) -> Any:
    """Return a model of the first class that knows it and finds all of its weights."""
    missing: list[str] = []
    for auto in filter(None, (getattr(transformers, name, None) for name in _AUTO_CLASSES)):
        try:
            model, info = auto.from_pretrained(where, output_loading_info=True, **options)
        except ValueError as error:
            if "Unrecognized configuration class" not in str(error):
                raise
            continue
        if odd := _not_a_number(model.config.to_dict(), "config"):
            raise LoadError(f"has a config.json in which {odd} is NaN; write a number there")
        # Buffers are computed where they are missing; weights would be drawn at random.
        weights = {weight for weight, _ in model.named_parameters()}
        if not (lacking := sorted(weights & set(info["missing_keys"]))):
            return model
        missing = missing or lacking
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LoadError(f"lacks the weights {missing[0]}{more}, so the model cannot run; fetch it whole")
    raise LoadError("is not a causal language model that this version of transformers knows")


def _not_a_number(value: Any, name: str) -> str | None:
    """Return what in a config is NaN, which no setting is meant to be; None if nothing is."""
    if not isinstance(value, dict | list | tuple):
        return name if isinstance(value, float) and math.isnan(value) else None
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = (_not_a_number(item, f"{name}.{key}") for key, item in items)
    return next((odd for odd in found if odd), None)


def model_info(model: Any) -> ModelInfo:
    """Return which model it is; one that was made from a configuration has no name."""
    config, whole = config_of(model), getattr(model, "config", None)
    name = str(getattr(whole, "name_or_path", "") or "") or None
    size, depth = (getattr(config, key, None) for key in ("hidden_size", "num_hidden_layers"))
    return ModelInfo(name, getattr(whole, "_commit_hash", None), size, depth)


def model_name(model: Any) -> str:
    """Return what to call a model: what it was loaded as, or its class; of an absolute path the last part."""
    name = model_info(model).name or type(model).__name__
    return Path(name).name if Path(name).is_absolute() else name


def describe_model(model: Any) -> dict[str, Any]:
    """Return what identifies a model, ready for JSON: name, commit, the SHA-256 of its config."""
    config, dtype = getattr(model, "config", None), getattr(model, "dtype", None)
    known: dict[str, Any] = {"model": model_name(model), "class": type(model).__name__}
    if config is not None and hasattr(config, "to_dict"):
        # These two differ between two copies of one model.
        copied = ("transformers_version", "_name_or_path")
        known["config_sha256"] = digest({k: v for k, v in config.to_dict().items() if k not in copied})
        known["commit"] = getattr(config, "_commit_hash", None)
    return {**known, "dtype": str(dtype).removeprefix("torch.") if dtype is not None else None}


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars that nobody asked for."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
