"""What an evaluation found: the effect and side effects of a vector and of its controls."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Columns, Plotted, Result, Tabular, named, new_figure
from embgeom._common.tables import Block, Table, number
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Kind, Search
from embgeom.evaluation.side_effects import SideEffects

_COLORS = {
    "transferred": "C0",
    "transferred_negated": "C0",
    "native": "C2",
    "native_negated": "C2",
    "shuffled": "C3",
}


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
        scale. One that does not move does not count; NaN if a difference is undefined.
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
        """Return the effect for scores of shape (n,), of which the larger is wanted if `sign` is 1.

        Examples
        --------
        >>> import numpy as np
        >>> from embgeom.evaluation import Effect
        >>> Effect.from_scores(np.array([1.0, 3.0, 1.0, 3.0]), np.array([0.0, 0.0, 2.0, 2.0]))
        Effect(mean=1.0, standard_error=0.816496580927726, anti_steered=0.25)
        """
        shifts = steered - unsteered
        error = np.std(shifts, ddof=1) / np.sqrt(len(shifts)) if len(shifts) > 1 else np.nan
        undesired = np.where(np.isnan(shifts), np.nan, sign * shifts < 0)
        return cls(float(np.mean(shifts)), float(error), float(np.mean(undesired)))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one vector did.

    Attributes
    ----------
    name : str
        The key in ``evaluation[name]``: ``"transferred"``, ``"native_negated"``, ``"random_0"``, ...
    kind : str
        Its part: transferred, transferred_negated, native, native_negated, random, shuffled, or setting (of a
        sweep).
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
    """

    name: str
    kind: Kind
    layers: tuple[int, ...]
    scale: float
    values: dict[str, npt.NDArray[np.float64]]
    effects: dict[str, Effect]
    side_effects: SideEffects | None
    search: Search | None = None

    @property
    def label(self) -> str:
        """What tables call it."""
        if self.kind == "setting":
            return f"{named_layers(self.layers, '+')}, scale {self.scale:g}"
        return self.name.replace("_negated", ", negated").replace("_", " ")

    @property
    def effect(self) -> Effect:
        """The effect on the score's first quantity."""
        return next(iter(self.effects.values()))


