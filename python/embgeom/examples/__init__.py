"""The two small language models that come with the package.

They were trained apart on the same stories and books, with one tokenizer, to differ in width, depth and
architecture; ``docs/example-models.md`` tells what they are and what was measured on them. Each is an
ordinary Hugging Face folder, so whatever reads such folders reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from embgeom.errors import LoadError

PREFIX = "example:"


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
        If `model` begins with ``example:`` and goes on with no example's name.
    """
    if not model.startswith(PREFIX):
        return None
    name = model.removeprefix(PREFIX)
    if name not in Pair._fields:
        known = " and ".join(f"{PREFIX}{field}" for field in Pair._fields)
        raise LoadError(f"there is no example {name!r}; the models that come with the package are {known}")
    folder: Path = getattr(pair(), name)
    return folder
