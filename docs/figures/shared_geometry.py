"""Draw the figure of the README and the front page: ``python docs/figures/shared_geometry.py``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

import embgeom

HERE = Path(__file__).parent
STYLES = {
    "light": {"ink": "#24292f", "faint": "#8c959f", "bar": "#0969da", "map": "Blues"},
    "dark": {"ink": "#e6edf3", "faint": "#7d8590", "bar": "#58a6ff", "map": "Blues_r"},
}
STATISTICS = {
    "global_similarity_centered": "global\nsimilarity",
    "neighbor_overlap": "neighbor\noverlap",
    "weight_cosine": "weight\ncosine",
    "dimension_spearman": "intrinsic\ndimension",
}


def cosines(x: np.ndarray) -> np.ndarray:
    """Return the cosines of all pairs of different rows, after subtracting the mean row."""
    x = x - x.mean(axis=0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (x @ x.T)[np.triu_indices(len(x), k=1)]


def main() -> None:
    """Measure once and draw twice, for light and for dark pages."""
    models = (embgeom.load(folder) for folder in embgeom.examples.pair())
    a, b = map(embgeom.examples.without_rare_tokens, models)
    comparison = embgeom.compare(a, b, without=())
    ids_a, ids_b = embgeom.match(a, b)
    x, y = a.matrix[ids_a], b.matrix[ids_b]
    shuffled = y[np.random.default_rng(0).permutation(len(y))]
    of_x, of_y, of_shuffled = (cosines(rows) for rows in (x, y, shuffled))
    for name, style in STYLES.items():
        panels = {"same token in both models": of_y, "tokens paired at random": of_shuffled}
        draw(HERE / f"shared-geometry-{name}.svg", style, comparison, of_x, panels)


def draw(
    path: Path, style: dict[str, str], comparison, of_x: np.ndarray, panels: dict[str, np.ndarray]
) -> None:
    """Draw two densities of pairs and the statistics beside their null baselines."""
    mpl.rcParams.update({"svg.hashsalt": "embgeom", "font.size": 9, "text.color": style["ink"]})
    mpl.rcParams.update({f"{axis}.color": style["ink"] for axis in ("xtick", "ytick")})
    mpl.rcParams.update({"axes.edgecolor": style["faint"], "axes.labelcolor": style["ink"]})
    figure, axes = plt.subplots(
        1, 3, figsize=(9.2, 3.1), layout="constrained", gridspec_kw={"width_ratios": [1, 1, 1.5]}
    )
    for axis, (title, of_y) in zip(axes, panels.items(), strict=False):
        counts, *edges = np.histogram2d(of_x, of_y, bins=100, range=[[-0.45, 0.75], [-0.35, 0.6]])
        extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
        density = np.ma.masked_equal(np.sqrt(counts.T), 0)
        axis.imshow(
            density, origin="lower", extent=extent, aspect="auto", cmap=style["map"], interpolation="none"
        )
        axis.set(xlabel="cosine in example:small", title=title)
        correlation = np.corrcoef(of_x, of_y)[0, 1]
        axis.text(0.95, 0.06, f"r = {correlation:.2f}", transform=axis.transAxes, ha="right")
    axes[0].set_ylabel("cosine in example:large")

    axis, places = axes[2], np.arange(len(STATISTICS))
    found = [comparison[key].estimate for key in STATISTICS]
    parts = {
        "measured": (style["bar"], [(e.value, e.half_width) for e in found]),
        "null": (style["faint"], [(e.null.mean, 2 * e.null.sd) for e in found]),
        "null in strata": (style["ink"], [(e.stratified.mean, 2 * e.stratified.sd) for e in found]),
    }
    for offset, (label, (color, numbers)) in enumerate(parts.items()):
        values, spreads = zip(*numbers, strict=True)
        error = {"yerr": spreads, "ecolor": style["ink"], "capsize": 2}
        bars = axis.bar(places + 0.27 * (offset - 1), values, 0.25, color=color, label=label, **error)
        if offset == 0:
            axis.bar_label(bars, fmt="%.2f", padding=2, color=style["ink"])
    axis.axhline(0, color=style["faint"], linewidth=0.8)
    axis.set(title="agreement beside two null baselines", xticks=places, xticklabels=STATISTICS.values())
    axis.set_ylim(-0.04, 0.74)
    axis.legend(frameon=False, loc="upper left", ncols=3, handlelength=1, columnspacing=1)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
