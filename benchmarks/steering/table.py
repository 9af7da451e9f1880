"""What was measured about transferred vectors, as Markdown."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

Entry = dict[str, Any]
READS = {"last": "at the last token", "mean": "over all tokens"}
QUICK = "**A quick run: it shows that everything works; its numbers mean nothing.**"


def markdown(record: Entry) -> str:
    """Return the page: controls at every layer, then every route."""
    lines = [
        "# Transferred steering vectors beside the target's native ones",
        "",
        f"Happy minus sad; {record['date']}, {record['processor']}. The effect is the change of the mean "
        "log-probability of four happy words less that of four sad ones (nats) after held-out prompts, "
        "steered minus unsteered, at the norm of the target's native vector times a scale, the largest of "
        "0.5, 1, 2, 4, 8 at which that costs a KL of 0.5 at most; *random* is the mean and standard "
        "deviation of vectors of that norm, *shuffled* the range of vectors transferred by maps that were "
        "fitted on shuffled tokens. KL is KL(unsteered || steered) per token of neutral text. Layers are "
        "counted from 0. *Layers* says which layer of the source the vector is transferred from: the one at "
        "the same relative depth, or the one where the source's native vector does most to the source. "
        "Vectors are read at the last token of each text, or as the mean over all of its tokens, the native "
        "ones as those that are transferred. No fraction is given of a native effect that is not significant "
        "or has the wrong sign.",
        *(["", QUICK] if record["quick"] else []),
    ]
    for entry in record["directions"]:
        title = f"## {entry['source']} -> {entry['target']}, read {READS[entry['token_position']]}"
        lines += ["", title, "", *_about(entry), "", *_controls(entry)]
    for read, name in READS.items():
        compared = [
            entry for entry in record["directions"] if entry["routes"] and entry["token_position"] == read
        ]
        if compared:
            lines += ["", f"## Routes, summed up: read {name}", "", *_summary(compared)]
            lines += ["", f"## Every route: read {name}", "", *_routes(compared)]
    return "\n".join(lines) + "\n"


def _about(entry: Entry) -> list[str]:
    scores, tokens = entry["map"]["scores"], entry["tokens"]
    return [
        f"{tokens['shared']} shared tokens, {tokens['held_out']} of them held out; the low-rank map's "
        f"held-out R2 is {scores['r2']:.3f} (shuffled {entry['map']['shuffled']['r2']:.3f}), retrieval@1 "
        f"{scores['retrieval_at_1']:.3f} (shuffled {entry['map']['shuffled']['retrieval_at_1']:.3f}). "
        f"{entry['layers'][0]['samples']} prompts. Low rank, dual (the default):"
    ]


def _controls(entry: Entry) -> list[str]:
    lines = [
        "| layers | layer (of source) | scale | native | transferred | fraction | negated | native negated | "
        "random | shuffled | anti-steered | KL, native | KL, transferred | holds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for layer in entry["layers"]:
        checks = layer["checks"]
        shuffled = f"{min(layer['shuffled']):+.2f} to {max(layer['shuffled']):+.2f}"
        fraction = "" if checks["fraction_of_native"] is None else f"{checks['fraction_of_native']:.2f}"
        cells = [
            layer["layers"],
            f"{layer['layer']} ({layer['source_layer']})",
            f"{layer['scale']:g}",
            f"{checks['native_effect']:+.2f}",
            f"{checks['effect']:+.2f}",
            fraction,
            f"{layer['negated']:+.2f}",
            f"{layer['native_negated']:+.2f}",
            f"{checks['random_mean']:+.2f} +- {checks['random_sd']:.2f}",
            shuffled,
            f"{layer['anti_steered']['transferred']:.2f}",
            f"{layer['kl']['native']:.2f}",
            f"{layer['kl']['transferred']:.2f}",
            "yes" if holds(layer) else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def holds(layer: Entry) -> bool:
    """Return whether a vector has half of the native effect, beats chance, and reverses when negated."""
    checks = layer["checks"]
    return bool(
        checks["fraction_of_native"] is not None
        and checks["fraction_of_native"] >= 0.5
        and checks["beats_random"]
        and checks["beats_shuffled"]
        and checks["negation_reverses"]
    )


def _summary(directions: list[Entry]) -> list[str]:
    """Return a row for each method and mode, over all layers, seeds and choices of layers."""
    names = [f"{entry['source']} -> {entry['target']}" for entry in directions]
    lines = [
        "Mean fraction of the native vector's effect over all seeds, choices of layers and layers where that "
        "is significant, and median KL as a multiple of the native vector's.",
        "",
        f"| method | mode | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(directions),
    ]
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in directions:
        native = {layer["layer"]: layer["kl"]["native"] for layer in entry["layers"]}
        groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for route in _with_fractions(entry):
            groups[route["method"], route["mode"]].append(route)
        for key, routes in groups.items():
            fraction = statistics.mean(route["fraction_of_native"] for route in routes)
            ratio = statistics.median(route["kl"] / native[route["layer"]] for route in routes)
            cells[key].append(f"{fraction:.2f}, KL x {ratio:.1f}")
    return lines + [f"| {' | '.join(key)} | {' | '.join(row)} |" for key, row in cells.items()]


def _routes(directions: list[Entry]) -> list[str]:
    """Return the effects relative to the native vector: a row for each route, a column for each direction."""
    names = [f"{entry['source']} -> {entry['target']}" for entry in directions]
    lines = [
        "Effect relative to the native vector's, mean over seeds (of the tokens that are held out), as the "
        "mean over the layers where that has an effect, and after the slash at the layer where it does most; "
        "in brackets the standard deviation over seeds of the latter, and its KL as a multiple of the native "
        "vector's.",
        "",
        f"| method | mode | layers | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    cells: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in directions:
        best = max(entry["layers"], key=lambda layer: layer["checks"]["native_effect"])
        groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for route in _with_fractions(entry):
            groups[route["method"], route["mode"], route["layers"]].append(route)
        for key, routes in groups.items():
            cells[key].append(_cell(routes, best))
    return lines + [f"| {' | '.join(key)} | {' | '.join(row)} |" for key, row in cells.items()]


def _with_fractions(entry: Entry) -> list[Entry]:
    """Return the routes to the layers where the native vector has an effect to take a fraction of."""
    shared = {
        layer["layer"] for layer in entry["layers"] if layer["checks"]["fraction_of_native"] is not None
    }
    return [route for route in entry["routes"] if route["layer"] in shared]


def _cell(routes: list[Entry], best: Entry) -> str:
    there = [route for route in routes if route["layer"] == best["layer"]]
    fractions = [route["fraction_of_native"] for route in there]
    spread = statistics.stdev(fractions) if len(fractions) > 1 else 0.0
    ratio = statistics.mean(route["kl"] for route in there) / best["kl"]["native"]
    average = statistics.mean(route["fraction_of_native"] for route in routes)
    return f"{average:.2f} / {statistics.mean(fractions):.2f} (+- {spread:.2f}, KL x {ratio:.2f})"
