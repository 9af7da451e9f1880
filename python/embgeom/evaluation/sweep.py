"""Where and how strongly to steer: chosen on one half of the samples, reported on the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import check_seed, real_number, whole_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest
from embgeom._common.result import Plotted, Result
from embgeom._common.tables import Block
from embgeom.errors import InputError
from embgeom.evaluation.conditions import (
    Condition,
    Positions,
    at_layers,
    check_positions,
    check_vectors,
    fitting,
)
from embgeom.evaluation.describing import describe_run, describe_vector
from embgeom.evaluation.evaluate import evaluate
from embgeom.evaluation.outcomes import Evaluation, Outcome
from embgeom.evaluation.run import EvaluationRun, as_texts
from embgeom.evaluation.scores import Score, check_score
from embgeom.lm.layers import layer_numbers

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector

FEWEST_SAMPLES = 4
SCALES = (0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Result, Plotted):
    """Effects and side effects over layers and scales, and what the best setting does on other samples.

    Attributes
    ----------
    grid : tuple of Outcome
        Every setting, on the samples for the choice.
    chosen : Outcome or None
        The setting with the largest mean effect of those within the limit; None if there is none.
    held_out : Evaluation or None
        The chosen setting on the other samples, beside all controls. An effect on the samples that it was
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
        return f"Sweep({len(self.grid)} settings, best {self.chosen.name}, held out: {self.held_out!r})"

    def tables(self) -> list[Block]:
        """Return the grid, the choice and the held-out evaluation."""
        from embgeom.evaluation.tables import sweep_tables

        return sweep_tables(self)

    def figure(self) -> Any:
        """Draw the effect against the scale for each layer and, with neutral texts, the divergence."""
        from embgeom.evaluation.figures import draw_sweep

        return draw_sweep(self)


