"""What tokens spell: against the tokenizers library, by round trips, and through `Embeddings`."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.token_format import TokenFormat, byte_level_alphabet
from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from embgeom.loading.folder import Folder
from embgeom.loading.tokenizers.reading import read_tokenizer_json, read_tokens
from tests.helpers.loading import added_token, data, matrix, metaspace, tokenizer, words, write_folder


@given(st.binary(max_size=20))
def test_byte_level_round_trip(content):
    letters = {byte: letter for letter, byte in byte_level_alphabet().items()}
    assert len(letters) == 256
    assert TokenFormat(byte_level=True).spell("".join(letters[b] for b in content)) == content


@given(st.text(max_size=20))
def test_text_round_trip(text):
    assert TokenFormat(space="▁").spell(text.replace(" ", "▁")) == text.replace("▁", " ").encode()
    assert TokenFormat().spell(text) == text.encode()


@given(st.integers(0, 255))
def test_byte_tokens(byte):
    token_format = TokenFormat(space="▁", byte_fallback=True)
    assert token_format.spell(f"<0x{byte:02X}>") == bytes([byte]) and token_format.is_byte(f"<0x{byte:02X}>")
    assert not TokenFormat(space="▁").is_byte("<0x41>") and TokenFormat().spell("<0x41>") == b"<0x41>"


@pytest.mark.parametrize(
    ("token", "spelled"),
    [
        ("dog", " dog"),
        ("##gy", "gy"),
        (",", ","),
        ("é", " é"),
        ("中", "中"),
        ("##", "##"),
        ("[unused0]", "[unused0]"),
    ],
)
def test_word_piece(token, spelled):
    assert TokenFormat(continuation="##").spell(token) == spelled.encode()


def test_end_of_word_suffix():
    assert TokenFormat(byte_level=True, word_end="</w>").spell("dog</w>") == b"dog "
    assert TokenFormat(word_end="</w>").spell("do") == b"do"


@pytest.mark.model
@pytest.mark.parametrize("name", ["gpt2", "gpt-neox-20b"])
def test_byte_level_files_spell_what_the_tokenizers_library_decodes(name):
    tokenizers = pytest.importorskip("tokenizers")
    path = data("tokenizers", name, "tokenizer.json")
    table, library = read_tokenizer_json(path), tokenizers.Tokenizer.from_file(str(path))
    assert {token: i for i, token in table.tokens.items()} == library.get_vocab(with_added_tokens=True)
    for i in range(table.size):
        if i not in table.special:
            assert table.spell(i).decode("utf-8", "replace") == library.decode([i], skip_special_tokens=False)


@pytest.mark.model
@pytest.mark.parametrize("name", ["stories260k", "tinystories-656k"])
def test_spellings_of_a_sentence_join_to_the_sentence(name):
    tokenizers = pytest.importorskip("tokenizers")
    path = data("models", name, "tokenizer.json")
    table, library = read_tokenizer_json(path), tokenizers.Tokenizer.from_file(str(path))
    text = 'Once upon a time, Lily said "Hi!" to a big dog. It was £9.\nThe end.'
    ids = [i for i in library.encode(text).ids if i not in table.special]
    spelled = b"".join(table.spell(i) for i in ids).decode()
    # The vocabulary of tinystories has no pound sign: it is read as the unknown token.
    assert spelled.strip() == (text if name == "stories260k" else text.replace("£", ""))


@pytest.mark.model
def test_vocab_and_merges_read_as_the_tokenizer_json_does(tmp_path):
    folder = data("tokenizers", "gpt2")
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).symlink_to(folder / name)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    table, full = read_tokens(Folder(tmp_path)), read_tokenizer_json(folder / "tokenizer.json")
    assert (table.tokens, table.special, table.token_format) == (full.tokens, full.special, full.token_format)


def test_vocab_txt(tmp_path):
    tokens = ["[PAD]", "[UNK]", "the", "##s", "\x85", ","]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    table = read_tokens(Folder(tmp_path))
    assert [table.spell(i) for i in range(table.size)] == [None, None, b" the", b"s", b"\xc2\x85", b","]


def unigram(**extra):
    vocabulary = [["<unk>", 0.0], ["▁a", -1.0], ["b", -2.0]]
    model = {"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": False}
    return {"version": "1.0", "added_tokens": [], "model": model, **extra}


@pytest.mark.parametrize("where", ["decoder", "pre_tokenizer"])
def test_unigram(tmp_path, where):
    path = tmp_path / "tokenizer.json"
    sequence = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace()]}
    path.write_text(json.dumps(unigram(**{where: metaspace() if where == "decoder" else sequence})))
    table = read_tokenizer_json(path)
    assert [table.spell(i) for i in range(3)] == [None, b" a", b"b"]


def test_added_tokens_spell_their_content(tmp_path):
    path = tmp_path / "tokenizer.json"
    flags = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = tokenizer(["Ġthe", "<s>", "Ġx"], decoder={"type": "ByteLevel", **flags})
    content["added_tokens"] = [
        added_token(1, "<s>", special=True),
        added_token(2, "Ġx", special=False),
        added_token(3, "  ", special=False),
    ]
    path.write_text(json.dumps(content))
    table = read_tokenizer_json(path)
    assert [table.spell(i) for i in range(4)] == [b" the", None, b" x", b"  "]


BROKEN = [
    "nonsense",
    "[]",
    "{}",
    '{"model": {"vocab": 3}}',
    '{"model": {"vocab": {}}}',
    '{"model": {"vocab": {"a": "b"}}}',
    '{"model": {"vocab": {"a": -1}}}',
    '{"model": {"vocab": [3]}}',
    '{"model": {"vocab": [[["nested"], 0.0]]}}',
    '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN)
def test_broken_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(LoadError, match=r"tokenizer\.json"):
        read_tokenizer_json(path)


def test_no_tokenizer(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": matrix(4, 2)})
    (folder / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=r"holds no tokenizer.*vocabulary="):
        load(folder)
    assert load(folder, vocabulary=["a", "b", "c", "d"]).tokens == ["a", "b", "c", "d"]


def test_rows_beyond_the_tokenizer_are_counted(tmp_path):
    x = matrix(50, 3)
    x[45:] = 0
    x[7] = x[3]
    loaded = load(write_folder(tmp_path, {"wte.weight": x}, None, tokenizer(words(44), special=2)))
    assert loaded.tokens[44:46] == ["<row 44>", "<row 45>"] and loaded.token_bytes[44] is None
    assert loaded.anomalies == {
        "rows beyond the tokenizer": 6,
        "tokens beyond the rows": 0,
        "special tokens": 2,
        "zero rows": 5,
        "rows equal to an earlier row": 5,
    }
    assert "zero rows: 5" in loaded.summary() and repr(loaded).endswith("input, 50 x 3)")
    described = json.loads(json.dumps(loaded.to_dict()))
    expected = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert described["provenance"]["sha256"] == expected and described["shape"] == [50, 3]


def test_tokens_beyond_the_rows(tmp_path):
    few = write_folder(tmp_path / "a", {"wte.weight": matrix(50, 3)}, None, tokenizer(words(60)))
    assert load(few).anomalies["tokens beyond the rows"] == 10 and len(load(few).tokens) == 50
    many = write_folder(tmp_path / "b", {"wte.weight": matrix(50, 3)}, None, tokenizer(words(90)))
    with pytest.raises(LoadError, match="holds 90 tokens, the matrix 50 rows"):
        load(many)
    special = tokenizer([f"<{i}>" for i in range(40)] + words(50), special=40)
    reordered = tokenizer(words(50))
    reordered["added_tokens"] = [{**t, "id": t["id"] + 50} for t in special["added_tokens"]]
    assert (
        load(write_folder(tmp_path / "c", {"wte.weight": matrix(50, 3)}, None, reordered)).tokens_beyond_rows
        == 40
    )


def test_tokenizer_of_another_model(tmp_path):
    with pytest.raises(LoadError, match="holds 20 tokens, the matrix 50 rows"):
        load(write_folder(tmp_path, {"wte.weight": matrix(50, 3)}, None, tokenizer(words(20))))


def pets(tokens, **options):
    return Embeddings.from_array(np.eye(len(tokens)), tokens, **options)


def test_index_prefers_as_documented():
    prefix = pets(["▁cat", "cat", "▁dog", "og", "42"])
    assert [prefix.row_of(t) for t in ("cat", " cat", "▁cat", "Ġcat")] == [1, 0, 0, 0]
    assert [prefix.row_of(t) for t in ("dog", " dog", "og", "42", 3, np.int64(2), "<row 4>")] == [
        2,
        2,
        3,
        4,
        3,
        2,
        4,
    ]
    suffix = pets(["dog▁", "do", "cat▁"])
    assert [suffix.row_of(t) for t in ("dog", " dog", "▁dog", "do")] == [0, 0, 0, 1]


def test_index_prefers_text_to_byte_and_the_lower_row():
    tokens = [f"<0x{b:02X}>" for b in range(256)] + ["▁b", "a", "Ġb"]
    both = pets(tokens, token_format=TokenFormat(space="▁", byte_fallback=True))
    assert both.row_of("a") == 257 and both.row_of("z") == ord("z")
    assert pets(["▁x", "▁b", "c▁", "▁▁"]).row_of(" c") == 2


@pytest.mark.parametrize("wrong", ["Dogs", 3, -1, "<row 9>", None, 1.5])
def test_index_that_is_not_there(wrong):
    with pytest.raises(InputError, match=r"dogs|rows are 0 to 2|neither a token"):
        pets(["▁dogs", "▁cat", "▁cow"]).row_of(wrong)


@pytest.mark.parametrize(("text", "special", "raw"), [
    ("[PAD] [UNK] [CLS] [SEP] [MASK] [unused0] the ##s", 5, 0),
    ("<unk> <s> </s> <0x00> <0xC0> <0xFF> ▁the ▁s s<s>", 3, 3),
    ("<|endoftext|> <|im_start|> Ġthe | <| |> <sup>", 2, 0),
    ("<pad> <eos> <bos> <mask> ▁the", 4, 0),
])  # fmt: skip
def test_special_and_byte_tokens_are_recognized_by_their_names(text, special, raw):
    tokens = text.split()
    known = pets(tokens)
    assert (known.special.sum(), known.byte_token.sum()) == (special, raw)
    assert all(known.token_bytes[row] is None for row in np.flatnonzero(known.special))
    note = (
        f"{special} special tokens recognized by their names: {' '.join(np.array(tokens)[known.special][:5])}"
    )
    assert known.provenance.notes == (note,)
    # Who names them has the last word, and a word vector's token is a word.
    for options in ({"special": []}, {"token_format": "words"}):
        plain = pets(tokens, **options)
        assert not plain.special.any() and plain.provenance.notes == ()


@pytest.mark.model
def test_from_array_knows_what_the_loader_knows():
    loaded = load(data("models", "stories260k"))
    made = Embeddings.from_array(loaded.matrix, loaded.tokens)
    assert made.special.tolist() == loaded.special.tolist() and made.token_bytes == loaded.token_bytes
    assert made.byte_token.tolist() == loaded.byte_token.tolist()


def test_guessed_format():
    assert pets(["the", "##s"]).token_bytes == [b" the", b"s"]
    assert pets(["the</w>", "a"]).token_bytes == [b"the ", b"a"]
    assert pets(["the", " a"]).token_bytes == [b"the", b" a"]
    assert pets(["<s>", "Ġthe"], special=["<s>"]).token_bytes == [None, b" the"]
    assert pets(["Ġé"]).text(0) == " \\xe9"


@pytest.mark.parametrize(
    ("array", "tokens"),
    [
        (np.eye(2), ["a"]),
        (np.eye(2), ["a", 3]),
        (np.ones(2), ["a", "b"]),
        (np.ones((0, 3)), []),
        (np.eye(2, dtype=complex), ["a", "b"]),
        (np.full((2, 2), 1e300), ["a", "b"]),
    ],
)
def test_from_array_refuses(array, tokens):
    with pytest.raises(InputError, match=r"rows|string|shape|empty|real numbers|row 0, column 0 is 1e\+300"):
        Embeddings.from_array(array, tokens)


def test_from_array_is_zero_copy_and_leaves_the_array_writeable():
    x = matrix(3, 2)
    made = Embeddings.from_array(x, ["a", "b", "c"])
    assert np.shares_memory(made.matrix, x) and x.flags.writeable and not made.matrix.flags.writeable
    assert made.provenance.sha256 is None and Counter(made.zero.tolist()) == {False: 3}


def test_what_is_typed_is_found_as_it_is_spelled():
    model = pets(["the▁", "▁the▁", "the", "\n", "é"])
    for row in range(5):
        assert model.row_of(model.text(row)) == row
    # Tables show a line break as an escape, and that is what a person copies.
    assert model.row_of("\\n") == 3 and model.row_of("\\u00e9") == 4
    assert pets(["dog▁", "▁cat"]).row_of("dog") == 0 and pets(["dog▁", "▁cat"]).row_of("cat") == 1


def test_a_typed_letter_is_no_byte():
    # GPT-2 writes the byte 0xE9 as "é", and the letter é, two bytes in UTF-8, as "Ã©".
    model = pets(["Ġthe", "é", "Ã©"])
    assert (model.row_of("é"), model.row_of("Ã©")) == (2, 2) and model.token_bytes[1] == b"\xe9"
    assert pets(["Ġthe", "é"]).row_of("é") == 1
