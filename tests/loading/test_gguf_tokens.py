"""The tokens of GGUF files: each kind of tokenizer, against what its own library says."""

import numpy as np
import pytest

from embgeom import LoadError, examples, load
from embgeom.embeddings.token_format import TokenFormat
from tests.helpers.loading import matrix, words

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from tests.helpers.gguf import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, vocabulary, write_gguf  # noqa: E402


def read(folder, tokens, kind, types=None, pre=None, **ids):
    keys = vocabulary(tokens, kind, types, **ids) | ({"tokenizer.ggml.pre": pre} if pre else {})
    return load(write_gguf(folder / "m.gguf", {"token_embd.weight": matrix(len(tokens), 32)}, "llama", keys))


def test_byte_level(tmp_path):
    tokens = ["<|end|>", "Ġthe", "é", "Ã©", "<tool> é", "[PAD5]", "[PAD7]"]
    types = [CONTROL, NORMAL, NORMAL, NORMAL, USER_DEFINED, NORMAL, UNUSED]
    found = read(tmp_path, tokens, "gpt2", types)
    # Text that was added is spelled as it is; a single "é" in a byte-level vocabulary is the byte E9.
    spelled = [None, b" the", b"\xe9", "é".encode(), "<tool> é".encode(), b"[PAD5]", None]
    assert found.token_bytes == spelled
    assert found.special.tolist() == [True] + 6 * [False]
    assert found.has_token.tolist() == 6 * [True] + [False] and found.tokens[6] == "<row 6>"


def test_sentencepiece(tmp_path):
    tokens = ["<unk>", "<s>", "</s>", "<0x0A>", "▁the", "a▁b", "  ", "▁▁", "<unused0>"]
    types = [UNKNOWN, CONTROL, CONTROL, BYTE, NORMAL, NORMAL, USER_DEFINED, USER_DEFINED, UNUSED]
    found = read(tmp_path, tokens, "llama", types)
    assert found.token_bytes == [None, None, None, b"\n", b" the", b"a b", b"  ", b"  ", None]
    assert found.byte_token.tolist() == 3 * [False] + [True] + 5 * [False]
    assert found.special.tolist() == 3 * [True] + 5 * [False] + [True]
    # A T5's is of the same kind, and has no bytes.
    found = read(tmp_path, ["<pad>", "▁the", "<0x0A>"], "t5", [CONTROL, NORMAL, NORMAL])
    assert found.token_bytes == [None, b" the", b"<0x0A>"]


@pytest.mark.parametrize(
    ("kind", "pre"), [("gemma4", None), ("gpt2", "gemma4"), ("gpt2", "sarvam-moe"), ("gpt2", None)]
)
def test_a_bpe_that_marks_spaces_as_sentencepiece_does(kind, pre, tmp_path):
    found = read(tmp_path, ["<bos>", "▁the", "<0x0A>", "é"], kind, [CONTROL, NORMAL, BYTE, NORMAL], pre)
    assert found.token_bytes == [None, b" the", b"\n", "é".encode()]


def test_word_pieces_are_as_in_the_vocabulary(tmp_path):
    # The converter: "##" is taken away, and what begins a word gets "▁"; control tokens stay.
    original = ["[PAD]", "[UNK]", "the", "##ing", "▁", "##▁", "##", "!", "犬", "[unused0]"]
    types = [CONTROL, CONTROL] + 8 * [NORMAL]
    converted = [
        t if kind == CONTROL else t[2:] if t.startswith("##") else "▁" + t
        for t, kind in zip(original, types, strict=True)
    ]
    found = read(tmp_path, converted, "bert", types, unknown=1)
    assert found.tokens == original
    expected = [TokenFormat(continuation="##").spell(t) for t in original]
    assert found.token_bytes[2:] == expected[2:] and found.token_bytes[:2] == [None, None]


def test_special_word_pieces_of_files_without_types(tmp_path):
    found = read(tmp_path, ["▁[PAD]", "▁[MASK]", "▁the", "ing"], "bert")
    assert found.tokens == ["[PAD]", "[MASK]", "the", "##ing"]
    assert found.special.tolist() == [True, True, False, False]


