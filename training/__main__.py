"""The command ``python -m training``: prepare, train, export, describe, reproduce."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

FOLDERS = Path(__file__).resolve().parents[1] / "python" / "embgeom" / "examples"


def main() -> int:
    options = _parser().parse_args()
    run: int | None = options.run(options)
    return run or 0


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

    documents = list(read(options.text))
    for name, recipe in RECIPES.items():
        print(f"{name}: measuring", flush=True)
        export(recipe, options.work / "data", options.work / name, FOLDERS / name, documents)
    _describe(options)


def _describe(options: argparse.Namespace) -> None:
    from training.card import write_descriptions

    write_descriptions({name: FOLDERS / name for name in ("small", "large")})


def _reproduce(options: argparse.Namespace) -> int:
    from training.data import prepare
    from training.models import RECIPES
    from training.reproduce import TOLERANCE, reproduce

    with tempfile.TemporaryDirectory() as work:
        data = Path(work)
        prepare(options.text, data)
        recipe = RECIPES[options.model]
        difference = reproduce(recipe, data, FOLDERS / options.model, options.steps)
    held = difference <= TOLERANCE
    print(
        f"{options.model}: {options.steps} steps, largest difference from the recorded losses "
        f"{difference:.2e} of the loss ({'within' if held else 'NOT within'} {TOLERANCE:.0e})"
    )
    return 0 if held else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: object, what: str, *arguments: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what)
        command.set_defaults(run=run)
        if "model" in arguments:
            command.add_argument("model", choices=("small", "large"))
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
