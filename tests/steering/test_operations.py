"""Operations other than addition: what they do to states, and files that no reader takes for additions."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from embgeom import Emb2Emb, InputError, LoadError, SteeringVector
from embgeom.evaluation.conditions import with_controls
from embgeom.lm.layers import find
from tests.helpers.cli import run, status
from tests.helpers.steering import WIDTH, padded, prompts, tiny, vector

BATCH = padded(prompts(), "right")
OPERATIONS = [
    ("add", None),
    ("ablate", None),
    ("project_to", None),
    ("project_to", -2.5),
    ("clamp", (-0.5, 0.25)),
    ("clamp", (None, 0.1)),
    ("clamp", (0.3, None)),
]


def of(operation, value, layers=(1,), seed=0):
    return dataclasses.replace(vector(layers, seed), operation=operation, value=value)


def by_hand(states, direction, operation, value, scale):
    """What each operation does to states (n, d), from its definition, in float64."""
    if operation == "add":
        return states + scale * direction
    coordinate = states @ direction / (direction @ direction)
    wanted = {
        "ablate": lambda: np.zeros_like(coordinate),
        "project_to": lambda: np.full_like(coordinate, 1.0 if value is None else value),
        "clamp": lambda: np.clip(coordinate, *(value or (None, None))),
    }[operation]()
    return states + scale * (wanted - coordinate)[:, None] * direction


def output_of(model, layer):
    """What a layer gives after steering, (batch, length, hidden_size)."""
    kept = []

    def keep(_module, _args, output):
        kept.append((output[0] if isinstance(output, tuple) else output).detach())

    hook = find(model).layers[layer].register_forward_hook(keep)
    with torch.no_grad():
        model(**BATCH)
    hook.remove()
    return kept[0].double().numpy()


@pytest.mark.parametrize("scale", [1.0, 0.5, -1.0, 0.0])
@pytest.mark.parametrize(("operation", "value"), OPERATIONS)
def test_states_are_changed_as_they_are_meant_to_be(operation, value, scale):
    model, steered = tiny("llama"), of(operation, value)
    before = output_of(model, 1)
    with steered.apply(model, scale):
        after = output_of(model, 1)
    direction = steered.directions[1].astype(np.float64)
    valid = BATCH["attention_mask"].bool().numpy()
    expected = by_hand(before[valid], direction, operation, value, scale)
    np.testing.assert_allclose(after[valid], expected, atol=1e-5)
    np.testing.assert_array_equal(after[~valid], before[~valid])


def test_coordinates_that_are_wanted():
    model, direction = tiny("llama"), vector((1,)).directions[1].astype(np.float64)
    valid = BATCH["attention_mask"].bool().numpy()

    def coordinates(operation, value):
        with of(operation, value).apply(model):
            return output_of(model, 1)[valid] @ direction / (direction @ direction)

    np.testing.assert_allclose(coordinates("ablate", None), 0, atol=1e-6)
    np.testing.assert_allclose(coordinates("project_to", 2.0), 2, atol=1e-6)
    clamped = coordinates("clamp", (-0.01, 0.02))
    assert clamped.min() > -0.0101 and clamped.max() < 0.0201
    # The length of the direction is the unit: twice as long a one moves states twice as far.
    with (2 * of("project_to", None)).apply(model):
        twice = output_of(model, 1)[valid] @ direction / (direction @ direction)
    np.testing.assert_allclose(twice, 2, atol=1e-6)


def test_half_precision_and_several_layers():
    model, steered = tiny("llama", torch.bfloat16), of("ablate", None, (0, 1, 2))
    with steered.apply(model):
        for layer in range(3):
            states = output_of(model, layer)[BATCH["attention_mask"].bool().numpy()]
            unit = steered.directions[layer] / steered.norms[layer]
            assert np.abs(states @ unit).max() < 0.02 * np.linalg.norm(states, axis=1).max()


@pytest.mark.parametrize(
    ("operation", "value", "message"),
    [
        ("rotate", None, "operation = 'rotate' is unknown: use add, ablate, project_to, clamp"),
        ("add", 1.0, 'has no meaning for "add"'),
        ("ablate", 0.0, 'has no meaning for "ablate"'),
        ("project_to", "far", "value must be a number"),
        ("project_to", float("inf"), "not finite"),
        ("clamp", None, "needs a pair"),
        ("clamp", 1.0, "needs a pair"),
        ("clamp", (1.0, 0.0), "nothing between its ends"),
        ("clamp", (None, None), "nothing between its ends, or everything"),
        ("clamp", (float("nan"), 1.0), "nothing between its ends"),
    ],
)
def test_operations_that_are_refused(operation, value, message):
    with pytest.raises(InputError, match=message):
        of(operation, value)


def test_what_has_no_meaning_for_an_operation():
    with pytest.raises(InputError, match="direction of layer 1 is zero"):
        SteeringVector({1: np.zeros(WIDTH)}, operation="ablate")
    with pytest.raises(InputError, match="only vectors that are added can be summed"):
        _ = vector() + of("ablate", None)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".npz"])
@pytest.mark.parametrize(("operation", "value"), OPERATIONS)
def test_files_keep_the_operation(tmp_path, suffix, operation, value):
    written, path = of(operation, value, (0, 2)), tmp_path / f"v{suffix}"
    written.save(path)
    read = SteeringVector.load(path)
    assert (read.operation, read.value) == (written.operation, written.value)
    for layer, direction in written.directions.items():
        np.testing.assert_array_equal(read.directions[layer], direction)
    if operation != "add":
        with pytest.raises(InputError, match="says itself that its operation is"):
            SteeringVector.load(path, operation="add")


def test_no_reader_takes_an_operation_for_an_addition(tmp_path):
    from safetensors.numpy import load_file

    pytest.importorskip("gguf", reason="gguf is not installed")
    ablating = of("ablate", None)
    for suffix in (".safetensors", ".pt", ".npz"):
        ablating.save(tmp_path / f"v{suffix}")
    assert list(load_file(tmp_path / "v.safetensors")) == ["ablate.1"]
    assert "directions" not in torch.load(tmp_path / "v.pt")
    assert sorted(np.load(tmp_path / "v.npz").files) == ["ablate.1", "embgeom"]
    with pytest.raises(InputError, match=r"llama\.cpp, whose format \.gguf is, adds every direction"):
        ablating.save(tmp_path / "v.gguf")
    held = torch.load(tmp_path / "v.pt")
    torch.save({**held, "operation": "rotate", "rotate": held["ablate"]}, tmp_path / "w.pt")
    with pytest.raises(LoadError, match="for the operation 'rotate', which this embgeom does not know"):
        SteeringVector.load(tmp_path / "w.pt")
    torch.save({**held, "value": json.dumps([3])}, tmp_path / "w.pt")
    with pytest.raises(LoadError, match="holds no steering vector: value"):
        SteeringVector.load(tmp_path / "w.pt")


def test_another_tools_file_is_read_for_an_operation_that_is_named(tmp_path):
    torch.save({"3": torch.ones(4), "mode": "project"}, tmp_path / "v.pt")
    with pytest.raises(LoadError, match=r'SteeringVector\.load\(path, operation="ablate"\)'):
        SteeringVector.load(tmp_path / "v.pt")
    found = SteeringVector.load(tmp_path / "v.pt", operation="ablate")
    assert found.operation == "ablate" and found.layers == (3,)
    assert SteeringVector.load(tmp_path / "v.pt", operation="project_to").value == 1.0
    with pytest.raises(InputError, match="operation = 'clamp'"):
        SteeringVector.load(tmp_path / "v.pt", operation="clamp")


def steered_by_harness(states, action):
    """What lm-evaluation-harness's model ``steered`` makes of states, by its documentation."""
    direction, number = action["steering_vector"], action["steering_coefficient"]
    assert action["bias"] is None and action["head_index"] is None
    if action["action"] == "add":
        return states + number * direction
    assert action["action"] == "clamp"
    unit = direction / direction.norm()
    return states - (states @ unit)[:, None] * unit + number * unit


