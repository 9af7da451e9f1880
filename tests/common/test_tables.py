"""Tables as text: numbers flush right, control characters shown, long names kept in one piece."""

from __future__ import annotations

import numpy as np

from embgeom._common.tables import TEXT_WIDTH, Table, as_text, distribution, number, whole_pieces


def test_numbers_are_flush_right_and_text_is_flush_left():
    rows = [("a", 1, 0.5, "+0.25"), ("long name", 1000, float("nan"), "undefined")]
    lines = as_text([Table("a title", ("", "count", "share", "effect"), rows)]).splitlines()
    assert lines[0] == "a title"
    head, first, second = lines[2], lines[4], lines[5]
    assert first.startswith(" a ") and second.startswith(" long name ")
    assert first.index("1") + 1 == second.index("1000") + 4 == head.index("count") + 5
    assert "0.5000" in first and second.count("undefined") == 2
    assert first.endswith("+0.25") and len(first) == len(second)


def test_a_column_with_a_word_among_numbers_is_text():
    lines = as_text([Table(None, ("token", "row"), [("'7'", 7), ("8", 8)])]).splitlines()
    assert lines[-1].startswith(" 8  ") and lines[-2].startswith(" '7'")


def test_rows_may_be_read_twice():
    table = Table(None, ("a",), (row for row in [("x",)]))
    assert as_text([table]) == as_text([table])


def test_what_a_terminal_would_act_on_is_shown_as_escapes():
    text = as_text(["a\x1b[31m", Table("b\x07", ("c\u202e",), [("d\u2028",)])])
    assert not set("\x1b\x07\u202e\u2028") & set(text)
    assert all(escape in text for escape in (r"a\x1b[31m", r"b\x07", r"c\u202e", r"d\u2028"))


def test_prose_is_wrapped_and_a_path_is_not_cut():
    path = "/" + "x" * (2 * TEXT_WIDTH)
    text = as_text(["word " * TEXT_WIDTH, path])
    assert path in text.splitlines() and max(map(len, text.splitlines()[:-1])) <= TEXT_WIDTH


def test_quantiles_leave_out_what_is_undefined():
    values = {"some": np.array([1.0, np.nan, 3.0]), "none": np.array([np.nan]), "whole": np.arange(5)}
    lines = as_text([distribution(values)]).splitlines()
    assert "1" in lines[2] and lines[2].rstrip().endswith("3") and "nan" not in lines[2]
    assert lines[3].count("undefined") == 5 and lines[4].split()[1:] == ["0", "0.4", "2", "3.6", "4"]


def test_no_line_breaks_within_a_token_or_a_name():
    tokens = [f"' t{i}'" for i in range(60)] + ["'two words'", '"it\'s so"', r"b'\xc3 '", "' '"]
    text = as_text(
        [
            "promoted: " + ", ".join(tokens),
            Table("' a' title", ("model", "tokens"), [("tinystories-656k", "  ".join(tokens))]),
            Table(
                None,
                ("model", *["participation ratio"] * 12),
                [("tinystories-656k", *[f"{i}.25" for i in range(12)])],
            ),
        ]
    )
    assert max(map(len, text.splitlines())) <= TEXT_WIDTH and "\ue000" not in text
    for token in tokens:
        assert text.count(token) == 2
    assert text.count("tinystories-656k") == 2 and all(f"{i}.25" in text for i in range(12))


def test_an_apostrophe_is_no_quote():
    pieces = list(whole_pieces("the tokens' rows of models' own, ' a b' and 'c'"))
    assert [piece for piece, whole in pieces if whole] == ["' a b'", "'c'"]
    assert "".join(piece for piece, _ in pieces).startswith("the tokens' rows")


def test_a_negative_number_that_rounds_to_zero_has_no_sign():
    assert (number(-0.0004, 3), number(-0.00001), number(-0.0006, 3)) == ("0.000", "0.0000", "-0.001")
    assert (number(float("nan")), number(float("-inf"))) == ("undefined", "-inf")
