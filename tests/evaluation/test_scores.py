"""Scores against loops over one sample at a time."""

import json

import numpy as np
import pytest
import torch

import embgeom
from embgeom.evaluation import AnswerProbability, GenerationScore, WordLogRatio
from tests.helpers.evaluation import (
    HAPPY,
    PROMPTS,
    SAD,
    logits_of,
    next_logs,
    plainly_steered,
    random_vector,
    small,
    tiny,
)
from tests.helpers.real_data import find

MODELS = {"tiny": tiny, "small": small}
ITEMS = [
    {
        "question": "Is the sky blue?\n (A) Yes\n (B) No",
        "answer_matching_behavior": "(A)",
        "answer_not_matching_behavior": "(B)",
    },
    {
        "question": "What do cats eat for dinner when it rains?\n (A) stones\n (B) fish\n (C) soup",
        "answer_matching_behavior": " (C)",
        "answer_not_matching_behavior": " (A)",
    },
]


def word_shift(model, tokenizer, prompt):
    logs = next_logs(model, tokenizer(prompt)["input_ids"])
    means = [np.mean([logs[tokenizer(w)["input_ids"][0]] for w in words]) for words in (HAPPY, SAD)]
    return means[0] - means[1]


def letter_probability(model, tokenizer, item):
    """Probability of the matching letter after "... (", normalized over both letters."""
    ids = tokenizer(item["question"] + "\n\nAnswer: (")["input_ids"]
    logs = next_logs(model, ids)
    letters = (item[f"answer_{name}_behavior"].strip(" ()") for name in ("matching", "not_matching"))
    matching, other = (np.exp(logs[tokenizer(letter)["input_ids"][0]]) for letter in letters)
    return matching / (matching + other)


