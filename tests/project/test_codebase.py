"""The house rules that a test can enforce."""

from __future__ import annotations

import ast
import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import embgeom

ROOT = Path(__file__).resolve().parents[2]
CPP = sorted([*ROOT.glob("cpp/**/*.hpp"), *ROOT.glob("cpp/**/*.cpp")])
PYTHON = sorted(ROOT.glob("python/**/*.py"))
SOURCES = [
    *CPP,
    *PYTHON,
    *(path for home in ("tests", "benchmarks", "training") for path in sorted(ROOT.glob(f"{home}/**/*.py"))),
]
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(embgeom.__path__, "embgeom.")
    if info.name.rsplit(".", maxsplit=1)[-1] not in ("_core", "__main__")
)


def code(path: Path) -> str:
    """C++ without its comments, which may name what the code must not use."""
    return re.sub(r"//.*", "", path.read_text(encoding="utf-8"))


def files_with(pattern: str) -> set[str]:
    return {path.stem for path in CPP if re.search(pattern, code(path))}


def test_the_sources_are_found():
    assert len(CPP) > 20 and len(PYTHON) > 20


def test_openmp_stays_in_its_file():
    assert files_with(r"#pragma omp|omp\.h|\bomp_\w+\(") == {"parallel"}


def test_blas_stays_in_its_file():
    assert files_with(r"\b[sd](gemm|syrk|posv|pstrf|syevd|sytrd|sterf)_|cblas|(?i:lapack)") == {"blas"}


def test_kernels_do_not_know_python():
    with_python = {path.parent.name for path in CPP if "pybind11" in code(path) or "Python.h" in code(path)}
    assert with_python == {"bindings"}


def test_the_module_file_is_a_table_of_contents():
    text = code(ROOT / "cpp/bindings/module.cpp")
    assert ".def(" not in text and len(text.splitlines()) < 50


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 350


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_asserts_check_no_input(path):
    # Python drops assert statements under -O, so they cannot guard anything in the package.
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_one_file_decides_on_memory_layout():
    layout = re.compile(r"ascontiguousarray|asfortranarray|np\.require\(")
    assert [p.name for p in PYTHON if layout.search(p.read_text(encoding="utf-8"))] == ["arrays.py"]


def imported(path: Path, base: str) -> set[str]:
    """The parts of the package `base`, files or folders, that a file imports when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {
        f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    return {name.removeprefix(f"{base}.").split(".")[0] for name in names if name.startswith(f"{base}.")}


@pytest.mark.parametrize("base", ["embgeom", "embgeom.loading"])
def test_imports_run_one_way(base):
    home = ROOT / "python" / base.replace(".", "/")
    parts: dict[str, set[str]] = {}
    for path in home.rglob("*.py"):
        part = path.relative_to(home).with_suffix("").parts[0]
        if part != "__init__":
            parts.setdefault(part, set()).update(imported(path, base) - {part})
    assert len(parts) > 15
    # It raises an error that names the circle.
    list(TopologicalSorter(parts).static_order())


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
