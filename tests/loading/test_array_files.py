"""Files of NumPy: which array is taken, what stands beside it, and files that are damaged."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

import embgeom
from embgeom.errors import InputError, LoadError
from tests.helpers.cli import run, status
from tests.helpers.loading import matrix, words

E, H = matrix(40, 8), matrix(40, 8, 1)


@pytest.fixture
def npz(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, matrix=E, other=H, half=H.astype(np.float16), tokens=np.array(words(40)))
    return path


def test_tensor_picks_the_array_of_a_npz(npz):
    assert np.array_equal(embgeom.load(npz).matrix, E)
    other = embgeom.load(npz, tensor="other")
    assert np.array_equal(other.matrix, H) and other.provenance.tensor == "other"
    assert other.tokens == words(40)
    assert embgeom.load(npz, tensor="half").provenance.dtype == "F16"
    with pytest.raises(LoadError, match="no array 'nonsense', but matrix, other, half, tokens; pick one"):
        embgeom.load(npz, tensor="nonsense")
    with pytest.raises(LoadError, match=r"tokens in .* is stored as <U4"):
        embgeom.load(npz, tensor="tokens")


@pytest.mark.parametrize("option", ["revision", "cache_dir", "token", "adapter"])
def test_options_without_meaning_for_an_array_are_refused(npz, option):
    with pytest.raises(InputError, match=f"{option}='x' has no meaning|{option} is for a Hugging Face id"):
        embgeom.load(npz, **{option: "x"})


def test_a_npy_has_no_names(tmp_path):
    np.save(tmp_path / "m.npy", E)
    with pytest.raises(InputError, match="one array without a name"):
        embgeom.load(tmp_path / "m.npy", tensor="matrix", vocabulary=words(40))


def test_the_fields_of_a_npz(tmp_path):
    np.savez_compressed(tmp_path / "m.npz", matrix=E, vocabulary=np.array(words(40)), special=["▁w0"])
    loaded = embgeom.load(tmp_path / "m.npz")
    assert loaded.tokens == words(40) and np.flatnonzero(loaded.special).tolist() == [0]
    np.savez(tmp_path / "m.npz", matrix=E, vocabulary=np.array(words(40)), tokens=np.array(words(40)))
    with pytest.raises(LoadError, match="keep one of them"):
        embgeom.load(tmp_path / "m.npz")
    np.savez(tmp_path / "m.npz", matrix=E, tokens=[w.encode() for w in words(40)])
    assert embgeom.load(tmp_path / "m.npz").tokens == words(40)


@pytest.mark.parametrize("order", ["<", ">"])
def test_code_points_that_are_no_characters(tmp_path, order):
    tokens = np.array(words(40)).astype(f"{order}U4")
    np.savez(tmp_path / "m.npz", matrix=E, tokens=tokens)
    assert embgeom.load(tmp_path / "m.npz").tokens == words(40)
    tokens.view(f"{order}u4")[5] = 0x110000
    np.savez(tmp_path / "m.npz", matrix=E, tokens=tokens)
    with pytest.raises(LoadError, match="code point 0x110000"):
        embgeom.load(tmp_path / "m.npz")


@pytest.mark.parametrize("array", [E, E.astype(np.float64), np.asfortranarray(E), E.astype(">f4")])
def test_a_file_system_that_refuses_to_map(tmp_path, monkeypatch, array):
    np.save(tmp_path / "m.npy", array)

    class Refuses(np.memmap):
        def __new__(cls, *_, **__):
            raise OSError(19, "No such device")

    monkeypatch.setattr(np, "memmap", Refuses)
    assert np.array_equal(embgeom.load(tmp_path / "m.npy", vocabulary=words(40)).matrix, E)


def test_a_file_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    """The header and the numbers are of one file, even if another takes its name in between."""
    np.save(tmp_path / "m.npy", E)
    np.save(tmp_path / "new.npy", H.T.copy())
    own = np.lib.format.read_magic

    def replaced(stream):
        (tmp_path / "new.npy").replace(tmp_path / "m.npy")
        return own(stream)

    monkeypatch.setattr(np.lib.format, "read_magic", replaced)
    assert np.array_equal(embgeom.load(tmp_path / "m.npy", vocabulary=words(40)).matrix, E)


def damaged(path, how):
    raw = path.read_bytes()
    if how == "cut short":
        path.write_bytes(raw[:-20])
    elif how == "longer":
        path.write_bytes(raw + b"\0" * 8)
    elif how == "huge count":
        path.write_bytes(raw.replace(b"(40, 8)", b"(1<<40)", 1).replace(b"(1<<40)", b"(9**9,)", 1))
    elif how == "negative count":
        path.write_bytes(raw.replace(b"(40, 8)", b"(-40,8)", 1))
    elif how == "records":
        np.save(path, np.zeros(4, dtype=[("a", "f4")]))
    elif how == "objects":
        np.save(path, np.array([None, {}]), allow_pickle=True)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "another version":
        path.write_bytes(raw[:6] + b"\x09\x00" + raw[8:])


@pytest.mark.parametrize(
    "how",
    ["cut short", "longer", "huge count", "negative count", "records", "objects", "empty", "another version"],
)
def test_damaged_files(tmp_path, how):
    path = tmp_path / "m.npy"
    np.save(path, E)
    damaged(path, how)
    with pytest.raises(LoadError, match=r"m\.npy"):
        embgeom.load(path, vocabulary=words(40))
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.write(path, "matrix.npy")
    with pytest.raises(LoadError):
        embgeom.load(tmp_path / "m.npz", vocabulary=words(40))


def test_the_options_of_the_command(npz, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("".join(f"x{i}\n" for i in range(40)), encoding="utf-8")
    run(
        "neighbors",
        npz,
        "x3",
        "--vocabulary",
        tmp_path / "words.txt",
        "--tensor",
        "other",
        "--dimension-k",
        "9",
    )
    assert "'x3'" in capsys.readouterr().out
    assert status("inspect", npz, "--adapter", npz) == 2
    assert "adapter=" in capsys.readouterr().err


def test_a_single_array_needs_no_name(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, E, tokens=np.array(words(40)), special=np.array([]))
    loaded = embgeom.load(path)
    assert np.array_equal(loaded.matrix, E) and not loaded.special.any()
    with pytest.raises(LoadError, match="no array ''"):
        embgeom.load(path, tensor="")


@pytest.mark.parametrize("count", [39, 45])
def test_tokens_inside_are_one_for_each_row(tmp_path, count):
    path = tmp_path / "m.npz"
    np.savez(path, matrix=E, tokens=np.array(words(count)))
    with pytest.raises(LoadError, match=f"lists {count} tokens, .* has 40 rows"):
        embgeom.load(path)
    assert np.array_equal(embgeom.load(path, vocabulary=words(40)).matrix, E)


def test_two_arrays_of_one_name(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, matrix=E, tokens=np.array(words(40)))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("matrix", archive.read("matrix.npy"))
    with pytest.raises(LoadError, match="two arrays of one name"):
        embgeom.load(path)


def test_a_vocabulary_that_names_a_row_twice(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, E)
    with pytest.raises(LoadError, match="gives row 0 to 'a' and to 'b'"):
        embgeom.load(path, vocabulary={"a": 0, "b": 0})


def test_names_that_are_no_text_or_fill_the_file_system(tmp_path, capsys):
    folder = os.fsencode(tmp_path)
    try:
        files = [os.fsdecode(folder + b"/" + name + b".npy") for name in (b"a\xff", b"b" * 250)]
        for file in files:
            np.save(file, matrix(40, 8))
    except OSError:
        pytest.skip("the file system takes no such names")
    (tmp_path / "tokens.txt").write_text("\n".join(words(40)))
    page = tmp_path / "page.html"
    sizes = ("--dimension-sample", "5", "-k", "5", "--dimension-k", "10")
    assert status("compare", *files, "--html", str(page), "-o", str(tmp_path / "out"), *sizes) == 0
    assert "a\\udcff" in page.read_text(encoding="utf-8")
    capsys.readouterr()


def test_a_tensor_is_named_by_a_string(npz):
    for name in (5, b"other", ["other"]):
        with pytest.raises(InputError, match="is not the name of a tensor"):
            embgeom.load(npz, tensor=name)


def test_numbers_of_thousands_of_digits(monkeypatch):
    model = embgeom.Embeddings.from_array(matrix(40, 8), words(40))
    with pytest.raises(InputError, match="is not a token"):
        model.row_of(f"<row {'9' * 5000}>")
    monkeypatch.setenv("OMP_NUM_THREADS", "9" * 5000)
    assert embgeom.knn(model, 3).k == 3
