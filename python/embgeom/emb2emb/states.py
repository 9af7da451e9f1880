"""Hidden states of two models on the same texts, as paired rows that a map is fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import whole_number
from embgeom._common.progress import ProgressCallable
from embgeom._common.record import digest, model_versions
from embgeom._common.threads import resolve_threads
from embgeom.emb2emb.methods import Method
from embgeom.emb2emb.pairs import FEWEST_TOKENS, Pairs, PreparedRows, pair_of, split
from embgeom.emb2emb.score import FitResult, fit
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.language_model import LanguageModel, describe_model, model_info, model_name
from embgeom.lm.layers import find, matching_layer
from embgeom.lm.passes import longest_text
from embgeom.lm.shared_texts import shared_positions
from embgeom.lm.states import Tokenized, residual_states
from embgeom.lm.tokenizing import warn_of_doubled

_SIDES = ("source", "target")
# Of one text; a layer's attention takes memory with the square of it.
LONGEST_TEXT = 1024
# Conventions: fewer tokens for each column leave a regression open, and some texts are always alike.
_TOKENS_A_COLUMN, _ALIKE, _MOST_ALIKE = 10, 0.8, 0.1
# Of all texts; the states of so many take 4.9 GB at 4,096 and 8,192 columns.
MOST_TOKENS = 100_000


@dataclass(frozen=True, eq=False)
class ModelStates:
    """One model's states at every token of the texts, after some layers."""

    info: ModelInfo
    name: str
    description: dict[str, Any]
    states: dict[int, Float32Matrix]
    # By layer, without sinks.
    spread: dict[int, float]
    # Which tokens count, in every layer that was read.
    kept: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PairedStates:
    """States of two models, and the tokens of each after which both have read the same text."""

    source: ModelStates
    target: ModelStates
    rows: tuple[RowNumbers, RowNumbers]
    # For each pair the text that it is of, and the source's tokens of each text.
    texts: RowNumbers
    tokens: list[list[int]]
    about: dict[str, Any]

    def pairs(self, layers: tuple[int, int]) -> Pairs:
        return Pairs(
            *(
                PreparedRows.prepare(side.states[layer], rows, None, normalize=False)
                for side, layer, rows in zip((self.source, self.target), layers, self.rows, strict=True)
            )
        )

    def split(self, held_out: float, seed: int) -> tuple[RowNumbers, RowNumbers]:
        """Return the pairs to fit on and those to hold out: of whole texts, whose states are alike."""
        texts = np.unique(self.texts)
        _, held = split(len(texts), held_out, seed, "texts")
        out = np.isin(self.texts, texts[held])
        return np.flatnonzero(~out), np.flatnonzero(out)

    def doubts(self, kept: RowNumbers, held: RowNumbers, columns: tuple[int, int]) -> Iterator[str]:
        """Give a warning for each thing that keeps a map or its scores from meaning much."""
        if len(kept) < _TOKENS_A_COLUMN * max(columns):
            yield (
                f"{len(kept)} paired tokens for a map of {columns[0]} to {columns[1]} columns are less than "
                f"{_TOKENS_A_COLUMN} for each: it fits much that is chance; give more texts, some hundred"
            )
        fitted_on = {run for text in np.unique(self.texts[kept]) for run in _runs(self.tokens[text])}
        runs = [_runs(self.tokens[text]) for text in np.unique(self.texts[held])]
        alike = sum(len(each & fitted_on) > _ALIKE * len(each) for each in runs)
        if alike > len(runs) * _MOST_ALIKE:
            yield (
                f"{alike} of {len(runs)} held-out texts repeat four fifths of their runs of three tokens "
                "from texts that the map was fitted on, so the scores hold for no other texts; give texts "
                "that are not made from one template"
            )


def chosen_layers(layers: Any, source: LanguageModel, target: LanguageModel) -> tuple[int, int]:
    """Return the layer of each model: by default two thirds of the source's, and as deep in the target."""
    if layers is not None and not isinstance(layers, int | np.integer):
        pair = pair_of(layers, "layers", "the layer")
        return whole_number(pair[0], "layers[0]", 0), whole_number(pair[1], "layers[1]", 0)
    counts = [len(find(each.model).layers) for each in (source, target)]
    layer = max(0, round(2 * counts[0] / 3) - 1) if layers is None else whole_number(layers, "layers", 0)
    return layer, matching_layer(layer, counts[0], counts[1])


