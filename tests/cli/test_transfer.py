"""A transfer in one step, and its certificate, as a user types them."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import embgeom
from embgeom import OutputError, SteeringVector
from embgeom.emb2emb import Emb2Emb, score
from embgeom.emb2emb.lengths import SHARE
from embgeom.evaluation import Certificate, certify
from embgeom.examples import moods
from tests.helpers.cli import run, status

pytest.importorskip("transformers", reason="transformers is not installed")
BOTH = ("--from", "example:small", "--to", "example:large")


@cache
def trained():
    model = embgeom.steering.load_language_model("example:small")
    return SteeringVector.train(*model, moods.pairs()[:20], layers=[1, 3])


@pytest.fixture
def joy(tmp_path):
    trained().save(tmp_path / "joy.safetensors")
    return tmp_path / "joy.safetensors"


def test_one_step(joy, tmp_path, capsys):
    pytest.importorskip("gguf", reason="gguf is not installed")
    run("transfer", joy, *BOTH, "-o", tmp_path / "out.gguf")
    out, err = capsys.readouterr()
    assert "ridge" in out and "layer 1 to 2, 3 to 5" in out and "does to logits: yes" in out
    assert "read from the cache" not in err
    vector = SteeringVector.load(tmp_path / "out.gguf")
    assert vector.layers == (2, 5) and vector.hidden_size == 192
    # As long as the target asks for, and shared among the layers by the spread of its states.
    scaled = vector.provenance["scaled_to_kl"]
    spread = embgeom.steering.state_spread(*embgeom.steering.load_language_model("example:large"))
    assert scaled["kl"] == pytest.approx(0.2, rel=0.06)
    assert f"KL {scaled['kl']:.2g} on neutral text at scale 1" in out
    assert vector.norms[5] / vector.norms[2] == pytest.approx(spread[5] / spread[2], rel=1e-4)
    assert scaled["norms"] == {str(layer): pytest.approx(norm) for layer, norm in vector.norms.items()}
    found = Certificate.from_vector(vector)
    assert found.length["scaled_to_kl"] == scaled
    assert f"scale 1 had a KL of {scaled['kl']:.2g} on neutral" in found.summary()
    assert found.verdict == "yes"
    run("certificate", tmp_path / "out.gguf", "--html", tmp_path / "page.html", "-o", tmp_path / "c.json")
    assert "Weights alone prove no steering" in capsys.readouterr().out
    assert "does to logits: yes" in " ".join((tmp_path / "page.html").read_text(encoding="utf-8").split())
    run("certificate", tmp_path / "c.json")
    assert Certificate.load(tmp_path / "c.json").to_dict() == Certificate.from_vector(vector).to_dict()


def test_a_share_of_the_spread_of_states(joy, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(
        "The river runs down to the sea.\nIt rained, and the boy went home.\n"
    )
    given = ("transfer", joy, *BOTH, "-o", tmp_path / "v.pt")
    run(*given, "--norm", "states", "--texts", tmp_path / "texts.txt")
    texts = (tmp_path / "texts.txt").read_text().splitlines()
    large = embgeom.steering.state_spread(*embgeom.steering.load_language_model("example:large"), texts)
    assert SteeringVector.load(tmp_path / "v.pt").norms[2] == pytest.approx(SHARE * large[2], rel=1e-4)
    # A coordinate that is limited keeps its size among the states.
    replace(trained(), operation="clamp", value=(None, 1.0)).save(tmp_path / "limit.pt")
    run("transfer", tmp_path / "limit.pt", *given[2:], "--texts", tmp_path / "texts.txt")
    found = SteeringVector.load(tmp_path / "v.pt")
    # Both are measured on the same texts, whatever those of --texts are.
    usual = embgeom.steering.state_spread(*embgeom.steering.load_language_model("example:large"), layers=2)
    ratio = usual[2] / trained().state_spread[1]
    assert found.norms[2] == pytest.approx(trained().norms[1] * ratio, rel=1e-4)
    capsys.readouterr()
    run("fit", *BOTH[1::2], "-o", tmp_path / "m.safetensors")
    assert status("transfer", joy, "--map", tmp_path / "m.safetensors", "-o", tmp_path / "w.pt") == 2
    assert "name both models by --from and --to, so that the target is run" in capsys.readouterr().err


def test_a_map_is_fitted_once(joy, tmp_path, monkeypatch, capsys):
    given = ("transfer", joy, *BOTH, "--norm", "raw", "-o", tmp_path / "v.safetensors")
    run(*given)
    first = SteeringVector.load(tmp_path / "v.safetensors")
    capsys.readouterr()
    fitted = []
    whole = score.fit
    monkeypatch.setattr(score, "fit", lambda *pairs, **options: fitted.append(1) or whole(*pairs, **options))
    run(*given)
    again = SteeringVector.load(tmp_path / "v.safetensors")
    assert not fitted and "read from the cache: 1 result" in capsys.readouterr().err
    for layer, direction in first.directions.items():
        np.testing.assert_array_equal(again.directions[layer], direction)
    assert again.provenance == first.provenance
    for others in (
        ("--no-cache",),
        ("--method", "low_rank"),
        ("--seed", "1"),
        ("--shuffle", "1"),
        ("--only", "words"),
    ):
        run(*given, *others)
    assert len(fitted) == 5


def test_controls_fail_and_are_a_baseline(joy, tmp_path, capsys):
    run("transfer", joy, *BOTH, "--shuffle", "4", "--norm", "20", "-o", tmp_path / "v.pt")
    out = " ".join(capsys.readouterr().out.split())
    assert "v-0.pt and 3 more" in out and "does to logits: no for 4 of 4 controls" in out
    files = sorted(tmp_path.glob("v*.pt"))
    assert [file.name for file in files] == [f"v-{i}.pt" for i in range(4)]
    vectors = [SteeringVector.load(file) for file in files]
    assert {Certificate.from_vector(each).verdict for each in vectors} == {"no"}
    # Each is of a seed of its own, and the vector of a fit with that seed.
    small, large = (embgeom.load(name, "output") for name in BOTH[1::2])
    mapping = Emb2Emb.fit(small, large, shuffle=True, seed=1)
    again = mapping.transfer(trained(), layers={1: 2, 3: 5}, norm="raw").with_norm(20.0)
    np.testing.assert_allclose(vectors[1].directions[5], again.directions[5], rtol=1e-4, atol=1e-5)
    one, other = (each.directions[5] / 20 for each in vectors[:2])
    assert abs(one @ other) < 0.5
    (tmp_path / "prompts.txt").write_text("He felt\nThe girl was\n")
    scored = ("--prompts", tmp_path / "prompts.txt", "--positive", " happy", "--negative", " sad")
    given = ("--vector", files[0], "--shuffled", *files[1:], "--random", "0", "-o", tmp_path / "e.json")
    run("evaluate", "example:large", *given, *scored)
    out = " ".join(capsys.readouterr().out.split())
    assert "shuffled, mean of 3 (± sd)" in out and "shuffled control, negated" in out
    assert "beats vectors by maps of shuffled tokens by more than two sd" in out
    assert status("transfer", files[0], *BOTH, "--shuffle", "1", "-o", tmp_path / "v.pt") == 2
    assert "would be written over" in capsys.readouterr().err
    # A pattern of the shell would take older files, too.
    assert status("transfer", joy, *BOTH, "--shuffle", "2", "-o", tmp_path / "v.pt") == 2
    assert "v-2.pt, v-3.pt beside" in (err := capsys.readouterr().err) and "remove them" in err
    # What is no control, and the control of another vector, are refused.
    SteeringVector({2: np.ones(192), 5: np.ones(192)}).save(tmp_path / "plain.pt")
    mapping.transfer(-trained(), layers={1: 2, 3: 5}, norm="raw").save(tmp_path / "other.pt")
    for file, told in ((tmp_path / "plain.pt", "is no control"), (files[0], "is the vector in question"),
                       (tmp_path / "other.pt", "is a control of another source vector")):  # fmt: skip
        assert status("evaluate", "example:large", *given[:2], "--shuffled", file, *scored) == 2
        assert f"--shuffled {file} {told}" in capsys.readouterr().err


def test_of_controls_that_cannot_all_be_written_those_that_were_are_named(joy, tmp_path, monkeypatch, capsys):
    save = SteeringVector.save

    def full(vector, path):
        if "v-1" in path:
            raise OutputError(f"cannot write {path}: no space left")
        save(vector, path)

    monkeypatch.setattr(SteeringVector, "save", full)
    assert status("transfer", joy, *BOTH, "--shuffle", "3", "--norm", "20", "-o", tmp_path / "v.pt") == 2
    assert f"; before it {tmp_path / 'v-0.pt'} was written" in capsys.readouterr().err


def test_controls_as_long_as_the_target_asks_for(joy, tmp_path):
    run("transfer", joy, *BOTH, "--shuffle", "2", "--layers", "3:5", "-o", tmp_path / "v.pt")
    for number in range(2):
        found = SteeringVector.load(tmp_path / f"v-{number}.pt")
        assert found.provenance["scaled_to_kl"]["kl"] == pytest.approx(0.2, rel=0.06)


def test_a_map_that_is_given(joy, tmp_path, capsys):
    run("fit", "example:small", "example:large", "-o", tmp_path / "m.safetensors", "--method", "ridge")
    given = ("transfer", joy, "--map", tmp_path / "m.safetensors", "--norm", "3", "-o", tmp_path / "v.pt")
    run(*given)
    assert "certificate" not in SteeringVector.load(tmp_path / "v.pt").provenance
    assert "no certificate: it needs both models, --from and --to" in capsys.readouterr().out
    run(*given, *BOTH)
    found = Certificate.from_vector(SteeringVector.load(tmp_path / "v.pt"))
    assert found.mapping["method"] == "ridge" and found.forecasts[0].held_out
    assert list(found.norms.values()) == pytest.approx([3, 3])
    assert "does to logits: yes" in " ".join(capsys.readouterr().out.split())


def test_the_command_of_the_paper(joy, tmp_path, capsys):
    page = Path(__file__).parents[2] / "docs" / "paper.md"
    line = next(each for each in page.read_text().splitlines() if each.startswith("$ embgeom transfer"))
    run("fit", *BOTH[1::2], "--method", "least_squares", "-o", tmp_path / "map.safetensors")
    named = {"SOURCE": BOTH[1], "TARGET": BOTH[3], "vector.safetensors": joy}
    named |= {name: tmp_path / name for name in ("map.safetensors", "transferred.safetensors")}
    run(*(named.get(each, each) for each in line.split()[2:]))
    assert SteeringVector.load(tmp_path / "transferred.safetensors").provenance["mode"] == "primal"


def test_a_map_of_other_models_is_refused_and_a_folded_norm_counts(joy, tmp_path, capsys):
    run("fit", "example:small", "example:large", "-o", tmp_path / "m.safetensors", "--fold-norm")
    given = ("transfer", joy, "--map", tmp_path / "m.safetensors", "--norm", "1", "-o", tmp_path / "v.pt")
    run(*given, *BOTH)
    models = [embgeom.load(name, "output") for name in BOTH[1::2]]
    norms = tuple(map(embgeom.load_final_norm, BOTH[1::2]))
    mapping = Emb2Emb.load(tmp_path / "m.safetensors")
    vector = SteeringVector.load(tmp_path / "v.pt")
    found = Certificate.from_vector(vector)
    folded = certify(trained(), vector, *models, mapping, norms=norms)
    assert found.forecasts == folded.forecasts
    assert found.forecasts != certify(trained(), vector, *models, mapping).forecasts
    capsys.readouterr()
    assert status(*given, "--from", "example:small", "--to", "example:small") == 2
    assert "--to is example:small, but the map is of 'example:large'" in capsys.readouterr().err
    assert status(*given, *BOTH, "--which-to", "input") == 2
    said = "--to is the input side of example:large, but the map was fitted on the output side: choose"
    assert said in capsys.readouterr().err
    for more, told in (
        (("--texts", joy), "--texts is of no use where no model is run (with --norm 1)"),
        (("--batch-size", "9"), "--batch-size is of no use where no model is run"),
        (("--dtype", "float16"), "--dtype is of no use where no model is run"),
        (("--quantize", "8"), "--quantize is of no use where no model is run"),
    ):
        assert status(*given, *BOTH, *more) == 2 and told in capsys.readouterr().err


def test_lengths_of_a_vector_of_the_target(joy, tmp_path, capsys, monkeypatch):
    SteeringVector({2: np.full(192, 0.1), 5: np.ones(192)}).save(tmp_path / "large.pt")
    run("transfer", joy, *BOTH, "--norm", tmp_path / "large.pt", "-o", tmp_path / "v.pt")
    assert "norms by layer: 2: " in capsys.readouterr().out
    norms = SteeringVector.load(tmp_path / "v.pt").norms
    assert norms[5] == pytest.approx(192**0.5, rel=1e-5) and norms[2] == pytest.approx(
        norms[5] / 10, rel=1e-5
    )
    monkeypatch.setattr("embgeom.cli.transfer.load_model", lambda *_: pytest.fail("a model was loaded"))
    for held, told in (
        ({2: np.ones(192)}, "without layer 5 of the target"),
        ({5: np.ones(9)}, "size 9, and"),
    ):
        SteeringVector(held).save(tmp_path / "large.pt")
        assert status("transfer", joy, *BOTH, "--norm", tmp_path / "large.pt", "-o", tmp_path / "w.pt") == 2
        assert "--norm is a vector" in (err := capsys.readouterr().err) and told in err


def test_what_was_measured_goes_with_the_vector(joy, tmp_path, capsys):
    run("transfer", joy, *BOTH, "--norm", "20", "-o", tmp_path / "v.safetensors")
    measured = tmp_path / "measured.json"
    (tmp_path / "prompts.txt").write_text("He felt\nThe girl was\n")
    scored = ("--prompts", tmp_path / "prompts.txt", "--positive", " happy", "--negative", " sad")
    vector = ("--vector", tmp_path / "v.safetensors", "--random", "4")
    run("evaluate", "example:large", *vector, *scored, "-o", measured)
    capsys.readouterr()
    run("certificate", tmp_path / "v.safetensors", "--evaluation", measured, "-o", tmp_path / "w.safetensors")
    assert "; measured: " in " ".join(capsys.readouterr().out.split())
    found = Certificate.from_vector(SteeringVector.load(tmp_path / "w.safetensors"))
    assert found.measured is not None and len(found.evaluation.of_kind("random")) == 4
    assert len(json.dumps(found.to_dict())) < 200_000


@pytest.mark.parametrize(("arguments", "told"), [
    ((*BOTH, "--at-kl", "0.1", "--norm", "1"), "--at-kl sets the length, and --norm another"),
    (("--map", "m.safetensors", "--at-kl", "0.1"), "--at-kl runs the target"),
    (("--from", "example:small"), "name both models, by --from and --to, or a map"),
    ((), "name both models"),
    ((*BOTH, "--map", "m.safetensors", "--method", "ridge"), "--method is for fitting a map"),
    ((*BOTH, "--map", "m.safetensors", "--shuffle"), "--shuffle is for fitting a map"),
    ((*BOTH, "--norm", "long"), "neither states, raw, a length"),
    ((*BOTH, "--norm", "-1"), "neither states, raw, a length"),
    ((*BOTH, "--norm", "none.pt"), "none.pt"),
    ((*BOTH, "--method", "lle", "--mode", "dual"), "mode 'dual' needs a linear map"),
    ((*BOTH, "--texts", "none.txt"), "none.txt"),
    (("--map", "m.safetensors", "--texts", "none.txt"), "--texts is of no use without --from and --to"),
    (("--map", "m.safetensors", "--seed", "1"), "--seed is of no use"),
    (("--map", "m.safetensors", "--without", "none"), "--without is of no use"),
    (("--map", "m.safetensors", "--only", "none.txt"), "--only is of no use"),
    (("--map", "m.safetensors", "--with", "all"), "--with is of no use"),
    (("--map", "m.safetensors", "--which-from", "input"), "--which-from is of no use"),
    (("--map", "m.safetensors", "--token-format-to", "words"), "--token-format-to is of no use"),
    (("--map", "m.safetensors", "--batch-size", "4"), "--batch-size is of no use"),
    (("--map", "m.safetensors", "--trust-remote-code"), "--trust-remote-code is of no use"),
    (("--map", "m.safetensors", "--local-files-only"), "--local-files-only is of no use"),
    (("--map", "m.safetensors", "--device", "cpu"), "--device is of no use"),
    ((*BOTH, "--subfolder-to", "."), "--subfolder-to is for the matrix"),
    ((*BOTH, "--layers", "1:9,3:5"), "has 6 layers, counted from 0: choose layers up to 5, by --layers"),
    ((*BOTH, "--layers", "5"), "--layers 5 is one layer, but the vector has 2: name one, such as 3:5"),
    (("--from", "example:large", "--to", "example:small"), "of the target, example:small: swap --from and"),
    ((*BOTH, "--tensor-to", "model.embed_tokens.weight"), "is not that of"),
])  # fmt: skip
def test_errors_say_what_to_do(joy, tmp_path, capsys, arguments, told):
    assert status("transfer", joy, *arguments, "-o", tmp_path / "v.pt") == 2
    assert told in capsys.readouterr().err and not (tmp_path / "v.pt").exists()


def test_a_vector_without_a_certificate(joy, tmp_path, capsys):
    assert status("certificate", joy) == 2
    assert "has no certificate: embgeom transfer writes one" in capsys.readouterr().err


def test_no_vector_is_written_over(joy, capsys):
    before = joy.read_bytes()
    assert status("transfer", joy, *BOTH, "-o", joy) == 2
    assert status("certificate", joy, "-o", joy) == 2
    assert joy.read_bytes() == before and "would be written over" in capsys.readouterr().err
