"""What a made-up fine-tune moved is found, and what it did not move is not."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

import embgeom
from embgeom import InputError
from embgeom._common.writing import RESULT_FILES
from embgeom.comparison import changes
from embgeom.comparison.changes import _widening
from embgeom.comparison.diff import equal_rows, stored_as
from embgeom.comparison.relabeling import Relation
from embgeom.comparison.saving import FolderResult
from tests.helpers.loading import matrix, write_folder, write_safetensors

SIZE = {"dimension_k": 60}
BASE = embgeom.load("example:small")
MOVED = np.sort(np.random.default_rng(5).choice(np.arange(300, 3000), 30, replace=False))


def of(rows, name="tuned", dtype=None):
    """A model with the tokens of the base."""
    special = [BASE.tokens[row] for row in np.flatnonzero(BASE.special)]
    model = embgeom.Embeddings.from_array(rows, BASE.tokens, name=name, special=special)
    return model if dtype is None else replace(model, provenance=replace(model.provenance, dtype=dtype))


@cache
def perturbed(size=0.3):
    x = BASE.matrix.copy()
    noise = np.random.default_rng(1).standard_normal((len(MOVED), x.shape[1])).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    x[MOVED] += size * np.linalg.norm(x[MOVED], axis=1, keepdims=True) * noise
    return x


def quantized(x, levels=15):
    """Rows in blocks of 32 with a scale and an offset each, as in GGUF's Q4_1 and, with 255, nearly Q8."""
    blocks = x.reshape(len(x), -1, 32)
    low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
    step = np.where(high > low, (high - low) / levels, 1)
    return (np.rint((blocks - low) / step) * step + low).reshape(x.shape).astype(np.float32)


@cache
def found():
    return embgeom.diff(BASE, of(perturbed()), **SIZE)


