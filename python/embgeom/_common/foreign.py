"""Tensors, frames and word vectors of other libraries as NumPy arrays; none of them is imported."""

from __future__ import annotations

from collections.abc import KeysView, Mapping, Set
from os import PathLike
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError, first_line

TAKEN = (
    "embgeom takes NumPy arrays, torch tensors, polars and pandas frames of numbers, gensim KeyedVectors, "
    "its own Embeddings, and what NumPy can read"
)
# Fields that identify tensors of quantization libraries; they hold codes, not the numbers.
_CODES = ("quant_state", "SCB", "qweight", "qzeros", "tensor_impl")
_PACKED = ("float4", "int4", "uint4", "int2", "uint2", "uint3", "uint5", "uint6", "uint7", "uint1", "bits")


def to_numpy(x: Any, name: str) -> npt.NDArray[Any]:
    """Return `x` as a NumPy array, sharing its memory where possible; bfloat16 and float8 become float32."""
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(f"{name}: a masked array would lose its mask; fill it or drop its rows")
    if isinstance(x, str | PathLike):
        raise InputError(
            f"{name} must hold real numbers, not the name {str(x)!r:.60}: embgeom.load takes names of models"
        )
    if is_tensor(x):
        return _of_tensor(x, name)
    if is_word_vectors(x):
        x = word_vectors(x).vectors
    elif isinstance(x, list | tuple) and any(is_tensor(item) for item in x):
        x = [to_numpy(item, name) for item in x]
    elif is_lazy_frame(x):
        raise InputError(f"{name} is a lazy frame, whose numbers are not computed yet: pass its collect()")
    elif hasattr(x, "get_input_embeddings") or hasattr(x, "named_parameters"):
        raise InputError(
            f"{name} is the module {type(x).__name__}: pass its weight, or embgeom.load(model, tokenizer)"
        )
    elif hasattr(x, "tocsr") or hasattr(x, "todense"):
        raise InputError(f"{name} is sparse ({type(x).__name__}): pass its toarray()")
    try:
        array = _of_frame(x) if is_frame(x) else np.asarray(x)
    except InputError:
        raise
    except Exception as error:
        # Each library raises its own exceptions where NumPy cannot read its arrays.
        raise InputError(
            f"{name} is not an array that NumPy can read: {first_line(error)}; {TAKEN}"
        ) from None
    if array.dtype == object:
        raise InputError(f"{name} {_what_objects(x)}; {TAKEN}")
    return array


def to_strings(x: Any, name: str) -> list[str]:
    """Return a list, array or series of strings, one for each row, as a list of plain strings."""
    unordered = isinstance(x, Set) and not isinstance(x, KeysView)
    if unordered or isinstance(x, str | bytes | Mapping) or is_frame(x):
        hint = (
            "; embgeom.load(..., vocabulary=) takes a table of token to row" if isinstance(x, Mapping) else ""
        )
        raise InputError(f"{name} must be a list of strings, not a {type(x).__name__}{hint}")
    try:
        listed = list(x)
    except Exception as error:
        # A tensor, a series or a view may raise any exception.
        raise InputError(
            f"{name} must be a list of strings, not a {type(x).__name__}: {first_line(error)}"
        ) from None
    if wrong := [item for item in listed if not isinstance(item, str)]:
        raise InputError(f"{wrong[0]!r:.60} among {name} is a {type(wrong[0]).__name__}, not a string")
    return [str(item) for item in listed]


def type_name(x: Any) -> str:
    """Return the type of the numbers as their library names it: ``"bfloat16"``, ``"float32"``."""
    if is_word_vectors(x):
        x = word_vectors(x).vectors
    if is_tensor(x):
        return str(x.dtype).removeprefix("torch.")
    return str(x.dtype if isinstance(x, np.ndarray) else to_numpy(x, "x").dtype)


def is_tensor(x: object) -> TypeGuard[Any]:
    """Return whether `x` is a tensor of torch, by what such tensors can do."""
    kind = type(x)
    return all(hasattr(kind, part) for part in ("detach", "cpu", "numpy", "dtype", "device"))


def is_frame(x: object) -> TypeGuard[Any]:
    # A lazy frame warns about the cost of its attributes, so its type is asked.
    return all(hasattr(type(x), part) for part in ("columns", "dtypes", "to_numpy"))


def is_lazy_frame(x: object) -> bool:
    """Return whether `x` is a frame of polars whose numbers are not computed yet."""
    return hasattr(type(x), "collect_schema") and not is_frame(x)


