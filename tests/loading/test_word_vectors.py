"""Files of word vectors: every form against its numbers, and what is damaged or something else."""

import gzip
import os
import pickle
import resource

import numpy as np
import pytest

from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.vocabulary import match
from embgeom.errors import InputError, LoadError
from embgeom.loading import load
from embgeom.loading.matrix_files.word_vectors import read_word_vectors
from tests.helpers.loading import matrix

WORDS = ["the", "of", "é", "New_York", ". . .", "42", ","]
X = matrix(len(WORDS), 5)


def text_of(words=WORDS, rows=X, header=True, end="\n", number=repr):
    lines = [f"{len(words)} {rows.shape[1]}"] if header else []
    lines += [" ".join([w, *(number(float(v)) for v in row)]) for w, row in zip(words, rows, strict=True)]
    return end.join(lines) + end


def binary_of(words=WORDS, rows=X, between=b""):
    head = f"{len(words)} {rows.shape[1]}\n".encode()
    return head + b"".join(
        w.encode() + b" " + r.astype("<f4").tobytes() + between for w, r in zip(words, rows, strict=True)
    )


def check(path, words=WORDS, rows=X):
    made = load(path)
    np.testing.assert_array_equal(made.matrix, rows)
    assert made.matrix.dtype == np.float32 and made.tokens == words
    assert made.token_bytes == [b" " + w.encode() for w in words]
    return made


@pytest.mark.parametrize("name", ["a.txt", "a.vec", "a.bin", "a.w2v"])
@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
def test_text_with_a_header(tmp_path, name, end):
    (tmp_path / name).write_text(text_of(end=end), encoding="utf-8", newline="")
    made = check(tmp_path / name)
    assert made.name == "a" and made.provenance.file == tmp_path / name and made.provenance.notes == ()


def test_text_without_a_header(tmp_path):
    path = tmp_path / "glove.6B.5d.txt"
    path.write_text(text_of(header=False), encoding="utf-8")
    check(path)
    path.write_text(text_of(header=False).removesuffix("\n"), encoding="utf-8")
    check(path)
    # The first word may be the one that holds spaces, or a number.
    order = [4, 5, *range(4), 6]
    path.write_text(text_of([WORDS[i] for i in order], X[order], header=False), encoding="utf-8")
    check(path, [WORDS[i] for i in order], X[order])


def test_blank_lines_tabs_marks_and_wide_spaces(tmp_path):
    path = tmp_path / "a.vec"
    path.write_text("\ufeff2 3\n\nthe\t1\t2 3\nof  4 5  6\n\n", encoding="utf-8")
    check(path, ["the", "of"], np.array([[1, 2, 3], [4, 5, 6]]))


@pytest.mark.parametrize("between", [b"", b"\n"])
@pytest.mark.parametrize("name", ["a.bin", "a.vec", "a.txt"])
def test_binary(tmp_path, name, between):
    words = [w for w in WORDS if " " not in w]
    (tmp_path / name).write_bytes(binary_of(words, X[: len(words)], between))
    check(tmp_path / name, words, X[: len(words)])


def test_packed(tmp_path):
    path = tmp_path / "a.vec.gz"
    path.write_bytes(gzip.compress(text_of().encode()))
    check(path)
    words = [w for w in WORDS if " " not in w]
    path.write_bytes(gzip.compress(binary_of(words, X[: len(words)])))
    check(path, words, X[: len(words)])
    path.write_bytes(gzip.compress(text_of().encode())[:-20])
    with pytest.raises(LoadError, match=r"a\.vec\.gz is cut short or damaged"):
        load(path)


def test_numbers_are_float32_of_what_python_reads(tmp_path):
    digits = ["0.1", "-1e-3", "3.14159265358979323846", "1.17549435e-38", "1e-46", "16777217", "+.5", "7e-1"]
    path = tmp_path / "a.txt"
    path.write_text("a " + " ".join(digits) + "\nb " + " ".join(reversed(digits)) + "\n")
    exact = np.array([float(d) for d in digits]).astype(np.float32)
    np.testing.assert_array_equal(load(path).matrix, [exact, exact[::-1]])


