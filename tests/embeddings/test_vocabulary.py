"""Matching on spelled bytes and on words, on small vocabularies and on the two real models."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.token_format import TokenFormat
from embgeom.embeddings.vocabulary import MIN_SHARED, Match, match, require_shared, space_position
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.loading import load
from tests.helpers.loading import data, matrix

BYTES = [f"<0x{b:02X}>" for b in range(256)]


def vocabulary(tokens, name="a", zero=(), **options):
    x = matrix(len(tokens), 3)
    x[list(zero)] = 0
    return Embeddings.from_array(x, tokens, name=name, **options)


def pairs(a, b):
    found = match(a, b)
    for model, ids, left_out in ((a, found.ids_a, found.left_out_a), (b, found.ids_b, found.left_out_b)):
        assert len(set(ids.tolist())) == len(ids) and ids.dtype == np.int64
        assert len(ids) + sum(left_out.values()) == len(model)
    return [
        (a.tokens[i], b.tokens[j], c) for i, j, c in zip(found.ids_a, found.ids_b, found.kind, strict=True)
    ]


def test_the_same_text_written_in_three_ways():
    sentence_piece, byte_level = (
        vocabulary(["▁the", "ing", "é", "▁dog"]),
        vocabulary(["Ġdog", "ing", "Ã©", "the"]),
    )
    word_piece = vocabulary(["the", "##ing", "dog", "##é"])
    assert pairs(sentence_piece, byte_level) == [
        ("ing", "ing", "exact"),
        ("é", "Ã©", "exact"),
        ("▁dog", "Ġdog", "exact"),
    ]
    assert [(a, b) for a, b, _ in pairs(sentence_piece, word_piece)] == [
        ("▁the", "the"),
        ("ing", "##ing"),
        ("é", "##é"),
        ("▁dog", "dog"),
    ]


def test_byte_tokens_go_with_byte_tokens():
    fallback = TokenFormat(space="▁", byte_fallback=True)
    a = vocabulary([*BYTES, "a", "▁x"], token_format=fallback)
    b = vocabulary(["a", "\n", *BYTES[:5], *BYTES[65:98]], token_format=fallback)
    found = pairs(a, b)
    assert ("a", "a", "exact") in found and ("<0x61>", "<0x61>", "exact") in found
    assert ("<0x0A>", "\n", "exact") in found and len(found) == 1 + 1 + 5 + 33
    byte_level = vocabulary(["a", "Ġx"], token_format=TokenFormat(byte_level=True))
    assert pairs(a, byte_level)[0] == (
        "a",
        "a",
        "exact",
    )


def test_words_with_the_space_on_the_other_side():
    a = vocabulary(["▁dog", "▁cat", '▁"', "▁big", "og", "▁é", "▁7"])
    b = vocabulary(["dog▁", "▁cat", "cat▁", '"▁', "big", "é▁", "7▁"])
    assert (space_position(a), space_position(b)) == ("leading", "trailing")
    expected = [
        ("▁dog", "dog▁", "word"),
        ("▁cat", "▁cat", "exact"),
        ("▁é", "é▁", "word"),
        ("▁7", "7▁", "word"),
    ]
    assert pairs(a, b) == expected
    assert pairs(b, a) == [(y, x, c) for x, y, c in sorted(expected, key=lambda p: b.tokens.index(p[1]))]


def test_no_word_step_between_two_vocabularies_of_one_kind():
    a, b = vocabulary(["▁dog", "▁cat"]), vocabulary(["dog▁", "▁cat", "▁a", "▁b"])
    assert pairs(a, b) == [("▁cat", "▁cat", "exact")]


def test_every_reason_is_counted():
    a = vocabulary(
        ["<s>", "x", "y", "▁▁", "  ", "q", ""], special=["<s>"], zero=[1], token_format=TokenFormat(space="▁")
    )
    b = vocabulary(["<s>", "x", "y", "  "], special=[])
    found = match(a, b)
    assert list(zip(found.ids_a, found.ids_b, strict=True)) == [(2, 2)]
    assert found.left_out_a == {"special": 1, "no text": 1, "zero row": 1, "ambiguous": 2, "absent": 1}
    assert found.left_out_b == {"special": 0, "no text": 0, "zero row": 0, "ambiguous": 1, "absent": 2}
    assert found.to_dict()["shared"] == 1 and found.kind_counts() == {"exact": 1, "word": 0}
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()
    assert "share 1 tokens" in found.summary() and "ambiguous 2" in found.summary()
    ids_a, ids_b = found
    assert ids_a is found.ids_a and ids_b is found.ids_b


@given(
    st.lists(st.text("ab▁", max_size=3), unique=True, min_size=1),
    st.lists(st.text("ab▁", max_size=3), min_size=1),
)
@pytest.mark.filterwarnings("ignore:.*plain words")
def test_one_to_one_and_symmetric(tokens_a, tokens_b):
    a = vocabulary(tokens_a, token_format=TokenFormat(space="▁"))
    b = vocabulary(tokens_b, "b", token_format=TokenFormat(space="▁"))
    assert sorted(pairs(a, b)) == sorted((x, y, c) for y, x, c in pairs(b, a))
    assert len(pairs(a, a)) == len([t for t in tokens_a if t])


def test_too_few():
    a, b = vocabulary(["x"], "alpha"), vocabulary(["x", "y"], "beta")
    with pytest.raises(
        InputError, match=rf"at least {MIN_SHARED} .*alpha and beta share 1 tokens; exact: 1; left out of"
    ):
        require_shared(match(a, b))


def test_match_validates_itself():
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(InputError, match="1, 1 and 0 entries"):
        Match(one, one, np.array([], dtype="<U5"), {}, {}, "a", "b")


def correlation(a, b):
    """Pearson correlation of the cosines of all pairs of rows, each matrix centered on its mean row."""
    cosines = []
    for x in (a.astype(np.float64), b.astype(np.float64)):
        centred = x - x.mean(axis=0)
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        cosines.append((unit @ unit.T)[np.triu_indices(len(unit), 1)])
    return np.corrcoef(cosines)[0, 1]


@pytest.mark.model
def test_two_real_models_share_tokens_and_geometry():
    a, b = load(data("models", "stories260k")), load(data("models", "tinystories-656k"))
    found = match(a, b)
    assert (space_position(a), space_position(b)) == ("leading", "trailing")
    assert len(pairs(a, b)) == 196 and (found.kind == "word").sum() == 63
    rows_a, rows_b = a.matrix[found.ids_a], b.matrix[found.ids_b]
    shuffled = np.random.default_rng(0).permutation(rows_b)
    # Measured: 0.46, and 0.45 without the two pairs of a byte token with a text token; shuffled 0.00 +- 0.02.
    assert 0.43 < correlation(rows_a, rows_b) < 0.49
    assert abs(correlation(rows_a, shuffled)) < 0.1


def test_plain_words_against_a_vocabulary_that_marks_spaces():
    names = ["the", "of", "and", "cat", "dog", "ing"]
    marked = Embeddings.from_array(np.eye(6), ["Ġthe", "Ġof", "Ġand", "Ġcat", "Ġdog", "ing"], name="marked")
    plain = Embeddings.from_array(np.eye(6), names, name="plain")
    for a, b in ((plain, marked), (marked, plain)):
        with pytest.warns(
            EmbgeomWarning, match=r'0 of 1 matches are at word starts.*load plain with token_format="words"'
        ):
            assert len(match(a, b)) == 1
    as_words = Embeddings.from_array(np.eye(6), names, token_format="words")
    ids, others = match(as_words, marked)
    assert ids.tolist() == others.tolist() == [0, 1, 2, 3, 4]
    behind = Embeddings.from_array(np.eye(3), ["the▁", "of▁", "ing"], name="behind")
    with pytest.warns(EmbgeomWarning, match="writes words with a trailing space"):
        match(plain, behind)


def test_letters_and_plain_lists_are_matched_without_a_warning():
    marked = Embeddings.from_array(np.eye(4), ["Ġa", "Ġb", "a", "b"])
    letters = Embeddings.from_array(np.eye(3), ["a", "b", "c"])
    plain = Embeddings.from_array(np.eye(2), ["the", "of"])
    assert len(match(letters, marked)) == 2 and len(match(plain, plain)) == 2


@pytest.mark.parametrize("wrong", ["word", "", 3, True, ["words"]])
def test_a_token_format_that_is_none_is_refused(wrong):
    with pytest.raises(InputError, match=r"token_format=.*'words'.*TokenFormat\(space="):
        Embeddings.from_array(np.eye(2), ["a", "b"], token_format=wrong)
