"""The training loop: seeded, resumable from its last checkpoint, with the loss of every step on record."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from training.data import blocks
from training.models import Recipe

# On one thread sums run in one order, so that a run can be repeated to the bit on the same kind of processor.
THREADS = 1

MANIFEST = "run.json"

# Without these the trainer would go on all the same, but not as the run would have gone.
CHECKPOINT_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")

# The label that PyTorch's cross entropy leaves out.
IGNORED = -100

SAVE_EVERY = 250
EVALUATE_EVERY = 500


class Blocks(Dataset[dict[str, torch.Tensor]]):
    """Rows of tokens, each predicted from those before it."""

    def __init__(self, stream: np.ndarray) -> None:
        self.rows = torch.from_numpy(blocks(stream))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        labels = self.rows[index].clone()
        # Nothing predicts a row's first token. The trainer knows that of some models only, and divides by one
        # token too many for others.
        labels[0] = IGNORED
        return {"input_ids": self.rows[index], "labels": labels}


class StopAfter(TrainerCallback):
    """Ends a run early without changing its schedule, which is laid out for all its steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        control.should_training_stop |= state.global_step >= self.steps


class Report(TrainerCallback):
    """Prints a line now and then: the log of every step is for the record, not for reading."""

    def __init__(self, every: int = 50) -> None:
        self.every = every

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        for name, what in (("loss", "loss"), ("eval_loss", "held-out loss")):
            if logs and name in logs and (name != "loss" or state.global_step % self.every == 0):
                print(f"step {state.global_step} of {state.max_steps}: {what} {logs[name]:.4f}", flush=True)


def losses(log: list[dict[str, float]], kind: str = "loss") -> dict[int, float]:
    """Return the losses in a trainer's log by step, in nats a token; `kind` is loss or eval_loss."""
    return {int(entry["step"]): entry[kind] for entry in log if kind in entry}


def train(recipe: Recipe, data: Path, run: Path, stop_after: int | None = None) -> list[dict[str, float]]:
    """Train into `run`, going on from its last whole checkpoint, and return the trainer's log."""
    last = recipe.steps if stop_after is None else stop_after
    _begin(run, manifest(recipe, data))
    checkpoint = last_checkpoint(run)
    if checkpoint and step_of(checkpoint) >= last:
        print(f"{recipe.name}: already trained to step {step_of(checkpoint)}", flush=True)
        return log_of(checkpoint)
    print(f"{recipe.name}: from {checkpoint.name if checkpoint else 'the start'}", flush=True)
    torch.set_num_threads(THREADS)
    trainer = Trainer(
        model=recipe.build(),
        args=_arguments(recipe, run),
        train_dataset=Blocks(np.load(data / "training.npy")),
        eval_dataset=Blocks(np.load(data / "held_out.npy")),
        callbacks=[Report(), StopAfter(last)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    log: list[dict[str, float]] = trainer.state.log_history
    return log


def manifest(recipe: Recipe, data: Path) -> dict[str, Any]:
    """Return all that the losses of a run depend on besides the code."""
    try:
        corpus = json.loads((data / "corpus.json").read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{data} holds no tokens; run python -m training prepare first") from error
    names = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
    return {
        "model": recipe.describe(),
        "seed": recipe.seed,
        "hyperparameters": hyperparameters(recipe),
        "threads": THREADS,
        "instruction set": torch.backends.cpu.get_cpu_capability(),
        "versions": {**{name: version(name) for name in names}, "python": platform.python_version()},
        "data": corpus,
    }


def _begin(run: Path, new: dict[str, Any]) -> None:
    """Write the manifest of a new run, or see that an earlier run goes on as it began."""
    path = run / MANIFEST
    if not path.exists():
        run.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(new, indent=1) + "\n")
    earlier = json.loads(path.read_text())
    changed = [key for key in new if earlier.get(key) != new[key]]
    if changed:
        raise ValueError(
            f"the run in {run} began with other {' and '.join(changed)}; remove it, or train elsewhere"
        )


def hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """Return all that decides what is learned, under the names of `transformers.TrainingArguments`."""
    return {
        "per_device_train_batch_size": recipe.batch,
        "max_steps": recipe.steps,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 200,
        "weight_decay": 0.1,
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "max_grad_norm": 1.0,
        "seed": recipe.seed,
        "data_seed": recipe.seed,
    }


def _arguments(recipe: Recipe, run: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run),
        **hyperparameters(recipe),
        per_device_eval_batch_size=16,
        use_cpu=True,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=EVALUATE_EVERY,
        prediction_loss_only=True,
        save_steps=SAVE_EVERY,
        save_total_limit=2,
        disable_tqdm=True,
        log_level="error",
        report_to=[],
    )


def last_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end: the trainer's state is its last file."""
    folders = [folder for folder in run.glob("checkpoint-*") if folder.name[11:].isdecimal()]
    for folder in sorted(folders, key=step_of, reverse=True):
        try:
            log_of(folder)
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if all((folder / name).is_file() for name in CHECKPOINT_FILES):
            return folder
    return None


def step_of(checkpoint: Path) -> int:
    """Return the step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def log_of(checkpoint: Path) -> list[dict[str, float]]:
    """Return the trainer's log up to a checkpoint."""
    log: list[dict[str, float]] = json.loads((checkpoint / "trainer_state.json").read_text())["log_history"]
    return log
