"""Effects and side effects against loops over one sample at a time."""

import json

import numpy as np
import pytest
import torch

import embgeom
from embgeom.evaluation import AnswerProbability, GenerationScore, Score
from tests.helpers.evaluation import (
    HAPPY,
    MOOD,
    NEUTRAL,
    PROMPTS,
    SAD,
    evaluate,
    happy_minus_sad,
    logits_of,
    moods,
    next_logs,
    plainly_steered,
    random_vector,
    small,
    tiny,
)

MODELS = {"tiny": tiny, "small": small}


def neutral_cost(model, tokenizer, vector, scale=1.0):
    """Perplexity unsteered, perplexity steered and KL, token by token."""
    losses, steered_losses, divergences = [], [], []
    for text in NEUTRAL:
        ids = tokenizer(text)["input_ids"]
        before = torch.log_softmax(logits_of(model, ids), -1).numpy()
        with plainly_steered(model, vector, scale):
            after = torch.log_softmax(logits_of(model, ids), -1).numpy()
        for place in range(len(ids) - 1):
            losses.append(-before[place, ids[place + 1]])
            steered_losses.append(-after[place, ids[place + 1]])
            divergences.append(np.sum(np.exp(before[place]) * (before[place] - after[place])))
    return np.exp(np.mean(losses)), np.exp(np.mean(steered_losses)), np.mean(divergences)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_effects_and_prices(name, batch_size):
    model, tokenizer = MODELS[name]()
    vector = random_vector(model, [0, 2], norm=2.0)
    found = evaluate(
        model, tokenizer, vector, MOOD, PROMPTS, scale=2, random=2, neutral=NEUTRAL, batch_size=batch_size
    )
    unsteered = moods(model, tokenizer)
    np.testing.assert_allclose(found.unsteered["log-ratio"], unsteered, atol=5e-5)
    for name, sign in (("transferred", 1), ("transferred_negated", -1)):
        values = moods(model, tokenizer, vector, 2.0 * sign)
        np.testing.assert_allclose(found[name].values["log-ratio"], values, atol=5e-5)
        shifts = values - unsteered
        assert found[name].effect.mean == pytest.approx(np.mean(shifts), abs=1e-4)
        assert found[name].effect.standard_error == pytest.approx(
            np.sqrt(np.sum((shifts - shifts.mean()) ** 2) / 5 / 6), abs=1e-4
        )
        assert found[name].effect.anti_steered == sum(sign * shift < 0 for shift in shifts) / 6
        plain, perplexity, kl = neutral_cost(model, tokenizer, vector, 2.0 * sign)
        assert found.unsteered_perplexity == pytest.approx(plain, rel=1e-4)
        side_effects = found[name].side_effects
        assert side_effects.perplexity == pytest.approx(perplexity, rel=1e-4)
        assert side_effects.perplexity_ratio == pytest.approx(perplexity / plain, rel=1e-4)
        assert side_effects.kl == pytest.approx(kl, rel=1e-4)


def test_a_single_direction_at_another_layer():
    model, tokenizer = small()
    one = evaluate(model, tokenizer, happy_minus_sad(3), MOOD, PROMPTS, layers=2, random=1)
    other = evaluate(model, tokenizer, happy_minus_sad(2), MOOD, PROMPTS, random=1)
    assert one.transferred.layers == (2,)
    assert [o.effect for o in one.outcomes] == [o.effect for o in other.outcomes]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_generated_positions(batch_size):
    model, tokenizer = small()
    vector = happy_minus_sad(1)
    found = evaluate(
        model, tokenizer, vector, MOOD, PROMPTS, random=0, positions="generated", batch_size=batch_size
    )
    words = [[tokenizer(word)["input_ids"][0] for word in words] for words in (HAPPY, SAD)]

    def at_the_last_token(_module, _args, output):
        added = torch.zeros(1, len(ids), 128)
        added[0, -1] = torch.tensor(vector.directions[1].copy())
        return (output[0] + added, *output[1:]) if isinstance(output, tuple) else output + added

    hook = model.transformer.h[1].register_forward_hook(at_the_last_token)
    try:
        for prompt, value in zip(PROMPTS, found.transferred.values["log-ratio"], strict=True):
            ids = tokenizer(prompt)["input_ids"]
            logs = next_logs(model, ids)
            assert value == pytest.approx(logs[words[0]].mean() - logs[words[1]].mean(), abs=5e-5)
    finally:
        hook.remove()


def test_steered_texts():
    model, tokenizer = small()
    vector, count = happy_minus_sad(2, 30.0), 5
    score = GenerationScore(lambda text: text.count("happy") - text.count("sad"), max_new_tokens=count)
    found = evaluate(model, tokenizer, vector, score, PROMPTS, random=0)
    for name, scale in (("transferred", 1.0), ("transferred_negated", -1.0)):
        for prompt, value in zip(PROMPTS, found[name].values["score"], strict=True):
            ids = tokenizer(prompt)["input_ids"]
            written = []
            with plainly_steered(model, vector, scale):
                while len(written) < count and 0 not in written:
                    written.append(int(logits_of(model, ids + written)[-1].argmax()))
            text = tokenizer.decode(written)
            assert value == text.count("happy") - text.count("sad"), (prompt, text)
    assert found.transferred.effect.mean > 0 > found["transferred_negated"].effect.mean


