"""The options of the command ``embgeom``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, get_args

from embgeom._common.tables import visible
from embgeom.cli import steering_options as steering
from embgeom.cli.main import USAGE_ERROR
from embgeom.geometry.knn import Metric

# What options of a model may name a file or folder.
_MODEL_INPUTS = ("model", "tokens", "vocabulary", "tokenizer", "adapter")

Run = Callable[[argparse.Namespace], None]


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for argument in args or ():
            if "\0" in argument:
                self.error(f"{argument!r} holds a NUL character, which no argument can")
        return super().parse_known_args(args, namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)


def build_parser(runs: Mapping[str, Run]) -> argparse.ArgumentParser:
    """Return the parser of all subcommands; each sets `run` to its function in `runs`."""
    from embgeom import __version__

    parser = _Parser(prog="embgeom", description="The geometry of language models' token embeddings.")
    parser.add_argument("--version", action="version", version=f"embgeom {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, (question, add_options) in _COMMANDS.items():
        command = commands.add_parser(name, help=question, description=question)
        command.set_defaults(run=runs[name])
        add_options(command)
        _add_common(command.add_argument_group("common options"))
    return parser


def model_inputs(options: argparse.Namespace) -> list[str]:
    """Return the names of all that is read of the models of a command."""
    names = (f"{name}{suffix}" for name in _MODEL_INPUTS for suffix in ("", "_a", "_b"))
    return [value for name in names if isinstance(value := getattr(options, name, None), str)]


def _add_demo(command: Any) -> None:
    """Add nothing: all that can be chosen about the demonstration are the common options."""


def _add_compare(command: Any) -> None:
    _add_model(command, "-a")
    _add_model(command, "-b")
    command.add_argument(
        "-k", type=int, default=10, help="neighbors for overlap and LLE weights (default: 10)"
    )
    _add_reg(command)
    _add_dimension(command)
    _add_sampling(command)
    _add_metric(command)
    _add_offline(command)
    command.add_argument("--html", metavar="FILE", help="write the tables as HTML, too")
    _add_output(command)


def _add_inspect(command: Any) -> None:
    _add_model(command)
    _add_dimension(command)
    _add_sampling(command)
    _add_metric(command)
    _add_offline(command)
    _add_output(command)


def _add_neighbors(command: Any) -> None:
    _add_model(command)
    command.add_argument(
        "token",
        metavar="TOKEN",
        nargs="+",
        help="a token as it is written in the vocabulary, or as text: what spells it exactly comes first, "
        "then what spells it after a space ('dog' may find ' dog')",
    )
    command.add_argument("--row", action="store_true", help="TOKEN is a row number")
    command.add_argument(
        "-k", type=int, default=10, help="neighbors to show and to reconstruct from (default: 10)"
    )
    _add_reg(command)
    _add_dimension(command)
    _add_metric(command)
    _add_offline(command)


def _add_fit(command: Any) -> None:
    _add_model(command, "-a", which="output")
    _add_model(command, "-b", which="output")
    steering.add_fit_options(command)
    _add_offline(command)


def _add_train_vector(command: Any) -> None:
    _add_language_model(command)
    steering.add_train_options(command)


def _add_steer(command: Any) -> None:
    _add_language_model(command)
    steering.add_steer_options(command)


def _add_evaluate(command: Any) -> None:
    _add_language_model(command)
    steering.add_evaluate_options(command)


def _add_sweep(command: Any) -> None:
    _add_language_model(command)
    steering.add_sweep_options(command)


_COMMANDS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "demo": ("What do the two models that come with embgeom share? Takes some seconds.", _add_demo),
    "compare": ("What do the token embeddings of two models share?", _add_compare),
    "inspect": ("What are one model's rows like?", _add_inspect),
    "neighbors": ("What surrounds a token?", _add_neighbors),
    "fit": ("Fit a map from one model to another on the tokens that they share.", _add_fit),
    "train-vector": ("Make a steering vector from pairs of texts.", _add_train_vector),
    "transfer": ("Transfer a steering vector over a map.", steering.add_transfer_options),
    "steer": ("What does a model write without and with a steering vector?", _add_steer),
    "evaluate": ("Does a steering vector steer? Beside random and other controls.", _add_evaluate),
    "sweep": ("At which block and scale does a steering vector steer best?", _add_sweep),
}


def _add_language_model(command: Any) -> None:
    """Add a model that is to run, not only to be read."""
    command.add_argument(
        "model", metavar="MODEL", help="a Hugging Face folder or id, example:small or example:large"
    )
    command.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hugging Face id")
    command.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that the model brings along"
    )
    _add_offline(command)


def _add_model(command: Any, suffix: str = "", which: str = "input") -> None:
    """Add a model and the options that belong to it alone; `suffix` tells the models of a command apart."""
    letter = suffix[1:].upper()
    name = f"model{suffix.replace('-', '_')}"
    group = command.add_argument_group(f"model {letter}" if letter else "model")
    group.add_argument(
        name,
        metavar=letter or "MODEL",
        help="a folder, a Hugging Face id, example:small or example:large (which come with embgeom), or a "
        "file: .safetensors, .bin, .gguf, .npy, .npz (arrays matrix, tokens and, perhaps, special), or word "
        "vectors (.txt, .vec, .kv)",
    )
    group.add_argument(
        f"--which{suffix}",
        choices=("input", "output"),
        # Left open, a matrix that --tensor names says itself which of the two it is.
        default=None if which == "input" else which,
        help=f"embedding or unembedding (default: {which})",
    )
    group.add_argument(
        f"--tensor{suffix}", metavar="NAME", help="the tensor to use, where it cannot be told by itself"
    )
    group.add_argument(
        f"--vocabulary{suffix}",
        metavar="FILE",
        help="the tokens, where it has none: .txt (a line each), .json list, vocab.json, tokenizer.json",
    )
    group.add_argument(
        f"--adapter{suffix}",
        metavar="FOLDER",
        help="a PEFT adapter of the model, to be merged into the matrix",
    )
    group.add_argument(
        f"--token-format{suffix}",
        choices=("words",),
        help="the tokens are whole words, without a mark (found by itself for word vectors)",
    )
    group.add_argument(
        f"--subfolder{suffix}", metavar="FOLDER", help="the folder within the model that holds its weights"
    )
    group.add_argument(
        f"--revision{suffix}", metavar="REV", help="branch, tag or commit of a Hugging Face id"
    )


def _add_reg(command: Any) -> None:
    command.add_argument(
        "--reg", type=float, default=1e-3, help="regularization of LLE weights (default: 1e-3)"
    )


def _add_dimension(command: Any) -> None:
    command.add_argument(
        "--dimension-k",
        type=int,
        metavar="K",
        help="neighbors for the intrinsic dimension (default: a tenth of the tokens, from 50 to 1200)",
    )
    command.add_argument(
        "--variance", type=float, default=0.95, help="share of variance to explain (default: 0.95)"
    )


def _add_sampling(command: Any) -> None:
    command.add_argument(
        "--dimension-sample",
        type=int,
        metavar="M",
        default=500,
        help="tokens whose dimension is measured (default: 500)",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of samples and null models (default: 0)")


def _add_output(command: Any) -> None:
    command.add_argument(
        "-o", "--output", metavar="FOLDER", help="write arrays, tables and provenance into a new folder"
    )
    command.add_argument(
        "--table-format", choices=("csv", "parquet"), default="csv", help="format of tables (default: csv)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace earlier results in FOLDER")


def _add_metric(command: Any) -> None:
    command.add_argument(
        "--metric", choices=get_args(Metric), default="cosine", help="what near means (default: cosine)"
    )


def _add_offline(command: Any) -> None:
    command.add_argument(
        "--local-files-only", action="store_true", help="use only what the local Hugging Face cache holds"
    )


def _add_common(group: Any) -> None:
    group.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores available)")
    group.add_argument("--quiet", action="store_true", help="show no progress")
    group.add_argument("--debug", action="store_true", help="show where an error arose")
