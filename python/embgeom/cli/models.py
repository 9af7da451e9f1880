"""The models and texts of a command: the options that name them, and loading them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import embgeom
from embgeom._common.threads import resolve_threads
from embgeom.cli.options import LOCAL_FILES, Once, Parser, chosen, whole
from embgeom.errors import InputError, LoadError, first_line
from embgeom.examples import PREFIX, meant
from embgeom.loading.config import ModelConfig
from embgeom.loading.folder import is_file, read_lines
from embgeom.loading.model import declared_sizes
from embgeom.steering import LanguageModel, SteeringVector, load_language_model
from embgeom.steering.files import check_vector_path

# Options of a model that `embgeom.load` takes by the same name, and those that may name a file.
LOADED = ("tensor", "vocabulary", "adapter", "subfolder", "token_format", "revision")
_FILES = ("model", "vocabulary", "adapter")
# One of these is in every folder that holds a model.
_SUFFIXES = (".bin", ".gguf", ".json", ".safetensors")
MOODS = f"{PREFIX}moods"


def model_options(suffix: str = "", which: str = "input", flag: str | None = None) -> Parser:
    options, letter = Parser(add_help=False), suffix[1:].upper()
    group = options.add_argument_group(f"model {letter}".strip())
    dest = f"model{suffix.replace('-', '_')}"
    named: dict[str, Any] = {} if flag is None else {"dest": dest, "action": Once}
    group.add_argument(
        flag or dest,
        **named,
        metavar=letter if letter and flag is None else "MODEL",
        help="a folder, a Hugging Face id, example:small or example:large (which come with embgeom), or a "
        "file: .safetensors, .bin, .gguf, .npy, .npz (arrays matrix, tokens and, optionally, special), or "
        "word vectors (.txt, .vec, .kv)",
    )
    # Left open, a matrix that --tensor names determines itself which of the two it is.
    default, explained = (None if which == "input" else which), f"embedding or unembedding (default: {which})"
    group.add_argument(f"--which{suffix}", choices=("input", "output"), default=default, help=explained)
    for name, metavar, explained in (
        ("tensor", "NAME", "the tensor to use, if it cannot be determined"),
        ("vocabulary", "FILE", "the tokens: .txt (one per line), .json list, vocab.json, tokenizer.json"),
        ("adapter", "FOLDER", "a PEFT adapter to merge into the matrix"),
        ("subfolder", "FOLDER", "the folder within the model that holds its weights"),
        ("revision", "REV", "branch, tag or commit of a Hugging Face id"),
    ):
        group.add_argument(f"--{name}{suffix}", metavar=metavar, help=explained)
    explained = "the tokens are whole words without marks (the default for word vectors)"
    group.add_argument(f"--token-format{suffix}", choices=("words",), help=explained)
    return options


def load_model(options: argparse.Namespace, suffix: str = "") -> embgeom.Embeddings:
    named = {name: getattr(options, f"{name}{suffix}") for name in ("model", "which", *LOADED)}
    return embgeom.load(
        named.pop("model"),
        named.pop("which"),
        **named,
        **chosen(options, "local_files_only", "threads", "progress"),
    )


def final_norm(options: argparse.Namespace, suffix: str) -> embgeom.FinalNorm:
    return embgeom.load_final_norm(
        getattr(options, f"model{suffix}"),
        subfolder=getattr(options, f"subfolder{suffix}"),
        revision=getattr(options, f"revision{suffix}"),
        local_files_only=options.local_files_only,
    )


def is_model(text: str, first: embgeom.Embeddings) -> bool:
    """Whether an argument that may be a token names a model: an example, a path of one, or an id."""
    path = Path(text)
    if text.startswith(PREFIX) or (is_file(path) and path.suffix):
        return True
    if path.is_dir():
        return any(each.suffix in _SUFFIXES for each in path.iterdir())
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text) and meant(text) is None:
        return False
    try:
        first.row_of(text)
    except InputError:
        return True
    return False


def model_inputs(options: argparse.Namespace) -> list[str]:
    """Return the names of everything that a command reads of its models."""
    names = (f"{name}{suffix}" for name in _FILES for suffix in ("", "_a", "_b", "_from", "_to"))
    return [value for name in names if (value := getattr(options, name, None)) is not None]


def language_model_options(batch_size: int = 8) -> Parser:
    options = Parser(add_help=False, parents=[LOCAL_FILES, running_options(batch_size)])
    explained = "a Hugging Face folder or id, a GGUF file, example:small or example:large"
    options.add_argument("model", metavar="MODEL", help=explained)
    options.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hugging Face id")
    return options


def running_options(batch_size: int = 8) -> Parser:
    """Return the options on how models are run."""
    options = Parser(add_help=False)
    add = options.add_argument_group("how models are run").add_argument
    add("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    explained = "float32, bfloat16, float16 or auto (default: float32 on a CPU, else auto: as it is stored)"
    add("--dtype", metavar="TYPE", help=explained)
    add("--device", metavar="D", help="cpu, cuda, cuda:1, mps, ... (default: a GPU where there is one)")
    add("--device-map", metavar="MAP", help="distribute the layers over devices: auto, balanced, sequential")
    explained = "round weights to 8 or 4 bits while loading (bitsandbytes)"
    add("--quantize", type=int, choices=(8, 4), help=explained)
    explained = f"texts in a forward pass (default: {batch_size})"
    add("--batch-size", type=whole(1), metavar="N", default=batch_size, help=explained)
    return options


def steered_model_options(batch_size: int = 8) -> Parser:
    options = Parser(add_help=False, parents=[language_model_options(batch_size)])
    add = options.add_argument
    add("--vector", metavar="FILE", required=True, action=Once, help="a steering vector")
    add("--positions", choices=("all", "generated"), default="all", help="where it acts (default: all)")
    add("--chat", action="store_true", help="put prompts into the model's chat template")
    add("--seed", type=whole(0), default=0, help="seed of everything random (default: 0)")
    return options


def one_side(options: argparse.Namespace, suffix: str) -> argparse.Namespace:
    """Return the options on running one of two models as a command of one model has them."""
    for name in ("adapter", "subfolder"):
        if getattr(options, f"{name}{suffix}"):
            raise InputError(
                f"--{name}{suffix.replace('_', '-')} is for the matrix, and the model would be run without "
                "it: name a folder that holds the model as it is to be run"
            )
    one = {name: getattr(options, f"{name}{suffix}") for name in ("model", "revision")}
    return argparse.Namespace(**{**vars(options), **one})


def sizes(options: argparse.Namespace, suffix: str = "") -> ModelConfig:
    """Return what a model says of its sizes, before its weights are read."""
    name = getattr(options, f"model{suffix}")
    hub = {"revision": getattr(options, f"revision{suffix}"), "local_files_only": options.local_files_only}
    return declared_sizes(name, **hub) if isinstance(name, str) else ModelConfig()


def check_layers(known: ModelConfig, name: str, layers: Iterable[int]) -> None:
    if known.num_layers is not None and (beyond := [n for n in layers if n >= known.num_layers]):
        count = known.num_layers
        raise InputError(f"there is no layer {beyond[0]}: {name} has {count} layers, 0 to {count - 1}")


def check_fits(options: argparse.Namespace, vector: SteeringVector, layers: Iterable[int]) -> None:
    """Refuse a vector that does not fit the model, as far as its files tell without its weights."""
    known = sizes(options)
    if known.hidden_size not in (None, vector.hidden_size):
        raise InputError(
            f"the vector has hidden size {vector.hidden_size}, {options.model} {known.hidden_size}: it is "
            "another model's; embgeom transfer transfers it to this one"
        )
    check_layers(known, options.model, layers)


def check_vector_output(path: str, layers: Iterable[int], operation: str, others: str = "") -> None:
    """Refuse a vector's file that cannot be written, or cannot hold what would be written to it."""
    check_vector_path(path)
    if Path(path).suffix != ".gguf":
        return
    if 0 in layers:
        raise InputError(
            f"{path} cannot hold layer 0, which llama.cpp never steers: name others by --layers{others}, or "
            "write a .safetensors"
        )
    if operation != "add":
        raise InputError(
            f"{path} cannot hold the operation {operation}, as llama.cpp adds every direction: write a "
            ".safetensors"
        )