def greedy_text(model, tokenizer, prompt, count):
    ids = tokenizer(prompt)["input_ids"]
    written = []
    while len(written) < count:
        token = int(logits_of(model, ids + written)[-1].argmax())
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
    return tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_whole_words_are_scored_over_all_their_tokens(batch_size):
    model, tokenizer = tiny()
    # Of one token, of several, and two that begin alike.
    words = [" happy", " xyzzy", " xyzo"], [" sad", " unforgivable"]
    assert sorted({len(tokenizer(word)["input_ids"]) for side in words for word in side})[-1] > 2

    def log_probability(prompt, word):
        ids, tokens = tokenizer(prompt)["input_ids"], tokenizer(word)["input_ids"]
        return sum(next_logs(model, ids + tokens[:at])[token] for at, token in enumerate(tokens))

    expected = [
        np.subtract(*(np.mean([log_probability(prompt, word) for word in side]) for side in words))
        for prompt in PROMPTS
    ]
    with pytest.warns(
        embgeom.EmbgeomWarning, match=r"differ in numbers of tokens \(' xyzzy' 5, .*\); they are scored whole"
    ):
        found = WordLogRatio(*words, whole=True)(model, tokenizer, PROMPTS, batch_size=batch_size)
    np.testing.assert_allclose(found["log-ratio"], expected, atol=5e-5)
    # No side is at a disadvantage where both have as many.
    WordLogRatio([" happy", " xyzzy"], [" xyzzi", " sad"], whole=True)(model, tokenizer, PROMPTS[:1])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_word_shift(name, batch_size):
    model, tokenizer = MODELS[name]()
    with plainly_steered(model, random_vector(model, [0, 2])):
        expected = [word_shift(model, tokenizer, prompt) for prompt in PROMPTS]
        found = WordLogRatio(HAPPY, SAD)(model, tokenizer, PROMPTS, batch_size=batch_size)
    np.testing.assert_allclose(found["log-ratio"], expected, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_answer_probability(name, batch_size):
    model, tokenizer = MODELS[name]()
    found = AnswerProbability()(model, tokenizer, ITEMS, batch_size=batch_size)
    expected = np.array([letter_probability(model, tokenizer, item) for item in ITEMS])
    np.testing.assert_allclose(found["probability"], expected, rtol=1e-5)
    np.testing.assert_allclose(found["log-odds"], np.log(expected / (1 - expected)), atol=1e-4)


@pytest.mark.model
@pytest.mark.parametrize("behavior", ["refusal", "survival-instinct", "myopic-reward"])
def test_answer_probability_on_items_of_caa(behavior):
    model, tokenizer = small()
    items = json.loads(find(f"steering/caa/{behavior}/test_ab.json").read_text(encoding="utf-8"))
    items = [item for item in items if len(tokenizer(item["question"])["input_ids"]) < 240][:20]
    assert len(items) > 5
    score = AnswerProbability()
    found = score(model, tokenizer, score.samples(items))["probability"]
    expected = [letter_probability(model, tokenizer, item) for item in items]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_answers_swapped_add_up_to_one():
    model, tokenizer = small()
    names = "answer_matching_behavior", "answer_not_matching_behavior"
    swapped = [{**item, names[0]: item[names[1]], names[1]: item[names[0]]} for item in ITEMS]
    score = AnswerProbability()
    one, other = (score(model, tokenizer, items) for items in (ITEMS, swapped))
    np.testing.assert_allclose(one["probability"] + other["probability"], 1)
    np.testing.assert_allclose(one["log-odds"], -other["log-odds"])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_greedy_texts(name, batch_size):
    model, tokenizer = MODELS[name]()
    score = GenerationScore(len, max_new_tokens=6)
    with plainly_steered(model, random_vector(model, [1], norm=1.0)):
        texts = score.texts(model, tokenizer, PROMPTS, batch_size=batch_size)
        expected = [greedy_text(model, tokenizer, prompt, 6) for prompt in PROMPTS]
        values = score(model, tokenizer, PROMPTS, batch_size=batch_size)["score"]
    assert texts == expected
    assert values.tolist() == [len(text) for text in expected]


def test_drawn_texts_depend_on_the_seed_alone():
    model, tokenizer = small()
    score = GenerationScore(len, max_new_tokens=8, temperature=1.0)
    one, other = (score.texts(model, tokenizer, PROMPTS, batch_size=size, seed=3) for size in (1, 4))
    assert one == other
    assert one != score.texts(model, tokenizer, PROMPTS, seed=4)


def test_drawn_tokens_have_the_probabilities_of_the_model():
    model, tokenizer = small()
    prompt, temperature, count = "The", 0.7, 2000
    score = GenerationScore(len, max_new_tokens=1, temperature=temperature)
    texts = score.texts(model, tokenizer, [prompt] * count, batch_size=500)
    expected = np.exp(next_logs(model, tokenizer(prompt)["input_ids"]) / temperature)
    expected /= expected.sum()
    for token in np.argsort(-expected)[:8]:
        share, chance = texts.count(tokenizer.decode([int(token)])) / count, expected[token]
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / count)


def test_a_model_that_asks_for_drawing_and_penalties_is_not_heard():
    model, tokenizer = small()
    score = GenerationScore(len, max_new_tokens=6)
    expected = score.texts(model, tokenizer, PROMPTS)
    before = model.generation_config
    try:
        model.generation_config = type(before)(
            **{**before.to_dict(), "do_sample": True, "temperature": 2.0, "repetition_penalty": 3.0}
        )
        assert score.texts(model, tokenizer, PROMPTS) == expected
    finally:
        model.generation_config = before


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_padding_side_of_the_tokenizer_does_not_matter(side, monkeypatch):
    model, tokenizer = small()
    expected = WordLogRatio(HAPPY, SAD)(model, tokenizer, PROMPTS)["log-ratio"]
    monkeypatch.setattr(tokenizer, "padding_side", side)
    found = WordLogRatio(HAPPY, SAD)(model, tokenizer, PROMPTS)["log-ratio"]
    np.testing.assert_array_equal(found, expected)


