"""What was measured about transferred vectors, as Markdown and as a picture."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, get_args

import numpy as np

from benchmarks.steering.attributes import ATTRIBUTES, CHOICE, HELD_OUT
from benchmarks.steering.routes import ROUTES
from embgeom._common.style import COLORS, FAINT, styled
from embgeom.emb2emb.forecast import Verdict
from embgeom.geometry.agreement import spearman

Record = dict[str, Any]
QUICK = "**A quick run: it shows that everything works; its numbers mean nothing.**"
NAMES = tuple(route.name for route in ROUTES)
CONTROLS = ("transferred negated", "native mean", "native negated")
ACCEPTED = (0.05, 1.0)
LENGTHS = {
    "native, last token": ("native",),
    "native, mean": ("native mean",),
    "transferred, last token": tuple(route.name for route in ROUTES if route.token_position == "last"),
    "transferred, mean": tuple(route.name for route in ROUTES if route.token_position == "mean"),
}
DRAWS = 1000
Clusters = dict[tuple[str, ...], list[float]]


def effect(cell: Record, name: str) -> float:
    return float(cell["vectors"][name]["effect"])


def comparable(cell: Record, name: str) -> bool:
    """Return whether a vector reached the KL at which all are compared."""
    return bool(cell["vectors"][name]["search"] == "reached")


def of_kind(cell: Record, kind: str) -> list[float]:
    names = (name for name in cell["vectors"] if name.startswith(f"{kind} "))
    return [effect(cell, name) for name in names if comparable(cell, name)]


def chance(cell: Record) -> float:
    """Return the effect that random vectors do not exceed: two standard deviations above their mean."""
    random = of_kind(cell, "random")
    return float(np.mean(random) + 2 * np.std(random, ddof=1))


def counts(cell: Record) -> bool:
    """Return whether the native vector beats random ones, so that a fraction of its effect has a meaning."""
    return comparable(cell, "native") and effect(cell, "native") > max(0.0, chance(cell))


def fraction(cell: Record, name: str) -> float:
    """Return the effect of a vector, or the mean of a kind of controls, as a share of the native one's."""
    if name in cell["vectors"]:
        found = [effect(cell, name)] if comparable(cell, name) else []
    else:
        found = of_kind(cell, name)
    return float(np.mean(found)) / effect(cell, "native") if found else np.nan


def chosen(cells: Sequence[Record]) -> str:
    """Return the route of weights with the largest mean fraction over choice cells, directions alike."""
    means = {}
    for route in ROUTES:
        groups = [each for each in _by_direction(cells, CHOICE, route.name) if each]
        if groups and not route.of and route.token_position == "last":
            means[route.name] = np.mean([_means(each).mean() for each in groups])
    return max(means, key=lambda name: means[name], default=ROUTES[0].name)


def markdown(head: Record, cells: list[Record]) -> str:
    settings = head["settings"]
    lines = [
        "# Transferred steering vectors at equal side effects",
        "",
        f"{head['date']}, {head['processor']}. A cell is a direction, an attribute, a layer of the target "
        "(50, 65 and 80 % of its depth, from the source's layer at the same relative depth) and a seed, "
        f"which draws {settings['pairs']} pairs of texts to train on, {settings['prompts']} other prompts, "
        f"the tokens held out, and {settings['random']} random vectors. The effect is the change of the "
        "mean log-probability of four words minus that of four opposite ones (nats). The scale of every "
        f"vector is searched until KL(unsteered || steered) is {settings['at_kl']:g} for each token of "
        f"{settings['neutral']} neutral texts. Vectors are read at the last token of each text, "
        "those *of means* over all tokens but attention sinks. A fraction of the native "
        "vector's effect is given over the cells in which that is larger than the mean of the random vectors "
        "by two standard deviations; the layers of an attribute and seed, which share pairs, prompts and "
        "maps, are averaged first, and after +- stands the standard error over attributes and seeds, which "
        "says nothing of other attributes or models. Routes are chosen by "
        f"{' and '.join(CHOICE)}; {' and '.join(HELD_OUT)} had no part in the choice.",
        "",
        *([QUICK, ""] if head["quick"] else []),
        "![Fraction of the native effect by route](steering.svg)",
        "",
        *_missing(head, cells),
    ]
    if not cells:
        return "\n".join(lines)
    best = chosen(cells)
    for title, attributes in (("Choice cells", CHOICE), ("Held-out cells", HELD_OUT)):
        lines += [f"## {title}: {', '.join(attributes)}", "", *_fractions(cells, attributes, best), ""]
    lines += ["## Native vectors", "", *_natives(cells), ""]
    lines += ["## Default length", "", *_lengths(cells), ""]
    lines += ["## What predicts the effect", "", *_predicted(cells, best)]
    return "\n".join(lines) + "\n"


