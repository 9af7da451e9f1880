"""Whether rows that are to be compared stand for the same tokens, where that is known."""

from __future__ import annotations

from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError


def tokens_of(x: object) -> list[str] | None:
    """Return the tokens of the rows where `x` is an `Embeddings`; an array knows none."""
    return x.tokens if isinstance(x, Embeddings) else None


def check_same_tokens(a: list[str] | None, b: list[str] | None) -> None:
    """Refuse rows that are known to stand for different tokens: their numbers say nothing of each other."""
    if a is None or b is None or a is b or a == b:
        return
    if len(a) != len(b):
        differ = f"{len(a)} rows and {len(b)}"
    else:
        row = next(i for i, (one, other) in enumerate(zip(a, b, strict=True)) if one != other)
        differ = f"row {row} is {a[row]!r} and {b[row]!r}"
    raise InputError(
        f"the rows are different tokens ({differ}): take the same tokens of both by "
        "ids_a, ids_b = embgeom.match(a, b), then a.matrix[ids_a] and b.matrix[ids_b]"
    )
