"""A comparison of hidden states as readable tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from embgeom._common.tables import Block, Table, number
from embgeom.lm.depth import matching_layer

if TYPE_CHECKING:
    from embgeom.hidden_states.result import StateComparison, StateMeasure

# One by the map, and one that needs none; the others are theirs without centering.
_SHOWN = ("centered cosine", "CKA")


def state_tables(comparison: StateComparison) -> list[Block]:
    """Return a table for each of two measures, with a row for each state of the source model."""
    c = comparison
    return [
        f"{c.source} ({c.source_layers} layers) to {c.target} ({c.target_layers} layers), "
        f"{c.positions} positions of {c.prompts} prompts",
        *(_table(comparison[name]) for name in _SHOWN),
    ]


def _table(measure: StateMeasure) -> Table:
    nulls = ["shuffled", *([] if measure.shuffled_map is None else ["shuffled map"])]
    columns = ("source", "same depth", "value", *nulls, "most similar", "value", *nulls)
    return Table(f"{measure.name}: {measure.meaning}", columns, _rows(measure))


def _rows(measure: StateMeasure) -> Iterator[list[str]]:
    source_count, target_count = (length - 1 for length in measure.value.shape)
    best = np.nan_to_num(measure.value, nan=-np.inf).argmax(axis=1)
    for row in range(source_count + 1):
        deep = matching_layer(row - 1, source_count, target_count) + 1 if row else 0
        cells = [_state(row)]
        for column in (deep, int(best[row])):
            cells += [_state(column), number(measure.value[row, column])]
            cells.append(number(measure.shuffled[row, column]))
            if measure.shuffled_map is not None:
                cells.append(number(measure.shuffled_map[row, column]))
        yield cells


def _state(place: int) -> str:
    return f"layer {place - 1}" if place else "embedding"
