"""What results look like where a person meets them: in a notebook and in tables."""

from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom.cli.terminal import show

ROWS, WIDTH = 60, 6


def model(seed, name):
    x = np.random.default_rng(seed).standard_normal((ROWS, WIDTH)).astype(np.float32)
    return embgeom.Embeddings.from_array(x, [f"word{i}" for i in range(ROWS)], name=name)


def results():
    a, b = model(0, "left"), model(1, "right")
    neighbors = embgeom.knn(a.matrix, 4)
    return {
        "Embeddings": a,
        "Neighbors": neighbors,
        "LLE": embgeom.lle(a.matrix, neighbors),
        "IntrinsicDimension": embgeom.intrinsic_dimension(a.matrix, neighbors),
        "RowStats": embgeom.row_stats(a.matrix),
        "Match": embgeom.match(a, b),
        "Comparison": embgeom.compare(a, b, k=4, dimension_k=50),
        "Inspection": embgeom.inspect(a),
        "TokenNeighborhood": embgeom.inspect_token(a, "word3", k=4),
    }


@pytest.mark.parametrize("kind", results())
def test_a_result_is_one_line_in_a_notebook(kind):
    line = repr(results()[kind])
    assert line.startswith(f"{kind}(") and "\n" not in line and len(line) < 300


def test_numbers_that_mean_little_come_with_a_caution():
    # With 50 neighbors in 6 columns every dimension is the largest possible, and correlates with nothing.
    summary = " ".join(results()["Comparison"].summary().split())
    assert "undefined: dimension_pearson, dimension_spearman (constant values" in summary
    assert "Most dimensions in A and B come near the highest possible, 6 and 6" in summary
    assert "more neighbors (dimension_k=, --dimension-k) raise the limit" in summary


def test_the_caution_names_the_model_it_is_about():
    a = model(0, "left")
    flat = embgeom.Embeddings.from_array(a.matrix * [1, 1, 1e-3, 1e-3, 1e-3, 1e-3], a.tokens, name="flat")
    assert (
        "Most dimensions in B come near the highest possible, 6:"
        in embgeom.compare(flat, a, k=4, dimension_k=50).summary()
    )
    # Where all other rows are neighbors already, no more are suggested.
    summary = embgeom.inspect(a, dimension_k=ROWS - 1).summary()
    assert "Most dimensions come near the highest possible, 6:" in summary and "more neighbors" not in summary


def test_notes_on_a_matrix_are_printed_under_its_table(capsys):
    plain = model(0, "left")
    noted = replace(plain, provenance=replace(plain.provenance, notes=("rows are \x1b[1m scaled",)))
    show(embgeom.compare(noted, model(1, "right"), k=4).tables())
    out = capsys.readouterr().out
    assert "A: left: rows are \\x1b[1m scaled" in out and "B: right: " not in out
