"""What decides on the result of a call: the key by which the cache finds it again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_type_hints

import numpy as np

from embgeom._common.arrays import Float32Matrix, RowNumbers, as_matrix, as_neighbor_list, as_row_numbers
from embgeom._common.checks import whole_number
from embgeom._common.native import build_digest, core, source_digest
from embgeom._common.record import Arrays, array_digest, digest, plain
from embgeom.errors import InputError
from embgeom.geometry.dimension import IntrinsicDimension, usual_k
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE
from embgeom.geometry.rows import check_same_tokens, tokens_of

KINDS: dict[str, Any] = {
    "knn": Neighbors,
    "lle": LLE,
    "intrinsic_dimension": IntrinsicDimension,
    "global_similarity": float,
}
"""The functions whose results are kept, and the types of these."""

# Every other parameter of the functions decides on their results.
_WITHOUT_INFLUENCE = ("threads", "progress", "parts", "known")
MATRICES = ("x", "a", "b")
_SAID_OTHERWISE = {*MATRICES, "k", "neighbors", "queries", "rows"}


@dataclass(frozen=True)
class Request:
    """A call of a function: what decides on its result.

    `k` is the number of neighbors that were asked for where fewer are the first of more, otherwise 0. `rows`
    are those that were asked for where each row's result depends on no other. `chosen` are other parameters
    than arrays that are not as by default. `kind` is the type of the result.
    """

    key: dict[str, Any]
    chosen: dict[str, Any]
    shapes: list[tuple[int, ...]]
    k: int
    rows: RowNumbers | None
    tokens: list[str] | None
    kind: Any

    @property
    def function(self) -> str:
        """The name of the function."""
        return str(self.key["function"])

    @property
    def group(self) -> str:
        """The part of its file's name that differs for other input or parameters, but `k` and `rows`."""
        return digest(self.key)[:40]

    @property
    def which(self) -> str:
        """The part of its file's name that differs for other rows."""
        return "all" if self.rows is None else array_digest(self.rows)[:16]

    @property
    def file(self) -> str:
        """The name of the file for its result."""
        return f"{self.group}.{self.k}.{self.which}.safetensors"


def code_key(function: str, *, with_python: bool = True) -> dict[str, Any]:
    """Return a function's name with the code that it runs: other code or instructions round differently."""
    key = {"build": build_digest(), "instructions": core.instruction_set(), "function": function}
    return key | ({"source": source_digest(), "numpy": np.__version__} if with_python else {})


def requested(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    matrix_digest: Callable[[Float32Matrix], str],
) -> Request:
    """Return what decides on the result of a call: every parameter but those without influence."""
    name = getattr(function, "__name__", "")
    if name not in KINDS:
        raise InputError(f"the cache keeps results of {', '.join(KINDS)}, not of {name or repr(function)}")
    bound = inspect.signature(function).bind(*arguments, **options)
    bound.apply_defaults()
    parameters = bound.signature.parameters
    values = {each: value for each, value in bound.arguments.items() if each not in _WITHOUT_INFLUENCE}
    tokens = tokens_of(next(iter(values.values())))
    matrices = {each: as_matrix(values[each], each) for each in MATRICES if each in values}
    n = len(matrix := next(iter(matrices.values())))
    by_row = values["queries"] is None if name == "knn" else values.get("neighbors", n) is None
    asked = values.pop("rows") if by_row else None
    k = whole_number(values.pop("k"), "k", 1) if name == "knn" else 0
    key = code_key(name, with_python=False)
    for each in list(values):
        is_usual = by_row and each == "k" and values[each] is None
        value = usual_k(matrix, values["metric"]) if is_usual else values[each]
        if isinstance(value, Neighbors):
            check_same_tokens(tokens, value.tokens)
            tokens = value.tokens if tokens is None else tokens
            # The same call with arrays has the same key, unless the function will refuse this one.
            key[each] = array_digest(as_neighbor_list(value.indices, n))
            if value.of_queries or values["rows"] is not None:
                key["refused"] = True
            elif value.rows is not None:
                values["rows"] = value.rows
        elif each in matrices:
            check_same_tokens(tokens, tokens_of(value))
            key[each] = matrix_digest(matrices[each])
        elif value is None or isinstance(value, bool | int | float | str):
            key[each] = value
        elif isinstance(value, np.generic):
            key[each] = value.item()
        elif each == "queries":
            key[each] = array_digest(as_matrix(value, each))
        else:
            array = as_row_numbers(value, n) if each == "rows" else as_neighbor_list(value, n)
            key[each] = array_digest(array)
    rows = None if asked is None else as_row_numbers(asked, n)
    others = values.keys() - _SAID_OTHERWISE
    chosen = {each: key[each] for each in values if each in others and key[each] != parameters[each].default}
    return Request(key, chosen, [matrix.shape for matrix in matrices.values()], k, rows, tokens, KINDS[name])


def requested_part(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    options: Mapping[str, Any],
    matrix_digest: Callable[[Float32Matrix], str],
) -> Request:
    """Return what decides on the result of a call of any function whose result has an annotated type.

    Arguments are arrays, dataclasses, plain values and lists of them.
    """
    bound = inspect.signature(function).bind(*arguments, **options)
    bound.apply_defaults()
    values = {each: value for each, value in bound.arguments.items() if each not in _WITHOUT_INFLUENCE}
    key = code_key(f"{function.__module__}.{function.__qualname__}")
    key |= {each: _part_digest(value, matrix_digest) for each, value in values.items()}
    shapes = [value.shape for value in values.values() if isinstance(value, np.ndarray) and value.ndim == 2]
    return Request(key, {}, shapes, 0, None, None, get_type_hints(function)["return"])


def _part_digest(value: Any, array_digest_of: Callable[[Any], str]) -> Any:
    """Return a value as it stands in a key: large ones by their SHA-256."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return array_digest_of(value)
    if isinstance(value, list | tuple):
        return [_part_digest(item, array_digest_of) for item in value]
    if not is_dataclass(value):
        raise TypeError(f"a {type(value).__name__} cannot be a part of a key")
    arrays: Arrays = {}
    structure = {key: item for key, item in plain(value, arrays).items() if key not in _WITHOUT_INFLUENCE}
    return digest([structure, {name: array_digest_of(array) for name, array in arrays.items()}])
