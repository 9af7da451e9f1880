"""EMB2EMB: a map between two models, fitted on their shared tokens, that transfers steering vectors."""

from embgeom.emb2emb.forecast import Forecast, predict_transfer
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.methods import LeastSquares, LowRank, NeighborWeights, Procrustes, Ridge
from embgeom.emb2emb.score import Scores
from embgeom.embeddings.norm import FinalNorm

__all__ = [
    "Emb2Emb",
    "FinalNorm",
    "Forecast",
    "LeastSquares",
    "LowRank",
    "NeighborWeights",
    "Procrustes",
    "Ridge",
    "Scores",
    "predict_transfer",
]
