"""The tokens of a report to look up: a token's neighbors in each model side by side, packed into the page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.html import Part, Widget
from embgeom.studies.results import SharedTokens, Study

MOST_NEIGHBORS = 10
TWO_BYTES = 0xFFFF
"""From so many tokens on, the number of one takes three bytes."""
MOST_BYTES = 6_000_000
"""Of all neighbor lists in a page, as text; tokens beyond it can be found, but not their neighbors."""


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
    """Return numbers as base64, so many bytes each, lowest first; -1 is the greatest such number."""
    rows = numbers.astype("<i4").ravel()
    return base64.b64encode(rows.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()).decode("ascii")
