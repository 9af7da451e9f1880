"""The search for equal KL, on curves that are known and on a model; and what is measured there."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embgeom
from embgeom.evaluation import SideEffects, measure_at_kl, scale_to_kl
from embgeom.evaluation.conditions import Condition
from embgeom.evaluation.scale_search import MOST_ROUNDS, search_scales
from tests.helpers.evaluation import MOOD, NEUTRAL, PROMPTS, evaluate, happy_minus_sad, random_vector, small


def searched(curves, at_kl=0.2, *, probe=lambda norm: 0.1 * norm**2, largest=1e30):
    """The searches for vectors whose KL at a scale is given, and how often each was measured."""
    conditions = [Condition(name, "named", embgeom.SteeringVector({0: np.ones(4)}), 1.0) for name in curves]
    known = {**curves, "probe": probe}
    rounds = []

    def measure(chosen):
        rounds.append([condition.name for condition in chosen])
        return [SideEffects(1.0, 1.0, known[each.name](each.scale)) for each in chosen]

    found = search_scales(conditions, at_kl, largest, measure)
    return dict(zip(curves, found, strict=True)), rounds


@given(
    constant=st.floats(1e-4, 1e4),
    power=st.floats(1.0, 3.0),
    most=st.floats(0.5, 20),
    at_kl=st.floats(0.01, 0.45),
)
def test_steady_curves_are_found_within_the_tolerance(constant, power, most, at_kl):
    def kl(scale):
        return most * -math.expm1(-((scale * constant) ** power) / most)

    found, rounds = searched({"a": kl, "b": lambda scale: kl(1.3 * scale)}, at_kl)
    for name, factor in (("a", 1.0), ("b", 1.3)):
        assert found[name].outcome == "reached"
        assert abs(kl(factor * found[name].found.scale) / at_kl - 1) <= 0.05
        assert sum(name in chosen for chosen in rounds) <= MOST_ROUNDS


def test_few_measurements_are_needed():
    curves = {f"v{i}": (lambda s, i=i: 0.01 * (1 + i / 5) * s**2 / (1 + 0.01 * s**2)) for i in range(20)}
    found, rounds = searched(curves)
    assert all(search.outcome == "reached" for search in found.values())
    assert sum(map(len, rounds)) <= 3 * len(curves)


@pytest.mark.parametrize(
    "kl",
    [
        lambda scale: 0.1 * (1 - math.exp(-scale)),
        lambda scale: 0.0,
        lambda scale: math.nan,
        lambda scale: math.inf,
        lambda scale: 0.1 if scale < 3 else math.nan,
        lambda scale: 0.01 if scale < 3 else 5.0,
        lambda scale: 1e-30 * scale,
    ],
)
def test_what_cannot_be_reached_is_said(kl):
    found, _ = searched({"never": kl, "always": lambda scale: 0.1 * scale**2})
    assert found["never"].outcome == "not reached" and found["always"].outcome == "reached"
    best = found["never"].side_effects.kl
    assert not abs(best / 0.2 - 1) <= 0.05


def test_a_scale_beyond_the_numbers_of_the_model_is_not_tried():
    tried = []
    found, _ = searched({"v": lambda scale: tried.append(scale) or 1e-9 * scale}, largest=100.0)
    assert found["v"].outcome == "not reached" and max(tried) <= 100


def test_a_curve_that_falls_again_is_said():
    def kl(scale):
        return 0.5 * math.exp(-((math.log(scale / 4)) ** 2)) + 1e-3 * scale

    # The search begins at a scale of 64 for vectors of norm 2.
    found, _ = searched({"bump": kl}, probe=lambda norm: 0.2 * (norm / 128) ** 2)
    assert found["bump"].outcome in ("not monotone", "reached")
    assert abs(kl(found["bump"].scale) / 0.2 - 1) <= 0.05
    measured = sorted(found["bump"].measured)
    falls = any(kl(b) < 0.95 * kl(a) for a, b in pairwise(measured))
    assert falls == (found["bump"].outcome == "not monotone")


@pytest.fixture(scope="module")
def equal():
    model, tokenizer = small()
    return evaluate(
        model,
        tokenizer,
        happy_minus_sad(2, 3.0),
        MOOD,
        PROMPTS,
        native=happy_minus_sad(2, 1.0) + random_vector(model, [2], 0.2),
        random=4,
        neutral=NEUTRAL,
        at_kl=0.1,
    )


def test_every_vector_costs_the_same(equal):
    model, tokenizer = small()
    assert len(equal.outcomes) == 8
    for outcome in equal.outcomes:
        assert outcome.search == "reached" and outcome.side_effects.kl == pytest.approx(0.1, rel=0.05)
    scales = {outcome.name: outcome.scale for outcome in equal.outcomes}
    assert len({abs(scale) for scale in scales.values()}) == 8
    assert scales["transferred"] > 0 > scales["transferred_negated"]
    # The numbers are those of an evaluation at that scale.
    for name in ("transferred", "native_negated"):
        vector = happy_minus_sad(2, 3.0).with_norm(equal.provenance["options"]["norms"][2])
        if name != "transferred":
            vector = happy_minus_sad(2, 1.0) + random_vector(model, [2], 0.2)
        again = evaluate(
            model, tokenizer, vector, MOOD, PROMPTS, scale=scales[name], neutral=NEUTRAL, random=0
        )
        assert again.transferred.effect.mean == pytest.approx(equal[name].effect.mean, abs=1e-5)
        assert again.transferred.side_effects.kl == pytest.approx(equal[name].side_effects.kl, rel=1e-3)


def test_what_is_shown_at_equal_kl(equal, tmp_path):
    text = equal.summary()
    assert "layer 2: each vector at its scale for KL 0.1 on neutral text" in text and " scale " in text
    unreached = replace(equal.transferred, search="not reached")
    odd = replace(equal["native"], search="not monotone")
    said = replace(equal, outcomes=(unreached, odd, *equal.outcomes[1:])).summary()
    assert "KL 0.1 is not reached within 5 % by: vector (KL 0." in said
    assert "KL does not grow steadily with the scale of: native" in said
    equal.plot(tmp_path / "equal.svg")
    equal.save(tmp_path / "equal.json")
    assert type(equal).load(tmp_path / "equal.json").to_dict() == equal.to_dict()
    pytest.importorskip("pandas", reason="pandas is not installed")
    assert equal.to_pandas()["search"].tolist() == ["reached"] * 8


def test_what_is_found_for_a_vector_is_the_same_alone_and_beside_others(equal):
    model, tokenizer = small()
    native = happy_minus_sad(2, 1.0) + random_vector(model, [2], 0.2)
    given = {"native": native, "neutral": NEUTRAL, "at_kl": 0.1}
    other = evaluate(
        model, tokenizer, random_vector(model, [2], 40.0, seed=9), MOOD, PROMPTS, random=2, **given
    )
    for name in ("native", "native_negated"):
        assert other[name].scale == equal[name].scale and other[name].effect == equal[name].effect
    # Random ones have the norm of the vector, from which their scales count, and which rounds.
    for name in ("random_0", "random_1"):
        assert other[name].effect.mean == pytest.approx(equal[name].effect.mean, rel=1e-4, abs=1e-5)
    # Nor does the length count that a vector is given with, but for rounding.
    (alone,) = measure_at_kl(model, tokenizer, MOOD, PROMPTS, NEUTRAL, {"v": 30 * native}, 0.1).outcomes
    assert 30 * alone.scale == pytest.approx(equal["native"].scale, rel=1e-4)
    assert alone.effect.mean == pytest.approx(equal["native"].effect.mean, rel=1e-4)
    scaled = scale_to_kl(model, tokenizer, native, 0.1, neutral=NEUTRAL)
    assert scaled.provenance["scaled_to_kl"]["times"] == pytest.approx(equal["native"].scale, rel=1e-6)


def test_named_vectors_at_equal_kl(tmp_path):
    model, tokenizer = small()
    vectors = {"up": happy_minus_sad(2), "down": -happy_minus_sad(2), "late": happy_minus_sad(3, 0.1)}
    found = measure_at_kl(model, tokenizer, MOOD, PROMPTS, NEUTRAL, vectors, 0.3)
    assert [each.name for each in found.outcomes] == list(vectors) and found.samples == len(PROMPTS)
    for outcome in found.outcomes:
        assert outcome.side_effects.kl == pytest.approx(0.3, rel=0.05) and outcome.search == "reached"
    assert found["down"].effect.mean < 0 < found["up"].effect.mean
    # A result like any other, but for checks, since none is the vector in question.
    text = found.summary()
    assert "layers 2, 3: each vector at its scale for KL 0.3" in text and "\n down " in text
    assert found.to_dict()["checks"] == {} and found.provenance["vectors"]["late"]["model"] == "example:small"
    found.save(tmp_path / "named.json")
    assert type(found).load(tmp_path / "named.json").summary() == text
    found.plot(tmp_path / "named.svg")
    with pytest.raises(
        embgeom.InputError, match="no checks, since none of the vectors is the one in question"
    ):
        found.checks()
    named = tuple(replace(each, name="transferred") for each in found.outcomes[:1])
    with pytest.raises(embgeom.InputError, match="there are no checks"):
        replace(found, outcomes=named).checks()
    with pytest.raises(embgeom.InputError, match="vectors is empty"):
        measure_at_kl(model, tokenizer, MOOD, PROMPTS, NEUTRAL, {}, 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at_kl": 0}, r"at_kl = 0 must be finite and above 0"),
        ({"at_kl": float("nan"), "neutral": NEUTRAL}, r"at_kl = nan must be"),
        ({"at_kl": 0.2}, r"at_kl = 0\.2 is a KL on neutral text; give some"),
    ],
)
def test_errors(options, message):
    model, tokenizer = small()
    with pytest.raises(embgeom.InputError, match=message):
        evaluate(model, tokenizer, happy_minus_sad(2), MOOD, PROMPTS, **options)


def test_each_round_of_a_search_is_reported_vector_by_vector():
    # A round takes minutes with a large vocabulary.
    reported = []
    evaluate(
        *small(),
        random_vector(small()[0], [1]),
        MOOD,
        PROMPTS[:2],
        neutral=NEUTRAL,
        at_kl=0.1,
        random=1,
        progress=lambda *what: reported.append(what),
    )
    first = [each for each in reported if each[0] == "neutral text, round 1"]
    assert first[-1] == ("neutral text, round 1", len(first), len(first))
    second = [each for each in reported if each[0] == "neutral text, round 2"]
    # The probe is alone in the first round, or rounds; then come the vector, its negation and the random one.
    assert second and {"scores"} < {each[0] for each in reported}
