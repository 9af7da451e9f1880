"""The commands that fit a map, and make, transfer and apply vectors, as a user types them one by one."""

import re

import numpy as np
import pytest

import embgeom
from embgeom.emb2emb import LowRank, NeighborWeights, Procrustes, Ridge
from embgeom.emb2emb.lengths import SHARE
from embgeom.embeddings.provenance import ModelInfo
from embgeom.examples import moods
from tests.helpers.cli import commands, fill, run, status

pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("steering"))


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
    mapping = embgeom.Emb2Emb.load(tmp_path / "m.safetensors")
    assert mapping.provenance["folded"] == [True, True] and mapping.provenance["options"]["normalize"]
    # By default both unembeddings are taken.
    assert mapping.provenance["source"]["which"] == mapping.provenance["target"]["which"] == "output"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ((), Ridge()),
        (("--method", "lle", "-k", "5"), NeighborWeights(k=5)),
        (("--method", "low_rank", "--rank", "7", "--strength", "0.1"), LowRank(rank=7, strength=0.1)),
        (("--method", "procrustes", "--no-scaled"), Procrustes(scaled=False)),
        (("--method", "ridge", "--no-center"), Ridge(center=False)),
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
    assert passed["method"] == given


def test_a_method_refuses_options_of_others(tmp_path, capsys):
    options = ("-o", tmp_path / "m.safetensors", "--method", "lle", "--rank", "7")
    assert status("fit", "example:small", "example:large", *options) == 2
    assert "rank = 7 is given, but method 'lle' does not use it" in capsys.readouterr().err


def test_a_turning_map_does_not_scale(tmp_path):
    options = ("--method", "procrustes", "--no-scaled", "-o", tmp_path / "m.safetensors", "--quiet")
    run("fit", "example:small", "example:large", *options)
    matrix = embgeom.Emb2Emb.load(tmp_path / "m.safetensors").matrix
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(128), atol=1e-9)


def test_a_map_of_states(folder, tmp_path, capsys):
    given = ("fit", "example:small", "example:large", "--states", folder / "neutral.txt")
    saved = ("-o", tmp_path / "m.safetensors")
    run(*given, "--layers", "2:4", "--held-out", "0", "--quiet", *saved)
    mapping = embgeom.Emb2Emb.load(tmp_path / "m.safetensors")
    assert mapping.layers == (2, 4) and mapping.method == Ridge() and mapping.provenance["texts"] == 2
    assert "states of layers 2 -> 4" in capsys.readouterr().out
    run("transfer", folder / "small.safetensors", "--map", saved[1], "-o", tmp_path / "v.pt")
    out = capsys.readouterr().out
    assert "(primal); layer 2 to 4; left out: 0, 1, 3\n" in out
    _, target = mapping.provenance["state_spread"]
    norm = SHARE * target
    assert embgeom.SteeringVector.load(tmp_path / "v.pt").norms[4] == pytest.approx(norm, rel=1e-5)
    for more, why in (
        (("--layers", "2:4,3:5"), "is not A:B"),
        (("--layers", "2:4", "--fold-norm"), "--fold-norm is about matrices"),
        (("--which-b", "input"), "--which-b is about matrices"),
        (("--vocabulary-a", "tokens.txt"), "--vocabulary-a is about matrices"),
        (("--without", "none"), "--without is about matrices"),
        (("--subfolder-a", "sub"), "--subfolder-a is for the matrix"),
        (("--layers", "2:6"), "there is no layer 6: example:large has 6 layers, 0 to 5"),
        (("--layers", "4"), "there is no layer 4: example:small has 4 layers"),
    ):
        assert status(*given, *more, *saved) == 2
        assert why in capsys.readouterr().err
    assert status(*given[:4], "example:moods", *saved) == 2
    assert "too few and too alike for a map" in capsys.readouterr().err
    (tmp_path / "more.txt").write_text("\n".join(moods.neutral_texts()[:12]))
    run(*given[:4], tmp_path / "more.txt", *saved)
    out, err = capsys.readouterr()
    assert embgeom.Emb2Emb.load(saved[1]).layers == (2, 4)
    assert "paired tokens of 12 texts, " in " ".join(out.split()) and " held out (texts: 1)" in out
    assert "paired tokens for a map of 128 to 192 columns are less than 10 for each" in err
    assert "1 of 1 held-out texts repeat four fifths of their runs" in err
    assert status(*given[:3], "--layers", "2:4", *saved) == 2
    assert "give texts by --states" in capsys.readouterr().err


