"""Evaluations and sweeps as figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.figures import new_figure
from embgeom.evaluation.outcomes import deviation

if TYPE_CHECKING:
    from embgeom.evaluation.outcomes import Evaluation
    from embgeom.evaluation.sweep import Sweep

_WIDTH = 6.4
_COLORS = {
    "transferred": "C0",
    "transferred_negated": "C0",
    "native": "C2",
    "native_negated": "C2",
    "shuffled": "C3",
}


def draw_evaluation(evaluation: Evaluation) -> Any:
    """Draw each vector's effect with its standard error, and a dot for each random vector."""
    singles = [outcome for outcome in evaluation.outcomes if outcome.kind != "random"]
    random = [outcome.effect.mean for outcome in evaluation.of_kind("random")]
    names = [outcome.name for outcome in singles] + ([f"{len(random)} random"] if random else [])
    figure = new_figure(_WIDTH, 1.2 + 0.35 * len(names))
    axes = figure.subplots()
    axes.axvline(0, color="0.7", linewidth=0.8)
    for row, outcome in enumerate(singles):
        # One sample has no standard error, which leaves the dot.
        error = np.nan_to_num(outcome.effect.standard_error)
        axes.errorbar(outcome.effect.mean, row, xerr=error, fmt="o", capsize=3, color=_COLORS[outcome.kind])
    if random:
        heights = len(singles) + np.linspace(-0.25, 0.25, len(random))
        axes.plot(random, heights, "o", markersize=3, alpha=0.6, color="0.4")
        # The band that a vector must leave to be told from a random one.
        if len(random) > 1:
            mean, reach = np.mean(random), 2 * deviation(random)
            axes.axvspan(mean - reach, mean + reach, color="0.92", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    quantity = next(iter(evaluation.unsteered))
    axes.set_xlabel(f"effect on {quantity}, {evaluation.samples} samples (± standard error)")
    return figure


def draw_sweep(sweep: Sweep) -> Any:
    """Draw effect and, where it was taken, divergence against the scale, a line for each choice of layers."""
    with_side_effects = sweep.unsteered_perplexity is not None
    figure = new_figure(_WIDTH, 5.6 if with_side_effects else 3.6)
    panels = figure.subplots(2 if with_side_effects else 1, sharex=True, squeeze=False)[:, 0]
    for layers in dict.fromkeys(outcome.layers for outcome in sweep.grid):
        line = sorted((o for o in sweep.grid if o.layers == layers), key=lambda outcome: outcome.scale)
        scales = [outcome.scale for outcome in line]
        errors = np.nan_to_num([outcome.effect.standard_error for outcome in line])
        label = "+".join(map(str, layers))
        means = [outcome.effect.mean for outcome in line]
        panels[0].errorbar(scales, means, yerr=errors, marker="o", markersize=4, capsize=2, label=label)
        if with_side_effects:
            divergences = [outcome.side_effects.kl if outcome.side_effects else np.nan for outcome in line]
            panels[1].plot(scales, divergences, marker="o", markersize=4)
    panels[0].axhline(0, color="0.7", linewidth=0.8)
    panels[0].set_ylabel(f"effect on {next(iter(sweep.unsteered))}")
    panels[0].legend(title="layer", fontsize="small")
    if sweep.chosen is not None:
        best = sweep.chosen
        panels[0].plot(best.scale, best.effect.mean, "o", markersize=11, fillstyle="none", color="black")
    if with_side_effects:
        panels[1].set_ylabel("KL on neutral text (nats)")
        if sweep.max_kl is not None:
            panels[1].axhline(sweep.max_kl, color="black", linestyle="--", linewidth=0.8)
    panels[-1].set_xlabel("scale")
    return figure
