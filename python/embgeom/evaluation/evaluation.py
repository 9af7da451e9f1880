"""What an evaluation found: the effect and side effects of a vector and of its controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Columns, Plotted, Result, Tabular, named, new_figure
from embgeom._common.tables import Block, Table, number
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Kind, is_control, origins
from embgeom.evaluation.continuations import Continuations
from embgeom.evaluation.outcome import (
    Effect,
    Outcome,
    deviation,
    effects_table,
    in_unit,
    named_layers,
    outcome_columns,
    search_lines,
    signed,
    written_cells,
)

# Of how many prompts a summary shows the continuations; files hold all.
MOST_PROMPTS = 3
# Controls of which there are several, shown as mean and standard deviation.
CLOUDS: tuple[Kind, ...] = ("random", "shuffled")
# A fraction of the native effect at KLs that differ by more than this factor is at unequal cost.
_UNEQUAL = 1.5
# Fewer have no standard deviation to rely on.
FEWEST_CONTROLS = 3
_MOVES: dict[int, Literal["raises", "lowers"]] = {1: "raises", -1: "lowers"}
COLORS = {"native": "C2", "native_negated": "C2", "random": "0.4", "shuffled": "C3"}


@dataclass(frozen=True)
class Checks:
    """What the effects show, without a judgement.

    Attributes
    ----------
    effect : float
        Mean effect of the transferred vector.
    native_effect : float or None
        Mean effect of the target's native vector.
    fraction_of_native, fraction_error : float or None
        The effect as a fraction of that of the native vector, with its standard error over samples (by the
        delta method, the samples of both being the same). None unless the native effect is significant, has
        the right sign (that of the effect for vectors that are not added), and beats random vectors: a
        fraction of nearly nothing means nothing.
    random_mean, random_sd : float or None
        Mean and standard deviation of the mean effects of the random vectors.
    shuffled_mean, shuffled_sd : float or None
        The same of the vectors by maps of shuffled tokens.
    beats_random, native_beats_random : bool or None
        Whether the effect, and that of the native vector, lies above the mean of the random vectors by more
        than two standard deviations (below it for a negative scale; of vectors that are not added, on the
        side to which they move the score); None with fewer than three of them.
    beats_shuffled : bool or None
        Whether the effect lies as far beyond the mean of the vectors by maps of shuffled tokens; None with
        fewer than three of them.
    works_against : bool or None
        Whether the effect is significant and goes in the undesired direction: down, or up for a negative
        scale. Vectors that are not added may be to lower or to raise the score: of these, whether it goes the
        other way than a native effect that is significant and beats random vectors; None without one. None
        for a vector by a map of shuffled tokens, which is for nothing.
    negation_reverses : bool or None
        Whether the vector's effect and that of its negation have opposite signs, and both are significant;
        None for vectors that are not added, which have no negation.
    samples : int
        The number of samples.
    moves : {"raises", "lowers"} or None
        What the vector does to the score; None if the effect is not significant.
    two_sided : bool
        Whether the vectors, not being added, may be to raise the score or to lower it.

    Notes
    -----
    An effect is significant if it exceeds two of its standard errors over samples. One sample has none, so
    there its sign decides. What would compare an effect that is not finite is None: too strong a vector takes
    a model to NaN. At equal KL vectors that do not reach it are not compared.
    """

    effect: float
    native_effect: float | None
    fraction_of_native: float | None
    fraction_error: float | None
    random_mean: float | None
    random_sd: float | None
    shuffled_mean: float | None
    shuffled_sd: float | None
    beats_random: bool | None
    native_beats_random: bool | None
    beats_shuffled: bool | None
    works_against: bool | None
    negation_reverses: bool | None
    samples: int
    moves: Literal["raises", "lowers"] | None
    two_sided: bool

    def lines(self, quantity: str) -> list[str]:
        """Return the checks as lines of text."""
        if not np.isfinite(self.effect):
            return [f"by {quantity}: undefined, since the steered model gives NaN or infinity; steer less"]
        lines = [f"by {quantity}:"]
        if self.fraction_of_native is not None:
            error = "" if self.fraction_error is None else f" ± {self.fraction_error:.2f} (standard error)"
            lines.append(f"fraction of the native vector's effect: {self.fraction_of_native:.2f}{error}")
        elif self.native_effect is not None:
            lines.append(f"no fraction of the native vector's effect: {self._why_no_fraction()}")
        lines += self._beaten("random vectors", self.random_mean, self.random_sd, self.beats_random)
        lines += self._beaten(
            "vectors by maps of shuffled tokens", self.shuffled_mean, self.shuffled_sd, self.beats_shuffled
        )
        one = "by the sign of the only sample"
        beyond = one if self.samples == 1 else "beyond 2 ±"
        if self.two_sided:
            moved = f"it {self.moves or 'neither raises nor lowers'} {quantity}, {beyond}"
            return [
                *lines,
                moved + (", and the native vector does the opposite" if self.works_against else ""),
            ]
        if self.works_against:
            reverse = "raises" if self.moves == "lowers" else "lowers"
            negated = f", and its negative {reverse} it" if self.negation_reverses else ""
            return [*lines, f"works against what it is for, {beyond}: it {self.moves} {quantity}{negated}"]
        if self.negation_reverses is not None:
            said = one if self.samples == 1 else "both beyond 2 ±"
            lines.append(f"negating the vector reverses its effect, {said}: {_yes(self.negation_reverses)}")
        return lines

    def _beaten(self, whom: str, mean: float | None, sd: float | None, beats: bool | None) -> list[str]:
        """Return a line on controls, where there are any."""
        if mean is None:
            return []
        if sd is None:
            return [f"beats {whom}: not decided, with fewer than {FEWEST_CONTROLS} of them"]
        spread = f"mean {signed(mean)}, sd {number(sd)}"
        return [f"beats {whom} by more than two sd ({spread}): {_yes(beats)}"]

    def _why_no_fraction(self) -> str:
        if not np.isfinite(self.native_effect or 0.0):
            return "that is undefined"
        if self.random_sd is None:
            return f"there are fewer than {FEWEST_CONTROLS} random vectors for it to beat"
        if self.native_beats_random is False:
            return "that does not beat random vectors"
        return "that is not significant, or of the other sign"


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result, Tabular, Plotted):
    """What a vector does to a model, compared with its controls.

    Attributes
    ----------
    outcomes : tuple of Outcome
        The transferred vector, its negation, the native vector and its negation, random and shuffled vectors;
        or those that `measure_at_kl` was given, by their names.
    unsteered : dict of str to ndarray of float64
        Unsteered scores of the samples, by quantity.
    unsteered_perplexity : float or None
        On the neutral texts; None without them.
    provenance : dict
        Model, vectors, score, options and versions, ready for JSON.
    unsteered_continuations : Continuations or None
        What the unsteered model writes; None where none was asked for.
    """

    outcomes: tuple[Outcome, ...]
    unsteered: dict[str, npt.NDArray[np.float64]]
    unsteered_perplexity: float | None
    provenance: dict[str, Any]
    unsteered_continuations: Continuations | None = None

    def __repr__(self) -> str:
        found = ", ".join(
            f"{outcome.name} {outcome.effect.mean:+.4f}"
            for outcome in self.outcomes
            if outcome.kind not in CLOUDS
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
            If there is no such quantity, or none of the vectors is the one in question.
        """
        if quantity is not None and quantity not in self.unsteered:
            raise InputError(f"no quantity is named {quantity!r}; there are {', '.join(self.unsteered)}")
        if not self.of_kind("transferred"):
            raise InputError(
                "there are no checks, since none of the vectors is the one in question; evaluate has one"
            )
        chosen = quantity or next(iter(self.unsteered))

        def effects(kind: Kind) -> list[Effect]:
            return [outcome.effects[chosen] for outcome in self.of_kind(kind) if outcome.comparable]

        undefined, two_sided = Effect(np.nan, np.nan, np.nan), not self._added
        transferred, negated, native = (
            next(iter(effects(kind)), undefined) for kind in ("transferred", "transferred_negated", "native")
        )
        random, shuffled = (_spread([each.mean for each in effects(kind)]) for kind in CLOUDS)

        def wanted(effect: Effect) -> int:
            """Return 1 where the score is to rise and -1 where it is to fall."""
            falls = effect.mean if two_sided else self.transferred.scale
            return -1 if falls < 0 else 1

        def beats(effect: Effect, mean: float | None, sd: float | None) -> bool | None:
            if mean is None or sd is None or not _finite(effect.mean, mean, sd):
                return None
            return wanted(effect) * (effect.mean - mean) > 2 * sd

        native_beats = beats(native, *random)
        sign = wanted(native if two_sided else transferred)
        known = bool(native.direction and native_beats) if two_sided else True
        about = self.provenance.get("vector", {}).get("provenance")
        against = None
        if known and not is_control(about) and _finite(transferred.mean):
            against = transferred.direction == -sign
        fraction = error = None
        if native.direction == wanted(transferred) and native_beats and _finite(transferred.mean):
            fraction, error = self._fraction(chosen)
        return Checks(
            effect=self.transferred.effects[chosen].mean,
            native_effect=native.mean if self.of_kind("native") else None,
            fraction_of_native=fraction,
            fraction_error=error,
            random_mean=random[0],
            random_sd=random[1],
            shuffled_mean=shuffled[0],
            shuffled_sd=shuffled[1],
            beats_random=beats(transferred, *random),
            native_beats_random=native_beats,
            beats_shuffled=beats(transferred, *shuffled),
            works_against=against,
            negation_reverses=transferred.direction * negated.direction == -1
            if _finite(transferred.mean, negated.mean)
            else None,
            samples=self.samples,
            moves=_MOVES.get(transferred.direction),
            two_sided=two_sided,
        )

    @property
    def _added(self) -> bool:
        return bool(self.provenance.get("vector", {}).get("operation", "add") == "add")

    def _fraction(self, quantity: str) -> tuple[float, float | None]:
        """Return the effect as a fraction of the native one, and its standard error; None for one sample."""
        shifts, native = (
            self[name].values[quantity] - self.unsteered[quantity] for name in ("transferred", "native")
        )
        fraction = float(np.mean(shifts) / np.mean(native))
        if len(shifts) < 2:
            return fraction, None
        error = np.std(shifts - fraction * native, ddof=1) / np.sqrt(len(shifts)) / abs(np.mean(native))
        return fraction, float(error)

    def _label(self, outcome: Outcome) -> str:
        """Return an outcome's label, which says of the vector in question what it is."""
        if outcome.kind not in ("transferred", "transferred_negated"):
            return outcome.label
        about = self.provenance.get("vector", {}).get("provenance")
        transferred = any("transferred_from" in each for each in origins(about))
        subject = "transferred" if transferred else "vector"
        return outcome.label.replace("transferred", "shuffled control" if is_control(about) else subject)

    def tables(self) -> list[Block]:
        """Return the effects and side effects, and the checks."""
        rows = [(self._label(outcome), [outcome]) for outcome in self.outcomes if outcome.kind not in CLOUDS]
        for kind in CLOUDS:
            if found := [outcome for outcome in self.of_kind(kind) if outcome.comparable]:
                rows.append((f"{kind}, mean of {len(found)} (± sd)" if len(found) > 1 else kind, found))
        means = ", ".join(f"{name} {number(float(v.mean()))}" for name, v in self.unsteered.items())
        if self.unsteered_perplexity is not None:
            means += f"; perplexity of neutral text {number(self.unsteered_perplexity)}"
        if self.unsteered_continuations is not None:
            repetition, distinct = written_cells(self.unsteered_continuations)
            means += f"; repetition {repetition}, distinct-2 {distinct}"
        title = f"mean effects over {self.samples} samples, steered minus unsteered (± standard error)"
        return [
            self._strength(),
            effects_table(title, "vector", rows, scales=self.at_kl is not None),
            f"anti-steered: {self._undesired()}",
            f"unsteered: {means}",
            *search_lines(((self._label(o), o) for o in self.outcomes), self.at_kl),
            *(self._checked() if self.of_kind("transferred") else ()),
            *self._texts(),
        ]

    def _checked(self) -> list[str]:
        """Return the checks as lines, and at what cost the fraction of the native effect is compared."""
        checks = self.checks()
        lines, costs = checks.lines(next(iter(self.unsteered))), []
        if checks.fraction_of_native is not None:
            effects = (self[name].side_effects for name in ("transferred", "native"))
            costs = [each.kl for each in effects if each is not None]
        if costs and max(costs) > _UNEQUAL * min(costs):
            instead = "" if checks.two_sided else "; --at-kl compares at equal KL"
            lines.append(f"at unequal cost: KL {costs[0]:.3g} against {costs[1]:.3g} of the native{instead}")
        return lines

    def _undesired(self) -> str:
        """Say against which sign samples count as anti-steered."""
        if not self._added:
            return "undefined for vectors that are not added, of which no direction is undesired"
        ways = ("up", "down") if self.outcomes[0].scale < 0 else ("down", "up")
        negated = f", or {ways[1]} in negated rows" if self.of_kind("transferred_negated") else ""
        return f"the share of samples that moved {ways[0]}{negated}"

    def _texts(self) -> list[Block]:
        """Return what is written after the first prompts, with each vector and without."""
        if self.unsteered_continuations is None:
            return []
        written = [("unsteered", self.unsteered_continuations)]
        written += [(self._label(o), o.continuations) for o in self.outcomes if o.continuations]
        prompts = self.provenance["options"]["continuations"][:MOST_PROMPTS]
        return [
            Table(
                f"after {prompt!r}", ("vector", "text"), [(label, each.texts[i]) for label, each in written]
            )
            for i, prompt in enumerate(prompts)
        ]

    @property
    def at_kl(self) -> float | None:
        """The KL on neutral text at which the vectors are compared; None at equal norm."""
        found: float | None = self.provenance.get("options", {}).get("at_kl")
        return found

    def _strength(self) -> str:
        if self.at_kl is not None:
            layers = sorted({layer for outcome in self.outcomes for layer in outcome.layers})
            return f"{named_layers(layers)}: each vector at its scale for KL {self.at_kl:g} on neutral text"
        norms = self.provenance["options"]["norms"]
        given = self.provenance.get("vector", {}).get("norms", norms)
        rescaled = len(given) == len(norms) and not np.allclose(
            [*given.values()], [*norms.values()], rtol=1e-3
        )
        was = f"; the vector was rescaled from {_range(given)} to that of the native one" if rescaled else ""
        strength = f"{_range(norms)}, times {self.transferred.scale:g}{was}"
        return f"{named_layers(norms)}: all vectors have the norm {strength}"

    def columns(self) -> Columns:
        """Return a row for each vector."""
        return outcome_columns(self.outcomes)

    def figure(self) -> Any:
        """Draw each vector's effect with its standard error, and clouds of random and shuffled vectors."""
        singles = [outcome for outcome in self.outcomes if outcome.kind not in CLOUDS]
        clouds = {kind: [o.effect.mean for o in self.of_kind(kind) if o.comparable] for kind in CLOUDS}
        clouds = {kind: means for kind, means in clouds.items() if means}
        names = [self._label(outcome) for outcome in singles]
        names += [f"{len(means)} {kind}" for kind, means in clouds.items()]
        figure = new_figure(6.4, 1.2 + 0.35 * len(names))
        axes = figure.subplots()
        axes.axvline(0, color="0.7", linewidth=0.8)
        for row, outcome in enumerate(singles):
            # One sample has no standard error, which leaves the dot.
            error = np.nan_to_num(outcome.effect.standard_error)
            color = COLORS.get(outcome.kind, "C0")
            axes.errorbar(outcome.effect.mean, row, xerr=error, fmt="o", capsize=3, color=color)
        for row, (kind, means) in enumerate(clouds.items(), len(singles)):
            heights = row + np.linspace(-0.25, 0.25, len(means))
            axes.plot(means, heights, "o", markersize=3, alpha=0.6, color=COLORS[kind])
        if len(random := clouds.get("random", ())) >= FEWEST_CONTROLS:
            # The band that a vector must leave to beat the random ones.
            mean, reach = np.mean(random), 2 * deviation(random)
            label = "random vectors, mean ± 2 sd"
            axes.axvspan(mean - reach, mean + reach, color="0.92", zorder=0, label=label)
            figure.legend(loc="outside lower right", fontsize="small")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        quantity = next(iter(self.unsteered))
        shown = self.outcomes[0]
        strength = f"scale {shown.scale:g}" if self.at_kl is None else f"KL {self.at_kl:g} on neutral text"
        axes.set_title(f"{named_layers(shown.layers)}, {strength}", fontsize="medium")
        axes.set_xlabel(f"effect on {in_unit(quantity)}, {self.samples} samples (± standard error)")
        return figure

    def _derived(self) -> dict[str, Any]:
        quantities = self.unsteered if self.of_kind("transferred") else ()
        return {"checks": {quantity: asdict(self.checks(quantity)) for quantity in quantities}}


def _spread(effects: list[float]) -> tuple[float | None, float | None]:
    """Return mean and standard deviation of controls; None of none, and of too few."""
    mean = float(np.mean(effects)) if effects else None
    return mean, deviation(effects) if len(effects) >= FEWEST_CONTROLS else None


def _range(norms: Mapping[Any, float]) -> str:
    low, high = min(norms.values()), max(norms.values())
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def _finite(*effects: float) -> bool:
    return bool(np.isfinite(effects).all())


def _yes(fact: bool | None) -> str:
    return "not decided" if fact is None else "yes" if fact else "no"
