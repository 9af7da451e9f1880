from embgeom import comparison, emb2emb, evaluation, examples, hidden_states, steering, studies
from embgeom.comparison.atlas import Atlas, atlas
from embgeom.comparison.changes import Diff
from embgeom.comparison.compare import compare
from embgeom.comparison.comparison import Comparison, LocalGeometry
from embgeom.comparison.diff import diff
from embgeom.comparison.inspect import Inspection, inspect
from embgeom.comparison.neighborhood import TokenNeighborhood, TokenNeighborhoods, inspect_token
from embgeom.emb2emb import Emb2Emb
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.norm import FinalNorm
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormat
from embgeom.embeddings.vocabulary import Match, match
from embgeom.errors import EmbgeomError, EmbgeomWarning, InputError, LoadError, OutputError
from embgeom.evaluation import Evaluation, Sweep, evaluate, sweep, transfer
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import IntrinsicDimension, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, knn
from embgeom.geometry.lle import LLE, LLEStatus, lle
from embgeom.geometry.rows import RowStats, row_stats
from embgeom.geometry.similarity import global_similarity
from embgeom.hidden_states import StateComparison, compare_states, matching_layer
from embgeom.loading import load
from embgeom.loading.final_norm import load_final_norm
from embgeom.runs.cache import use_cache
from embgeom.runs.run import run
from embgeom.steering import SteeringVector
from embgeom.studies import Study
from embgeom.studies.study import study

__version__: str

__all__ = [
    "LLE",
    "Atlas",
    "Comparison",
    "Diff",
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
    "Study",
    "Sweep",
    "TokenFormat",
    "TokenNeighborhood",
    "TokenNeighborhoods",
    "__version__",
    "atlas",
    "compare",
    "compare_states",
    "comparison",
    "diff",
    "emb2emb",
    "evaluate",
    "evaluation",
    "examples",
    "global_similarity",
    "hidden_states",
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
    "run",
    "steering",
    "studies",
    "study",
    "sweep",
    "transfer",
    "use_cache",
    "weight_cosine",
]
