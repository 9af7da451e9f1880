"""The two small language models that come with the package.

They were trained independently on the same stories and books, with one tokenizer, and differ in hidden size,
depth and architecture; ``docs/example-models.md`` describes them. Each is an ordinary Hugging Face folder.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError, LoadError

PREFIX = "example:"
RECORD = "training.json"


class Pair(NamedTuple):
    """The folders of the two models.

    Attributes
    ----------
    small : Path
        A GPT-2 model: 4 layers, hidden size 128, embedding and unembedding tied.
    large : Path
        A Llama model: 6 layers, hidden size 192, with a separate unembedding.
    """

    small: Path
    large: Path


def pair() -> Pair:
    """Return the folders of the two bundled models.

    Wherever a model is named, ``"example:small"`` and ``"example:large"`` stand for them.

    Returns
    -------
    Pair
        ``small`` and ``large``: folders with config, tokenizer, float16 weights (safetensors), model card
        (README.md) and the record of the training (training.json).

    Notes
    -----
    Nothing is read or fetched; the folders are part of the installed package.

    Examples
    --------
    >>> import embgeom
    >>> small, large = embgeom.examples.pair()
    >>> embgeom.load(small).matrix.shape, embgeom.load("example:large", "output").matrix.shape
    ((4096, 128), (4096, 192))
    """
    here = Path(__file__).resolve().parent
    return Pair(*(here / name for name in Pair._fields))


def without_rare_tokens(model: Embeddings) -> Embeddings:
    """Return an example model's rows without rare tokens.

    Rare tokens, raw bytes and pieces of rare words, are undertrained. In an unembedding they form a cluster
    far from the origin; where many of them are among a token's neighbors they determine its intrinsic
    dimension.

    Parameters
    ----------
    model : Embeddings
        One of the two examples, embedding or unembedding, as `embgeom.load` returns it.

    Returns
    -------
    Embeddings
        The tokens that occur more than 50 times in the training text, without the special one.

    Raises
    ------
    InputError
        If `model` is not an example.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> model, embgeom.examples.without_rare_tokens(model)
    (Embeddings('example:small', input, 4096 x 128), Embeddings('example:small', input, 3792 x 128))
    """
    file = model.provenance.file
    if file is None or not file.with_name(RECORD).is_file():
        raise InputError(f"there is no {RECORD} next to {model.name}; only the example models have one")
    rare = record(file.parent)["data"]["rare_tokens"]
    kept = np.setdiff1d(np.flatnonzero(~model.special), rare)
    tokens = [model.tokens[row] for row in kept]
    return Embeddings.from_array(model.matrix[kept], tokens, name=model.name, which=model.which)


def record(folder: Path) -> dict[str, Any]:
    """Return the content of the training.json in a model's folder."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LoadError(f"{folder / RECORD} cannot be read: {error}; install embgeom again") from error
    missing = {"model", "parameters", "data", "losses", "measured"} - found.keys()
    if missing:
        raise LoadError(
            f"{folder / RECORD} lacks {', '.join(sorted(missing))}: the installation is damaged; "
            "install embgeom again"
        )
    return found


def meant(name: str) -> str | None:
    """Return the example whose name is like one that is none, such as ``exmaple:small``."""
    names = [PREFIX + field for field in Pair._fields]
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.8)
    return close[0] if close and name not in names else None


def resolve(model: str) -> Path | None:
    """Return the folder that ``example:small`` or ``example:large`` names; None for any other name."""
    if not model.startswith(PREFIX):
        return None
    name = model.removeprefix(PREFIX)
    if name not in Pair._fields:
        known = " and ".join(f"{PREFIX}{field}" for field in Pair._fields)
        raise LoadError(f"there is no example {name!r}; the models that come with the package are {known}")
    folder: Path = getattr(pair(), name)
    if not folder.is_dir():
        raise LoadError(f"{folder} is missing: the installation is damaged; install embgeom again")
    return folder
