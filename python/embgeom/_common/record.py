"""What results say of how they came about, in types that JSON has."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Return `value` in JSON's types; a number that is undefined becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, content: Any) -> None:
    """Write `content` as a JSON file for people and programs."""
    path.write_text(json.dumps(plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def digest(items: Any) -> str:
    """Return the SHA-256 of items as compact JSON, in hexadecimal: it tells whether two runs had the same."""
    text = json.dumps(items, default=str, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def versions(others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions that a result depends on; of `others` those that are installed."""
    from importlib.metadata import (  # slow to import, and few results are written
        PackageNotFoundError,
        version,
    )

    found = {"numpy": version("numpy")}
    # Run from a source tree, the package itself has no metadata.
    for name in ("embgeom", "tokenizers", *others):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version(), "machine": platform.machine()}


def model_versions() -> dict[str, str]:
    """Return the versions that what a model says depends on."""
    return versions(("torch", "transformers"))
