"""Forecasts from weights alone, against slow and obvious computations and real maps of shuffled tokens."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import embgeom
from embgeom import InputError, SteeringVector
from embgeom.comparison import shared_rows
from embgeom.emb2emb import LowRank, predict_transfer
from embgeom.emb2emb.forecast import LogitLens
from embgeom.emb2emb.pairs import split

WORDS = (([" happy", " glad"], [" sad"]), ([" big"], [" small"]), ([" boy"], [" girl"]))


@cache
def models():
    return tuple(embgeom.load(folder, "output") for folder in embgeom.examples.pair())


@cache
def fitted(method="low_rank", **options):
    return embgeom.Emb2Emb.fit(*models(), method=method, **options)


def vectors():
    small = models()[0]
    return np.stack([SteeringVector.from_words(small, *words, layers=1).directions[1] for words in WORDS])


def plain_spearman(a, b):
    a, b = (np.argsort(np.argsort(x)).astype(float) for x in (a, b))
    return np.corrcoef(a, b)[0, 1]


def without_largest(rows, direction):
    """A direction without the first principal component of the rows."""
    largest = np.linalg.eigh(np.cov(rows.T))[1][:, -1]
    return direction - (direction @ largest) * largest


def test_agreement_is_that_of_held_out_tokens():
    small, large = models()
    mapping, v = fitted(), vectors()
    h = mapping.transfer(v)
    found = LogitLens.prepare(small, large, mapping).predict(v, h, mapping, "dual")
    ids = shared_rows(small, large)
    kept, held = split(len(ids[0]), 0.1, 0)
    for one, *both in zip(found, v, h, strict=True):
        logits = [
            model.matrix[rows[held]] @ without_largest(model.matrix[rows[kept]], direction)
            for model, rows, direction in zip((small, large), ids, both, strict=True)
        ]
        assert one.agreement == pytest.approx(plain_spearman(*logits), abs=1e-3)
        assert one.low < one.agreement < one.high and one.tokens == len(held) and one.held_out
        most = round(0.05 * len(held))
        tops = [set(np.argsort(each)[-most:].tolist()) for each in logits]
        assert one.top_overlap == pytest.approx(len(tops[0] & tops[1]) / most, abs=1.5 / most)


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        ("ridge", "primal"),
        ("ridge", "logits"),
        ("procrustes", "primal"),
        ("low_rank", "primal"),
        ("low_rank", "dual"),
    ],
)
def test_maps_are_told_from_maps_of_shuffled_tokens(method, mode):
    small, large = models()
    v = vectors()
    for shuffle in (False, True):
        mapping = fitted(method, shuffle=shuffle)
        lens = LogitLens.prepare(small, large, mapping)
        found = lens.predict(v, mapping.transfer(v, mode=mode), mapping, mode)
        fails = [each.verdict == "no" for each in found]
        assert all(fails) if shuffle else not any(fails)


@pytest.mark.parametrize("method", ["low_rank", "ridge", "procrustes"])
def test_random_vectors_are_not_told_to_be_kept(method):
    small, large = models()
    mapping, v = fitted(method), np.random.default_rng(1).standard_normal((40, 128))
    found = LogitLens.prepare(small, large, mapping).predict(v, mapping.transfer(v), mapping)
    # Two standard deviations: one of 44 on average, and more than 4 of 40 once in 500 times.
    assert sum(each.verdict == "yes" for each in found) <= 4
    agreements = [each.agreement for each in found]
    assert np.mean(agreements) == pytest.approx(found[0].random_mean, abs=4 * found[0].random_sd / 40**0.5)
    assert 0.6 < np.std(agreements) / found[0].random_sd < 1.5


def test_all_is_kept_of_a_model_itself():
    small = models()[0]
    mapping = embgeom.Emb2Emb.fit(small, small, method="least_squares")
    (one, *_) = LogitLens.prepare(small, small, mapping).predict(v := vectors(), mapping.transfer(v), mapping)
    assert one.agreement > 0.999 and not one.random_z > 2 and one.verdict == "yes"


def test_which_tokens_the_map_was_fitted_on():
    small, large = models()
    everything = embgeom.Emb2Emb.fit(small, large, held_out=0)
    assert LogitLens.prepare(small, large, fitted()).held_out is True
    assert LogitLens.prepare(small, large, everything).held_out is False
    some = tuple(rows[:500] for rows in shared_rows(small, large))
    assert LogitLens.prepare(small, large, fitted(), tokens=some).held_out is None
    assert LogitLens.prepare(small, large).held_out is None


@pytest.mark.parametrize(
    ("method", "mode"),
    [
        ("ridge", "primal"),
        ("ridge", "logits"),
        ("procrustes", "primal"),
        ("low_rank", "dual"),
        ("lle", "primal"),
    ],
)
def test_the_null_is_that_of_maps_of_shuffled_tokens(method, mode):
    small, large = models()
    v, found = vectors(), []
    for seed in range(6):
        mapping = fitted(method, shuffle=True, seed=seed)
        lens = LogitLens.prepare(small, large, mapping)
        found += [each.z for each in lens.predict(v, mapping.transfer(v, mode=mode))]
    # 18 standard normal numbers, of which three at a time share a map: some 10 that are independent.
    assert max(found) < 3 and abs(np.mean(found)) < 1 and 0.4 < np.std(found, ddof=1) < 1.7


def test_length_does_not_count():
    small, large = models()
    mapping, v = fitted(), vectors()[:1]
    h = mapping.transfer(v)
    lens = LogitLens.prepare(small, large, mapping)
    (one,), (other,) = lens.predict(v, h, mapping, "dual"), lens.predict(7 * v, 0.01 * h, mapping, "dual")
    numbers = [{k: v for k, v in each.to_dict().items() if isinstance(v, float)} for each in (one, other)]
    assert len(numbers[0]) == 16 and numbers[0] == pytest.approx(numbers[1], rel=1e-4)


def test_what_a_map_keeps():
    small, large = models()
    mapping = fitted(LowRank(rank=5))
    left, _, _ = np.linalg.svd(mapping.matrix, full_matrices=False)
    v = np.stack([left[:, 0], left[:, 20], left[:, 0] + left[:, 20]])
    found = LogitLens.prepare(small, large, mapping).predict(
        v, mapping.transfer(v, mode="primal"), mapping, "primal"
    )
    assert [each.row_space_share for each in found] == pytest.approx([1, 0, 0.5], abs=1e-6)
    assert found[0].gain > 1 and found[1].gain == pytest.approx(0, abs=1e-9)
    # Nothing is left of the second vector, so there is nothing to compare.
    turned = fitted("procrustes")
    (one,) = LogitLens.prepare(small, large, turned).predict(v[:1], turned.transfer(v[:1]), turned, "primal")
    assert one.row_space_share == pytest.approx(1) and one.gain == pytest.approx(1)


def test_too_few_tokens_or_too_wide_a_null_cannot_tell():
    small, large = models()
    some = tuple(rows[:150] for rows in shared_rows(small, large))
    v = vectors()[:1]
    (one,) = LogitLens.prepare(small, large, tokens=some).predict(v, fitted(shuffle=True).transfer(v))
    # Of 150 tokens the top 5 % are 8.
    assert one.tokens == 150 and one.top_overlap is None and "%" not in one.summary().split("kept")[1][:200]
    one = replace(one, agreement=0.3, null_mean=0.0, null_sd=0.11, low=0.1, high=0.5)
    assert one.verdict == "no" and replace(one, tokens=99).verdict == "unclear"
    assert replace(one, null_sd=0.15).verdict == "unclear"
    # What passes has passed, and a zero vector keeps nothing.
    assert replace(one, tokens=99, agreement=0.4).verdict == "partly"
    assert replace(one, tokens=99, agreement=float("nan")).verdict == "no"


def test_nothing_transferred_is_a_failure():
    small, large = models()
    (one,) = LogitLens.prepare(small, large).predict(vectors()[:1], np.zeros((1, 192)))
    assert np.isnan(one.agreement) and one.verdict == "no" and one.random_mean is None
    assert json.loads(json.dumps(one.to_dict(), allow_nan=False))["agreement"] is None


def test_a_token_itself_is_the_nearest_token():
    small, large = models()
    rows = shared_rows(small, large)[0]
    v = (small.matrix[rows[7]] - small.matrix[rows].mean(axis=0))[None]
    (one,) = LogitLens.prepare(small, large).predict(v, np.ones((1, 192)))
    assert one.nearest_token == pytest.approx(1, abs=1e-5) and one.target_nearest_token < 0.9


def test_of_vectors_each_layer_has_a_forecast():
    small, large = models()
    joy = SteeringVector.from_words(small, *WORDS[0], layers=[1, 3])
    transferred = fitted().transfer(joy, layers={1: 2, 3: 5}, norm="raw")
    found = predict_transfer(joy, transferred, small, large, fitted())
    assert [(each.layer, each.target_layer) for each in found] == [(1, 2), (3, 5)]
    one = replace(found[0], agreement=0.7, low=0.6, random_mean=0.3, random_sd=0.1)
    assert one.verdict == "yes" and one.random_z == pytest.approx(4) and one.z > 3
    assert "yes" in one.summary() and one.to_dict()["verdict"] == "yes"
    assert (
        replace(one, random_mean=0.6).verdict == "partly" and replace(one, null_sd=0.3).verdict == "unclear"
    )
    assert replace(one, random_mean=None).verdict == "partly" and replace(one, low=0.9).verdict == "yes"


def test_the_same_seed_gives_the_same_numbers():
    small, large = models()
    h = fitted().transfer(vectors())
    one, other, third = (
        LogitLens.prepare(small, large, fitted(), seed=seed).predict(vectors(), h) for seed in (0, 0, 1)
    )
    assert one == other != third


def test_errors_say_what_is_wrong():
    small, large = models()
    lens, v = LogitLens.prepare(small, large), vectors()
    with pytest.raises(InputError, match="the models in the order of the transfer"):
        lens.predict(np.ones((1, 192)), v[:1])
    with pytest.raises(InputError, match="2 vectors, but 1 transferred"):
        lens.predict(v[:2], np.ones((1, 192)))
    with pytest.raises(InputError, match="needs its tokens"):
        LogitLens.prepare(small.matrix, large)
    joy = SteeringVector.from_words(small, *WORDS[0], layers=1)
    with pytest.raises(InputError, match=r"what Emb2Emb\.transfer returned"):
        predict_transfer(joy, SteeringVector({0: np.ones(192)}), small, large)
