"""What an evaluation holds: the effect and the side effects of a vector beside those of its controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.result import Plotted, Result
from embgeom._common.tables import Block
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Kind


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
        scale. One that does not move does not count; NaN if a shift is undefined.
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
        """Return the effect for values of shape (n,), of which the larger is wanted if `sign` is 1.

        Examples
        --------
        >>> import numpy as np
        >>> from embgeom.evaluation import Effect
        >>> Effect.from_scores(np.array([1.0, 3.0, 1.0, 3.0]), np.array([0.0, 0.0, 2.0, 2.0]))
        Effect(mean=1.0, standard_error=0.816496580927726, anti_steered=0.25)
        """
        shifts = steered - unsteered
        error = np.std(shifts, ddof=1) / np.sqrt(len(shifts)) if len(shifts) > 1 else np.nan
        wrong = np.where(np.isnan(shifts), np.nan, sign * shifts < 0)
        return cls(float(np.mean(shifts)), float(error), float(np.mean(wrong)))


@dataclass(frozen=True)
class SideEffects:
    """What a vector costs on neutral text, where it acts at all positions.

    Attributes
    ----------
    perplexity : float
        Of the steered model, over all tokens but each text's first.
    perplexity_ratio : float
        That perplexity divided by the unsteered model's; 1 costs nothing.
    kl : float
        Kullback-Leibler divergence of the steered model's next-token distribution from the unsteered one's,
        KL(unsteered || steered), mean over the same tokens, in nats; 0 costs nothing.
    """

    perplexity: float
    perplexity_ratio: float
    kl: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one vector did.

    Attributes
    ----------
    name, kind : str
        What it is called, and its part: transferred, transferred_negated, native, native_negated,
        random, shuffled, or setting (of a sweep).
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
    """

    name: str
    kind: Kind
    layers: tuple[int, ...]
    scale: float
    values: dict[str, npt.NDArray[np.float64]]
    effects: dict[str, Effect]
    side_effects: SideEffects | None

    @property
    def label(self) -> str:
        """What tables call it."""
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
    An effect is significant if it exceeds two of its standard errors over samples. One sample has none,
    so there its sign decides. What would compare an effect that is not finite is None: too strong a vector
    takes a model to NaN.
    """

    effect: float
    native_effect: float | None
    fraction_of_native: float | None
    random_mean: float | None
    random_sd: float | None
    beats_random: bool | None
    beats_shuffled: bool | None
    negation_reverses: bool | None


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Result, Plotted):
    """What a vector does to a model, beside its controls.

    Attributes
    ----------
    outcomes : tuple of Outcome
        The transferred vector, its negation, the native vector and its negation, random and shuffled vectors.
    unsteered : dict of str to ndarray of float64, shape (n,)
        The unsteered score of each sample, by quantity.
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
        main = [o for o in self.outcomes if o.kind not in ("random", "shuffled")]
        found = ", ".join(f"{outcome.name} {outcome.effect.mean:+.4f}" for outcome in main)
        return f"Evaluation({next(iter(self.unsteered))} of {self.samples} samples: {found})"

    def __getitem__(self, name: str) -> Outcome:
        """Return an outcome by its name."""
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        names = ", ".join(repr(outcome.name) for outcome in self.outcomes)
        raise InputError(f"no outcome is named {name!r}; there are {names}")

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
        """Return what the effects on a quantity say; on the score's first by default.

        Raises
        ------
        InputError
            If there is no such quantity.
        """
        if quantity is not None and quantity not in self.unsteered:
            raise InputError(f"no quantity is named {quantity!r}; there are {', '.join(self.unsteered)}")
        chosen = quantity or next(iter(self.unsteered))
        (transferred,), (negated,) = (
            self._effects("transferred", chosen),
            self._effects("transferred_negated", chosen),
        )
        native = next(iter(self._effects("native", chosen)), None)
        random, shuffled = (
            [effect.mean for effect in self._effects(kind, chosen)] for kind in ("random", "shuffled")
        )
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

    def _effects(self, kind: Kind, quantity: str) -> list[Effect]:
        return [outcome.effects[quantity] for outcome in self.of_kind(kind)]

    def tables(self) -> list[Block]:
        """Return the effects and side effects, and the checks."""
        from embgeom.evaluation.tables import evaluation_tables

        return evaluation_tables(self)

    def figure(self) -> Any:
        """Draw each vector's effect with its standard error, beside the cloud of random vectors."""
        from embgeom.evaluation.figures import draw_evaluation

        return draw_evaluation(self)

    def _derived(self) -> dict[str, Any]:
        return {"checks": {quantity: asdict(self.checks(quantity)) for quantity in self.unsteered}}


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of values; NaN for one, or if one is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _finite(*effects: float) -> bool:
    return bool(np.isfinite(effects).all())
