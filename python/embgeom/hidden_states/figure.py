"""A comparison of hidden states as a figure: one map of colors for each measure."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._writing import write_file
from embgeom.errors import InputError, OutputError
from embgeom.hidden_states.depth import relative_depth

if TYPE_CHECKING:
    from embgeom.hidden_states.result import StateComparison, StateMeasure

_SUFFIXES = (".svg", ".png", ".pdf")


def draw(comparison: StateComparison, path: str | PathLike[str]) -> None:
    """Write the figure; see `StateComparison.figure`."""
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise OutputError(f"{path} has the suffix {suffix!r}; a figure is one of {', '.join(_SUFFIXES)}")
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError('figures need matplotlib: pip install "embgeom[steer]"') from error
    figure = Figure(figsize=(9, 7.5), layout="constrained")
    for axes, measure in zip(figure.subplots(2, 2).flat, comparison.measures, strict=True):
        _panel(figure, axes, measure)
    figure.suptitle(
        f"hidden states of {comparison.source} and {comparison.target}, {comparison.positions} positions "
        f"of {comparison.prompts} prompts\ndot: most similar; cross: same relative depth",
        fontsize=11,
    )
    figure.supxlabel(f"state of {comparison.target} (E: embedding, i: output of block i)")
    figure.supylabel(f"state of {comparison.source}")

    def write(partial: Path) -> None:
        # Neither the date nor random names, so that equal results are equal files.
        metadata = {"Date": None} if suffix == ".svg" else {"CreationDate": None} if suffix == ".pdf" else {}
        with matplotlib.rc_context({"svg.hashsalt": "embgeom"}):
            figure.savefig(partial, format=suffix[1:], metadata=metadata, dpi=150)

    write_file(path, write)


def _panel(figure: Any, axes: Any, measure: StateMeasure) -> None:
    """Draw one measure; dots are on the best target state of each row, crosses on the equally deep one."""
    rows, columns = measure.value.shape
    lowest = min(0.0, float(np.nanmin(measure.value, initial=0.0)))
    image = axes.imshow(measure.value, vmin=lowest, vmax=1, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes)
    best = np.nan_to_num(measure.value, nan=-np.inf).argmax(axis=1)
    deep = [0, *(relative_depth(block, rows - 1, columns - 1) + 1 for block in range(rows - 1))]
    axes.plot(best, np.arange(rows), "o", color="white", markeredgecolor="black")
    axes.plot(deep, np.arange(rows), "x", color="red")
    axes.set_title(
        f"{measure.name} (other prompts: {np.nanmean(measure.shuffled):.2f} on average)", fontsize=9
    )
    for axis, count in ((axes.xaxis, columns), (axes.yaxis, rows)):
        ticks = range(0, count, -(-count // 16))
        axis.set_ticks(ticks, labels=[str(tick - 1) if tick else "E" for tick in ticks])
