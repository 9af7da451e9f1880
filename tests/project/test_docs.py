"""What the pages show is what their lines of Python print."""

import re

import pytest

from tests.helpers.real_data import ROOT

pytest.importorskip("transformers", reason="transformers is not installed")

TEXT = (ROOT / "docs" / "steering.md").read_text(encoding="utf-8")


def test_the_table_of_hidden_states(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.chdir(tmp_path)
    part = TEXT[TEXT.index("## Hidden states") :]
    code = re.search(r"(?:^    .*\n|^\n(?=    ))+", part, re.MULTILINE)[0]
    exec(re.sub("^    ", "", code, flags=re.MULTILINE), {})
    shown = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in re.findall(r"^\| (?:emb|layer).*", part, re.M)
    ]
    printed = capsys.readouterr().out
    assert len(shown) == 5 and (tmp_path / "states.svg").stat().st_size > 0
    for source, target, *numbers in shown:
        row = re.search(rf"^ {source} +{target} +(\S+) +(\S+) +(\S+)", printed, re.MULTILINE)
        assert [float(number) for number in row.groups()] == pytest.approx(
            [float(n) for n in numbers], abs=0.006
        )


def test_words_without_marks(capsys):
    text = (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
    part = text[text.index("## Word vectors") : text.index("## Sentence embedders")]
    code = next(
        b for b in re.findall(r"(?:^    .*\n|^\n(?=    ))+", part, re.MULTILINE) if "import embgeom" in b
    )
    exec(re.sub("^    ", "", code, flags=re.MULTILINE), {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^    print.*  # (.*)", code, re.MULTILINE)


def test_what_is_loaded_from_memory(capsys):
    text = (ROOT / "docs" / "loading.md").read_text(encoding="utf-8")
    part = text[text.index("## From memory") :].split("\n## ")[0]
    code = "\n".join(re.findall(r"(?:^    .*\n|^\n(?=    ))+", part, re.MULTILINE))
    code = re.sub("^    ", "", code, flags=re.MULTILINE)
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    shown = re.findall(r"^print\(.*\)(?:  # (.*))?$", code, re.MULTILINE)
    assert len(printed) == len(shown) == 5
    assert all(line == said for line, said in zip(printed, shown, strict=True) if said)
