"""The commands that measure a steering vector, as a user types them."""

import json

import pytest

from embgeom.examples import moods
from tests.helpers.cli import commands, fill, run, status

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("steering"))


def test_evaluate(folder, tmp_path, capsys):
    run(
        "evaluate", "example:large", "--vector", folder / "large.safetensors", "--layers", "5",
        "--random", "3",
        "--prompts", folder / "prompts.txt", "--positive", " happy", " glad", "--negative", " sad",
        "--neutral", folder / "neutral.txt", "--native", folder / "large.safetensors",
        "-o", tmp_path / "e.json", "--figure", tmp_path / "e.svg", "--quiet",
    )  # fmt: skip
    assert "native" in capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())
    checks = found["checks"]["log-ratio"]
    # The vector in question is the native one.
    assert checks["fraction_of_native"] == pytest.approx(1) and checks["effect"] > 0
    assert (tmp_path / "e.svg").read_text().lstrip().startswith("<?xml")


def test_evaluate_and_sweep_at_equal_kl(folder, tmp_path, capsys):
    asked = [
        "--vector", folder / "large.safetensors", "--layers", "4,5", "--random", "2", "--prompts",
        folder / "prompts.txt", "--positive", " happy", " glad", "--negative", " sad", "--quiet",
    ]  # fmt: skip
    neutral = ["--neutral", folder / "neutral.txt", "--at-kl", "0.2"]
    run("evaluate", "example:large", *asked, *neutral, "-o", tmp_path / "e.json")
    found = json.loads((tmp_path / "e.json").read_text())["outcomes"]
    assert all(outcome["side_effects"]["kl"] == pytest.approx(0.2, rel=0.05) for outcome in found)
    assert "each vector at its scale for KL 0.2 on neutral text" in capsys.readouterr().out
    run("sweep", "example:large", *asked, *neutral, "-o", tmp_path / "s.json", "--figure", tmp_path / "s.svg")
    found = json.loads((tmp_path / "s.json").read_text())
    assert [outcome["name"] for outcome in found["grid"]] == ["layer_4", "layer_5"]
    for command, more, message in (
        ("evaluate", ["--at-kl", "0.2"], "--at-kl is a KL on neutral text: name some texts by --neutral"),
        ("evaluate", ["--at-kl", "0"], "0 must be above 0"),
        ("sweep", [*neutral, "--scales", "1"], "leave scales and max_kl out"),
    ):
        assert status(command, "example:large", *asked, *more) == 2
        assert message in capsys.readouterr().err


def test_a_word_without_its_space_is_warned_of_once(folder, capsys):
    run(
        "evaluate", "example:large", "--vector", folder / "large.safetensors", "--layers", "5",
        "--random", "2", "--prompts", folder / "prompts.txt", "--positive", "happy", "--negative", " sad",
        "--quiet",
    )  # fmt: skip
    assert capsys.readouterr().err == (
        "embgeom: warning: 'happy' continues a word; for the next word write ' happy'\n"
        "embgeom: warning: positive and negative words differ in numbers of tokens ('happy' 2); they are "
        "scored whole, by the sum of their tokens' log-probabilities, so that longer words weigh more\n"
    )


def test_sweep_chooses_on_one_half_and_reports_on_the_other(folder, tmp_path, capsys):
    run(
        "sweep", "example:large", "--vector", folder / "large.safetensors", "--layers", "1,4+5",
        "--scales=-1,2", "--random", "3", "--prompts", "example:moods", "--neutral", folder / "neutral.txt",
        "--max-kl", "4", "-o", tmp_path / "s.json", "--figure", tmp_path / "s.png", "--quiet",
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "scale -1" in out and "layers 4+5" in out
    found = json.loads((tmp_path / "s.json").read_text())
    assert [outcome["name"] for outcome in found["grid"]] == [
        "layer_1_scale_-1", "layer_1_scale_2", "layer_4+5_scale_-1", "layer_4+5_scale_2"
    ]  # fmt: skip
    assert found["max_kl"] == 4 and found["chosen"]["scale"] == 2
    assert sorted(found["choice_samples"] + found["held_out_samples"]) == list(range(len(moods.prompts())))
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_sweep_within_a_price_that_nothing_keeps(folder, capsys):
    vector = ("--vector", folder / "large.safetensors", "--layers", "5", "--scales", "1,2", "--random", "0")
    texts = ("--prompts", folder / "prompts.txt", "--positive", " happy", "--negative", " sad")
    neutral = ("--neutral", folder / "neutral.txt", "--max-kl", "0")
    run("sweep", "example:large", *vector, *texts, *neutral, "--quiet")
    assert "no setting has a defined effect with KL at most 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--max-kl", "1"), "--neutral"),
        (("--layers", "1,x"), "'1,x' is not a list of layers"),
        (("--layers", "1+"), "'1+' is not a list of layers"),
        (("--scales", "1,nan"), "nan is not finite"),
        (("--scales", ""), "'' is not a number"),
        (("-o", "s.txt"), ".json"),
        (("--figure", "s.jpeg"), "'.jpeg'"),
        (("-o", "s.json", "--figure", "./s.json"), "the same file"),
        (("-o", "no/such/s.json"), "no/such"),
        (("--native", "{}/large.safetensors"), "hidden size 192"),
        (("--prompts", "{}/one.txt"), "at least 4 samples"),
        (("--prompts", "example:mood"), "example:moods"),
    ],
)
def test_what_cannot_be_swept_is_said_before_the_model_runs(
    folder, tmp_path, monkeypatch, capsys, arguments, why
):
    (folder / "one.txt").write_text("One day\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("embgeom.sweep", lambda *_, **__: pytest.fail("ran"))
    words = ("--positive", " happy", "--negative", " sad")
    asked = (*commands(folder)["evaluate"][1:], *words, *(a.replace("{}", str(folder)) for a in arguments))
    assert status("sweep", *asked) == 2
    err = capsys.readouterr().err
    assert err.startswith("embgeom") and why in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_evaluate_answers(folder, tmp_path, capsys):
    item = {
        "question": "Is the sky blue?\n (A) Yes\n (B) No",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
    }
    (tmp_path / "items.json").write_text(json.dumps([item, item]))
    vector = folder / "small.safetensors"
    run(
        "evaluate",
        "example:small",
        "--vector",
        vector,
        "--questions",
        tmp_path / "items.json",
        "--random",
        "2",
    )
    assert "probability" in capsys.readouterr().out