def is_word_vectors(x: object) -> TypeGuard[Any]:
    """Return whether `x` is gensim's KeyedVectors, or a model that holds them."""
    held = getattr(x, "wv", x)
    return hasattr(held, "index_to_key") and hasattr(held, "vectors")


def word_vectors(x: Any) -> Any:
    """Return the KeyedVectors of a gensim object that `is_word_vectors` knows."""
    return getattr(x, "wv", x)


def quantized_kind(x: Any) -> str | None:
    """Return the kind of a quantized tensor or module, as its library calls it; None if `x` is not one."""
    kind = type(x)
    packages = ("bitsandbytes", "torchao", "hqq", "gptqmodel", "auto_gptq", "awq", "aqlm", "quanto", "eetq")
    root = kind.__module__
    known = any(root.startswith(package) for package in packages) or ".quanto" in root
    if known or getattr(x, "is_quantized", None) is True:
        return f"{root.split('.')[0]}'s {kind.__name__}"
    field = next((field for field in _CODES if hasattr(x, field)), None)
    return f"{kind.__name__}, with {field}" if field else None


def _of_tensor(x: Any, name: str) -> npt.NDArray[Any]:
    kind = str(x.dtype).removeprefix("torch.")
    if quantized := quantized_kind(x):
        raise InputError(f"{name} is quantized ({quantized}) and holds codes: pass its dequantize()")
    if x.device.type == "meta":
        raise InputError(
            f"{name} is on the device 'meta' and holds no numbers: it is not loaded yet, or accelerate has "
            "offloaded it (load the model on one device, without device_map='auto')"
        )
    if hasattr(x, "full_tensor"):
        raise InputError(f"{name} is split over processes (DTensor): pass its full_tensor()")
    if hasattr(x, "ds_id") and x.numel() == 0:
        raise InputError(f"{name} is split over processes by DeepSpeed: gather it (GatheredParameters) first")
    if getattr(x, "is_nested", False) or str(x.layout) != "torch.strided":
        raise InputError(f"{name} is no dense tensor ({x.layout}): pass its to_dense()")
    if kind.startswith(_PACKED) or kind.startswith(("complex", "q")):
        raise InputError(f"{name} must hold real numbers, not {kind}")
    try:
        # To the processor first: then half as many bytes travel, and a GPU needs no room for float32.
        dense = x.detach().resolve_conj().resolve_neg().cpu()
        if kind.startswith(("bfloat16", "float8")):
            dense = dense.float()
        array: npt.NDArray[Any] = dense.numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"{name} is not a tensor whose numbers can be read: {first_line(error)}") from None
    return array


def column_of(frame: Any, index: int | list[int]) -> Any:
    """Return a column or columns of a frame by index; in pandas several may share a name."""
    return frame.iloc[:, index] if hasattr(frame, "iloc") else frame[:, index]


def _of_frame(x: Any) -> npt.NDArray[Any]:
    kinds = [_kind_of_column(kind) for kind in x.dtypes]
    if odd := [str(name) for name, kind in zip(x.columns, kinds, strict=True) if kind in "Mm"]:
        raise InputError(
            f"the column {odd[0]!r} of the frame holds times, which are not a dimension: drop it"
        )
    whole = [str(name) for name, kind in zip(x.columns, kinds, strict=True) if kind in "biu"]
    if whole and "f" in kinds:
        raise InputError(
            f"the column {whole[0]!r} of the frame holds integers or booleans among columns of floats: drop "
            "it if it is not a dimension, or make it float"
        )
    array: npt.NDArray[Any] = np.asarray(x.to_numpy())
    if array.dtype == object and all(kind in "biuf" for kind in kinds):
        # The nullable numbers of pandas become objects unless a type is asked for.
        array = x.to_numpy(dtype=np.float64, na_value=np.nan)
    return array


def _kind_of_column(dtype: Any) -> str:
    """Return NumPy's letter for what a column holds."""
    if hasattr(dtype, "is_temporal"):
        asked = {"f": dtype.is_float(), "i": dtype.is_integer(), "M": dtype.is_temporal()}
        return next((kind for kind, holds in asked.items() if holds), "b" if str(dtype) == "Boolean" else "O")
    return str(getattr(dtype, "kind", "O"))


def _what_objects(x: Any) -> str:
    if not is_frame(x):
        return f"must hold real numbers, and {type(x).__name__} is not an array of them"
    columns = [
        str(column)
        for index, (column, kind) in enumerate(zip(x.columns, x.dtypes, strict=True))
        if np.asarray(column_of(x, index)).dtype.kind not in "biuf" and _kind_of_column(kind) not in "biuf"
    ]
    return f"has columns that hold no numbers: {', '.join(columns[:5])}"