def _missing(head: Record, cells: list[Record]) -> list[str]:
    done = {(c["source"], c["target"], c["attribute"], c["layer"], c["seed"]) for c in cells}
    planned = {
        (direction["source"], direction["target"], *rest)
        for direction in head["directions"]
        for rest in product(ATTRIBUTES, direction["layers"], range(head["settings"]["seeds"]))
    }
    if not (lacking := planned - done):
        return []
    seeds = sorted({key[-1] for key in lacking})
    return [
        f"**{len(lacking)} of {len(planned)} cells are missing, of the seeds {', '.join(map(str, seeds))}.**",
        "",
    ]


def _directions(cells: Iterable[Record]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((cell["source"], cell["target"]) for cell in cells))


def _by_direction(cells: Sequence[Record], attributes: Sequence[str], name: str) -> list[Clusters]:
    """Return, for each direction, the fractions of one vector by attribute and seed, where it was tried."""
    found: dict[tuple[str, str], Clusters] = {direction: {} for direction in _directions(cells)}
    for cell in cells:
        if cell["attribute"] in attributes and counts(cell) and not np.isnan(fraction(cell, name)):
            clusters = found[cell["source"], cell["target"]]
            clusters.setdefault((cell["attribute"], str(cell["seed"])), []).append(fraction(cell, name))
    return list(found.values())


def _means(clusters: Clusters) -> np.ndarray:
    """Return the mean of each attribute and seed over the layers: layers share pairs, prompts and maps."""
    return np.array([np.mean(each) for each in clusters.values()])


def _fractions(cells: Sequence[Record], attributes: Sequence[str], best: str) -> list[str]:
    """Return a row for each route and control: mean fractions of the native effect, and the least of all."""
    directions = _directions(cells)
    totals = [
        sum((c["source"], c["target"]) == d and c["attribute"] in attributes for c in cells)
        for d in directions
    ]
    used = [sum(map(len, each.values())) for each in _by_direction(cells, attributes, "native")]
    heads = [
        f"{' -> '.join(d)} ({n} of {total} cells)"
        for d, n, total in zip(directions, used, totals, strict=True)
    ]
    lines = [f"| route | {' | '.join(heads)} | mean | least |", "|---" * (len(heads) + 3) + "|"]
    for name in (*NAMES, *CONTROLS, "shuffled", "random"):
        groups = _by_direction(cells, attributes, name)
        if not any(map(len, groups)):
            continue
        means = [_means(each).mean() for each in groups if each]
        least = min(value for each in groups for values in each.values() for value in values)
        label = f"**{name}**" if name == best else name
        row = [*(_mean(_means(each)) for each in groups), f"{np.mean(means):.2f}", f"{least:.2f}"]
        lines.append(f"| {label} | {' | '.join(row)} |")
    return lines


def _mean(values: np.ndarray) -> str:
    if len(values) == 0:
        return ""
    error = f" +- {values.std(ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{error}"


