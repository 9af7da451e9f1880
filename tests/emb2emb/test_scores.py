"""Scores on held-out tokens, against what they say written out."""

import numpy as np
import pytest

from embgeom import Emb2Emb, EmbgeomWarning
from embgeom.emb2emb import Scores
from embgeom.emb2emb.pairs import PreparedRows
from embgeom.emb2emb.score import score
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
    assert Scores(3, float("nan"), *[0.0] * 3, 5, *[0.0] * 4).to_dict()["r2"] is None


@pytest.mark.parametrize("texts", [None, 40])
def test_half_widths_are_those_of_scores_on_other_tokens(texts):
    """Of 240 tokens, or of 40 texts of six positions each, which err together."""
    rng = np.random.default_rng(3)
    tokens, matrix = 24_000, rng.standard_normal((5, 8))
    source = rng.standard_normal((tokens, 5))
    # Errors are larger for some tokens than for others.
    noise = rng.standard_normal((tokens, 8)) * rng.lognormal(0, 0.5, (tokens, 1))
    if texts:
        noise = noise / 2 + np.repeat(rng.standard_normal((tokens // 6, 8)), 6, axis=0)
    target = (source @ matrix + noise).astype(np.float32)
    source = source.astype(np.float32)
    others = PreparedRows(target, np.arange(500))
    of_text = np.arange(tokens) // 6
    found = []
    for _ in range(300):
        if texts:
            rows = np.flatnonzero(np.isin(of_text, rng.choice(tokens // 6, texts, replace=False)))
        else:
            rows = rng.choice(tokens, 240, replace=False)
        sides = PreparedRows(source, rows), PreparedRows(target, rows)
        groups = of_text[rows] if texts else None
        found.append(
            score(lambda x: x @ matrix, *sides, others, target.mean(axis=0), groups=groups, threads=1)
        )
    for name in ("r2", "cosine", "retrieval_at_1", "retrieval_at_10"):
        values, half_widths = (
            np.array([getattr(each, n) for each in found]) for n in (name, f"{name}_half_width")
        )
        # The standard deviation of 300 values has an error of 4 %, and errors of few texts vary.
        assert 0.85 < np.mean(half_widths) / (1.96 * values.std(ddof=1)) < 1.15, name
    assert (found[0].tokens, found[0].candidates) == (240, 740)


def test_half_widths_of_all_none_and_one():
    source, target = related(200)
    exact = Emb2Emb.fit(source, target, method="ridge", held_out=0.25).scores
    assert exact.retrieval_at_1 == 1.0
    # Wilson's interval of 50 of 50 reaches down to 0.929.
    assert exact.retrieval_at_1_half_width == pytest.approx((1 - 1 / (1 + 1.96**2 / 50)) / 2, rel=1e-3)
    assert exact.cells()[2] == "1.000 ± 0.036"
    rows = PreparedRows(source, np.arange(6)), PreparedRows(target, np.arange(6))
    one_text = score(
        lambda x: np.ones((len(x), target.shape[1])),
        *rows,
        rows[1],
        target.mean(axis=0),
        groups=np.zeros(6),
        threads=1,
    )
    assert all(np.isnan(value) for name, value in vars(one_text).items() if name.endswith("half_width"))
    assert one_text.cells()[2].endswith("(no interval)")
