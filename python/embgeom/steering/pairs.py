"""Contrastive pairs of texts, and the JSON, JSON Lines, CSV and TSV files that hold them."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError
from embgeom.lm.tokenizing import check_text, in_chat
from embgeom.loading.folder import parse_json, read_bytes

Pair = tuple[str, str]
Template = str | Callable[[str, str], str]

_TEMPLATE = "{question}\n\nAnswer: {answer}"
_QUESTIONS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_COLUMNS = ({"positive", "negative"}, set(_QUESTIONS))
_DELIMITERS = (",", ";", "\t", "|")
# The most that the C type of the limit holds on every platform.
_NO_LIMIT = 2**31 - 1
_one_at_a_time = threading.Lock()


def read_pairs(path: str | PathLike[str], *, template: Template = _TEMPLATE, chat: Any = None) -> list[Pair]:
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
    chat : transformers.PreTrainedTokenizerBase, optional
        A tokenizer in whose chat template each text is written, special tokens included, so that the texts
        are read with ``add_special_tokens=False``: a question or prompt is the user's turn, and its answers
        begin the assistant's; a text without one is a user's turn, which the assistant is about to answer.

    Returns
    -------
    list of (str, str)
        A positive and a negative text for each item.

    Raises
    ------
    LoadError
        If the file cannot be read, or an item is not a pair; its number or line and what it holds are named.
    InputError
        If `path` is not a path, or `template` lacks ``{question}`` or ``{answer}``.

    References
    ----------
    Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from embgeom.steering import read_pairs
    >>> folder = tempfile.TemporaryDirectory()
    >>> file = Path(folder.name, "pairs.jsonl")
    >>> _ = file.write_text('["I am glad.", "I am sad."]\n{"positive": "Hurray!", "negative": "Alas!"}\n')
    >>> read_pairs(file)
    [('I am glad.', 'I am sad.'), ('Hurray!', 'Alas!')]
    >>> folder.cleanup()
    """
    write = _writer(template, chat)
    try:
        file = Path(path)
    except TypeError:
        raise InputError(f"path = {path!r:.60} names no file; give one of pairs of texts") from None
    pairs = [_pair(item, write, chat, f"{file}, {where}") for where, item in _items(file)]
    if not pairs:
        raise LoadError(f"{file} holds no pair")
    return pairs


def check_pairs(pairs: Iterable[Sequence[str]]) -> list[Pair]:
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise InputError(f"pairs = {pairs!r:.80} are not a list of pairs (positive, negative)")
    checked = []
    for number, pair in enumerate(pairs):
        texts = list(pair) if isinstance(pair, Iterable) and not isinstance(pair, str) else []
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise InputError(f"pair {number} is {pair!r:.80}, not two texts (positive, negative)")
        positive, negative = texts
        check_text(positive, f"positive text of pair {number}")
        check_text(negative, f"negative text of pair {number}")
        checked.append((positive, negative))
    if not checked:
        raise InputError("there are no pairs; one (positive, negative) is needed at least")
    return checked