def test_a_file_of_many_pieces_takes_little_more_than_its_matrix(tmp_path, monkeypatch):
    import embgeom.loading.matrix_files.word_vectors as module

    monkeypatch.setattr(module, "CHUNK", 1 << 12)
    rows, words = matrix(3000, 7), [f"w{i}" for i in range(3000)]
    path = tmp_path / "a.txt"
    path.write_text(text_of(words, rows, header=False))
    check(path, words, rows)
    path.write_bytes(binary_of(words, rows))
    check(path, words, rows)
    big, names = matrix(20_000, 100), [f"w{i}" for i in range(20_000)]
    monkeypatch.undo()
    path.write_text(text_of(names, big, header=False, number="{:.4f}".format))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_word_vectors(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < big.nbytes + (60 << 20)


def test_words_twice_and_words_that_are_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"the 1 2\nthe 3 4\n\xff\xfe 5 6\n</s> 7 8\n<unk> 9 10\n")
    made = load(path)
    assert made.tokens == ["the", "the", "\\xff\\xfe", "</s>", "<unk>"]
    assert made.token_bytes == [b" the", b" the", b" \xff\xfe", None, None]
    assert made.special.tolist() == [False] * 3 + [True] * 2
    assert made.provenance.notes == ("1 words are duplicates", "1 words are not UTF-8")
    assert made.row_of("the") == 0


