"""Does a vector steer? Scores, controls, side effects, and the search for layer and scale."""

from embgeom.evaluation.answers import AnswerProbability
from embgeom.evaluation.evaluate import evaluate
from embgeom.evaluation.outcomes import Checks, Effect, Evaluation, Outcome, SideEffects
from embgeom.evaluation.scores import Score
from embgeom.evaluation.sweep import Sweep, sweep
from embgeom.evaluation.texts import GenerationScore
from embgeom.evaluation.words import WordLogRatio

__all__ = [
    "AnswerProbability",
    "Checks",
    "Effect",
    "Evaluation",
    "GenerationScore",
    "Outcome",
    "Score",
    "SideEffects",
    "Sweep",
    "WordLogRatio",
    "evaluate",
    "sweep",
]
