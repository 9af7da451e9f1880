"""The house rules that a test can enforce."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

import embgeom

ROOT = Path(__file__).resolve().parents[2]
CPP = sorted([*ROOT.glob("cpp/**/*.hpp"), *ROOT.glob("cpp/**/*.cpp")])
PYTHON = sorted(ROOT.glob("python/**/*.py"))
SOURCES = [
    *CPP,
    *PYTHON,
    *(
        path
        for home in ("tests", "benchmarks", "training", "docs")
        for path in sorted(ROOT.glob(f"{home}/**/*.py"))
    ),
]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(embgeom.__path__, "embgeom.")
    if info.name.rsplit(".", maxsplit=1)[-1] not in ("_core", "__main__")
)
MOST_LINES = 500
MOST_LINES_OF_A_BODY = 60
MOST_PARAMETERS = 12
MOST_FOLDERS = 14
Function = ast.FunctionDef | ast.AsyncFunctionDef


def code(path: Path) -> str:
    """C++ without its comments, which may name what the code must not use."""
    return re.sub(r"//.*", "", path.read_text(encoding="utf-8"))


def files_with(pattern: str) -> set[str]:
    return {path.stem for path in CPP if re.search(pattern, code(path))}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def test_the_sources_are_found():
    assert len(CPP) > 20 and len(PYTHON) > 20


def test_openmp_stays_in_its_file():
    assert files_with(r"#pragma omp|omp\.h|\bomp_\w+\(") == {"parallel"}


def test_blas_stays_in_its_file():
    assert files_with(r"\b[sd](gemm|syrk|posv|pstrf|syevd|sytrd|sterf)_|cblas|(?i:lapack)") == {"blas"}


def test_kernels_do_not_know_python():
    with_python = {path.parent.name for path in CPP if "pybind11" in code(path) or "Python.h" in code(path)}
    assert with_python == {"bindings"}


def test_folders_of_kernels_are_alike_and_include_downward():
    below = {
        "base": {"base"},
        "linalg": {"base", "linalg"},
        "knn": {"base", "linalg", "knn"},
        "neighborhoods": {"base", "linalg", "neighborhoods"},
        "similarity": {"base", "linalg", "similarity"},
    }
    kernels = [path for path in CPP if path.parent.name != "bindings"]
    assert {path.parent.name for path in kernels} == set(below)
    for path in kernels:
        folders = re.findall(r'#include "embgeom/(\w+)/\w+\.hpp"', code(path))
        assert set(folders) <= below[path.parent.name], path
        header = ROOT / "cpp/include/embgeom" / path.parent.name / f"{path.stem}.hpp"
        assert header.is_file() or path.stem.startswith("product_avx"), path


def test_tuned_constants_name_a_benchmark_that_exists():
    named = {name for path in CPP for name in re.findall(r"benchmarks/[\w/]+\.py", path.read_text("utf-8"))}
    assert len(named) >= 5
    assert all((ROOT / name).is_file() for name in named)


@pytest.mark.parametrize("name", ["comparison/nulls.py: FEW_NEIGHBORHOODS"])
def test_tuned_constants_of_python_name_a_benchmark_that_exists(name):
    file, constant = name.split(": ")
    text = (ROOT / "python/embgeom" / file).read_text(encoding="utf-8")
    found = re.search(rf"((?:^ *#.*\n)+)^ *{constant}\b.* = ", text, re.MULTILINE)
    assert found
    named = re.findall(r"benchmarks/[\w/]+\.py", found[1])
    assert named and all((ROOT / benchmark).is_file() for benchmark in named)


def test_the_module_file_is_a_table_of_contents():
    text = code(ROOT / "cpp/bindings/module.cpp")
    assert ".def(" not in text and len(text.splitlines()) < 50


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def length_of_body(function: Function) -> int:
    """Lines of a function's body without its docstring and without the bodies of functions inside it."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    inner = {
        line
        for node in ast.walk(function)
        if isinstance(node, Function) and node is not function
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return len(set(range(body[0].lineno, (body[-1].end_lineno or 0) + 1)) - inner) if body else 0


def test_functions_are_short():
    long = {
        f"{name_of(path)}: {function.name}": length
        for path in PYTHON
        for function in functions(path)
        if (length := length_of_body(function)) > MOST_LINES_OF_A_BODY
    }
    assert not long


