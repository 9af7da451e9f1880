"""A vector beside its controls, and the facts about them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embgeom
from embgeom.evaluation import Effect, Evaluation, Outcome, evaluate
from embgeom.evaluation.trials import with_controls
from tests.helpers.evaluation import (
    MOOD,
    NEUTRAL,
    PROMPTS,
    happy_minus_sad,
    moods,
    random_vector,
    small,
)


@pytest.fixture(scope="module")
def full():
    """An evaluation with everything in it."""
    model, tokenizer = small()
    return evaluate(
        model,
        tokenizer,
        random_vector(model, [1, 3], norm=3.0),
        MOOD,
        PROMPTS,
        scale=1.5,
        own=happy_minus_sad(1, 8.0) + happy_minus_sad(3, 16.0),
        random=4,
        shuffled=[random_vector(model, [1, 3], seed=7), random_vector(model, [0, 1, 3], seed=8)],
        neutral=NEUTRAL,
        seed=5,
    )


def test_all_controls_are_there_at_equal_norm(full):
    model, tokenizer = small()
    own = happy_minus_sad(1, 8.0) + happy_minus_sad(3, 16.0)
    assert [outcome.name for outcome in full.outcomes] == [
        "carried", "carried, negated", "own", "own, negated",
        "random 0", "random 1", "random 2", "random 3", "shuffled 0", "shuffled 1",
    ]  # fmt: skip
    vectors = {
        "carried": random_vector(model, [1, 3]),
        "own": own,
        "shuffled 0": random_vector(model, [1, 3], seed=7),
        "shuffled 1": random_vector(model, [0, 1, 3], seed=8).select_layers([1, 3]),
    }
    generator = np.random.default_rng([5, 2])
    vectors["random 2"] = embgeom.SteeringVector({layer: generator.standard_normal(128) for layer in (1, 3)})
    for name, vector in vectors.items():
        expected = moods(model, tokenizer, vector.with_norm(own), 1.5)
        np.testing.assert_allclose(full[name].values["log-ratio"], expected, atol=1e-4, err_msg=name)


def test_facts(full):
    facts = full.facts()
    random = [full[f"random {number}"].effect.mean for number in range(4)]
    assert facts.effect == full["carried"].effect.mean
    assert facts.own_effect == full["own"].effect.mean
    assert facts.share_of_own == pytest.approx(facts.effect / facts.own_effect)
    assert facts.random_mean == pytest.approx(np.mean(random))
    assert facts.random_sd == pytest.approx(np.sqrt(np.sum((random - np.mean(random)) ** 2) / 3))
    assert facts.exceeds_random == (facts.effect > facts.random_mean + 2 * facts.random_sd)
    shuffled = [full[f"shuffled {number}"].effect.mean for number in range(2)]
    assert facts.exceeds_shuffled == (facts.effect > max(shuffled))
    assert facts == full.facts("log-ratio")
    with pytest.raises(embgeom.InputError, match="no quantity is named 'mood'; there are log-ratio"):
        full.facts("mood")


def evaluation_of(**shifts):
    """An evaluation whose vectors shift a score of zeros as given, by kind."""
    outcomes = tuple(
        Outcome(kind, kind, (0,), 1.0, {}, {"score": Effect.of(np.array(shift), np.zeros(len(shift)))}, None)
        for kind, shift in shifts.items()
    )
    return Evaluation(outcomes, {"score": np.zeros(4)}, None, {})


def test_facts_know_what_an_effect_is_uncertain_by():
    up, down, none = [1.0, 1.2, 0.9, 1.1], [-1.0, -1.1, -0.9, -1.2], [1e-4, -1e-4, 3e-4, -1e-4]
    facts = evaluation_of(carried=up, negated=down, own=[2.0, 2.1, 2.0, 2.3]).facts()
    assert facts.negation_opposes and facts.share_of_own == pytest.approx(1.05 / 2.1)
    # The means of what is hardly there differ in sign by chance.
    facts = evaluation_of(carried=none, negated=[-x for x in none], own=none).facts()
    assert facts.effect > 0 and not facts.negation_opposes and facts.share_of_own is None
    assert evaluation_of(carried=up, negated=down, own=down).facts().share_of_own is None
    assert not evaluation_of(carried=up, negated=up).facts().negation_opposes
    # One sample has no standard error.
    assert evaluation_of(carried=[1e-4], negated=[-1e-4]).facts().negation_opposes


def test_a_negative_scale_is_to_lower_the_score():
    model, tokenizer = small()
    found = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS, scale=-1, random=5)
    assert found.carried.effect.mean < -1 and found.carried.effect.wrong_way == 0
    assert found["carried, negated"].effect.mean > 1 and found["carried, negated"].effect.wrong_way == 0
    assert found.facts().exceeds_random and found.facts().negation_opposes


def test_without_random_vectors_there_is_no_word_on_them():
    model, tokenizer = small()
    facts = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:1], random=0).facts()
    assert facts.random_mean is facts.random_sd is facts.exceeds_random is facts.own_effect is None
    facts = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:1], random=1).facts()
    assert facts.random_mean is not None and facts.random_sd is facts.exceeds_random is None


def test_a_zero_vector_changes_nothing():
    model, tokenizer = small()
    zero = embgeom.SteeringVector({2: np.zeros(128)})
    found = evaluate(model, tokenizer, zero, MOOD, PROMPTS, random=3, neutral=NEUTRAL)
    assert len(found.outcomes) == 5
    for outcome in found.outcomes:
        assert outcome.effect == Effect(0.0, 0.0, 0.0)
        assert (outcome.price.kl, outcome.price.perplexity_ratio) == (0.0, 1.0)
    assert not found.facts().exceeds_random and not found.facts().negation_opposes


def test_a_planted_direction_steers():
    model, tokenizer = small()
    found = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS, random=10, neutral=NEUTRAL)
    facts = found.facts()
    assert found.carried.effect.mean > 1 and found.carried.effect.wrong_way == 0
    assert found["carried, negated"].effect.mean < -1 and found["carried, negated"].effect.wrong_way == 0
    assert facts.exceeds_random and facts.negation_opposes
    assert abs(facts.random_mean) < facts.effect / 2
    assert found.carried.price.kl > 0


@given(
    norms=st.dictionaries(st.integers(0, 40), st.floats(1e-3, 1e4), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_controls_have_the_norm_of_the_vector(norms, seed):
    generator = np.random.default_rng(seed)
    vector, other = (
        embgeom.SteeringVector({layer: generator.standard_normal(16) for layer in norms}) for _ in range(2)
    )
    own = embgeom.SteeringVector(
        {
            layer: direction * norms[layer] / vector.norms[layer]
            for layer, direction in other.directions.items()
        }
    )
    trials = with_controls(vector, scale=-2.0, own=own, random=3, shuffled=[other], seed=seed)
    assert len(trials) == 8
    for trial in trials:
        for layer, norm in own.norms.items():
            assert trial.vector.norms[layer] == pytest.approx(norm, rel=1e-5)
        assert abs(trial.scale) == 2 and trial.sign == (1 if trial.scale > 0 else -1)


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20),
    st.sampled_from([1, -1]),
)
def test_effect(pairs, sign):
    steered, unsteered = np.array(pairs).T
    found = Effect.of(steered, unsteered, sign=sign)
    shifts = [a - b for a, b in pairs]
    mean = sum(shifts) / len(shifts)
    error = (sum((shift - mean) ** 2 for shift in shifts) / (len(shifts) - 1) / len(shifts)) ** 0.5
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    assert found.wrong_way == sum((shift < 0) if sign == 1 else (shift > 0) for shift in shifts) / len(shifts)
