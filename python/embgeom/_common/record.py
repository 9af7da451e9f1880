"""Results in plain types, and back: what JSON holds, with provenance."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


def plain(value: Any, arrays: Arrays | None = None, name: str = "") -> Any:
    """Return `value` in JSON's types, an undefined number as None; with `arrays`, arrays go there by name."""
    if arrays is not None and isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[name] = value
        return name
    prefix = f"{name}." if name else ""
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item, arrays, f"{prefix}{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, arrays, f"{prefix}{index}") for index, item in enumerate(value)]
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return str(value) if isinstance(value, Path) else value


def rebuilt(kind: Any, value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Return the object of type `kind` that `plain` turned into `value`, or raise ValueError."""
    origin, inner = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return value
    if is_dataclass(origin):
        return _rebuilt_dataclass(origin, value, arrays)
    if origin in (Union, UnionType):
        return _rebuilt_union(inner, value, arrays)
    if origin is np.ndarray:
        return _rebuilt_array(get_args(inner[1])[0], value, arrays)
    if isinstance(value, list | dict):
        return _rebuilt_container(origin, inner, value, arrays)
    return _rebuilt_scalar(origin, inner, value)


def _rebuilt_dataclass(kind: Any, value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.40} is not a {kind.__name__}")
    if absent := [field.name for field in fields(kind) if field.name not in value]:
        raise ValueError(f"{kind.__name__} lacks {absent[0]!r}")
    kinds = get_type_hints(kind)
    return kind(**{f.name: rebuilt(kinds[f.name], value[f.name], arrays) for f in fields(kind)})


def _rebuilt_union(kinds: tuple[Any, ...], value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if value is None and NoneType in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not NoneType)
    for kind in others:
        with suppress(ValueError):
            return rebuilt(kind, value, arrays)
    return rebuilt(last, value, arrays)


def _rebuilt_array(scalar: Any, value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if isinstance(value, str):
        array = arrays.get(value)
        if array is None or array.dtype != np.dtype(scalar):
            raise ValueError(f"there is no array {value!r:.40} of {scalar.__name__}")
        return array
    return np.array(value, dtype=scalar)


def _rebuilt_container(
    origin: Any, inner: tuple[Any, ...], value: Any, arrays: Mapping[str, npt.NDArray[Any]]
) -> Any:
    if isinstance(value, dict) and origin in (dict, Mapping):
        key, kind = inner
        return {key(name): rebuilt(kind, item, arrays) for name, item in value.items()}
    if not isinstance(value, list) or origin not in (list, tuple, Sequence):
        raise ValueError(f"{value!r:.40} is not of type {origin}")
    kinds = inner if origin is tuple and inner[1:] != (...,) else inner[:1] * len(value)
    items = (rebuilt(kind, item, arrays) for kind, item in zip(kinds, value, strict=True))
    return tuple(items) if origin is tuple else list(items)


def _rebuilt_scalar(origin: Any, inner: tuple[Any, ...], value: Any) -> Any:
    if origin is float and (value is None or type(value) is int):
        return math.nan if value is None else float(value)
    if isinstance(value, str) and origin in (bytes, Path):
        return Path(value) if origin is Path else value.encode("latin-1")
    if value in inner if origin is Literal else type(value) is origin:
        return value
    raise ValueError(f"{value!r:.40} is not of type {origin}")


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def digest(items: Any) -> str:
    """Return the SHA-256 of items as compact JSON, in hexadecimal: equal in two runs that had the same."""
    text = json.dumps(items, default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def array_digest(array: npt.NDArray[Any]) -> str:
    """Return the SHA-256 of a C-contiguous array's type, shape and bytes, in hexadecimal."""
    sha = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode("ascii"))
    # In pieces, between which Ctrl-C is heeded.
    for begin in range(0, len(array), step := max(1, (1 << 26) * len(array) // max(array.nbytes, 1))):
        sha.update(array[begin : begin + step].data)
    return sha.hexdigest()


def versions(others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions that a result depends on; of `others` those that are installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    found = {"numpy": version("numpy")}
    # Run from a source tree, the package itself has no metadata.
    for name in ("embgeom", "tokenizers", *others):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def model_versions() -> dict[str, str]:
    return versions(("torch", "transformers"))
