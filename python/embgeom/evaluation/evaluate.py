"""Whether a vector steers: its effect beside every control that could explain it away."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.checks import check_seed, real_number, whole_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest
from embgeom.errors import InputError
from embgeom.evaluation.conditions import (
    Positions,
    at_layers,
    check_positions,
    check_vectors,
    with_controls,
)
from embgeom.evaluation.describing import describe_run, describe_vector
from embgeom.evaluation.outcomes import Evaluation
from embgeom.evaluation.run import EvaluationRun, as_texts
from embgeom.evaluation.scores import Score, check_score

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector


def evaluate(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    score: Score,
    prompts: Iterable[Any],
    *,
    scale: float = 1.0,
    layers: int | Iterable[int] | None = None,
    native: SteeringVector | None = None,
    random: int = 20,
    shuffled: SteeringVector | Sequence[SteeringVector] | None = None,
    neutral: Iterable[str] | None = None,
    positions: Positions = "all",
    layer_modules: Any = None,
    seed: int = 0,
    batch_size: int = 8,
    progress: Progress = False,
) -> Evaluation:
    """Measure what a steering vector does to a model, beside its controls.

    Controls: the model unsteered, the vector negated, the target's native vector and its negation, random
    vectors, and vectors transferred by a map fitted on shuffled tokens. All have the same norm in each layer.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model. It is left as it was.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    vector : SteeringVector
        The vector in question, in tables "transferred".
    score : Score
        What it is to raise: `AnswerProbability`, `WordLogRatio`, `GenerationScore`, or a score of your own.
    prompts : iterable
        Prompts or items, as the score takes them.
    scale : float
        The factor for all vectors. With a negative one the score is to fall.
    layers : int or iterable of int, optional
        The layers to steer; all that the vector has by default. A single direction may be put at others.
    native : SteeringVector, optional
        The model's native vector for the same thing, the ceiling. The transferred vector is then scaled to
        its norm, layer by layer; without it the transferred vector keeps its norm.
    random : int
        How many random vectors to try.
    shuffled : SteeringVector or sequence of them, optional
        The same source vector, transferred by maps fitted on shuffled tokens.
    neutral : iterable of str, optional
        Texts that have nothing to do with the score, on which the side effects are measured.
    positions : {"all", "generated"}
        Where the vectors act while the score is taken, see `SteeringVector.apply`. Neutral text is steered
        at all positions in any case.
    layer_modules : str or torch.nn.ModuleList, optional
        The model's layers, where they are not found by themselves.
    seed : int
        Seed of random vectors and of texts that are drawn.
    batch_size : int
        Texts for each forward pass.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    Evaluation
        Effects, side effects and checks; ``summary()``, ``save(path)``, ``figure(path)``.

    Raises
    ------
    InputError
        If there are no samples, one is too long for the model, an option is out of range, vectors do not
        fit the model or each other, the unsteered model gives no finite numbers, or the model never runs a
        layer that is to be steered, or runs it past its hooks.

    Warns
    -----
    EmbgeomWarning
        If the model leaves out such a layer now and then; or if texts hold the token for their beginning, to
        which the tokenizer adds it once more.

    Notes
    -----
    A pass over the samples and over the neutral texts for each vector, and one without any: the transferred
    vector and its negation, `native` and its negation, the `random` and the shuffled ones. Memory on neutral
    text: the logits of two batches in the model's dtype, 2 x batch x length x vocabulary numbers. Batches are
    padded so that no text sees another; a larger batch changes numbers by rounding only.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import WordLogRatio, evaluate
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = (a.from_pretrained(folder) for a in (AutoModelForCausalLM, AutoTokenizer))
    >>> unembedding = embgeom.load(folder, "output")
    >>> happy = unembedding.matrix[unembedding.row_of(" happy")]
    >>> vector = embgeom.SteeringVector({3: 20 * happy}, model="example:small")
    >>> mood = WordLogRatio([" happy"], [" sad"])
    >>> found = evaluate(model, tokenizer, vector, mood, ["The girl was", "He felt very"], random=5)
    >>> found.checks().beats_random, found.checks().negation_reverses
    (True, True)
    """
    factor = real_number(scale, "scale")
    if not np.isfinite(factor):
        raise InputError(f"scale = {factor} is not finite; give a finite number")
    size = whole_number(batch_size, "batch_size", 1)
    check_score(score)
    check_positions(positions)
    others = [
        at_layers(other, layers) for other in check_vectors(() if shuffled is None else shuffled, "shuffled")
    ]
    (vector,) = check_vectors(vector, "vector")
    vector = at_layers(vector, layers)
    if native is not None:
        (native,) = check_vectors(native, "native")
        native = at_layers(native, layers)
    conditions = with_controls(
        vector,
        scale=factor,
        native=native,
        random=whole_number(random, "random", 0),
        shuffled=others,
        seed=check_seed(seed),
    )
    samples, texts = score.samples(prompts), as_texts(neutral)
    with reporter(progress, "evaluate") as report:
        run = EvaluationRun(model, tokenizer, score, texts, positions, layer_modules, size, seed, report)
        unsteered, perplexity, outcomes = run.measure(conditions, samples)
    provenance = describe_run(
        model,
        {
            "vector": describe_vector(vector),
            "native": None if native is None else describe_vector(native),
            "shuffled": [describe_vector(other) for other in others],
        },
        score,
        {
            "scale": factor,
            "layers": list(vector.layers),
            "norms": conditions[0].vector.norms,
            "random": random,
            "positions": positions,
            "seed": seed,
            "batch_size": batch_size,
            "samples": len(samples),
            "samples_sha256": digest(samples),
            "neutral_texts": texts and len(texts),
            "neutral_sha256": texts and digest(texts),
        },
    )
    return Evaluation(outcomes, unsteered, perplexity, provenance)
