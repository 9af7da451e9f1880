"""Contrastive pairs of texts, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError
from embgeom.lm.tokenizing import check_text
from embgeom.loading.folder import read_bytes
from embgeom.steering.table import read_table

Pair = tuple[str, str]
Template = str | Callable[[str, str], str]

_TEMPLATE = "{question}\n\nAnswer: {answer}"


def read_pairs(path: str | PathLike[str], *, template: Template = _TEMPLATE) -> list[Pair]:
    r"""Read contrastive pairs from a JSON, JSON Lines or CSV file.

    Parameters
    ----------
    path : str or path
        A file in UTF-8 whose name ends in .json (a list), .jsonl (one item on each line), .csv or .tsv
        (with a header; in a .csv the columns are divided by commas, semicolons, tabs or bars, whichever its
        header has). An item is a pair ``[positive, negative]`` (not in tables); or has ``positive`` and
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
        If the file cannot be read, or an item is no pair; its number or line and what it holds are named.
    InputError
        If `path` is no path, or `template` lacks ``{question}`` or ``{answer}``.

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
    try:
        file = Path(path)
    except TypeError:
        raise InputError(f"path = {path!r:.60} names no file; give one of pairs of texts") from None
    items = list(_items(file))
    if not items:
        raise LoadError(f"{file} holds no pair")
    return [_pair(item, write, f"{file}, {where}") for where, item in items]


def check_pairs(pairs: Iterable[Sequence[str]]) -> list[Pair]:
    """Return pairs as a list of tuples of two texts.

    Raises
    ------
    InputError
        If there is none, or one is not two texts.
    """
    checked: list[Pair] = []
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise InputError(f"pairs = {pairs!r:.80} are no list of pairs (positive, negative)")
    for number, pair in enumerate(pairs):
        try:
            texts = [] if isinstance(pair, str) else list(pair)
        except TypeError:
            texts = []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(f"pair {number} is {pair!r:.80}, not two texts (positive, negative)")
        positive, negative = texts
        checked.append(
            (
                check_text(positive, f"positive text of pair {number}"),
                check_text(negative, f"negative text of pair {number}"),
            )
        )
    if not checked:
        raise InputError("there are no pairs; one (positive, negative) is needed at least")
    return checked


def _writer(template: Template) -> Callable[[str, str], str]:
    if callable(template):
        return template
    if not isinstance(template, str):
        raise InputError(f"template = {template!r:.60} is neither a string nor a function")
    if "{question}" not in template or "{answer}" not in template:
        raise InputError(f"template = {template!r} must hold {{question}} and {{answer}}")
    try:
        template.format(question="", answer="")
    except (KeyError, IndexError, ValueError, AttributeError):
        raise InputError(
            f"template = {template!r}: braces of its own are written twice, {{{{ and }}}}"
        ) from None
    return lambda question, answer: template.format(question=question, answer=answer)


def _items(file: Path) -> Iterator[tuple[str, Any]]:
    """Give the items of a file as they stand there, each with its place."""
    kind = file.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv", ".tsv"):
        raise LoadError(
            f"{file}: pairs are read from .json, .jsonl, .csv and .tsv files, not from {kind or file.name!r}"
        )
    text = _text(file)
    if kind in (".csv", ".tsv"):
        yield from read_table(text, str(file), "\t" if kind == ".tsv" else None)
    elif kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _parsed(line, f"{file}, line {number},", "JSONL")
    else:
        found = _parsed(text, str(file), "JSON")
        if not isinstance(found, list):
            raise LoadError(f"{file} holds a {type(found).__name__}, not a list of pairs")
        for number, item in enumerate(found, start=1):
            yield f"item {number}", item


def _text(file: Path) -> str:
    content = read_bytes(file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = "; save it as UTF-8, not as UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise LoadError(f"{file} is not in UTF-8: {error.reason} at byte {error.start}{other}") from error


def _parsed(text: str, where: str, kind: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise LoadError(f"{where} is not {kind} of pairs: it is nested too deep") from error
    except ValueError as error:
        # Of a number with thousands of digits as well as of what is no JSON.
        raise LoadError(f"{where} is not {kind}: {error}") from error


def _pair(item: Any, write: Callable[[str, str], str], where: str) -> Pair:
    """Return the pair that an item holds."""
    try:
        positive, negative = _texts(item, write, where)
        return check_text(positive), check_text(negative)
    except InputError as error:
        raise LoadError(f"{where}: {error}") from error


def _texts(item: Any, write: Callable[[str, str], str], where: str) -> Pair:
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