def sweep(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    score: Score,
    prompts: Iterable[Any],
    *,
    layers: Iterable[int | Iterable[int]] | None = None,
    scales: Iterable[float] = SCALES,
    native: SteeringVector | None = None,
    random: int = 20,
    shuffled: SteeringVector | Sequence[SteeringVector] | None = None,
    neutral: Iterable[str] | None = None,
    max_kl: float | None = None,
    positions: Positions = "all",
    layer_modules: Any = None,
    seed: int = 0,
    batch_size: int = 8,
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
    scales : iterable of float
        The factors to try. The best setting is that with the largest mean effect upwards.
    native, random, shuffled
        As for `evaluate`: controls of the chosen setting on the held-out samples. With `native` the vector is
        scaled to its norm first, layer by layer.
    neutral : iterable of str, optional
        Texts on which the side effects of every setting are measured, and those of the chosen one again:
        unlike its effect, they are not measured on texts that had no say in the choice.
    max_kl : float, optional
        Choose only among settings whose KL(unsteered || steered) on neutral text is this at most, in nats
        for each token.
    positions, layer_modules, seed, batch_size, progress
        As for `evaluate`; the seed also draws the halves.

    Returns
    -------
    Sweep
        The grid, the choice, and its held-out evaluation.

    Raises
    ------
    InputError
        As `evaluate`; or if there are fewer than four samples, no layers or scales, or `max_kl` without
        `neutral`.

    Notes
    -----
    A pass over half of the samples and one over the neutral texts for each setting, and `evaluate` of one.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import WordLogRatio, sweep
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = (a.from_pretrained(folder) for a in (AutoModelForCausalLM, AutoTokenizer))
    >>> unembedding = embgeom.load(folder, "output")
    >>> happy = unembedding.matrix[unembedding.row_of(" happy")]
    >>> vector = embgeom.SteeringVector({2: 20 * happy, 3: 20 * happy}, model="example:small")
    >>> prompts = ["The girl was", "He felt very", "The dog was so", "They were all"]
    >>> mood = WordLogRatio([" happy"], [" sad"])
    >>> found = sweep(model, tokenizer, vector, mood, prompts, scales=(0.1, 1), random=3)
    >>> found.chosen.name, found.held_out.samples
    ('layer 3, scale 1', 2)
    """
    check_score(score)
    check_positions(positions)
    size = whole_number(batch_size, "batch_size", 1)
    limit, texts = _limit(max_kl, neutral), as_texts(neutral)
    (vector,) = check_vectors(vector, "vector")
    native = None if native is None else check_vectors(native, "native")[0]
    others = check_vectors(() if shuffled is None else shuffled, "shuffled")
    conditions = _grid(vector, native, layers, scales)
    whole_number(random, "random", 0)
    # The controls of the chosen setting come at the end; what does not fit is to be told now.
    for condition in conditions:
        for other in others:
            fitting(at_layers(other, condition.vector.layers), condition.vector, "shuffled")
    score_samples = score.samples(prompts)
    choice, rest = _halves(len(score_samples), check_seed(seed))
    with reporter(progress, "sweep") as report:
        run = EvaluationRun(model, tokenizer, score, texts, positions, layer_modules, size, seed, report)
        unsteered, perplexity, grid = run.measure(conditions, [score_samples[place] for place in choice])
    chosen = _best(grid, limit)
    held_out = (
        None
        if chosen is None
        else evaluate(
            model,
            tokenizer,
            vector,
            score,
            [score_samples[place] for place in rest],
            scale=chosen.scale,
            layers=chosen.layers,
            native=native,
            random=random,
            shuffled=others,
            neutral=texts,
            positions=positions,
            layer_modules=layer_modules,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
    )
    provenance = describe_run(
        model,
        {
            "vector": describe_vector(vector),
            "native": None if native is None else describe_vector(native),
            "shuffled": [describe_vector(other) for other in others],
        },
        score,
        {
            "layers": sorted({condition.vector.layers for condition in conditions}),
            "scales": sorted({condition.scale for condition in conditions}),
            "max_kl": limit,
            "random": random,
            "positions": positions,
            "seed": seed,
            "batch_size": batch_size,
            "samples": len(score_samples),
            "samples_sha256": digest(score_samples),
            "neutral_texts": texts and len(texts),
            "neutral_sha256": texts and digest(texts),
        },
    )
    return Sweep(grid, chosen, held_out, limit, choice, rest, unsteered, perplexity, provenance)


def _limit(max_kl: float | None, neutral: Iterable[str] | None) -> float | None:
    if max_kl is None:
        return None
    if neutral is None:
        raise InputError(
            f"max_kl = {max_kl} limits the side effects on neutral text; give some with neutral=[...]"
        )
    if not real_number(max_kl, "max_kl") >= 0:
        raise InputError(f"max_kl = {max_kl} must be 0 at least")
    return float(max_kl)


def _grid(
    vector: SteeringVector,
    native: SteeringVector | None,
    layers: Iterable[int | Iterable[int]] | None,
    scales: Iterable[float],
) -> list[Condition]:
    """Return a condition for each setting."""
    if native is not None and layers is None:
        native = fitting(native, vector, "native")
    wanted = [layer_numbers(entry) for entry in (vector.layers if layers is None else layers)]
    factors = [real_number(scale, "scale") for scale in scales]
    if not wanted or not factors:
        raise InputError("there is nothing to try: layers and scales need one entry each at least")
    if not np.isfinite(factors).all():
        raise InputError(f"scales = {factors} must be finite")
    conditions = []
    for together in wanted:
        part = at_layers(vector, together)
        if native is not None:
            part = part.with_norm(fitting(at_layers(native, together), part, "native"))
        where = f"layer{'s' if len(together) > 1 else ''} {'+'.join(map(str, part.layers))}"
        conditions += [
            Condition(f"{where}, scale {factor:g}", "setting", part, factor, 1) for factor in factors
        ]
    return conditions


def _halves(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the samples for the choice and those for the report; of an odd number the latter has more."""
    if count < FEWEST_SAMPLES:
        raise InputError(f"a sweep needs {FEWEST_SAMPLES} samples at least, two for each half, not {count}")
    order = np.random.default_rng(seed).permutation(count).astype(np.int64)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def _best(grid: Sequence[Outcome], limit: float | None) -> Outcome | None:
    """Return the setting with the largest effect within the limit; what is undefined is not within it."""
    allowed = [
        outcome
        for outcome in grid
        if np.isfinite(outcome.effect.mean)
        and (limit is None or (outcome.side_effects is not None and outcome.side_effects.kl <= limit))
    ]
    return max(allowed, key=lambda outcome: outcome.effect.mean, default=None)
