"""Where and how strongly to steer: chosen on one half of the samples, reported on the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import real_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.result import Columns, Plotted, Result, Tabular, new_figure
from embgeom._common.tables import Block
from embgeom.errors import InputError
from embgeom.evaluation.conditions import (
    Condition,
    Kind,
    at_layers,
    check_control,
    check_vectors,
    for_layers_of,
)
from embgeom.evaluation.evaluate import evaluate
from embgeom.evaluation.evaluation import COLORS, Evaluation
from embgeom.evaluation.outcome import (
    Outcome,
    deviation,
    effects_table,
    in_unit,
    named_layers,
    outcome_columns,
    search_lines,
)
from embgeom.evaluation.run import EvaluateOptions, EvaluationRun, as_texts, check_score, distinct_samples
from embgeom.evaluation.scores import Score
from embgeom.lm.layers import layer_numbers
from embgeom.steering.vector import SteeringVector

FEWEST_SAMPLES = 4
SCALES = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class SweepOptions(EvaluateOptions):
    """How vectors are evaluated, see `EvaluateOptions`, and which settings may be chosen.

    Attributes
    ----------
    max_kl : float or None
        Choose only among settings whose KL(unsteered || steered) on neutral text is this at most, in nats
        for each token.
    """

    max_kl: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_kl is not None and not real_number(self.max_kl, "max_kl") >= 0:
            raise InputError(f"max_kl = {self.max_kl} must be 0 at least")


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result, Tabular, Plotted):
    """Effects and side effects over layers and scales, and what the best setting does on other samples.

    Attributes
    ----------
    grid : tuple of Outcome
        Every setting, on the samples for the choice.
    chosen : Outcome or None
        The setting with the largest mean effect of those within the limit, upwards, or in either direction
        for vectors that are not added; None if there is none.
    held_out : Evaluation or None
        The chosen setting on the other samples, with all controls. An effect on the samples that it was
        chosen on is too large; this is the one to report.
    max_kl : float or None
        The limit on the side effects.
    choice_samples, held_out_samples : ndarray of int64
        Which samples served for the choice and which for the report.
    unsteered : dict of str to ndarray of float64
        Unsteered scores of the samples for the choice, by quantity.
    unsteered_perplexity : float or None
        On the neutral texts; None without them.
    provenance : dict
        Model, vectors, score, options and versions, ready for JSON.
    """

    grid: tuple[Outcome, ...]
    chosen: Outcome | None
    held_out: Evaluation | None
    max_kl: float | None
    choice_samples: npt.NDArray[np.int64]
    held_out_samples: npt.NDArray[np.int64]
    unsteered: dict[str, npt.NDArray[np.float64]]
    unsteered_perplexity: float | None
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        if self.chosen is None or self.held_out is None:
            return f"Sweep({len(self.grid)} settings, none within the limit)"
        return f"Sweep({len(self.grid)} settings, best {self.chosen.label}, held out: {self.held_out!r})"

    @property
    def at_kl(self) -> float | None:
        """The KL on neutral text at which the settings are compared; None where scales are tried."""
        found: float | None = self.provenance.get("options", {}).get("at_kl")
        return found

    def tables(self) -> list[Block]:
        """Return the grid, the choice and the held-out evaluation."""
        limit = "" if self.max_kl is None else f" with KL at most {self.max_kl:g}"
        count = len(self.choice_samples)
        title = (
            f"mean effects over {count} samples for the choice, steered minus unsteered (± standard error)"
        )
        table = effects_table(title, "setting", [(outcome.label, [outcome]) for outcome in self.grid])
        grid: list[Block] = [table, *search_lines(((o.label, o) for o in self.grid), self.at_kl)]
        if self.at_kl is not None:
            limit = f" at KL {self.at_kl:g}"
        if self.chosen is None or self.held_out is None:
            return [*grid, f"no setting has a defined effect{limit}"]
        either = ", up or down" if self.held_out.checks().two_sided else ""
        choice = f"largest effect{either}{limit}: {self.chosen.label}; on the other samples:"
        return [*grid, choice, *self.held_out.tables()]

    def columns(self) -> Columns:
        """Return a row for each setting."""
        return outcome_columns(self.grid)

    def _derived(self) -> dict[str, Any]:
        # The checks of the held-out prompts: an evaluation within a result is written without its own.
        return self.held_out._derived() if self.held_out else {"checks": None}

    def figure(self) -> Any:
        """Draw effects and KL against the scale for each layer, and controls of the chosen setting."""
        if self.at_kl is not None:
            return self._over_layers()
        with_kl = self.unsteered_perplexity is not None
        figure = new_figure(6.4, 5.6 if with_kl else 3.6)
        panels = figure.subplots(2 if with_kl else 1, sharex=True, squeeze=False)[:, 0]
        for layers in dict.fromkeys(outcome.layers for outcome in self.grid):
            line = sorted((o for o in self.grid if o.layers == layers), key=lambda outcome: outcome.scale)
            scales = [outcome.scale for outcome in line]
            errors = np.nan_to_num([outcome.effect.standard_error for outcome in line])
            label = named_layers(layers, "+")
            means = [outcome.effect.mean for outcome in line]
            panels[0].errorbar(scales, means, yerr=errors, marker="o", markersize=4, capsize=2, label=label)
            if with_kl:
                divergences = [
                    outcome.side_effects.kl if outcome.side_effects else np.nan for outcome in line
                ]
                panels[1].plot(scales, divergences, marker="o", markersize=4)
        panels[0].axhline(0, color="0.7", linewidth=0.8)
        panels[0].set_ylabel(f"effect on {in_unit(next(iter(self.unsteered)))}")
        if self.chosen is not None:
            best, ring = self.chosen, {"markersize": 11, "fillstyle": "none", "color": "black"}
            panels[0].plot(best.scale, best.effect.mean, "o", label="chosen", **ring)
            self._draw_controls(panels[0], best.scale)
        panels[0].legend(fontsize="small")
        if with_kl:
            panels[1].set_ylabel("KL on neutral text (nats)")
            if self.max_kl is not None:
                limit = {"color": "black", "linestyle": "--", "linewidth": 0.8}
                panels[1].axhline(self.max_kl, label="KL limit", **limit)
                panels[1].legend(fontsize="small")
        panels[-1].set_xlabel("scale")
        return figure

    def _over_layers(self) -> Any:
        """Draw the effect at equal KL against the layers."""
        figure = new_figure(6.4, 3.6)
        axes = figure.subplots()
        axes.axhline(0, color="0.7", linewidth=0.8)
        shown = [outcome for outcome in self.grid if outcome.comparable]
        errors = np.nan_to_num([outcome.effect.standard_error for outcome in shown])
        at = np.arange(len(shown))
        axes.errorbar(at, [outcome.effect.mean for outcome in shown], yerr=errors, fmt="o", capsize=2)
        if self.chosen is not None:
            ring = {"markersize": 11, "fillstyle": "none", "color": "black", "label": "chosen"}
            index = [outcome.name for outcome in shown].index(self.chosen.name)
            axes.plot(index, self.chosen.effect.mean, "o", **ring)
            self._draw_controls(axes, index)
            axes.legend(fontsize="small")
        axes.set_xticks(at, ["+".join(map(str, outcome.layers)) for outcome in shown])
        axes.set_xlabel(f"layers, each at KL {self.at_kl:g} on neutral text")
        axes.set_ylabel(f"effect on {in_unit(next(iter(self.unsteered)))}")
        return figure

    def _draw_controls(self, axes: Any, at: float) -> None:
        """Draw the controls of the chosen setting, and say in the title which were not measured."""
        missing = []
        markers: dict[Kind, str] = {"native": "D", "random": "s", "shuffled": "^"}
        for kind, marker in markers.items():
            outcomes = self.held_out.of_kind(kind) if self.held_out is not None else ()
            effects = [outcome.effect for outcome in outcomes if outcome.comparable]
            if not effects:
                missing.append(kind)
                continue
            means = [effect.mean for effect in effects]
            native = kind == "native"
            spread = effects[0].standard_error if native else deviation(means)
            label = "native ± standard error" if native else f"{len(means)} {kind}, mean ± sd"
            look: Any = {"fmt": marker, "color": COLORS[kind], "capsize": 4, "label": label}
            axes.errorbar(at, np.mean(means), yerr=np.nan_to_num(spread), **look)
        said = "controls of the chosen setting, on the other samples" if len(missing) < 3 else ""
        lacking = f"not measured: {', '.join(missing)} vectors" if missing else ""
        axes.set_title("; ".join(filter(None, (said, lacking))), fontsize="small")


def sweep(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    score: Score,
    prompts: Iterable[Any],
    *,
    layers: Iterable[int | Iterable[int]] | None = None,
    scales: Iterable[float] | None = None,
    native: SteeringVector | None = None,
    shuffled: SteeringVector | Sequence[SteeringVector] | None = None,
    neutral: Iterable[str] | None = None,
    options: SweepOptions | None = None,
    progress: Progress = False,
) -> Sweep:
    """Try layers and scales, choose the best on one half of the samples, and evaluate it on the other half.

    Parameters
    ----------
    model, tokenizer, vector, score, prompts
        As for `evaluate`. Four samples at least.
    layers : iterable of int or of iterables of int, optional
        What to steer in turn: a layer, or several together. Each layer of the vector alone by default. A
        single direction may be put at others.
    scales : iterable of float, optional
        The factors to try; 0.5, 1, 2 and 4 by default. With ``at_kl`` none: the scale of each setting is
        searched. The best setting is that with the largest mean effect upwards; of a vector that is not
        added, which may be to lower the score, that with the largest in either direction.
    native, shuffled
        As for `evaluate`: controls of the chosen setting on the held-out samples. With `native`, but without
        ``at_kl``, the vector is scaled to its norm first, layer by layer.
    neutral : iterable of str, optional
        Texts on which the side effects of every setting are measured, and those of the chosen one again:
        unlike its effect, they are not measured on texts that had no say in the choice.
    options : SweepOptions, optional
        As for `evaluate`, and the limit on the side effects; the seed also draws the halves.
    progress : bool or callable
        As for `evaluate`.

    Returns
    -------
    Sweep
        The grid, the choice, and its held-out evaluation.

    Raises
    ------
    InputError
        As `evaluate`; or if there are fewer than four samples, no layers or scales, `max_kl` without
        `neutral`, or ``at_kl`` together with `scales` or `max_kl`.

    Notes
    -----
    A pass over half of the samples and one over the neutral texts for each setting, and `evaluate` of one.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import SweepOptions, WordLogRatio, sweep
    >>> from embgeom.steering import load_language_model
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = load_language_model(folder)
    >>> vector = 20 * embgeom.SteeringVector.from_words(folder, [" happy"], layers=(2, 3))
    >>> prompts = ["The girl was", "He felt very", "The dog was so", "They were all"]
    >>> mood, options = WordLogRatio([" happy"], [" sad"]), SweepOptions(random=3)
    >>> found = sweep(model, tokenizer, vector, mood, prompts, scales=(0.1, 1), options=options)
    >>> found.chosen.label, found.held_out.samples
    ('layer 3, scale 1', 2)
    """
    options = options or SweepOptions()
    check_score(score)
    texts, limit = as_texts(neutral, options.at_kl), options.max_kl
    if limit is not None and texts is None:
        raise InputError(
            f"max_kl = {limit} limits the side effects on neutral text; give some with neutral=[...]"
        )
    (vector,) = check_vectors([vector], "vector")
    native = None if native is None else check_vectors([native], "native")[0]
    others = check_vectors(shuffled, "shuffled")
    if options.at_kl is not None and (scales is not None or limit is not None):
        raise InputError(f"at_kl = {options.at_kl} says how strongly to steer: leave scales and max_kl out")
    if scales is None and options.at_kl is None:
        scales = SCALES
    for i, other in enumerate(others):
        check_control(vector, other, f"shuffled {i}")
    conditions = _grid(vector, native, layers, scales)
    # The controls of the chosen setting come at the end; what does not fit is reported now.
    for condition in conditions:
        for other in others:
            for_layers_of(condition.vector, at_layers(other, condition.vector.layers), "shuffled")
    samples = distinct_samples(score, prompts)
    choice, rest = _halves(len(samples), options.seed)
    with reporter(progress, "sweep") as report:
        # What the many settings write nobody would read; the chosen one is asked below.
        run = EvaluationRun(model, tokenizer, score, texts, replace(options, continuations=()), report)
        unsteered, perplexity, grid, _ = run.measure(conditions, [samples[i] for i in choice])
    chosen = _best(grid, limit, two_sided=vector.operation != "add")
    held_out = None
    if chosen is not None:
        held_out = evaluate(
            model,
            tokenizer,
            vector,
            score,
            [samples[i] for i in rest],
            scale=chosen.scale,
            layers=chosen.layers,
            native=native,
            shuffled=others,
            neutral=texts,
            options=options,
            progress=progress,
        )
    settings = {
        "layers": sorted({condition.vector.layers for condition in conditions}),
        "scales": sorted({outcome.scale for outcome in grid}),
        "max_kl": limit,
    }
    given = {"vector": vector, "native": native, "shuffled": others}
    provenance = run.describe(given, samples, settings)
    return Sweep(grid, chosen, held_out, limit, choice, rest, unsteered, perplexity, provenance)


def _grid(
    vector: SteeringVector,
    native: SteeringVector | None,
    layers: Iterable[int | Iterable[int]] | None,
    scales: Iterable[float] | None,
) -> list[Condition]:
    """Return a condition for each setting; one for each entry of layers where scales are searched."""
    if native is not None and layers is None:
        native = for_layers_of(vector, native, "native")
    wanted = [layer_numbers(entry) for entry in (vector.layers if layers is None else layers)]
    factors = [real_number(scale, "scale") for scale in ([1.0] if scales is None else scales)]
    if not wanted or not factors:
        raise InputError("there is nothing to try: layers and scales need one entry each at least")
    if not np.isfinite(factors).all():
        raise InputError(f"scales = {factors} must be finite")
    conditions = []
    for together in wanted:
        part = at_layers(vector, together)
        if native is not None:
            equal = for_layers_of(part, at_layers(native, together), "native")
            # A scale that is searched is that of the vector as it was given.
            part = part if scales is None else part.with_norm(equal)
        name = "+".join(map(str, part.layers))
        conditions += [
            Condition(
                f"layer_{name}" if scales is None else f"layer_{name}_scale_{factor:g}",
                "setting",
                part,
                factor,
            )
            for factor in factors
        ]
    return conditions


def _halves(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the samples for the choice and those for the report; of an odd number the latter has more."""
    if count < FEWEST_SAMPLES:
        raise InputError(f"a sweep needs {FEWEST_SAMPLES} samples at least, two for each half, not {count}")
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _best(grid: Sequence[Outcome], limit: float | None, two_sided: bool) -> Outcome | None:
    allowed = [
        outcome
        for outcome in grid
        if np.isfinite(outcome.effect.mean)
        and outcome.comparable
        and (limit is None or (outcome.side_effects is not None and outcome.side_effects.kl <= limit))
    ]
    size: Callable[[float], float] = abs if two_sided else float
    return max(allowed, key=lambda outcome: size(outcome.effect.mean), default=None)
