"""The command, in process: what it prints, its exit status, and one line for everything a user can mend."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings

import numpy as np
import pytest

import embgeom
from embgeom.cli.main import main
from embgeom.comparison import Coherence
from embgeom.comparison.token_sets import MadeByClasses
from tests.helpers.loading import matrix, tokenizer, words, write_folder
from tests.helpers.real_data import EXAMPLES
from tests.helpers.wordnet import write as write_wordnet

ROWS = 40
TENSOR = "model.embed_tokens.weight"


def save_npz(path, x, tokens=None):
    np.savez(path, matrix=x, tokens=tokens or [f"word{i}" for i in range(len(x))])
    return str(path)


@pytest.fixture
def small(tmp_path):
    return str(write_folder(tmp_path / "small", {TENSOR: matrix(ROWS, 6)}))


@pytest.fixture
def run(capsys):
    """Run the command; return its exit status, standard output and standard error."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            status = stopped.code
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def refused(run):
    """Run the command on what it must refuse, and return its one line on standard error."""

    def refused(*arguments):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith("embgeom") and err.endswith("\n") and err.count("\n") == 1, err
        return err

    return refused


def test_compare_prints_the_summary(run):
    options = ["-k", 5, "--dimension-k", 15, "--dimension-sample", 20, "--seed", 3, "--reg", 0.01]
    status, out, err = run("compare", *EXAMPLES, *options, "--variance", 0.8, "--metric", "euclidean")
    assert (status, err) == (0, "")
    expected = embgeom.compare(
        *EXAMPLES, k=5, dimension_k=15, dimension_sample=20, seed=3, reg=0.01, variance=0.8,
        metric="euclidean",
    )  # fmt: skip
    assert out == expected.summary() + "\n"


def test_compare_writes_files(run, small, tmp_path):
    out, page = tmp_path / "deep" / "out", tmp_path / "out.html"
    status, _, err = run(
        "compare", small, small, "-k", 4, "-o", out, "--html", page, "--threads", 1, "--no-cache"
    )
    assert (status, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.json",
        "comparison.safetensors",
        "tokens.csv",
    ]
    assert json.loads((out / "comparison.json").read_text())["options"]["threads"] == 1
    assert "40 shared tokens" in page.read_text(encoding="utf-8")
    status, _, _ = run("compare", small, small, "-k", 4, "-o", out, "--overwrite")
    assert status == 0


@pytest.mark.filterwarnings("ignore::embgeom.EmbgeomWarning")
def test_compare_counts_the_tokens_that_are_asked_for(run, tmp_path):
    quick = ("-k", 4, "--dimension-k", 8, "--dimension-sample", 20)
    (tmp_path / "words.txt").write_text(
        "king\nqueen\ncat\ndog\nhouse\ntree\nred\nblue\ntwo\nthree\nboy\ngirl\n"
    )
    for arguments, keywords in (
        (("--with", "all"), {"without": ()}),
        (("--without", "byte,special"), {"without": ("byte", "special")}),
        (("--only", "words"), {"only": "words"}),
        (("--only", tmp_path / "words.txt"), {"only": str(tmp_path / "words.txt")}),
    ):
        status, out, err = run("compare", *EXAMPLES, *quick, *arguments, "--no-cache")
        assert status == 0, err
        found = embgeom.compare(*EXAMPLES, k=4, dimension_k=8, dimension_sample=20, **keywords)
        assert out == found.summary() + "\n"


