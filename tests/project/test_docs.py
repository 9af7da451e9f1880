"""What the pages show is what their commands and their lines of Python print."""

from __future__ import annotations

import importlib
import re

import pytest

import embgeom
from tests.helpers.pages import commands, fenced, run, run_python, wrong
from tests.helpers.printed import differences
from tests.helpers.real_data import ROOT

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in DOCS.glob("**/*.md")}
STATES = "user-guide/hidden-states.md"
WITH_PYTHON = sorted(page for page, text in PAGES.items() if fenced(text, "python"))
QUICK = ("how-to/clusters.md", "how-to/long-runs.md", "user-guide/loading.md", "user-guide/matching.md")
WITH_COMMANDS = sorted(page for page, text in PAGES.items() if commands(text))
NEEDED = {"how-to/graphs.md": ("scipy", "sklearn", "umap")}
SUBPACKAGES = ("comparison", "emb2emb", "evaluation", "examples", "hidden_states", "loading", "steering")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Pages write files into the folder that they are run in."""
    for package in ("transformers", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pages_are_found():
    assert {"paper.md", "user-guide/loading.md", STATES} <= set(WITH_PYTHON)
    assert len(commands(PAGES["user-guide/command-line.md"])) == 11


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page in QUICK else pytest.mark.slow)
        for page in WITH_PYTHON
        if page != STATES
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:umap", "ignore::FutureWarning:sklearn")
def test_the_lines_of_python_print_what_is_shown(page):
    for package in NEEDED.get(page, ()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    for shown, printed in run_python(PAGES[page]):
        assert differences(printed, shown) == []


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_print_what_is_shown(page):
    # In order: some read what others wrote.
    for line, output in commands(PAGES[page]):
        printed = run(line)
        if output:
            assert wrong(printed, output) == []


@pytest.mark.slow
def test_the_table_of_hidden_states(capsys, folder):
    text = PAGES[STATES]
    for code in fenced(text, "python"):
        exec(code, {})
    printed = capsys.readouterr().out
    rows = re.findall(r"^\| (?:emb|layer).*", text, re.MULTILINE)
    shown = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert len(shown) == 5 and (folder / "states.svg").stat().st_size > 0
    for source, target, *numbers in shown:
        row = re.search(rf"^ {source} +{target} +(\S+) +(\S+) +(\S+)", printed, re.MULTILINE)
        assert [float(number) for number in row.groups()] == pytest.approx(
            [float(n) for n in numbers], abs=0.006
        )


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   ([\w.]+)$", PAGES["api/index.md"], re.MULTILINE))
    names = set(embgeom.__all__) - {"__version__", "examples"}
    for package in SUBPACKAGES:
        module = importlib.import_module(f"embgeom.{package}")
        own = set(getattr(module, "__all__", ())) - set(embgeom.__all__)
        names |= {f"{package}.{name}" for name in own}
    assert names - listed == set()


def test_links_lead_to_files_and_headings():
    texts = {DOCS / page: text for page, text in PAGES.items()}
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        texts[ROOT / name] = (ROOT / name).read_text(encoding="utf-8")
    broken = []
    for path, text in texts.items():
        for target, anchor in re.findall(r"\]\((?!https?:)([^()#\s]*)(#[^()\s]*)?\)", text):
            file = (path.parent / target).resolve() if target else path
            if not file.exists():
                broken.append(f"{path.name}: {target}")
            elif anchor and anchor[1:] not in anchors(file.read_text(encoding="utf-8")):
                broken.append(f"{path.name}: {target}{anchor}")
    assert broken == []


def anchors(text: str) -> set[str]:
    """The anchors of a page: its headings in lower case with hyphens, and its labels."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings} | set(
        re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE)
    )
