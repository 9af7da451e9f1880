"""What was measured about carried vectors, as Markdown."""

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
        "# Carried steering vectors beside the target's own",
        "",
        f"Happy minus sad; {record['date']}, {record['processor']}. The effect is the change of the mean "
        "log-probability of four happy words less that of four sad ones (nats) after held-out prompts, "
        "steered less unsteered, at the norm of the target's own vector times a scale, the largest of "
        "0.5, 1, 2, 4, 8 at which that costs a KL of 0.5 at most; *random* is the mean and standard "
        "deviation of vectors of that norm, *shuffled* the range of vectors carried by maps that were "
        "fitted on shuffled tokens. KL is KL(unsteered || steered) per token of neutral text. Layers are "
        "counted from 0. *Layers* says which layer of the source is carried: the one at the same relative "
        "depth, or the one where the source's own vector does most to the source. Vectors are read at the "
        "last token of each text, or as the mean over all of its tokens, the own ones as those that are "
        "carried. There is no share of an own effect that is not told from none or goes the wrong way.",
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
        "| layers | layer (of source) | scale | own | carried | of own | negated | own negated | random | "
        "shuffled | wrong way | KL, own | KL, carried | holds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for layer in entry["layers"]:
        facts = layer["facts"]
        shuffled = f"{min(layer['shuffled']):+.2f} to {max(layer['shuffled']):+.2f}"
        share = "" if facts["share_of_own"] is None else f"{facts['share_of_own']:.2f}"
        cells = [
            layer["layers"],
            f"{layer['layer']} ({layer['source_layer']})",
            f"{layer['scale']:g}",
            f"{facts['own_effect']:+.2f}",
            f"{facts['effect']:+.2f}",
            share,
            f"{layer['negated']:+.2f}",
            f"{layer['own_negated']:+.2f}",
            f"{facts['random_mean']:+.2f} +- {facts['random_sd']:.2f}",
            shuffled,
            f"{layer['wrong_way']['carried']:.2f}",
            f"{layer['kl']['own']:.2f}",
            f"{layer['kl']['carried']:.2f}",
            "yes" if holds(layer) else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def holds(layer: Entry) -> bool:
    """Return whether a carried vector does half of what the own one does, beats chance, and has a sign."""
    facts = layer["facts"]
    return bool(
        facts["share_of_own"] is not None
        and facts["share_of_own"] >= 0.5
        and facts["exceeds_random"]
        and facts["exceeds_shuffled"]
        and facts["negation_opposes"]
    )


def _summary(directions: list[Entry]) -> list[str]:
    """Return a row for each method and transport, over all layers, seeds and choices of layers."""
    names = [f"{entry['source']} -> {entry['target']}" for entry in directions]
    lines = [
        "Mean share of the own vector's effect over all seeds, choices of layers and layers where it has an "
        "effect, and median KL as a multiple of the own vector's.",
        "",
        f"| method | transport | {' | '.join(names)} |",
        "|---|---|" + "---|" * len(directions),
    ]
    cells: dict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in directions:
        own = {layer["layer"]: layer["kl"]["own"] for layer in entry["layers"]}
        groups: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        for route in _with_shares(entry):
            groups[route["method"], route["transport"]].append(route)
        for key, routes in groups.items():
            share = statistics.mean(route["share_of_own"] for route in routes)
            price = statistics.median(route["kl"] / own[route["layer"]] for route in routes)
            cells[key].append(f"{share:.2f}, KL x {price:.1f}")
    return lines + [f"| {' | '.join(key)} | {' | '.join(row)} |" for key, row in cells.items()]


def _routes(directions: list[Entry]) -> list[str]:
    """Return the effects relative to the own vector: a row for each route, a column for each direction."""
    names = [f"{entry['source']} -> {entry['target']}" for entry in directions]
    lines = [
        "Effect relative to the own vector's, mean over seeds (of the tokens that are held out), as the "
        "mean over the layers where that has an effect, and after the slash at the layer where it does most; "
        "in brackets the standard deviation over seeds of the latter, and its KL as a multiple of the own "
        "vector's.",
        "",
        f"| method | transport | layers | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    cells: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in directions:
        best = max(entry["layers"], key=lambda layer: layer["facts"]["own_effect"])
        groups: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for route in _with_shares(entry):
            groups[route["method"], route["transport"], route["layers"]].append(route)
        for key, routes in groups.items():
            cells[key].append(_cell(routes, best))
    return lines + [f"| {' | '.join(key)} | {' | '.join(row)} |" for key, row in cells.items()]


def _with_shares(entry: Entry) -> list[Entry]:
    """Return the routes to the layers where the own vector has an effect to take a share of."""
    shared = {layer["layer"] for layer in entry["layers"] if layer["facts"]["share_of_own"] is not None}
    return [route for route in entry["routes"] if route["layer"] in shared]


def _cell(routes: list[Entry], best: Entry) -> str:
    there = [route for route in routes if route["layer"] == best["layer"]]
    shares = [route["share_of_own"] for route in there]
    spread = statistics.stdev(shares) if len(shares) > 1 else 0.0
    price = statistics.mean(route["kl"] for route in there) / best["kl"]["own"]
    average = statistics.mean(route["share_of_own"] for route in routes)
    return f"{average:.2f} / {statistics.mean(shares):.2f} (+- {spread:.2f}, KL x {price:.2f})"
