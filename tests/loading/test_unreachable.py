"""Tokens that the tokenizer never produces."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom.loading.unreachable import unreachable_rows
from tests.helpers.loading import data


def loaded(tokenizer_json, rows, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_json, encoding="utf-8")
    generator = np.random.default_rng(0)
    return embgeom.load(generator.standard_normal((rows, 4)).astype(np.float32), vocabulary=path)


def names(model):
    found = unreachable_rows(model)
    return None if found is None else {model.tokens[row] for row in np.flatnonzero(found)}


def test_a_bpe_token_that_no_merge_makes(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocab = {t: i for i, t in enumerate(["a", "b", "c", "Ġ", "ab", "Ġab", "bc", "abc", "zzz"])}
    built = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b"), ("Ġ", "ab"), ("b", "c")]))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    # "abc" has no merge, "bc" is produced only where no a stands before it, and of z there is no letter.
    assert names(loaded(built.to_str(), len(vocab), tmp_path)) == {"abc", "zzz"}


def test_word_pieces_are_asked_for_as_continuations(tmp_path):
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokens = ["[UNK]", "king", "##s", "King", "z", "##q", "."]
    built = Tokenizer(models.WordPiece(vocab={t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    built.normalizer, built.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    built.decoder = decoders.WordPiece()
    # Text is lower-cased first, so the capitalized token never comes.
    assert names(loaded(built.to_str(), len(tokens), tmp_path)) == {"King"}


def test_tokens_without_a_tokenizer_are_not_determined():
    model = embgeom.Embeddings.from_array(np.eye(2), ["a", "b"])
    assert unreachable_rows(model) is None
    classes = embgeom.comparison.classify(model)
    assert any("no tokenizer to ask" in note for note in classes.notes)


def test_the_example_reaches_its_words():
    model = embgeom.load("example:small")
    found = unreachable_rows(model)
    assert found.mean() < 0.02 and not found[model.row_of(" king")]


@pytest.mark.model
@pytest.mark.parametrize("name", ["stories260k", "tinystories-656k"])
def test_sentencepiece_reaches_nearly_all(name):
    found = unreachable_rows(embgeom.load(data("models", name)))
    assert found.mean() < 0.1
