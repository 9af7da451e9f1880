"""`evaluate`: does a vector steer? Its effect, compared with every control that could explain it away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embgeom._common.checks import real_number
from embgeom._common.progress import Progress, reporter
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Condition, at_layers, check_vectors, with_controls
from embgeom.evaluation.evaluation import Evaluation
from embgeom.evaluation.run import EvaluateOptions, EvaluationRun, as_texts, check_score, distinct_samples
from embgeom.evaluation.scores import Score
from embgeom.steering.vector import SteeringVector


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
    shuffled: SteeringVector | Sequence[SteeringVector] | None = None,
    neutral: Iterable[str] | None = None,
    options: EvaluateOptions | None = None,
    progress: Progress = False,
) -> Evaluation:
    """Measure what a steering vector does to a model, compared with its controls.

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
        Prompts or questions, as the score takes them.
    scale : float
        The factor for all vectors. With a negative one the score is to fall. With ``at_kl`` only its sign
        counts.
    layers : int or iterable of int, optional
        The layers to steer; all that the vector has by default. A single direction may be put at others.
    native : SteeringVector, optional
        The model's native vector for the same thing, to compare with: another vector may have more effect.
        The transferred vector, if it is added, is then scaled to its norm, layer by layer; without it, and
        with ``at_kl``, the transferred vector keeps its norm.
    shuffled : SteeringVector or sequence of them, optional
        The same source vector, transferred by maps fitted on shuffled tokens: what such a map makes of it.
        Each differs from the next as random vectors do, so give ten, each of another seed; with fewer than
        three nothing is decided.
    neutral : iterable of str, optional
        Texts that have nothing to do with the score, on which the side effects are measured.
    options : EvaluateOptions, optional
        Random vectors, positions, seed and batch size; ``at_kl`` for a comparison at equal KL.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.

    Returns
    -------
    Evaluation
        Effects, side effects and checks; ``summary()``, ``save(path)``, ``plot(path)``.

    Raises
    ------
    InputError
        If there are no samples, one is too long for the model, an option is out of range, vectors do not
        fit the model or each other, two shuffled ones are one direction, one of them is the vector in
        question or by its provenance no control of it, the unsteered model gives no finite numbers, or the
        model never runs a layer that is to be steered, or runs it past its hooks; or ``at_kl`` is given
        without `neutral`.

    Warns
    -----
    EmbgeomWarning
        If the model leaves out such a layer now and then; if prompts are repeated, which are left out unless
        texts are drawn for each; or if texts hold the token for their beginning, to which the tokenizer adds
        it once more.

    Notes
    -----
    A pass over the samples and over the neutral texts for each vector, and one without any: the transferred
    vector and its negation, `native` and its negation, the random and the shuffled ones; vectors that are
    not added have no negation. The layers up to the
    first steered one run once for each batch (up to 1 GiB of their output is kept), unless a trial shows that
    the model does not allow for it; scores that run the model by other means than embgeom's run all layers.
    With ``at_kl`` about three passes over the neutral texts for each vector; let these be few and short: the
    unembedding of all their tokens is most of the work where the vocabulary is large. Memory on neutral text:
    about four times 256 MiB at most, unless one text alone needs more (12 bytes x length x vocabulary).
    The model's files of weights are hashed, some 2 GB/s, by which a certificate knows the model.
    Batches are padded so that no text sees another; a larger batch changes numbers by rounding only.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate
    >>> from embgeom.steering import load_language_model
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = load_language_model(folder)
    >>> vector = 20 * embgeom.SteeringVector.from_words(folder, [" happy"], layers=3)
    >>> mood, prompts = WordLogRatio([" happy"], [" sad"]), ["The girl was", "He felt very"]
    >>> found = evaluate(model, tokenizer, vector, mood, prompts, options=EvaluateOptions(random=5))
    >>> found.checks().beats_random, found.checks().negation_reverses
    (True, True)
    """
    options = options or EvaluateOptions()
    factor = real_number(scale, "scale")
    if not np.isfinite(factor):
        raise InputError(f"scale = {factor} is not finite; give a finite number")
    check_score(score)
    others = [at_layers(other, layers) for other in check_vectors(shuffled, "shuffled")]
    (vector,) = (at_layers(each, layers) for each in check_vectors([vector], "vector"))
    if native is not None:
        (native,) = (at_layers(each, layers) for each in check_vectors([native], "native"))
    conditions = with_controls(
        vector,
        scale=factor,
        native=native,
        random=options.random,
        shuffled=others,
        seed=options.seed,
        of_one_norm=options.at_kl is None,
    )
    samples, texts = distinct_samples(score, prompts), as_texts(neutral, options.at_kl)
    with reporter(progress, "evaluate") as report:
        run = EvaluationRun(model, tokenizer, score, texts, options, report)
        found = run.measure(conditions, samples)
    settings = {"scale": factor, "layers": list(vector.layers), "norms": conditions[0].vector.norms}
    given = {"vector": vector, "native": native, "shuffled": others}
    provenance = run.describe(given, samples, settings)
    return Evaluation(found.outcomes, found.unsteered, found.perplexity, provenance, found.continuations)


def measure_at_kl(
    model: Any,
    tokenizer: Any,
    score: Score,
    prompts: Iterable[Any],
    neutral: Iterable[str],
    vectors: Mapping[str, SteeringVector],
    at_kl: float,
    *,
    options: EvaluateOptions | None = None,
    progress: Progress = False,
) -> Evaluation:
    """Measure any number of vectors, each at the scale that has a given KL on neutral text.

    As `evaluate` with ``at_kl``, for vectors of your own choice instead of one with its controls.

    Parameters
    ----------
    model, tokenizer, score, prompts, neutral, progress
        As for `evaluate`.
    vectors : mapping of str to SteeringVector
        The vectors by name, each at all of its layers. Negate one to measure its negation.
    at_kl : float
        KL(unsteered || steered) for each token of the neutral texts, in nats; reached within 5 %.
    options : EvaluateOptions, optional
        As for `evaluate`; no random vectors are added.

    Returns
    -------
    Evaluation
        ``found[name]`` is what a vector did: its ``scale`` is the one that was found, and ``search`` says
        whether that has the KL. There are no checks, since no vector is the one in question.

    Raises
    ------
    InputError
        As `evaluate`.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import WordLogRatio, measure_at_kl
    >>> from embgeom.steering import load_language_model
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = load_language_model(folder)
    >>> happy = embgeom.SteeringVector.from_words(folder, [" happy"], layers=3)
    >>> mood, prompts = WordLogRatio([" happy"], [" sad"]), ["The girl was", "He felt very"]
    >>> neutral, vectors = ["The river runs down to the sea."], {"happy": happy, "not happy": -happy}
    >>> found = measure_at_kl(model, tokenizer, mood, prompts, neutral, vectors, 0.2)
    >>> abs(found["happy"].side_effects.kl - 0.2) < 0.01, found["happy"].effect.mean > 0
    (True, True)
    """
    options = replace(options or EvaluateOptions(), at_kl=at_kl, random=0)
    check_score(score)
    if not vectors:
        raise InputError("vectors is empty; name one at least")
    conditions = [
        Condition(str(name), "named", each, 1.0)
        for name, vector in vectors.items()
        for each in check_vectors([vector], str(name))
    ]
    samples, texts = distinct_samples(score, prompts), as_texts(neutral, at_kl)
    with reporter(progress, "evaluate") as report:
        run = EvaluationRun(model, tokenizer, score, texts, options, report)
        found = run.measure(conditions, samples)
    provenance = run.describe({"vectors": vectors}, samples, {})
    return Evaluation(found.outcomes, found.unsteered, found.perplexity, provenance, found.continuations)
