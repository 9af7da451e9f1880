"""From finished runs to Hugging Face folders: float16 weights, config, tokenizer, record, model cards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from embgeom.examples import RECORD
from training.card import PAGE, write_descriptions
from training.corpus import Document
from training.data import CONTEXT, END
from training.measure import measure
from training.models import Recipe
from training.train import MANIFEST, last_checkpoint, log_of, losses, step_of

RECORDED_STEPS = 50
"""The losses of so many first steps are kept one by one, for `training.reproduce` to compare with."""

WINDOW = 50
"""All are kept as means over so many steps, without the noise of single batches."""


def export(
    recipes: Iterable[Recipe], work: Path, folders: Path, documents: list[Document], page: Path = PAGE
) -> None:
    """Measure the models of finished runs as they are stored, and put them into `folders`, and the docs page.

    Everything is written into WORK/export first, and takes its place when all of it is there.
    """
    finished = [(recipe, _finished(recipe, work / recipe.name)) for recipe in recipes]
    scratch = work / "export"
    shutil.rmtree(scratch, ignore_errors=True)
    for recipe, checkpoint in finished:
        print(f"{recipe.name}: measuring", flush=True)
        _write(recipe, work / "data", checkpoint, scratch / recipe.name, documents)
    names = [recipe.name for recipe, _ in finished]
    figure = write_descriptions({name: scratch / name for name in names}, scratch / page.name)
    for name in names:
        _replace(scratch / name, folders / name)
    shutil.copy(scratch / page.name, page)
    shutil.copy(figure, page.with_name(figure.name))


def _finished(recipe: Recipe, run: Path) -> Path:
    checkpoint = last_checkpoint(run)
    if checkpoint is None or step_of(checkpoint) < recipe.steps:
        reached = step_of(checkpoint) if checkpoint else 0
        raise FileNotFoundError(
            f"{recipe.name} is not trained to its end ({reached} of {recipe.steps} steps in {run}): "
            f"run python -m training train {recipe.name}"
        )
    return checkpoint


def _write(recipe: Recipe, data: Path, checkpoint: Path, folder: Path, documents: list[Document]) -> None:
    model = _write_model(data, checkpoint, folder)
    streams = {name: np.load(data / f"{name}.npy") for name in ("training", "held_out")}
    record = {
        "name": recipe.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "command": [
            "python -m training prepare --text TEXT --work WORK",
            f"python -m training train {recipe.name} --work WORK",
        ],
        **json.loads((checkpoint.parent / MANIFEST).read_text()),
        "losses": _losses(log_of(checkpoint)),
        "measured": measure(folder, streams, documents),
    }
    _write_json(folder / RECORD, record)


def _write_model(data: Path, checkpoint: Path, folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
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
            # Neither model has segments, and generate() refuses what a model does not take.
            "model_input_names": ["input_ids", "attention_mask"],
        },
    )
    return model


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _losses(log: list[dict[str, float]]) -> dict[str, Any]:
    of_each_step = list(losses(log).values())
    windows = [of_each_step[i : i + WINDOW] for i in range(0, len(of_each_step), WINDOW)]
    return {
        "first_steps": of_each_step[:RECORDED_STEPS],
        "window": WINDOW,
        "means": [round(float(np.mean(window)), 4) for window in windows],
        "held_out": {str(step): round(loss, 4) for step, loss in losses(log, "eval_loss").items()},
    }


def _replace(new: Path, folder: Path) -> None:
    """Put a copy of the folder `new` in the place of `folder`, which may lie on another disk."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(new, beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
