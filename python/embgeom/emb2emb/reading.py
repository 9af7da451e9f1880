"""Reading maps from safetensors files; what a file says is believed only where it makes a whole map."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.neighbors import NeighborMap
from embgeom.emb2emb.saving import FORMAT
from embgeom.emb2emb.score import Scores
from embgeom.emb2emb.solve import Method
from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile

Arrays = dict[str, npt.NDArray[Any]]

# What each tensor is: its type in the file, and how many axes it has.
_TENSORS = {
    "matrix": ("F64", 2),
    "logits_matrix": ("F64", 2),
    "source_mean": ("F64", 1),
    "target_mean": ("F64", 1),
    "source_rows": ("F32", 2),
    "target_rows": ("F32", 2),
}
_OF_ALL = {"logits_matrix", "source_mean", "target_mean"}


def load(path: str | PathLike[str]) -> Emb2Emb:
    """Read a map; see `Emb2Emb.load`.

    Raises
    ------
    LoadError
        If the file cannot be read, is no map, or its parts do not fit each other.
    """
    from safetensors import SafetensorError, safe_open

    try:
        # What is no regular file may make the library wait without end.
        LocalFile(Path(path).expanduser())
        with safe_open(Path(path).expanduser(), framework="numpy") as file:
            about = _about(file.metadata() or {}, path)
            _check_tensors(file, about["method"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _assembled(about, arrays)
    except (OSError, SafetensorError, TypeError) as error:
        raise LoadError(f"{path} cannot be read as a map: {error}") from error
    except (KeyError, ValueError, RuntimeError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise LoadError(f"{path} is no complete map: {why}; fit and save it again") from error


def _about(metadata: dict[str, str], path: str | PathLike[str]) -> dict[str, Any]:
    """Return what the file says beside its tensors, with a method that is known."""
    if FORMAT not in metadata:
        raise LoadError(
            f"{path} is no map of this version of embgeom: its metadata has {sorted(metadata)!r:.80}, "
            f"not {FORMAT!r}"
        )
    about = json.loads(metadata[FORMAT], parse_constant=_finite, parse_float=_finite)
    if not isinstance(about, dict):
        raise ValueError(f"what it says of itself is a {type(about).__name__}")
    if not isinstance(about["method"], str) or about["method"] not in get_args(Method):
        raise ValueError(f"its method is {about['method']!r:.80}")
    _check_provenance(about["provenance"])
    return about


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number in it is {text:.40}, neither finite nor JSON")
    return number


def _check_provenance(provenance: Any) -> None:
    if not isinstance(provenance, dict):
        raise ValueError(f"its provenance is a {type(provenance).__name__}")
    names = provenance.get("names", ["source", "target"])
    if not (isinstance(names, list) and len(names) == 2 and all(isinstance(name, str) for name in names)):
        raise ValueError(f"its names are {names!r:.80}, not those of two models")
    for name in names:
        # Half a surrogate pair would fail where the name is printed or written.
        name.encode("utf-8")


def _check_tensors(file: Any, method: str) -> None:
    """Find out by the header alone whether the tensors are those of the method, and fit each other."""
    wanted = _OF_ALL | ({"source_rows", "target_rows"} if method == "lle" else {"matrix"})
    found = set(file.keys())
    if missing := sorted(wanted - found):
        raise KeyError(missing[0])
    if extra := sorted(found - wanted):
        raise ValueError(f"it holds {extra[0]!r:.80}, which no map of method {method!r} has")
    shapes = {}
    for name in sorted(wanted):
        kind, axes = _TENSORS[name]
        held = file.get_slice(name)
        shapes[name] = shape = tuple(held.get_shape())
        if held.get_dtype() != kind:
            raise ValueError(f"{name} is of type {held.get_dtype()}, not {kind}")
        if len(shape) != axes or 0 in shape:
            raise ValueError(f"{name} has the shape {shape}, not {axes} axes with something in them")
    widths = (*shapes["source_mean"], *shapes["target_mean"])
    for name in wanted & {"matrix", "logits_matrix"}:
        if shapes[name] != widths:
            raise ValueError(f"{name} has the shape {shapes[name]}, but the means are of widths {widths}")
    if method == "lle":
        sides = shapes["source_rows"], shapes["target_rows"]
        if (sides[0][1], sides[1][1]) != widths or sides[0][0] != sides[1][0]:
            raise ValueError(
                f"its rows have the shapes {sides[0]} and {sides[1]}, but the means are of widths {widths}"
            )


def _assembled(about: dict[str, Any], arrays: Arrays) -> Emb2Emb:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"a number in {name} is NaN or infinite")
    neighbors = None
    if about["method"] == "lle":
        if any(isinstance(about[name], bool | str) for name in ("k", "reg")):
            raise ValueError(f"k = {about['k']!r:.40} and reg = {about['reg']!r:.40} are no two numbers")
        # Its own checks raise InputError, which is a ValueError.
        neighbors = NeighborMap(arrays["source_rows"], arrays["target_rows"], about["k"], about["reg"])
    return Emb2Emb(
        about["method"],
        arrays.get("matrix"),
        arrays["logits_matrix"],
        neighbors,
        arrays["source_mean"],
        arrays["target_mean"],
        scores=_scores(about["scores"], "scores"),
        shuffled=_scores(about["shuffled"], "shuffled"),
        provenance=about["provenance"],
    )


def _scores(said: Any, name: str) -> Scores | None:
    if said is None:
        return None
    wanted = {field.name for field in fields(Scores)}
    if not isinstance(said, dict) or set(said) != wanted:
        raise ValueError(f"its {name} are {said!r:.80}, not {', '.join(sorted(wanted))}")
    numbers = {key: _score(value, key, name) for key, value in said.items()}
    return Scores(**numbers)  # type: ignore[arg-type]


def _score(value: Any, key: str, name: str) -> int | float:
    """Return one number of the scores; an R2 that is undefined stands as null."""
    if key == "r2" and value is None:
        return math.nan
    whole = key in ("tokens", "candidates")
    # Beyond this bound whole numbers are none of what is counted, and may be too large for a float.
    known = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not known or abs(value) > 2**53:
        raise ValueError(f"{key} in its {name} is {value!r:.40}, which is no such number")
    return int(value) if whole else float(value)
