"""From a finished run to a Hugging Face folder: float16 weights, config, tokenizer, the record of it."""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from training.corpus import Document
from training.data import CONTEXT, END
from training.measure import measure
from training.models import Recipe
from training.train import THREADS, hyperparameters, losses

RECORDED_STEPS = 50
"""The losses of so many first steps are kept one by one, for `training.reproduce` to compare with."""

RECORD = "training.json"


def export(recipe: Recipe, data: Path, run: Path, folder: Path, documents: list[Document]) -> None:
    """Write the model of a finished run into `folder`, measured as it is stored; whole or not at all."""
    final = run / "final"
    if not final.is_dir():
        raise FileNotFoundError(f"{recipe.name} is not trained to its end: {final} is missing")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        new = Path(scratch) / folder.name
        model = _write_model(recipe, data, final, new)
        streams = {name: np.load(data / f"{name}.npy") for name in ("training", "held_out")}
        record = {
            "name": recipe.name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "command": [
                "python -m training prepare --text TEXT --work WORK",
                f"python -m training train {recipe.name} --work WORK",
            ],
            "seed": recipe.seed,
            "hyperparameters": hyperparameters(recipe),
            "threads": THREADS,
            "versions": versions(),
            "data": json.loads((data / "corpus.json").read_text()),
            "losses": _losses(json.loads((final / "trainer_state.json").read_text())["log_history"]),
            "measured": measure(new, streams, documents),
        }
        _write_json(new / RECORD, record)
        if folder.exists():
            folder.replace(Path(scratch) / "old")
        new.replace(folder)


def versions() -> dict[str, str]:
    """Return the versions that the losses depend on besides the code."""
    names = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}


def _write_model(recipe: Recipe, data: Path, final: Path, folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(final, dtype=torch.float32)
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    model.generation_config = GenerationConfig(**special)
    # The trainer switches the cache off, which is of use only when generating.
    model.config.update({**special, "use_cache": True})
    model.half().save_pretrained(folder)
    # The weights are written for their owner alone, and an installed package is for everybody.
    (folder / "model.safetensors").chmod(0o644)
    shutil.copyfile(data / "tokenizer.json", folder / "tokenizer.json")
    _write_json(
        folder / "tokenizer_config.json",
        {
            # The name that releases of transformers before and after 5 both know.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END,
            "eos_token": END,
            "pad_token": END,
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
        },
    )
    return model


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _losses(log: list[dict[str, float]]) -> dict[str, Any]:
    of_each_step = list(losses(log).values())
    return {
        "first_steps": of_each_step[:RECORDED_STEPS],
        # Means over as many steps, so that the curve is read without the noise of single batches.
        "mean_of_each_50_steps": [
            round(float(np.mean(of_each_step[i : i + RECORDED_STEPS])), 4)
            for i in range(0, len(of_each_step), RECORDED_STEPS)
        ],
        "held_out": {str(step): round(loss, 4) for step, loss in losses(log, "eval_loss").items()},
    }
