"""A vector beside its controls, and the checks about them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embgeom
from embgeom import InputError
from embgeom.evaluation import Effect, Evaluation, GenerationScore, Outcome, SideEffects
from embgeom.evaluation.conditions import with_controls
from tests.helpers.evaluation import (
    MOOD,
    NEUTRAL,
    PROMPTS,
    evaluate,
    happy_minus_sad,
    moods,
    random_vector,
    small,
    sweep,
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
        native=happy_minus_sad(1, 8.0) + happy_minus_sad(3, 16.0),
        random=4,
        shuffled=[random_vector(model, [1, 3], seed=7), random_vector(model, [0, 1, 3], seed=8)],
        neutral=NEUTRAL,
        seed=5,
    )


def test_all_controls_are_there_at_equal_norm(full):
    model, tokenizer = small()
    native = happy_minus_sad(1, 8.0) + happy_minus_sad(3, 16.0)
    assert [outcome.name for outcome in full.outcomes] == [
        "transferred", "transferred_negated", "native", "native_negated",
        "random_0", "random_1", "random_2", "random_3", "shuffled_0", "shuffled_1",
    ]  # fmt: skip
    vectors = {
        "transferred": random_vector(model, [1, 3]),
        "native": native,
        "shuffled_0": random_vector(model, [1, 3], seed=7),
        "shuffled_1": random_vector(model, [0, 1, 3], seed=8).select_layers([1, 3]),
    }
    generator = np.random.default_rng([5, 2])
    vectors["random_2"] = embgeom.SteeringVector({layer: generator.standard_normal(128) for layer in (1, 3)})
    for name, vector in vectors.items():
        expected = moods(model, tokenizer, vector.with_norm(native), 1.5)
        np.testing.assert_allclose(full[name].values["log-ratio"], expected, atol=1e-4, err_msg=name)


def test_facts(full):
    checks = full.checks()
    random = [full[f"random_{number}"].effect.mean for number in range(4)]
    assert checks.effect == full["transferred"].effect.mean
    assert checks.native_effect == full["native"].effect.mean
    assert checks.fraction_of_native == pytest.approx(checks.effect / checks.native_effect)
    assert checks.random_mean == pytest.approx(np.mean(random))
    assert checks.random_sd == pytest.approx(np.sqrt(np.sum((random - np.mean(random)) ** 2) / 3))
    assert checks.beats_random == (checks.effect > checks.random_mean + 2 * checks.random_sd)
    # Two have no standard deviation to rely on.
    shuffled = [full[f"shuffled_{number}"].effect.mean for number in range(2)]
    assert checks.shuffled_mean == pytest.approx(np.mean(shuffled))
    assert checks.shuffled_sd is checks.beats_shuffled is None
    text = full.summary()
    assert "beats vectors by maps of shuffled tokens: not decided, with fewer than 3 of them" in text
    assert "shuffled, mean of 2 (± sd)" in text and "random, mean of 4 (± sd)" in text
    assert checks == full.checks("log-ratio")
    with pytest.raises(embgeom.InputError, match="no quantity is named 'mood'; there are log-ratio"):
        full.checks("mood")


def evaluation_of(search=None, **shifts):
    """An evaluation whose vectors shift a score of zeros as given, by name."""
    outcomes = tuple(
        Outcome(
            name,
            name.rstrip("_0123456789"),
            (0,),
            1.0,
            {"score": np.array(shift)},
            {"score": Effect.from_scores(np.array(shift), np.zeros(len(shift)))},
            None,
            search,
        )
        for name, shift in shifts.items()
    )
    unsteered, options = {"score": np.zeros(len(shifts["transferred"]))}, {"norms": {0: 1.0}}
    return Evaluation(outcomes, unsteered, None, {"options": options})


def test_facts_know_what_an_effect_is_uncertain_by():
    up, down, none = [1.0, 1.2, 0.9, 1.1], [-1.0, -1.1, -0.9, -1.2], [1e-4, -1e-4, 3e-4, -1e-4]
    chance = {f"random_{i}": np.roll([0.1, -0.1, 0.2, 0.0], i) - i / 10 for i in range(3)}
    checks = evaluation_of(
        transferred=up, transferred_negated=down, native=[2.0, 2.1, 2.0, 2.3], **chance
    ).checks()
    assert checks.negation_reverses and checks.fraction_of_native == pytest.approx(1.05 / 2.1)
    # The means of what is hardly there differ in sign by chance.
    checks = evaluation_of(
        transferred=none, transferred_negated=[-x for x in none], native=none, **chance
    ).checks()
    assert checks.effect > 0 and not checks.negation_reverses and checks.fraction_of_native is None
    found = evaluation_of(transferred=up, transferred_negated=down, native=down, **chance)
    assert found.checks().fraction_of_native is None
    assert not evaluation_of(transferred=up, transferred_negated=up).checks().negation_reverses
    # One sample has no standard error.
    found = evaluation_of(transferred=[1e-4], transferred_negated=[-1e-4])
    said = "negating the vector reverses its effect, by the sign of the only sample: yes"
    assert found.checks().negation_reverses and said in found.summary()
    said = "works against what it is for, by the sign of the only sample: it lowers score"
    assert said in evaluation_of(transferred=[-1.0]).summary()


def test_a_fraction_is_only_of_a_native_effect_that_beats_random_vectors():
    up, down, native = [1.0, 1.2, 0.9, 1.1], [-1.0, -1.1, -0.9, -1.2], [2.0, 2.1, 2.0, 2.3]
    vectors = {"transferred": up, "transferred_negated": down, "native": native}
    chance = {f"random_{i}": np.array([1.5, 1.4, 1.6, 1.5]) * (i - 1) for i in range(3)}
    checks = evaluation_of(**vectors, **chance).checks()
    assert checks.native_beats_random is False and checks.fraction_of_native is checks.fraction_error is None
    assert any("that does not beat random vectors" in line for line in checks.lines("score"))
    checks = evaluation_of(**vectors).checks()
    assert checks.native_beats_random is checks.fraction_of_native is None
    assert any("there are fewer than 3 random vectors" in line for line in checks.lines("score"))
    # The standard error of the fraction, against a bootstrap over samples.
    generator = np.random.default_rng(0)
    native = generator.normal(2, 0.5, 400)
    up = 0.5 * native + generator.normal(0, 0.3, 400)
    chance = {f"random_{i}": generator.normal(i / 100, 0.1, 400) for i in range(3)}
    checks = evaluation_of(transferred=up, transferred_negated=-up, native=native, **chance).checks()
    assert checks.fraction_of_native == pytest.approx(up.mean() / native.mean())
    drawn = generator.integers(0, 400, (2000, 400))
    assert checks.fraction_error == pytest.approx(np.std(up[drawn].mean(1) / native[drawn].mean(1)), rel=0.1)


def test_vectors_that_do_not_reach_the_kl_are_not_compared():
    up, down = [1.0, 1.2, 0.9, 1.1], [-1.0, -1.1, -0.9, -1.2]
    vectors = {"transferred": up, "transferred_negated": down, "native": up, "shuffled_0": down}
    chance = {f"random_{i}": down for i in range(3)}
    checks = evaluation_of("not reached", **vectors, **chance).checks()
    assert checks.effect == pytest.approx(1.05)
    named = (checks.fraction_of_native, checks.beats_random, checks.beats_shuffled, checks.negation_reverses)
    assert named == (None,) * 4 and checks.random_mean is checks.works_against is None


@pytest.mark.parametrize("made", [{"transferred_from": {}}, {"made_by": "train"}])
def test_a_vector_that_is_no_control_is_refused(made):
    model, tokenizer = small()
    true = replace(random_vector(model, [1], seed=3), provenance={"of": made})
    control = replace(true, provenance={"of": {**made, "map": {"options": {"shuffle": True}}}})
    given = {"random": 0, "shuffled": [random_vector(model, [1], seed=2), control]}
    evaluate(model, tokenizer, random_vector(model, [1]), MOOD, PROMPTS[:2], **given)
    given["shuffled"][1] = true
    with pytest.raises(InputError, match="shuffled 1 is no control"):
        evaluate(model, tokenizer, random_vector(model, [1]), MOOD, PROMPTS[:2], **given)
    itself = random_vector(model, [1])
    for call in (evaluate, sweep):
        with pytest.raises(InputError, match="shuffled 0 is the vector in question"):
            call(model, tokenizer, itself, MOOD, PROMPTS, random=0, shuffled=2 * itself)


def test_a_control_of_another_source_vector_is_refused():
    model, tokenizer = small()
    sources = [embgeom.SteeringVector({3: np.eye(4)[i]}, "other") for i in range(2)]
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 4)), rng.standard_normal((60, 128))
    mapping, control = (embgeom.Emb2Emb.fit(*rows, shuffle=shuffle, held_out=0) for shuffle in (False, True))
    vector, true, other = (
        each.transfer(source, layers=1, norm="raw")
        for each, source in ((mapping, sources[0]), (control, 3 * sources[0]), (control, sources[1]))
    )
    evaluate(model, tokenizer, vector, MOOD, PROMPTS[:2], random=0, shuffled=-true)
    with pytest.raises(InputError, match="shuffled 1 is a control of another source vector"):
        evaluate(model, tokenizer, vector, MOOD, PROMPTS[:2], random=0, shuffled=[true, other])


def test_an_ablation_may_be_to_lower_the_score():
    down, up = [-1.0, -1.2, -0.9, -1.1], [1.0, 1.2, 0.9, 1.1]
    chance = {f"random_{i}": np.array([0.1, -0.1, 0.0, 0.05]) * i for i in range(3)}
    ablated = {"operation": "ablate"}

    def found(**vectors):
        made = evaluation_of(**vectors, **chance)
        return replace(made, provenance={**made.provenance, "vector": ablated})

    for shifts, moves in ((down, "lowers"), (up, "raises")):
        both = found(transferred=shifts, native=[2 * x for x in shifts])
        checks = both.checks()
        assert checks.beats_random and checks.native_beats_random and checks.moves == moves
        assert checks.fraction_of_native == pytest.approx(0.5) and checks.works_against is False
        assert f"\nit {moves} score, beyond 2 ±" in both.summary()
    opposite = found(transferred=down, native=up)
    assert opposite.checks().works_against and opposite.checks().fraction_of_native is None
    assert "it lowers score, beyond 2 ±, and the native vector does the opposite" in opposite.summary()
    # On the other side of the random vectors than they move the score is not beyond them.
    few = {f"random_{i}": np.full(4, 2.0 + i / 10) for i in range(3)}
    made = evaluation_of(transferred=up, **few)
    assert not replace(made, provenance={**made.provenance, "vector": ablated}).checks().beats_random
    assert "it neither raises nor lowers score" in found(transferred=[1e-4, -1e-4, 0.0, 0.0]).summary()


def test_a_fraction_at_unequal_cost_says_so():
    chance = {f"random_{i}": np.array([0.1, -0.1, 0.0, 0.05]) * i for i in range(3)}
    found = evaluation_of(transferred=[1.0, 1.2, 0.9, 1.1], native=[2.0, 2.1, 2.0, 2.3], **chance)

    def summary(*kls):
        costs = [SideEffects(1.0, 1.0, kl) for kl in (*kls, 1, 1, 1)]
        pairs = zip(found.outcomes, costs, strict=True)
        return replace(found, outcomes=tuple(replace(o, side_effects=cost) for o, cost in pairs)).summary()

    said = "at unequal cost: KL 0.096 against 0.04 of the native; --at-kl compares at equal KL"
    assert said in summary(0.096, 0.04) and "at unequal cost" in summary(0.04, 0.096)
    assert "at unequal cost" not in summary(0.05, 0.04) + found.summary()
    assert "fraction of the native vector's effect: 0.50 ± 0.0" in found.summary()
    assert "(standard error)" in found.summary()


def test_a_vector_that_is_rescaled_to_the_native_norm_says_from_which():
    model, tokenizer = small()
    vector, native = random_vector(model, [1], norm=5.0), random_vector(model, [1], norm=2.0, seed=3)
    found = evaluate(model, tokenizer, vector, MOOD, PROMPTS[:2], native=native, random=0)
    assert "norm 2, times 1; the vector was rescaled from 5 to that of the native one" in found.summary()
    assert "rescaled" not in evaluate(model, tokenizer, vector, MOOD, PROMPTS[:2], random=0).summary()


def test_equal_prompts_are_one_sample():
    model, tokenizer = small()
    with pytest.warns(embgeom.EmbgeomWarning, match="2 of 3 prompts repeat another, and are left out"):
        found = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:1] * 3, random=0)
    assert found.samples == 1 and "by the sign of the only sample: yes" in found.summary()
    with (
        pytest.warns(embgeom.EmbgeomWarning, match="3 of 6 prompts"),
        pytest.raises(InputError, match="a sweep needs 4 samples at least"),
    ):
        sweep(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:3] * 2, random=0)
    # Texts that are drawn differ.
    drawn = GenerationScore(len, max_new_tokens=2, temperature=1.0)
    assert evaluate(model, tokenizer, happy_minus_sad(3), drawn, PROMPTS[:1] * 3, random=0).samples == 3


@pytest.mark.parametrize("sign", [1, -1])
def test_shuffled_vectors_are_a_baseline_by_mean_and_deviation(sign):
    up, down = [1.0, 1.2, 0.9, 1.1], [-1.0, -1.1, -0.9, -1.2]
    vectors = {"transferred": up, "transferred_negated": down}

    def checks(*means):
        shuffled = {f"shuffled_{i}": np.full(4, mean) for i, mean in enumerate(means)}
        found = evaluation_of(**vectors, **shuffled)
        turned = tuple(replace(each, scale=-1.0) for each in found.outcomes)
        return (found if sign == 1 else replace(found, outcomes=turned)).checks()

    # One draw above the vector decides nothing, and one below neither.
    assert checks(2.0).beats_shuffled is checks(-2.0, 0.0).beats_shuffled is None
    found = checks(0.2, -0.2, 0.1, -0.1)
    assert found.shuffled_mean == pytest.approx(0) and found.shuffled_sd == pytest.approx(0.1826, abs=1e-4)
    assert found.beats_shuffled is (sign == 1)
    assert checks(1.0, -1.0, 0.5, -0.5).beats_shuffled is False
    assert any("(mean +0.0000, sd 0.1826)" in line for line in found.lines("score"))


def test_a_vector_that_works_backwards_is_said_to():
    up, down = [0.3, 0.2, 0.25, 0.2], [-0.4, -0.3, -0.35, -0.4]
    chance = {f"random_{i}": np.array([0.1, -0.1, 0.0, 0.05]) * i for i in range(3)}
    found = evaluation_of(transferred=down, transferred_negated=up, **chance)
    assert found.checks().works_against and found.checks().negation_reverses
    said = "works against what it is for, beyond 2 ±: it lowers score, and its negative raises it"
    assert said in found.summary() and "negating the vector reverses" not in found.summary()
    assert not evaluation_of(transferred=up, transferred_negated=down).checks().works_against
    # With a negative scale the score is to fall.
    turned = replace(found, outcomes=tuple(replace(each, scale=-1.0) for each in found.outcomes))
    assert turned.checks().works_against is False
    assert "samples that moved up, or down in negated rows" in turned.summary()
    assert "samples that moved down, or up in negated rows" in found.summary()
    # What is not added may be to lower the score, and a control is for nothing.
    control = {"provenance": {"map": {"options": {"shuffle": True}}}}
    for about in ({"operation": "ablate"}, control):
        other = replace(found, provenance={**found.provenance, "vector": about})
        assert other.checks().works_against is None and "works against" not in other.summary()
    both = evaluation_of(transferred=down, transferred_negated=down)
    assert "it lowers score\n" in both.summary() + "\n"


def test_a_negative_scale_is_to_lower_the_score():
    model, tokenizer = small()
    found = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS, scale=-1, random=5)
    assert found.transferred.effect.mean < -1 and found.transferred.effect.anti_steered == 0
    assert (
        found["transferred_negated"].effect.mean > 1 and found["transferred_negated"].effect.anti_steered == 0
    )
    assert found.checks().beats_random and found.checks().negation_reverses


def test_without_random_vectors_there_is_no_word_on_them():
    model, tokenizer = small()
    checks = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:1], random=0).checks()
    assert checks.random_mean is checks.random_sd is checks.beats_random is checks.native_effect is None
    checks = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS[:1], random=1).checks()
    assert checks.random_mean is not None and checks.random_sd is checks.beats_random is None
    assert "beats random vectors: not decided, with fewer than 3 of them" in checks.lines("log-ratio")


def test_a_zero_vector_changes_nothing():
    model, tokenizer = small()
    zero = embgeom.SteeringVector({2: np.zeros(128)})
    found = evaluate(model, tokenizer, zero, MOOD, PROMPTS, random=3, neutral=NEUTRAL)
    assert len(found.outcomes) == 5
    for outcome in found.outcomes:
        assert outcome.effect == Effect(0.0, 0.0, 0.0)
        assert (outcome.side_effects.kl, outcome.side_effects.perplexity_ratio) == (0.0, 1.0)
    assert not found.checks().beats_random and not found.checks().negation_reverses


def test_a_planted_direction_steers():
    model, tokenizer = small()
    found = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS, random=10, neutral=NEUTRAL)
    checks = found.checks()
    assert found.transferred.effect.mean > 1 and found.transferred.effect.anti_steered == 0
    assert (
        found["transferred_negated"].effect.mean < -1
        and found["transferred_negated"].effect.anti_steered == 0
    )
    assert checks.beats_random and checks.negation_reverses
    assert abs(checks.random_mean) < checks.effect / 2
    assert found.transferred.side_effects.kl > 0


@given(
    norms=st.dictionaries(st.integers(0, 40), st.floats(1e-3, 1e4), min_size=1, max_size=4),
    seed=st.integers(0, 1000),
)
def test_controls_have_the_norm_of_the_vector(norms, seed):
    generator = np.random.default_rng(seed)
    vector, other = (
        embgeom.SteeringVector({layer: generator.standard_normal(16) for layer in norms}) for _ in range(2)
    )
    native = embgeom.SteeringVector(
        {
            layer: direction * norms[layer] / vector.norms[layer]
            for layer, direction in other.directions.items()
        }
    )
    conditions = with_controls(vector, scale=-2.0, native=native, random=3, shuffled=[other], seed=seed)
    assert len(conditions) == 8
    for condition in conditions:
        for layer, norm in native.norms.items():
            assert condition.vector.norms[layer] == pytest.approx(norm, rel=1e-5)
        assert abs(condition.scale) == 2 and condition.sign == (1 if condition.scale > 0 else -1)
    # At equal KL a scale is that of the vector as it was given.
    options = {"random": 1, "shuffled": [other], "seed": seed, "of_one_norm": False}
    kept = {each.name: each.vector for each in with_controls(vector, scale=1.0, native=native, **options)}
    assert kept["transferred"].norms == kept["random_0"].norms | vector.norms
    assert kept["native"].norms == native.norms and kept["shuffled_0"].norms == other.norms


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=20),
    st.sampled_from([1, -1]),
)
def test_effect(pairs, sign):
    steered, unsteered = np.array(pairs).T
    found = Effect.from_scores(steered, unsteered, sign=sign)
    shifts = [a - b for a, b in pairs]
    mean = sum(shifts) / len(shifts)
    error = (sum((shift - mean) ** 2 for shift in shifts) / (len(shifts) - 1) / len(shifts)) ** 0.5
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert found.standard_error == pytest.approx(error, abs=1e-9)
    assert found.anti_steered == sum((shift < 0) if sign == 1 else (shift > 0) for shift in shifts) / len(
        shifts
    )


@pytest.mark.parametrize("operation, value", [("ablate", None), ("project_to", 2.0), ("clamp", (None, 1.0))])
def test_only_what_is_added_is_scaled(operation, value):
    vector = replace(random_vector(small()[0], [1]), operation=operation, value=value)
    with pytest.raises(InputError, match=f"operation is '{operation}'.*leave at_kl out"):
        evaluate(*small(), vector, MOOD, PROMPTS[:2], neutral=NEUTRAL, at_kl=0.2, random=1)
    with pytest.raises(InputError, match="only vectors that are used alike"):
        evaluate(*small(), vector, MOOD, PROMPTS[:2], native=random_vector(small()[0], [1], seed=2), random=1)
    # What is not added has no negation: at scale -1 another change is made.
    found = evaluate(*small(), vector, MOOD, PROMPTS[:2], random=1)
    assert [each.name for each in found.outcomes] == ["transferred", "random_0"]
    assert found.checks().negation_reverses is None and "negat" not in found.summary()
    assert "anti-steered: undefined for vectors that are not added" in found.summary()
    assert all(np.isnan(each.effect.anti_steered) for each in found.outcomes)
    longer = replace(3 * random_vector(small()[0], [1], seed=2), operation=operation, value=value)
    conditions = with_controls(vector, scale=1.0, native=longer, random=0, shuffled=[longer], seed=0)
    norms = {each.name: each.vector.norms for each in conditions}
    assert norms["transferred"] == vector.norms
    assert norms["native"] == norms["shuffled_0"] == longer.norms


def test_two_threads_evaluate_one_model_one_after_the_other():
    model, tokenizer = small()
    tasks = [
        (random_vector(small()[0], [1 + seed], seed=seed), PROMPTS[seed : seed + 3]) for seed in range(3)
    ]

    def measured(task):
        vector, prompts = task
        found = evaluate(model, tokenizer, vector, MOOD, prompts, neutral=NEUTRAL, at_kl=0.2, random=1)
        return [(each.scale, each.effect.mean) for each in found.outcomes]

    alone = [measured(task) for task in tasks]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(measured, tasks)) == alone
    assert not any("forward" in module.__dict__ for module in model.modules())