def test_vectors_are_those_of_the_library(folder):
    vector = embgeom.SteeringVector.load(folder / "small.safetensors")
    model, tokenizer = embgeom.steering.load_language_model("example:small")
    again = embgeom.SteeringVector.train(model, tokenizer, moods.pairs())
    assert vector.layers == (0, 1, 2, 3)
    for layer in vector.layers:
        np.testing.assert_allclose(vector.directions[layer], again.directions[layer], rtol=1e-5, atol=1e-6)


def test_transfer(folder, tmp_path, capsys):
    transfer(folder, tmp_path / "v.gguf", "--layers", "1:2,3:5", "--norm", folder / "large.safetensors")
    transferred = embgeom.SteeringVector.load(tmp_path / "v.gguf")
    native = embgeom.SteeringVector.load(folder / "large.safetensors")
    assert transferred.layers == (2, 5) and transferred.hidden_size == 192
    assert transferred.norms[5] == pytest.approx(native.norms[5], rel=1e-5)
    transfer(folder, tmp_path / "v.safetensors", "--mode", "logits", "--norm", "3")
    # The models have 4 and 6 layers: each direction goes to the layer that is as deep.
    assert embgeom.SteeringVector.load(tmp_path / "v.safetensors").layers == (1, 2, 4, 5)
    out = capsys.readouterr().out
    assert (
        "transferred by" in out
        and "layer 1 to 2, 3 to 5; left out: 0, 2\n" in out
        and "layer 0 to 1, 1 to 2, 2 to 4," in out
        and "norms by layer: 1: 3, 2: 3, 4: 3, 5: 3\n" in out
    )


def test_transfer_of_one_block(folder, tmp_path, capsys):
    embgeom.SteeringVector.load(folder / "small.safetensors").select_layers(1).save(
        tmp_path / "one.safetensors"
    )
    given = ("--map", folder / "map.safetensors", "--layers", "2", "--norm", "raw", "-o", tmp_path / "v.gguf")
    run("transfer", tmp_path / "one.safetensors", *given)
    assert embgeom.SteeringVector.load(tmp_path / "v.gguf").layers == (2,)
    assert "layer 1 to 2\n" in capsys.readouterr().out
    assert status("transfer", folder / "small.safetensors", *given) == 2
    assert "has 4" in capsys.readouterr().err


def test_a_warning_is_a_line(folder, tmp_path, capsys):
    embgeom.SteeringVector({0: np.ones(128)}, model_info=ModelInfo("other/model")).save(tmp_path / "other.pt")
    given = ("--map", folder / "map.safetensors", "--norm", "raw", "-o", tmp_path / "v.pt")
    run("transfer", tmp_path / "other.pt", *given)
    err = capsys.readouterr().err
    assert err.startswith("embgeom: warning: the vector is of 'other/model'") and err.count("\n") == 1


def test_steer_shows_both_texts(folder, capsys):
    options = ("--prompt", "One day, Tom", "--prompt", "The dog was", "--max-new-tokens", "6", "--scale", "2")
    run("steer", "example:large", "--vector", folder / "large.safetensors", "--layers", "3", *options)
    out, err = capsys.readouterr()
    assert out.count("unsteered") == 2 and out.count("steered, scale 2") == 2 and "One day, Tom" in out
    # What transformers has to say of how it is called is nothing that a user could change.
    assert err == ""


