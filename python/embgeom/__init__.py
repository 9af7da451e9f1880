"""The geometry of language models' token embeddings, over whole vocabularies."""

from importlib.metadata import version as _version

from embgeom.compare import compare
from embgeom.comparison import Comparison, Measure
from embgeom.dimension import Dimension, intrinsic_dimension
from embgeom.embeddings import Embeddings
from embgeom.errors import EmbgeomError, InputError, LoadError, OutputError
from embgeom.inspection import Inspection, TokenNeighborhood, inspect_model, inspect_token
from embgeom.knn import Neighbors, knn
from embgeom.lle import LLE, LLEStatus, lle
from embgeom.loading import load
from embgeom.rows import RowScan, scan_rows
from embgeom.similarity import global_similarity
from embgeom.vocabulary import Match, match, match_vocabularies

__version__ = _version("embgeom")

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
    "Match",
    "Measure",
    "Neighbors",
    "OutputError",
    "RowScan",
    "TokenNeighborhood",
    "__version__",
    "compare",
    "global_similarity",
    "inspect_model",
    "inspect_token",
    "intrinsic_dimension",
    "knn",
    "lle",
    "load",
    "match",
    "match_vocabularies",
    "scan_rows",
]