def test_rwkv_writes_bytes_as_python_does(tmp_path):
    meant = [b" the", b"\n\n", b"\xff", b"it's", b'"', b"\\x41", "é".encode(), b"\x00", b"a\tb\r"]
    tokens = ["<s>", *(repr(token)[2:-1] for token in meant), "[PAD10]"]
    types = [CONTROL, *[NORMAL] * len(meant), UNUSED]
    # The converter names the end of a turn "\n\n", and that is text.
    found = read(tmp_path, tokens, "rwkv", types, bos=0, eos=0, eot=2)
    assert found.token_bytes == [None, *meant, None]
    assert found.special.sum() == 1 and not found.has_token[10]


def test_plamo(tmp_path):
    found = read(tmp_path, ["<|plamo:unk|>", " the", "<0x0A>"], "plamo2", [UNKNOWN, NORMAL, BYTE])
    assert found.token_bytes == [None, b" the", b"\n"]


def test_ids_that_the_metadata_name(tmp_path):
    found = read(tmp_path, ["!", "<s>", "</s>", "<unk>", "Ġa"], "gpt2", bos=1, eos=2, unknown=3, padding=0)
    # Without types the ids decide; a padding token that is an ordinary token stays one.
    assert found.special.tolist() == [False, True, True, True, False]
    found = read(tmp_path, ["!", "<p>"], "gpt2", [NORMAL, USER_DEFINED], padding=1, eos=999)
    assert found.special.tolist() == [False, True]
    types = [NORMAL, USER_DEFINED, USER_DEFINED, USER_DEFINED]
    found = read(tmp_path, ["!", "<e>", "<f>", "<t>"], "gpt2", types, eom=0, eot=1, fim_pre=2)
    assert found.special.tolist() == [False, True, True, False]


@pytest.mark.parametrize("kind", ["none", "no_vocab", None])
def test_a_file_without_tokens(kind, tmp_path):
    keys = {"tokenizer.ggml.model": kind} if kind else {}
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": matrix(40, 32)}, "llama", keys)
    with pytest.raises(LoadError, match=r"holds no tokens, and beside it.*pass vocabulary="):
        load(path)
    assert load(path, vocabulary=words(40)).tokens == words(40)
    for file in examples.pair().small.glob("*tokenizer*.json"):
        (tmp_path / file.name).symlink_to(file)
    with pytest.raises(LoadError, match="does not fit"):
        load(path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.model": "klingon"}, "of the kind 'klingon'"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "40 tokens, but the types of 2"),
        ({"tokenizer.ggml.token_type": ["a"] * 40}, "not an array of integers"),
        ({"tokenizer.ggml.tokens": [1, 2]}, "not an array of strings"),
        ({"tokenizer.ggml.eos_token_id": "</s>"}, "not an integer"),
    ],
)
def test_tokens_that_do_not_fit(keys, message, tmp_path):
    keys = vocabulary(words(40)) | keys
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": matrix(40, 32)}, "llama", keys)
    with pytest.raises(LoadError, match=message):
        load(path)


def test_a_model_of_transformers_written_as_gguf_keeps_its_tokens(tmp_path):
    # The types are those that llama.cpp's converter gives.
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = examples.pair().small
    own = load(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    added = tokenizer.added_tokens_decoder
    tokens = tokenizer.convert_ids_to_tokens(range(len(own.matrix)))
    types = [
        (CONTROL if added[row].special else USER_DEFINED) if row in added else NORMAL
        for row in range(len(tokens))
    ]
    keys = vocabulary(tokens, "gpt2", types)
    found = load(write_gguf(tmp_path / "m.gguf", {"token_embd.weight": own.matrix}, "gpt2", keys))
    assert found.tokens == own.tokens and found.token_bytes == own.token_bytes
    np.testing.assert_array_equal(found.special, own.special)
    np.testing.assert_array_equal(found.matrix, own.matrix)
