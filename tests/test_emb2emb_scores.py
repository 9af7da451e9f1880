"""Scores on held-out tokens, against what they say written out."""

import numpy as np
import pytest
from emb2emb_helpers import LINEAR, fit, related

from embgeom import Emb2Emb, EmbgeomWarning


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_scores_tell_a_map_from_noise(method):
    source, target = related(600, noise=0.5)
    carrier = Emb2Emb.fit(source, target, method=method)
    assert carrier.scores.tokens == 60 and carrier.scores.candidates == 600
    assert carrier.scores.r2 > 0.5 and carrier.scores.cosine > 0.7 and carrier.scores.retrieval_at_10 > 0.6
    assert carrier.shuffled.r2 < 0.1 and carrier.shuffled.retrieval_at_10 < 0.2
    control = Emb2Emb.fit(source, target, method=method, shuffle=True)
    assert control.scores.r2 < 0.1 and control.shuffled is None
    assert "retrieval@1" in carrier.summary()


def test_unrelated_rows_score_nothing_out_of_sample():
    # Fewer rows than columns: in-sample everything is explained.
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((90, 256)), rng.standard_normal((90, 300))
    with pytest.warns(EmbgeomWarning):
        carrier = Emb2Emb.fit(source, target, method="least_squares")
    assert carrier.scores.r2 < 0.05
    assert Emb2Emb.fit(source, target).scores.r2 < 0.05


def test_scores_by_hand():
    source, target = related(200, noise=1)
    carrier = Emb2Emb.fit(source, target, method="ridge", held_out=0.25, seed=5)
    held = np.sort(np.random.default_rng(5).permutation(200)[:50])
    kept = np.setdiff1d(np.arange(200), held)
    again = fit(source[kept], target[kept])
    np.testing.assert_allclose(again.matrix, carrier.matrix, rtol=1e-9)
    mean = target[kept].astype(float).mean(0)
    predicted = again.predict(source[held])
    expected = 1 - np.square(target[held] - predicted).sum() / np.square(target[held] - mean).sum()
    assert carrier.scores.r2 == pytest.approx(expected, abs=1e-6)
    unit = target / np.linalg.norm(target, axis=1, keepdims=True)
    nearest = (predicted @ unit.T).argmax(axis=1)
    assert carrier.scores.retrieval_at_1 == pytest.approx((nearest == held).mean())
