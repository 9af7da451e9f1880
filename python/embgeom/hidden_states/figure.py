"""A comparison of hidden states as a figure: one map of colors for each measure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.figures import new_figure
from embgeom.lm.depth import matching_layer

if TYPE_CHECKING:
    from embgeom.hidden_states.result import StateComparison, StateMeasure


def draw(comparison: StateComparison) -> Any:
    """Return the figure; see `StateComparison.figure`."""
    figure = new_figure(9, 7.5)
    for axes, measure in zip(figure.subplots(2, 2).flat, comparison.measures, strict=True):
        _panel(figure, axes, measure)
    figure.suptitle(
        f"hidden states of {comparison.source} and {comparison.target}, {comparison.positions} positions "
        f"of {comparison.prompts} prompts\ndot: most similar; cross: same relative depth",
        fontsize=11,
    )
    figure.supxlabel(f"state of {comparison.target} (E: embedding, i: output of layer i)")
    figure.supylabel(f"state of {comparison.source}")
    return figure


def _panel(figure: Any, axes: Any, measure: StateMeasure) -> None:
    """Draw one measure; dots are on the best target state of each row, crosses on the equally deep one."""
    rows, columns = measure.value.shape
    lowest = min(0.0, float(np.nanmin(measure.value, initial=0.0)))
    image = axes.imshow(measure.value, vmin=lowest, vmax=1, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes)
    best = np.nan_to_num(measure.value, nan=-np.inf).argmax(axis=1)
    deep = [0, *(matching_layer(layer, rows - 1, columns - 1) + 1 for layer in range(rows - 1))]
    axes.plot(best, np.arange(rows), "o", color="white", markeredgecolor="black")
    axes.plot(deep, np.arange(rows), "x", color="red")
    axes.set_title(
        f"{measure.name} (other prompts: {np.nanmean(measure.shuffled):.2f} on average)", fontsize=9
    )
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        ticks = range(0, count, -(-count // 16))
        axis.set_ticks(ticks, labels=[str(tick - 1) if tick else "E" for tick in ticks])
