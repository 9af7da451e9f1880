"""Pages and fragments of HTML: whole in one file, inert whatever a token says, and usable in a browser."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import embgeom
from embgeom._common.html import (
    PAPER,
    SOFTWARE,
    Picture,
    Section,
    Verbatim,
    facts,
    fragment,
    how_to_cite,
    inert_json,
    inline_svg,
    page,
)
from embgeom._common.result import LARGEST_SVG, new_figure, picture
from embgeom._common.tables import Table
from tests.helpers.browser import HOSTILE, opened

VOID = {"meta", "img", "input"}


class Outline(HTMLParser):
    """The elements of a page; fails where one is closed that is not open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def long_table(rows=20):
    return Table(
        "numbers",
        ("token", "estimate", "value"),
        [(f"t{i}", f"{(i * 7) % rows / 100:.2f} ± 0.01", (i * 7) % rows / 1e6) for i in range(rows)],
    )


def test_a_fragment_has_tables_without_a_style_sheet():
    text = fragment(["a line", "", Table("a title", ("name", "count"), [("x", 1), ("y", 20)])])
    outline = Outline(text)
    assert len(outline.all("table")) == len(outline.all("caption")) == 1 and not outline.all("style")
    assert [head["style"] for head in outline.all("th")[:2]] == [
        f"padding: 0.2em 0.6em; text-align: {side}" for side in ("left", "right")
    ]
    # Colors are the notebook's own, light or dark.
    assert "background" not in text and re.findall(r"color: (\w+)", text) == ["inherit"]
    assert len(outline.all("p")) == 1


def test_an_empty_table_says_so():
    assert ">none</td>" in fragment([Table("t", ("a", "b"), [])])


@pytest.mark.parametrize("hostile", HOSTILE)
def test_markup_in_what_is_shown_is_text(hostile):
    table = Table(hostile, (hostile, "b"), [(hostile, 1.5)])
    for text in (
        fragment([hostile, table]),
        page(hostile, [Section("s", [hostile, table, Verbatim(hostile)])]),
    ):
        outline = Outline(text)
        assert not outline.all("img") and len(outline.all("script")) <= 1
        assert not any(name.startswith("on") for _, attributes in outline.found for name in attributes)
        assert text.encode("utf-8") and "\x1b" not in text and "\u2028" not in text


def test_json_cannot_end_its_script():
    text = inert_json(HOSTILE)
    assert not set("<>&\u2028\udcff") & set(text) and json.loads(text) == HOSTILE


def test_a_page_allows_its_own_scripts_alone():
    text = page("t", [Section("One", ["x"]), Section("Two", [long_table()], closed=True)])
    outline = Outline(text)
    policy = next(each["content"] for each in outline.all("meta") if each.get("http-equiv"))
    assert "default-src 'none'" in policy and policy.count("sha256-") == len(outline.all("script")) == 1
    assert not re.search(r"(src|href)=\"(?!#|data:)", text) and "url(" not in text and "@import" not in text
    assert [each["id"] for each in outline.all("section")] == ["one", "two"]
    assert text == page("t", [Section("One", ["x"]), Section("Two", [long_table()], closed=True)])


def test_facts_are_flat_and_leave_out_what_is_unknown():
    table = facts("t", {"a": {"b": 1, "c": None}, "d": [], "e": ["x", "y"], "f": Path("p")})
    assert table.rows == [("a.b", "1"), ("e", "x; y"), ("f", "p")]


def test_how_to_cite_says_what_the_citation_file_says():
    citation = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    (paper,) = citation["references"]
    for fact in (paper["title"], paper["collection-title"], str(paper["year"]), paper["url"]):
        assert fact in PAPER
    assert paper["identifiers"][0]["value"] in PAPER
    plain = PAPER.replace(r"{\'e}", "é")
    assert all(f"{each['family-names']}, {each['given-names']}" in plain for each in paper["authors"])
    for fact in (citation["title"], citation["authors"][0]["name"], citation["license"]):
        assert fact in SOFTWARE
    assert "version = {9.8.7}" in str(how_to_cite({"embgeom": "9.8.7"}).parts)


def drawn(points=5):
    figure = new_figure(4, 3)
    axes = figure.subplots()
    axes.plot(range(points), range(points), "o", label="</script><img src=x onerror=alert(1)>")
    axes.legend()
    return picture(figure, "Points.")


