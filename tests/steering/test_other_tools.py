"""Files of other tools, with the layer that they mean, and files on the Hugging Face Hub."""

import numpy as np
import pytest

from embgeom import InputError, LoadError, SteeringVector
from embgeom.steering import files

torch = pytest.importorskip("torch", reason="torch is not installed")
STATES = np.arange(24, dtype=np.float32).reshape(6, 4)


@pytest.mark.parametrize(
    "name", ["evil_response_avg_diff.pt", "evil_prompt_avg_diff.pt", "a_prompt_last_diff.pt"]
)
def test_persona_vectors(tmp_path, name):
    """Their rows are those of hidden_states: the embeddings first, last what has passed the final norm."""
    torch.save(torch.tensor(STATES), tmp_path / name)
    found = SteeringVector.load(tmp_path / name)
    assert found.layers == (0, 1, 2, 3)
    for layer, direction in found.directions.items():
        np.testing.assert_array_equal(direction, STATES[layer + 1])
    one = SteeringVector.load(tmp_path / name, layer=2)
    assert one.layers == (2,)
    np.testing.assert_array_equal(one.directions[2], STATES[3])
    with pytest.raises(LoadError, match="outputs of layers 0 to 3, not of 4"):
        SteeringVector.load(tmp_path / name, layer=4)


def test_a_refusal_direction(tmp_path):
    torch.save(torch.ones(4, dtype=torch.float64), tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -2, "layer": 14}')
    assert SteeringVector.load(tmp_path / "direction.pt").layers == (13,)
    assert SteeringVector.load(tmp_path / "direction.pt", operation="ablate").operation == "ablate"


class Hub:
    """Stands for a repository of the Hub that holds these files."""

    def __init__(self, folder, asked):
        self._folder, self._asked = folder, asked

    def __call__(self, repo, **options):
        self._asked.append((repo, options))
        return self

    def find(self, name):
        self._asked.append(name)
        path = self._folder / name
        return path if path.is_file() else None


def test_a_file_on_the_hub(tmp_path, monkeypatch):
    folder, asked = tmp_path / "repo" / "sub", []
    folder.mkdir(parents=True)
    SteeringVector({1: np.ones(4)}, "toy").save(folder / "joy.safetensors")
    torch.save(torch.ones(4), folder / "direction.pt")
    (folder / "direction_metadata.json").write_text('{"pos": -1, "layer": 3}')
    monkeypatch.setattr(files, "HubRepo", Hub(tmp_path / "repo", asked))
    monkeypatch.chdir(tmp_path)
    assert SteeringVector.load("owner/name/sub/joy.safetensors", revision="v2").model == "toy"
    assert asked == [("owner/name", {"revision": "v2", "local_files_only": False}), "sub/joy.safetensors"]
    assert SteeringVector.load("owner/name/sub/direction.pt", local_files_only=True).layers == (2,)
    assert asked[-1] == "sub/direction_metadata.json"
    with pytest.raises(LoadError, match=r"owner/name holds no file sub/none\.pt"):
        SteeringVector.load("owner/name/sub/none.pt")
    # A file or a folder on this machine comes first.
    asked.clear()
    assert SteeringVector.load("repo/sub/joy.safetensors").model == "toy"
    for name in ("repo/sub/none.pt", "none.pt", str(tmp_path / "a" / "b" / "none.pt")):
        with pytest.raises(LoadError, match="cannot be read"):
            SteeringVector.load(name)
    with pytest.raises(InputError, match="revision = 'v2' is for a file on the Hugging Face Hub"):
        SteeringVector.load("repo/sub/joy.safetensors", revision="v2")
    assert asked == []