def test_words_meet_the_words_of_a_tokenizer(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(text_of(header=False), encoding="utf-8")
    tokens = Embeddings.from_array(np.eye(3), ["Ġthe", "the", "Ġof"])
    ids, others = match(load(path), tokens)
    assert ids.tolist() == [0, 1] and others.tolist() == [0, 2]


DAMAGED = {
    "says in its first line that it holds 9 words, but it holds 7": text_of().replace("7 5", "9 5", 1),
    "says in its first line that it holds 3 words, but it holds at least 7": text_of().replace(
        "7 5", "3 5", 1
    ),
    "says in its first line that it holds 999999999 words, but it holds fewer": text_of().replace(
        "7 5", "999999999 5"
    ),
    "of 6 numbers, but its second line holds 5": text_of().replace("7 5", "7 6", 1),
    "it holds 0 words of 5 numbers": text_of().replace("7 5", "0 5", 1),
    r"line 8 .* holds 4 numbers, not 5": text_of().rstrip().rsplit(" ", 1)[0],
    r"line 3 \(b'of .* holds something that is not a number": text_of().replace("of ", "of x", 1),
    "without numbers; a list of tokens is passed as vocabulary=": "the\nof\nand\n",
    "not a word and its numbers": "và 900\ncủa 899\ncó 898\n",
    "Git LFS pointer": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "is not a file of word vectors": "",
    r"row 1, token 'of', holds NaN or infinity": "the 1 2\nof nan 3\n",
    r"row 0, token 'the', holds NaN or infinity": "the 1 1e39\nof 2 3\n",
}


@pytest.mark.parametrize("message", DAMAGED)
def test_damaged_text(tmp_path, message):
    path = tmp_path / "a.txt"
    path.write_text(DAMAGED[message], encoding="utf-8")
    with pytest.raises(LoadError, match=message):
        load(path)


def test_damaged_binary(tmp_path):
    words = [w for w in WORDS if " " not in w]
    whole = binary_of(words, X[: len(words)])
    path = tmp_path / "a.bin"
    for content, message in (
        (whole[:-3], "holds 6 words, but it holds"),
        (whole + b"more", "holds 6 words, but it holds more"),
        (whole.replace(b"6 5", b"99999999 5", 1), "99999999 words, but it holds fewer"),
        (b"6 5\n" + b"\1" * 9000, "word 1 has no end"),
        (b"\xba\x16\x4f\x2f" + bytes(60), r"model of fastText.*load the \.vec file"),
    ):
        path.write_bytes(content)
        with pytest.raises(LoadError, match=message):
            load(path)


def test_other_kinds(tmp_path):
    (tmp_path / "glove.zip").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(LoadError, match="zip archive; unpack it"):
        load(tmp_path / "glove.zip")
    path = tmp_path / "a.txt"
    path.write_text(text_of(), encoding="utf-8")
    with pytest.raises(InputError, match="tensor='x' has no meaning for"):
        load(path, tensor="x")
    assert load(path, vocabulary=[f"w{i}" for i in range(7)]).token_bytes[3] == b" w3"
    assert load(path, token_format="words").token_bytes[0] == b" the"


def test_keyed_vectors(tmp_path):
    gensim = pytest.importorskip("gensim", reason="gensim is not installed")
    words = [w for w in WORDS if " " not in w]
    kept = gensim.models.KeyedVectors(5)
    kept.add_vectors(words, X[: len(words)])
    for protocol in (2, 3, 4, 5):
        kept.save(str(tmp_path / "a.kv"), pickle_protocol=protocol)
        check(tmp_path / "a.kv", words, X[: len(words)])
    kept.save(str(tmp_path / "b.kv"), sep_limit=1)
    check(tmp_path / "b.kv", words, X[: len(words)])
    (tmp_path / "b.kv.vectors.npy").unlink()
    with pytest.raises(LoadError, match=r"keeps its vectors in b\.kv\.vectors\.npy, which is not beside it"):
        load(tmp_path / "b.kv")
    for binary in (True, False):
        kept.save_word2vec_format(str(tmp_path / "c.bin"), binary=binary)
        check(tmp_path / "c.bin", words, X[: len(words)])
    kept.save_word2vec_format(str(tmp_path / "c.txt"), write_header=False)
    check(tmp_path / "c.txt", words, X[: len(words)])


def test_models_of_gensim(tmp_path):
    gensim = pytest.importorskip("gensim", reason="gensim is not installed")
    texts = [["a", "b", "c"]] * 20
    trained = gensim.models.Word2Vec(texts, vector_size=6, min_count=1)
    trained.save(str(tmp_path / "w.model"))
    check(tmp_path / "w.model", trained.wv.index_to_key, trained.wv.vectors)
    gensim.models.FastText(texts, vector_size=6, min_count=1).wv.save(str(tmp_path / "f.kv"))
    with pytest.raises(LoadError, match=r"FastTextKeyedVectors.*save_word2vec_format"):
        load(tmp_path / "f.kv")


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made-by-the-pickle",)


@pytest.mark.parametrize("content", [Runs(), [Runs()], {"vectors": Runs()}, [1, 2]])
def test_a_pickle_runs_nothing(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.kv").write_bytes(pickle.dumps(content))
    with pytest.raises(LoadError, match="of which embgeom reads only gensim's KeyedVectors"):
        load(tmp_path / "a.kv")
    assert [p.name for p in tmp_path.iterdir()] == ["a.kv"]


def test_damaged_pickles(tmp_path):
    state = {"index_to_key": ["a", "b"], "vectors": X[:2]}
    whole = pickle.dumps(state)
    path = tmp_path / "a.kv"
    for cut in range(3, len(whole), 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(LoadError):
            load(path)
    # A length that is not there takes no memory.
    path.write_bytes(b"\x80\x05\x8e" + (1 << 60).to_bytes(8, "little") + b"x.")
    with pytest.raises(LoadError):
        load(path)


@pytest.mark.parametrize(
    "text",
    [
        "2 2\na 1 2 3\nb 4 5 6\n",  # the header names fewer columns than there are
        "a 1 2 3\nb 4 5\n",  # a line is cut short
        "a 1 2 3\nb 4 5 6 7\n",
    ],
)
def test_a_width_that_makes_numbers_a_part_of_words_is_refused(tmp_path, text):
    path = tmp_path / "v.txt"
    path.write_text(text)
    with pytest.raises(LoadError, match=r"a line holds . numbers, but"):
        load(path)


def test_an_empty_word_at_the_beginning_and_a_header_with_a_tab(tmp_path):
    path = tmp_path / "v.txt"
    for text in (" 1 2 3\nc 4 5 6\n", "2\t3\n 1 2 3\nc 4 5 6\n"):
        path.write_text(text)
        loaded = load(path)
        assert loaded.tokens == ["", "c"]
        np.testing.assert_array_equal(loaded.matrix, [[1, 2, 3], [4, 5, 6]])


def test_words_that_end_with_a_number_are_told(tmp_path):
    path = tmp_path / "v.txt"
    path.write_text("1 2 7 8 9\na 1 2 3\nb 4 5 6\n")
    loaded = load(path)
    assert loaded.tokens[0] == "1 2"
    assert loaded.provenance.notes == ("1 words hold a space and end with a number",)