def test_compare_draws_and_lists_its_measures(run, small, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    table, figure = tmp_path / "out.csv", tmp_path / "out.svg"
    status, _, err = run(
        "compare", small, small, "-k", 4, "--no-center", "--no-cache", "--csv", table, "--figure", figure
    )
    assert (status, err) == (0, "")
    lines = table.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("model_a,model_b,tokens,measure,n,value,low,high,null_mean,null_sd")
    assert "global_similarity_centered" in lines[2]
    assert figure.read_text(encoding="utf-8").lstrip().startswith("<?xml")


def test_inspect(run, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    outputs = ("-o", tmp_path / "out", "--figure", tmp_path / "out.png")
    status, out, err = run("inspect", "example:large", "--dimension-sample", 30, *outputs)
    assert (status, err) == (0, "") and (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert out == embgeom.inspect(embgeom.load("example:large"), dimension_sample=30).summary() + "\n"
    assert (tmp_path / "out" / "inspection.json").is_file()


def test_inspect_with_wordnet(run, refused, tmp_path, monkeypatch):
    # The classes are those that the inspection found.
    monkeypatch.delattr(sys.modules["embgeom.comparison.coherence"], "classify")
    folder = write_wordnet(tmp_path / "wordnet")
    command = ("inspect", "example:small", "--dimension-sample", 5, "--quiet", "-o", tmp_path / "out")
    for more in ((), ("--overwrite",)):
        code, out, _ = run(*command, "--wordnet", folder, "--dimension-k", 8, *more)
        assert code == 0 and "lexicographer file" in out
    found = Coherence.load(tmp_path / "out" / "coherence.safetensors")
    assert found.k == 8 and found.summary() in out
    assert "has no synsets.tsv" in refused("inspect", "example:small", "--wordnet", tmp_path)


def test_neighbors(run):
    status, out, err = run("neighbors", "example:small", " king", " red", "-k", 5)
    assert (status, err) == (0, "")
    model = embgeom.load("example:small")
    rows = [model.row_of(word) for word in (" king", " red")]
    assert out == "\n".join(embgeom.inspect_token(model, row, k=5).summary() + "\n" for row in rows)
    assert run("neighbors", "example:small", "--row", *rows, "-k", 5)[1] == out
    # The piece of a word is not silently taken for the word.
    piece, word = run("neighbors", "example:small", "king")[1], model.row_of(" king")
    assert piece.endswith(
        "\n' king', with a space, is another token: embgeom neighbors example:small ' king'\n"
    )
    assert model.row_of("king") != word
    status, euclidean, _ = run("neighbors", "example:small", " king", "--metric", "euclidean")
    assert status == 0 and "distance" in euclidean
    assert "inner product" in run("neighbors", "example:small", " king", "--metric", "inner_product")[1]


def test_neighbors_in_two_models(run, refused, tmp_path, monkeypatch):
    status, out, err = run("neighbors", *EXAMPLES, "king", "queen", "-k", 5)
    assert (status, err) == (0, "")
    found = [embgeom.inspect_token(EXAMPLES, token, k=5).summary() + "\n" for token in ("king", "queen")]
    assert out == "\n".join(found)
    assert (
        "' king', with a space, is another token: embgeom neighbors example:small example:large ' king'"
        in out
    )
    # A folder that holds no model is a token, and so is the last argument.
    (tmp_path / "king").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run("neighbors", "example:small", "king", "queen", "-k", 5)[0] == 0
    write_folder(tmp_path / "king", {TENSOR: matrix(ROWS, 6)})
    # A model without the token is left out, and a line says so.
    status, out, err = run("neighbors", "example:small", "king", "queen", "-k", 5)
    assert (status, err) == (0, "") and "A: example:small" in out and "in all of them" not in out
    assert "note: 'queen' is not a token of king (" in out
    assert "'zzqq' is not a token of example:small" in refused("neighbors", "example:small", "king", "zzqq")
    assert "is not a token of example:small" in refused("neighbors", "example:small", "example:large")
    assert "did you mean example:large?" in refused("neighbors", "example:small", "exmaple:large", "king")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "nobody/nothing" in refused("neighbors", "example:small", "nobody/nothing", "queen")
    assert run("neighbors", "example:small", " king", "--no-center", "-k", 3)[1].count("centered") == 0


def test_the_example_models(run, refused):
    # Progress is printed on a machine that takes a minute for it.
    status, out, err = run("compare", *EXAMPLES, "--quiet")
    assert (status, err) == (0, "")
    assert "A: example:small" in out and " shared tokens have in common" in out
    status, out, _ = run("neighbors", "example:small", " king", "-k", 3)
    assert status == 0 and "nearest rows of ' king'" in out and "' King'" in out
    status, out, _ = run("inspect", "example:large", "--which", "output")
    assert status == 0 and "lm_head.weight, stored as F16\n" in out
    assert "no example 'medium'; the models that come with the package are example:small and" in refused(
        "inspect", "example:medium"
    )


def test_tensors_and_tokens_by_name(run, tmp_path, refused):
    folder = write_folder(tmp_path / "odd", {"weights": matrix(ROWS, 6), "others": matrix(ROWS, 6, seed=1)})
    status, out, _ = run("inspect", folder, "--tensor", "others")
    assert status == 0 and "others, stored as F32" in out
    assert "no tensor weight; it holds weights, others" in refused("inspect", folder, "--tensor", "weight")
    np.save(tmp_path / "bare.npy", matrix(ROWS, 6))
    assert "has no tokens beside it" in refused("inspect", tmp_path / "bare.npy")
    (tmp_path / "list.txt").write_text("\n".join(words(ROWS)), encoding="utf-8")
    status, out, _ = run("inspect", tmp_path / "bare.npy", "--vocabulary", tmp_path / "list.txt")
    assert status == 0 and "w7" in out


def test_markup_is_printed_as_it_is(run, tmp_path):
    hard = ["[bold]", "[/]", "[red]x[/red]", "\\[", ":smile:", "\x1b[31m", "[link=http://x]"]
    file = save_npz(tmp_path / "[bold]m.npz", matrix(12, 4), [*hard, *(f"w{i}" for i in range(5))])
    status, out, _ = run("neighbors", file, *hard, "-k", 11)
    assert status == 0
    for token in hard:
        assert out.count(repr(token)) == len(hard)
    assert "[bold]m" in out and "\x1b" not in out
    assert run("inspect", file)[0] == run("compare", file, file)[0] == 0


@pytest.mark.parametrize("command", ["compare", "inspect", "neighbors"])
def test_help(run, command):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    assert f"usage: embgeom {command}" in out and "--metric" in out and "--debug" in out


def test_help_and_version(run):
    status, out, _ = run("--help")
    assert status == 0 and all(command in out for command in ("demo", "compare", "inspect", "neighbors"))
    assert run() == (0, out, "")
    assert run("--version") == (0, f"embgeom {embgeom.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measure"], "measure"),
        (["compare", "one"], "B"),
        (["inspect", "one", "--metric", "manhattan"], "manhattan"),
        (["compare", "a", "b", "-k", "ten"], "ten"),
        (["inspect", "one", "--variance"], "--variance"),
        (["inspect", "one", "--no-such-option"], "--no-such-option"),
    ],
)
def test_arguments_that_do_not_parse(refused, arguments, message):
    line = refused(*arguments)
    assert message in line and "--help)" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-k", 40], "k = 40 is outside [1, 39]"),
        (["-k", -3], "k = -3"),
        (["--dimension-k", 40], "dimension_k = 40 is outside [1, 39]"),
        (["--dimension-sample", 0], "dimension_sample = 0 must be at least 1"),
        (["--variance", 95], "variance = 95.0"),
        (["--variance", "nan"], "variance = nan"),
        (["--reg", -1], "reg = -1.0"),
        (["--seed", -1], "seed = -1"),
        (["--threads", 0], "threads = 0"),
        (["--html", "/proc/no/such.html"], "there is no folder /proc/no"),
        (["--csv", "/proc/no/such.csv"], "there is no folder /proc/no"),
        (["--figure", "out.gif"], "out.gif has the suffix '.gif'"),
        (["--relabelings", 1], "relabelings = 1 must be at least 20"),
        (["-o", "/proc/no/such"], "cannot write /proc/no/such"),
        (["-o", "/dev/null"], "/dev/null is a file"),
        (["-o", ""], "the name of the output is empty"),
    ],
)
def test_values_that_do_not_fit(refused, small, options, message):
    assert message in refused("compare", small, small, *options)


