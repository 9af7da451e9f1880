"""A causal language model with its tokenizer, by the names that users give to models."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from embgeom._common.checks import need
from embgeom._common.record import digest
from embgeom.embeddings.provenance import ModelInfo, file_sha256, norm_rows
from embgeom.errors import InputError, LoadError, first_line
from embgeom.lm.layers import config_of, need_torch
from embgeom.loading.folder import is_file
from embgeom.loading.gguf.model import find_gguf
from embgeom.loading.hub.repository import split_file
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
    device: Any = None,
    device_map: Any = None,
    quantize: int | None = None,
    trust_remote_code: bool = False,
) -> LanguageModel:
    """Load a whole causal language model, ready to be steered.

    A model that also sees or hears is loaded whole; its language model is what is steered.

    Parameters
    ----------
    name : str or path-like
        A Hugging Face folder or id, ``example:small`` or ``example:large``; or a GGUF file, the folder that
        holds it, or ``owner/name/file.gguf`` on the Hub, whose weights are dequantized.
    revision : str, optional
        Branch, tag or commit of an id.
    local_files_only : bool
        Whether to use what the cache holds and fetch nothing.
    dtype : torch.dtype or str, optional
        What to compute in: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``, as it is stored. By
        default float32 on a CPU, and ``"auto"`` elsewhere and for a quantized model.
    device : torch.device or str, optional
        Where the model is put; by default on the first CUDA device, or the CPU where there is none.
    device_map : str or dict, optional
        Instead of `device`: how to distribute the layers over devices, as transformers has it; ``"auto"``.
    quantize : {8, 4}, optional
        Bits to which the weights of linear layers are rounded while they are loaded, by bitsandbytes.
    trust_remote_code : bool
        Run the Python code that the folder or repository brings along, where it has code of its own.

    Returns
    -------
    LanguageModel
        ``model``, in evaluation mode, and ``tokenizer``.

    Raises
    ------
    InputError
        If torch, transformers or what an option needs is not installed, or an option is unknown.
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
    where, gguf_file = _place(name, revision)
    # Left out, transformers would ask on standard output whether to run a model's own code.
    options: dict[str, Any] = {"local_files_only": local_files_only, "trust_remote_code": trust_remote_code}
    if revision is not None:
        options["revision"] = revision
    computing = _computing(torch, transformers, dtype, device, device_map, quantize)
    if gguf_file is not None:
        options |= _of_gguf(transformers, gguf_file, quantize)
    # A model that was distributed or quantized while it was loaded is where it is to be.
    target = computing.pop("device", None)
    try:
        with _silent_transformers():
            model = _loaded(transformers, where, {**computing, **options})
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
    return LanguageModel(model.eval() if target is None else model.eval().to(target), tokenizer)


def _place(name: str | os.PathLike[str], revision: str | None) -> tuple[str, str | None]:
    """Return the folder or id of a model, and the GGUF file in it, if it is one."""
    folder = find_folder(name, revision=revision)
    if folder is None:
        on_hub = split_file(str(name)) if str(name).lower().endswith(".gguf") else None
        return on_hub or (str(name), None)
    file = find_gguf(Path(name).expanduser() if is_file(Path(name).expanduser()) else folder)
    if file is not None:
        return str(file.parent), file.name
    return (str(name) if is_file(Path(name)) else str(folder.path)), None


def _of_gguf(transformers: Any, file: str, quantize: int | None) -> dict[str, Any]:
    need("gguf", "loading a model from a GGUF file")
    need("accelerate", "loading a model from a GGUF file", extra="quantize")
    if quantize is not None:
        raise InputError(f"quantize = {quantize} has no meaning for a GGUF file: its weights are quantized")
    # Weights that stay packed would be multiplied by a kernel that is looked for on the Hub.
    packed = getattr(transformers, "GgufConfig", None)
    return {"gguf_file": file, **({"quantization_config": packed(dequantize=True)} if packed else {})}


def _computing(
    torch: Any, transformers: Any, dtype: Any, device: Any, device_map: Any, quantize: int | None
) -> dict[str, Any]:
    """Return how and where a model is to compute, as options of transformers, and ``"device"``."""
    if isinstance(dtype, str) and dtype != "auto":
        found = getattr(torch, dtype, None)
        if not isinstance(found, torch.dtype) or not found.is_floating_point:
            raise InputError(f"dtype = {dtype!r} is unknown: use float32, bfloat16, float16 or auto")
        dtype = found
    if device is not None and device_map is not None:
        raise InputError(f"device = {device!r} and device_map = {device_map!r} exclude each other; give one")
    if quantize not in (None, 8, 4):
        raise InputError(f"quantize = {quantize!r} is not a number of bits: use 8 or 4, or leave it out")
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device = {device!r} cannot be used: {first_line(error)}") from error
    plain = device_map is None and quantize is None and place.type == "cpu"
    options = {"dtype": dtype if dtype is not None else torch.float32 if plain else "auto", "device": place}
    if device_map is not None:
        need("accelerate", "device_map", extra="quantize")
        options["device_map"] = device_map
    if quantize is not None:
        need("bitsandbytes", f"quantize={quantize}", extra="quantize")
        options["quantization_config"] = transformers.BitsAndBytesConfig(**{f"load_in_{quantize}bit": True})
        options.setdefault("device_map", {"": place})
    if "device_map" in options:
        del options["device"]
    return options


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
    size, depth = (getattr(config, key, None) for key in ("hidden_size", "num_hidden_layers"))
    norms: Any = {f"{side}_norms": _row_norms(model, side) for side in ("input", "output")}
    return ModelInfo(_loaded_as(model), getattr(whole, "_commit_hash", None), size, depth, **norms)


def _loaded_as(model: Any) -> str | None:
    return str(getattr(getattr(model, "config", None), "name_or_path", "") or "") or None


def _row_norms(model: Any, side: str) -> tuple[float, ...]:
    """Return the norms of some rows of a matrix of a model; none where it is quantized or not on a device."""
    weight: Any = None
    with suppress(AttributeError, NotImplementedError):
        weight = getattr(model, f"get_{side}_embeddings")().weight
    if getattr(weight, "ndim", 0) != 2 or weight.is_meta or not weight.is_floating_point():
        return ()
    rows = weight.detach()[norm_rows(len(weight))].double().norm(dim=1)
    return tuple(rows.cpu().tolist())


def model_name(model: Any) -> str:
    """Return what to call a model: what it was loaded as, or its class; of an absolute path the last part."""
    name = _loaded_as(model) or type(model).__name__
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


def files_sha256(model: Any) -> dict[str, str]:
    """Return the SHA-256 of each file of weights of a model; none of one that is not from a folder here."""
    name = _loaded_as(model)
    with suppress(LoadError, OSError):
        if name is not None and (folder := find_folder(name)) is not None:
            path = Path(name).expanduser()
            file = find_gguf(path if is_file(path) else folder)
            files = [file] if file else folder.list_local("*.safetensors") or folder.list_local("*.bin")
            return {each.name: _sha256(each, each.stat().st_mtime_ns) for each in files}
    return {}


@cache
def _sha256(file: Path, modified: int) -> str:
    """Return a file's SHA-256, which is read once while the file stays as it is."""
    return file_sha256(file)


@contextmanager
def _silent_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars that nobody asked for."""
    from transformers import modeling_gguf_pytorch_utils as of_gguf
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), of_gguf.tqdm
    logging.disable_progress_bar()
    # This one asks nobody whether it is wanted.
    of_gguf.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        of_gguf.tqdm = bar
        if shown:
            logging.enable_progress_bar()