def _natives(cells: Sequence[Record]) -> list[str]:
    """Return what native vectors do, read at the last token and over all of them, by target and attribute."""
    lines = [
        "Mean effect over layers and seeds, its standard error over seeds, and in how many cells it beats "
        "random vectors. *Mean* is the vector that is read over all tokens but attention sinks.",
        "",
        "| target | attribute | native, last | native, mean | random | beats random |",
        "|---|---|---|---|---|---|",
    ]
    for target, attribute in product(dict.fromkeys(cell["target"] for cell in cells), ATTRIBUTES):
        mine = [cell for cell in cells if (cell["target"], cell["attribute"]) == (target, attribute)]
        if mine:
            seeds = sorted({cell["seed"] for cell in mine})
            last, mean = (
                _mean(np.array([np.mean([effect(c, n) for c in mine if c["seed"] == s]) for s in seeds]))
                for n in ("native", "native mean")
            )
            random = np.concatenate([of_kind(cell, "random") for cell in mine])
            beaten = f"{sum(map(counts, mine))} of {len(mine)}"
            drawn = f"{random.mean():.2f} (sd {random.std(ddof=1):.2f})"
            lines.append(f"| {target} | {attribute} | {last} | {mean} | {drawn} | {beaten} |")
    return lines


def _lengths(cells: Sequence[Record]) -> list[str]:
    """Return how much vectors cost at their default length."""
    low, high = ACCEPTED
    lines = [
        "KL at scale 1: of native vectors as they are trained, and of transferred ones at the length that "
        f"`transfer` gives them. The share between {low:g} and {high:g}, the median, and the range over "
        "cells and routes.",
        "",
        "| direction | vectors | within | median | range |",
        "|---|---|---|---|---|",
    ]
    for direction, (label, names) in product(_directions(cells), LENGTHS.items()):
        mine = [cell["kl_at_1"] for cell in cells if (cell["source"], cell["target"]) == direction]
        costs = np.array([costs[name] for costs in mine for name in names if name in costs])
        if not len(costs):
            continue
        within = np.mean((costs >= low) & (costs <= high))
        spread = f"{np.median(costs):.3f} | {costs.min():.3f} to {costs.max():.3f}"
        lines.append(f"| {' -> '.join(direction)} | {label} | {within:.0%} | {spread} |")
    return lines


def _predicted(cells: Sequence[Record], best: str) -> list[str]:
    """Return how numbers from weights alone go with the fraction of the native effect, and with controls."""
    kept = [cell for cell in cells if counts(cell) and cell.get("predicted")]
    quantities = [
        name
        for name, value in (next(iter(kept[0]["predicted"].values())) if kept else {}).items()
        if not isinstance(value, str)
    ]
    lines = [
        "Spearman correlation with the fraction of the native effect, with a 95 % interval by resampling "
        "directions' attributes and seeds (the layers of one are drawn together): over the cells of a "
        f"direction, of the route {best}, the mean over directions, since these differ in both; and over all "
        "routes of a cell, the mean over cells. Controls are in neither.",
        "",
        "| number | over cells | over routes |",
        "|---|---|---|",
    ]
    for quantity in quantities:
        points = [(cell["target"], cell["predicted"][best][quantity], fraction(cell, best)) for cell in kept]
        over_cells = _interval(kept, points, _within_directions)
        over_routes = _interval(kept, [_over_routes(cell, quantity) for cell in kept], np.nanmean)
        lines.append(f"| {quantity.replace('_', ' ')} | {over_cells} | {over_routes} |")
    return [*lines, "", *_told_apart(cells)]


