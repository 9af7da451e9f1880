"""Does a vector steer? Scores, controls, the price on neutral text, and the search for layer and scale."""

from embgeom.evaluation.answers import AnswerProbability
from embgeom.evaluation.evaluate import evaluate
from embgeom.evaluation.outcomes import Effect, Evaluation, Facts, Outcome, Price
from embgeom.evaluation.scores import Score
from embgeom.evaluation.sweep import Sweep, sweep
from embgeom.evaluation.texts import TextScore
from embgeom.evaluation.words import WordShift

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