def test_a_model_that_gives_all_logits_only(monkeypatch):
    model, tokenizer = small()
    expected = WordLogRatio(HAPPY, SAD)(model, tokenizer, PROMPTS)["log-ratio"]
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda input_ids, attention_mask, use_cache: forward(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache))  # fmt: skip
    found = WordLogRatio(HAPPY, SAD)(model, tokenizer, PROMPTS)["log-ratio"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_modes_gradients_and_random_numbers_are_left_alone():
    model, tokenizer = small()
    frozen = model.transformer.h[1]
    score, text = WordLogRatio(HAPPY, SAD), GenerationScore(len, max_new_tokens=2, temperature=1.0)
    expected = score(model, tokenizer, PROMPTS)["log-ratio"]
    model.train()
    frozen.eval()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    try:
        # Dropout, which the training mode would switch on, would change every number.
        np.testing.assert_array_equal(score(model, tokenizer, PROMPTS)["log-ratio"], expected)
        text(model, tokenizer, PROMPTS)
        assert [module.training for module in model.modules()] == modes
        with pytest.raises(ZeroDivisionError):
            GenerationScore(lambda text: 1 / 0, max_new_tokens=2)(model, tokenizer, PROMPTS)
        assert [module.training for module in model.modules()] == modes
    finally:
        model.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() and all(p.grad is None for p in model.parameters())


def test_chat_templates(monkeypatch):
    model, tokenizer = small()
    template = "{% for m in messages %}User says {{ m['content'] }}{% endfor %} and I say{{ '\\n' }}"
    monkeypatch.setattr(tokenizer, "chat_template", template)
    found = WordLogRatio(HAPPY, SAD, chat=True)(model, tokenizer, ["hello"])["log-ratio"]
    assert found[0] == pytest.approx(word_shift(model, tokenizer, "User says hello and I say\n"), abs=2e-5)
    item = ITEMS[0]
    found = AnswerProbability(chat=True)(model, tokenizer, [item])["probability"]
    ids = tokenizer(f"User says {item['question']}\n\nAnswer: and I say\n(")["input_ids"]
    logs = next_logs(model, ids)
    odds = logs[tokenizer("A")["input_ids"][0]] - logs[tokenizer("B")["input_ids"][0]]
    assert found[0] == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-4)


def test_what_a_tokenizer_puts_around_a_text():
    from embgeom.lm.tokenizing import encode

    def tokenizer(text, add_special_tokens=True):
        plain = [ord(letter) for letter in text]
        return {"input_ids": [1, *plain, 2] if add_special_tokens else plain}

    assert encode(tokenizer, "ab") == [1, 97, 98]
    assert encode(tokenizer, "ab", special=False) == [97, 98]


@pytest.mark.model
def test_words_of_sentencepiece():
    from transformers import AutoTokenizer

    from embgeom.lm.tokenizing import word_token

    tokenizer = AutoTokenizer.from_pretrained(find("models/stories260k"))
    expected = tokenizer.convert_tokens_to_ids("\u2581the")
    assert word_token(tokenizer, " the", first=False) == word_token(tokenizer, "the", first=False) == expected


@pytest.mark.parametrize("whole", [False, True])
def test_a_word_without_its_space_is_warned_of(whole):
    model, tokenizer = small()
    with pytest.warns(embgeom.EmbgeomWarning) as caught:
        WordLogRatio(["he"], SAD, whole=whole)(model, tokenizer, PROMPTS)
    assert [str(each.message) for each in caught] == ["'he' continues a word; for the next word write ' he'"]
    # Where a new line or a quote begins, and where no letter follows, no space is missing.
    WordLogRatio(["he"], SAD, whole=whole)(model, tokenizer, ['She said "', "A line\n"])
    WordLogRatio(["."], ["!"], whole=whole)(model, tokenizer, PROMPTS)


