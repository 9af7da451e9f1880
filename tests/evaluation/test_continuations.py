"""What a steered model writes, and how much it repeats itself."""

import numpy as np
import pytest

import embgeom
from embgeom.evaluation import Continuations
from tests.helpers.evaluation import (
    MOOD,
    PROMPTS,
    evaluate,
    happy_minus_sad,
    logits_of,
    plainly_steered,
    small,
)


class Words:
    """A tokenizer of words."""

    def __call__(self, text, **_):
        return {"input_ids": [ord(word[0]) for word in text.split()]}


def test_measures_of_texts():
    found = Continuations.from_texts(Words(), ["a b c d a b c d", "x y", "z"])
    # Of five runs of four words one came before; of nine pairs there are six.
    assert found.repetition == pytest.approx(1 / 5) and found.distinct == pytest.approx(5 / 8)
    assert Continuations.from_texts(Words(), ["a b c d e f"]).repetition == 0
    loop = Continuations.from_texts(Words(), ["a " * 30])
    assert loop.repetition == pytest.approx(26 / 27) and loop.distinct == pytest.approx(1 / 29)
    nothing = Continuations.from_texts(Words(), ["", "a"])
    assert np.isnan(nothing.repetition) and np.isnan(nothing.distinct) and nothing.texts == ("", "a")


def test_texts_stand_beside_the_table(tmp_path):
    model, tokenizer = small()
    vector = happy_minus_sad(2, 30.0)
    found = evaluate(
        model, tokenizer, vector, MOOD, PROMPTS, random=2, continuations=PROMPTS[:2], max_new_tokens=4
    )

    def by_hand(prompt):
        ids = tokenizer(prompt)["input_ids"]
        for _ in range(4):
            ids.append(int(logits_of(model, ids)[-1].argmax()))
        return tokenizer.decode(ids[-4:])

    assert found.unsteered_continuations.texts == tuple(map(by_hand, PROMPTS[:2]))
    for name, scale in (("transferred", 1.0), ("transferred_negated", -1.0)):
        with plainly_steered(model, vector, scale):
            assert found[name].continuations.texts == tuple(map(by_hand, PROMPTS[:2]))
    assert found["random_0"].continuations is None
    text = found.summary()
    assert "repetition" in text and "distinct-2" in text and f"after {PROMPTS[1]!r}" in text
    found.save(tmp_path / "e.json")
    again = type(found).load(tmp_path / "e.json")
    assert again.summary() == text and again.to_dict() == found.to_dict()
    with pytest.raises(embgeom.InputError, match="continuations = 'They' is not a list"):
        evaluate(model, tokenizer, vector, MOOD, PROMPTS, continuations="They")
