"""The two small language models that come with the package.

They were trained apart on the same stories and books, with one tokenizer, to differ in width, depth and
architecture; ``docs/example-models.md`` tells what they are and what was measured on them. Each is an
ordinary Hugging Face folder, so whatever reads such folders reads them.
"""

from __future__ import annotations

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
        In GPT-2's manner: 4 blocks of width 128, embedding and unembedding tied.
    large : Path
        In Llama's manner: 6 blocks of width 192, an unembedding of its own.
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
    """Return an example model's rows without the tokens that its training text hardly holds.

    Such tokens, raw bytes and pieces of rare words, were hardly trained. In an unembedding they lie together,
    far from the origin, and where many of them are among a token's neighbors they decide its intrinsic
    dimension.

    Parameters
    ----------
    model : Embeddings
        One of the two examples, as `embgeom.load` returns it, of either side.

    Returns
    -------
    Embeddings
        The tokens that the training text holds more than 50 times, less the special one.

    Raises
    ------
    InputError
        If `model` is no example, so that nothing is on record about its training.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> model, embgeom.examples.without_rare_tokens(model)
    (Embeddings('example:small', input, 4096 x 128), Embeddings('example:small', input, 3792 x 128))
    """
    file = model.provenance.file
    if file is None or not file.with_name(RECORD).is_file():
        raise InputError(f"{model.name} has no {RECORD} beside it; only the example models are recorded so")
    rare = record(file.parent)["data"]["rare_tokens"]
    kept = np.setdiff1d(np.flatnonzero(~model.special), rare)
    tokens = [model.tokens[row] for row in kept]
    return Embeddings.from_array(model.matrix[kept], tokens, name=model.name, which=model.which)


def record(folder: Path) -> dict[str, Any]:
    """Return what is on record about the training of an example.

    Parameters
    ----------
    folder : Path
        The model's folder.

    Returns
    -------
    dict
        The content of its training.json.

    Raises
    ------
    LoadError
        If the file is missing or incomplete.
    """
    from embgeom.loading.folder import read_json

    content = read_json(folder / RECORD)
    missing = {"model", "parameters", "data", "losses", "measured"} - content.keys()
    if missing:
        raise LoadError(
            f"{folder / RECORD} lacks {', '.join(sorted(missing))}: the installation is damaged; "
            "install embgeom again"
        )
    return content


def resolve(model: str) -> Path | None:
    """Return the folder that ``example:small`` or ``example:large`` names; None for any other name.

    Parameters
    ----------
    model : str
        A model as a user names it.

    Returns
    -------
    Path or None
        The folder.

    Raises
    ------
    LoadError
        If `model` begins with ``example:`` and goes on with no example's name, or the folder is missing.
    """
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
