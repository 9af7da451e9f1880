"""`embgeom.transfer`: what it returns, how the target is found to be run, and what is refused first."""

from functools import cache
from importlib import import_module

import numpy as np
import pytest

import embgeom
from embgeom import InputError, SteeringVector
from embgeom.emb2emb import score
from embgeom.evaluation import Certificate, TransferOptions, scale_to_kl
from embgeom.examples import moods

pytest.importorskip("transformers", reason="transformers is not installed")
NAMES = "example:small", "example:large"


@cache
def language_model(name):
    return embgeom.steering.load_language_model(name)


@cache
def joy():
    return SteeringVector.train(*language_model("example:small"), moods.pairs()[:20], layers=2)


@cache
def models():
    return tuple(embgeom.load(name, "output") for name in NAMES)


def test_it_is_the_steps_one_after_the_other():
    found = embgeom.transfer(joy(), *NAMES)
    mapping, large = embgeom.Emb2Emb.fit(*models()), language_model("example:large")
    spread = embgeom.steering.state_spread(*large)
    steps = scale_to_kl(*large, mapping.transfer(joy(), state_spread=spread))
    np.testing.assert_array_equal(found.directions[4], steps.directions[4])
    certificate = Certificate.from_vector(found)
    assert certificate.verdict == "yes" and certificate.norms == found.norms
    given = embgeom.transfer(joy(), *models(), mapping=mapping, model=large)
    np.testing.assert_array_equal(given.directions[4], found.directions[4])


def test_a_map_is_read_from_the_cache(tmp_path, monkeypatch):
    fitted, whole = [], score.fit
    monkeypatch.setattr(score, "fit", lambda *pairs, **options: fitted.append(1) or whole(*pairs, **options))
    with embgeom.use_cache(tmp_path) as cached:
        first = embgeom.transfer(joy(), *models(), norm="raw")
        again = embgeom.transfer(joy(), *models(), norm="raw")
        control = embgeom.transfer(joy(), *models(), norm="raw", options=TransferOptions(shuffle=True))
    assert len(fitted) == 2 and cached.all_served == ["Emb2Emb.fit of example:small and example:large"]
    assert again.provenance == first.provenance
    np.testing.assert_array_equal(again.directions[4], first.directions[4])
    assert Certificate.from_vector(control).verdict == "no"


@pytest.mark.parametrize(("arguments", "options", "told"), [
    (NAMES, {"at_kl": 0.1, "norm": "raw"}, "at_kl sets the length, and norm another"),
    (NAMES, {"layers": 9}, "choose layers up to 5, by layers="),
    (NAMES[::-1], {}, "it is a vector of the target, example:small: swap source and target"),
    (NAMES, {"model": lambda: language_model("example:small")}, "run for the length is not that of"),
    (NAMES, {"norm": "foo"}, 'norm = .foo. is unknown: use "states" or "raw"'),
    (NAMES, {"norm": -1}, "norm = -1.0 is not a length"),
    (NAMES, {"norm": np.nan}, "norm = nan is not a length"),
    (NAMES, {"norm": SteeringVector({3: np.ones(192)})}, r"without layer 4 of the target, only \[3\]"),
    (NAMES, {"norm": SteeringVector({4: np.ones(9)})}, "of hidden size 9, and the target has 192"),
    (NAMES, {"at_kl": -1}, "at_kl = -1 must be finite and above 0"),
    (NAMES, {"mode": "foo"}, "mode = 'foo' is unknown"),
    (NAMES, {"mode": "dual", "mapping": "lle"}, "mode 'dual' needs a linear map"),
    (NAMES, {"mapping": "foo"}, "method = 'foo' is unknown"),
    (NAMES, {"options": {}}, "options = {} is not a TransferOptions"),
    ((NAMES[0], lambda: embgeom.Embeddings.from_array(models()[1].matrix, models()[1].tokens)), {},
     "is not from the files of a model"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_fitted(arguments, options, told, monkeypatch):
    monkeypatch.setattr(score, "fit", lambda *_, **__: pytest.fail("a map was fitted"))
    called = [[each() if callable(each) else each for each in arguments]]
    options = {name: each() if callable(each) else each for name, each in options.items()}
    with pytest.raises(embgeom.EmbgeomError, match=told) as found:
        embgeom.transfer(joy(), *called[0], **options)
    assert "--" not in str(found.value)


@pytest.mark.parametrize(("name", "value", "told"), [
    ("seed", -1, "seed = -1 must be at least 0"),
    ("batch_size", 0, "batch_size = 0 must be at least 1"),
    ("texts", "one text", "texts = 'one text' is not a list"),
    ("texts", [], "texts is empty"),
    ("shuffle", 3, "shuffle must be True or False"),
    ("threads", 0, "threads"),
])  # fmt: skip
def test_options_are_checked_where_they_are_given(name, value, told):
    with pytest.raises(InputError, match=told):
        TransferOptions(**{name: value})


def test_models_that_do_not_fit_are_not_loaded(monkeypatch):
    module = import_module("embgeom.evaluation.transfer")
    monkeypatch.setattr(module, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    for names, options in ((NAMES[::-1], {}), (NAMES, {"layers": 9}), (NAMES, {"norm": "foo"})):
        with pytest.raises(InputError):
            embgeom.transfer(joy(), *names, **options)


def test_a_map_that_is_given_is_of_these_models():
    mapping = embgeom.Emb2Emb.fit(*models(), held_out=0)
    with pytest.raises(InputError, match=r"target is .*, but the map is of 'example:large'"):
        embgeom.transfer(joy(), models()[0], models()[0], mapping=mapping)
    with pytest.raises(InputError, match="shuffle is for fitting a map"):
        embgeom.transfer(joy(), *models(), mapping=mapping, options=TransferOptions(shuffle=True))
    norms = embgeom.load_final_norm("example:small"), None
    with pytest.raises(InputError, match="give TransferOptions the same norms="):
        embgeom.transfer(joy(), *models(), mapping=mapping, options=TransferOptions(norms=norms))