def test_outputs_are_checked_before_the_models_are_read(refused, small, tmp_path, monkeypatch):
    def load(*args, **options):
        pytest.fail("loaded a model whose results could not be written")

    monkeypatch.setattr("embgeom.load", load)
    (tmp_path / "notes.txt").touch()
    for arguments in (["compare", small, small], ["inspect", small]):
        assert "holds something already" in refused(*arguments, "-o", tmp_path)
        assert "also holds" in refused(*arguments, "-o", tmp_path, "--overwrite")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow" in refused("inspect", small, "-o", tmp_path / "new", "--table-format", "parquet")


@pytest.mark.parametrize("command", [["compare", "a", "b"], ["inspect", "a"], ["diff", "a", "b"]])
@pytest.mark.parametrize("option", [["--table-format", "csv"], ["--overwrite"]])
def test_options_of_a_folder_are_refused_without_one(refused, command, option):
    assert f"{option[0]} is of no use without -o: name a folder" in refused(*command, *option)


def test_models_that_cannot_be_read(refused, small, tmp_path):
    missing = tmp_path / "missing"
    assert f"{missing}: no such file or folder" in refused("compare", small, missing)
    damaged = write_folder(tmp_path / "damaged", {TENSOR: matrix(ROWS, 6)})
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors" in refused("inspect", damaged)
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("inspect", tmp_path / "empty")


