"""Does a vector steer? Scores, controls, the price on neutral text, and the search for block and scale."""

from embgeom.evaluation.evaluate import evaluate
from embgeom.evaluation.outcomes import Effect, Evaluation, Facts, Outcome, Price
from embgeom.evaluation.scores import AnswerProbability, Score, TextScore, WordShift
from embgeom.evaluation.sweep import Sweep, sweep

__all__ = [
    "AnswerProbability",
    "Effect",
    "Evaluation",
    "Facts",
    "Outcome",
    "Price",
    "Score",
    "Sweep",
    "TextScore",
    "WordShift",
    "evaluate",
    "sweep",
]
