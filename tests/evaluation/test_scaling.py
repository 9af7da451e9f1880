"""Vectors scaled by what they cost on neutral text."""

from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom import InputError, SteeringVector
from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate, scale_to_kl
from embgeom.examples import moods

pytest.importorskip("transformers", reason="transformers is not installed")

VECTOR = SteeringVector({1: np.linspace(-1, 1, 128), 2: np.cos(np.arange(128))})


@pytest.fixture(scope="module")
def small():
    return embgeom.steering.load_language_model("example:small")


def test_a_scaled_vector_costs_what_is_asked(small):
    neutral = moods.neutral_texts()[:4]
    scaled = scale_to_kl(*small, VECTOR, 0.3, neutral=neutral)
    score = WordLogRatio([" happy"], [" sad"])
    found = evaluate(
        *small, scaled, score, moods.prompts()[:2], neutral=neutral, options=EvaluateOptions(random=0)
    )
    assert found["transferred"].side_effects.kl == pytest.approx(0.3, rel=0.06)
    ratio = {layer: scaled.norms[layer] / norm for layer, norm in VECTOR.norms.items()}
    assert ratio[1] == pytest.approx(ratio[2]) == scaled.provenance["scaled_to_kl"]["times"]


@pytest.mark.parametrize(
    ("vector", "options", "why"),
    [
        (VECTOR, {"at_kl": 0.0}, "at_kl = 0.0 must be finite and above 0"),
        (VECTOR, {"at_kl": 1e6}, "no scale of the vector has a KL"),
        (VECTOR, {"neutral": []}, "neutral is empty"),
        (replace(VECTOR, operation="ablate"), {}, "operation is 'ablate'"),
        (SteeringVector({1: np.ones(12)}), {}, "12"),
    ],
)
def test_what_cannot_be_scaled(small, vector, options, why):
    with pytest.raises(InputError, match=why):
        scale_to_kl(*small, vector, **options)
