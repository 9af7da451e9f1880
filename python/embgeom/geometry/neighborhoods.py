"""What `lle` and `intrinsic_dimension` share: whose neighbors a list holds."""

from __future__ import annotations

import numpy.typing as npt

from embgeom._common.arrays import IndexMatrix, RowNumbers, as_neighbor_list, as_row_numbers
from embgeom.errors import InputError
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.same_tokens import check_same_tokens


def resolve_neighborhoods(
    neighbors: Neighbors | npt.ArrayLike,
    rows: npt.ArrayLike | None,
    row_count: int,
    tokens: list[str] | None = None,
) -> tuple[IndexMatrix, RowNumbers | None]:
    """Return the list of neighbors (m, k), and the rows (m,) whose they are; None for all rows in order."""
    if isinstance(neighbors, Neighbors):
        check_same_tokens(tokens, neighbors.tokens)
        if neighbors.of_queries:
            raise InputError("neighbors of queries do not belong to rows of x: look for those of its rows")
        if rows is not None:
            raise InputError("rows goes with an array of neighbors; a Neighbors object knows its rows")
        numbers, rows = as_neighbor_list(neighbors.indices, row_count), neighbors.rows
    else:
        numbers = as_neighbor_list(neighbors, row_count)
    selection = None if rows is None else as_row_numbers(rows, row_count)
    token_count = row_count if selection is None else len(selection)
    if len(numbers) != token_count:
        whose = "x has" if selection is None else "rows names"
        raise InputError(
            f"neighbors lists {len(numbers)} tokens, but {whose} {token_count}; "
            "rows= says which rows of x a list is for"
        )
    return numbers, selection
