"""Does a vector steer? Scores, controls, side effects, and the search for layer and scale."""

from embgeom.evaluation.conditions import SideEffects
from embgeom.evaluation.evaluate import EvaluateOptions, evaluate
from embgeom.evaluation.evaluation import Checks, Effect, Evaluation, Outcome
from embgeom.evaluation.scores import AnswerProbability, GenerationScore, Score, WordLogRatio
from embgeom.evaluation.sweep import Sweep, SweepOptions, sweep

__all__ = [
    "AnswerProbability",
    "Checks",
    "Effect",
    "EvaluateOptions",
    "Evaluation",
    "GenerationScore",
    "Outcome",
    "Score",
    "SideEffects",
    "Sweep",
    "SweepOptions",
    "WordLogRatio",
    "evaluate",
    "sweep",
]
