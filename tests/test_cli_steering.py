"""The commands that fit a map, train, carry, steer and evaluate, as a user types them one by one."""

import json
import re

import numpy as np
import pytest

import embgeom
from embgeom.cli import main
from embgeom.examples import moods

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a map, pairs, and vectors of both bundled models."""
    folder = tmp_path_factory.mktemp("steering")
    pairs = [{"positive": good, "negative": bad} for good, bad in moods.pairs()]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "prompts.txt").write_text("\n".join(moods.prompts()[:4]))
    (folder / "neutral.txt").write_text("\n".join(moods.neutral_texts()[:2]))
    run("fit", "example:small", "example:large", "-o", folder / "map.safetensors", "--quiet")
    for model in ("small", "large"):
        output = folder / f"{model}.safetensors"
        run("train-vector", f"example:{model}", "--pairs", folder / "pairs.json", "-o", output, "--quiet")
    return folder


def status(*arguments):
    """Run the command, and return its exit status."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code


def run(*arguments):
    assert status(*arguments) == 0


def transfer(folder, output, *options):
    run("transfer", folder / "small.safetensors", "--map", folder / "map.safetensors", "-o", output, *options)


def test_fit_shows_scores_beside_shuffled_pairs(folder, tmp_path, capsys):
    run(
        "fit",
        "example:large",
        "example:small",
        "-o",
        tmp_path / "m.safetensors",
        "--fold-norm",
        "--normalize",
    )
    out = capsys.readouterr().out
    assert "held-out tokens" in out and "fitted on shuffled pairs" in out and "large" in out
    carrier = embgeom.Emb2Emb.load(tmp_path / "m.safetensors")
    assert carrier.provenance["folded"] == [True, True] and carrier.provenance["options"]["normalize"]
    # By default both unembeddings are taken.
    assert carrier.provenance["source"]["which"] == carrier.provenance["target"]["which"] == "output"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ((), {}),
        (("--method", "lle", "-k", "5"), {"k": 5}),
        (("--rank", "7", "--ridge", "0.1"), {"rank": 7, "ridge": 0.1}),
        (("--method", "procrustes", "--no-scale"), {"scaled": False}),
    ],
)
def test_a_method_gets_the_options_that_were_given_alone(tmp_path, monkeypatch, arguments, given):
    # A method refuses options of other methods, so none may be passed on that the user did not give.
    passed = {}

    def fit(*models, **options):
        passed.update(options)
        raise embgeom.InputError("enough")

    monkeypatch.setattr(embgeom.Emb2Emb, "fit", fit)
    assert status("fit", "example:small", "example:large", "-o", tmp_path / "m.safetensors", *arguments) == 2
    assert {name: passed[name] for name in passed.keys() & {"k", "rank", "ridge", "scaled", "reg"}} == given


def test_a_turning_map_does_not_scale(tmp_path):
    options = ("--method", "procrustes", "--no-scale", "-o", tmp_path / "m.safetensors", "--quiet")
    run("fit", "example:small", "example:large", *options)
    matrix = embgeom.Emb2Emb.load(tmp_path / "m.safetensors").matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(128), atol=1e-9)


def test_vectors_are_those_of_the_library(folder):
    vector = embgeom.SteeringVector.load(folder / "small.safetensors")
    model, tokenizer = embgeom.steering.load_language_model("example:small")
    again = embgeom.SteeringVector.train(model, tokenizer, moods.pairs())
    assert vector.blocks == (0, 1, 2, 3)
    for block in vector.blocks:
        np.testing.assert_allclose(vector.directions[block], again.directions[block], rtol=1e-5, atol=1e-6)


def test_transfer(folder, tmp_path, capsys):
    transfer(folder, tmp_path / "v.gguf", "--blocks", "1:2,3:5", "--norm-of", folder / "large.safetensors")
    carried = embgeom.SteeringVector.load(tmp_path / "v.gguf")
    own = embgeom.SteeringVector.load(folder / "large.safetensors")
    assert carried.blocks == (2, 5) and carried.width == 192
    assert carried.norms[5] == pytest.approx(own.norms[5], rel=1e-5)
    transfer(folder, tmp_path / "v.safetensors", "--transport", "logits", "--norm", "3")
    assert set(embgeom.SteeringVector.load(tmp_path / "v.safetensors").blocks) == {0, 1, 2, 3}
    out = capsys.readouterr().out
    assert "carried by" in out and "block 1 to 2, 3 to 5\n" in out


