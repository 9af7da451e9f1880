"""A causal language model with its tokenizer, by the names that users give to models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from embgeom._optional import need
from embgeom._record import digest
from embgeom.errors import LoadError
from embgeom.loading.source import find_folder
from embgeom.steering.blocks import need_torch


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
) -> LanguageModel:
    """Load a whole causal language model, ready to be steered.

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

    Returns
    -------
    LanguageModel
        ``model``, in evaluation mode, on the accelerator where there is one, and ``tokenizer``.

    Raises
    ------
    InputError
        If torch or transformers is not installed.
    LoadError
        If the model cannot be found or read.

    Examples
    --------
    >>> from embgeom.steering import load_language_model
    >>> model, tokenizer = load_language_model("example:small")
    >>> model.config.num_hidden_layers, len(tokenizer)
    (4, 4096)
    """
    torch, transformers = need_torch(), need("transformers", "loading a model to steer it")
    folder = find_folder(name, revision=revision)
    where = str(name) if folder is None or Path(name).is_file() else str(folder.path)
    options: dict[str, Any] = {"local_files_only": local_files_only}
    if revision is not None:
        options["revision"] = revision
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype is None:
        dtype = "auto" if device == "cuda" else torch.float32
    try:
        with _silent_transformers():
            model = transformers.AutoModelForCausalLM.from_pretrained(where, dtype=dtype, **options)
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:
        # What transformers raises for a damaged folder is not documented.
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise LoadError(f"{name} cannot be loaded as a causal language model: {first[0]}") from error
    if where != str(name):
        model.config.name_or_path = str(name)
    return LanguageModel(model.eval().to(device), tokenizer)


def model_name(model: Any) -> str:
    """Return what to call a model: what it was loaded as, or its class; of an absolute path the last part."""
    name = str(getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__)
    return Path(name).name if Path(name).is_absolute() else name


def describe_model(model: Any) -> dict[str, Any]:
    """Return what tells which model it is, ready for JSON: name, commit, the SHA-256 of its config."""
    config = getattr(model, "config", None)
    known: dict[str, Any] = {"model": model_name(model), "class": type(model).__name__}
    if config is not None and hasattr(config, "to_dict"):
        # These two differ between two copies of one model.
        own = {
            k: v for k, v in config.to_dict().items() if k not in ("transformers_version", "_name_or_path")
        }
        known["config_sha256"] = digest(own)
        known["commit"] = getattr(config, "_commit_hash", None)
    dtype = getattr(model, "dtype", None)
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