def test_spaces_that_mean_nothing_are_not_missed():
    from embgeom.lm.tokenizing import continues_a_word

    class Tokenizer:
        """Splits into characters, with the space as one of its own."""

        def __call__(self, text, **options):
            return {"input_ids": [ord(letter) for letter in text]}

        def convert_ids_to_tokens(self, tokens):
            return [chr(token).replace(" ", "\u0120") for token in tokens]

        def decode(self, tokens):
            return "".join(map(chr, tokens))

    assert not continues_a_word(Tokenizer(), "\u597d")


def test_words_of_several_tokens():
    model, tokenizer = small()
    with pytest.raises(embgeom.InputError, match=r"has 3 tokens .*first_token=True"):
        WordLogRatio([" happenstance"], SAD)(model, tokenizer, PROMPTS)
    with pytest.raises(embgeom.InputError, match=r"with a leading space \(' qqqq'\)"):
        WordLogRatio(["qqqq"], SAD)(model, tokenizer, PROMPTS)
    first = tokenizer.decode(tokenizer(" happenstance")["input_ids"][:1])
    found = WordLogRatio([" happenstance"], SAD, first_token=True)(model, tokenizer, PROMPTS)
    expected = WordLogRatio([first], SAD)(model, tokenizer, PROMPTS)
    np.testing.assert_array_equal(found["log-ratio"], expected["log-ratio"])


@pytest.mark.parametrize(
    ("score", "samples", "message"),
    [
        (WordLogRatio(HAPPY, [" sad", " happy"]), PROMPTS, r"stands for a positive and for a negative word"),
        (WordLogRatio(HAPPY, SAD), [""], r"prompt 0 has 0 tokens, but 1 at least"),
        (WordLogRatio(HAPPY, SAD), ["so " * 300], r"more than the 256 that the model takes"),
        (WordLogRatio(HAPPY, SAD), [3], r"3 is not a text"),
        (WordLogRatio(HAPPY, SAD, chat=True), PROMPTS, r"no chat template"),
        (GenerationScore(len, max_new_tokens=255), PROMPTS, r"and 255 new ones, more than the 256"),
        (
            GenerationScore(lambda text: float("nan"), max_new_tokens=1),
            PROMPTS,
            r"the scorer returns nan for",
        ),
        (
            GenerationScore(lambda text: None, max_new_tokens=1),
            PROMPTS,
            r"what the scorer returns must be a number",
        ),
        (AnswerProbability(), [{"question": "?"}], r"question 0 must be a dict with question, answer_"),
        (AnswerProbability(), ["What?"], r"question 0 must be a dict"),
        (
            AnswerProbability(),
            [{**ITEMS[0], "answer_not_matching_behavior": "(A)"}],
            r"question 0: the answers '\(A\)' and '\(A\)' cannot be told apart",
        ),
    ],
)
def test_errors(score, samples, message):
    with pytest.raises(embgeom.InputError, match=message):
        score(*small(), samples)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WordLogRatio([], SAD), r"positive = \[\] must be a list of words"),
        (lambda: WordLogRatio(HAPPY, " sad"), r"negative = ' sad' must be a list"),
        (lambda: AnswerProbability(template="Hm"), r"template = 'Hm' has no \{question\}"),
        (lambda: GenerationScore(len, max_new_tokens=0), r"max_new_tokens = 0 must be at least 1"),
        (lambda: GenerationScore(len, temperature=-1), r"temperature = -1 must be finite and 0 at least"),
        (lambda: WordLogRatio(HAPPY, SAD).samples([]), r"there are no prompts to score"),
        (lambda: WordLogRatio(HAPPY, SAD).samples("Hm"), r"prompts = 'Hm' is not a list"),
        (lambda: AnswerProbability().samples(None), r"prompts = None is not a list"),
    ],
)
def test_options(make, message):
    with pytest.raises(embgeom.InputError, match=message):
        make()
