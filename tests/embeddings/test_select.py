"""Some rows of an Embeddings."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom import InputError


def pets():
    x = np.array([[1, 0], [0, 1], [1, 0], [0, 0], [1, 0]], dtype=np.float32)
    return embgeom.Embeddings.from_array(
        x, ["▁cat", "▁dog", "cat", "s", "</s>"], special=["</s>"], name="pets"
    )


@pytest.mark.parametrize("rows", [[4, 2, 1], np.array([4, 2, 1], dtype=np.int32)])
def test_rows_in_the_order_wanted(rows):
    model, part = pets(), pets().select(rows)
    np.testing.assert_array_equal(part.matrix, model.matrix[[4, 2, 1]])
    assert part.tokens == ["</s>", "cat", "▁dog"] and part.token_bytes == [None, b"cat", b" dog"]
    assert part.special.tolist() == [True, False, False]
    assert part.row_of("dog") == 2
    assert part.provenance.notes == ("3 of 5 rows selected",)
    assert part.name == "pets" and not part.matrix.flags.writeable


def test_a_mask_keeps_the_order():
    part = pets().select(np.array([False, True, True, True, True]))
    assert part.tokens == ["▁dog", "cat", "s", "</s>"]


def test_the_rows_stats_are_those_of_the_part():
    for rows in ([0, 1, 2, 3, 4], [2, 4, 1], [4, 0, 2], [3, 1]):
        part = pets().select(rows)
        again = embgeom.row_stats(part.matrix)
        np.testing.assert_array_equal(part.row_stats.norms, again.norms)
        np.testing.assert_array_equal(part.row_stats.first_equal, again.first_equal)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 0], "rows names 2 rows of pets, 1 of them different"),
        ([5], "rows.0. = 5 is not a row"),
        ([], "at least one"),
        (np.zeros(5, dtype=bool), "at least one"),
        (np.ones(4, dtype=bool), r"a mask of shape \(4,\) for 5 rows of pets"),
        ([0.5], "integers"),
    ],
)
def test_rows_that_are_not_there(rows, message):
    with pytest.raises(InputError, match=message):
        pets().select(rows)


def test_a_selection_is_saved_and_compared(tmp_path):
    model = embgeom.load("example:small")
    part = model.select(~model.special)
    part.save(tmp_path / "part.safetensors")
    again = embgeom.load(tmp_path / "part.safetensors")
    assert len(again) == 4095 and "4095 of 4096 rows selected" in again.summary()
    assert len(embgeom.match(part, embgeom.load("example:large"))) == 4095
