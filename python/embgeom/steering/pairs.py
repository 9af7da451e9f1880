"""Contrastive pairs of texts, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import read_bytes

Pair = tuple[str, str]
Template = str | Callable[[str, str], str]

_TEMPLATE = "{question}\n\nAnswer: {answer}"


def read_pairs(path: str | PathLike[str], *, template: Template = _TEMPLATE) -> list[Pair]:
    r"""Read contrastive pairs from a JSON, JSON Lines or CSV file.

    Parameters
    ----------
    path : str or path
        A file in UTF-8 whose name ends in .json (a list), .jsonl (one item on each line), .csv or .tsv
        (with a header). An item is a pair ``[positive, negative]`` (not in tables); or has ``positive`` and
        ``negative``, and perhaps a ``prompt`` that both begin with; or has ``question``,
        ``answer_matching_behavior`` and ``answer_not_matching_behavior``, as the data of contrastive
        activation addition do.
    template : str or callable
        How a question and an answer make a text: a string with ``{question}`` and ``{answer}``, or a
        function of the two, which may write a chat model's marks.

    Returns
    -------
    list of (str, str)
        A positive and a negative text for each item.

    Raises
    ------
    LoadError
        If the file cannot be read, or an item is no pair; its number and what it holds are named.
    InputError
        If `template` lacks ``{question}`` or ``{answer}``.

    References
    ----------
    Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from embgeom.steering.pairs import read_pairs
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name, "pairs.jsonl")
    >>> _ = file.write_text('["I am glad.", "I am sad."]\n{"positive": "Hurray!", "negative": "Alas!"}\n')
    >>> read_pairs(file)
    [('I am glad.', 'I am sad.'), ('Hurray!', 'Alas!')]
    >>> folder.cleanup()
    """
    write = _writer(template)
    file = Path(path)
    items = _items(file)
    if not items:
        raise LoadError(f"{file} holds no pair")
    return [_pair(item, write, f"{file}, item {number}") for number, item in enumerate(items, start=1)]


def check_pairs(pairs: Iterable[Sequence[str]]) -> list[Pair]:
    """Return pairs as a list of tuples of two texts.

    Raises
    ------
    InputError
        If there is none, or one is not two texts.
    """
    checked = []
    for number, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"pair {number} is {pair!r:.80}, not two texts (positive, negative)")
        checked.append((pair[0], pair[1]))
    if not checked:
        raise InputError("there are no pairs; one (positive, negative) is needed at least")
    return checked


def _writer(template: Template) -> Callable[[str, str], str]:
    if callable(template):
        return template
    if "{question}" not in template or "{answer}" not in template:
        raise InputError(f"template = {template!r} must hold {{question}} and {{answer}}")
    try:
        template.format(question="", answer="")
    except (KeyError, IndexError, ValueError):
        raise InputError(
            f"template = {template!r}: braces of its own are written twice, {{{{ and }}}}"
        ) from None
    return lambda question, answer: template.format(question=question, answer=answer)


def _items(file: Path) -> list[Any]:
    """Return the items of a file as they stand there."""
    try:
        text = read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LoadError(f"{file} is not in UTF-8: {error.reason} at byte {error.start}") from error
    kind = file.suffix.lower()
    if kind in (".csv", ".tsv"):
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == ".tsv" else ","))
    try:
        if kind == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        if kind == ".json":
            items = json.loads(text)
            if isinstance(items, list):
                return items
            raise LoadError(f"{file} holds a {type(items).__name__}, not a list of pairs")
    except json.JSONDecodeError as error:
        raise LoadError(f"{file} is not {kind[1:].upper()}: {error}") from error
    raise LoadError(
        f"{file}: pairs are read from .json, .jsonl, .csv and .tsv files, not from {kind or file.name!r}"
    )


def _pair(item: Any, write: Callable[[str, str], str], where: str) -> Pair:
    """Return the pair that an item holds."""
    match item:
        case [str(positive), str(negative)]:
            return (positive, negative)
        case {"positive": str(positive), "negative": str(negative), **rest}:
            prompt = rest.get("prompt") or ""
            if isinstance(prompt, str):
                return (prompt + positive, prompt + negative)
        case {
            "question": str(question),
            "answer_matching_behavior": str(matching),
            "answer_not_matching_behavior": str(other),
        }:
            return (write(question, matching), write(question, other))
    raise LoadError(
        f"{where} is {item!r:.80}: neither two texts, nor has it positive and negative, "
        "nor question, answer_matching_behavior and answer_not_matching_behavior"
    )
