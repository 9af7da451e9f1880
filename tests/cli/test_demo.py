"""The demonstration shows what was measured, with null baselines, and needs no network."""

from __future__ import annotations

import re
import shutil
import socket
import sys

import pytest

import embgeom
from embgeom import examples
from embgeom._common.tables import as_text
from embgeom.cli.demo import WORDS, demonstrate, steering
from embgeom.cli.main import main
from embgeom.comparison.statistic import null_text
from tests.helpers.real_data import EXAMPLES


@pytest.fixture(scope="module")
def text():
    return as_text(demonstrate())


def test_each_number_is_that_of_a_comparison(text):
    models = (embgeom.examples.without_rare_tokens(embgeom.load(name)) for name in EXAMPLES)
    comparison = embgeom.compare(*models, without=())
    for name in ("global_similarity_centered", "neighbor_overlap", "weight_cosine", "dimension_spearman"):
        statistic = comparison[name]
        line = next(line for line in text.splitlines() if line.strip().startswith(statistic.name))
        assert statistic.estimate.text() in line and null_text(statistic.null) in line
        assert line.endswith(null_text(statistic.stratified))


def test_it_tells_a_newcomer_what_to_make_of_it(text):
    assert [re.match(r"(\d)\. ", line)[1] for line in text.splitlines() if re.match(r"\d\. ", line)] == list(
        "12345"
    )
    assert text.count("1 means") == 4 and len(re.findall("null +null in strata", text)) == 4
    assert "7,187,736 pairs of the 3,792 shared tokens" in text
    for word in WORDS:
        assert f" {word!r} " in text
    # Each effect has its uncertainty, and no more is said of dimensions than was counted.
    effects = re.findall(r"^ (?:transferred|native|10 ).* [+-]\d+\.\d ± \d+\.\d", text, re.MULTILINE)
    assert len(effects) == 5 and "± is the standard error over 20 prompts" in " ".join(text.split())
    assert "few where these vary along few directions" in " ".join(text.split()) and "semantic" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_what_it_points_to_works(text, capsys):
    commands = re.findall(r"^ embgeom ((?:\S+ )+) ", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(command.split()) == 0
        assert ("nearest rows of ' queen'" in capsys.readouterr().out) == command.startswith("neighbors")


def test_the_command_prints_it_offline(text, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the demonstration went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["demo", "--threads", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == text + "\n"
    # On a slow machine it also says how far it is.
    assert all(line.startswith("embgeom: ") and " left" in line for line in captured.err.splitlines())


def test_what_lies_in_the_folder_does_not_matter(text, tmp_path, monkeypatch):
    (tmp_path / "example:small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert as_text(demonstrate()) == text


def test_tables_fit_a_terminal(text):
    # Prose is broken at the terminal's edge; a table's cells are not to be.
    tables = [line for line in text.splitlines() if "  " in line.strip() or "─" in line]
    assert max(map(len, tables)) <= 80


def test_a_damaged_installation_is_told(tmp_path, monkeypatch, capsys):
    copies = examples.Pair(*(shutil.copytree(folder, tmp_path / folder.name) for folder in examples.pair()))
    monkeypatch.setattr(examples, "pair", lambda: copies)
    (copies.small / "training.json").write_text("{}")
    assert main(["demo"]) == 2
    assert "training.json lacks data, losses, measured, model, parameters" in capsys.readouterr().err
    (copies.small / "training.json").unlink()
    assert main(["demo"]) == 2
    assert "training.json cannot be read" in capsys.readouterr().err
    shutil.rmtree(copies.small)
    assert main(["inspect", "example:small"]) == 2
    assert "is missing: the installation is damaged" in capsys.readouterr().err


def test_threads_change_nothing(text):
    assert as_text(demonstrate(threads=1)) == text


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_what_runs_models_the_last_part_says_what_to_install(package, monkeypatch):
    pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setitem(sys.modules, package, None)
    part = " ".join(as_text(list(steering(None))).split())
    assert part.startswith("5.") and part.endswith(f'needs {package}: pip install "embgeom[steer]"')


def test_options_that_do_not_belong_to_it(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--metric", "euclidean"])
    assert stopped.value.code == 2 and "--metric" in capsys.readouterr().err
