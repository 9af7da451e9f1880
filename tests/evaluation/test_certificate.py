"""What a certificate says, and that it goes with the vector through every format of files."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import embgeom
from embgeom import InputError, LoadError, SteeringVector
from embgeom.evaluation import Certificate, Effect, Evaluation, Outcome, certify
from embgeom.evaluation.run import describe_vector
from embgeom.examples import moods

pytest.importorskip("transformers", reason="transformers is not installed")


@cache
def models():
    return tuple(embgeom.load(folder, "output") for folder in embgeom.examples.pair())


@cache
def transferred(shuffle=False, method="low_rank"):
    small, large = models()
    mapping = embgeom.Emb2Emb.fit(small, large, shuffle=shuffle, method=method)
    model = embgeom.steering.load_language_model("example:small")
    joy = SteeringVector.train(*model, moods.pairs()[:20], layers=[1, 3])
    return joy, mapping.transfer(joy, norm="raw").with_norm(2.0), mapping


@cache
def certificate(shuffle=False):
    joy, vector, mapping = transferred(shuffle)
    return certify(joy, vector, *models(), mapping)


def evaluation(of, effect=3.0, native=None):
    effects = {"transferred": effect, "transferred_negated": -effect}
    effects |= {"random_0": 0.5, "random_1": -0.4, "random_2": 0.1}
    effects |= {} if native is None else {"native": native}
    outcomes = tuple(
        Outcome(
            name, name.rstrip("_012"), of.layers, 1.0,
            {"log-ratio": np.array([shift, shift + 0.1])}, {"log-ratio": Effect(shift, 0.05, 0.0)}, None,
        )
        for name, shift in effects.items()
    )  # fmt: skip
    provenance = {"options": {"norms": {"2": 2.0}}, "vector": describe_vector(of)}
    return Evaluation(outcomes, {"log-ratio": np.array([0.0, 0.1])}, None, provenance)


def test_it_says_what_was_transferred_and_how():
    found = certificate()
    assert found.verdict == "yes" and found.measured is None
    assert found.source["name"] == "small" and found.target["name"] == "large"
    assert len(found.source["matrix_sha256"]) == 64 and len(found.target["sha256"]) == 64
    assert found.mapping["method"] == "low_rank" and found.mapping["tokens"]["shared"] > 3000
    assert [each.target_layer for each in found.forecasts] == list(found.norms)
    for each in found.promoted:
        assert len(each.strongest) == len(each.weakest) == len(each.source_weakest) == 10
        assert {*each.strongest} & {*each.source_strongest}
    text = " ".join(found.summary().split())
    for said in (
        "the map keeps what this vector does to logits: yes",
        "nothing was measured",
        found.promoted[0].strongest[0],
        "Weights alone prove no steering",
        "shuffled pairs",
    ):
        assert said in text


@pytest.mark.parametrize("method", ["low_rank", "ridge", "procrustes"])
def test_that_of_shuffled_tokens_reads_as_a_failure(method):
    joy, vector, mapping = transferred(True, method)
    found = certify(joy, vector, *models(), mapping)
    assert found.verdict == "no" and {each.verdict for each in found.forecasts} == {"no"}
    text = " ".join(found.summary().split())
    assert (
        "by a map of shuffled tokens; the map keeps what this vector does to logits: no, not better" in text
    )


@pytest.mark.parametrize("shuffle", [False, True])
def test_that_of_a_map_of_states(shuffle):
    both = [embgeom.steering.load_language_model(f"example:{name}") for name in ("small", "large")]
    texts = moods.neutral_texts()
    mapping = embgeom.Emb2Emb.fit_states(*both[0], *both[1], texts, (3, 5), shuffle=shuffle)
    joy = transferred()[0].select_layers([3])
    found = certify(joy, mapping.transfer(joy, norm="raw").with_norm(1.0), *models(), mapping)
    # The unembedding sees little of what a map of states does, so the other one's verdict is left open.
    assert found.verdict == "no" or not shuffle
    text = " ".join(found.summary().split())
    assert "of whose rows the map, one of hidden states, was fitted on none" in text
    assert "This is a map of hidden states, and the agreement is about unembeddings" in text
    failed = replace(found, forecasts=(replace(found.forecasts[0], agreement=0.0, low=-0.1, high=0.1),))
    assert "at random (which says little of a map of hidden states)" in " ".join(failed.summary().split())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".gguf"])
def test_it_goes_with_the_vector(suffix, tmp_path):
    if suffix != ".safetensors":
        pytest.importorskip({".pt": "torch", ".gguf": "gguf"}[suffix])
    vector = certificate().attached(transferred()[1])
    vector.save(tmp_path / f"joy{suffix}")
    loaded = SteeringVector.load(tmp_path / f"joy{suffix}")
    again = Certificate.from_vector(loaded)
    assert again.to_dict() == certificate().to_dict() and again.summary() == certificate().summary()
    # The directions are the same at another length, and so is what is known of them.
    longer = Certificate.from_vector(2 * loaded)
    assert longer.norms == (2 * loaded).norms and longer.forecasts == certificate().forecasts
    assert Certificate.from_vector(-1 * -loaded).to_dict() == certificate().to_dict()


@pytest.mark.parametrize(
    "other",
    [
        lambda v: -v,
        lambda v: 5 * -v,
        lambda v: v.select_layers(v.layers[:1]),
        lambda v: replace(v, directions={layer: each[::-1] for layer, each in v.directions.items()}),
        lambda v: replace(v, directions=dict(zip(v.layers, [*v.directions.values()][::-1], strict=True))),
    ],
)
def test_it_is_of_one_direction(other):
    vector = certificate().attached(transferred()[1])
    with pytest.raises(InputError, match="of another direction"):
        Certificate.from_vector(other(vector))
    with pytest.raises(InputError, match="of another vector"):
        certificate().with_evaluation(evaluation(other(vector)))
    assert certificate().with_evaluation(evaluation(3 * vector)).measured == "steers"


def test_other_tools_read_the_vector_as_ever(tmp_path):
    gguf = pytest.importorskip("gguf")
    vector = certificate().attached(transferred()[1])
    vector.save(tmp_path / "joy.gguf")
    reader = gguf.GGUFReader(tmp_path / "joy.gguf")
    assert reader.fields["general.architecture"].contents() == "controlvector"
    held = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert set(held) == {f"direction.{layer}" for layer in vector.layers}
    for layer, direction in vector.directions.items():
        np.testing.assert_array_equal(held[f"direction.{layer}"], direction)
    others = [name for name in reader.fields if not name.startswith(("embgeom.", "GGUF.", "general."))]
    assert sorted(others) == ["controlvector.layer_count", "controlvector.model_hint"]
    provenance = json.loads(reader.fields["embgeom.provenance"].contents())
    assert provenance["certificate"]["verdict"] == "yes"


def test_what_was_measured_is_added():
    vector = certificate().attached(transferred()[1])
    found = certificate().with_evaluation(evaluation(vector))
    assert found.measured == "steers" and "measured: the vector steers" in found.summary()
    assert "mean effects over 2 samples" in found.summary()
    assert "certificate" not in found.evaluation.provenance["vector"]["provenance"]
    again = Certificate.from_vector(found.attached(vector))
    assert again.summary() == found.summary()
    weak = certificate().with_evaluation(evaluation(vector, 0.6))
    assert weak.measured == "does not steer" and weak.verdict == "yes"
    assert certificate().with_evaluation(evaluation(vector, 0.6, native=3.0)).measured == "does not steer"
    # Where the native vector fails, too, nothing could be shown.
    blind = certificate().with_evaluation(evaluation(vector, 0.6, native=0.7))
    said = "it is not decided whether the vector steers, since the native one does not beat random"
    assert blind.measured == "not decided" and said in " ".join(blind.summary().split())
    backwards = certificate().with_evaluation(evaluation(vector, -3.0))
    assert backwards.measured == "does not steer"
    hidden = certificate().with_evaluation(evaluation(vector, -3.0, native=0.7))
    assert "the vector does not steer: it works against what it is for" in hidden.summary()
    assert "the vector does not steer: it works against what it is for" in backwards.summary()


@pytest.mark.parametrize(
    "means, measured", [((), "steers"), ((6.0,), "not decided"), ((0.1, 0.2), "not decided"),
                        ((0.1, 0.2, 0.0), "steers"), ((6.0, 5.0, -5.0), "does not steer")],
)  # fmt: skip
@pytest.mark.parametrize("native", [3.0, 0.7])
def test_it_must_exceed_shuffled_controls_of_which_two_decide_nothing(means, measured, native):
    vector = certificate().attached(transferred()[1])
    found = evaluation(vector, native=native)
    shuffled = [
        replace(
            found.transferred,
            name=f"shuffled_{i}",
            kind="shuffled",
            effects={"log-ratio": Effect(mean, 0.1, 0.0)},
        )
        for i, mean in enumerate(means)
    ]
    held = certificate().with_evaluation(replace(found, outcomes=(*found.outcomes, *shuffled)))
    assert held.measured == measured and "does not beat random vectors either" not in held.summary()
    # Controls that do not reach the KL are as good as none.
    missed = [replace(each, search="not reached") for each in shuffled]
    held = certificate().with_evaluation(replace(found, outcomes=(*found.outcomes, *missed)))
    assert held.measured == ("not decided" if means else "steers")


def test_a_control_that_steers_is_no_proof():
    vector = certificate(True).attached(transferred(True)[1])
    found = certificate(True).with_evaluation(evaluation(vector))
    assert found.measured == "steers"
    text = " ".join(found.summary().split())
    assert "measured: a control steers, so this does not tell directions apart" in text
    assert "shuffled control" in text and "transferred, negated" not in text


def test_too_few_tokens_do_not_make_a_failure():
    found = certificate()
    few = [replace(each, agreement=0.39, null_mean=0, null_sd=0.27, tokens=19) for each in found.forecasts]
    unclear = replace(found, forecasts=tuple(few))
    said = "to logits: unclear, 19 held-out tokens cannot tell"
    assert unclear.verdict == "unclear" and said in " ".join(unclear.summary().split())
    failed = replace(few[0], tokens=400, null_sd=0.14)
    assert failed.verdict == "no" and replace(found, forecasts=(few[0], failed)).verdict == "unclear"


def test_what_cannot_be_decided_is_not_called_a_failure():
    vector = certificate().attached(transferred()[1])
    measured = evaluation(vector)
    for random in (0, 1):
        fewer = replace(measured, outcomes=measured.outcomes[: 2 + random])
        assert certificate().with_evaluation(fewer).measured == "not decided"
    first, *others = measured.outcomes
    unsure = replace(first, effects={"log-ratio": Effect(3.0, 2.0, 0.0)})
    found = certificate().with_evaluation(replace(measured, outcomes=(unsure, *others)))
    assert found.measured == "not decided" and "it is not decided whether" in " ".join(
        found.summary().split()
    )
    undefined = replace(first, effects={"log-ratio": Effect(np.nan, np.nan, np.nan)})
    found = certificate().with_evaluation(replace(measured, outcomes=(undefined, *others)))
    assert found.measured == "not decided"


def test_an_evaluation_of_another_vector_is_refused():
    other = replace(certificate().attached(transferred()[1]), directions={2: np.ones(192), 5: np.ones(192)})
    with pytest.raises(InputError, match="of another vector"):
        certificate().with_evaluation(evaluation(other))
    ablated = replace(transferred()[1], operation="ablate")
    with pytest.raises(InputError, match="of another vector"):
        certificate().with_evaluation(evaluation(ablated))
    with pytest.raises(InputError, match="is not an Evaluation"):
        certificate().with_evaluation("result.json")


def test_an_evaluation_on_another_model_is_refused():
    held, vector = certificate(), certificate().attached(transferred()[1])
    file, sha = "model.safetensors", held.target["sha256"]

    def measured(**model):
        found = evaluation(vector)
        return held.with_evaluation(replace(found, provenance={**found.provenance, "model": model})).measured

    # The files decide, whatever the folder is called; without them commits, and then names.
    assert measured(model="copy", files_sha256={file: sha}) == "steers"
    assert measured(model="large", files_sha256={}) == "steers"
    assert measured(model="LlamaForCausalLM", **{"class": "LlamaForCausalLM"}) == "steers"
    large = rf"large \({sha[:12]}\): evaluate the vector on that model"
    for model in (
        {"model": "otherlarge", "files_sha256": {file: "0" * 64}},
        {"model": "large", "files_sha256": {file: "0" * 64}},
        {"model": "otherlarge"},
    ):
        with pytest.raises(InputError, match=rf"made on {model['model']}.*is of a vector for {large}"):
            measured(**model)
    # An evaluation names the files of its model.
    model, tokenizer = embgeom.steering.load_language_model("example:large")
    mood = embgeom.evaluation.WordLogRatio([" happy"], [" sad"])
    none = embgeom.evaluation.EvaluateOptions(random=0)
    found = embgeom.evaluate(model, tokenizer, vector, mood, ["He felt", "They"], options=none)
    assert found.provenance["model"]["files_sha256"] == {file: sha}
    assert held.with_evaluation(found).measured == "not decided"


def test_an_ablation_that_lowers_the_score_steers():
    ablated = replace(certificate().attached(transferred()[1]), operation="ablate")
    held = replace(certificate(), vector={**certificate().vector, "operation": "ablate"})
    found = held.with_evaluation(evaluation(ablated, -3.0))
    assert found.measured == "steers" and "the vector steers: it lowers the score" in found.summary()
    assert held.with_evaluation(evaluation(ablated, -3.0, native=-4.0)).measured == "steers"
    opposite = held.with_evaluation(evaluation(ablated, -3.0, native=4.0))
    assert opposite.measured == "does not steer"
    said = "it moves the score the other way than the native vector"
    assert said in " ".join(opposite.summary().split())
    assert held.with_evaluation(evaluation(ablated, -0.6)).measured == "does not steer"


def test_a_vector_without_one_says_so():
    with pytest.raises(InputError, match="has no certificate"):
        Certificate.from_vector(transferred()[1])
    # A sum is another vector than its parts, however small one of them is.
    with pytest.raises(InputError, match="has no certificate"):
        Certificate.from_vector(certificate().attached(transferred()[1]) + 1e-3 * transferred(True)[1])
    damaged = replace(transferred()[1], provenance={"certificate": {"source": 1}})
    with pytest.raises(LoadError, match="is damaged"):
        Certificate.from_vector(damaged)


def test_what_is_kept_as_any_vector_is_not_called_better_than_random_ones():
    found = certificate()
    assert "yes, better than those of random vectors" in " ".join(found.summary().split())
    same = {"agreement": 1.0, "low": 0.99, "high": 1.0, "random_mean": 1.0, "random_sd": 0.001}
    itself = replace(found, forecasts=tuple(replace(each, **same) for each in found.forecasts))
    assert itself.verdict == "yes"
    said = " ".join(itself.summary().split())
    assert (
        "yes, nearly unchanged, as those of any vector" in said and "better than those of random" not in said
    )


def test_layers_that_differ_are_kept_partly():
    found = certificate()
    one, other = found.forecasts
    mixed = replace(found, forecasts=(one, replace(other, agreement=0.0, low=-0.1, high=0.1)))
    assert mixed.verdict == "partly" and "partly: layers differ" in " ".join(mixed.summary().split())


def test_the_page_stands_alone(tmp_path):
    vector = certificate().attached(transferred()[1])
    certificate().with_evaluation(evaluation(vector)).to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    for said in ("does to logits: yes", "Measured on the target", "matrix_sha256", "What this does not say"):
        assert said in page
    assert "http-equiv" in page and 'src="http' not in page
