"""Does a vector steer? Scores, controls, side effects, and the search for layer and scale."""

from embgeom.evaluation.evaluate import evaluate, measure_at_kl
from embgeom.evaluation.evaluation import Checks, Effect, Evaluation, Outcome
from embgeom.evaluation.run import EvaluateOptions
from embgeom.evaluation.scores import AnswerProbability, GenerationScore, Score, WordLogRatio
from embgeom.evaluation.side_effects import SideEffects
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
    "measure_at_kl",
    "sweep",
]
