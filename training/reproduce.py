"""Whether the first steps of the training give the recorded losses again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from embgeom.examples import record
from training.data import prepare
from training.models import Recipe
from training.train import losses, train

# On the instruction set and with the versions on record, the losses are the same to the bit. Others add up in
# another order, which moves a loss by 1e-7 of itself at first, and training makes differences grow.
TOLERANCE = 1e-3


def reproduce(recipe: Recipe, text: Path, folder: Path, steps: int) -> float:
    """Train the first steps anew; return the largest relative difference from the recorded losses.

    Raises ValueError where so many steps are not on record, or the text is another one.
    """
    on_record = record(folder)
    recorded = on_record["losses"]["first_steps"]
    if not 1 <= steps <= len(recorded):
        raise ValueError(f"steps = {steps}; the losses of 1 to {len(recorded)} steps are on record")
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "data"
        prepare(text, data)
        _check_text(json.loads((data / "corpus.json").read_text()), on_record["data"], text)
        log = train(recipe, data, Path(work) / recipe.name, stop_after=steps)
    found = np.array(list(losses(log).values()))
    return float(np.max(np.abs(found / recorded[:steps] - 1)))


def _check_text(found: dict[str, Any], recorded: dict[str, Any], text: Path) -> None:
    """Refuse another text, whose losses would differ for that reason alone."""
    ours, theirs = (
        {name: digest for source in data["sources"] for name, digest in source["files"].items()}
        for data in (found, recorded)
    )
    if other := sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)):
        raise ValueError(f"{text} is not the text on record: {', '.join(other)} (SHA-256) differ")