def test_repeated_runs_agree_and_seeds_differ():
    model, tokenizer = small()
    score = GenerationScore(len, max_new_tokens=4, temperature=1.0)
    vector = happy_minus_sad(2)
    one, again, other = (
        evaluate(model, tokenizer, vector, score, PROMPTS[:3], random=2, seed=seed) for seed in (1, 1, 2)
    )
    for name in ("transferred", "random_1"):
        np.testing.assert_array_equal(one[name].values["score"], again[name].values["score"])
    assert any((one[o.name].values["score"] != o.values["score"]).any() for o in other.outcomes)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    from transformers import AutoModelForCausalLM

    reference, tokenizer = small()
    model = AutoModelForCausalLM.from_pretrained(embgeom.examples.pair().small, dtype=dtype)
    vector = happy_minus_sad(3)
    half, whole = (
        evaluate(m, tokenizer, vector, MOOD, PROMPTS, random=2, neutral=NEUTRAL) for m in (model, reference)
    )
    assert half.provenance["model"]["dtype"] == str(dtype).removeprefix("torch.")
    assert half.transferred.effect.mean == pytest.approx(whole.transferred.effect.mean, rel=0.05)
    assert half.transferred.side_effects.kl == pytest.approx(whole.transferred.side_effects.kl, rel=0.05)
    zero = embgeom.SteeringVector({2: np.zeros(128)})
    assert (
        evaluate(model, tokenizer, zero, MOOD, PROMPTS, random=0, neutral=NEUTRAL).transferred.side_effects.kl
        == 0
    )


def test_an_overflow_is_undefined_and_stops_nothing():
    from transformers import AutoModelForCausalLM

    tokenizer = small()[1]
    model = AutoModelForCausalLM.from_pretrained(embgeom.examples.pair().small, dtype=torch.float16)
    # Each fits into float16, their sum in the residual stream does not.
    spike = np.zeros(128)
    spike[0] = 6e4
    vector = embgeom.SteeringVector({1: spike, 2: spike})
    found = evaluate(model, tokenizer, vector, MOOD, PROMPTS, random=2, neutral=NEUTRAL)
    assert found.to_dict()["outcomes"][0]["effects"]["log-ratio"]["mean"] is None
    assert np.isnan(found.transferred.effect.anti_steered) and "nan" not in found.summary()
    assert "by log-ratio: undefined, since the steered model gives NaN" in found.summary()
    # What cannot be compared is neither so nor not so.
    checks = found.to_dict()["checks"]["log-ratio"]
    named = ("effect", "fraction_of_native", "beats_random", "works_against", "negation_reverses")
    assert [checks[name] for name in named] == [None] * 5
    assert "NaN" not in json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(embgeom.InputError, match="gives NaN, so there is no likeliest token"):
        evaluate(model, tokenizer, vector, GenerationScore(len, max_new_tokens=2), PROMPTS, random=0)


def test_facts_of_some_effects_that_are_not_finite():
    model, tokenizer = small()

    class Given(Score):
        """Effects, one for each vector after the unsteered model's."""

        def __init__(self, *effects):
            self.effects = iter([0.0, *effects])

        def __call__(self, model, tokenizer, samples, *, batch_size=8, seed=0):
            return {"score": np.full(len(samples), next(self.effects))}

    def checks(*effects):
        vector = random_vector(model, [1])
        score = Given(*effects)
        shuffled = [random_vector(model, [1], seed=seed) for seed in (1, 2, 3)]
        controls = {"native": vector, "random": 3, "shuffled": shuffled}
        found = evaluate(model, tokenizer, vector, score, PROMPTS, **controls)
        assert found.summary()
        return found.checks()

    # The vector and its negation, the native one and its, three random ones, three of shuffled tokens.
    found = checks(4, -4, 8, -8, 1, 0, -1, 0, 1, -1)
    assert (found.fraction_of_native, found.beats_random, found.beats_shuffled) == (0.5, True, True)
    assert found.negation_reverses is True
    nan, inf = float("nan"), float("inf")
    assert checks(4, nan, 8, -8, 1, 0, -1, 0, 1, -1).negation_reverses is None
    assert checks(4, -4, inf, -8, 1, 0, -1, 0, 1, -1).fraction_of_native is None
    assert checks(4, -4, 8, -8, 1, 0, nan, 0, 1, -1).beats_random is None
    assert checks(4, -4, 8, -8, 1, 0, inf, 0, 1, -1).beats_random is None
    assert checks(4, -4, 8, -8, 1, 0, -1, nan, 1, -1).beats_shuffled is None
    found = checks(inf, -inf, 8, -8, 1, 0, -1, 0, 1, -1)
    assert found.fraction_of_native is found.beats_random is found.beats_shuffled is None
    assert found.negation_reverses is found.works_against is None


