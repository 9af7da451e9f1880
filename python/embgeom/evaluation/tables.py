"""Evaluations and sweeps as readable tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embgeom._common.tables import Block, Table, number
from embgeom.evaluation.outcomes import deviation

if TYPE_CHECKING:
    from embgeom.evaluation.outcomes import Evaluation, Facts, Outcome
    from embgeom.evaluation.sweep import Sweep


def evaluation_tables(evaluation: Evaluation) -> list[Block]:
    """Return the table of all vectors, and the facts."""
    quantities = list(evaluation.unsteered)
    priced = evaluation.unsteered_perplexity is not None
    random = evaluation.of_kind("random")
    lines = [_line(o.name, [o], quantities, priced) for o in evaluation.outcomes if o.kind != "random"]
    if random:
        place = sum(o.kind in ("carried", "negated", "own", "own, negated") for o in evaluation.outcomes)
        lines.insert(place, _line(f"random, mean of {len(random)} (± sd)", random, quantities, priced))
    means = ", ".join(f"{name} {number(float(v.mean()))}" for name, v in evaluation.unsteered.items())
    perplexity = (
        f"; perplexity of neutral text {number(evaluation.unsteered_perplexity or 0)}" if priced else ""
    )
    return [
        _strength(evaluation),
        Table(
            f"mean effects over {evaluation.samples} samples, steered less unsteered (± standard error)",
            _columns("vector", quantities, priced),
            lines,
        ),
        f"unsteered: {means}{perplexity}",
        *_facts(quantities[0], evaluation.facts()),
    ]


def _strength(evaluation: Evaluation) -> str:
    """Say where and how strongly all vectors act, since they have the own vector's norm if there is one."""
    norms = evaluation.provenance["options"]["norms"]
    low, high = min(norms.values()), max(norms.values())
    length = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    layers = f"layer{'s' if len(norms) > 1 else ''} {', '.join(map(str, norms))}"
    return f"{layers}: all vectors have the norm {length}, times {evaluation.carried.scale:g}"


def sweep_tables(sweep: Sweep) -> list[Block]:
    """Return the grid, the choice, and the held-out evaluation."""
    quantities = list(sweep.unsteered)
    priced = sweep.unsteered_perplexity is not None
    limit = "" if sweep.max_kl is None else f" with KL at most {sweep.max_kl:g}"
    grid = Table(
        f"mean effects over {len(sweep.choice_samples)} samples for the choice, steered less unsteered",
        _columns("setting", quantities, priced),
        (_line(outcome.name, [outcome], quantities, priced) for outcome in sweep.grid),
    )
    if sweep.chosen is None or sweep.held_out is None:
        return [grid, f"no setting has a defined effect{limit}"]
    choice = f"largest effect{limit}: {sweep.chosen.name}; on the other samples:"
    return [grid, choice, *evaluation_tables(sweep.held_out)]


def _columns(first: str, quantities: Sequence[str], priced: bool) -> list[str]:
    effects = [column for name in quantities for column in (name, "±")]
    return [first, *effects, "wrong way", *(["perplexity", "KL"] if priced else [])]


def _line(name: str, outcomes: Sequence[Outcome], quantities: Iterable[str], priced: bool) -> list[str]:
    """Return the cells of one outcome, or of the means of several."""
    cells = [name]
    for quantity in quantities:
        effects = [outcome.effects[quantity] for outcome in outcomes]
        means = [effect.mean for effect in effects]
        spread = effects[0].standard_error if outcomes[0].kind != "random" else deviation(means)
        cells += [_signed(float(np.mean(means))), number(spread)]
    wrong = float(np.mean([outcome.effect.wrong_way for outcome in outcomes]))
    cells.append(number(wrong) if np.isnan(wrong) else f"{wrong:.0%}")
    if priced:
        prices = [outcome.price for outcome in outcomes if outcome.price is not None]
        ratio = float(np.mean([price.perplexity_ratio for price in prices]))
        times = number(ratio) if np.isnan(ratio) else f"x {ratio:.3g}"
        cells += [times, number(float(np.mean([price.kl for price in prices])))]
    return cells


def _signed(value: float) -> str:
    return number(value) if np.isnan(value) else f"{value:+.4f}"


def _facts(quantity: str, facts: Facts) -> list[str]:
    if not np.isfinite(facts.effect):
        return [f"by {quantity}: undefined, since the steered model gives NaN or infinity; steer less"]
    lines = []
    if facts.share_of_own is not None:
        lines.append(f"share of the own vector's effect: {facts.share_of_own:.2f}")
    elif facts.own_effect is not None and not np.isfinite(facts.own_effect):
        lines.append("no share of the own vector's effect: that is undefined")
    elif facts.own_effect is not None:
        lines.append("no share of the own vector's effect: that is not told from none, or goes the wrong way")
    if facts.exceeds_random is not None:
        reach = f"mean {_signed(facts.random_mean or 0)}, sd {number(facts.random_sd or 0)}"
        lines.append(f"beyond random vectors by more than two sd ({reach}): {_yes(facts.exceeds_random)}")
    if facts.exceeds_shuffled is not None:
        lines.append(f"beyond maps fitted on shuffled tokens: {_yes(facts.exceeds_shuffled)}")
    opposes = f"the negated vector has the opposite effect, both beyond 2 ±: {_yes(facts.negation_opposes)}"
    return [f"by {quantity}:", *lines, opposes]


def _yes(fact: bool | None) -> str:
    return "undefined" if fact is None else "yes" if fact else "no"