def test_transfer_of_one_block(folder, tmp_path, capsys):
    embgeom.SteeringVector.load(folder / "small.safetensors").at(1).save(tmp_path / "one.safetensors")
    given = ("--map", folder / "map.safetensors", "--blocks", "2", "-o", tmp_path / "v.gguf")
    run("transfer", tmp_path / "one.safetensors", *given)
    assert embgeom.SteeringVector.load(tmp_path / "v.gguf").blocks == (2,)
    assert "block 1 to 2\n" in capsys.readouterr().out
    assert status("transfer", folder / "small.safetensors", *given) == 2
    assert "has 4" in capsys.readouterr().err


def test_steer_shows_both_texts(folder, capsys):
    options = ("--prompt", "One day, Tom", "--prompt", "The dog was", "--max-new-tokens", "6", "--scale", "2")
    run("steer", "example:large", "--vector", folder / "large.safetensors", "--blocks", "3", *options)
    out, err = capsys.readouterr()
    assert out.count("unsteered") == 2 and out.count("steered, scale 2") == 2 and "One day, Tom" in out
    # What transformers has to say of how it is called is nothing that a user could change.
    assert err == ""


def test_steer_at_several_scales(folder, capsys):
    options = ("--prompt", "Tom walked home. He was", "--max-new-tokens", "4", "--scale", "-6", "0", "6")
    run("steer", "example:large", "--vector", folder / "large.safetensors", "--blocks", "2", *options)
    rows = dict(re.findall(r"(unsteered|steered, scale \S+)\s+(.*)", capsys.readouterr().out))
    assert list(rows) == ["unsteered", "steered, scale -6", "steered, scale 0", "steered, scale 6"]
    assert rows["unsteered"] == rows["steered, scale 0"] != rows["steered, scale -6"]
    assert rows["steered, scale 6"] not in (rows["unsteered"], rows["steered, scale -6"])


@pytest.mark.parametrize("command", ["steer", "evaluate", "train-vector"])
def test_transformers_is_quiet_while_the_model_runs_and_as_before_after_it(
    command, folder, monkeypatch, capsys
):
    from transformers.utils import logging

    monkeypatch.setattr(embgeom.SteeringVector, "apply", warn := Warns())
    monkeypatch.setattr(embgeom.SteeringVector, "train", warn)
    before = logging.get_verbosity()
    assert status(*commands(folder)[command]) == 2
    assert capsys.readouterr().err == "embgeom: enough\n" and warn.level == logging.ERROR
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    assert status(*commands(folder)[command]) == 2
    assert warn.level == before == logging.get_verbosity()


class Warns:
    """Stands for a method of a vector; notes how much transformers may say by then."""

    def __call__(self, *arguments, **options):
        from transformers.utils import logging

        self.level = logging.get_verbosity()
        raise embgeom.InputError("enough")


def commands(folder):
    """A command line for each command that runs a model."""
    vector, output = ("--vector", folder / "small.safetensors"), ("-o", folder / "v.pt")
    return {
        "train-vector": ("train-vector", "example:small", "--pairs", folder / "pairs.json", *output),
        "steer": ("steer", "example:small", *vector, "--prompt", "Tom"),
        "evaluate": (
            "evaluate", "example:small", *vector, "--random", "2", "--prompts", folder / "prompts.txt",
            "--more", " happy", "--less", " sad",
        ),
    }  # fmt: skip