def _told_apart(cells: Sequence[Record]) -> list[str]:
    """Return what the certificate says of true transfers and of controls."""
    kinds = {
        "maps of weights": tuple(route.name for route in ROUTES if not route.of),
        "maps of hidden states": tuple(route.name for route in ROUTES if route.of),
        "maps of shuffled tokens": "shuffled ",
        "random vectors of the target": "random ",
    }
    lines = [
        "What a certificate says of these vectors and of controls, over all cells: whether the map keeps "
        "what the vector does to logits. The agreement is the median, and the range of its middle 90 %.",
        "",
        f"| vectors | agreement | {' | '.join(get_args(Verdict))} |",
        "|---" * (2 + len(get_args(Verdict))) + "|",
    ]
    for label, names in kinds.items():
        mine = [
            each for cell in cells for n, each in cell.get("predicted", {}).items() if n.startswith(names)
        ]
        if mine := [each for each in mine if each.get("verdict")]:
            low, middle, high = np.nanquantile([each["agreement"] for each in mine], [0.05, 0.5, 0.95])
            verdicts = [each["verdict"] for each in mine]
            shares = " | ".join(f"{verdicts.count(v) / len(mine):.0%}" for v in get_args(Verdict))
            lines.append(f"| {label} | {middle:.2f} ({low:.2f} to {high:.2f}) | {shares} |")
    return lines


def _over_routes(cell: Record, quantity: str) -> float:
    return _correlation(
        [(each[quantity], fraction(cell, name)) for name, each in cell["predicted"].items() if name in NAMES]
    )


def _within_directions(points: Sequence[tuple[str, float | None, float]]) -> float:
    """Return the mean over directions, each of which has its own target, of the correlation in it."""
    targets = {target for target, *_ in points}
    each = [_correlation([point for target, *point in points if target == mine]) for mine in targets]
    return float(np.mean(known)) if (known := [value for value in each if np.isfinite(value)]) else np.nan


def _correlation(points: Iterable[Sequence[float | None]]) -> float:
    known = np.array([point for point in points if point[0] is not None and np.isfinite(point).all()])
    return spearman(known[:, 0], known[:, 1]) if len(known) > 2 and np.ptp(known[:, 0]) > 0 else np.nan


def _interval(cells: Sequence[Record], values: Sequence[Any], of: Callable[[Sequence[Any]], float]) -> str:
    """Return a statistic of one value for each cell, with an interval by resampling attributes and seeds."""
    value = of(values) if values else np.nan
    if not np.isfinite(value):
        return ""
    clusters: dict[tuple[Any, ...], list[Any]] = {}
    for cell, each in zip(cells, values, strict=True):
        key = cell["source"], cell["target"], cell["attribute"], cell["seed"]
        clusters.setdefault(key, []).append(each)
    groups, generator = list(clusters.values()), np.random.default_rng(0)
    drawn = [
        of([each for i in generator.integers(len(groups), size=len(groups)) for each in groups[i]])
        for _ in range(DRAWS)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


@styled
def picture(cells: list[Record]) -> str:
    """Return an SVG: for each direction the mean fraction by route, of choice and of held-out cells."""
    from matplotlib.figure import Figure

    directions = _directions(cells)
    names = [
        name
        for name in (*NAMES, "shuffled", "random")
        if any(fraction(c, name) == fraction(c, name) for c in cells)
    ]
    figure = Figure(figsize=(2.2 + 2.3 * len(directions), 0.6 + 0.24 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
    for panel, direction in zip(panels, directions, strict=True):
        panel.axvline(0, color=FAINT, linewidth=0.8)
        panel.axvline(1, color=FAINT, linewidth=0.8, linestyle="--")
        mine = [cell for cell in cells if (cell["source"], cell["target"]) == direction]
        for shift, (label, attributes), color in zip(
            (-0.15, 0.15), (("choice", CHOICE), ("held out", HELD_OUT)), COLORS, strict=False
        ):
            groups = [_means(_by_direction(mine, attributes, name)[0]) for name in names]
            places = [place for place, group in enumerate(groups) if len(group)]
            means = [groups[place].mean() for place in places]
            errors = [
                groups[place].std(ddof=min(1, len(groups[place]) - 1)) / np.sqrt(len(groups[place]))
                for place in places
            ]
            heights = [place + shift for place in places]
            panel.errorbar(means, heights, xerr=errors, fmt="o", color=color, label=label, capsize=2)
        panel.set_title("\n-> ".join(direction))
        panel.set_xlabel("fraction of native effect")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    panels[0].legend()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()
