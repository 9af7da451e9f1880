"""Every language model of transformers, built tiny: embgeom reads what the running model computes with."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import embgeom
from tests.helpers.loading import tokenizer, words

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
if tuple(int(n) for n in transformers.__version__.split(".")[:2]) < (5, 24):
    pytest.skip("the table is that of transformers 5.24", allow_module_level=True)

from embgeom.loading.architectures import FAMILIES  # noqa: E402
from embgeom.loading.config import ModelConfig  # noqa: E402
from tests.helpers import tiny_models  # noqa: E402
from tests.helpers.tiny_models import CANNOT, UNSEEN, Case  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "supported-models.md"
# What embgeom refuses, and a word of its reason.
_SEVERAL = "8 tensors that may be the {} matrix".format
_PROJECTED = "no norm feeds the output matrix"
REFUSED = {
    ("musicgen", "input"): _SEVERAL("input"),
    ("musicgen", "output"): _SEVERAL("output"),
    ("musicgen_melody", "input"): _SEVERAL("input"),
    ("musicgen_melody", "output"): _SEVERAL("output"),
    ("neomme", "norm"): _PROJECTED,
    ("ultrabert", "norm"): _PROJECTED,
    ("ultravbert", "norm"): _PROJECTED,
    ("perceiver", "norm"): "a decoder that attends to latents stands before the output matrix",
    ("qwen4_exp", "norm"): "it ends with a mixer of several residual streams",
    ("qwen4_exp_text", "norm"): "it ends with a mixer of several residual streams",
}
WORDS = {
    "rms_norm": "RMSNorm",
    "rms_norm_plus_one": "RMSNorm, 1 + weight",
    "layer_norm": "LayerNorm",
    "layer_norm_plus_one": "LayerNorm, 1 + weight",
}
HEAD = """# Supported models

Every causal, sequence-to-sequence and masked language model of transformers 5.24 was built at a small size
with random weights, saved, and loaded with `embgeom`. Both matrices are bitwise equal to those of the running
model, tied and untied, and the final norm computes what the model's own does, up to a length and a constant
(its bias).

This file is written by `python -m tests.loading.test_all_architectures`.

| Model type | Class | Input embedding | Output matrix | Final norm |
|---|---|---|---|---|"""
SEE = (
    "The same was compared for these. Their outer config decides on ties, their text model on the final norm."
)
TAIL = """
## Not built

These types were not compared, because transformers could not build, save and load them at a small size.

| Model type | Why |
|---|---|"""
FAST = ("gpt2", "llama", "gemma2", "t5", "bert", "mistral3", "bart", "mamba", "roberta", "olmo")


@dataclass
class Outcome:
    """What embgeom reads of a case: names, or the reason why it refuses."""

    input: str
    output: str
    norm: str

    def row(self, case: Case) -> str:
        """The line of the docs' table."""
        return f"| `{case.model_type}` | {case.class_name} | {self.input} | {self.output} | {self.norm} |"