@pytest.mark.parametrize("scales", [("--scale", "-6", "0", "6"), ("--scale=-6,0,6",)])
def test_steer_at_several_scales(scales, folder, capsys):
    options = ("--prompt", "Tom walked home. He was", "--max-new-tokens", "4", *scales)
    run("steer", "example:large", "--vector", folder / "large.safetensors", "--layers", "2", *options)
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
        ("steer", "--seed", "-1", "-1 must be at least 0"),
        ("steer", "--batch-size", "0", "0 must be at least 1"),
        ("steer", "--max-new-tokens", "0", "0 must be at least 1"),
        ("steer", "--max-new-tokens", "many", "'many' is not an integer"),
        ("steer", "--temperature", "-1", "-1 must be at least 0"),
        ("steer", "--temperature", "nan", "nan is not finite"),
        ("steer", "--scale", "nan", "nan is not finite"),
        ("steer", "--scale", "big", "'big' is not a number"),
        ("steer", "--layers", "-1", "counted from 0"),
        ("evaluate", "--scale", "inf", "inf is not finite"),
        ("evaluate", "--seed", "-1", "-1 must be at least 0"),
        ("evaluate", "--random", "-1", "-1 must be at least 0"),
        ("evaluate", "--batch-size", "0", "0 must be at least 1"),
        ("train-vector", "--batch-size", "-2", "-2 must be at least 1"),
        ("train-vector", "--token-position", "1", "'1' is neither last"),
        ("train-vector", "--token-position", "first", "'first' is neither last"),
    ],
)
def test_values_are_checked_before_the_model_is_loaded(
    command, option, value, why, folder, monkeypatch, capsys
):
    monkeypatch.setattr("embgeom.cli.models.load_language_model", lambda *_, **__: pytest.fail("loaded"))
    assert status(*commands(folder)[command], option, value) == 2
    err = capsys.readouterr().err
    assert err.startswith("embgeom") and why in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["steer", "evaluate"])
def test_a_second_vector_is_not_taken_for_the_first(command, folder, monkeypatch, capsys):
    monkeypatch.setattr("embgeom.cli.models.load_language_model", lambda *_, **__: pytest.fail("loaded"))
    assert status(*commands(folder)[command], "--vector", folder / "large.safetensors") == 2
    err = capsys.readouterr().err
    assert "--vector is given twice, and only one is taken" in err and err.count("\n") == 1


