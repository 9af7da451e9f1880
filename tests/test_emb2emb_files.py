"""Maps in files: what is written is read again, and what does not fit is refused."""

import json

import numpy as np
import pytest
from emb2emb_helpers import related

from embgeom import Emb2Emb, LoadError, OutputError


@pytest.mark.parametrize("method", ["least_squares", "ridge", "procrustes", "low_rank", "lle"])
def test_round_trip(tmp_path, method):
    carrier = Emb2Emb.fit(*related(), method=method)
    carrier.save(tmp_path / "map.safetensors")
    again = Emb2Emb.load(tmp_path / "map.safetensors")
    v = np.random.default_rng(0).standard_normal((3, 12))
    for transport in ("primal", "logits"):
        np.testing.assert_array_equal(
            again.transfer(v, transport=transport), carrier.transfer(v, transport=transport)
        )
    assert (again.scores, again.shuffled, again.method) == (carrier.scores, carrier.shuffled, method)
    assert again.provenance == json.loads(json.dumps(carrier.provenance))


def test_files_that_are_no_maps(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import save_file

    path = tmp_path / "map.safetensors"
    carrier = Emb2Emb.fit(*related(), held_out=0)
    with pytest.raises(OutputError, match="does not end in"):
        carrier.save(tmp_path / "map.npz")
    with pytest.raises(LoadError, match="cannot be read as a map"):
        Emb2Emb.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(LoadError, match="no map of this version"):
        Emb2Emb.load(path)
    carrier.save(path)
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for spoil, why in (
        ({"matrix": arrays["matrix"][:5]}, r"matrix has the shape \(5, 20\)"),
        ({"matrix": np.full_like(arrays["matrix"], np.nan)}, "NaN"),
        ({"matrix": None}, "lacks 'matrix'"),
    ):
        spoiled = {name: array for name, array in (arrays | spoil).items() if array is not None}
        save_file(spoiled, path, metadata)
        with pytest.raises(LoadError, match=why):
            Emb2Emb.load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LoadError, match="cannot be read"):
        Emb2Emb.load(path)
