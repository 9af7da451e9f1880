"""What a fit takes: options by method, and arguments that do not fit."""

import numpy as np
import pytest
from emb2emb_helpers import fit, related

from embgeom import Emb2Emb, FinalNorm, InputError


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "magic"}, "'magic' is unknown"),
        ({"held_out": 1.5}, "held_out = 1.5"),
        ({"ridge": -1}, "ridge = -1"),
        ({"rank": 0, "method": "low_rank"}, "rank = 0"),
        ({"weights": [1, 2]}, "one number for each of the 400 pairs"),
        ({"weights": -np.ones(400)}, "not negative"),
        ({"weights": ["a"] * 400}, "no numbers"),
        ({"method": "lle", "reg": 0}, "reg = 0"),
        ({"method": "lle", "ridge": 0.1}, r"ridge = 0\.1 .* 'lle' does not use it.*'ridge' or 'low_rank'"),
        ({"method": "least_squares", "ridge": 0.1}, "ridge = 0.1 .* 'least_squares' does not use"),
        ({"method": "procrustes", "ridge": 0.1}, "ridge = 0.1 .* 'procrustes' does not use"),
        ({"method": "ridge", "rank": 3}, "rank = 3 .* 'ridge' does not use it.*'low_rank'"),
        ({"k": 20}, "k = 20 .* 'low_rank' does not use it.*'lle'"),
        ({"method": "ridge", "reg": 1e-3}, "reg = 0.001 .* 'ridge' does not use it.*'lle'"),
        ({"method": "ridge", "scaled": False}, "scaled = False .* does not use it.*'procrustes'"),
        ({"method": "lle", "weights": np.ones(400)}, "no meaning"),
        ({"method": "lle", "k": 1000}, "k = 1000"),
        ({"tokens": ([0, 1, 2, 999], [0, 1, 2, 3])}, "999"),
        ({"tokens": ([0, 1, 2, 3], [0, 1, 2])}, "the same token"),
        ({"tokens": ([0, 1], [0, 1])}, "2 paired tokens"),
        ({"source_norm": FinalNorm.of(np.ones(3), "rms_norm")}, "3 weights"),
    ],
)
def test_arguments_that_do_not_fit(change, why):
    with pytest.raises(InputError, match=why):
        Emb2Emb.fit(*related(), **change)


@pytest.mark.parametrize(
    ("method", "used"),
    [
        ("least_squares", {}),
        ("ridge", {}),
        ("low_rank", {}),
        ("procrustes", {"scaled": True}),
        ("lle", {"k": 20, "reg": 1e-3}),
    ],
)
def test_what_a_method_does_not_use_is_none_in_the_provenance(method, used):
    options = fit(*related(), method).provenance["options"]
    assert {name: options[name] for name in ("scaled", "k", "reg") if options[name] is not None} == used
    assert options["ridge"] is options["rank"] is None