def test_ids_of_pictures_are_unique():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    outline = Outline(page("t", [Section("s", [drawn(), drawn()])]))
    ids = [attributes["id"] for _, attributes in outline.found if "id" in attributes]
    assert len(ids) == len(set(ids)) > 20
    references = [each.get("href", "#s") for _, each in outline.found if each.get("href", "").startswith("#")]
    clips = re.findall(r"url\(#([^)]+)\)", str(outline.found))
    assert clips and {each[1:] for each in references} | set(clips) <= set(ids)


def test_scripts_in_pictures_are_left_out():
    svg = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt" onload="alert(1)"><metadata>m'
        b'</metadata><g><script>alert(1)</script><path id="a" onclick="x()"/></g></svg>'
    )
    text = inline_svg(svg, "p")
    assert text == '<svg style="--width: 72pt" aria-hidden="true"><g><path id="p-a" /></g></svg>'


def test_a_picture_of_many_points_is_a_png():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    shown = drawn(20_000)
    assert shown.image.startswith(b"\x89PNG") and len(shown.image) < LARGEST_SVG
    images = Outline(page("t", [Section("s", [shown])])).all("img")
    assert len(images) == 1 and images[0]["src"].startswith("data:image/png;base64,")


@pytest.fixture
def file(tmp_path):
    """A page with hostile names everywhere."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    wide = Table(
        HOSTILE[0], ("token", *(f"a column {i}" for i in range(30))), [(h, *range(30)) for h in HOSTILE]
    )
    parts = [long_table(), wide, drawn(), Picture(drawn(20_000).image, HOSTILE[1]), *HOSTILE]
    path = tmp_path / "page.html"
    sections = [
        Section("One", parts),
        Section("Two", [Verbatim("x" * 500)], closed=True),
        Section("Three", ["x"]),
    ]
    path.write_text(page(HOSTILE[1], sections), encoding="utf-8")
    return path


def test_tables_sort_and_filter_in_a_browser(file):
    with opened(file) as at:
        rows, head = at.cells("numbers", 0), at.page.get_by_role("button", name="value").first
        assert rows == [f"t{i}" for i in range(20)]
        head.click()
        assert at.cells("numbers", 2) == sorted(at.cells("numbers", 2))
        # By the numbers themselves, not by the four decimals that are shown.
        assert at.cells("numbers", 0) == sorted(rows, key=lambda name: int(name[1:]) * 7 % 20)
        head.press("Enter")
        assert at.cells("numbers", 0)[0] != "t0" and at.texts("[aria-sort=descending]") == ["value"]
        head.click()
        assert at.cells("numbers", 0) == rows
        # "0.07 ± 0.01" sorts by its first number; names sort with their numbers.
        at.page.get_by_role("button", name="estimate").click()
        assert at.cells("numbers", 1) == sorted(at.cells("numbers", 1))
        at.page.get_by_role("button", name="token").first.click()
        assert at.cells("numbers", 0) == rows
        at.page.get_by_label("Filter rows of: numbers").fill("t1 0.0")
        assert at.texts("output")[0] == f"{len(at.cells('numbers', 0))} of 20 rows"
        assert 0 < len(at.cells("numbers", 0)) < 20
        assert all(name.startswith("t1") for name in at.cells("numbers", 0))
        assert at.page.title() == HOSTILE[1] and at.is_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_tables_but_not_the_page(file, scheme):
    with opened(file, width=400, scheme=scheme) as at:
        assert not at.scrolls_sideways() and at.is_clean()
        # The wide table is reached by the keyboard, and its first column stays in sight.
        wide = at.page.locator(".table[data-scrolls]").last
        wide.evaluate("box => box.scrollLeft = 400")
        assert wide.locator("tbody th").first.bounding_box()["x"] >= wide.bounding_box()["x"]
        assert at.page.locator(".table[tabindex='0']").count() >= 1
        assert at.page.locator("svg").first.bounding_box()["width"] > 250
        ground = at.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_of_a_table_is_cut_off_on_a_phone(tmp_path, width):
    names = ("measure", "value ± 95 %", "null ± sd", "z", "p", "null in strata", "its z")
    rows = [
        (f"measure_number_{i}", f"0.{i}000 ± 0.0100", "0.0027 ± 0.0003", "765", "<1e-12", "0.0095", "1.5")
        for i in range(12)
    ]
    path = tmp_path / "page.html"
    path.write_text(page("t", [Section("s", [Table("all measures", names, rows)])]), encoding="utf-8")
    with opened(path, width=width) as at:
        boxes = at.page.locator("tbody :is(th, td)").evaluate_all(
            "cells => cells.map(cell => cell.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert len(boxes) == 7 * 12 and all(0 <= left < right <= width for left, right in boxes)
        label = at.page.locator("td").nth(1).evaluate("cell => getComputedStyle(cell, '::before').content")
        assert ("null ± sd" in label) == (width == 400)
        at.page.get_by_role("button", name="value").click()
        at.page.get_by_role("button", name="value").click()
        assert at.cells("all measures", 0)[0] == "measure_number_9"
        at.page.get_by_label("Filter rows of: all measures").fill("measure_number_3")
        assert at.page.locator("tbody tr:visible").count() == 1 and at.is_clean()


@pytest.mark.parametrize("width", [400, 1280])
def test_no_line_breaks_within_a_token_or_a_name_on_a_page(tmp_path, width):
    tokens = "  ".join(f"' token {i}'" for i in range(40))
    table = Table("t", ("model", "tokens"), [("tinystories-656k", tokens)])
    (tmp_path / "page.html").write_text(page("t", [Section("s", [table])]), encoding="utf-8")
    with opened(tmp_path / "page.html", width=width) as at:
        lines = at.page.locator(".whole").evaluate_all("all => all.map(each => each.getClientRects().length)")
        assert lines == [1] * 41 and at.cells("t", 1) == [tokens] and not at.scrolls_sideways()
    assert fragment([table]).count('white-space: pre"') == 41


def test_a_long_table_shows_its_first_rows_until_it_is_asked_for_all(tmp_path):
    closed = Section("Looked up", ["x"], closed=True)
    text = page("t", [Section("s", [long_table(50)]), closed, Section("u", ["y"])])
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    with opened(tmp_path / "page.html") as at:
        rows = at.page.locator("tbody tr:visible")
        assert rows.count() == 20
        at.page.get_by_label("Filter rows of: numbers").fill("t4")
        assert rows.count() == 11 and not at.page.locator(".more").is_visible()
        at.page.get_by_label("Filter rows of: numbers").fill("")
        at.page.get_by_role("button", name="token").click()
        at.page.get_by_role("button", name="token").click()
        assert rows.count() == 20 and rows.first.text_content().startswith("t49")
        at.page.get_by_role("button", name="Show all 50 rows").click()
        assert rows.count() == 50
        at.page.get_by_role("button", name="Show the first 20 rows").click()
        assert rows.count() == 20
        at.page.get_by_role("link", name="Looked up").click()
        assert at.page.locator("details").get_attribute("open") is not None
        at.page.emulate_media(media="print")
        at.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert rows.count() == 50 and at.is_clean()


@pytest.mark.parametrize("width", [400, 1000, 1200, 1280, 1440])
def test_figures_are_shown_whole(tmp_path, width):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "page.html"
    path.write_text(page("t", [Section("s", [drawn(), drawn(), drawn(20_000)])]), encoding="utf-8")
    with opened(path, width=width) as at:
        boxes = at.page.locator(".picture").evaluate_all(
            "all => all.map(box => box.scrollWidth - box.clientWidth)"
        )
        assert boxes == [0, 0, 0] and not at.scrolls_sideways()
        first, second = (at.page.locator("figure").nth(i).bounding_box() for i in range(2))
        assert (first["y"] == second["y"]) == (width == 1440)


@pytest.mark.slow
def test_results_as_pages_in_a_browser(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    embgeom.inspect("example:small", dimension_sample=20, dimension_k=20).to_html(tmp_path / "i.html")
    text = (tmp_path / "i.html").read_text(encoding="utf-8")
    assert "Made with embgeom" in text and "provenance.sha256" in html.unescape(text)
    with opened(tmp_path / "i.html", width=400) as at:
        sections = ["Results", "Figure", "Models and tokens", "Parameters and provenance", "How to cite"]
        assert at.texts("h2") == sections
        assert at.texts("caption")[0].startswith("norms of the rows that count")
        assert not at.page.get_by_text("provenance.sha256").is_visible()
        at.page.locator("summary").click()
        assert at.page.get_by_text("provenance.sha256").is_visible()
        assert not at.scrolls_sideways() and at.is_clean()
