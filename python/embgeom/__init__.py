"""The geometry of language models' token embeddings, over whole vocabularies."""

from importlib.metadata import version as _version

from embgeom.dimension import Dimension, intrinsic_dimension
from embgeom.knn import Neighbors, knn
from embgeom.lle import LLE, LLEStatus, lle
from embgeom.rows import RowScan, scan_rows
from embgeom.similarity import global_similarity

__version__ = _version("embgeom")

__all__ = [
    "LLE",
    "Dimension",
    "LLEStatus",
    "Neighbors",
    "RowScan",
    "global_similarity",
    "intrinsic_dimension",
    "knn",
    "lle",
    "scan_rows",
]
