"""Whether the first steps of the training give the recorded losses again."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from training.export import RECORD
from training.models import Recipe
from training.train import losses, train

# On the same kind of processor, with the versions on record, the losses are the same to the bit. Others add
# up in another order, which moves a loss by 1e-7 of itself at first, and training makes differences grow.
TOLERANCE = 1e-3


def reproduce(recipe: Recipe, data: Path, folder: Path, steps: int) -> float:
    """Train the first steps anew; return the largest relative difference from the recorded losses."""
    recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))["losses"]["first_steps"]
    if not 1 <= steps <= len(recorded):
        raise ValueError(f"steps = {steps}; the losses of 1 to {len(recorded)} steps are on record")
    with tempfile.TemporaryDirectory() as run:
        log = train(recipe, data, Path(run), stop_after=steps)
    found = np.array(list(losses(log).values()))
    return float(np.max(np.abs(found / recorded[:steps] - 1)))
