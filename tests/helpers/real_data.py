"""Embedding matrices of real models, and what other libraries computed on some of them.

Two models come with the package. The files of the others are no part of the project: they are looked for in
$EMBGEOM_TEST_DATA, in shared/data of the checkout and in shared/data beside it; a test that needs them skips,
saying so, where they are absent.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from embgeom import examples

ROOT = Path(__file__).resolve().parents[2]
FOREIGN = ("stories260k", "tinystories-656k")
EXAMPLES = ("example:small", "example:large")
MODELS = ("example:small", *FOREIGN)
ITEM_TYPES = {"F32": "<f4", "F16": "<f2"}


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

    A safetensors file is: length of the header (8 bytes, little endian), header (JSON), tensors. A tied file
    may hold the matrix under the name of the output layer alone.
    """
    folder = examples.resolve(model) or find(f"models/{model}")
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = ("transformer.wte.weight", "model.embed_tokens.weight", "lm_head.weight")
    name = next(n for n in names if n in header)
    first, last = header[name]["data_offsets"]
    stored = ITEM_TYPES[header[name]["dtype"]]
    tensor = np.frombuffer(data[8 + length + first : 8 + length + last], dtype=stored)
    return tensor.reshape(header[name]["shape"]).astype(np.float32)


def peers(model):
    """Return l2_idx, l2_dist, cos_idx, cos_sim (n, 20) and lle_w_k10 (n, 10) of other libraries."""
    with np.load(find(f"peers/{model}.knn_lle.npz")) as archive:
        return {name: archive[name] for name in archive.files}
