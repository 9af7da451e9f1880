"""Evaluations and sweeps as readable tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from embgeom._common.tables import Block, Table, number
from embgeom.evaluation.outcomes import deviation

if TYPE_CHECKING:
    from embgeom.evaluation.outcomes import Checks, Evaluation, Outcome
    from embgeom.evaluation.sweep import Sweep


def evaluation_tables(evaluation: Evaluation) -> list[Block]:
    """Return the table of all vectors, and the checks."""
    quantities = list(evaluation.unsteered)
    with_side_effects = evaluation.unsteered_perplexity is not None
    random = evaluation.of_kind("random")
    lines = [
        _line(o.label, [o], quantities, with_side_effects) for o in evaluation.outcomes if o.kind != "random"
    ]
    if random:
        place = sum(
            o.kind in ("transferred", "transferred_negated", "native", "native_negated")
            for o in evaluation.outcomes
        )
        lines.insert(
            place, _line(f"random, mean of {len(random)} (± sd)", random, quantities, with_side_effects)
        )
    means = ", ".join(f"{name} {number(float(v.mean()))}" for name, v in evaluation.unsteered.items())
    perplexity = (
        f"; perplexity of neutral text {number(evaluation.unsteered_perplexity or 0)}"
        if with_side_effects
        else ""
    )
    return [
        _strength(evaluation),
        Table(
            f"mean effects over {evaluation.samples} samples, steered minus unsteered (± standard error)",
            _columns("vector", quantities, with_side_effects),
            lines,
        ),
        f"unsteered: {means}{perplexity}",
        *_checks(quantities[0], evaluation.checks()),
    ]


def _strength(evaluation: Evaluation) -> str:
    """Say where and how strongly all vectors act."""
    norms = evaluation.provenance["options"]["norms"]
    low, high = min(norms.values()), max(norms.values())
    length = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    layers = f"layer{'s' if len(norms) > 1 else ''} {', '.join(map(str, norms))}"
    return f"{layers}: all vectors have the norm {length}, times {evaluation.transferred.scale:g}"


def sweep_tables(sweep: Sweep) -> list[Block]:
    """Return the grid, the choice, and the held-out evaluation."""
    quantities = list(sweep.unsteered)
    with_side_effects = sweep.unsteered_perplexity is not None
    limit = "" if sweep.max_kl is None else f" with KL at most {sweep.max_kl:g}"
    grid = Table(
        f"mean effects over {len(sweep.choice_samples)} samples for the choice, steered minus unsteered",
        _columns("setting", quantities, with_side_effects),
        (_line(outcome.label, [outcome], quantities, with_side_effects) for outcome in sweep.grid),
    )
    if sweep.chosen is None or sweep.held_out is None:
        return [grid, f"no setting has a defined effect{limit}"]
    choice = f"largest effect{limit}: {sweep.chosen.label}; on the other samples:"
    return [grid, choice, *evaluation_tables(sweep.held_out)]


def _columns(first: str, quantities: Sequence[str], with_side_effects: bool) -> list[str]:
    effects = [column for name in quantities for column in (name, "±")]
    return [first, *effects, "anti-steered", *(["perplexity", "KL"] if with_side_effects else [])]


def _line(
    name: str, outcomes: Sequence[Outcome], quantities: Iterable[str], with_side_effects: bool
) -> list[str]:
    """Return the cells of one outcome, or of the means of several."""
    cells = [name]
    for quantity in quantities:
        effects = [outcome.effects[quantity] for outcome in outcomes]
        means = [effect.mean for effect in effects]
        spread = effects[0].standard_error if outcomes[0].kind != "random" else deviation(means)
        cells += [_signed(float(np.mean(means))), number(spread)]
    wrong = float(np.mean([outcome.effect.anti_steered for outcome in outcomes]))
    cells.append(number(wrong) if np.isnan(wrong) else f"{wrong:.0%}")
    if with_side_effects:
        measured = [outcome.side_effects for outcome in outcomes if outcome.side_effects is not None]
        ratio = float(np.mean([side_effects.perplexity_ratio for side_effects in measured]))
        times = number(ratio) if np.isnan(ratio) else f"x {ratio:.3g}"
        cells += [times, number(float(np.mean([side_effects.kl for side_effects in measured])))]
    return cells


def _signed(value: float) -> str:
    return number(value) if np.isnan(value) else f"{value:+.4f}"


def _checks(quantity: str, checks: Checks) -> list[str]:
    if not np.isfinite(checks.effect):
        return [f"by {quantity}: undefined, since the steered model gives NaN or infinity; steer less"]
    lines = []
    if checks.fraction_of_native is not None:
        lines.append(f"fraction of the native vector's effect: {checks.fraction_of_native:.2f}")
    elif checks.native_effect is not None and not np.isfinite(checks.native_effect):
        lines.append("no fraction of the native vector's effect: that is undefined")
    elif checks.native_effect is not None:
        lines.append(
            "no fraction of the native vector's effect: that is not significant, or has the wrong sign"
        )
    if checks.beats_random is not None:
        reach = f"mean {_signed(checks.random_mean or 0)}, sd {number(checks.random_sd or 0)}"
        lines.append(f"beats random vectors by more than two sd ({reach}): {_yes(checks.beats_random)}")
    if checks.beats_shuffled is not None:
        lines.append(f"beats maps fitted on shuffled tokens: {_yes(checks.beats_shuffled)}")
    opposes = f"negating the vector reverses its effect, both beyond 2 ±: {_yes(checks.negation_reverses)}"
    return [f"by {quantity}:", *lines, opposes]


def _yes(fact: bool | None) -> str:
    return "undefined" if fact is None else "yes" if fact else "no"