def check(case: Case, folder: Path, max_shard_size: str = "50GB") -> Outcome:
    """Save the model of a case, load it with embgeom, and compare with the model that transformers loads."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    built = tiny_models.build(case)
    built.save_pretrained(folder, max_shard_size=max_shard_size)
    model = type(built).from_pretrained(folder, local_files_only=True).eval()
    weight, head = tiny_models.input_matrix(model), tiny_models.output_matrix(model)
    rows = len(weight) if weight is not None else tiny_models.V
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words(rows))))
    # Perceiver has no module for its output matrix, but multiplies with its embedding.
    out = weight if head is None else getattr(head, "weight", None)
    names = [_matrix(case, folder, "input", weight), _matrix(case, folder, "output", out)]
    return Outcome(*names, _norm(case, folder, model))


def _matrix(case: Case, folder: Path, which: str, expected: torch.Tensor | None) -> str:
    try:
        loaded = embgeom.load(folder, which)
    except embgeom.LoadError as error:
        return _refused(case, which, error)
    assert expected is not None, f"{which}: the model has none, but {loaded.provenance.tensor} was loaded"
    np.testing.assert_array_equal(loaded.matrix, expected.detach().float().numpy(), err_msg=which)
    return f"`{loaded.provenance.tensor}`" + (" (tied)" if loaded.provenance.tied else "")


def _norm(case: Case, folder: Path, model: object) -> str:
    try:
        norm = embgeom.load_final_norm(folder)
    except embgeom.LoadError as error:
        return _refused(case, "norm", error)
    module = tiny_models.final_norm(model)
    assert module is not None, "no norm feeds the head of the running model"
    h = torch.randn(5, len(norm.weight), generator=torch.Generator().manual_seed(2)) * 3 + 1
    with torch.no_grad():
        bias = getattr(module, "bias", None)
        expected = (module(h) - (0 if bias is None else bias)).double().numpy()
    plain = h.double().numpy()
    found = (plain - plain.mean(axis=1, keepdims=True) if norm.centers else plain) * norm.weight
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 1 - 1e-5, f"norm: cosine {cosines.min():.4f} with that of {type(module).__name__}"
    family = ModelConfig.parse(json.loads((folder / "config.json").read_text())).architecture
    assert family is not None
    return WORDS[family.kind] + (" without weight" if family.weightless else "")


def _refused(case: Case, what: str, error: Exception) -> str:
    why = REFUSED.get((case.model_type, what))
    assert why is not None and why in str(error), f"{what}: {error}"
    return f"refused: {why}"


TEXT = [c for c in tiny_models.cases("causal", "seq2seq", "masked") if c.model_type not in CANNOT]
OWN = {(c.model_type, c.class_name) for c in TEXT}
SEEING = [
    c
    for c in tiny_models.cases("image-text")
    if c.model_type not in {*CANNOT, *UNSEEN.split()} and (c.model_type, c.class_name) not in OWN
]
VARIANTS = [v for case in (*TEXT, *SEEING) for v in tiny_models.variants(case)]


def checked(case: Case, folder: Path) -> None:
    outcome = check(case, folder)
    if not case.changes and case.task != "image-text":
        assert outcome.row(case) in DOCS.read_text(), "run: python -m tests.loading.test_all_architectures"


@pytest.mark.parametrize("case", [v for v in VARIANTS if v.model_type in FAST], ids=str)
def test_usual_families(case, tmp_path):
    checked(case, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", [v for v in VARIANTS if v.model_type not in FAST], ids=str)
def test_every_language_model(case, tmp_path):
    checked(case, tmp_path)


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "gemma3", "t5", "bert", "mamba"])
def test_shards(model_type, tmp_path):
    case = next(c for c in TEXT if c.model_type == model_type)
    check(case, tmp_path, max_shard_size="8KB")
    assert (tmp_path / "model.safetensors.index.json").exists()


def test_every_type_stands_in_the_table():
    types = {tiny_models.config_of(case).model_type for case in TEXT}
    assert types <= set(FAMILIES), types - set(FAMILIES)


def test_few_are_refused():
    assert len({model_type for model_type, _ in REFUSED}) <= 10


def test_the_docs_name_every_type():
    text = DOCS.read_text()
    assert text.startswith(HEAD) and seeing() in text
    assert all(f"| `{model_type}` | {why} |" in text for model_type, why in CANNOT.items())
    assert text.count("\n| `") == len(TEXT) + len(CANNOT)


def seeing() -> str:
    """The docs' list of vision-language models."""
    return "\n".join(
        ["", "## Vision-language models", "", SEE, "", ", ".join(f"`{c.model_type}`" for c in SEEING), ""]
    )


def write_docs() -> None:
    """Build every type and write what embgeom reads of it to docs/supported-models.md."""
    warnings.simplefilter("ignore")
    rows = []
    for case in sorted(TEXT, key=str):
        with TemporaryDirectory() as folder:
            rows.append(check(case, Path(folder)).row(case))
    cannot = [f"| `{model_type}` | {why} |" for model_type, why in sorted(CANNOT.items())]
    DOCS.write_text("\n".join([HEAD, *rows, seeing() + TAIL, *cannot, ""]))


if __name__ == "__main__":
    write_docs()