def _writer(template: Template, chat: Any) -> Callable[[str, str], str]:
    if chat is not None:
        return lambda question, answer: in_chat(chat, question) + answer
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
    """Give the items of a file as they stand there, each with its number or line."""
    kind = file.suffix.lower()
    if kind not in (".json", ".jsonl", ".csv", ".tsv"):
        raise LoadError(
            f"{file}: pairs are read from .json, .jsonl, .csv and .tsv files, not from {kind or file.name!r}"
        )
    held = read_bytes(file)
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        other = "; save it as UTF-8, not as UTF-16" if held[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise LoadError(f"{file} is not in UTF-8: {error.reason} at byte {error.start}{other}") from error
    if kind in (".csv", ".tsv"):
        yield from _table(text, str(file), "\t" if kind == ".tsv" else None)
    elif kind == ".jsonl":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", parse_json(line, f"{file}, line {number},")
    else:
        found = parse_json(text, str(file))
        if not isinstance(found, list):
            raise LoadError(f"{file} holds a {type(found).__name__}, not a list of pairs")
        yield from ((f"item {number}", item) for number, item in enumerate(found, start=1))


def _pair(item: Any, write: Callable[[str, str], str], chat: Any, where: str) -> Pair:
    texts: Any = None
    match item:
        case [str(positive), str(negative)]:
            texts = _continued("", positive, chat), _continued("", negative, chat)
        case {"positive": str(positive), "negative": str(negative), **rest}:
            prompt = rest.get("prompt") or ""
            if isinstance(prompt, str):
                texts = tuple(_continued(prompt, text, chat) for text in (positive, negative))
        case {
            "question": str(question),
            "answer_matching_behavior": str(matching),
            "answer_not_matching_behavior": str(other),
        }:
            texts = write(question, matching), write(question, other)
    if texts is None:
        raise LoadError(
            f"{where} is {item!r:.80}: neither two texts, nor has it positive and negative, nor "
            f"{', '.join(_QUESTIONS)}"
        )
    try:
        return check_text(texts[0]), check_text(texts[1])
    except InputError as error:
        raise LoadError(f"{where}: {error}") from error


def _continued(prompt: str, text: str, chat: Any) -> str:
    """Return a text that a prompt begins; in a chat it answers the prompt, and is one where there is none."""
    if chat is None:
        return prompt + text
    return in_chat(chat, prompt) + text if prompt else in_chat(chat, text)


def _table(text: str, name: str, delimiter: str | None) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the rows of a table as dicts by column in lower case, each with the line on which it begins."""
    # Spreadsheets may say on a line before the header what divides the columns.
    if said := re.match(r"sep=(.)\r?\n", text):
        text, delimiter = "\n" + text[said.end() :], said[1]
    first = next((line for line in re.split(r"[\r\n]", text) if line), "")
    delimiter = delimiter or _found_delimiter(first)
    # Whoever writes a space after each comma of the header does so in the rows, too.
    spaced = all(part[:1] == " " for part in first.split(delimiter)[1:])
    with _long_fields():
        rows = list(_rows(text, name, delimiter, spaced=spaced))
    if not rows:
        return
    line, header = rows.pop(0)
    columns = [column.strip().lower() for column in header]
    if not any(known <= set(columns) for known in _COLUMNS):
        raise LoadError(
            f"{name}, line {line} names the columns {', '.join(map(repr, header))!s:.80}: positive and "
            f"negative are needed, or {', '.join(_QUESTIONS)}, divided by , ; | or a tab"
        )
    if double := [column for column in columns if column and columns.count(column) > 1]:
        raise LoadError(f"{name}, line {line} names the column {double[0]!r} twice")
    for line, row in rows:
        if len(row) != len(columns):
            raise LoadError(
                f"{name}, line {line} has {len(row)} fields, the header {len(columns)}: put texts that hold "
                f"{delimiter!r} into quotes"
            )
        if odd := [field for field in row if re.match(r' +".*"\s*$', field, re.DOTALL)]:
            raise LoadError(
                f"{name}, line {line}: a space stands before the quotes of {odd[0]!r:.60}; remove it"
            )
        yield f"line {line}", dict(zip(columns, row, strict=True))


def _rows(text: str, name: str, delimiter: str, *, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that are not empty, each with the line on which it begins."""
    stream = io.StringIO(text, newline="")
    reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise LoadError(
            f"{name}, line {line}: {error}; put a text that holds quotes into quotes, with each of its own "
            "written twice"
        ) from error


def _found_delimiter(header: str) -> str:
    """Return the delimiter that makes known columns of the header; a comma if none does."""
    for delimiter in _DELIMITERS:
        columns = {part.strip(' "').lower() for part in header.split(delimiter)}
        if any(known <= columns for known in _COLUMNS):
            return delimiter
    return ","


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the limit on the length of a field, which holds for all of Python, meanwhile."""
    with _one_at_a_time:
        before = csv.field_size_limit(_NO_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)
