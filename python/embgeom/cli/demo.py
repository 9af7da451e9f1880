"""The demonstration: what the two bundled models share, explained to newcomers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

import embgeom
from embgeom import examples
from embgeom._common.checks import need
from embgeom._common.progress import Progress
from embgeom._common.tables import Table
from embgeom.cli.options import add_command
from embgeom.cli.terminal import show
from embgeom.comparison import Comparison, Statistic
from embgeom.comparison.saving import shown
from embgeom.comparison.statistic import null_text
from embgeom.errors import InputError
from embgeom.evaluation import EvaluateOptions, WordLogRatio
from embgeom.examples import moods
from embgeom.steering import load_language_model

WORDS = (" king", " two", " red", " walked")
NEIGHBORS_SHOWN = 3
CLUSTERS_SHOWN = 4
# Where the vector is read in the small model and added in the large one: halfway up in either.
SOURCE_LAYER, TARGET_LAYER = 1, 2
SCALE = 8.0
PROMPTS, CONTROLS = 20, 10


def add_commands(commands: Any) -> None:
    add_command(commands, demo)


def demo(options: argparse.Namespace) -> None:
    """Compare the two models that come with embgeom, in a few seconds."""
    show(demonstrate(threads=options.threads, progress=options.progress))


def demonstrate(*, threads: int | None = None, progress: Progress = False) -> list[RenderableType]:
    """Compare the bundled models without their rare tokens, in tables and texts that explain the results."""
    # By their folders: a file here may have the name of an example.
    models = [
        replace(embgeom.load(folder, threads=threads), name=examples.PREFIX + folder.name)
        for folder in examples.pair()
    ]
    records = [examples.record(folder) for folder in examples.pair()]
    comparison = embgeom.compare(
        *map(examples.without_rare_tokens, models), without=(), threads=threads, progress=progress
    )
    return [*_introduction(comparison, records), *_geometry(comparison), *steering(threads), *_next_steps()]


def _introduction(comparison: Comparison, records: list[dict[str, Any]]) -> Iterator[RenderableType]:
    rows = []
    for model, record in zip((comparison.a, comparison.b), records, strict=True):
        architecture = f"{record['model']['architecture']}, {record['model']['blocks']} layers"
        parameters = f"{record['parameters'] / 1e6:.1f} million"
        rows.append((model.name, architecture, parameters, "{} tokens x {}".format(*model.shape)))
    yield Table(
        "Two language models, trained apart: what do their token embeddings share?",
        ("model", "architecture", "parameters", "embeddings"),
        rows,
    )
    yield _prose(
        "Both learned to continue the same stories and books, from different random initializations. An "
        "embedding is the vector by which a model represents a token, which is a word or a part of one. The "
        "dimensions of two models have nothing to do with each other, but the relative positions of tokens "
        f"can be compared. This is done over the {len(comparison.match):,} tokens that occur more than 50 "
        "times in the training text; rarer ones are undertrained."
    )
    yield _prose(
        "Every number comes with half the width of its 95 % interval, and with two null baselines, mean ± "
        "standard deviation: the same statistic with the tokens of one model relabeled at random (null), and "
        "with tokens relabeled only among those of like spelling, frequency and length (null in strata)."
    )


def _geometry(comparison: Comparison) -> Iterator[RenderableType]:
    n, options, a, b = len(comparison.match), comparison.options, comparison.a, comparison.b
    yield from _answer(
        comparison["global_similarity_centered"],
        "1. Global geometry: do tokens point in the same directions?",
        f"For each of the {n * (n - 1) // 2:,} pairs of the {n:,} shared tokens, take the cosine similarity "
        "in each model after subtracting the mean embedding, and correlate the cosines of the two models.",
        "1 means that all angles agree; 0, that they are unrelated.",
    )
    k = options.k
    yield from _answer(
        comparison["neighbor_overlap"],
        "2. Local geometry: do tokens have the same neighbors?",
        f"For each token, take its {k} nearest neighbors in each model, and count how many are in both.",
        f"1 means all of them; {k} random ones of {n - 1:,} would give {k / (n - 1):.4f}.",
    )
    spelled = [a.token_bytes[row] for row in comparison.match.ids_a]
    positions = [(word, spelled.index(word.encode())) for word in WORDS]
    yield Table(
        "the nearest neighbors of some words",
        ("token", f"in {a.name}", f"in {b.name}"),
        ((repr(word), *(_nearest(comparison, side, i) for side in "ab")) for word, i in positions),
    )
    yield from _answer(
        comparison["weight_cosine"],
        "3. Local geometry: do neighbors make up a token in the same way?",
        f"Approximate each token as closely as possible by a weighted sum of its {k} nearest neighbors, with "
        "weights that add up to 1 (locally linear embedding, LLE). Take the cosine between a token's weights "
        "in the two models, and average over all tokens.",
        "1 means the same neighbors with the same weights; 0, no neighbor in common.",
    )
    yield from _answer(
        comparison["dimension_spearman"],
        "4. Intrinsic dimension: are the same tokens' neighborhoods simple?",
        f"Count the principal components that explain {options.variance:.0%} of the variance of a token's "
        f"{options.dimension_k} nearest neighbors: few where these vary along few directions. "
        "Rank the tokens by it, and correlate the ranks of the two models.",
        "1 means the same order of tokens in both models; 0, no relation.",
    )
    dimension = comparison.local_a.dimension
    lowest = np.argsort(dimension.n_components, kind="stable")[:CLUSTERS_SHOWN]
    tokens = [shown(a, comparison.match.ids_a[i]) for i in lowest]
    yield Table(
        f"tokens of the lowest dimension (of at most {dimension.max_components}) in {a.name}",
        ("dimension", "token", "nearest neighbors"),
        (
            (str(dimension.n_components[i]), token, _nearest(comparison, "a", i))
            for i, token in zip(lowest, tokens, strict=True)
        ),
    )


def steering(threads: int | None) -> Iterator[RenderableType]:
    """Yield what a vector of the small model does in the large one; or, without torch, what to install."""
    yield Text("5. Does a direction that steers one model steer the other?", style="bold")
    try:
        for package in ("torch", "transformers"):
            need(package, "This part runs the models, so it")
    except InputError as error:
        yield _prose(str(error))
        return
    yield _prose(
        "The mean difference between 60 happy and 60 sad texts inside the small model, transferred by a "
        "linear map that was fitted on the shared tokens of the two unembeddings, and added to the hidden "
        "states of the large model. Measured: log-probability of happy words minus that of sad ones, after "
        "new prompts.",
        below=0,
    )
    yield _effects(threads)
    yield _prose(
        f"Above 0 means happier; ± is the standard error over {PROMPTS} prompts, or the standard deviation "
        f"of {CONTROLS} vectors. The transferred vector should differ clearly from random ones and from "
        "those by maps of shuffled tokens; negating it should reverse the effect. KL, a mean over neutral "
        "texts, measures side effects."
    )


def _effects(threads: int | None) -> Table:
    small, large = (embgeom.load(folder, "output", threads=threads) for folder in examples.pair())
    source, target = (load_language_model(folder) for folder in examples.pair())
    train, fit = embgeom.SteeringVector.train, embgeom.Emb2Emb.fit
    vector = train(*source, moods.pairs(), layers=SOURCE_LAYER, batch_size=30)
    transferred, *shuffled = (
        fit(small, large, held_out=0, shuffle=seed > 0, seed=seed, threads=threads).transfer(
            vector, layers=TARGET_LAYER, norm="raw"
        )
        for seed in range(1 + CONTROLS)
    )
    found = embgeom.evaluate(
        *target,
        transferred,
        WordLogRatio(moods.HAPPY, moods.SAD),
        moods.prompts()[:: 60 // PROMPTS],
        scale=SCALE,
        native=train(*target, moods.pairs(), layers=TARGET_LAYER, batch_size=30),
        shuffled=shuffled,
        neutral=moods.neutral_texts()[:5],
        options=EvaluateOptions(random=CONTROLS, batch_size=30),
    )
    rows, checks = [], found.checks()
    for name, key in (
        ("transferred from the small model", "transferred"),
        ("transferred, negated", "transferred_negated"),
        ("native to the large model", "native"),
    ):
        side_effects = found[key].side_effects
        kl = float("nan") if side_effects is None else side_effects.kl
        effect = found[key].effect
        rows.append((name, f"{effect.mean:+.1f} ± {effect.standard_error:.1f}", f"{kl:.1f}"))
    for name, mean, sd in (
        ("by maps of shuffled tokens", checks.shuffled_mean, checks.shuffled_sd),
        ("random", checks.random_mean, checks.random_sd),
    ):
        rows.append((f"{CONTROLS} {name}", f"{mean:+.1f} ± {sd:.1f}", ""))
    return Table(None, ("vector, all of one length", "effect, nats", "KL"), rows)


def _next_steps() -> Iterator[RenderableType]:
    small, large = (examples.PREFIX + name for name in examples.Pair._fields)
    yield Table(
        "next steps, with these models or your own (a folder, or a Hugging Face id)",
        ("command", "shows"),
        (
            (f"embgeom compare {small} {large}", "all measures, which tokens agree"),
            (f"embgeom neighbors {small} queen", "the neighborhood of a word"),
            (f"embgeom inspect {large}", "the rows of one model"),
        ),
    )


def _answer(statistic: Statistic, question: str, measured: str, meaning: str) -> Iterator[RenderableType]:
    yield Text(question, style="bold")
    yield _prose(measured, below=0)
    nulls = (null_text(null) for null in (statistic.null, statistic.stratified) if null is not None)
    row = (statistic.name, statistic.estimate.text(), *nulls)
    yield Table(None, ("", "measured", "null", "null in strata"), [row])
    yield _prose(meaning)


def _prose(text: str, below: int = 1) -> RenderableType:
    return Padding(Text(text), (0, 0, below, 1))


def _nearest(comparison: Comparison, side: str, position: int) -> str:
    """Return the first neighbors of the shared token at `position` in one of the models."""
    model, ids = getattr(comparison, side), getattr(comparison.match, f"ids_{side}")
    near = getattr(comparison, f"local_{side}").neighbors.indices[position, :NEIGHBORS_SHOWN]
    return "  ".join(shown(model, ids[other]) for other in near if other >= 0)