def paired_states(
    source: LanguageModel,
    target: LanguageModel,
    texts: Sequence[str],
    layers: Sequence[tuple[int, int]],
    *,
    batch_size: int,
    seed: int,
    report: ProgressCallable | None,
) -> PairedStates:
    """Run both models over the texts once, for any number of pairs of layers."""
    texts = texts if isinstance(texts, str) else list(texts)
    limits = [min(longest_text(each.model) or LONGEST_TEXT, LONGEST_TEXT) for each in (source, target)]
    shared = shared_positions(texts, (source.tokenizer, target.tokenizer), (limits[0], limits[1]), "all")
    _check_count(sum(len(text.positions) for text, _ in shared), texts)
    chosen = _within_budget(shared, np.random.default_rng([seed, 4]))
    numbers = [
        find(each.model).numbers(side)
        for each, side in zip((source, target), zip(*layers, strict=True), strict=True)
    ]
    sides = zip(_SIDES, (source, target), zip(*chosen, strict=True), numbers, strict=True)
    states, rows = [], []
    for phase, each, read, which in sides:
        ids = [text.ids for text in read]
        warn_of_doubled(each.tokenizer, ids, "take it away from the texts", stacklevel=4)
        states.append(_model_states(each.model, ids, which, batch_size, report, phase))
        starts = np.cumsum([0, *map(len, ids)])[:-1]
        rows.append(
            np.concatenate([start + text.positions for start, text in zip(starts, read, strict=True)])
        )
    kept = states[0].kept[rows[0]] & states[1].kept[rows[1]]
    _check_count(int(kept.sum()), texts)
    of_text = np.repeat(np.arange(len(chosen)), [len(text.positions) for text, _ in chosen])
    about = {
        "texts": len(texts),
        "texts_read": len(chosen),
        "texts_sha256": digest(texts),
        "sinks": int(len(kept) - kept.sum()),
    }
    pairs, tokens = (rows[0][kept], rows[1][kept]), [text.ids for text, _ in chosen]
    return PairedStates(states[0], states[1], pairs, of_text[kept], tokens, about)


def _runs(tokens: list[int]) -> set[tuple[int, ...]]:
    return {tuple(tokens[at : at + 3]) for at in range(max(1, len(tokens) - 2))}


def _check_count(count: int, texts: Sequence[str]) -> None:
    if count < FEWEST_TOKENS:
        raise InputError(
            f"in {len(texts)} texts tokens of both models end together {count} times; a map needs "
            f"{FEWEST_TOKENS} at least, and some hundred to be of use: give more or longer texts"
        )


def _within_budget(
    shared: list[tuple[Tokenized, Tokenized]], generator: np.random.Generator
) -> list[tuple[Tokenized, Tokenized]]:
    """Return the texts, or of too many as many drawn ones as have `MOST_TOKENS` tokens, in their order."""
    order = generator.permutation(len(shared))
    sizes = np.cumsum([max(len(text.ids) for text in shared[index]) for index in order])
    return [shared[index] for index in np.sort(order[: max(1, int(np.sum(sizes <= MOST_TOKENS)))])]


def _model_states(
    model: Any,
    ids: list[list[int]],
    layers: list[int],
    batch_size: int,
    report: ProgressCallable | None,
    phase: str,
) -> ModelStates:
    prompts = [Tokenized(each, np.arange(len(each))) for each in ids]
    read = residual_states(model, prompts, batch_size=batch_size, report=report, phase=phase, layers=layers)
    return ModelStates(
        model_info(model),
        model_name(model),
        describe_model(model),
        dict(zip(layers, read.states, strict=True)),
        dict(zip(layers, read.moments.spread.tolist(), strict=True)),
        np.concatenate([text.all(axis=0) for text in read.kept]),
    )


def fit_paired(
    read: PairedStates,
    layers: tuple[int, int],
    method: Method,
    *,
    held_out: float,
    shuffle: bool,
    seed: int,
    report: ProgressCallable | None,
) -> tuple[FitResult, dict[str, Any]]:
    """Fit a map on the states of one pair of layers that were read; return it with its provenance."""
    kept, held = read.split(held_out, seed)
    sides = (read.source, read.target)
    pairs = read.pairs(layers)
    for doubt in read.doubts(kept, held, (pairs.source.matrix.shape[1], pairs.target.matrix.shape[1])):
        warnings.warn(doubt, EmbgeomWarning, stacklevel=3)
    found = fit(
        pairs,
        kept,
        held,
        method,
        weights=None,
        shuffle=shuffle,
        seed=seed,
        threads=resolve_threads(None),
        report=report,
        about={
            "source": read.source.info,
            "target": read.target.info,
            "names": (read.source.name, read.target.name),
            "layers": layers,
        },
        groups=read.texts,
    )
    options = {"held_out": float(held_out), "shuffle": shuffle, "seed": seed}
    return found, {
        "made_by": "fit_states",
        "source": read.source.description,
        "target": read.target.description,
        **read.about,
        "texts_held_out": len(np.unique(read.texts[held])),
        "state_spread": [side.spread[layer] for side, layer in zip(sides, layers, strict=True)],
        "options": {"method": asdict(method), **options},
        "versions": model_versions(),
    }
