"""What a comparison of hidden states found: its tables and its figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Plotted, Result, named, new_figure
from embgeom._common.tables import Block, Table
from embgeom.lm.layers import matching_layer

MEASURES = {
    "cosine": "cosine: mean cosine of transferred and target states",
    "centered_cosine": "centered cosine: mean cosine of transferred and target states, each minus its mean",
    "cka": "CKA: similarity of the Gram matrices of centered states; needs no map",
    "uncentered_cka": "uncentered CKA: the same of states as they are",
}
# One by the map, and one that needs none; the others are theirs without centering.
_SHOWN = ("centered_cosine", "cka")


@dataclass(frozen=True, eq=False, repr=False)
class StateMeasure:
    """One similarity, for each state of the source model with each of the target model.

    Row 0 and column 0 are what goes into layer 0; row and column i + 1 are the output of layer i.

    Attributes
    ----------
    name : str
        Its name, by which `StateComparison` finds it.
    value : ndarray of float64, shape (source layers + 1, target layers + 1)
        The similarity.
    shuffled : ndarray of float64, same shape
        The same where each position is paired with a position of another text.
    shuffled_map : ndarray of float64, same shape, or None
        The same by the map that was fitted on shuffled tokens, if there is one and a map plays a part.
    """

    name: str
    value: npt.NDArray[np.float64]
    shuffled: npt.NDArray[np.float64]
    shuffled_map: npt.NDArray[np.float64] | None

    def __repr__(self) -> str:
        rows, columns = self.value.shape
        return f"StateMeasure({self.name!r}, {rows} x {columns})"

    def _best(self) -> list[int]:
        best: list[int] = np.nan_to_num(self.value, nan=-np.inf).argmax(axis=1).tolist()
        return best

    def _same_depth(self) -> list[int]:
        rows, columns = self.value.shape
        return [0, *(matching_layer(layer, rows - 1, columns - 1) + 1 for layer in range(rows - 1))]

    def _rows(self) -> Iterator[list[str | float]]:
        nulls = [self.shuffled] if self.shuffled_map is None else [self.shuffled, self.shuffled_map]
        for row, columns in enumerate(zip(self._same_depth(), self._best(), strict=True)):
            cells: list[str | float] = [_state(row)]
            for column in columns:
                cells += [_state(column), *(float(table[row, column]) for table in (self.value, *nulls))]
            yield cells

    def _table(self) -> Table:
        nulls = ["positions shuffled", *([] if self.shuffled_map is None else ["map of shuffled tokens"])]
        columns = ("source", "same depth", "value", *nulls, "most similar", "value", *nulls)
        return Table(MEASURES[self.name], columns, self._rows())

    def _draw(self, figure: Any, axes: Any) -> None:
        """Draw the values; dots are on the best column of each row, crosses on the equally deep one."""
        lowest = min(0.0, float(np.nanmin(self.value, initial=0.0)))
        image = axes.imshow(self.value, vmin=lowest, vmax=1, cmap="viridis", aspect="auto")
        figure.colorbar(image, ax=axes)
        rows, columns = self.value.shape
        axes.plot(self._best(), np.arange(rows), "o", color="white", markeredgecolor="black")
        axes.plot(self._same_depth(), np.arange(rows), "x", color="red")
        label, _, _ = MEASURES[self.name].partition(":")
        axes.set_title(
            f"{label} (positions shuffled: {np.nanmean(self.shuffled):.2f} on average)", fontsize=9
        )
        for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
            ticks = range(0, count, -(-count // 16))
            axis.set_ticks(ticks, labels=[str(tick - 1) if tick else "E" for tick in ticks])


@dataclass(frozen=True, eq=False, repr=False)
class StateComparison(Result, Plotted):
    """How alike two models' hidden states are, in every pair of layers; made by `compare_states`.

    Attributes
    ----------
    source, target : str
        The models.
    prompts, positions : int
        What was compared: positions in all of the texts.
    measures : tuple of StateMeasure
        ``"cosine"``, ``"centered_cosine"``, ``"cka"`` and ``"uncentered_cka"``.
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
        return named(self.measures, name, "measure")

    def __repr__(self) -> str:
        return (
            f"StateComparison({self.source!r} and {self.target!r}, {self.source_layers} and "
            f"{self.target_layers} layers, {self.positions} positions of {self.prompts} texts)"
        )

    def match_layers(self, measure: str = "centered_cosine") -> dict[int, int]:
        """Return for each source layer the target layer whose output is most similar, counted from 0.

        The first of those that are equally similar counts. `embgeom.matching_layer` matches by depth alone.

        Raises
        ------
        InputError
            If there is no such measure.
        """
        similar = np.nan_to_num(self[measure].value[1:, 1:], nan=-np.inf)
        return {layer: int(best) for layer, best in enumerate(similar.argmax(axis=1))}

    def tables(self) -> list[Block]:
        """Return for each source layer the most similar target layer, and the equally deep one."""
        return [
            f"{self.source} ({self.source_layers} layers) to {self.target} ({self.target_layers} layers), "
            f"{self.positions} positions of {self.prompts} texts",
            *(self[name]._table() for name in _SHOWN),
        ]

    def figure(self) -> Any:
        """Draw each measure over all pairs of layers."""
        figure = new_figure(9, 7.5)
        for axes, measure in zip(figure.subplots(2, 2).flat, self.measures, strict=True):
            measure._draw(figure, axes)
        figure.suptitle(
            f"hidden states of {self.source} and {self.target}, {self.positions} positions "
            f"of {self.prompts} texts\ndot: most similar; cross: same relative depth",
            fontsize=11,
        )
        figure.supxlabel(f"state of {self.target} (E: embedding, i: output of layer i)")
        figure.supylabel(f"state of {self.source}")
        return figure


def _state(number: int) -> str:
    return f"layer {number - 1}" if number else "embedding"
