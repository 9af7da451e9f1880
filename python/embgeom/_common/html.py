"""HTML: results as tables in notebooks, and as pages that need no other file and no network.

A page is one file with its style, scripts and pictures inside. A policy in its head allows these scripts
alone, so that nothing in a token or a name can run or be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from embgeom._common.record import plain
from embgeom._common.tables import Block, Table, visible, whole_pieces

TEMPLATES = Path(__file__).parent / "templates"
# A table of fewer rows is searched by eye.
FILTERED_ROWS = 12
# On a phone, rows of tables with so many columns become blocks of named values; others fit, or scroll.
STACKED_COLUMNS = range(4, 13)
PAPER = """\
@inproceedings{lee2025shared,
  title     = {Shared Global and Local Geometry of Language Model Embeddings},
  author    = {Lee, Andrew and Weber, Melanie and Vi{\\'e}gas, Fernanda and Wattenberg, Martin},
  booktitle = {Second Conference on Language Modeling (COLM)},
  year      = {2025},
  note      = {arXiv:2503.21073},
  url       = {https://arxiv.org/abs/2503.21073}
}"""
SOFTWARE = """\
@software{embgeom,
  title   = {embgeom: the geometry of language models' token embeddings},
  author  = {{The embgeom developers}},
  version = {VERSION},
  license = {BSD-3-Clause}
}"""
_INERT = re.compile(r"[<>&\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Picture:
    """A figure of a page: an SVG, or a PNG where that is smaller, and what it shows."""

    image: bytes
    caption: str


@dataclass(frozen=True)
class Verbatim:
    """Lines that are copied as they are."""

    text: str


@dataclass(frozen=True)
class Terms:
    """Paragraphs, each under what it is about."""

    entries: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Widget:
    """A part of a page with its own script: `name`.html, .css and .js in a folder of templates, and data."""

    folder: Path
    name: str
    data: Any


Part = Block | Picture | Verbatim | Terms | Widget


@dataclass(frozen=True)
class Section:
    """A heading of a page, and what stands under it; closed, where it is looked up rather than read."""

    title: str
    parts: Sequence[Part]
    closed: bool = False
    anchor: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchor", re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-"))


def fragment(blocks: Iterable[Block]) -> str:
    """Return blocks as HTML for notebooks, in whose colors they appear."""
    parts = [_view(block, "") for block in blocks]
    return str(_environment().get_template("fragment.html").render(parts=parts))


def page(title: str, sections: Sequence[Section], *, lead: str = "", footer: str = "") -> str:
    """Return a page as one self-contained HTML text."""
    widgets = [part for section in sections for part in section.parts if isinstance(part, Widget)]
    environment = _environment(*(widget.folder for widget in widgets))
    names = dict.fromkeys(["page", *(widget.name for widget in widgets)])
    styles, scripts = ([_source(environment, name + end) for name in names] for end in (".css", ".js"))
    views = [
        (section, [_view(part, f"{section.anchor}-{index}") for index, part in enumerate(section.parts)])
        for section in sections
    ]
    return str(
        environment.get_template("page.html").render(
            title=title,
            lead=lead,
            footer=footer,
            views=views,
            style=_markup("".join(styles)),
            scripts=[_markup(script) for script in scripts],
            hashes=[
                base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
                for script in scripts
            ],
            filtered_rows=FILTERED_ROWS,
            stacked_columns=STACKED_COLUMNS,
        )
    )


def facts(title: str | None, record: Mapping[str, Any]) -> Table:
    """Return what a record holds as a table of two columns, a row for each of its values that is known."""
    return Table(title, ("", "value"), _flat(plain(record), ""))


def how_to_cite(versions: Mapping[str, str]) -> Section:
    """Return what the file CITATION.cff says, with the version that measured."""
    software = SOFTWARE.replace("VERSION", versions.get("embgeom", "0"))
    return Section(
        "How to cite",
        ("The paper whose methods these are, and the software:", Verbatim(PAPER), Verbatim(software)),
    )


def inert_json(data: Any) -> str:
    """Return JSON in which no text can end the script element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _INERT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def inline_svg(svg: bytes, prefix: str) -> str:
    """Return an SVG for the body of a page: with unique ids, and without scripts and metadata."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("script", "metadata", "foreignObject"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            name: re.sub(r"(url\(#|^#)", rf"\g<1>{prefix}-", f"{prefix}-{value}" if name == "id" else value)
            for name, value in ((_local(key), value) for key, value in element.attrib.items())
            if not name.startswith("on")
        }
    width = re.match(r"[\d.]+", root.attrib.pop("width", ""))
    root.attrib.pop("height", None)
    # The width of a picture in points; its height follows from the view box.
    root.attrib |= {"style": f"--width: {width[0]}pt" if width else "", "aria-hidden": "true"}
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _flat(record: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(record, Mapping):
        return [row for key, value in record.items() for row in _flat(value, f"{path}.{key}".lstrip("."))]
    if isinstance(record, list):
        return [(path, "; ".join(map(str, record)))] if record else []
    return [] if record is None else [(path, str(record))]


def _view(part: Part, anchor: str) -> dict[str, Any]:
    """Return what a template needs to know of a part."""
    if isinstance(part, str):
        return {"kind": "text", "text": part}
    if isinstance(part, Verbatim):
        return {"kind": "verbatim", "text": part.text}
    if isinstance(part, Terms):
        return {"kind": "terms", "entries": part.entries}
    if isinstance(part, Picture):
        is_svg = part.image.lstrip().startswith(b"<")
        image = inline_svg(part.image, anchor) if is_svg else base64.b64encode(part.image).decode("ascii")
        return {"kind": "picture", "is_svg": is_svg, "image": _markup(image), "caption": part.caption}
    if isinstance(part, Widget):
        data = _markup(inert_json(part.data))
        return {"kind": "widget", "name": part.name, "template": f"{part.name}.html", "data": data}
    numeric, cells = part.numeric(), part.cells()
    # Rounded cells are sorted by the numbers that they stand for.
    values = [[None if isinstance(v, str | int) else repr(float(v)) for v in row] for row in part.rows]
    return {
        "kind": "table",
        "title": part.title,
        "columns": list(zip(part.columns, numeric, strict=True)),
        "rows": [list(zip(*row, numeric, strict=True)) for row in zip(cells, values, strict=True)],
    }


def _environment(*folders: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader([TEMPLATES, *folders])
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters["pieces"] = whole_pieces
    return environment


def _source(environment: Any, name: str) -> str:
    return str(environment.loader.get_source(environment, name)[0])


def _markup(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)