@dataclass(frozen=True)
class Checks:
    """What the effects show, without a judgement.

    Attributes
    ----------
    effect : float
        Mean effect of the transferred vector.
    native_effect, fraction_of_native : float or None
        Mean effect of the target's native vector, and the transferred vector's as a fraction of it; no
        fraction where the native effect is not significant or has the wrong sign.
    random_mean, random_sd : float or None
        Mean and standard deviation of the mean effects of the random vectors.
    beats_random : bool or None
        Whether the effect lies above their mean by more than two standard deviations (below it for a negative
        scale); None with fewer than two random vectors.
    beats_shuffled : bool or None
        Whether it exceeds that of every vector transferred by a map fitted on shuffled tokens; None without
        any.
    negation_reverses : bool or None
        Whether the vector's effect and that of its negation have opposite signs, and both are significant.

    Notes
    -----
    An effect is significant if it exceeds two of its standard errors over samples. One sample has none, so
    there its sign decides. What would compare an effect that is not finite is None: too strong a vector takes
    a model to NaN.
    """

    effect: float
    native_effect: float | None
    fraction_of_native: float | None
    random_mean: float | None
    random_sd: float | None
    beats_random: bool | None
    beats_shuffled: bool | None
    negation_reverses: bool | None

    def lines(self, quantity: str) -> list[str]:
        """Return the checks as lines of text."""
        if not np.isfinite(self.effect):
            return [f"by {quantity}: undefined, since the steered model gives NaN or infinity; steer less"]
        lines = [f"by {quantity}:"]
        if self.fraction_of_native is not None:
            lines.append(f"fraction of the native vector's effect: {self.fraction_of_native:.2f}")
        elif self.native_effect is not None:
            why = "is not significant, or has the wrong sign"
            why = why if np.isfinite(self.native_effect) else "is undefined"
            lines.append(f"no fraction of the native vector's effect: that {why}")
        if self.beats_random is not None:
            spread = f"mean {_signed(self.random_mean or 0)}, sd {number(self.random_sd or 0)}"
            lines.append(f"beats random vectors by more than two sd ({spread}): {_yes(self.beats_random)}")
        if self.beats_shuffled is not None:
            lines.append(f"beats maps fitted on shuffled tokens: {_yes(self.beats_shuffled)}")
        reverses = _yes(self.negation_reverses)
        return [*lines, f"negating the vector reverses its effect, both beyond 2 ±: {reverses}"]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result, Tabular, Plotted):
    """What a vector does to a model, compared with its controls.

    Attributes
    ----------
    outcomes : tuple of Outcome
        The transferred vector, its negation, the native vector and its negation, random and shuffled vectors.
    unsteered : dict of str to ndarray of float64
        Unsteered scores of the samples, by quantity.
    unsteered_perplexity : float or None
        On the neutral texts; None without them.
    provenance : dict
        Model, vectors, score, options and versions, ready for JSON.
    """

    outcomes: tuple[Outcome, ...]
    unsteered: dict[str, npt.NDArray[np.float64]]
    unsteered_perplexity: float | None
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        found = ", ".join(
            f"{outcome.name} {outcome.effect.mean:+.4f}"
            for outcome in self.outcomes
            if outcome.kind not in ("random", "shuffled")
        )
        return f"Evaluation({next(iter(self.unsteered))} of {self.samples} samples: {found})"

    def __getitem__(self, name: str) -> Outcome:
        """Return an outcome by its name."""
        return named(self.outcomes, name, "outcome")

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(next(iter(self.unsteered.values())))

    @property
    def transferred(self) -> Outcome:
        """What the transferred vector did."""
        return self["transferred"]

    def of_kind(self, kind: Kind) -> tuple[Outcome, ...]:
        """Return the outcomes of one kind, perhaps none."""
        return tuple(outcome for outcome in self.outcomes if outcome.kind == kind)

    def checks(self, quantity: str | None = None) -> Checks:
        """Return what the effects on a quantity show; on the score's first by default.

        Raises
        ------
        InputError
            If there is no such quantity.
        """
        if quantity is not None and quantity not in self.unsteered:
            raise InputError(f"no quantity is named {quantity!r}; there are {', '.join(self.unsteered)}")
        chosen = quantity or next(iter(self.unsteered))

        def effects(kind: Kind) -> list[Effect]:
            return [outcome.effects[chosen] for outcome in self.of_kind(kind)]

        (transferred,), (negated,) = effects("transferred"), effects("transferred_negated")
        native = next(iter(effects("native")), None)
        random, shuffled = ([each.mean for each in effects(kind)] for kind in ("random", "shuffled"))
        sign = -1 if self.transferred.scale < 0 else 1
        effect = transferred.mean
        mean = float(np.mean(random)) if random else None
        sd = deviation(random) if len(random) > 1 else None
        comparable = native is not None and native.direction == sign and _finite(effect, native.mean)
        return Checks(
            effect=effect,
            native_effect=None if native is None else native.mean,
            fraction_of_native=effect / native.mean if native is not None and comparable else None,
            random_mean=mean,
            random_sd=sd,
            beats_random=sign * (effect - mean) > 2 * sd
            if mean is not None and sd is not None and _finite(effect, mean, sd)
            else None,
            beats_shuffled=all(sign * (effect - other) > 0 for other in shuffled)
            if shuffled and _finite(effect, *shuffled)
            else None,
            negation_reverses=transferred.direction * negated.direction == -1
            if _finite(effect, negated.mean)
            else None,
        )

    def _label(self, outcome: Outcome) -> str:
        """Return an outcome's label; of a vector that was not transferred it does not say so."""
        if "transferred_from" in str(self.provenance.get("vector")):
            return outcome.label
        return outcome.label.replace("transferred", "vector")

    def tables(self) -> list[Block]:
        """Return the effects and side effects, and the checks."""
        random = self.of_kind("random")
        singles = [(self._label(o), [o]) for o in self.outcomes if o.kind not in ("random", "shuffled")]
        if random:
            singles.append((f"random, mean of {len(random)} (± sd)", list(random)))
        singles += [(o.label, [o]) for o in self.of_kind("shuffled")]
        means = ", ".join(f"{name} {number(float(v.mean()))}" for name, v in self.unsteered.items())
        if self.unsteered_perplexity is not None:
            means += f"; perplexity of neutral text {number(self.unsteered_perplexity)}"
        title = f"mean effects over {self.samples} samples, steered minus unsteered (± standard error)"
        return [
            self._strength(),
            effects_table(title, "vector", singles),
            f"unsteered: {means}",
            *self.checks().lines(next(iter(self.unsteered))),
        ]

    def _strength(self) -> str:
        norms = self.provenance["options"]["norms"]
        low, high = min(norms.values()), max(norms.values())
        length = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return f"{named_layers(norms)}: all vectors have the norm {length}, times {self.transferred.scale:g}"

    def columns(self) -> Columns:
        """Return a row for each vector."""
        return outcome_columns(self.outcomes)

    def figure(self) -> Any:
        """Draw each vector's effect with its standard error, next to the cloud of random vectors."""
        singles = [outcome for outcome in self.outcomes if outcome.kind != "random"]
        random = [outcome.effect.mean for outcome in self.of_kind("random")]
        names = [self._label(outcome) for outcome in singles] + ([f"{len(random)} random"] if random else [])
        figure = new_figure(6.4, 1.2 + 0.35 * len(names))
        axes = figure.subplots()
        axes.axvline(0, color="0.7", linewidth=0.8)
        for row, outcome in enumerate(singles):
            # One sample has no standard error, which leaves the dot.
            error = np.nan_to_num(outcome.effect.standard_error)
            color = _COLORS[outcome.kind]
            axes.errorbar(outcome.effect.mean, row, xerr=error, fmt="o", capsize=3, color=color)
        if random:
            heights = len(singles) + np.linspace(-0.25, 0.25, len(random))
            axes.plot(random, heights, "o", markersize=3, alpha=0.6, color="0.4")
        if len(random) > 1:
            # The band that a vector must leave to beat the random ones.
            mean, reach = np.mean(random), 2 * deviation(random)
            label = "random vectors, mean ± 2 sd"
            axes.axvspan(mean - reach, mean + reach, color="0.92", zorder=0, label=label)
            figure.legend(loc="outside lower right", fontsize="small")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        quantity = next(iter(self.unsteered))
        shown = self.transferred
        axes.set_title(f"{named_layers(shown.layers)}, scale {shown.scale:g}", fontsize="medium")
        axes.set_xlabel(f"effect on {in_unit(quantity)}, {self.samples} samples (± standard error)")
        return figure

    def _derived(self) -> dict[str, Any]:
        return {"checks": {quantity: asdict(self.checks(quantity)) for quantity in self.unsteered}}


