"""What a fit takes: options by method, and arguments that do not fit."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embgeom import Emb2Emb, Embeddings, EmbgeomWarning, FinalNorm, InputError
from embgeom.emb2emb import LowRank
from tests.helpers.emb2emb import fit, related


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "magic"}, "'magic' is unknown"),
        ({"held_out": 1.5}, "held_out = 1.5"),
        ({"method": "ridge", "strength": -1}, "strength = -1"),
        ({"rank": 0, "method": "low_rank"}, "rank = 0"),
        ({"weights": [1, 2]}, "one number for each of the 400 pairs"),
        ({"weights": -np.ones(400)}, "not negative"),
        ({"weights": ["a"] * 400}, "weights must hold real numbers"),
        ({"method": "lle", "reg": 0}, "reg = 0"),
        (
            {"method": "lle", "strength": 0.1},
            r"strength = 0\.1 .* 'lle' does not use it.*'ridge' or 'low_rank'",
        ),
        ({"method": "least_squares", "strength": 0.1}, "strength = 0.1 .* 'least_squares' does not use"),
        ({"method": "procrustes", "strength": 0.1}, "strength = 0.1 .* 'procrustes' does not use"),
        ({"method": "ridge", "rank": 3}, "rank = 3 .* 'ridge' does not use it.*'low_rank'"),
        ({"method": "low_rank", "k": 20}, "k = 20 .* 'low_rank' does not use it.*'lle'"),
        ({"method": "ridge", "reg": 1e-3}, "reg = 0.001 .* 'ridge' does not use it.*'lle'"),
        ({"method": "ridge", "scaled": False}, "scaled = False .* does not use it.*'procrustes'"),
        ({"method": "lle", "weights": np.ones(400)}, "no meaning"),
        ({"method": "lle", "k": 1000}, "k = 1000"),
        ({"tokens": ([0, 1, 2, 999], [0, 1, 2, 3])}, "999"),
        ({"tokens": ([0, 1, 2, 3], [0, 1, 2])}, "the same token"),
        ({"tokens": ([0, 1], [0, 1])}, "2 paired tokens"),
        ({"tokens": 5}, "tokens = 5 are not two"),
        ({"tokens": ([0, 1, 2, 3],)}, "not two"),
        ({"tokens": [[0, 1]] * 3}, "not two"),
        ({"tokens": "ab"}, r"tokens\[0\] must hold integers|must hold real numbers"),
        ({"tokens": (None, None)}, r"tokens\[0\]"),
        ({"tokens": ([0.5, 1.5, 2, 3], [0, 1, 2, 3])}, r"tokens\[0\] must hold integers"),
        ({"norms": (np.ones(12), None)}, "source's norm = .* is not a FinalNorm"),
        ({"norms": (None, "example:large")}, "target's norm = 'example:large' is not a FinalNorm"),
        ({"norms": 5}, "norms = 5 are not two"),
        ({"held_out": None}, "held_out must be a number, not None"),
        ({"held_out": "some"}, "held_out must be a number, not 'some'"),
        ({"held_out": np.nan}, "held_out = nan"),
        ({"threads": "2"}, "threads must be a whole number, not '2'"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"seed": -1}, "seed = -1"),
        ({"method": None}, "method = None is unknown"),
        ({"method": ["ridge"]}, r"method = \['ridge'\] is unknown"),
        ({"method": np.array(["ridge", "lle"])}, "is unknown"),
        ({"center": "no"}, "center must be True or False, not 'no'"),
        ({"normalize": None}, "normalize must be True or False, not None"),
        ({"shuffle": 1}, "shuffle must be True or False, not 1"),
        ({"method": "procrustes", "scaled": "yes"}, "scaled must be True or False"),
        ({"method": "low_rank", "rank": 2.5}, "rank must be a whole number, not 2.5"),
        ({"strength": "much"}, "strength must be a number, not 'much'"),
        ({"strength": np.inf}, "strength = inf"),
        ({"method": "lle", "k": "20"}, "k must be a whole number, not '20'"),
        ({"method": "lle", "reg": []}, "reg must be a number"),
        ({"weights": 5}, "one number for each"),
        ({"weights": np.ones(400) * 1j}, "must hold real numbers"),
        ({"weights": np.ma.ones(400)}, "masked array"),
        ({"progress": "yes"}, "progress = 'yes'"),
        ({"norms": (FinalNorm.from_weights(np.ones(3), "rms_norm"), None)}, "3 weights"),
    ],
)
def test_options_that_do_not_fit(change, why):
    with pytest.raises(InputError, match=why):
        fit(*related(), **{"held_out": 0.1} | change)


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("least_squares", {}),
        ("ridge", {"strength": None}),
        ("low_rank", {"rank": None, "strength": None}),
        ("procrustes", {"scaled": True}),
        ("lle", {"k": 20, "reg": 1e-3}),
    ],
)
def test_the_provenance_holds_the_options_of_the_method_alone(method, used):
    options = fit(*related(), method).provenance["options"]
    assert options["method"] == {"name": method, "center": True, **used}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("example:small", r"name 'example:small': load it first"),
        (Path("a/model"), "name 'a/model': load it first"),
        ([["a", "b"]] * 400, "the source must hold real numbers"),
        (None, "the source must hold real numbers"),
        ([[1, 2], [3]], "the source is not an array"),
        (np.ones(400), "the source must be a matrix"),
        (np.full((400, 3), np.nan), "the source: "),
        (5, "the source must be a matrix"),
        (np.ones((399, 3)), "399 rows and the target 400"),
    ],
)
def test_sources_that_are_no_model(source, why):
    with pytest.raises(InputError, match=why):
        Emb2Emb.fit(source, related()[1])


def test_a_rank_above_the_smaller_hidden_size_is_refused():
    with pytest.raises(InputError, match="rank = 13 is above the smaller hidden size, 12;"):
        Emb2Emb.fit(*related(), method=LowRank(rank=13))


def embeddings(matrix, which):
    return Embeddings.from_array(matrix, [f"t{i}" for i in range(len(matrix))], name="toy", which=which)


def test_no_norm_is_folded_into_an_input_embedding():
    source, target = related()
    norms = {"norms": (FinalNorm.from_weights(np.ones(12), "rms_norm"), None)}
    sides = embeddings(source, "input"), embeddings(target, "input")
    with pytest.raises(
        InputError, match=r"the source's norm .* toy is the input .*\(model, 'output'\).*leave that norm out"
    ):
        Emb2Emb.fit(*sides, **norms)
    with pytest.raises(InputError, match="the target's norm is the norm before"):
        Emb2Emb.fit(*sides, norms=(None, FinalNorm.from_weights(np.ones(20), "rms_norm")))
    Emb2Emb.fit(embeddings(source, "output"), embeddings(target, "output"), **norms)
    tied = replace(sides[0], provenance=replace(sides[0].provenance, tied=True))
    assert Emb2Emb.fit(tied, sides[1], **norms).provenance["folded"] == [True, False]


def test_a_folded_layer_norm_leaves_nothing_to_warn_of():
    source, target = related(400, 12, 20)
    norm = FinalNorm.from_weights(np.linspace(0.5, 2, 12), "layer_norm")
    plain, rms_norm = (FinalNorm.from_weights(np.ones(12), kind) for kind in ("layer_norm", "rms_norm"))
    folded = {"norms": (norm, None), "method": "least_squares"}
    mapping = Emb2Emb.fit(source, target, **folded)
    assert mapping.provenance["fit"]["rank"] == 11
    with pytest.warns(EmbgeomWarning, match="determine 6 of 11 directions"):
        Emb2Emb.fit(source[:7], target[:7], held_out=0, **folded)
    # A direction more that is missing is told, and an RMSNorm takes none away.
    source[:, 3] = source[:, 4]
    with pytest.warns(EmbgeomWarning, match="determine 10 of 11"):
        Emb2Emb.fit(source, target, method="least_squares", norms=(plain, None))
    with pytest.warns(EmbgeomWarning, match="determine 11 of 12"):
        Emb2Emb.fit(source, target, method="least_squares", norms=(rms_norm, None))


def test_the_warning_points_at_the_call():
    source, target = related(8)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Emb2Emb.fit(source, target, method="least_squares")
    # Once: the control of shuffled pairs has nothing of its own to say.
    assert [(warning.category, warning.filename) for warning in caught] == [(EmbgeomWarning, __file__)]
