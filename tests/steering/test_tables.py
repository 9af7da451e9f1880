"""Tables of pairs, as spreadsheets, people and programs write them; what is wrong is told with its line."""

import csv

import pytest

from embgeom import InputError, LoadError
from embgeom.steering.pairs import check_pairs, read_pairs

GLAD = ("I am glad.", "I am sad.")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "positive;negative\nI am glad.;I am sad.\n", [GLAD]),
        ("a.csv", "positive\tnegative\nI am glad.\tI am sad.\n", [GLAD]),
        ("a.csv", "positive|negative\nI am glad.|I am sad.\n", [GLAD]),
        ("a.tsv", "positive\tnegative\nI am glad.\tI am sad.\n", [GLAD]),
        ("a.csv", "Positive,NEGATIVE\nI am glad.,I am sad.\n", [GLAD]),
        ("a.csv", "positive, negative\nI am glad., I am sad.\n", [GLAD]),
        ("a.csv", 'positive, negative\n"I am glad.", "I am sad."\n', [GLAD]),
        ("a.csv", "sep=;\r\npositive;negative\r\nI am glad.;I am sad.\r\n", [GLAD]),
        ("a.csv", "\ufeffpositive;negative\r\nI am glad.;I am sad.\r\n", [GLAD]),
        ("a.csv", "positive,negative\rI am glad.,I am sad.\r", [GLAD]),
        ("a.csv", "\npositive,negative\n\nI am glad.,I am sad.\n\n", [GLAD]),
        ("a.csv", '"positive";"negative"\n"a;b";"c ""d"""\n', [("a;b", 'c "d"')]),
        # Without a space behind the header's comma, one in a row is the text's own.
        ("a.csv", "positive,negative\n joy, woe\n", [(" joy", " woe")]),
        ("a.csv", "prompt;positive;negative\nI am ;glad.;sad.\n", [GLAD]),
        (
            "a.csv",
            "Question;Answer_Matching_Behavior;answer_not_matching_behavior\nq;(A);(B)\n",
            [("q\n\nAnswer: (A)", "q\n\nAnswer: (B)")],
        ),
        ("a.csv", 'positive,negative\n"' + "x" * 200_000 + '",b\n', [("x" * 200_000, "b")]),
    ],
)
def test_tables_of_every_make(tmp_path, name, content, expected):
    (tmp_path / name).write_bytes(content.encode())
    before = csv.field_size_limit()
    assert read_pairs(tmp_path / name) == expected
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "holds no pair"),
        ("a.csv", "positive,negative\n", "holds no pair"),
        ("a.csv", "positive\na\n", "line 1 names the columns 'positive': positive and negative are needed"),
        ("a.csv", "good;bad\na;b\n", "line 1 names the columns 'good;bad'"),
        ("a.tsv", "positive,negative\na,b\n", "line 1 .* or a tab"),
        ("a.csv", "positive,positive,negative\na,b,c\n", "line 1 names the column 'positive' twice"),
        ("a.csv", "positive,negative\na,b\nc, d, e\n", "line 3 has 3 fields, the header 2"),
        ("a.csv", 'positive,negative\n"a\nb",c\nd\n', "line 4 has 1 fields, the header 2"),
        ("a.csv", 'positive,negative\na,b\n"c,d\ne,f\n', "line 3: .*quotes"),
        ("a.csv", 'positive,negative\n"a"b,c\n', "line 2: .*quotes"),
        ("a.csv", 'positive,negative\n"a", "b"\n', "line 2: a space stands before the quotes"),
        ("a.jsonl", '["a", "b"]\n["a", "\\ud800"]\n', "line 2: .* not valid Unicode"),
        ("a.jsonl", '["a", "b"]\n\n["a",\n', "line 3, is not valid JSON"),
        ("a.jsonl", '["a", "b"]\n' + "[" * 200_000, "line 2, is not valid JSON .*recursion depth exceeded"),
        ("a.json", "[" * 200_000, "is not valid JSON .*recursion depth exceeded"),
        ("a.json", '[["a", ' + "1" * 5_000 + "]]", r"is not valid JSON \(Exceeds the limit"),
        ("a.json", '[["a", "b"], ["\\ud800", "b"]]', "item 2: .* not valid Unicode at character 0"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode())
    with pytest.raises(LoadError, match=message):
        read_pairs(tmp_path / name)


def test_what_is_no_file_of_pairs(tmp_path):
    for path in (None, 5, ["a.json"]):
        with pytest.raises(InputError, match="names no file"):
            read_pairs(path)
    for path, message in (("a\0b.json", "not the name of a file"), (tmp_path / "none.csv", "cannot be read")):
        with pytest.raises(LoadError, match=message):
            read_pairs(path)
    # Nothing is read of what has no such name: it may never end.
    with pytest.raises(LoadError, match=r"pairs are read from \.json"):
        read_pairs("/dev/zero")
    (tmp_path / "a.csv").write_bytes("positive,negative\na,b\n".encode("utf-16"))
    with pytest.raises(LoadError, match="not as UTF-16"):
        read_pairs(tmp_path / "a.csv")
    item = '[{"question": "q", "answer_matching_behavior": "a", "answer_not_matching_behavior": "b"}]'
    (tmp_path / "a.json").write_text(item)
    with pytest.raises(InputError, match="template = 5"):
        read_pairs(tmp_path / "a.json", template=5)
    with pytest.raises(LoadError, match="item 1: 3 is not a text"):
        read_pairs(tmp_path / "a.json", template=lambda question, answer: 3)


@pytest.mark.parametrize(
    "pairs", [None, 5, "ab", [None], [5], ["ab"], [("a",)], [("a", 3)], [("a", "\ud800")], []]
)
def test_what_is_no_pairs(pairs):
    with pytest.raises(InputError, match="pair"):
        check_pairs(pairs)
