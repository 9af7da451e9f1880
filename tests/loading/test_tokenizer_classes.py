"""Vocabularies of the tokenizer classes of transformers: ids, tokens and special tokens against its own."""

import io
import json
import warnings

import pytest

from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import LoadError
from embgeom.loading.tokenizers.reading import token_table
from tests.helpers.loading import data
from tests.loading.test_tokenizer_files import table_of, write_files

FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
BPE = {
    t: i
    for i, t in enumerate(
        [*FAIRSEQ, "__start__", "__end__", "__unk__", "__null__", "a", "b@@", "c</w>", "é</w>"]
    )
}
BYTES = {t: i for i, t in enumerate([*FAIRSEQ, "[CLS]", "[SEP]", "[UNK]", "[PAD]", "[MASK]", "<|endoftext|>",
                                     "<|startoftext|>", "<|padding|>", "<ent>", "<ent2>", "[MASK2]", "a",
                                     "Ġb", "é</w>"])}  # fmt: skip
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FAIRSEQ, "<sep>", "<cls>", "[QUESTION]", "[EMPTY]"]
WORDS += ["the", "##s", ","]
COUNTED = "và 900\ncủa@@ 899\ncó 898\n"


def theirs(name, folder, **files):
    """The class's own tokenizer of the files, if it can be made here."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    write_files(folder, **files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return getattr(transformers, f"{name}Tokenizer").from_pretrained(folder)
        except (ImportError, AttributeError) as error:
            pytest.skip(f"{name}Tokenizer cannot be made here: {str(error)[:80]}")


def compare(name, folder, settings=(), unnamed=(), **files):
    config = {"tokenizer_class": f"{name}Tokenizer", **dict(settings)}
    table = table_of(folder, tokenizer_config__json=config, **files)
    model = theirs(name, folder)
    expected = {i: model.convert_ids_to_tokens(i) for i in range(len(model))}
    assert {i: t for i, t in expected.items() if i not in table.tokens} == dict(unnamed)
    assert {i: t for i, t in table.tokens.items() if i in expected} == {i: expected[i] for i in table.tokens}
    special = {*model.all_special_ids, *(i for i, t in model.added_tokens_decoder.items() if t.special)}
    assert {i for i in special if i in table.tokens} <= table.special
    return table, model


@pytest.mark.parametrize("name", ["Flaubert", "XLM", "BioGpt", "OpenAIGPT", "Herbert"])
def test_word_ends(tmp_path, name):
    table = table_of(tmp_path, vocab__json=BPE, merges__txt="#version: 0.2\n",
                     tokenizer_config__json={"tokenizer_class": f"{name}Tokenizer"})  # fmt: skip
    assert [table.spell(BPE[t]) for t in ("a", "c</w>", "é</w>")] == [b"a", b"c ", "é ".encode()]
    by_type = {"OpenAIGPT": "openai-gpt"}.get(name, name.lower())
    again = table_of(tmp_path / "b", vocab__json=BPE, merges__txt="", config__json={"model_type": by_type})
    assert again.token_format == table.token_format and again.special == table.special
    compare(name, tmp_path, vocab__json=BPE, merges__txt="#version: 0.2\n")


@pytest.mark.parametrize("name", ["CTRL", "BlenderbotSmall"])
def test_separators(tmp_path, name):
    table, model = compare(name, tmp_path, vocab__json=BPE, merges__txt="#version: 0.2\n")
    assert [table.spell(BPE[t]) for t in ("a", "b@@")] == [b"a ", b"b"]
    text = model.convert_tokens_to_string(["b@@", "a", "a"])
    assert text == b"".join(table.spell(BPE[t]) for t in ("b@@", "a", "a")).decode().strip()


@pytest.mark.parametrize("name", ["GPT2", "Roberta", "Bart", "LED", "Longformer", "Mvp", "Blenderbot",
"Deberta",
                                  "Qwen2", "Whisper", "GPTNeoX", "CodeGen", "LayoutLMv3"])  # fmt: skip
def test_bytes(tmp_path, name):
    table, _ = compare(name, tmp_path, vocab__json=BYTES, merges__txt="#version: 0.2\n")
    assert table.spell(BYTES["Ġb"]) == b" b" and table.spell(BYTES["é</w>"]) == b"\xe9</w>"


def test_bytes_with_word_ends(tmp_path):
    table, _ = compare("CLIP", tmp_path, vocab__json=BYTES, merges__txt="#version: 0.2\n")
    assert table.spell(BYTES["é</w>"]) == b"\xe9 "


@pytest.mark.parametrize(
    "settings",
    [
        {"extra_special_tokens": ["<x>", "<y>"], "image_token": "<img>", "pad_token": "<p>"},
        {"additional_special_tokens": ["<x>", "<y>"], "mask_token": "<m>", "sep_token": "<se>"},
        {"extra_special_tokens": {"q_token": "<x>"}, "eos_token": "<e>"},
    ],
)
@pytest.mark.parametrize("name", ["GPT2", "CTRL"])
def test_special_tokens_that_are_in_no_vocabulary(tmp_path, name, settings):
    table, model = compare(name, tmp_path, settings, vocab__json=BYTES, merges__txt="#version: 0.2\n")
    assert table.size == len(model) > len(BYTES)


@pytest.mark.parametrize("name", ["Phobert", "Bertweet"])
def test_counted_vocabularies(tmp_path, name):
    table, model = compare(name, tmp_path, vocab__txt=COUNTED, bpe__codes="a b 3\n")
    assert [table.tokens[i] for i in range(8)] == [
        "<s>",
        "<pad>",
        "</s>",
        "<unk>",
        "và",
        "của@@",
        "có",
        "<mask>",
    ]
    assert [table.spell(i) for i in range(3, 8)] == [
        None,
        "và ".encode(),
        "của".encode(),
        "có ".encode(),
        None,
    ]
    assert model.convert_tokens_to_ids("và") == 4
    # bpe.codes tells what the file is where the class is not named, as in repositories of model_type roberta.
    assert table_of(tmp_path / "b", vocab__txt=COUNTED, bpe__codes="").tokens == table.tokens


def test_counted_lines_without_a_class_are_refused(tmp_path):
    with pytest.raises(
        LoadError, match=r"vocab\.txt holds a token and its count .*ids begin at 4.*vocabulary="
    ):
        table_of(tmp_path, vocab__txt=COUNTED, config__json={"model_type": "roberta"})
    with pytest.raises(LoadError, match=r"vocab\.txt holds a token and its count"):
        token_table(tmp_path / "vocab.txt")
    with pytest.raises(LoadError, match=r"line 2, 'và 3', is not a new token"):
        table_of(tmp_path / "b", vocab__txt="và 5\nvà 3\n", bpe__codes="")


@pytest.mark.parametrize("name", ["Bert", "DistilBert", "Electra", "MPNet", "Funnel", "Splinter", "LayoutLM",
"Tapas",
                                  "MobileBert", "Lxmert"])  # fmt: skip
def test_word_pieces(tmp_path, name):
    table, _ = compare(name, tmp_path, vocab__txt="\n".join(WORDS) + "\n")
    assert [table.spell(WORDS.index(t)) for t in ("the", "##s", ",")] == [b" the", b"s", b","]


def test_a_vocabulary_of_letters(tmp_path):
    table, _ = compare("Esm", tmp_path, vocab__txt="<cls>\n<pad>\n<eos>\n<unk>\nL\nA\n<mask>\n")
    assert table.spell(4) == b"L"


UNCLEAR = {"a": 0, "bc": 1, "é": 2}


@pytest.mark.parametrize(
    "files",
    [
        {"vocab__json": UNCLEAR, "merges__txt": ""},
        {"vocab__json": {"é</w>": 0, "a": 1}, "merges__txt": ""},
        {"vocab__json": {"the": 0}, "tokenizer_config__json": {"tokenizer_class": "NewTokenizer"}},
        {"vocab__txt": "a\n##b\n", "tokenizer_config__json": {"tokenizer_class": "NewTokenizer"}},
        {"vocab__json": {"的": 0, "一": 1}, "tokenizer_config__json": {"tokenizer_class": "GPT2Tokenizer"}},
        {"vocab__txt": "a\nbc\né\n"},
        {"vocab__txt": "a\n##b\n", "tokenizer_config__json": {"tokenizer_class": "CpmAntTokenizer"}},
    ],
)
def test_what_nothing_tells_is_refused(tmp_path, files):
    with pytest.raises(LoadError, match=r"is the vocabulary of .*[Tt]okenizer.*vocabulary= .*token_format="):
        table_of(tmp_path, **files)


@pytest.mark.parametrize(
    ("tokens", "token_format"),
    [
        (["Ġthe", "a"], TokenFormat(byte_level=True)),
        (["Ġa", "b</w>"], TokenFormat(byte_level=True, word_end="</w>")),
        (["▁the", "é"], TokenFormat(space="▁")),
        (["的</w>", "é"], TokenFormat(word_end="</w>")),
        (["th@@", "的"], TokenFormat(separator="@@")),
    ],
)
@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "NewTokenizerFast"}])
def test_marks_tell_where_no_class_is_known(tmp_path, tokens, token_format, config):
    vocabulary = {t: i for i, t in enumerate(tokens)}
    assert (
        table_of(tmp_path, vocab__json=vocabulary, tokenizer_config__json=config).token_format == token_format
    )


def sentencepiece_model(**options):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    text = data("text", "tinyshakespeare.txt").read_text(encoding="utf-8").splitlines()[:2000]
    out = io.BytesIO()
    options = {"vocab_size": 300, "minloglevel": 2, **options}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(text), model_writer=out, **options)
    return out.getvalue()


T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
}
BYTE_FALLBACK = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 400}


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "file", "options", "unnamed"),
    [
        ("XLMRoberta", "sentencepiece__bpe__model", {}, 0),
        ("LayoutXLM", "sentencepiece__bpe__model", {}, 0),
        ("Camembert", "sentencepiece__bpe__model", {}, 0),
        ("MBart", "sentencepiece__bpe__model", {}, 26),
        ("MBart50", "sentencepiece__bpe__model", {}, 53),
        ("Nllb", "sentencepiece__bpe__model", {}, 1),
        ("SeamlessM4T", "sentencepiece__bpe__model", {}, 0),
        ("Pegasus", "spiece__model", T5, 0),
        ("T5", "spiece__model", T5, 0),
        ("Albert", "spiece__model", ALBERT, 0),
        ("RemBert", "sentencepiece__model", ALBERT, 0),
        ("Llama", "tokenizer__model", BYTE_FALLBACK, 0),
        ("Reformer", "spiece__model", BYTE_FALLBACK, 0),
        ("Siglip", "spiece__model", T5, 0),
    ],
)
def test_sentencepiece_ids(tmp_path, name, file, options, unnamed):
    pytest.importorskip(
        "google.protobuf", reason="protobuf, with which transformers reads them, is not installed"
    )
    model = sentencepiece_model(**options)
    config = {"tokenizer_class": f"{name}Tokenizer"}
    table = table_of(tmp_path, tokenizer_config__json=config, **{file: model})
    own = theirs(name, tmp_path)
    expected = {i: own.convert_ids_to_tokens(i) for i in range(len(own))}
    assert {i: expected[i] for i in table.tokens} == table.tokens and len(expected) - table.size == unnamed
    assert bool(table.notes) == (unnamed > 0 or name == "SeamlessM4T")
    assert {i for i in own.all_special_ids if i in table.tokens} <= table.special
    first = next(i for i, t in table.tokens.items() if t == "▁the")
    assert table.spell(first) == b" the" and own.convert_tokens_to_ids("▁the") == first


@pytest.mark.model
@pytest.mark.parametrize("name", ["M2M100", "Marian", "Speech2Text"])
def test_vocab_json_beside_a_sentencepiece_model(tmp_path, name):
    model = sentencepiece_model()
    pieces = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=model)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(pieces.id_to_piece(i) for i in range(3, 50))]
    languages = sorted(f"__{a}{b}__" for a in "abcdefghij" for b in "abcdefghij")
    settings = {"additional_special_tokens": languages} if name == "M2M100" else {}
    files = {"vocab__json": {t: i for i, t in enumerate(tokens)}, "sentencepiece__bpe__model": model}
    files |= {"source__spm": model, "target__spm": model}
    config = {"tokenizer_class": f"{name}Tokenizer"}
    table = table_of(tmp_path / "a", tokenizer_config__json=config, **files)
    assert [table.tokens[i] for i in range(51)] == tokens and table.spell(tokens.index("▁the")) == b" the"
    if name != "M2M100":
        compare(name, tmp_path / "b", **files)
        return
    table = table_of(tmp_path / "c", tokenizer_config__json=config | settings, **files)
    assert table.tokens[51] == "__aa__" and table.tokens[150] == "__jj__" and 150 in table.special
    assert "rows 51 to 150 are M2M100's languages" in table.notes[0]
    few = {"additional_special_tokens": languages[:9]}
    assert table_of(tmp_path / "d", tokenizer_config__json=config | few, **files).size == 51


def test_two_vocabularies_are_refused(tmp_path):
    with pytest.raises(LoadError, match=r"two vocabularies, vocab\.json .* target_vocab\.json.*vocabulary="):
        table_of(tmp_path, vocab__json={"a": 0}, target_vocab__json={"b": 0}, source__spm="x",
                 tokenizer_config__json={"tokenizer_class": "MarianTokenizer"})  # fmt: skip


def test_the_languages_of_m2m100_are_in_alphabetical_order():
    module = pytest.importorskip("transformers.models.m2m_100.tokenization_m2m_100", reason="no transformers")
    codes = module.FAIRSEQ_LANGUAGE_CODES["m2m100"]
    assert len(codes) == 100 and codes == sorted(codes) and json.dumps(codes)