@pytest.mark.parametrize(("operation", "value"), OPERATIONS[:4])
def test_the_format_of_lm_evaluation_harness(tmp_path, operation, value):
    written, path = of(operation, value, (0, 2)), tmp_path / "steer.pt"
    written.save(path, hookpoints="layers.{}")
    held = torch.load(path, weights_only=True)
    assert list(held) == ["layers.0", "layers.2"]
    states = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    for layer, direction in written.directions.items():
        found = steered_by_harness(states, held[f"layers.{layer}"])
        expected = by_hand(states.double().numpy(), direction.astype(np.float64), operation, value, 1.0)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "operation", "hookpoints", "message"),
    [
        ("v.safetensors", "add", "layers.{}", r"only as a \.pt"),
        ("v.pt", "add", "layers", "must hold {} once"),
        ("v.pt", "clamp", "layers.{}", "keeps none between two"),
    ],
)
def test_what_lm_evaluation_harness_does_not_read(tmp_path, name, operation, hookpoints, message):
    value = (0.0, 1.0) if operation == "clamp" else None
    with pytest.raises(InputError, match=message):
        of(operation, value).save(tmp_path / name, hookpoints=hookpoints)
    assert list(tmp_path.iterdir()) == []


def test_a_vector_is_trained_for_an_operation_by_a_command(tmp_path, capsys):
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([["Tom was happy.", "Tom was sad."]]))
    asked = (
        "train-vector",
        "example:small",
        "--pairs",
        pairs,
        "--layers",
        "2",
        "--operation",
        "ablate",
        "-o",
    )
    run(*asked, tmp_path / "v.npz")
    found = SteeringVector.load(tmp_path / "v.npz")
    assert found.operation == "ablate" and found.state_spread[2] > 0
    assert status(*asked, tmp_path / "v.gguf") == 2
    assert "cannot hold the operation ablate, as llama.cpp adds" in capsys.readouterr().err


def test_transfers_and_controls_keep_the_operation():
    matrix = np.random.default_rng(0).standard_normal((60, WIDTH)).astype(np.float32)
    projecting = of("project_to", 2.0)
    moved = Emb2Emb.fit(matrix, matrix[:, ::-1], held_out=0).transfer(projecting, layers=1, norm="raw")
    controls = with_controls(moved, scale=1.0, native=None, random=1, shuffled=[], seed=0)
    for each in (moved, *(control.vector for control in controls)):
        assert (each.operation, each.value) == ("project_to", 2.0)
