"""Files with flipped bits, cut ends, huge counts and swapped parts are read or refused, and nothing else.

EMBGEOM_MUTATIONS says how many of each kind of file; the seed is fixed.
"""

import os
import random
import resource
import time
import warnings

import numpy as np
import pytest
from loading_helpers import matrix, words

from embgeom import SteeringVector, load, load_final_norm
from embgeom.errors import EmbgeomError

torch = pytest.importorskip("torch", reason="torch is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from gguf_helpers import vocabulary, write_gguf  # noqa: E402

COUNT = int(os.environ.get("EMBGEOM_MUTATIONS", "200"))
COUNTS = (2**64 - 1, 2**63, 2**40, 2**31, 2**20, 0)
SECONDS, BYTES = 5, 500e6
E = matrix(40, 32)


def gguf_model(stored):
    def write(path):
        tensors = {"token_embd.weight": E, "output.weight": E[::-1], "output_norm.weight": E[0]}
        keys = vocabulary(words(40), types=[1] * 40, bos=1) | {
            "llama.block_count": 2,
            "general.alignment": 32,
        }
        write_gguf(path, tensors, "llama", keys, stored={"token_embd.weight": stored})

    return write


def read_model(path):
    return load(path), load(path, "output"), load_final_norm(path)


def vector(path):
    SteeringVector({1: E[0], 3: E[1]}, "toy", {"pairs": 3}).save(path)


def arrays(path):
    np.savez_compressed(path, **{"1": E[0], "layer_3": E[1], "scale": 2.0})


FILES = {
    "quantised.gguf": (gguf_model("Q8_0"), read_model),
    "half.gguf": (gguf_model("F16"), read_model),
    "vector.gguf": (vector, SteeringVector.load),
    "vector.safetensors": (vector, SteeringVector.load),
    "vector.pt": (vector, SteeringVector.load),
    "vector.npz": (arrays, SteeringVector.load),
    "vector.npy": (lambda path: np.save(path, E[0]), lambda path: SteeringVector.load(path, block=1)),
}


def mutated(content, random):
    content = bytearray(content)
    kind = random.random()
    if kind < 0.15:
        return content[: random.randrange(len(content))]
    if kind < 0.3:
        at = random.randrange(len(content))
        content[at : at + 8] = random.choice(COUNTS).to_bytes(8, "little")
    elif kind < 0.4:
        a, b, length = random.randrange(len(content)), random.randrange(len(content)), random.randrange(1, 64)
        content[a : a + length], content[b : b + length] = content[b : b + length], content[a : a + length]
    else:
        for _ in range(random.randrange(1, 6)):
            # Headers are where a flipped bit does most.
            content[random.randrange(min(len(content), random.choice((64, 400, len(content)))))] ^= (
                1 << random.randrange(8)
            )
    return content


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_is_read_or_refused(name, tmp_path):
    write, read = FILES[name]
    write(tmp_path / name)
    content, chance = (tmp_path / name).read_bytes(), random.Random(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(COUNT):
        (tmp_path / name).write_bytes(mutated(content, chance))
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read(tmp_path / name)
            except EmbgeomError as error:
                refused += 1
                assert "\n" not in str(error)
        assert time.monotonic() - started < SECONDS
    assert refused > COUNT // 4
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < BYTES
