"""Scores on held-out tokens, against what they say written out."""

import numpy as np
import pytest

from embgeom import Emb2Emb, EmbgeomWarning
from embgeom.emb2emb import Scores
from tests.helpers.emb2emb import LINEAR, fit, related


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_scores_tell_a_map_from_noise(method):
    source, target = related(600, noise=0.5)
    mapping = Emb2Emb.fit(source, target, method=method)
    assert mapping.scores.tokens == 60 and mapping.scores.candidates == 600
    assert mapping.scores.r2 > 0.5 and mapping.scores.cosine > 0.7 and mapping.scores.retrieval_at_10 > 0.6
    assert mapping.shuffled.r2 < 0.1 and mapping.shuffled.retrieval_at_10 < 0.2
    control = Emb2Emb.fit(source, target, method=method, shuffle=True)
    assert control.scores.r2 < 0.1 and control.shuffled is None
    assert "retrieval@1" in mapping.summary()


def test_unrelated_rows_score_nothing_out_of_sample():
    # Fewer rows than columns: in-sample everything is explained.
    rng = np.random.default_rng(0)
    source, target = rng.standard_normal((90, 256)), rng.standard_normal((90, 300))
    with pytest.warns(EmbgeomWarning):
        mapping = Emb2Emb.fit(source, target, method="least_squares")
    assert mapping.scores.r2 < 0.05
    assert Emb2Emb.fit(source, target).scores.r2 < 0.05


def test_scores_by_hand():
    source, target = related(200, noise=1)
    mapping = Emb2Emb.fit(source, target, method="ridge", held_out=0.25, seed=5)
    held = np.sort(np.random.default_rng(5).permutation(200)[:50])
    kept = np.setdiff1d(np.arange(200), held)
    again = fit(source[kept], target[kept])
    np.testing.assert_allclose(again.matrix, mapping.matrix, rtol=1e-9)
    mean = target[kept].astype(float).mean(0)
    predicted = again.predict(source[held])
    expected = 1 - np.square(target[held] - predicted).sum() / np.square(target[held] - mean).sum()
    assert mapping.scores.r2 == pytest.approx(expected, abs=1e-6)
    candidates = target - mean
    unit = candidates / np.linalg.norm(candidates, axis=1, keepdims=True)
    order = ((predicted - mean) @ unit.T).argsort(axis=1)[:, ::-1]
    found = order[:, :10] == held[:, None]
    assert mapping.scores.retrieval_at_1 == pytest.approx(found[:, 0].mean())
    assert mapping.scores.retrieval_at_10 == pytest.approx(found.any(axis=1).mean())
    ahead = predicted - mean
    cosines = ((ahead / np.linalg.norm(ahead, axis=1, keepdims=True)) * unit[held]).sum(axis=1)
    assert mapping.scores.cosine == pytest.approx(cosines.mean(), abs=1e-6)


def test_a_mean_that_all_rows_share_changes_no_score():
    source, target = related(300, noise=0.5)
    plain = Emb2Emb.fit(source, target).scores
    shifted = Emb2Emb.fit(source, target.astype(float) + 1000).scores
    for name, value in vars(plain).items():
        assert getattr(shifted, name) == pytest.approx(value, abs=2e-3)
    assert plain.retrieval_at_1 > 0.1


def test_most_tokens_that_are_scored(monkeypatch):
    from embgeom.emb2emb import score as fitting

    monkeypatch.setattr(fitting, "MOST_SCORED", 30)
    monkeypatch.setattr(fitting, "MOST_CANDIDATES", 100)
    seen = []
    predict = fitting.predict
    monkeypatch.setattr(
        fitting,
        "predict",
        lambda fitted, rows, threads: (seen.append(rows), predict(fitted, rows, threads))[1],
    )
    source, target = related(600)
    mapping = Emb2Emb.fit(source, target, held_out=0.5)
    assert (mapping.scores.tokens, mapping.scores.candidates) == (30, 100)
    assert mapping.provenance["tokens"] == {"shared": 600, "fitted_on": 300, "held_out": 300, "scored": 30}
    # The map and its control see the same tokens, none of which the map was fitted on, and no others.
    assert [len(rows) for rows in seen] == [30, 30] and (seen[0] == seen[1]).all()
    held = np.random.default_rng(0).permutation(600)[:300]
    assert {tuple(row) for row in seen[0].astype(np.float32)} < {tuple(row) for row in source[held]}
    Emb2Emb.fit(source, target, held_out=0.5)
    Emb2Emb.fit(source, target, held_out=0.5, seed=1)
    assert (seen[2] == seen[0]).all() and not np.isin(seen[4], seen[0]).all()


def test_no_more_than_4096_tokens_are_scored():
    rng = np.random.default_rng(0)
    source = rng.standard_normal((20_000, 3), dtype=np.float32)
    mapping = Emb2Emb.fit(source, source[:, ::-1], held_out=0.3)
    assert mapping.scores.tokens == 4096 and mapping.scores.candidates == 16_384
    assert mapping.provenance["tokens"]["held_out"] == 6000


def test_an_undefined_r2_is_none_in_json():
    assert Scores(3, float("nan"), 0.0, 0.0, 0.0, 5).to_dict()["r2"] is None
