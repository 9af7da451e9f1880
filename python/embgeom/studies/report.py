"""The report of a study: one page with summary, figures, tables, tokens to look up, and provenance."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.html import Part, Section, Terms, Widget, facts, how_to_cite, page
from embgeom._common.record import plain
from embgeom._common.result import picture
from embgeom._common.tables import Table
from embgeom._common.writing import write_file
from embgeom.comparison.statistic import (
    CURVE,
    FREQUENCY,
    GROUP,
    NONE_SHARED,
    STATISTIC,
    TENTHS,
    curve_rows,
)
from embgeom.studies.figures import Drawing
from embgeom.studies.results import EXTREMES, PairResult, SharedTokens, Study
from embgeom.studies.sentences import reading_guide, summary

NEIGHBORS_SHOWN = 6
# Of each token in the page.
MOST_NEIGHBORS = 10
# From this number of tokens on, the number of one takes three bytes.
TWO_BYTES = 0xFFFF
# Of all neighbor lists in a page, as text; tokens beyond it can be found, but not their neighbors.
MOST_BYTES = 6_000_000


def write_report(study: Study, path: Path, drawings: Iterable[Drawing]) -> None:
    """Write the report of a study with its figures as one self-contained HTML file."""
    text = report(study, drawings)
    write_file(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def report(study: Study, drawings: Iterable[Drawing]) -> str:
    """Return the report of a study as HTML."""
    names = ", ".join(study.names[:-1]) + f" and {study.names[-1]}"
    title = f"Token embeddings of {names if len(study.names) < 4 else f'{len(study.names)} models'}"
    notes = [f"{model.name}: {note}" for model in study.models for note in model.notes]
    figures: list[Part] = [picture(drawing.figure, drawing.caption) for drawing in drawings]
    sections = [
        Section("Summary", [reading_guide(study), Terms(tuple(summary(study))), *_sentences(study.notes)]),
        Section("Figures", figures),
        Section("Pairs of models", [*_pairs(study), *_curves(study), *_groups(study), *_maps(study)]),
        Section("Models", [*_models(study), _classes(study), *notes, _hubs(study)]),
        Section("Look up a token", lookup(study)),
        Section("Tokens of lowest and highest dimension", list(_extremes(study)), closed=True),
        Section("Most and least shared tokens", list(_shared(study)), closed=True),
        Section("Coherence", list(_coherence(study)), closed=True),
        Section("Lineage", study.lineage.tables() if study.lineage else []),
        Section("Parameters and provenance", list(_provenance(study)), closed=True),
        how_to_cite(study.versions),
    ]
    footer = f"Made with embgeom {study.versions.get('embgeom', '')}."
    return page(title, [section for section in sections if section.parts], lead=names, footer=footer)


def _pairs(study: Study) -> Iterator[Part]:
    rows: list[tuple[str | int, ...]] = [
        (*_names(study, pair), *each.cells(), f"{each.estimate.calibrated:.3f}", each.estimate.n)
        for pair in study.pairs
        for each in pair.statistics
    ]
    yield Table("Every measure of every pair", ("A", "B", *STATISTIC, "calibrated", "tokens"), rows)
    yield (
        "The columns are explained at the top of this page. calibrated: share of the way from the upper 95 % "
        "point of the null to 1. tokens: how many the value is over."
    )
    yield from _sentences(study.pair_notes())


def _sentences(notes: Iterable[str]) -> Iterator[str]:
    for note in notes:
        yield f"{note[:1].upper()}{note[1:]}."


def _curves(study: Study) -> Iterator[Table]:
    rows = [(*_names(study, pair), *row) for pair in study.pairs for row in curve_rows(pair.curves)]
    if rows:
        yield Table("The same over other parameters", ("A", "B", *CURVE), rows)


def _groups(study: Study) -> Iterator[Part]:
    rows = [(*_names(study, pair), *group.row()) for pair in study.pairs for group in pair.groups]
    yield Table("Which tokens agree: means over the tokens of a kind", ("A", "B", *GROUP), rows)
    yield f"{NONE_SHARED}."
    if any(group.kind == FREQUENCY for pair in study.pairs for group in pair.groups):
        yield f"{TENTHS}."


def _names(study: Study, pair: PairResult) -> tuple[str, str]:
    return study.models[pair.a].name, study.models[pair.b].name


def _maps(study: Study) -> Iterator[Part]:
    rows = [
        (
            study.models[one].name,
            study.models[other].name,
            *found.scores.cells(),
            f"{1 / found.scores.candidates:.2g}",
            found.shuffled.cells()[0],
        )
        for pair in study.pairs
        for (one, other), found in zip(((pair.a, pair.b), (pair.b, pair.a)), pair.maps, strict=False)
    ]
    if rows:
        scores = ("R²", "cosine", "retrieval at 1", "retrieval at 10", "chance at 1", "R², shuffled tokens")
        head = ("from", "to", *scores)
        yield Table("Linear maps between models, on tokens held out", head, rows)
        yield "Chance at 1: the retrieval by chance, 1 / rows among which the nearest is sought."


def _models(study: Study) -> Iterator[Part]:
    rows = []
    for model in study.models:
        geometry, (vocabulary, columns) = model.geometry, model.record.shape
        dimension, levels = geometry.dimension, geometry.levels()
        known = dimension.n_components[dimension.n_components >= 0]
        rows.append(
            (
                model.name,
                vocabulary,
                len(model.rows),
                columns,
                f"{known.mean():.1f}" if len(known) else "undefined",
                dimension.max_components,
                levels["gaussian"],
                f"{np.nanmean(dimension.participation_ratio):.1f}" if len(known) else "undefined",
                levels.get("two_nn", ""),
                levels.get("mle", ""),
                f"{np.median(geometry.norms):.3g}",
                f"{geometry.mean_share:.3f}",
                f"{geometry.hubs.skewness:.1f}",
            )
        )
    of_dimension = ("mean dimension", "of at most", "Gaussian rows", "participation ratio", "TwoNN", "MLE")
    head = (
        "model",
        "rows",
        "rows that count",
        "columns",
        *of_dimension,
        "median norm",
        "mean direction",
        "hub skewness",
    )
    yield Table("Models, over their rows that count", head, rows)
    yield (
        f"Dimension: how many components hold {study.options.variance:.0%} of the variance of the "
        f"{study.dimension_k} nearest neighbors, and the same of Gaussian rows with the same covariance. "
        "TwoNN and MLE: by distances to neighbors, other measures. ±: half of a 95 % interval as if tokens "
        "were independent, so too short for TwoNN and MLE. Mean direction: share of the squared length that "
        "all rows have in common. Hub skewness: how unevenly tokens are neighbors of others (0: evenly)."
    )


def _classes(study: Study) -> Table:
    names = dict.fromkeys(name for model in study.models for name in model.classes)
    rows: list[tuple[str | int, ...]] = [
        (name, *(model.classes.get(name, 0) for model in study.models)) for name in names
    ]
    return Table("Rows of each class; a row may be of several", ("class", *study.names), rows)


def _hubs(study: Study) -> Table:
    rows = []
    for model in study.models:
        hubs = model.geometry.hubs
        for number in hubs.greatest(5).tolist():
            count = int(hubs.in_degree[number])
            shares = f"{count / hubs.lists:.1%}", f"{count / hubs.k:.1f}"
            rows.append((model.name, model.token(number), count, *shares))
    title = "The greatest hubs: tokens that are among the nearest neighbors of the most others"
    return Table(title, ("model", "token", "neighbor of", "of all tokens", "times the mean"), rows)


def _extremes(study: Study) -> Iterator[Part]:
    yield (
        "The lowest dimensions are expected in tight semantic clusters, the highest in diffuse regions. Look "
        "at the neighbors: rare and hardly trained tokens may be at either end."
    )
    for model in study.models:
        dimension, lists = model.geometry.dimension, model.geometry.neighbors[:, :NEIGHBORS_SHOWN]
        numbers = np.arange(len(lists)) if dimension.rows is None else dimension.rows
        for what, tokens in zip(("lowest", "highest"), model.extremes(EXTREMES), strict=True):
            rows = [
                (
                    int(dimension.n_components[np.searchsorted(numbers, number)]),
                    model.token(number),
                    "  ".join(model.token(other) for other in lists[number].tolist() if other >= 0),
                )
                for number in tokens.tolist()
            ]
            yield Table(
                f"{model.name}: {what} intrinsic dimension", ("dimension", "token", "nearest tokens"), rows
            )


def _coherence(study: Study) -> Iterator[Part]:
    for model in study.models:
        if model.coherence is not None:
            yield from model.coherence.tables()


def _shared(study: Study) -> Iterator[Part]:
    head = ("A", "B", "token", "overlap", "weight cosine", "nearest in A", "nearest in B")
    for what, end in (("most", 0), ("least", 1)):
        rows = [
            _shared_row(study, pair, number)
            for pair in study.pairs
            for number in pair.extremes()[end].tolist()
        ]
        yield Table(f"The {what} shared tokens of each pair, and their nearest tokens", head, rows)


def _shared_row(study: Study, pair: PairResult, number: int) -> tuple[str, ...]:
    tokens = study.shared[pair.tokens]
    near = (
        "  ".join(
            study.token(tokens, other)
            for other in tokens.neighbors[tokens.index_of(model), number, :NEIGHBORS_SHOWN].tolist()
            if other >= 0
        )
        for model in (pair.a, pair.b)
    )
    cosine = pair.weight_cosine[number]
    return (
        *_names(study, pair),
        study.token(tokens, number),
        f"{pair.neighbor_overlap[number]:.2f}",
        "undefined" if np.isnan(cosine) else f"{cosine:.2f}",
        *near,
    )


def _provenance(study: Study) -> Iterator[Part]:
    yield facts("options", plain(study.options))
    for model in study.models:
        record = {**model.record.to_dict(), "matrix sha256 as float32": model.sha256}
        yield facts(model.name, record)
    yield facts("versions", study.versions)


def lookup(study: Study) -> list[Part]:
    """Return the widget with as many lists as a page should hold, and what is left out."""
    sets, room = [], MOST_BYTES
    for tokens in study.shared:
        k, width = min(MOST_NEIGHBORS, tokens.neighbors.shape[2]), 2 if len(tokens) < TWO_BYTES else 3
        of_one = len(tokens.models) * k * width * 4 / 3
        held = min(len(tokens), int(room / of_one))
        room -= int(held * of_one)
        sets.append(_packed(study, tokens, k, width, held))
    parts: list[Part] = [
        "Type a token. A leading space counts: many vocabularies have a word with it, and the same letters "
        "without it as a piece of longer words. Neighbors that a token has in all models are marked.",
        Widget(Path(__file__).parent / "templates", "lookup", {"sets": sets}),
    ]
    held, total = sum(each["held"] for each in sets), sum(map(len, study.shared))
    if held < total:
        parts.append(
            f"To keep this file small it has the neighbors of {held:,} of {total:,} tokens, those with the "
            "lowest row numbers in the first model; those of all tokens are in tokens.parquet."
        )
    if any(each["k"] < tokens.neighbors.shape[2] for each, tokens in zip(sets, study.shared, strict=True)):
        parts.append(f"Of each token the nearest {MOST_NEIGHBORS} neighbors are in this file.")
    return parts


def _packed(study: Study, tokens: SharedTokens, k: int, width: int, held: int) -> dict[str, Any]:
    pairs = [pair for pair in study.pairs if study.shared[pair.tokens] is tokens]
    most_shared = int(np.mean([pair.neighbor_overlap for pair in pairs], axis=0)[: max(held, 1)].argmax())
    return {
        "models": [study.models[model].name for model in tokens.models],
        "tokens": [study.token(tokens, number) for number in range(len(tokens))],
        "k": k,
        "bytes": width,
        "held": held,
        "first": most_shared,
        "neighbors": [_text(lists[:held, :k], width) for lists in tokens.neighbors],
        "dimensions": [_text(dimensions, 2) for dimensions in tokens.n_components],
    }


def _text(numbers: npt.NDArray[np.int32], width: int) -> str:
    """Return numbers as base64, `width` bytes each, lowest first; -1 is the greatest such number."""
    rows = numbers.astype("<i4").ravel()
    return base64.b64encode(rows.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()).decode("ascii")