def test_signatures_are_short():
    def parameters(function: Function) -> int:
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        return sum(argument.arg not in ("self", "cls") for argument in named)

    long = {
        f"{name_of(path)}: {function.name}": count
        for path in PYTHON
        for function in functions(path)
        if (count := parameters(function)) > MOST_PARAMETERS
    }
    assert not long


def test_private_docstrings_are_one_line():
    long = [
        f"{name_of(path)}: {function.name}"
        for path in PYTHON
        for function in functions(path)
        if re.match(r"_(?!_)", function.name) and "\n" in (ast.get_docstring(function) or "").strip()
    ]
    assert not long


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_asserts_check_no_input(path):
    # Python drops assert statements under -O, so they cannot guard anything in the package.
    assert not [node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Assert)]


def test_one_file_decides_on_memory_layout():
    layout = re.compile(r"ascontiguousarray|asfortranarray|np\.require\(")
    assert [p.name for p in PYTHON if layout.search(p.read_text(encoding="utf-8"))] == ["arrays.py"]


def test_the_package_has_few_folders():
    home = ROOT / "python/embgeom"
    folders = {path.name for path in home.iterdir() if (path / "__init__.py").is_file()}
    files = {path.name for path in home.iterdir() if path.suffix in (".py", ".pyi")}
    assert len(folders) <= MOST_FOLDERS
    assert files == {"__init__.py", "__init__.pyi", "__main__.py", "_core.pyi", "errors.py"}


def test_imports_run_downward():
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed")
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    # The contracts are about the sources here, wherever else the package is installed.
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr


def test_no_import_of_our_own_is_deferred():
    # A deferred import hides a circle. The root defers what it offers, so that importing it stays quick.
    def own(node: ast.AST) -> bool:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        return any(name.split(".")[0] == "embgeom" for name in names)

    deferred = [
        f"{name_of(path)}:{node.lineno}"
        for path in PYTHON
        if path != ROOT / "python/embgeom/__init__.py"
        for function in functions(path)
        for node in ast.walk(function)
        if own(node)
    ]
    assert not deferred


def test_nothing_inside_imports_the_root():
    above = [
        f"{name_of(path)}:{node.lineno}"
        for path in PYTHON
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        and node.module == "embgeom"
        and {alias.name for alias in node.names} & set(embgeom.__all__) - {"errors", "examples"}
    ]
    assert not above


def test_the_public_names_are_those_that_help_lists():
    assert [name for name in dir(embgeom) if not name.startswith("__")] == sorted(
        name for name in embgeom.__all__ if not name.startswith("__")
    )


def test_the_version_is_one():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'version = "{embgeom.__version__}"' in project
    assert re.search(r"^## (\S+)", changes, re.MULTILINE).group(1) == embgeom.__version__


def test_the_stub_is_fresh(tmp_path):
    pytest.importorskip("pybind11_stubgen", reason="pybind11-stubgen is not installed")
    command = [sys.executable, "-m", "pybind11_stubgen", "embgeom._core", "-o", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    fresh = (tmp_path / "embgeom" / "_core.pyi").read_text(encoding="utf-8")
    committed = (ROOT / "python/embgeom/_core.pyi").read_text(encoding="utf-8")
    assert committed == fresh, "run: pybind11-stubgen embgeom._core -o python"


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(set(embgeom.__all__) - {"__version__"}))
def test_public_functions_show_an_example(name):
    thing = getattr(embgeom, name)
    assert thing.__doc__
    if callable(thing) and not isinstance(thing, type):
        assert "Examples\n" in thing.__doc__ and ">>>" in thing.__doc__


HOMES = (
    "",
    "comparison",
    "emb2emb",
    "evaluation",
    "examples",
    "examples.moods",
    "hidden_states",
    "steering",
    "studies",
)


@pytest.mark.parametrize("home", HOMES)
def test_public_names_are_documented(home):
    module = importlib.import_module(f"embgeom.{home}".rstrip("."))
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    things = {name: getattr(module, name) for name in names if name != "__version__"}
    own = {
        name: thing
        for name, thing in things.items()
        if getattr(thing, "__module__", "").startswith("embgeom")
    }
    methods = {
        f"{name}.{member}": getattr(thing, member)
        for name, thing in own.items()
        if isinstance(thing, type)
        for kind in thing.__mro__
        if kind.__module__.startswith("embgeom")
        for member, value in vars(kind).items()
        if not member.startswith("_")
        and (callable(value) or isinstance(value, property | cached_property | classmethod))
    }
    assert own and not [name for name, thing in (own | methods).items() if not inspect.getdoc(thing)]