def test_a_score_that_fails_leaves_the_model_as_it_was():
    model, tokenizer = tiny()
    before = logits_of(model, [5, 6, 7])

    class Failing(Score):
        calls = 0

        def __call__(self, model, tokenizer, samples, *, batch_size=8, seed=0):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return {"score": np.zeros(len(samples))}

    model.train()
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluate(model, tokenizer, random_vector(model, [1]), Failing(), PROMPTS, random=2)
        assert model.training and model.model.layers[0].training
    finally:
        model.eval()
    assert torch.equal(logits_of(model, [5, 6, 7]), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_score_of_ones_own_with_two_quantities():
    class Lengths(Score):
        quantities = ("letters", "words")

        def __call__(self, model, tokenizer, samples, *, batch_size=8, seed=0):
            assert not model.training and not torch.is_grad_enabled()
            return {"words": [len(s.split()) for s in samples], "letters": [len(s) for s in samples]}

    model, tokenizer = tiny()
    model.train()
    try:
        found = evaluate(model, tokenizer, random_vector(model, [0]), Lengths(), PROMPTS, random=0)
        assert model.training
    finally:
        model.eval()
    assert list(found.transferred.effects) == ["letters", "words"]
    assert found.unsteered["words"].tolist() == [len(prompt.split()) for prompt in PROMPTS]


def test_progress_is_reported():
    seen = []
    model, tokenizer = tiny()
    evaluate(
        model,
        tokenizer,
        random_vector(model, [0]),
        MOOD,
        PROMPTS,
        random=1,
        neutral=NEUTRAL,
        batch_size=2,
        progress=lambda *step: seen.append(step),
    )
    assert seen == [("neutral text", n, 6) for n in range(1, 7)] + [("scores", n, 3) for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("inf")}, r"scale = inf is not finite"),
        ({"random": -1}, r"random = -1 must be at least 0"),
        ({"batch_size": 0}, r"batch_size = 0 must be at least 1"),
        ({"seed": -1}, r"seed = -1 must be at least 0"),
        ({"layers": [1, 7]}, r"no direction for layer 7"),
        ({"neutral": []}, r"neutral is empty"),
        ({"neutral": "Hm."}, r"neutral = 'Hm.' is not a list"),
        ({"neutral": ["", "so it is"]}, r"neutral text 0 has 0 tokens, but 2 at least"),
        ({"native": embgeom.SteeringVector({0: np.ones(32)})}, r"native has no direction for layer 1"),
        ({"native": embgeom.SteeringVector({0: np.ones(9)})}, r"native has hidden size 9, the vector 32"),
        ({"shuffled": embgeom.SteeringVector({0: np.ones(9)})}, r"shuffled has hidden size 9, the vector 32"),
        (
            {"shuffled": [embgeom.SteeringVector({0: x, 1: x}) for x in (np.ones(32), 2 * np.ones(32))]},
            r"shuffled 0 and 1 are one direction; give each once",
        ),
        ({"positions": "some"}, r"positions = 'some': it is 'all' or 'generated'"),
        ({"positions": np.ones(3, dtype=bool)}, r"positions = array"),
        ({"vector": 5}, r"vector = 5 is not a SteeringVector"),
        ({"native": "native.safetensors"}, r"native = 'native.safetensors' is not a SteeringVector"),
        ({"score": len}, r"is not a score: give a WordLogRatio"),
        ({"neutral": 5}, r"neutral = 5 is not a list"),
        ({"prompts": 5}, r"prompts = 5 is not a list"),
        ({"prompts": []}, r"there are no prompts"),
        ({"score": AnswerProbability(), "prompts": ["Hm"]}, r"question 0 must be a dict"),
        ({"vector": embgeom.SteeringVector({0: np.ones(9)})}, r"hidden size 9"),
    ],
)
def test_errors(options, message):
    model, tokenizer = tiny()
    given = {"vector": random_vector(model, [0, 1]), "score": MOOD, "prompts": PROMPTS, **options}
    with pytest.raises(embgeom.InputError, match=message):
        evaluate(model, tokenizer, **given)


def test_scores_of_the_wrong_shape_or_not_finite():
    model, tokenizer = tiny()

    class Odd(Score):
        def __init__(self, values):
            self.values = values

        def __call__(self, model, tokenizer, samples, *, batch_size=8, seed=0):
            return {"score": self.values}

    vector = random_vector(model, [0])
    with pytest.raises(embgeom.InputError, match=r"shape \(2,\) as score, not one number for each of 6"):
        evaluate(model, tokenizer, vector, Odd(np.zeros(2)), PROMPTS)
    with pytest.raises(embgeom.InputError, match=r"unsteered, sample 3 has no finite score"):
        evaluate(model, tokenizer, vector, Odd(np.array([0, 0, 0, np.nan, 0, 0])), PROMPTS)