@contextmanager
def running(options: argparse.Namespace) -> Iterator[LanguageModel]:
    """Load the model of a command and give it while it runs, with the command's number of threads.

    A lack of the accelerator's memory becomes an InputError.
    """
    threads = None if options.threads is None else resolve_threads(options.threads)
    names = ("revision", "local_files_only", "trust_remote_code", "dtype", "device", "device_map", "quantize")
    # A command that runs two models has few of these options.
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    loaded = load_language_model(options.model, **given)
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with _quiet_transformers():
            yield loaded
    except torch.cuda.OutOfMemoryError as error:
        size = options.batch_size
        raise InputError(f"{first_line(error)}; a --batch-size below {size} needs less") from error
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Let transformers log only errors, unless the user has asked for more."""
    # While a model is loaded it reports problems with the weights, but after that how it is called, which the
    # user cannot change.
    from transformers.utils import logging

    level = logging.get_verbosity()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def text_lines(name: str, example: Callable[[], list[str]]) -> list[str]:
    if is_moods(name):
        return example()
    found = [line for line in read_lines(Path(name)) if line.strip()]
    if not found:
        raise InputError(f"{name} holds no text; write one text per line")
    return found


def is_moods(name: str) -> bool:
    """Whether `name` stands for the example's texts; raise LoadError for another name like it."""
    if not name.startswith(PREFIX) or is_file(Path(name)):
        return False
    if name != MOODS:
        raise LoadError(f"there are no texts {name!r}; those that come with the package are {MOODS}")
    return True
