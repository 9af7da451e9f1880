"""The demonstration says what was measured, beside chance, and needs no network."""

from __future__ import annotations

import re
import socket

import pytest
from real_data import EXAMPLES

import embgeom
from embgeom.cli import main
from embgeom.demo import WORDS, demonstrate
from embgeom.report import as_text


@pytest.fixture(scope="module")
def text():
    return as_text(demonstrate())


def test_each_number_is_that_of_a_comparison(text):
    comparison = embgeom.compare(*EXAMPLES)
    shown = {"global similarity, centered", "neighbor overlap", "weight cosine", "dimension, Spearman"}
    for name in shown:
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        measure = comparison[name]
        expected = [f"{value:.4f}" for value in (measure.value, measure.shuffled, measure.gaussian)]
        assert line.split()[-3:] == expected


def test_it_tells_a_newcomer_what_to_make_of_it(text):
    assert [re.match(r"(\d)\. ", line)[1] for line in text.splitlines() if re.match(r"\d\. ", line)] == list(
        "1234"
    )
    assert text.count("1 means") == 4 and text.count("paired at random") == 4
    assert "8,382,465 pairs of the 4,095 shared tokens" in text
    for word in WORDS:
        assert f" {word!r} " in text
    assert max(map(len, text.splitlines())) <= 110


def test_what_it_points_to_works(text, capsys):
    commands = re.findall(r"^ embgeom ((?:\S+ )+) ", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main(command.split()) == 0
    assert "' queen'" in capsys.readouterr().out


def test_the_command_prints_it_offline(text, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("the demonstration went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["demo", "--threads", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.out == text + "\n" and captured.err == ""


def test_threads_change_nothing(text):
    assert as_text(demonstrate(threads=1)) == text


def test_options_that_do_not_belong_to_it(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--metric", "euclidean"])
    assert stopped.value.code == 2 and "--metric" in capsys.readouterr().err
