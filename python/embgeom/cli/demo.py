"""The demonstration: what the two bundled models share, told to somebody new to such numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from embgeom import examples
from embgeom._common.arrays import RowNumbers
from embgeom._common.progress import Progress
from embgeom._common.tables import Table, number
from embgeom.cli.demo_steering import transferred_vector
from embgeom.comparison.compare import compare
from embgeom.comparison.comparison import Comparison, LocalGeometry
from embgeom.comparison.report import shown
from embgeom.embeddings.embeddings import Embeddings
from embgeom.loading import load

WORDS = (" king", " two", " red", " walked")
NEIGHBORS_SHOWN = 3
CLUSTERS_SHOWN = 4


def demonstrate(*, threads: int | None = None, progress: Progress = False) -> list[RenderableType]:
    """Compare the two bundled models, and return tables and texts that explain the outcome.

    Parameters
    ----------
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for bars on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    list of rich renderables
        Ready for `embgeom.report.as_text`.

    Notes
    -----
    Some seconds on two cores. The numbers are those of `compare` on the two models without their rare tokens,
    see `embgeom.examples.without_rare_tokens`.

    Examples
    --------
    >>> from embgeom.cli.demo import demonstrate
    >>> from embgeom.comparison.report import as_text
    >>> print(as_text(demonstrate()).splitlines()[0])
    Two language models, trained apart: what do their token embeddings share?
    """
    # By their folders: a file here may have the name of an example.
    models = [
        replace(load(folder, threads=threads), name=examples.PREFIX + folder.name)
        for folder in examples.pair()
    ]
    records = [examples.record(folder) for folder in examples.pair()]
    small, large = (load(folder, "output", threads=threads) for folder in examples.pair())
    comparison = compare(*map(examples.without_rare_tokens, models), threads=threads, progress=progress)
    return [
        *_introduction(comparison, records),
        *_global_geometry(comparison),
        *_neighbors(comparison),
        *_weights(comparison),
        *_dimension(comparison),
        *transferred_vector(small, large, threads),
        *_what_next(),
    ]


def _introduction(comparison: Comparison, records: list[dict[str, Any]]) -> Iterator[RenderableType]:
    yield Table(
        "Two language models, trained apart: what do their token embeddings share?",
        ("model", "architecture", "parameters", "embeddings"),
        (
            (
                model.name,
                f"{record['model']['architecture']}, {record['model']['blocks']} blocks",
                f"{record['parameters'] / 1e6:.1f} million",
                "{} tokens x {}".format(*model.matrix.shape),
            )
            for model, record in zip((comparison.a, comparison.b), records, strict=True)
        ),
    )
    yield _prose(
        "Both learned to continue the same stories and books, from different random beginnings. An "
        "embedding is the row of numbers by which a model knows a token, which is a word or a part of one. "
        "The columns of two models have nothing to do with each other, but how the tokens lie to each "
        f"other can be compared. This is done over {len(comparison.match):,} tokens, all that the text "
        "holds more than 50 times: what is rarer was hardly trained."
    )
    yield _prose(
        "Beside every number stands what chance gives: the same measure where each token of one model is "
        "paired with a random token of the other (shuffled), and where random rows take the place of both "
        "models (Gaussian)."
    )


def _global_geometry(comparison: Comparison) -> Iterator[RenderableType]:
    n = len(comparison.match)
    yield from _answer(
        comparison,
        "1. Global geometry: do tokens point in the same directions?",
        f"For each of the {n * (n - 1) // 2:,} pairs of the {n:,} shared tokens, take the cosine of the "
        "angle between the two in each model (less the mean row), and correlate the models' cosines.",
        "global_similarity_centered",
        "1 means that all angles agree; 0, that the angles of one model tell nothing about those of the "
        "other.",
    )


def _neighbors(comparison: Comparison) -> Iterator[RenderableType]:
    k, n = comparison.options.k, len(comparison.match)
    yield from _answer(
        comparison,
        "2. Local geometry: do tokens have the same neighbors?",
        f"For each token, take the {k} nearest in each model, and count how many are in both.",
        "neighbor_overlap",
        f"1 means all of them; {k} picked blindly among {n - 1:,} would give {k / (n - 1):.4f}.",
    )
    sides = _sides(comparison)
    lines = []
    for word in WORDS:
        place = int(np.searchsorted(comparison.match.ids_a, comparison.a.row_of(word)))
        lines.append((repr(word), *(_nearest(*side, place) for side in sides)))
    yield Table(
        "some words, and the nearest of each",
        ("token", f"in {comparison.a.name}", f"in {comparison.b.name}"),
        lines,
    )


def _weights(comparison: Comparison) -> Iterator[RenderableType]:
    yield from _answer(
        comparison,
        "3. Local geometry: do neighbors make up a token in the same way?",
        f"Write each token, as nearly as possible, as a weighted sum of its {comparison.options.k} "
        "nearest, with weights that add up to 1 (locally linear embedding, LLE). Take the cosine between a "
        "token's weights in the two models; the mean over all tokens:",
        "weight_cosine",
        "1 means the same neighbors with the same weights; 0, no neighbor in common.",
    )


def _dimension(comparison: Comparison) -> Iterator[RenderableType]:
    options, dimension = comparison.options, comparison.local_a.dimension
    yield from _answer(
        comparison,
        "4. Intrinsic dimension: are the same tokens' surroundings simple?",
        f"Count the directions that hold {options.variance:.0%} of the variance of a token's "
        f"{options.dimension_k} nearest: few where the token sits in a group that belongs together, many "
        f"where it sits in a loose crowd. Rank {len(comparison.sampled)} random tokens by it, and "
        "correlate the models' ranks.",
        "dimension_spearman",
        "1 means the same order of tokens in both models; 0, no relation.",
    )
    side = _sides(comparison)[0]
    lowest = np.argsort(dimension.n_components, kind="stable")[:CLUSTERS_SHOWN]
    yield Table(
        f"tokens of the lowest dimension (of at most {dimension.max_components}) in {comparison.a.name}",
        ("dimension", "token", "its nearest"),
        (
            (str(dimension.n_components[i]), _token(*side, place), _nearest(*side, place))
            for i, place in zip(lowest, comparison.sampled[lowest], strict=True)
        ),
    )


def _what_next() -> Iterator[RenderableType]:
    small, large = (examples.PREFIX + name for name in examples.Pair._fields)
    yield Table(
        "to go on, with these models or your own (a folder, or a Hugging Face id)",
        ("command", "shows"),
        (
            (f"embgeom compare {small} {large}", "all statistics, rare tokens too"),
            (f"embgeom neighbors {small} queen", "what surrounds a word"),
            (f"embgeom inspect {large}", "the rows of one model"),
        ),
    )


def _answer(
    comparison: Comparison, question: str, measured: str, name: str, meaning: str
) -> Iterator[RenderableType]:
    """Yield a question, what was measured for it, the number beside chance, and how to read it."""
    measure = comparison[name]
    yield Text(question, style="bold")
    yield Padding(Text(measured), (0, 0, 0, 1))
    yield Table(
        None,
        ("", "measured", "shuffled", "Gaussian"),
        [(measure.label, *(number(value) for value in (measure.value, measure.shuffled, measure.gaussian)))],
    )
    yield _prose(meaning)


def _prose(text: str) -> RenderableType:
    return Padding(Text(text), (0, 0, 1, 1))


_Side = tuple[Embeddings, RowNumbers, LocalGeometry]


def _sides(comparison: Comparison) -> tuple[_Side, _Side]:
    match = comparison.match
    return (comparison.a, match.ids_a, comparison.local_a), (comparison.b, match.ids_b, comparison.local_b)


def _token(model: Embeddings, ids: RowNumbers, _: LocalGeometry, place: int) -> str:
    return shown(model, int(ids[place]))


def _nearest(model: Embeddings, ids: RowNumbers, local: LocalGeometry, place: int) -> str:
    """Return the first neighbors of the shared token at `place`."""
    near = local.neighbors.indices[place, :NEIGHBORS_SHOWN]
    return "  ".join(shown(model, int(ids[other])) for other in near if other >= 0)
