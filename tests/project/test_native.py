"""What the compiled extension says about itself."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embgeom._common import native
from embgeom._common.native import core


def test_instructions_are_those_of_the_processor():
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("the processor's flags are known on Linux only")
    words = flags.read_text(encoding="utf-8").split()
    needed = {"avx512": {"avx512f", "avx2", "fma"}, "avx2": {"avx2", "fma"}, "base": set()}
    assert needed[core.instruction_set().split(", ")[0]] <= set(words)


def test_instructions_name_the_kernels_of_the_blas():
    code = "from embgeom._common.native import core; print(core.instruction_set())"
    if "OpenBLAS" not in core.instruction_set() or core.instruction_set().startswith("base"):
        pytest.skip("only OpenBLAS chooses its kernels by OPENBLAS_CORETYPE, and these need AVX2")
    environment = os.environ | {"OPENBLAS_CORETYPE": "Haswell"}
    said = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip()
    assert said.split(", ")[0] == core.instruction_set().split(", ")[0]
    assert re.fullmatch(r"\w+, OpenBLAS [\d.]+\S* Haswell", said)


def test_the_build_is_known_by_its_files(tmp_path, monkeypatch):
    files = native.native_files()
    assert files[0].name.startswith("_core") and len(files) > 1 and "blas" in str(files[1:]).lower()
    digests = {native.build_digest()}
    for changed in files:
        copy = tmp_path / changed.name
        copy.write_bytes(changed.read_bytes() + b"1")
        used = [copy if each == changed else each for each in files]
        monkeypatch.setattr(native, "native_files", lambda used=used: used)
        digests.add(native.build_digest.__wrapped__())
    monkeypatch.undo()
    assert native.build_digest.__wrapped__() in digests and len(digests) == len(files) + 1
    monkeypatch.setattr("importlib.metadata.version", lambda _: "another")
    assert native.build_digest.__wrapped__() not in digests
