"""The geometry of language models' token embeddings, over whole vocabularies."""

from typing import TYPE_CHECKING

from embgeom import examples
from embgeom.agreement import neighbor_overlap, weight_cosine
from embgeom.compare import compare
from embgeom.comparison import Comparison, LocalGeometry, Measure, Settings
from embgeom.dimension import Dimension, intrinsic_dimension
from embgeom.embeddings import Embeddings
from embgeom.errors import EmbgeomError, InputError, LoadError, OutputError
from embgeom.inspection import Inspection, TokenNeighborhood, inspect_model, inspect_token
from embgeom.knn import Neighbors, knn
from embgeom.lle import LLE, LLEStatus, lle
from embgeom.loading import load
from embgeom.provenance import Provenance
from embgeom.rows import RowScan, scan_rows
from embgeom.similarity import global_similarity
from embgeom.spelling import Spelling
from embgeom.vocabulary import Match, match, match_vocabularies

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        # Few ask for the version, and reading it from the package's metadata takes long.
        if name == "__version__":
            from importlib.metadata import version

            return version("embgeom")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "LLE",
    "Comparison",
    "Dimension",
    "Embeddings",
    "EmbgeomError",
    "InputError",
    "Inspection",
    "LLEStatus",
    "LoadError",
    "LocalGeometry",
    "Match",
    "Measure",
    "Neighbors",
    "OutputError",
    "Provenance",
    "RowScan",
    "Settings",
    "Spelling",
    "TokenNeighborhood",
    "__version__",
    "compare",
    "examples",
    "global_similarity",
    "inspect_model",
    "inspect_token",
    "intrinsic_dimension",
    "knn",
    "lle",
    "load",
    "match",
    "match_vocabularies",
    "neighbor_overlap",
    "scan_rows",
    "weight_cosine",
]
