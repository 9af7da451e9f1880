"""Hidden states of models that can be run: whether the alignment of unembeddings persists through layers."""

from __future__ import annotations

from pathlib import Path

from embgeom._common.arrays import Float32Matrix
from embgeom._common.checks import need
from embgeom._common.progress import Progress
from embgeom.emb2emb import Emb2Emb
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import LoadError
from embgeom.examples import moods, resolve
from embgeom.hidden_states import StateComparison, compare_states
from embgeom.loading import load


def runnable(model: Embeddings) -> str | None:
    """Return the folder that a model can be run from; None where there is none."""
    origin = model.provenance
    folder = resolve(origin.source) or Path(origin.source).expanduser()
    has_weights = origin.file is not None and origin.file.suffix in (".safetensors", ".bin")
    return str(folder) if has_weights and (folder / "config.json").is_file() else None


def unembedding(model: Embeddings, folder: str, threads: int) -> Embeddings | None:
    """Return the output side of a model; None where it has none of its own tokens."""
    if model.which == "output" or model.provenance.tied:
        return model
    try:
        other = load(folder, "output", threads=threads)
    except LoadError:
        return None
    return other if other.tokens == model.tokens else None


def check_packages() -> None:
    """Refuse hidden states early where no model can be run."""
    for module in ("torch", "transformers"):
        need(module, "a comparison of hidden states", extra="steer")


def state_comparison(
    x: Float32Matrix,
    y: Float32Matrix,
    source: str,
    target: str,
    identity: tuple[str, ...],
    seed: int,
    *,
    threads: int,
    progress: Progress,
) -> StateComparison:
    """Return how alike hidden states are in all layers, by a map fitted on rows of the unembeddings.

    `identity` says which files and versions were run.
    """
    mapping, control = (
        Emb2Emb.fit(x, y, shuffle=shuffle, seed=seed, threads=threads, progress=progress)
        for shuffle in (False, True)
    )
    texts = moods.neutral_texts()
    return compare_states(source, target, mapping, texts, shuffled=control, seed=seed, progress=progress)
