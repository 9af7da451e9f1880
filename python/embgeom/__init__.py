"""The geometry of language models' token embeddings, over whole vocabularies."""

from typing import TYPE_CHECKING

# First, before anything that takes long to import: this handles Ctrl-C where the process is the command.
import embgeom._common.signals as _signals  # noqa: F401
from embgeom import examples
from embgeom.comparison.compare import compare
from embgeom.comparison.comparison import Comparison, LocalGeometry
from embgeom.comparison.inspect import Inspection, TokenNeighborhood, inspect, inspect_token
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormat
from embgeom.embeddings.vocabulary import Match, match
from embgeom.errors import EmbgeomError, EmbgeomWarning, InputError, LoadError, OutputError
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import IntrinsicDimension, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, knn
from embgeom.geometry.lle import LLE, LLEStatus, lle
from embgeom.geometry.rows import RowStats, row_stats
from embgeom.geometry.similarity import global_similarity
from embgeom.loading import load

# What steering needs beside the geometry is imported when it is first asked for, to keep the import short.
_LATER = {
    "Emb2Emb": "emb2emb",
    "FinalNorm": "embeddings.norm",
    "Evaluation": "evaluation",
    "Sweep": "evaluation",
    "evaluate": "evaluation",
    "sweep": "evaluation",
    "StateComparison": "hidden_states",
    "compare_states": "hidden_states",
    "matching_layer": "hidden_states",
    "SteeringVector": "steering",
    "load_final_norm": "loading.final_norm",
}

if TYPE_CHECKING:
    from embgeom.emb2emb import Emb2Emb
    from embgeom.embeddings.norm import FinalNorm
    from embgeom.evaluation.evaluate import evaluate
    from embgeom.evaluation.outcomes import Evaluation
    from embgeom.evaluation.sweep import Sweep, sweep
    from embgeom.hidden_states import StateComparison, compare_states, matching_layer
    from embgeom.loading.final_norm import load_final_norm
    from embgeom.steering import SteeringVector

    __version__: str
else:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        # Few ask for the version, and reading it from the package's metadata takes long.
        if name == "__version__":
            return import_module("importlib.metadata").version("embgeom")
        if name in _LATER:
            return getattr(import_module(f"embgeom.{_LATER[name]}"), name)
        if name in _LATER.values():
            return import_module(f"embgeom.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})


__all__ = [
    "LLE",
    "Comparison",
    "Emb2Emb",
    "Embeddings",
    "EmbgeomError",
    "EmbgeomWarning",
    "Evaluation",
    "FinalNorm",
    "InputError",
    "Inspection",
    "IntrinsicDimension",
    "LLEStatus",
    "LoadError",
    "LocalGeometry",
    "Match",
    "Neighbors",
    "OutputError",
    "Provenance",
    "RowStats",
    "StateComparison",
    "SteeringVector",
    "Sweep",
    "TokenFormat",
    "TokenNeighborhood",
    "__version__",
    "compare",
    "compare_states",
    "evaluate",
    "examples",
    "global_similarity",
    "inspect",
    "inspect_token",
    "intrinsic_dimension",
    "knn",
    "lle",
    "load",
    "load_final_norm",
    "match",
    "matching_layer",
    "neighbor_overlap",
    "row_stats",
    "sweep",
    "weight_cosine",
]
