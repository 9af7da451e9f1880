"""The look of every figure: plain axes, and colors for color-blind readers, gray print and dark pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need

# Okabe & Ito (2008), from dark to light as gray print has them, and marks that differ without color.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
INK, FAINT, NULL = "#24292f", "#afb8c1", "#59636e"
SEQUENTIAL = "cividis"

_SETTINGS: dict[str, Any] = {
    # Figures have a background, since dark ink is lost on a dark page.
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": NULL,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "image.cmap": SEQUENTIAL,
    # Names in an SVG are random otherwise, and equal results are to be equal files.
    "svg.hashsalt": "embgeom",
}
_Draw = TypeVar("_Draw", bound=Callable[..., Any])


def in_style() -> AbstractContextManager[None]:
    """Return a context that makes and saves figures in the one style, whatever matplotlib is set to."""
    style = need("matplotlib.style", "a figure", extra="figures")
    cycle = need("cycler", "a figure", extra="figures").cycler(color=COLORS)
    context: AbstractContextManager[None] = style.context(
        ["default", {**_SETTINGS, "axes.prop_cycle": cycle}]
    )
    return context


def styled(draw: _Draw) -> _Draw:
    """Let a function that makes a figure make it in the one style."""

    @wraps(draw)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with in_style():
            return draw(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def legend_above(axes: Any) -> None:
    """Put the legend of axes above them, where it hides no data."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.3, columnspacing=1.0)


def integer_bins(low: int, high: int, most: float = 80.0) -> npt.NDArray[np.float64]:
    """Return edges of at most about so many bins, each of which holds equally many whole numbers."""
    step = max(1, -int(-(high - low + 1) // most))
    return np.arange(low - 0.5, high + step + 0.5, step)


def draw_whole_numbers(axes: Any, x: npt.NDArray[Any], y: npt.NDArray[Any], most: float = 40.0) -> Any:
    """Draw how many tokens have which two whole numbers, darker for more, and where the two are equal."""
    bins = [integer_bins(int(z.min()), int(z.max()), most) for z in (x, y)]
    looks: dict[str, Any] = {"cmin": 1, "norm": "log", "cmap": f"{SEQUENTIAL}_r", "rasterized": True}
    *_, cells = axes.hist2d(x, y, bins=bins, **looks)
    # A line through a point outside of the data would make them small.
    if (first := max(x.min(), y.min())) <= min(x.max(), y.max()):
        axes.axline((first, first), slope=1.0, color=COLORS[1], linestyle="--", linewidth=0.9)
    return cells


def counts_bar(figure: Any, cells: Any, axes: Any) -> None:
    """Add the color bar of counts on a logarithmic scale, with plain numbers."""
    from matplotlib.ticker import LogLocator

    bar = figure.colorbar(cells, ax=axes, label="tokens", format="%g", ticks=LogLocator(subs=(1, 2, 5)))
    bar.ax.minorticks_off()


def shortened(names: Sequence[str], most: int = 26) -> list[str]:
    """Return names of models without folders, their middle left out beyond `most` characters.

    Where two would look alike, all get their number.
    """
    short = [_shortened(name, most) for name in names]
    if len(set(short)) == len(short) or len(set(names)) < len(names):
        return short
    return [f"{i}: {_shortened(name, max(most - 3, 6))}" for i, name in enumerate(names, 1)]


def _shortened(name: str, most: int) -> str:
    name = name.rstrip("/").rpartition("/")[2] or name
    begin = (most - 1) * 3 // 5
    return name if len(name) <= most else f"{name[:begin]}…{name[begin + 1 - most :]}"
