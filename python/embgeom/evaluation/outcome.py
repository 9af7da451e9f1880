"""What one vector did: its effect and side effects, and tables of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Columns
from embgeom._common.tables import Table, number
from embgeom.evaluation.conditions import Kind, Search
from embgeom.evaluation.continuations import Continuations
from embgeom.evaluation.side_effects import SideEffects

# How many vectors a line of text names.
MOST_NAMED = 5


@dataclass(frozen=True)
class Effect:
    """What a vector changes in a score, sample by sample, against the same model unsteered.

    Attributes
    ----------
    mean : float
        Mean difference over samples, steered minus unsteered.
    standard_error : float
        Of that mean: the standard deviation of the differences by the root of their number; NaN for one.
    anti_steered : float
        Share of samples that move in the undesired direction: down, or up for a negated vector or a negative
        scale. One that does not move does not count; NaN if a difference is undefined, and of vectors that
        are not added, of which no direction is undesired.
    """

    mean: float
    standard_error: float
    anti_steered: float

    @property
    def direction(self) -> int:
        """1 for up, -1 for down, and 0 where two standard errors reach beyond zero."""
        reach = 2 * float(np.nan_to_num(self.standard_error))
        return int(self.mean > reach) - int(self.mean < -reach)

    @classmethod
    def from_scores(
        cls, steered: npt.NDArray[np.float64], unsteered: npt.NDArray[np.float64], *, sign: int = 1
    ) -> Effect:
        """Return the effect for scores of shape (n,), the larger wanted if `sign` is 1, neither if it is 0.

        Examples
        --------
        >>> import numpy as np
        >>> from embgeom.evaluation import Effect
        >>> Effect.from_scores(np.array([1.0, 3.0, 1.0, 3.0]), np.array([0.0, 0.0, 2.0, 2.0]))
        Effect(mean=1.0, standard_error=0.816496580927726, anti_steered=0.25)
        """
        shifts = steered - unsteered
        error = np.std(shifts, ddof=1) / np.sqrt(len(shifts)) if len(shifts) > 1 else np.nan
        undesired = np.where(np.isnan(shifts) | (sign == 0), np.nan, sign * shifts < 0)
        return cls(float(np.mean(shifts)), float(error), float(np.mean(undesired)))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one vector did.

    Attributes
    ----------
    name : str
        The key in ``evaluation[name]``: ``"transferred"``, ``"native_negated"``, ``"random_0"``, ...
    kind : str
        Its part: transferred, transferred_negated, native, native_negated, random, shuffled, setting (of a
        sweep), or named (of `measure_at_kl`).
    layers : tuple of int
        The layers that were steered.
    scale : float
        The factor that the directions were applied with.
    values : dict of str to ndarray of float64, shape (n,)
        The steered score of each sample, by quantity.
    effects : dict of str to Effect
        By quantity; the score's first comes first.
    side_effects : SideEffects or None
        None without neutral texts.
    search : {"reached", "not monotone", "not reached"} or None
        Whether the scale has the KL that was asked for: it has; it has, but KL does not grow steadily with
        the scale, so that others may have it, too; or none that was tried has it, and this is the one that
        comes nearest. None where none was asked for.
    continuations : Continuations or None
        What the steered model writes; None for random and shuffled vectors, or where none was asked for.
    """

    name: str
    kind: Kind
    layers: tuple[int, ...]
    scale: float
    values: dict[str, npt.NDArray[np.float64]]
    effects: dict[str, Effect]
    side_effects: SideEffects | None
    search: Search | None = None
    continuations: Continuations | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.kind == "setting":
            return f"{named_layers(self.layers, '+')}, scale {self.scale:.4g}"
        if self.kind == "named":
            return self.name
        return self.name.replace("_negated", ", negated").replace("_", " ")

    @property
    def comparable(self) -> bool:
        """Whether it has the KL that was asked for, if one was."""
        return self.search != "not reached"

    @property
    def effect(self) -> Effect:
        """The effect on the score's first quantity."""
        return next(iter(self.effects.values()))


