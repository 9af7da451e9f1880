"""Vectors from words are differences of means of unembedding rows."""

import json

import numpy as np
import pytest

import embgeom
from embgeom import Embeddings, InputError, SteeringVector

TOKENS = ["Ġjoy", "Ġglad", "Ġsad", "Ġdog", "s"]


@pytest.fixture
def model():
    matrix = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    return Embeddings.from_array(matrix, TOKENS, name="toy", which="output")


def test_the_direction_is_a_difference_of_means(model):
    vector = SteeringVector.from_words(model, [" joy", "glad"], [" sad"], layers=[2, 0])
    expected = model.matrix[:2].mean(0) - model.matrix[2]
    assert vector.layers == (0, 2) and vector.model == "toy"
    for direction in vector.directions.values():
        np.testing.assert_allclose(direction, expected, atol=1e-6)
    origin = json.loads(json.dumps(vector.provenance))
    assert origin["positive"] == [" joy", "glad"] and origin["rows"] == {"positive": [0, 1], "negative": [2]}


def test_without_negative_words_the_mean_of_all_is_taken_away(model):
    vector = SteeringVector.from_words(model, [" joy"], layers=1, name="mine")
    np.testing.assert_allclose(vector.directions[1], model.matrix[0] - model.matrix.mean(0), atol=1e-6)
    assert vector.model == "mine"


def test_words_of_several_tokens_are_named(model):
    with pytest.raises(InputError, match=r"spells ' joyful', ' gloomy'; .* several tokens"):
        SteeringVector.from_words(model, [" joy", " joyful"], [" gloomy"], layers=0)


def test_a_model_by_name_and_a_tied_one():
    by_name = SteeringVector.from_words("example:large", [" happy"], [" sad"], layers=3)
    loaded = embgeom.load("example:large", "output")
    expected = loaded.matrix[loaded.row_of(" happy")] - loaded.matrix[loaded.row_of(" sad")]
    np.testing.assert_allclose(by_name.directions[3], expected, atol=1e-6)
    tied = SteeringVector.from_words(embgeom.load("example:small"), [" happy"], [" sad"], layers=1)
    assert tied.hidden_size == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": []}, "no word"),
        ({"positive": " joy"}, "give a list of words"),
        ({"negative": [" joy"]}, "same mean"),
        ({"layers": []}, "layers is empty"),
        ({"layers": -1}, "counted from 0"),
        ({"unembedding": 3}, "type int has no tokens"),
    ],
)
def test_wrong_options_are_refused(model, options, message):
    arguments = {"unembedding": model, "positive": [" joy"], "negative": [" sad"], "layers": 0, **options}
    with pytest.raises(InputError, match=message):
        SteeringVector.from_words(**arguments)


def test_an_input_embedding_is_refused():
    inputs = Embeddings.from_array(np.eye(5, dtype=np.float32), TOKENS, name="toy")
    with pytest.raises(InputError, match="written by the unembedding"):
        SteeringVector.from_words(inputs, [" joy"], layers=0)
    with pytest.raises(InputError, match="written by the unembedding"):
        SteeringVector.from_words(embgeom.load("example:large"), [" happy"], layers=0)