@pytest.mark.parametrize("command", ["steer", "evaluate", "train-vector"])
def test_threads_are_those_of_the_model(command, folder, monkeypatch, capsys):
    import torch

    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    monkeypatch.setattr(embgeom.SteeringVector, "apply", Warns())
    monkeypatch.setattr(embgeom.SteeringVector, "train", Warns())
    assert status(*commands(folder)[command], "--threads", "1") == 2
    assert seen == [1, torch.get_num_threads()]
    assert status(*commands(folder)[command], "--threads", "0") == 2
    assert "threads = 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "value", "why"),
    [
        ("steer", "--seed", "-1", "-1 must be 0 at least"),
        ("steer", "--batch-size", "0", "0 must be 1 at least"),
        ("steer", "--max-new-tokens", "0", "0 must be 1 at least"),
        ("steer", "--max-new-tokens", "many", "'many' is no whole number"),
        ("steer", "--temperature", "-1", "-1 must be 0 at least"),
        ("steer", "--temperature", "nan", "nan is not finite"),
        ("steer", "--scale", "nan", "nan is not finite"),
        ("steer", "--scale", "big", "'big' is no number"),
        ("steer", "--blocks", "-1", "counted from 0"),
        ("evaluate", "--scale", "inf", "inf is not finite"),
        ("evaluate", "--seed", "-1", "-1 must be 0 at least"),
        ("evaluate", "--random", "-1", "-1 must be 0 at least"),
        ("evaluate", "--batch-size", "0", "0 must be 1 at least"),
        ("train-vector", "--batch-size", "-2", "-2 must be 1 at least"),
        ("train-vector", "--read", "1", "'1' is none of last"),
        ("train-vector", "--read", "first", "'first' is none of last"),
    ],
)
def test_values_are_checked_before_the_model_is_loaded(
    command, option, value, why, folder, monkeypatch, capsys
):
    monkeypatch.setattr("embgeom.steering.load_language_model", lambda *_, **__: pytest.fail("loaded"))
    assert status(*commands(folder)[command], option, value) == 2
    err = capsys.readouterr().err
    assert err.startswith("embgeom") and why in err and err.count("\n") == 1


@pytest.mark.parametrize(("prompt", "why"), [("", "0 tokens"), ("so " * 600, "tokens and 40 new ones")])
def test_prompts_that_no_model_can_go_on_from(prompt, why, folder, capsys):
    vector = ("--vector", folder / "small.safetensors")
    assert status("steer", "example:small", *vector, "--prompt", "Tom", "--prompt", prompt) == 2
    out, err = capsys.readouterr()
    assert out == "" and "prompt 1" in err and why in err and err.count("\n") == 1


def test_evaluate(folder, tmp_path, capsys):
    run(
        "evaluate", "example:large", "--vector", folder / "large.safetensors", "--blocks", "5",
        "--random", "3",
        "--prompts", folder / "prompts.txt", "--more", " happy", " glad", "--less", " sad",
        "--neutral", folder / "neutral.txt", "--own", folder / "large.safetensors",
        "-o", tmp_path / "e.json", "--figure", tmp_path / "e.svg", "--quiet",
    )  # fmt: skip
    assert "own" in capsys.readouterr().out
    found = json.loads((tmp_path / "e.json").read_text())
    facts = found["facts"]["log-ratio"]
    # The vector in question is the own one.
    assert facts["share_of_own"] == pytest.approx(1) and facts["effect"] > 0
    assert (tmp_path / "e.svg").read_text().lstrip().startswith("<?xml")


def test_evaluate_answers(folder, tmp_path, capsys):
    item = {
        "question": "Is the sky blue?\n (A) Yes\n (B) No",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
    }
    (tmp_path / "items.json").write_text(json.dumps([item, item]))
    vector = folder / "small.safetensors"
    run("evaluate", "example:small", "--vector", vector, "--items", tmp_path / "items.json", "--random", "2")
    assert "probability" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("fit", "example:small", "example:large", "-o", "map.npz"), "safetensors"),
        (("transfer", "nothing.safetensors", "--map", "map.safetensors", "-o", "v.gguf"), "map.safetensors"),
        (("transfer", "{}/small.safetensors", "--map", "{}/map.safetensors", "-o", "v.gguf"), "block 0"),
        (("transfer", "v.pt", "--map", "m.safetensors", "-o", "w.pt", "--blocks", "1-2"), "FROM:TO"),
        (("transfer", "v.pt", "--map", "m.safetensors", "-o", "w.pt", "--blocks", "1:2,1:3"), "twice"),
        (("steer", "example:large", "--vector", "{}/small.safetensors", "--prompt", "A"), "128"),
        (("steer", "example:huge", "--vector", "{}/small.safetensors", "--prompt", "A"), "huge"),
        (("evaluate", "example:small", "--vector", "{}/small.safetensors"), "--more"),
        (("train-vector", "example:small", "--pairs", "{}/prompts.txt", "-o", "v.pt"), "prompts.txt"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(folder, tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    assert status(*(argument.replace("{}", str(folder)) for argument in arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("embgeom") and why in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
