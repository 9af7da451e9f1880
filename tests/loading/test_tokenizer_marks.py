"""Tokenizer files that contradict each other, and marks that a tokenizer's class does not use."""

import pytest

from embgeom.errors import LoadError
from tests.helpers.loading import tokenizer
from tests.loading.test_tokenizer_files import GPT2, added, table_of


def test_an_added_token_that_contradicts_the_vocabulary_is_told(tmp_path):
    decoder = {"3": added("zz"), "7": added("<x>")}
    table = table_of(
        tmp_path,
        vocab__json=GPT2,
        tokenizer_config__json={"added_tokens_decoder": decoder, "eos_token": "zz"},
    )
    assert table.tokens[3] == "zz" and table.tokens[7] == "<x>"
    assert table.notes == (
        "row 3 is 'ab' in vocab.json, and 'zz' was added under that id: the latter is taken",
    )


def test_a_token_that_is_there_is_not_added_again(tmp_path):
    table = table_of(tmp_path, vocab__json=GPT2, added_tokens__json={"ab": 7, "<q>": 8})
    assert 7 not in table.tokens and table.tokens[3] == "ab" and table.tokens[8] == "<q>"


def test_new_special_tokens_wait_for_those_of_the_class(tmp_path):
    # Transformers gives row 7 to <|endoftext|>, which the class takes for granted, and row 8 to <n>.
    settings = {"tokenizer_class": "GPT2Tokenizer", "extra_special_tokens": ["<n>"]}
    table = table_of(tmp_path, vocab__json=GPT2, tokenizer_config__json=settings)
    assert table.size == len(GPT2)
    table = table_of(tmp_path, vocab__json=GPT2 | {"<|endoftext|>": 7}, tokenizer_config__json=settings)
    assert table.tokens[8] == "<n>" and table.special == {7, 8}


def test_marks_that_a_byte_level_class_does_not_use(tmp_path):
    vocabulary = {"<s>": 0, "bonjour</w>": 1, "b": 2, "é</w>": 3}
    with pytest.raises(LoadError, match="does not say how its tokens write spaces"):
        table_of(
            tmp_path, vocab__json=vocabulary, tokenizer_config__json={"tokenizer_class": "GPT2Tokenizer"}
        )


def test_white_space_at_the_end_of_a_line(tmp_path):
    table = table_of(tmp_path, vocab__txt="[UNK]\nthe \n##s\u3000\n", config__json={"model_type": "bert"})
    assert [table.spell(row) for row in range(3)] == [None, b" the", b"s"]


@pytest.mark.parametrize(
    ("model_prefix", "decoder_prefix", "spelled"),
    [("@@", "@@", b"s"), ("@@", "##", b"s"), ("@@", None, b"s"), ("", "", b"@@s")],
)
def test_prefixes_of_word_pieces(tmp_path, model_prefix, decoder_prefix, spelled):
    decoder = {"type": "WordPiece", "prefix": decoder_prefix, "cleanup": False}
    content = tokenizer(
        ["[UNK]", "cat", "@@s"],
        decoder=decoder if decoder_prefix is not None else {"type": "Fuse"},
        type="WordPiece",
        unk_token="[UNK]",
        continuing_subword_prefix=model_prefix,
    )
    table = table_of(tmp_path, tokenizer__json=content)
    assert table.spell(2) == spelled


def test_an_unknown_token_that_was_added_is_special(tmp_path):
    words = tokenizer(["a", "b"], type="WordLevel", unk_token="[UNK]")
    words["added_tokens"] = [{"id": 2, **added("[UNK]", special=False)}]
    table = table_of(tmp_path, tokenizer__json=words)
    assert table.tokens[2] == "[UNK]" and table.special == {2} and table.spell(2) is None
