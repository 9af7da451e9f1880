"""The command ``python -m training``: prepare, train, export, describe, reproduce."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDERS = Path(__file__).resolve().parents[1] / "python" / "embgeom" / "examples"
MODELS = ("small", "large")
USAGE_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        status: int | None = options.run(options)
    except (FileNotFoundError, ValueError) as error:
        print(f"training: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("training: interrupted; train goes on from its last checkpoint", file=sys.stderr)
        return INTERRUPTED
    return status or 0


def _prepare(options: argparse.Namespace) -> None:
    from training.data import prepare

    prepare(options.text, options.work / "data")


def _train(options: argparse.Namespace) -> None:
    from training.models import RECIPES
    from training.train import train

    train(RECIPES[options.model], options.work / "data", options.work / options.model)


def _export(options: argparse.Namespace) -> None:
    from training.corpus import read
    from training.export import export
    from training.models import RECIPES

    export(RECIPES.values(), options.work, FOLDERS, list(read(options.text)))


def _describe(options: argparse.Namespace) -> None:
    from training.card import write_descriptions

    write_descriptions({name: FOLDERS / name for name in MODELS})


def _reproduce(options: argparse.Namespace) -> int:
    from training.models import RECIPES
    from training.reproduce import TOLERANCE, reproduce

    recipe = RECIPES[options.model]
    difference = reproduce(recipe, options.text, FOLDERS / recipe.name, options.steps)
    held = difference <= TOLERANCE
    print(
        f"{recipe.name}: {options.steps} steps, largest difference from the recorded losses {difference:.1e} "
        f"of the loss ({'within' if held else 'NOT within'} {TOLERANCE:.0e})"
    )
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, what: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=run)
        if "model" in arguments:
            command.add_argument("model", choices=MODELS)
        for folder, means in (
            ("text", "the folder of the text, see training/README.md"),
            ("work", "the folder for tokens and runs"),
        ):
            if folder in arguments:
                command.add_argument(
                    f"--{folder}", type=Path, required=True, metavar=folder.upper(), help=means
                )
        return command

    add("prepare", _prepare, "Train the tokenizer, and turn the text into tokens.", "text", "work")
    add("train", _train, "Train a model, going on from where an earlier run stopped.", "model", "work")
    add("export", _export, "Measure both trained models and write them into the package.", "text", "work")
    add("describe", _describe, "Write the model cards and the docs page anew from what is on record.")
    reproduce = add(
        "reproduce", _reproduce, "Compare the first steps' losses with the recorded ones.", "model", "text"
    )
    reproduce.add_argument("--steps", type=int, default=50, help="how many steps (default: 50)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