def test_nan_is_told_with_its_row_and_token(refused, tmp_path):
    x = matrix(ROWS, 6)
    x[17, 3] = np.nan
    folder = write_folder(tmp_path / "model", {TENSOR: x})
    line = refused("inspect", folder)
    assert "row 17" in line and "w17" in line and "NaN" in line


def test_tokens_that_are_not_there(refused, small):
    line = refused("neighbors", small, "w7x")
    assert "'w7x' is not a token of small (40 rows); close in spelling: " in line and "' w7'" in line
    assert "row 40 is outside small, whose rows are 0 to 39" in refused("neighbors", small, "--row", 40)
    assert "row -1 is outside" in refused("neighbors", small, "--row", -1)
    # A wrong number is told before a right one is looked up.
    assert "'w3' is not a row number" in refused("neighbors", small, "--row", 3, "w3")


def test_models_that_share_too_little(refused, small, tmp_path):
    other = write_folder(
        tmp_path / "other", {TENSOR: matrix(20, 4)}, tokens=tokenizer(list("abcdefghijklmnopqrst"))
    )
    assert "small and other share 0 tokens" in refused("compare", small, other)


def test_models_without_angles(refused, small, tmp_path):
    flat = write_folder(tmp_path / "flat", {TENSOR: np.ones((ROWS, 6), dtype=np.float32)})
    assert "all pairs of rows of the second matrix" in refused("compare", small, flat, "--with", "all")


def test_debug_shows_where_an_error_arose(run, small):
    status, out, told = run("compare", small, small, "-k", "40", "--debug")
    assert (status, out) == (2, "")
    assert told.startswith("Traceback") and "InputError: k = 40" in told


def test_a_bug_is_told_in_a_line(run, small, monkeypatch):
    class Panic(BaseException):
        """What a library in Rust raises: no Exception."""

    for error in (KeyError("x"), RecursionError("too deep"), Panic("byte index 20 is out of bounds")):

        def fail(*args, error=error, **options):
            raise error

        monkeypatch.setattr("embgeom.inspect", fail)
        status, out, told = run("inspect", small)
        assert (status, out) == (1, "")
        assert told.startswith(f"embgeom: this is a bug in embgeom ({type(error).__name__}: {error}); ")
        assert told.endswith("; please report it with what --debug prints\n") and told.count("\n") == 1
        assert "Traceback" in run("inspect", small, "--debug")[2]


def test_a_stream_of_python_takes_the_output(small):
    # Such a stream has no encoding.
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["neighbors", small, "w3", "-k", "3"]) == 0
    assert "nearest rows of ' w3' (row 3) in small" in out.getvalue() and "─" in out.getvalue()


def test_arguments_with_nul(refused):
    assert refused("inspect", "a\0b") == (
        "embgeom: 'a\\x00b' holds a NUL character, which no argument can (see embgeom --help)\n"
    )


def test_memory_that_does_not_suffice(refused, small, monkeypatch):
    def fail(*args, **options):
        raise MemoryError

    monkeypatch.setattr("embgeom.inspect", fail)
    assert refused("inspect", small) == "embgeom: out of memory\n"