def test_changed_rows_are_found_and_no_others():
    result = found()
    assert result.ids_tuned[result.status == "changed"].tolist() == MOVED.tolist()
    assert result.status_counts() == {"equal": len(BASE) - 30, "rounding": 0, "noise": 0, "changed": 30}
    assert result.noise.kind == "none" and result.noise.level == 0
    np.testing.assert_allclose(result.change[result.status == "changed"], 0.3, rtol=1e-5)
    x, y = BASE.matrix[MOVED].astype(float), perturbed()[MOVED].astype(float)
    cosine = (x * y).sum(axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(result.cosine[MOVED], cosine, rtol=1e-9)
    assert set(result.most_changed(5).tolist()) <= set(MOVED.tolist())
    assert result.change[result.most_changed(5)].tolist() == sorted(result.change[MOVED].tolist())[:-6:-1]


def test_neighborhoods_are_those_of_the_kernels():
    result = found()
    x = [rows[result.counted] for rows in (BASE.matrix, perturbed())]
    near = [embgeom.knn(each, 60, center=True) for each in x]
    overlap = embgeom.neighbor_overlap(*(each.first(10) for each in near))
    np.testing.assert_array_equal(result.neighbor_overlap, overlap)
    sizes = [embgeom.intrinsic_dimension(each, n).n_components for each, n in zip(x, near, strict=True)]
    np.testing.assert_array_equal(result.dimension_change, sizes[1].astype(int) - sizes[0])
    assert (result.overlap_with_noise == 1).all() and result.overlap_threshold == 1
    means = result.group_means()["neighbor_overlap"]
    changed = np.isin(result.counted, MOVED)
    assert means["changed"].value == result.neighbor_overlap[changed].mean() and means["changed"].n == 30
    assert means["changed"].interval.high < means["unchanged"].interval.low < 1
    assert result.neighbor_overlap[result.most_moved(1)[0]] == result.neighbor_overlap.min()


@pytest.mark.parametrize("to", ["float16", "bfloat16"])
@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_in_another_format_has_not_changed(to, turned):
    x = np.random.default_rng(0).standard_normal((400, 24)).astype(np.float32)
    tokens = [f"▁w{i}" for i in range(400)]
    copy = stored_as(x, to)
    copy[7] += 0.01
    pair = [embgeom.Embeddings.from_array(each, tokens) for each in (x, copy)]
    result = embgeom.diff(*(pair[::-1] if turned else pair), k=5, **SIZE)
    assert result.status_counts() == {"equal": 0, "rounding": 399, "noise": 0, "changed": 1}
    assert result.noise.kind == "rounding" and result.most_changed().tolist() == [7]
    assert to in result.summary() and 0 < result.noise.level < 0.005
    # Means say of how many rows they are, and nothing is said in two empty lines.
    changed = np.count_nonzero(result.status[result.counted] == "changed")
    assert f" {changed} changed rows" in result.summary() and "\n\n\n" not in result.summary()
    # Noise alone is what rounding does to the finer matrix, so that only the changed row adds to it.
    assert (result.overlap_with_noise < 1).any() or to == "float16"
    overlap = result.group_means()["neighbor_overlap"]
    assert overlap["noise"].value > 0.98 and abs(overlap["noise"].value - overlap["unchanged"].value) < 0.01
    assert (result.moved & (np.arange(400) != 7)).mean() < 0.02


def test_rounding_is_to_the_nearest_even():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = np.random.default_rng(0).standard_normal((500, 40)).astype(np.float32)
    x[:250].view(np.uint32)[:] |= np.uint32(0x8000)  # Ties among them.
    x[:125].view(np.uint32)[:] &= np.uint32(0xFFFF8000)
    expected = torch.from_numpy(x).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(stored_as(x, "bfloat16"), expected)
    equal, alike = equal_rows(x, np.vstack([x[:2], stored_as(x[2:], "bfloat16")]))
    exact = (stored_as(x, "bfloat16") == x).all(axis=1)
    assert (
        equal[:2].all() and (equal | alike["base", "bfloat16"]).all() and equal[2:].sum() == exact[2:].sum()
    )
    assert not alike["tuned", "bfloat16"].any() and not alike["base", "float16"].any()


@pytest.mark.parametrize("levels", [15, 255])
def test_quantized_models_are_compared_against_the_bulk(levels):
    copy = of(quantized(perturbed(), levels), dtype="Q4_1")
    result = embgeom.diff(BASE, copy, **SIZE)
    assert result.noise.kind == "bulk" and result.noise.threshold > result.noise.level > 0
    changed = set(result.ids_tuned[result.status == "changed"].tolist())
    assert set(MOVED.tolist()) <= changed
    assert len(changed - set(MOVED.tolist())) <= 1
    assert "That holds if the fine-tune moved fewer than half" in " ".join(result.summary().split())
    # Without the bulk, every row has changed.
    every = embgeom.diff(BASE, copy, noise="rounding", **SIZE)
    assert every.status_counts()["changed"] > 0.99 * len(BASE)


def test_a_bulk_that_is_hardly_noise_warns():
    rng = np.random.default_rng(0)
    x = BASE.matrix.copy()
    moved = rng.random(len(x)) < 0.7
    x[moved] += rng.standard_normal((moved.sum(), x.shape[1])).astype(np.float32) * x[moved].std() * 2
    with pytest.warns(embgeom.EmbgeomWarning, match="may have moved more than half of the rows"):
        embgeom.diff(BASE, of(x), noise="bulk", **SIZE)


def test_a_vocabulary_that_was_resized():
    x = np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    tokens = [f"▁w{i}" for i in range(60)] + [f"<row {row}>" for row in range(60, 64)]
    base = embgeom.Embeddings.from_array(x, tokens, name="base")
    # One token less, two in rows that were empty, three more rows, and the last two words in another order.
    order = [*range(1, 58), 59, 58, 60, 61, 62, 63]
    names = [tokens[row] for row in order]
    names[-2:] = ["<|im_start|>", "<|im_end|>"]
    rows = np.vstack([x[order], np.ones((3, 12)) * [[1], [2], [3]]])
    tuned = embgeom.Embeddings.from_array(rows, [*names, "▁new", "▁newer", "▁newest"], name="tuned")
    result = embgeom.diff(base, tuned, k=5, dimension_k=20, without=())
    assert [tuned.tokens[row] for row in result.added] == [
        "<|im_start|>", "<|im_end|>", "▁new", "▁newer", "▁newest",
    ]  # fmt: skip
    assert [base.tokens[row] for row in result.removed] == ["▁w0", "<row 62>", "<row 63>"]
    assert (result.status == "equal").all() and len(result.status) == 61
    assert [base.tokens[row] for row in result.ids_base] == [tuned.tokens[row] for row in result.ids_tuned]
    assert "5 added tokens" in result.summary()


def test_a_shift_of_all_rows_is_named():
    result = embgeom.diff(BASE, of(BASE.matrix + np.float32(0.01)), **SIZE)
    assert result.common_shift > 0.99 and "is one shift of all rows" in result.summary()
    assert "no row is equal" in result.summary()
    assert result.neighbor_overlap.mean() > 0.999
    same = embgeom.diff(BASE, BASE, **SIZE)
    assert same.common_shift == 0 and (same.status == "equal").all() and not same.moved.any()
    text = same.summary()
    assert f"no row differs: all {len(BASE)} are equal" in text and "neighborhoods" not in text
    assert not same.most_changed().size and not same.most_moved().size


@pytest.mark.parametrize("defined", [0, 1])
def test_intervals_of_values_that_few_tokens_have_are_no_wider(defined):
    values = np.full(30, np.nan)
    values[:defined] = 0.5
    lists = [Relation((np.arange(30)[:, None] + 1) % 30, None)] * 2
    assert _widening(lists, values) == 1.0


def test_how_much_neighbors_widen_intervals_is_measured_once(monkeypatch):
    diff = replace(found())
    means = diff.group_means()
    monkeypatch.setattr(changes, "error_of_lists", None)
    assert diff.group_means() == means and diff.summary()


def test_what_cannot_be_compared():
    with pytest.raises(
        InputError, match="example:small has 128 columns and example:large 192: diff takes one"
    ):
        embgeom.diff(BASE, "example:large")
    other = embgeom.Embeddings.from_array(BASE.matrix, [f"x{i}" for i in range(len(BASE))], name="other")
    with pytest.raises(InputError, match="example:small and other share 0 tokens as their tokenizers write"):
        embgeom.diff(BASE, other)
    with pytest.raises(InputError, match="noise = 'none' is unknown: use one of auto, rounding, bulk"):
        embgeom.diff(BASE, BASE, noise="none")
    with pytest.raises(InputError, match=r"k = 4096 is outside"):
        embgeom.diff(BASE, BASE, k=4096)


def test_it_is_written_and_drawn(tmp_path):
    result = found()
    result.save(tmp_path / "out")
    loaded = embgeom.Diff.load(tmp_path / "out")
    assert loaded.summary() == result.summary() and loaded.to_dict() == result.to_dict()
    lines = (tmp_path / "out" / "tokens.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) > len(BASE) and lines[0].startswith("row_base,row_tuned,token,status,change,cosine")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    result.plot(tmp_path / "out.svg")
    result.to_html(tmp_path / "out.html")
    assert "What changed from example:small" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_the_command(capsys, tmp_path):
    from embgeom.cli.main import main

    path = tmp_path / "tuned.safetensors"
    of(perturbed()).save(path)
    arguments = ["diff", "example:small", str(path), "--dimension-k", "60", "--quiet"]
    assert main([*arguments, "-o", str(tmp_path / "out"), "--html", str(tmp_path / "out.html")]) == 0
    out = capsys.readouterr().out
    expected = embgeom.diff(BASE, embgeom.load(path), **SIZE).summary()
    assert out == expected + "\n" and (tmp_path / "out" / "diff.json").is_file()
    assert (tmp_path / "out.html").is_file()


def test_an_adapter_is_compared_with_its_base(tmp_path, capsys):
    from embgeom.cli.main import main

    base = write_folder(
        tmp_path / "base",
        {"model.embed_tokens.weight": matrix(40, 8)},
        {"model_type": "llama", "tie_word_embeddings": True},
    )
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": "owner/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    of_tokens = np.zeros((2, 40), dtype=np.float32)
    of_tokens[:, [3, 7]] = matrix(2, 2, 1)
    name = "base_model.model.model.embed_tokens.lora_embedding_"
    tensors = {f"{name}A": of_tokens, f"{name}B": np.ascontiguousarray(matrix(2, 8, 2).T)}
    write_safetensors(adapter / "adapter_model.safetensors", tensors)
    result = embgeom.diff(embgeom.load(base), embgeom.load(base, adapter=adapter), k=4, dimension_k=20)
    assert np.flatnonzero(result.status == "changed").tolist() == [3, 7]
    assert result.status_counts()["equal"] == 38
    command = ["diff", str(base), str(base), "--adapter-b", str(adapter), "-k", "4", "--dimension-k", "20"]
    assert main([*command, "--quiet"]) == 0 and capsys.readouterr().out == result.summary() + "\n"


def test_earlier_results_are_replaced_when_asked(tmp_path):
    for _ in range(2):
        found().save(tmp_path / "out", overwrite=True)
    assert type(found()).load(tmp_path / "out").status_counts() == found().status_counts()
    kinds = FolderResult.__subclasses__()
    assert len(kinds) == 3
    assert {kind._file(end) for kind in kinds for end in (".json", ".safetensors")} <= {*RESULT_FILES}


def test_where_most_rows_are_equal_there_is_no_bulk():
    result = embgeom.diff(BASE, of(perturbed()), noise="bulk", **SIZE)
    assert result.status_counts() == {"equal": len(BASE) - 30, "rounding": 0, "noise": 0, "changed": 30}
    assert result.noise.kind == "none"


@pytest.mark.parametrize("other_way", [True, False])
def test_rounding_in_another_way_is_suspected(other_way):
    x = np.random.default_rng(0).standard_normal((400, 24)).astype(np.float32)
    tokens = [f"▁w{i}" for i in range(400)]
    # A bfloat16 is the upper half of a float32: others are cut off, as some tools do, or moved a little.
    copy = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32) if other_way else x * np.float32(1.02)
    copy[:2] = stored_as(x[:2], "bfloat16")
    base, tuned = (embgeom.Embeddings.from_array(each, tokens) for each in (x, copy))
    result = embgeom.diff(base, tuned, k=5, **SIZE)
    assert result.status_counts()["rounding"] == 2 and result.noise.kind == "rounding"
    told = "hardly more than rounding changes one" in " ".join(result.summary().split())
    assert told == other_way


def test_a_warning_points_at_the_line_that_called():
    rng = np.random.default_rng(0)
    x = BASE.matrix[:400].copy()
    some = embgeom.Embeddings.from_array(x, BASE.tokens[:400], name="some")
    x = x + 2 * x.std() * rng.standard_normal(x.shape).astype(np.float32) * rng.lognormal(size=(400, 1))
    other = embgeom.Embeddings.from_array(x.astype(np.float32), BASE.tokens[:400], name="other")
    with pytest.warns(embgeom.EmbgeomWarning, match="may have moved more than half") as told:
        embgeom.diff(some, other, noise="bulk", k=5, dimension_k=20)
    assert {each.filename for each in told} == {__file__}
