"""What the compiled extension says about itself."""

from pathlib import Path

import pytest

from embgeom._common.native import core


def test_instructions_are_those_of_the_processor():
    flags = Path("/proc/cpuinfo")
    if not flags.exists():
        pytest.skip("the processor's flags are known on Linux only")
    words = flags.read_text(encoding="utf-8").split()
    needed = {"avx512": {"avx512f", "avx2", "fma"}, "avx2": {"avx2", "fma"}, "base": set()}
    assert needed[core.instruction_set()] <= set(words)
