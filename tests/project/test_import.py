"""Importing embgeom is light, starts nothing, and gets on with torch in either order."""

import ast
import importlib
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import embgeom

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def run(body):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_no_heavy_imports():
    done = run("""
        import sys
        import embgeom
        heavy = {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "pyarrow", "rich",
                 "matplotlib", "pandas", "scipy", "sklearn"}
        print(sorted(heavy & {name.partition(".")[0] for name in sys.modules}))
    """)
    assert done.stdout == "[]\n" and done.stderr == ""


def test_kernels_need_no_heavy_imports():
    run("""
        import sys
        import numpy as np
        import embgeom
        x = np.random.default_rng(0).standard_normal((40, 6))
        neighbors = embgeom.knn(x, 5)
        embgeom.lle(x, neighbors)
        embgeom.intrinsic_dimension(x, neighbors)
        embgeom.global_similarity(x, x)
        for name in ("torch", "transformers", "tokenizers", "huggingface_hub"):
            assert name not in sys.modules, name
    """)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_no_threads_before_the_first_call():
    run("""
        import os
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # NumPy's own BLAS starts threads when it is loaded
        import numpy
        del os.environ["OPENBLAS_NUM_THREADS"]
        before = len(os.listdir("/proc/self/task"))
        import embgeom
        assert len(os.listdir("/proc/self/task")) == before
        assert "OPENBLAS_NUM_THREADS" not in os.environ
    """)


def test_the_settings_of_numpy_stay_as_they_were():
    run("""
        import numpy as np
        errors, options = np.geterr(), np.get_printoptions()
        import embgeom
        embgeom.knn(np.eye(4), 2)
        assert np.geterr() == errors and np.get_printoptions() == options
        # A library built with fast-math would flush subnormal numbers of the whole process to zero.
        assert np.float32(1e-40) * np.float32(0.5) > 0 and np.float64(1e-310) * 0.5 > 0
    """)


@needs_torch
@pytest.mark.parametrize("order", ["import torch; import embgeom", "import embgeom; import torch"])
def test_beside_torch(order):
    # Both bring OpenMP and BLAS into one process: each must go on giving right answers from several threads.
    run(f"""
        import numpy as np
        {order}
        torch.set_num_threads(2)
        x = np.random.default_rng(0).integers(-5, 6, (600, 64)).astype(np.float32)
        products = x.astype(np.float64) @ x.astype(np.float64).T
        np.fill_diagonal(products, -np.inf)
        expected = np.argsort(-products, axis=1, kind="stable")[:, :8]
        for _ in range(3):
            assert (embgeom.knn(x, 8, metric="inner_product", threads=2).indices == expected).all()
            t = torch.from_numpy(x)
            np.testing.assert_array_equal(torch.diag(t @ t.T).numpy(), (x * x).sum(axis=1))
            assert torch.linalg.eigvalsh(t.T @ t).shape == (64,)
    """)


def test_the_types_of_the_root_are_those_of_its_names():
    stub = ast.parse((Path(embgeom.__file__).parent / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    listed = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert set(embgeom.__all__) <= set(listed) == {*homes, "__version__"}
    for name, home in homes.items():
        module = importlib.import_module(home)
        assert getattr(embgeom, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        embgeom.nothing  # noqa: B018