def test_an_interrupt_is_no_error(run, small, tmp_path, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("embgeom.inspect", interrupt)
    assert run("inspect", small, "-o", tmp_path / "out") == (
        130,
        "",
        "embgeom: interrupted\n",
    )
    assert not (tmp_path / "out").exists()


def test_the_cache_is_used_listed_and_cleared(run, refused, own_cache):
    small = ("inspect", "example:small", "--dimension-sample", 20, "--dimension-k", 30)
    status, plainly, err = run(*small, "--no-cache")
    assert (status, err) == (0, "") and not own_cache.exists()
    folder = own_cache / "embgeom-results"
    status, out, _ = run("cache")
    assert (status, out) == (0, f"0 results; {folder} holds 0.0 KiB of at most 4.0 GiB\n")
    assert run(*small) == (0, plainly, "")
    read = "embgeom: read from the cache: 4 results; --no-cache computes them again\n"
    assert run(*small) == (0, plainly, read) and run(*small, "--quiet") == (0, plainly, "")
    run("inspect", "example:large", "--dimension-sample", 20, "--dimension-k", 30)
    assert len(list(folder.iterdir())) == 8
    _, out, _ = run("cache")
    assert "example:small" in out and "example:large" in out and "8 results" in out
    # Summed by model, or each of those of one.
    assert out.count("example:small") == 1 and "intrinsic_dimension" not in out
    _, out, _ = run("cache", "--model", "small")
    assert "example:large" not in out and "4 results;" in out
    assert "intrinsic_dimension(k=30, 20 rows: " in out
    assert run("cache", "--clear", "--unused-for", 1)[1].startswith("0 results removed")
    assert run("cache", "--clear", "--model", "small")[1].startswith(f"4 results removed from {folder}, ")
    next(folder.iterdir()).write_text("damaged")
    assert run("cache", "--clear")[1].startswith(f"4 results removed from {folder}, ")
    assert not any(folder.iterdir())
    assert "unused-for" in refused("cache", "--unused-for", "-1")


def test_damage_in_the_cache_is_reported_in_a_line(run, own_cache):
    small = ("inspect", "example:small", "--dimension-sample", 20, "--dimension-k", 30)
    before = run(*small)
    path = next((own_cache / "embgeom-results").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    status, out, err = run(*small)
    assert (status, out) == before[:2]
    warning, read = err.splitlines()
    assert warning.startswith("embgeom: warning: ") and "is damaged" in warning
    assert "read from the cache: 3 results" in read
    assert run(*small)[:2] == before[:2]


def test_a_comparison_says_what_it_read(run):
    pair = ("compare", "example:small", "example:large", "--dimension-sample", 20, "--dimension-k", 30)
    status, plainly, err = run(*pair)
    assert (status, err) == (0, "")
    read = "embgeom: read from the cache: 8 results; --no-cache computes them again\n"
    assert run(*pair) == (0, plainly, read)


def test_the_cache_of_another_folder(run, tmp_path):
    folder = tmp_path / "mine"
    with embgeom.use_cache(folder) as cached:
        cached(embgeom.knn, embgeom.load("example:small"), 5, rows=[3])
    _, out, _ = run("cache", "--folder", folder, "--model", "small")
    assert "example:small" in out and "knn(k=5, 1 row: 3)" in out and f"1 result; {folder} holds" in out
    assert run("cache")[1].startswith("0 results; ")
    assert run("cache", "--folder", folder, "--clear")[1].startswith(f"1 result removed from {folder}, 1")
    assert not any(folder.iterdir())
    status, _, err = run("cache", "--folder", "a" * 300)
    assert status == 2 and err.startswith("embgeom: 'aaa") and "names no folder for results" in err


def test_options_are_written_out_and_errors_name_the_command(capsys):
    for arguments, told in (
        (["neighbors", "example:small", "--toke", "king"], "unrecognized arguments: --toke"),
        (["inspect", "example:small", "--fig", "x.svg"], "unrecognized arguments: --fig"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        assert told in error and f"(see embgeom {arguments[0]} --help)" in error


def test_what_the_tables_say_is_not_warned_of_again(run, monkeypatch):
    whole = embgeom.compare

    def compare(*models, **options):
        warnings.warn("global_similarity is that of a class", MadeByClasses, stacklevel=2)
        warnings.warn("global_similarity is odd", embgeom.EmbgeomWarning, stacklevel=2)
        return whole(*models, **options)

    monkeypatch.setattr(embgeom, "compare", compare)
    asked = ("-k", "3", "--dimension-sample", "5", "--dimension-k", "5", "--quiet")
    _, _, err = run("compare", *EXAMPLES, *asked)
    assert err == "embgeom: warning: global_similarity is odd\n"
