"""Embedding matrices of two real models, and what other libraries computed on them.

The files are no part of the project. They are looked for in $EMBGEOM_TEST_DATA, in shared/data of the
checkout and in shared/data beside it; a test that needs them skips, saying so, where they are absent.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("stories260k", "tinystories-656k")


def find(relative):
    """Path of a data file, or skip the test."""
    folders = [ROOT / "shared" / "data", ROOT.parent / "shared" / "data"]
    if "EMBGEOM_TEST_DATA" in os.environ:
        folders.insert(0, Path(os.environ["EMBGEOM_TEST_DATA"]))
    for folder in folders:
        if (folder / relative).exists():
            return folder / relative
    pytest.skip(f"real data are absent: no {relative} in {' or '.join(map(str, folders))}")


def embeddings(model):
    """Return the (n, d) float32 token embeddings, read from the safetensors file without any library.

    A safetensors file is: length of the header (8 bytes, little endian), header (JSON), tensors. Both models
    are tied, and a tied file may hold the matrix under the name of the output layer alone.
    """
    data = find(f"models/{model}/model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = next(n for n in ("model.embed_tokens.weight", "lm_head.weight") if n in header)
    assert header[name]["dtype"] == "F32"
    first, last = header[name]["data_offsets"]
    tensor = np.frombuffer(data[8 + length + first : 8 + length + last], dtype="<f4")
    return tensor.reshape(header[name]["shape"])


def peers(model):
    """Return l2_idx, l2_dist, cos_idx, cos_sim (n, 20) and lle_w_k10 (n, 10) of other libraries."""
    with np.load(find(f"peers/{model}.knn_lle.npz")) as archive:
        return {name: archive[name] for name in archive.files}
