"""The text: where it comes from, how it is cleaned, and which part is held out.

The text itself is not part of the project. `read` takes a folder laid out as `SOURCES` says (see
training/README.md) and gives documents whose paragraphs are single lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Books are cut near their end, at a paragraph; of the stories, every so many-th is held out whole.
HELD_OUT_SHARE = 0.02
HELD_OUT_EVERY = 50

# A paragraph with fewer letters and spaces among its characters is no prose.
PROSE_SHARE = 0.85

# One way to write each character keeps rare variants from spending tokens of a small vocabulary.
PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "—": "--", "–": "-", "…": "...", "\u00a0": " ", "_": ""}
)

FOOTNOTE_MARK = re.compile(r"\[\d+\]")


@dataclass(frozen=True)
class Source:
    """A part of the text: which files, how they are read, how often each document is seen in an epoch.

    Of `stories` some are held out whole, of books a part of each.
    """

    name: str
    pattern: str
    license: str
    origin: str
    documents: Callable[[Path], list[str]]
    stories: bool = False
    repeat: int = 1


@dataclass(frozen=True)
class Document:
    """One cleaned book or story, the part of it that is trained on, and the part that is held out."""

    source: Source
    path: Path
    training: str
    held_out: str


def clean(paragraphs: list[str]) -> str:
    """Return paragraphs as single lines in plain characters, without what is no prose (tables, credits)."""
    plain = (FOOTNOTE_MARK.sub("", paragraph.translate(PLAIN)) for paragraph in paragraphs)
    lines = (re.sub(r"\s+", " ", paragraph).strip() for paragraph in plain)
    return "\n".join(line for line in lines if _is_prose(line))


def _is_prose(line: str) -> bool:
    if not line or line.startswith(("Produced by", "[Illustration", "Transcribed", "End of")):
        return False
    # Tables, references and most indices are full of figures and points. So are the shortest lines of
    # dialogue, which are lost, too: less than one character in a hundred of the text.
    return sum(c.isalpha() or c == " " for c in line) >= PROSE_SHARE * len(line)


def _book(path: Path) -> list[str]:
    return [clean(re.split(r"\n\s*\n", path.read_text(encoding="utf-8").replace("\r", "")))]


def _stories_of_lines(path: Path) -> list[str]:
    """Stories with a blank line between them; the first line of each is its title."""
    blocks = re.split(r"\n\s*\n", path.read_text(encoding="utf-8").replace("\r", ""))
    stories = (block.strip().split("\n", 1) for block in blocks if block.strip())
    return [clean(story) for story in stories]


def _stories_of_json(path: Path) -> list[str]:
    stories: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return [clean(story.split("\n")) for story in stories]


SOURCES = (
    Source(
        "Project Gutenberg: 18 story books",
        "gutenberg/*.txt",
        "public domain in the USA",
        "gutenberg.org, by way of the GITenberg repositories; each file's name ends in the book's number",
        _book,
    ),
    Source(
        "Works of the Brontes, Darwin and Du Bois",
        "ml5/*.txt",
        "public domain in the USA (collection under MIT)",
        "https://github.com/ml5js/ml5-data-and-models",
        _book,
    ),
    Source(
        "African Storybook, English",
        "african_storybook_en/stories_ccby.txt",
        "CC BY; African Storybook (africanstorybook.org) and the authors that asp-source names",
        "https://github.com/global-asp/asp-source, those English stories that are under CC BY",
        _stories_of_lines,
        stories=True,
        repeat=3,
    ),
    Source(
        "TinyStories, 1,000 of them",
        "tinystories_1000.json",
        "CDLA-Sharing-1.0",
        "huggingface.co/datasets/roneneldan/TinyStories, those in ToonTalk/jlens-tinystories",
        _stories_of_json,
        stories=True,
        repeat=3,
    ),
)


def read(folder: Path) -> Iterator[Document]:
    """Every document of the text in `folder`, in a fixed order."""
    for source in SOURCES:
        paths = sorted(folder.glob(source.pattern))
        if not paths:
            raise FileNotFoundError(
                f"{folder} holds no {source.pattern} ({source.name}); see training/README.md"
            )
        for path in paths:
            try:
                texts = [text for text in source.documents(path) if text]
            except (ValueError, AttributeError, TypeError) as error:
                raise ValueError(f"{path} is not what is read as {source.name}: {error}") from error
            if not texts:
                raise ValueError(f"{path} holds no text")
            for number, text in enumerate(texts):
                parts = _hold_out_story(text, number) if source.stories else _hold_out_end(text)
                yield Document(source, path, *parts)


def _hold_out_story(text: str, number: int) -> tuple[str, str]:
    return ("", text) if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else (text, "")


def _hold_out_end(text: str) -> tuple[str, str]:
    """Cut a book at the first end of a paragraph in its last part, if there is one."""
    cut = text.find("\n", int(len(text) * (1 - HELD_OUT_SHARE)))
    return (text, "") if cut < 0 else (text[:cut], text[cut + 1 :])
