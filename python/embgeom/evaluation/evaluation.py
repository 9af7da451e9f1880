"""What an evaluation found: the effect and side effects of a vector and of its controls."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Columns, Plotted, Result, Tabular, named, new_figure
from embgeom._common.tables import Block, Table, number
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Kind
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
_COLORS = {
    "transferred": "C0",
    "transferred_negated": "C0",
    "native": "C2",
    "native_negated": "C2",
    "shuffled": "C3",
}


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
        the right sign, and beats random vectors: a fraction of nearly nothing means nothing.
    random_mean, random_sd : float or None
        Mean and standard deviation of the mean effects of the random vectors.
    beats_random, native_beats_random : bool or None
        Whether the effect, and that of the native vector, lies above their mean by more than two standard
        deviations (below it for a negative scale); None with fewer than two random vectors.
    beats_shuffled : bool or None
        Whether it exceeds that of every vector transferred by a map fitted on shuffled tokens; None without
        any.
    negation_reverses : bool or None
        Whether the vector's effect and that of its negation have opposite signs, and both are significant.

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
    beats_random: bool | None
    native_beats_random: bool | None
    beats_shuffled: bool | None
    negation_reverses: bool | None

    def lines(self, quantity: str) -> list[str]:
        """Return the checks as lines of text."""
        if not np.isfinite(self.effect):
            return [f"by {quantity}: undefined, since the steered model gives NaN or infinity; steer less"]
        lines = [f"by {quantity}:"]
        if self.fraction_of_native is not None:
            error = "" if self.fraction_error is None else f" ± {self.fraction_error:.2f}"
            lines.append(f"fraction of the native vector's effect: {self.fraction_of_native:.2f}{error}")
        elif self.native_effect is not None:
            lines.append(f"no fraction of the native vector's effect: {self._why_no_fraction()}")
        if self.beats_random is not None:
            spread = f"mean {signed(self.random_mean or 0)}, sd {number(self.random_sd or 0)}"
            lines.append(f"beats random vectors by more than two sd ({spread}): {_yes(self.beats_random)}")
        if self.beats_shuffled is not None:
            lines.append(f"beats maps fitted on shuffled tokens: {_yes(self.beats_shuffled)}")
        reverses = _yes(self.negation_reverses)
        return [*lines, f"negating the vector reverses its effect, both beyond 2 ±: {reverses}"]

    def _why_no_fraction(self) -> str:
        if not np.isfinite(self.native_effect or 0.0):
            return "that is undefined"
        if self.random_sd is None:
            return "there are not two random vectors that it could beat"
        if self.native_beats_random is False:
            return "that does not beat random vectors"
        return "that is not significant, or has the wrong sign"


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
            return [outcome.effects[chosen] for outcome in self.of_kind(kind) if outcome.comparable]

        undefined = Effect(np.nan, np.nan, np.nan)
        transferred, negated, native = (
            next(iter(effects(kind)), undefined) for kind in ("transferred", "transferred_negated", "native")
        )
        random, shuffled = ([each.mean for each in effects(kind)] for kind in ("random", "shuffled"))
        sign = -1 if self.transferred.scale < 0 else 1
        mean = float(np.mean(random)) if random else None
        sd = deviation(random) if len(random) > 1 else None

        def beats_random(effect: float) -> bool | None:
            if mean is None or sd is None or not _finite(effect, mean, sd):
                return None
            return sign * (effect - mean) > 2 * sd

        native_beats = beats_random(native.mean)
        fraction = error = None
        if native.direction == sign and native_beats and _finite(transferred.mean):
            fraction, error = self._fraction(chosen)
        return Checks(
            effect=self.transferred.effects[chosen].mean,
            native_effect=native.mean if self.of_kind("native") else None,
            fraction_of_native=fraction,
            fraction_error=error,
            random_mean=mean,
            random_sd=sd,
            beats_random=beats_random(transferred.mean),
            native_beats_random=native_beats,
            beats_shuffled=all(sign * (transferred.mean - other) > 0 for other in shuffled)
            if shuffled and _finite(transferred.mean, *shuffled)
            else None,
            negation_reverses=transferred.direction * negated.direction == -1
            if _finite(transferred.mean, negated.mean)
            else None,
        )

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
        """Return an outcome's label; of a vector that was not transferred it does not say so."""
        if "transferred_from" in str(self.provenance.get("vector")):
            return outcome.label
        return outcome.label.replace("transferred", "vector")

    def tables(self) -> list[Block]:
        """Return the effects and side effects, and the checks."""
        random = [outcome for outcome in self.of_kind("random") if outcome.comparable]
        singles = [(self._label(o), [o]) for o in self.outcomes if o.kind not in ("random", "shuffled")]
        if random:
            singles.append((f"random, mean of {len(random)} (± sd)", random))
        singles += [(o.label, [o]) for o in self.of_kind("shuffled")]
        means = ", ".join(f"{name} {number(float(v.mean()))}" for name, v in self.unsteered.items())
        if self.unsteered_perplexity is not None:
            means += f"; perplexity of neutral text {number(self.unsteered_perplexity)}"
        if self.unsteered_continuations is not None:
            repetition, distinct = written_cells(self.unsteered_continuations)
            means += f"; repetition {repetition}, distinct-2 {distinct}"
        title = f"mean effects over {self.samples} samples, steered minus unsteered (± standard error)"
        return [
            self._strength(),
            effects_table(title, "vector", singles, scales=self.at_kl is not None),
            f"unsteered: {means}",
            *search_lines(((self._label(o), o) for o in self.outcomes), self.at_kl),
            *self.checks().lines(next(iter(self.unsteered))),
            *self._texts(),
        ]

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
        norms = self.provenance["options"]["norms"]
        if self.at_kl is not None:
            return f"{named_layers(norms)}: each vector at its scale for KL {self.at_kl:g} on neutral text"
        low, high = min(norms.values()), max(norms.values())
        length = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return f"{named_layers(norms)}: all vectors have the norm {length}, times {self.transferred.scale:g}"

    def columns(self) -> Columns:
        """Return a row for each vector."""
        return outcome_columns(self.outcomes)

    def figure(self) -> Any:
        """Draw each vector's effect with its standard error, next to the cloud of random vectors."""
        singles = [outcome for outcome in self.outcomes if outcome.kind != "random"]
        random = [outcome.effect.mean for outcome in self.of_kind("random") if outcome.comparable]
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
        strength = f"scale {shown.scale:g}" if self.at_kl is None else f"KL {self.at_kl:g} on neutral text"
        axes.set_title(f"{named_layers(shown.layers)}, {strength}", fontsize="medium")
        axes.set_xlabel(f"effect on {in_unit(quantity)}, {self.samples} samples (± standard error)")
        return figure

    def _derived(self) -> dict[str, Any]:
        return {"checks": {quantity: asdict(self.checks(quantity)) for quantity in self.unsteered}}


def _finite(*effects: float) -> bool:
    return bool(np.isfinite(effects).all())


def _yes(fact: bool | None) -> str:
    return "undefined" if fact is None else "yes" if fact else "no"