def named_layers(layers: Collection[Any], between: str = ", ") -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {between.join(map(str, layers))}"


def in_unit(quantity: str) -> str:
    return f"{quantity} (nats)" if quantity in ("log-ratio", "log-odds") else quantity


def search_lines(labelled: Iterable[tuple[str, Outcome]], at_kl: float | None) -> list[str]:
    """Say which vectors do not reach the KL that was asked for, and whose KL is not monotone."""
    lines, outcomes = [], list(labelled)
    for how, said in (
        ("not reached", f"KL {at_kl:g} is not reached within 5 % by" if at_kl is not None else ""),
        ("not monotone", "KL does not grow steadily with the scale of"),
    ):
        found = [
            f"{label} (KL {each.side_effects.kl:.3g} at scale {each.scale:.3g})"
            for label, each in outcomes
            if each.search == how and each.side_effects
        ]
        more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        lines += [f"{said}: {', '.join(found[:MOST_NAMED])}{more}"] if found else []
    return lines


def effects_table(
    title: str, first: str, rows: Sequence[tuple[str, Sequence[Outcome]]], *, scales: bool = False
) -> Table:
    example = rows[0][1][0]
    columns = [first, *(["scale"] if scales else [])]
    columns += [*(column for name in example.effects for column in (name, "±")), "anti-steered"]
    columns += ["perplexity", "KL"] if example.side_effects else []
    columns += ["repetition", "distinct-2"] if example.continuations else []

    def cells(outcomes: Sequence[Outcome]) -> list[str]:
        scale = float(np.mean([outcome.scale for outcome in outcomes]))
        written = outcomes[0].continuations if example.continuations else None
        return [
            *([f"{scale:.3g}"] if scales else []),
            *_cells(outcomes),
            *([] if example.continuations is None else written_cells(written)),
        ]

    return Table(title, columns, [(name, *cells(outcomes)) for name, outcomes in rows])


def written_cells(written: Continuations | None) -> list[str]:
    return ["", ""] if written is None else [number(written.repetition), number(written.distinct)]


def outcome_columns(outcomes: Sequence[Outcome]) -> Columns:
    columns: dict[str, list[Any]] = {
        name: [getattr(outcome, name) for outcome in outcomes] for name in ("name", "kind", "layers", "scale")
    }
    for quantity in outcomes[0].effects:
        for name in ("mean", "standard_error", "anti_steered"):
            columns[f"{quantity}_{name}"] = [getattr(o.effects[quantity], name) for o in outcomes]
    if outcomes[0].search:
        columns["search"] = [outcome.search for outcome in outcomes]
    if outcomes[0].side_effects:
        for name in ("perplexity", "perplexity_ratio", "kl"):
            columns[name] = [getattr(outcome.side_effects, name) for outcome in outcomes]
    if outcomes[0].continuations:
        for name in ("repetition", "distinct"):
            columns[name] = [getattr(outcome.continuations, name, np.nan) for outcome in outcomes]
    return columns


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of values; NaN for one, or if one is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    cells = []
    for quantity in outcomes[0].effects:
        effects = [outcome.effects[quantity] for outcome in outcomes]
        means = [effect.mean for effect in effects]
        spread = effects[0].standard_error if len(effects) == 1 else deviation(means)
        cells += [signed(float(np.mean(means))), number(spread)]
    undesired = float(np.mean([outcome.effect.anti_steered for outcome in outcomes]))
    cells.append(number(undesired) if np.isnan(undesired) else f"{undesired:.0%}")
    if side_effects := [outcome.side_effects for outcome in outcomes if outcome.side_effects]:
        ratio = float(np.mean([each.perplexity_ratio for each in side_effects]))
        cells.append(number(ratio) if np.isnan(ratio) else f"x {ratio:.3g}")
        cells.append(number(float(np.mean([each.kl for each in side_effects]))))
    return cells


def signed(value: float) -> str:
    return number(value) if np.isnan(value) else f"{value:+.4f}"
