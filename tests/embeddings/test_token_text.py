"""What kind of text tokens spell."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom.embeddings.token_text import decoded, is_impossible, is_reserved, is_word, looks_of


@given(st.text(), st.data())
def test_no_part_of_a_text_is_impossible(text, data):
    spelled = (
        text.encode("utf-8", "surrogatepass") if not any(0xD800 <= ord(c) < 0xE000 for c in text) else b""
    )
    begin = data.draw(st.integers(0, len(spelled)))
    end = data.draw(st.integers(begin, len(spelled)))
    assert not is_impossible(spelled[begin:end])


@pytest.mark.parametrize("byte", [0xC0, 0xC1, *range(0xF5, 0x100)])
def test_bytes_that_no_text_holds(byte):
    assert is_impossible(bytes([byte]))
    assert is_impossible(b"a" + bytes([byte]))


@pytest.mark.parametrize("spelled", [b"\xc3a", b"\xe0\x80", b"\xed\xa0\x80", b"\x80\x80\x80\x80"])
def test_sequences_that_no_text_holds(spelled):
    assert is_impossible(spelled)


@pytest.mark.parametrize(
    "token",
    ["<unused12>", "[unused7]", "<|reserved_special_token_3|>", "<|extra_9|>", "[control_4]", "<reserved_5>",
     "madeupword0001", "<unk_7>", "<|placeholder2|>", "<|dummy_11|>", "<SPECIAL_12>", "[PAD151700]"],
)  # fmt: skip
def test_reserved_names(token):
    assert is_reserved(token)


@pytest.mark.parametrize(
    "token", ["unused", "Ġreserved", "<unk>", "<pad>", "<|im_start|>", "<0x41>", "reserved7"]
)
def test_names_that_are_tokens_like_others(token):
    assert not is_reserved(token)


@pytest.mark.parametrize(
    ("text", "position", "case", "script", "word"),
    [
        (" king", "leading space", "lower", "Latin", True),
        ("King ", "trailing space", "capitalized", "Latin", True),
        ("KING", "continuation", "upper", "Latin", True),
        ("A", "continuation", "capitalized", "Latin", True),
        ("iPhone", "continuation", "mixed", "Latin", True),
        (" 42", "leading space", "none", "digits", False),
        ("x2", "continuation", "lower", "Latin", False),
        ("...", "none", "none", "none", False),
        ("\n", "none", "none", "none", False),
        (" мир", "leading space", "lower", "Cyrillic", True),
        ("漢字", "continuation", "none", "Han", True),
        ("हिन्दी", "continuation", "none", "Devanagari", True),
        ("漢a", "continuation", "lower", "mixed", True),
        ("don't", "continuation", "lower", "Latin", True),
        ("-", "none", "none", "none", False),
        ("", "none", "none", "none", False),
    ],
)
def test_the_kind_of_text(text, position, case, script, word):
    found = looks_of([text])
    assert [values.tolist() for values in found] == [[position], [case], [script], [len(text.strip(" "))]]
    assert is_word(text) == word


def expected_looks(text):
    """Return what `looks_of` finds for one text, character by character."""
    letters = [c for c in text if c.isupper() or c.islower()]
    if not any(c.isalnum() for c in text):
        position = "none"
    elif text[0] == " ":
        position = "leading space"
    else:
        position = "trailing space" if text[-1] == " " else "continuation"
    if not letters or all(c.islower() for c in letters):
        case = "lower" if letters else "none"
    elif letters[0].isupper() and all(c.islower() for c in letters[1:]):
        case = "capitalized"
    else:
        case = "upper" if all(c.isupper() for c in letters) else "mixed"
    scripts = {unicodedata.name(c, "none").split()[0] for c in text if c.isalpha()} - {"none"}
    digits = "digits" if any(c.isdigit() for c in text) else "none"
    named = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MICRO": "Greek"}
    scripts = {named.get(script, script.capitalize()) for script in scripts} or {digits}
    return position, case, scripts.pop() if len(scripts) == 1 else "mixed", len(text.strip(" "))


@given(st.lists(st.text(st.sampled_from(" aB1ǅ.漢²\0") | st.characters()), max_size=20))
def test_texts_together_look_as_they_do_alone(texts):
    found = list(zip(*(values.tolist() for values in looks_of(texts)), strict=True))
    assert found == [expected_looks(text) for text in texts]


def test_bytes_that_are_not_characters_spell_no_text():
    assert decoded(b"\xe2\x82") is None
    assert decoded(b"\x00") is None
    assert decoded(b"\n") == "\n"
    assert decoded("€".encode()) == "€"