@pytest.mark.parametrize(("prompt", "why"), [("", "0 tokens"), ("so " * 600, "tokens and 40 new ones")])
def test_prompts_that_no_model_can_go_on_from(prompt, why, folder, capsys):
    vector = ("--vector", folder / "small.safetensors")
    assert status("steer", "example:small", *vector, "--prompt", "Tom", "--prompt", prompt) == 2
    out, err = capsys.readouterr()
    assert out == "" and "prompt 1" in err and why in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("train-vector", "pairs.json"),
        ("transfer", "map.safetensors"),
        ("evaluate", "prompts.json"),
        ("fit", "model.safetensors"),
    ],
)
def test_what_is_read_is_not_written_over(command, output, folder, tmp_path, capsys):
    # By another name for the same file.
    (tmp_path / "link").symlink_to(folder)
    (folder / "prompts.json").write_text("One day\nThe dog was")
    lines = commands(folder) | {
        "train-vector": ("train-vector", "example:small", "--pairs", folder / "pairs.json"),
        "transfer": ("transfer", folder / "small.safetensors", "--map", folder / "map.safetensors"),
        "fit": ("fit", folder / "model.safetensors", "example:large"),
    }
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    asked = [folder / "prompts.json" if str(a).endswith("prompts.txt") else a for a in lines[command]]
    assert status(*asked, "-o", tmp_path / "link" / output) == 2
    err = capsys.readouterr().err
    assert output in err and len(err.strip().splitlines()) == 1
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("fit", "example:small", "example:large", "-o", "map.npz"), "safetensors"),
        (
            ("transfer", "nothing.safetensors", "--map", "map.safetensors", "-o", "v.gguf"),
            "nothing.safetensors",
        ),
        (
            [
                "transfer",
                "{}/small.safetensors",
                "--map",
                "{}/map.safetensors",
                "-o",
                "v.gguf",
                "--layers",
                "0:0",
            ],
            "layer 0",
        ),
        (("transfer", "v.pt", "--map", "m.safetensors", "-o", "w.pt", "--layers", "1-2"), "FROM:TO"),
        (("transfer", "v.pt", "--map", "m.safetensors", "-o", "w.pt", "--layers", "1:2,1:3"), "twice"),
        (("steer", "example:large", "--vector", "{}/small.safetensors", "--prompt", "A"), "128"),
        (("steer", "example:huge", "--vector", "{}/small.safetensors", "--prompt", "A"), "huge"),
        (("evaluate", "example:small", "--vector", "{}/small.safetensors"), "--positive"),
        (("train-vector", "example:small", "--pairs", "{}/prompts.txt", "-o", "v.pt"), "prompts.txt"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(folder, tmp_path, monkeypatch, capsys, arguments, why):
    monkeypatch.chdir(tmp_path)
    assert status(*(argument.replace("{}", str(folder)) for argument in arguments)) == 2
    err = capsys.readouterr().err
    assert err.startswith("embgeom") and why in err and len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_gguf_holds_all_layers_but_0(folder, tmp_path, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed")
    trained = ("train-vector", "example:small", "--pairs", folder / "pairs.json", "-o", tmp_path / "v.gguf")
    run(*trained)
    assert "layer 0 left out, which llama.cpp never steers" in capsys.readouterr().out
    vector = embgeom.SteeringVector.load(tmp_path / "v.gguf")
    assert vector.layers == (1, 2, 3) and vector.state_spread.keys() == {0, 1, 2, 3}


@pytest.mark.parametrize(("arguments", "why"), [
    (("train-vector", "example:small", "--pairs", "{}/pairs.json", "-o", "v.gguf", "--layers", "0,2"),
     "v.gguf cannot hold layer 0, which llama.cpp never steers: name others by --layers"),
    (("train-vector", "example:small", "--pairs", "{}/pairs.json", "-o", "v.gguf", "--operation", "ablate"),
     "cannot hold the operation ablate"),
    (("train-vector", "example:small", "--pairs", "{}/pairs.json", "-o", "v.pt", "--layers", "4"),
     "there is no layer 4: example:small has 4 layers, 0 to 3"),
    (("transfer", "{}/large.safetensors", "--from", "example:large", "--to", "example:small", "-o", "v.gguf"),
     "name others by --layers, such as 2:1,4:2,5:3, or write"),
    (("transfer", "{}/large.safetensors", "--from", "example:small", "--to", "example:large", "-o", "v.pt"),
     "it is a vector of the target, example:large: swap --from and --to"),
    (("transfer", "{}/small.safetensors", "--from", "example:small", "--to", "example:large", "-o", "v.pt",
      "--layers", "1:6"), "goes to layer 6, but the target has 6 layers"),
    (("steer", "example:large", "--vector", "{}/small.safetensors", "--prompt", "A"),
     "hidden size 128, example:large 192: it is another model's"),
    (("steer", "example:small", "--vector", "{}/small.safetensors", "--prompt", "A", "--layers", "9"),
     "no direction for layer 9"),
    (("evaluate", "example:large", "--vector", "{}/small.safetensors", "--prompts", "example:moods"),
     "hidden size 128, example:large 192"),
    (("sweep", "example:large", "--vector", "{}/small.safetensors", "--prompts", "example:moods"),
     "hidden size 128, example:large 192"),
    (("sweep", "example:small", "--vector", "{}/one.pt", "--prompts", "example:moods", "--layers", "1,2+4"),
     "there is no layer 4: example:small has 4 layers"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_before_weights_are_read(
    folder, tmp_path, monkeypatch, capsys, arguments, why
):
    embgeom.SteeringVector.load(folder / "small.safetensors").select_layers(1).save(tmp_path / "one.pt")
    places = {"{}/one.pt": tmp_path / "one.pt"}
    for name in ("load_model", "running"):
        for module in ("transfer", "steer", "evaluate", "maps"):
            monkeypatch.setattr(
                f"embgeom.cli.{module}.{name}", lambda *_: pytest.fail("weights were read"), raising=False
            )
    monkeypatch.chdir(tmp_path)
    assert status(*(places.get(a, a.replace("{}", str(folder))) for a in arguments)) == 2
    err = capsys.readouterr().err
    assert why in err and len(err.strip().splitlines()) == 1, err
