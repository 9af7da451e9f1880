"""Charts of many models: heatmaps of pairs, curves, histograms in rows, with nulls and intervals in each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import new_figure
from embgeom._common.style import (
    COLORS,
    FAINT,
    INK,
    LINES,
    MARKERS,
    NULL,
    SEQUENTIAL,
    draw_whole_numbers,
    integer_bins,
    shortened,
    styled,
)
from embgeom.comparison.curves import Curve
from embgeom.comparison.nulls import Estimate

Names = Sequence[str]
Values = npt.NDArray[Any]
# More curves than this are drawn gray, but for the highest and the lowest; more rows lose their histograms.
_FEW_CURVES = 6
_FEW_ROWS = 14
_FEW_MODELS = 5
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LEVELS: tuple[dict[str, Any], ...] = (
    {"color": COLORS[1], "linestyle": "--", "linewidth": 1.4},
    {"color": COLORS[2], "linestyle": ":", "linewidth": 1.8},
)


@dataclass(frozen=True)
class Cell:
    """A value for two models with half its 95 % interval, and its nulls, by a word for their kind."""

    value: float
    half_width: float
    nulls: dict[str, str]

    @classmethod
    def from_estimate(cls, estimate: Estimate) -> Cell:
        baselines = {"null": estimate.null, "strata": estimate.stratified}
        nulls = {
            word: f"{small(null.mean)}±{small(null.sd)}"
            for word, null in baselines.items()
            if null is not None
        }
        return cls(estimate.value, estimate.half_width, nulls)

    def text(self) -> str:
        if not math.isfinite(self.value):
            return "–"
        if not math.isfinite(self.half_width):
            return f"{self.value:.2f}"
        return f"{self.value:.{3 if self.half_width < 0.01 else 2}f}\n±{small(self.half_width)}"


Cells = Mapping[tuple[int, int], Cell]


@styled
def heatmap(names: Names, cells: Cells, label: str) -> Any:
    """Draw a measure of every pair of models, with its interval and its nulls in the cell.

    `cells` has a cell for (i, j) with i < j, or for both orders, where the first is the row.
    """
    width, height = _heatmap_size(names, cells)
    figure = new_figure(width, height)
    _draw_heatmap(figure, figure.subplots(), names, cells, label)
    return figure


@styled
def heatmaps(names: Names, panels: Mapping[str, Cells]) -> Any:
    """Draw heatmaps from each model (row) to each other (column), by their labels."""
    width, height = _heatmap_size(names, next(iter(panels.values())))
    count, beside = len(panels), len(names) == 2
    figure = new_figure(width * count, height) if beside else new_figure(width, height * count)
    shape = (1, count) if beside else (count, 1)
    for axes, (label, cells) in zip(figure.subplots(*shape).flat, panels.items(), strict=True):
        _draw_heatmap(figure, axes, names, cells, label)
        axes.set_ylabel("from")
        axes.set_xlabel("to")
    return figure


def _heatmap_size(names: Names, cells: Cells) -> tuple[float, float]:
    """Return the inches across and down, of cells and of the longest name."""
    rows, columns = _sides(names, cells)
    across, down = (1.15, 0.8) if len(names) <= _FEW_MODELS else (0.62, 0.53)
    margin = 0.4 + 0.068 * max(map(len, shortened(names)))
    return max(across * len(columns), 1.2) + margin + 1.0, down * len(rows) + 0.72 * margin + 0.25


def _sides(names: Names, cells: Cells) -> tuple[list[int], list[int]]:
    """Return the models of the rows and of the columns; a symmetric measure needs a triangle only."""
    everyone = list(range(len(names)))
    return (everyone, everyone) if any(i > j for i, j in cells) else (everyone[1:], everyone[:-1])


def _draw_heatmap(figure: Any, axes: Any, names: Names, cells: Cells, label: str) -> None:
    rows, columns = _sides(names, cells)
    grid = [[cells.get((i, j) if rows == columns else (j, i)) for j in columns] for i in rows]
    values = np.array([[math.nan if cell is None else cell.value for cell in line] for line in grid])
    known = values[np.isfinite(values)]
    low, high = (min(0.0, float(known.min())), max(float(known.max()), 1e-9)) if known.size else (0.0, 1.0)
    image = axes.imshow(values, cmap=SEQUENTIAL, vmin=low, vmax=high, aspect="auto")
    few = len(names) <= _FEW_MODELS
    size = 7.5 if few else 6.2
    for i, line in enumerate(grid):
        for j, cell in enumerate(line):
            if cell is not None:
                dark = not (cell.value - low) / (high - low) > 0.55
                color = "white" if dark else "black"
                placed: dict[str, Any] = {"ha": "center", "va": "center", "color": color}
                axes.text(j, i - 0.2, cell.text(), size=size, **placed)
                # Small cells have no room for the words, which captions have.
                nulls = [f"{word} {text}" if few else text for word, text in cell.nulls.items()]
                axes.text(j, i + 0.25, "\n".join(nulls), size=0.83 * size, **placed)
    short = shortened(names)
    axes.set_yticks(range(len(rows)), [short[i] for i in rows])
    axes.set_xticks(range(len(columns)), [short[j] for j in columns])
    axes.tick_params(axis="x", rotation=40)
    for tick in axes.get_xticklabels():
        tick.set(ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    axes.set_title(label)


def small(number: float) -> str:
    """Return a number of little importance in as few characters as show its size."""
    if not math.isfinite(number):
        return "?"
    if abs(number) < 1e-9:
        return "0"
    if abs(number) < 5e-4:
        return f"{number:.0e}".replace("e-0", "e-")
    return f"{number:.3f}" if abs(number) < 0.01 else f"{number:.2f}"


@styled
def curves(labels: Names, drawn: Sequence[Curve], label: str, numbers: Sequence[int]) -> Any:
    """Draw a measure over k or over the share of variance, a curve for each pair of models.

    The number of a pair decides on color, marker and line, so that it looks alike in all figures. Bars are
    95 % intervals; the dotted gray line is the highest null mean plus two standard deviations.
    """
    figure = new_figure(6.3, 3.4 + 0.16 * min(len(labels), _FEW_CURVES))
    axes = figure.subplots()
    last = [curve.estimates[-1].value if curve.estimates else math.nan for curve in drawn]
    order = np.argsort(np.nan_to_num(last, nan=-np.inf))[::-1].tolist()
    shown = order if len(order) <= _FEW_CURVES else [*order[:3], *order[-3:]]
    for index in order:
        if index not in shown:
            curve = drawn[index]
            axes.plot(curve.at, [e.value for e in curve.estimates], color=FAINT, linewidth=0.7, zorder=1)
    for index in shown:
        _draw_curve(axes, drawn[index], numbers[index], labels[index])
    _draw_null(axes, drawn)
    over = {curve.over for curve in drawn}
    axes.set_xlabel("neighbors k" if over == {"k"} else "share of variance that defines the dimension")
    if over == {"k"}:
        axes.set_xscale("log")
        at = sorted({k for curve in drawn for k in curve.at})
        axes.set_xticks(at, [f"{k:,.0f}" for k in at])
        axes.minorticks_off()
    axes.set_ylabel(label)
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), None)
    title = (
        None if len(order) <= _FEW_CURVES else f"highest and lowest 3 of {len(order)} pairs; the others gray"
    )
    figure.legend(loc="outside lower left", title=title, alignment="left", ncols=1)
    return figure


def _draw_curve(axes: Any, curve: Curve, number: int, label: str) -> None:
    values = np.array([estimate.value for estimate in curve.estimates])
    low, high = (np.array([getattr(e.interval, side) for e in curve.estimates]) for side in ("low", "high"))
    axes.errorbar(
        curve.at,
        values,
        yerr=np.maximum(np.nan_to_num([values - low, high - values]), 0.0),
        color=COLORS[number % len(COLORS)],
        # The markers and lines of a color that comes again are others.
        marker=MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
        linestyle=LINES[(number + number // len(COLORS)) % len(LINES)],
        capsize=2,
        elinewidth=1,
        label=label,
        zorder=3,
    )


def _draw_null(axes: Any, drawn: Sequence[Curve]) -> None:
    """Draw the highest null of all curves, by their common parameter."""
    highest: dict[float, float] = {}
    for curve in drawn:
        for at, estimate in zip(curve.at, curve.estimates, strict=True):
            level = estimate.null.mean + 2.0 * np.nan_to_num(estimate.null.sd)
            highest[at] = max(highest.get(at, -math.inf), level)
    steps = sorted(highest)
    axes.plot(
        steps,
        [highest[x] for x in steps],
        color=NULL,
        linestyle=":",
        label="highest null, mean + 2 sd",
        zorder=2,
    )


@styled
def distributions(
    names: Names,
    values: Sequence[Values],
    label: str,
    *,
    levels: Mapping[str, Sequence[float]],
) -> Any:
    """Draw a row for each model or pair: the histogram of a number over tokens, with its median and null.

    `levels` has a mark for each row, by what it is: nulls, for example. More rows than 14 have
    the quantiles 5, 25, 50, 75 and 95 % instead of histograms, and the highest median first.
    """
    few = len(names) <= _FEW_ROWS
    if not few:
        order = np.argsort([-np.nanmedian(column) for column in values], kind="stable").tolist()
        names, values = [names[i] for i in order], [values[i] for i in order]
        levels = {what: [marks[i] for i in order] for what, marks in levels.items()}
    figure = new_figure(6.3, 0.9 + (0.42 if few else 0.17) * len(names))
    axes = figure.subplots()
    finite = [column[np.isfinite(column)] for column in values]
    everything = [column for column in finite if len(column)]
    low = min((float(column.min()) for column in everything), default=0.0)
    high = max((float(column.max()) for column in everything), default=1.0)
    if all(np.issubdtype(column.dtype, np.integer) for column in finite):
        bins = integer_bins(int(low), int(high))
    else:
        bins = np.linspace(low, high if high > low else low + 1.0, 61)
    for row, column in enumerate(finite):
        if len(column) == 0:
            continue
        if few:
            counts, _ = np.histogram(column, bins)
            heights, filled = row - 0.8 * counts / counts.max(), {"fill": True, "alpha": 0.75}
            axes.stairs(heights, bins, baseline=row, color=COLORS[0], **filled)
            axes.plot([bins[0], bins[-1]], [row, row], color=FAINT, linewidth=0.6, zorder=0)
        else:
            q, bar = np.quantile(column, _QUANTILES), {"solid_capstyle": "butt", "alpha": 0.75}
            axes.plot([q[0], q[4]], [row, row], color=COLORS[0], linewidth=0.9)
            axes.plot([q[1], q[3]], [row, row], color=COLORS[0], linewidth=4, **bar)
        _median_mark(axes, row, column, few)
        ends = [row + 0.12, row - 0.62 if few else row - 0.35]
        for marks, look in zip(levels.values(), _LEVELS, strict=False):
            if math.isfinite(marks[row]):
                axes.plot([marks[row]] * 2, ends, **look)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -1.0)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    _distribution_legend(figure, few, list(levels))
    return figure


def _median_mark(axes: Any, row: int, column: Values, few: bool) -> None:
    """Draw the median with its 95 % interval, from order statistics."""
    ordered, n = np.sort(column), len(column)
    reach = 0.98 * math.sqrt(n)
    low, high = ordered[max(int(n / 2 - reach), 0)], ordered[min(math.ceil(n / 2 + reach), n - 1)]
    height = row + 0.1 if few else row
    axes.plot([low, high], [height, height], color=INK, linewidth=1.6, solid_capstyle="butt", zorder=4)
    axes.plot([ordered[n // 2]], [height], marker="|", markersize=7, color=INK, zorder=5)


def _distribution_legend(figure: Any, few: bool, levels: Names) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    shown: list[Any] = [Line2D([], [], color=INK, marker="|", markersize=7, label="median, 95 % interval")]
    if few:
        shown.append(Patch(color=COLORS[0], alpha=0.75, label="tokens"))
    else:
        shown.append(
            Line2D([], [], color=COLORS[0], linewidth=4, alpha=0.75, label="5, 25, 75, 95 % of tokens")
        )
    shown += [Line2D([], [], label=level, **look) for level, look in zip(levels, _LEVELS, strict=False)]
    figure.legend(handles=shown, loc="outside lower left", ncols=min(len(shown), 3))


@styled
def against(
    names: Names,
    values: Mapping[tuple[int, int], tuple[Values, Values]],
    correlations: Mapping[tuple[int, int], Estimate],
) -> Any:
    """Draw a whole number of each token in one model against that in another, for each pair (i, j), i < j."""
    count = len(names) - 1
    few = count < _FEW_MODELS
    side, size, most = (max(5.2 / count, 1.5), 7.5, 26) if few else (max(6.6 / count, 0.75), 5.5, 14)
    figure = new_figure(side * count + 1.0, side * count + 0.7)
    panels = figure.subplots(count, count, squeeze=False, sharex="col", sharey="row")
    for (i, j), (x, y) in values.items():
        axes, both = panels[j - 1, i], (x >= 0) & (y >= 0)
        if both.any():
            draw_whole_numbers(axes, x[both], y[both], 16 * side)
        found = correlations[i, j]
        null = f", null {small(found.null.mean)}±{small(found.null.sd)}" if count < 3 else ""
        axes.set_title(f"Spearman {found.value:.2f}±{small(found.half_width)}{null}", fontsize=size)
    short = shortened(names, most)
    for row in range(count):
        panels[row, 0].set_ylabel(short[row + 1], fontsize=size)
        label = panels[count - 1, row].set_xlabel(short[row], fontsize=size)
        if not few:
            label.set(rotation=25, ha="right")
        for column in range(count):
            panels[row, column].tick_params(labelsize=size)
            panels[row, column].set_visible(column <= row)
    return figure


@styled
def tree(names: Names, linkage: Values, support: Sequence[float], null: float, label: str) -> Any:
    """Draw a tree of models, with the share of resamples in which each branch is found at its node.

    `null` is the height at which models would meet that share no more than relabeled tokens do.
    """
    figure = new_figure(6.3, 0.9 + 0.3 * len(names))
    axes = figure.subplots()
    clusters = [[leaf] for leaf in range(len(names))]
    for one, other in linkage[:, :2].astype(int).tolist():
        clusters.append(clusters[one] + clusters[other])
    leaves = clusters[-1]
    nodes = [(0.0, float(leaves.index(leaf))) for leaf in range(len(names))]
    for (one, other, height), share in zip(linkage[:, :3].tolist(), support, strict=True):
        (x, y), (u, v) = nodes[int(one)], nodes[int(other)]
        axes.plot([x, height, height, u], [y, y, v, v], color=COLORS[0], solid_joinstyle="miter")
        nodes.append((height, (y + v) / 2.0))
        if len(nodes) < 2 * len(names) - 1:  # The last branch has all models, whatever is resampled.
            axes.annotate(f"{share:.0%}", nodes[-1], (3, 1.5), textcoords="offset points", size=7)
    axes.axvline(null, color=NULL, linestyle=":", label="null: models that share no more meet here")
    axes.set_yticks(range(len(names)), [names[leaf] for leaf in leaves])
    axes.set_xlim(left=0.0, right=max(null, float(linkage[:, 2].max())) * 1.06)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(label)
    figure.legend(loc="outside lower left")
    return figure
