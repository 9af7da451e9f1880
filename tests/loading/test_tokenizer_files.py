"""Tokenizer files of every kind: special tokens under all their names, tables of ranks, SentencePiece "
"models."""

import base64
import io
import json

import pytest

from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from embgeom.loading.folder import Folder
from embgeom.loading.tokenizers.reading import read_tokenizer_json, read_tokens, token_table
from tests.helpers.loading import data, matrix, tokenizer, write_folder, write_safetensors

GPT2 = {token: i for i, token in enumerate(["a", "b", "Ġc", "ab", "d", "e", "f"])}


def write_files(folder, **files):
    """Write files whose names have "__" for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def table_of(folder, **files):
    return read_tokens(Folder(write_files(folder, **files)))


def added(content, special=True):
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    return {"content": content, "special": special, **flags}


NAMED = [
    {"eos_token": "<x>"},
    {"pad_token": {"content": "<x>", "__type": "AddedToken"}},
    {"image_token": "<x>"},
    {"boi_token": added("<x>")},
    {"additional_special_tokens": ["<x>"]},
    {"additional_special_tokens": [added("<x>")]},
    {"extra_special_tokens": ["<x>"]},
    {"extra_special_tokens": {"start": "<x>"}},
    {"extra_special_tokens": {"start": added("<x>")}},
    {"model_specific_special_tokens": {"image_token": "<x>"}},
    {"added_tokens_decoder": {"7": added("<x>")}},
]


@pytest.mark.parametrize("named", NAMED, ids=lambda named: str(next(iter(named.items())))[:50])
@pytest.mark.parametrize(
    "where", ["added_tokens.json", "nowhere", "tokenizer.json", "special_tokens_map.json"]
)
def test_a_special_token_under_each_of_its_names(tmp_path, named, where):
    files = {"vocab__json": GPT2, "merges__txt": "#version: 0.2\na b\n", "tokenizer_config__json": named}
    if where == "added_tokens.json":
        files["added_tokens__json"] = {"<x>": 7}
    if where == "special_tokens_map.json" and "added_tokens_decoder" not in named:
        files["special_tokens_map__json"] = files.pop("tokenizer_config__json")
    if where == "tokenizer.json":
        files["tokenizer__json"] = tokenizer(list(GPT2), decoder={"type": "ByteLevel",
        "add_prefix_space": False,
                                                                 "trim_offsets": True,
                                                                 "use_regex": True})  # fmt: skip
    table = table_of(tmp_path, **files)
    assert table.tokens[7] == "<x>" and table.special == {7} and table.spell(7) is None
    assert [table.spell(i) for i in range(3)] == [b"a", b"b", b" c"]


def test_keys_that_name_no_token(tmp_path):
    config = {
        "add_bos_token": True,
        "bos_token": None,
        "image_token_id": 3,
        "extra_special_tokens": [3, None, ""],
    }
    table = table_of(tmp_path, vocab__json=GPT2, merges__txt="", tokenizer_config__json=config)
    assert table.size == 7 and not table.special


def test_added_tokens_that_are_text_and_ids_that_jump(tmp_path):
    decoder = {"9": added("<y>", special=False), "11": added("<x>")}
    files = {
        "vocab__json": GPT2,
        "merges__txt": "",
        "tokenizer_config__json": {"added_tokens_decoder": decoder},
    }
    folder = write_files(tmp_path, **files)
    write_safetensors(folder / "model.safetensors", {"model.embed_tokens.weight": matrix(14, 8)})
    made = load(folder)
    assert made.tokens[7:] == ["<row 7>", "<row 8>", "<y>", "<row 10>", "<x>", "<row 12>", "<row 13>"]
    assert made.token_bytes[9] == b"<y>" and made.token_bytes[11] is None
    assert made.has_token.tolist() == [True] * 7 + [False, False, True, False, True, False, False]
    assert made.special.tolist() == [i == 11 for i in range(14)]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config__json": {"added_tokens_decoder": {"x": added("<x>")}}},
        {"tokenizer_config__json": {"added_tokens_decoder": {"-1": added("<x>")}}},
        {"tokenizer_config__json": {"added_tokens_decoder": {"9" * 30: added("<x>")}}},
        {"tokenizer_config__json": {"added_tokens_decoder": {"7": 3}}},
        {"tokenizer_config__json": '{"added_tokens_decoder": {"7": {"content": "\\ud800"}}}'},
        {"added_tokens__json": {"<x>": "7"}},
        {"added_tokens__json": {"<x>": 1 << 40}},
        {"tokenizer_config__json": "[]"},
        {"vocab__json": '{"a": 0, "\\udc00": 1}'},
        {"vocab__json": '{"a": 0, "b": 1.5}'},
        {"vocab__json": "{}"},
    ],
)
def test_broken_files(tmp_path, files):
    with pytest.raises(LoadError, match=r"fetch (it|the file) again|surrogate"):
        table_of(tmp_path, **{"vocab__json": GPT2, "merges__txt": "", **files})


def test_what_the_tokenizers_library_panics_at(tmp_path):
    path = tmp_path / "tokenizer.json"
    merging = tokenizer(["a", "b", "ab"], continuing_subword_prefix="x" * 20, merges=["a b"])
    path.write_text(json.dumps(merging))
    with pytest.raises(LoadError, match=r"tokenizer\.json is not a tokenizer that"):
        read_tokenizer_json(path)
    path.write_text(json.dumps(tokenizer(["a", "\ud800"])))
    with pytest.raises(LoadError, match=r"tokenizer\.json is not a tokenizer that"):
        read_tokenizer_json(path)


BYTES = [bytes([i]) for i in range(256)] + [b" the", b"\xe4\xb8", "中".encode()]
RANKS = "".join(f"{base64.b64encode(token).decode()} {i}\n" for i, token in enumerate(BYTES))


@pytest.mark.parametrize("name", ["tokenizer__model", "tiktoken__model", "qwen__tiktoken", "other__tiktoken"])
def test_tiktoken(tmp_path, name):
    table = table_of(tmp_path / "a", **{name: RANKS})
    assert [table.spell(i) for i in range(259)] == BYTES and "Ġthe" in table.tokens.values()
    assert table.size == 259 and "none of the special tokens after" in table.notes[0]
    decoder = {"259": added("<|begin|>"), "262": added("<|end|>")}
    table = table_of(
        tmp_path / "b", tokenizer_config__json={"added_tokens_decoder": decoder}, **{name: RANKS}
    )
    assert table.special == {259, 262} and table.tokens[262] == "<|end|>" and table.notes == ()
    shuffled = "".join(reversed(RANKS.splitlines(keepends=True)))
    assert (
        table_of(tmp_path / "c", **{name: shuffled}).tokens
        == table_of(tmp_path / "a", **{name: RANKS}).tokens
    )


@pytest.mark.parametrize(
    ("ranks", "config", "special"),
    [
        (
            151_643,
            {"model_type": "qwen"},
            {151_643: "<|endoftext|>", 151_645: "<|im_end|>", 151_850: "<|extra_204|>"},
        ),
        (128_000, {"model_type": "llama"}, {128_000: "<|begin_of_text|>", 128_009: "<|eot_id|>"}),
        (128_000, {"model_type": "dbrx"}, {}),
    ],
)
def test_special_tokens_behind_the_ranks_of_known_models(tmp_path, ranks, config, special):
    lines = "".join(f"{base64.b64encode(i.to_bytes(3, 'big')).decode()} {i}\n" for i in range(ranks))
    table = table_of(tmp_path, tokenizer__model=lines, config__json=config)
    assert {row: table.tokens.get(row) for row in special} == special and set(special) <= table.special
    assert table.spell(70_000) == (70_000).to_bytes(3, "big") and (special or table.size == ranks)


@pytest.mark.parametrize(
    "content",
    [
        RANKS + "!!!! 300\n",
        RANKS + "YWE=\n",
        RANKS + "YWE= 258\n",
        RANKS + "AA== 300\n",
        RANKS + "YWE 300\n",
        RANKS + "YWE= -3\n",
        RANKS + "YWE= " + "9" * 40 + "\n",
    ],
)
def test_broken_tiktoken(tmp_path, content):
    with pytest.raises(LoadError, match=r"tokenizer\.model.*fetch it again"):
        table_of(tmp_path, tokenizer__model=content)


def tekken(special=None, count=20, size=270, **config):
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
        for i, t in enumerate(BYTES)
    ]
    sizes = {"default_vocab_size": size, "default_num_special_tokens": count, **config}
    return {"config": sizes, "vocab": vocab, **({} if special is None else {"special_tokens": special})}


def test_tekken(tmp_path):
    table = table_of(tmp_path / "a", tekken__json=tekken())
    # The last ranks are beyond the vocabulary's size, and are cut off.
    assert table.size == 270 and [table.spell(20 + i) for i in range(250)] == BYTES[:250]
    assert (
        table.special == set(range(20))
        and table.tokens[11] == "<pad>"
        and table.tokens[19] == "[TOOL_CONTENT]"
    )
    own = [
        {"rank": 0, "token_str": "<unk>", "is_control": True},
        {"rank": 2, "token_str": "</s>", "is_control": True},
    ]
    table = table_of(tmp_path / "b", tekken__json=tekken(own, count=5, size=264))
    assert [table.tokens[i] for i in range(6)] == [
        "<unk>",
        "<SPECIAL_1>",
        "</s>",
        "<SPECIAL_3>",
        "<SPECIAL_4>",
        "Ā",
    ]
    assert table.spell(5 + 258) == "中".encode() and table.spell(0) is None


@pytest.mark.parametrize(
    "content",
    [
        {},
        tekken(size=280),
        tekken(size=20),
        tekken(default_vocab_size="x"),
        tekken([{"rank": 25, "token_str": "<x>"}]),
        tekken([{"rank": 1, "token_str": "<x>"}, {"rank": 1, "token_str": "<y>"}]),
        tekken([3]),
        {**tekken(), "vocab": [{"rank": 1, "token_bytes": "AA=="}] * 259},
        {**tekken(), "vocab": [{"rank": i, "token_bytes": "AA=="} for i in range(259)]},
        {**tekken(), "vocab": [{"rank": i, "token_bytes": "é"} for i in range(259)]},
    ],
)
def test_broken_tekken(tmp_path, content):
    with pytest.raises(LoadError, match=r"tekken\.json.*fetch it again"):
        table_of(tmp_path, tekken__json=content)


def train_sentencepiece(**options):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    text = data("text", "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines()[:2000]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=out, minloglevel=2, **{"vocab_size": 300, **options}
    )
    return out.getvalue()


@pytest.mark.model
def test_sentencepiece(tmp_path):
    model = train_sentencepiece(
        model_type="bpe", byte_fallback=True, vocab_size=400, user_defined_symbols=["<t>"]
    )
    table = table_of(
        tmp_path, tokenizer__model=model, tokenizer_config__json={"tokenizer_class": "LlamaTokenizer"}
    )
    assert table.size == 400 and table.special == {0, 1, 2} and table.notes == ()
    rows = {token: row for row, token in table.tokens.items()}
    assert table.spell(rows["<0x0A>"]) == b"\n" and table.spell(rows["<t>"]) == b"<t>"
    assert b" the" in {table.spell(row) for row in table.tokens}


@pytest.mark.model
def test_sentencepiece_of_an_unknown_class(tmp_path):
    model = train_sentencepiece()
    config = {"tokenizer_class": "NewTokenizer"}
    with pytest.raises(LoadError, match=r"model of NewTokenizer, whose ids may be shifted.*vocabulary="):
        table_of(tmp_path / "a", sentencepiece__bpe__model=model, tokenizer_config__json=config)
    table = table_of(tmp_path / "b", tokenizer__model=model, tokenizer_config__json=config)
    assert "how NewTokenizer numbers its tokens is not known" in table.notes[0]


def test_sentencepiece_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(
        InputError, match=r'spiece\.model, a SentencePiece model, needs .*"embgeom\[sentencepiece\]"'
    ):
        table_of(tmp_path, spiece__model=b"\n\x0f\n\x05<unk>\x15\0\0\0\0\x18\x02")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"x", "text that begins 'x'"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!doctype html>", "HTML"),
        (b'{"a": 1}', "JSON"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xff\xfe\x00", "a binary file"),
    ],
)
@pytest.mark.parametrize(
    "name", ["spiece__model", "tokenizer__model", "sentencepiece__bpe__model", "qwen__tiktoken"]
)
def test_files_that_are_not_what_their_name_says(tmp_path, name, content, what):
    with pytest.raises(
        LoadError, match=f"is not a (SentencePiece model|tiktoken table).*, but .*{what}.*vocabulary="
    ):
        table_of(tmp_path, **{name: content})


@pytest.mark.parametrize(
    "content", [b"\n\x0f\n\x05<unk>", b"\n\xff\xff\xff\xff\x0fxx", b"\n\x03abc\n\x03abc"]
)
def test_broken_sentencepiece(tmp_path, content):
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    with pytest.raises(LoadError, match=r"tokenizer\.model .*fetch it again"):
        table_of(tmp_path, tokenizer__model=content)


def test_a_tokenizer_that_is_not_read_is_named(tmp_path):
    with pytest.raises(LoadError, match=r"no tokenizer for FSMTTokenizer .* but vocab-src\.json \(FSMT's"):
        config = {"tokenizer_class": "FSMTTokenizer"}
        read_tokens(
            Folder(write_files(tmp_path, **{"vocab-src__json": {"a": 0}, "tokenizer_config__json": config}))
        )


def test_a_folder_of_ranks_loads(tmp_path):
    folder = write_folder(tmp_path, {"model.embed_tokens.weight": matrix(265, 8)})
    (folder / "tokenizer.json").unlink()
    made = load(write_files(folder, tokenizer__model=RANKS))
    assert made.token_bytes[256] == b" the" and made.anomalies["rows beyond the tokenizer"] == 6
    assert "tokenizer.model holds 259 ranks and none of the special tokens" in made.provenance.notes[0]


@pytest.mark.model
def test_tables_passed_by_their_own_path(tmp_path):
    write_files(tmp_path, tokenizer__model=RANKS, tekken__json=tekken(), spiece__model=train_sentencepiece())
    for name in ("tokenizer.model", "tekken.json", "spiece.model"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        path = (tmp_path / name).rename(tmp_path / "alone" / name)
        assert token_table(path) == read_tokens(Folder(path.parent))
        path.unlink()
