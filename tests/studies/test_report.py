"""The report of a study: its sentences, its size, and its use in a browser."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom._common.result import new_figure
from embgeom.comparison.statistic import STATISTIC
from embgeom.studies.figures import Drawing
from embgeom.studies.report import lookup, report, write_report
from embgeom.studies.sentences import summary
from tests.helpers.browser import HOSTILE, opened

WORDS = ["king", " king", " KING", " kingdom", " queen", "Ж", "it's", *HOSTILE[:7]]


def model(name, seed, like=None, share=0.7, n=90):
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((n, 12))
    matrix = x if like is None else share * like.matrix + (1 - share) * x
    tokens = [*WORDS, *(f" word{i}" for i in range(n - len(WORDS)))]
    return embgeom.Embeddings.from_array(matrix.astype(np.float32), tokens, name=name)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    first = model("<script>alert(1)</script>", 0)
    models = [first, model("B & sons", 1, first), model("unrelated", 2)]
    with pytest.MonkeyPatch.context() as patched:
        # Figures have tests of their own, and take most of the time.
        patched.setattr("embgeom.studies.folder.drawings", lambda study: [], raising=False)
        return embgeom.study(
            models, folder=tmp_path_factory.mktemp("study") / "out", dimension_k=20, ks=(5, 10)
        )


@pytest.fixture
def file(study, tmp_path):
    figure = new_figure(3, 2)
    figure.subplots().set_title(HOSTILE[0])
    write_report(study, tmp_path / "report.html", [Drawing("points", HOSTILE[1], figure)])
    return tmp_path / "report.html"


def test_sentences_have_numbers_and_say_what_is_not_significant(study):
    said = dict(summary(study))
    text = " ".join(said.values())
    assert said["Tokens"].startswith("3 models were compared on the 90 tokens that all of them share")
    overlap = study.pair(0, 1)["neighbor_overlap"]
    assert f"highest for <script>alert(1)</script> and B & sons, {overlap.estimate.text()} (null" in text
    assert "not significant: <script>alert(1)</script> and unrelated" in text
    assert "NaN" not in text and "nan" not in text and "None" not in text


def test_where_few_long_rows_make_a_measure_its_interval_is_called_unsure(study):
    first, *others = study.pairs
    statistic = first.statistics[0]
    few = replace(statistic, estimate=replace(statistic.estimate, effective_n=3.0))
    pairs = (replace(first, statistics=(few, *first.statistics[1:])), *others)
    found = replace(study, pairs=pairs)
    note = "few long rows make most of global_similarity (effective sample size 3 of 90)"
    assert note in html.unescape(report(found, [])) and note in " ".join(found.summary().split())
    assert "few long rows" not in report(study, []) and "few long rows" not in study.summary()


def test_a_report_stands_alone(file):
    text = file.read_text(encoding="utf-8")
    assert (
        "<img" not in re.sub(r'<img alt="" src="data:image/png', "", text) and "alert(1)</script>" not in text
    )
    assert len(text) < 3_000_000
    for fact in (
        "3 models were compared",
        "Look up a token",
        "How to cite",
        "neighbor_overlap",
        "2503.21073",
    ):
        assert fact in text


def test_a_large_report_leaves_out_neighbors_and_says_so(study, monkeypatch):
    monkeypatch.setattr("embgeom.studies.report.MOST_BYTES", 2_000)
    _, widget, said, *_ = lookup(study)
    held = widget.data["sets"][0]["held"]
    assert 0 < held < 90 and f"{held} of 90 tokens" in said
    assert sum(map(len, widget.data["sets"][0]["neighbors"])) <= 2_100


@pytest.mark.slow
@pytest.mark.parametrize("two_bytes", [0xFFFF, 10])
def test_tokens_are_looked_up_in_a_browser(study, tmp_path, monkeypatch, two_bytes):
    monkeypatch.setattr("embgeom.studies.report.TWO_BYTES", two_bytes)
    write_report(study, tmp_path / "report.html", [])
    with opened(tmp_path / "report.html") as at:
        table = at.page.locator(".widget table")
        at.page.get_by_label("Token", exact=True).fill("king")
        assert "The 10 nearest neighbors of 'king'" in table.locator("caption").text_content()
        assert at.texts(".told p") == ["' king', with a leading space, is another token than 'king'."]
        assert at.texts(".matches button") == ["'king'", "' king'", "' KING'", "' kingdom'"]
        at.page.get_by_role("button", name="' king'", exact=True).click()
        assert "neighbors of ' king'" in table.locator("caption").text_content()
        number = WORDS.index(" king")
        for place, lists in enumerate(study.shared[0].neighbors):
            shown = table.locator(f"tbody tr td:nth-child({place + 2})").all_text_contents()
            assert shown[0] == str(study.shared[0].n_components[place, number])
            assert shown[1:] == [study.token(study.shared[0], other) for other in lists[number].tolist()]
        common = set.intersection(*(set(lists[number].tolist()) for lists in study.shared[0].neighbors))
        assert table.locator("td.shared").count() == 3 * len(common)
        at.page.get_by_label("Token", exact=True).fill("queen")
        assert at.texts(".told p") == ["There is ' queen', with a leading space, and no token without it."]
        at.page.get_by_label("Token", exact=True).fill("no such token")
        assert at.texts(".told p") == ["No shared token contains “no such token”."]
        for hostile in HOSTILE[:2]:
            at.page.get_by_label("Token", exact=True).fill(hostile)
            assert hostile in table.locator("caption").text_content()
        assert at.page.locator("img:not([src^='data:'])").count() == 0
        assert at.page.title().startswith("Token embeddings of <script>") and at.is_clean()


@pytest.mark.slow
def test_tables_of_a_report_sort_and_filter_in_a_browser(file):
    with opened(file, width=400, scheme="dark") as at:
        at.page.get_by_label("Filter rows of: Every measure").fill("neighbor_overlap")
        assert set(at.cells("Every measure", 2)) == {"neighbor_overlap"}
        head = at.page.locator("section#pairs-of-models button", has_text="value").first
        head.click()
        values = [float(value.split()[0]) for value in at.cells("Every measure", 3)]
        assert values == sorted(values) and len(values) == 3
        # On a phone nothing of a row is cut off, and each value has its name.
        row = at.page.locator("section#pairs-of-models tbody tr:visible").first
        boxes = row.locator("th, td").evaluate_all(
            "cells => cells.map(cell => cell.getBoundingClientRect()).map(box => [box.left, box.right])"
        )
        assert len(boxes) == 11 and all(0 <= left < right <= 400 for left, right in boxes)
        names = row.locator("td").evaluate_all("cells => cells.map(cell => cell.dataset.label)")
        assert names == ["B", *STATISTIC, "calibrated", "tokens"]
        assert not at.scrolls_sideways() and at.is_clean()


def test_the_data_of_the_page_are_json(file):
    text = file.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    tokens = json.loads(data)["sets"][0]["tokens"]
    assert [token[1:-1] for token in tokens[:5]] == WORDS[:5] and html.unescape(data) == data
