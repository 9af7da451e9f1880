"""What the token embeddings of many models share: a study with tables, figures and a report."""

from embgeom.studies.lineage import Lineage
from embgeom.studies.options import StudyOptions
from embgeom.studies.results import MapScores, ModelGeometry, ModelSummary, PairResult, SharedTokens, Study

__all__ = [
    "Lineage",
    "MapScores",
    "ModelGeometry",
    "ModelSummary",
    "PairResult",
    "SharedTokens",
    "Study",
    "StudyOptions",
]