def named_layers(layers: Collection[Any], between: str = ", ") -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {between.join(map(str, layers))}"


def in_unit(quantity: str) -> str:
    return f"{quantity} (nats)" if quantity in ("log-ratio", "log-odds") else quantity


def effects_table(title: str, first: str, rows: Sequence[tuple[str, Sequence[Outcome]]]) -> Table:
    example = rows[0][1][0]
    columns = [first, *(column for name in example.effects for column in (name, "±")), "anti-steered"]
    return Table(
        title,
        [*columns, *(["perplexity", "KL"] if example.side_effects else [])],
        [(name, *_cells(outcomes)) for name, outcomes in rows],
    )


def outcome_columns(outcomes: Sequence[Outcome]) -> Columns:
    columns: dict[str, list[Any]] = {
        name: [getattr(outcome, name) for outcome in outcomes] for name in ("name", "kind", "layers", "scale")
    }
    for quantity in outcomes[0].effects:
        for name in ("mean", "standard_error", "anti_steered"):
            columns[f"{quantity}_{name}"] = [getattr(o.effects[quantity], name) for o in outcomes]
    if outcomes[0].side_effects:
        for name in ("perplexity", "perplexity_ratio", "kl"):
            columns[name] = [getattr(outcome.side_effects, name) for outcome in outcomes]
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
        spread = effects[0].standard_error if outcomes[0].kind != "random" else deviation(means)
        cells += [_signed(float(np.mean(means))), number(spread)]
    undesired = float(np.mean([outcome.effect.anti_steered for outcome in outcomes]))
    cells.append(number(undesired) if np.isnan(undesired) else f"{undesired:.0%}")
    if side_effects := [outcome.side_effects for outcome in outcomes if outcome.side_effects]:
        ratio = float(np.mean([each.perplexity_ratio for each in side_effects]))
        cells.append(number(ratio) if np.isnan(ratio) else f"x {ratio:.3g}")
        cells.append(number(float(np.mean([each.kl for each in side_effects]))))
    return cells


def _finite(*effects: float) -> bool:
    return bool(np.isfinite(effects).all())


def _signed(value: float) -> str:
    return number(value) if np.isnan(value) else f"{value:+.4f}"


def _yes(fact: bool | None) -> str:
    return "undefined" if fact is None else "yes" if fact else "no"
