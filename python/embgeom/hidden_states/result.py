"""What a comparison of hidden states found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embgeom._common.result import Plotted, Result
from embgeom._common.tables import Block
from embgeom.errors import InputError
from embgeom.hidden_states.measures import Table


@dataclass(frozen=True, eq=False, repr=False)
class StateMeasure:
    """One similarity, for each state of the source model with each of the target model.

    Row 0 and column 0 are what goes into layer 0; row and column i + 1 are the output of layer i.

    Attributes
    ----------
    name : str
        Its name, by which `StateComparison` finds it.
    meaning : str
        What it is.
    value : ndarray of float64, shape (source layers + 1, target layers + 1)
        The similarity.
    shuffled : ndarray of float64, same shape
        The same where each position is paired with a position of another prompt.
    shuffled_map : ndarray of float64, same shape, or None
        The same by the map that was fitted on shuffled tokens, if there is one and a map plays a part.
    """

    name: str
    meaning: str
    value: Table
    shuffled: Table
    shuffled_map: Table | None

    def __repr__(self) -> str:
        rows, columns = self.value.shape
        return f"StateMeasure({self.name!r}, {rows} x {columns})"


@dataclass(frozen=True, eq=False, repr=False)
class StateComparison(Result, Plotted):
    """How alike two models' hidden states are, in every pair of layers; made by `compare_states`.

    Attributes
    ----------
    source, target : str
        The models.
    prompts, positions : int
        What was compared: positions in all of the prompts.
    measures : tuple of StateMeasure
        ``"cosine"``, ``"centered cosine"``, ``"CKA"`` and ``"uncentered CKA"``.
    provenance : dict
        Models, map, prompts, options and versions, ready for JSON.
    """

    source: str
    target: str
    prompts: int
    positions: int
    measures: tuple[StateMeasure, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def source_layers(self) -> int:
        """How many layers the source model has."""
        return len(self.measures[0].value) - 1

    @property
    def target_layers(self) -> int:
        """How many layers the target model has."""
        return int(self.measures[0].value.shape[1]) - 1

    def __getitem__(self, name: str) -> StateMeasure:
        """Return a measure by its name."""
        for measure in self.measures:
            if measure.name == name:
                return measure
        raise InputError(
            f"no measure is named {name!r}; there are {', '.join(repr(m.name) for m in self.measures)}"
        )

    def __repr__(self) -> str:
        return (
            f"StateComparison({self.source!r} and {self.target!r}, {self.source_layers} and "
            f"{self.target_layers} layers, {self.positions} positions of {self.prompts} prompts)"
        )

    def match_layers(self, measure: str = "centered cosine") -> dict[int, int]:
        """Return for each source layer the target layer whose output is most similar, counted from 0.

        Parameters
        ----------
        measure : str
            The name of the measure.

        Returns
        -------
        dict of int to int
            The first of those that are equally similar.

        Raises
        ------
        InputError
            If there is no such measure.

        See Also
        --------
        matching_layer : A match by depth alone.
        """
        similar = np.nan_to_num(self[measure].value[1:, 1:], nan=-np.inf)
        return {layer: int(best) for layer, best in enumerate(similar.argmax(axis=1))}

    def tables(self) -> list[Block]:
        """Return for each source layer the best target layer, and the equally deep one."""
        from embgeom.hidden_states.tables import state_tables

        return state_tables(self)

    def figure(self) -> Any:
        """Draw each measure over all pairs of layers."""
        from embgeom.hidden_states.figure import draw

        return draw(self)
