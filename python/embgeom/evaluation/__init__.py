"""Does a vector steer? Scores, controls, side effects, and the search for layer and scale."""

from embgeom.evaluation.certificate import Certificate, PromotedTokens, certify
from embgeom.evaluation.continuations import Continuations
from embgeom.evaluation.evaluate import evaluate, measure_at_kl
from embgeom.evaluation.evaluation import Checks, Evaluation
from embgeom.evaluation.outcome import Effect, Outcome
from embgeom.evaluation.run import EvaluateOptions
from embgeom.evaluation.scaling import scale_to_kl
from embgeom.evaluation.scores import AnswerProbability, GenerationScore, Score, WordLogRatio
from embgeom.evaluation.side_effects import SideEffects
from embgeom.evaluation.sweep import Sweep, SweepOptions, sweep
from embgeom.evaluation.transfer import TransferOptions, transfer

__all__ = [
    "AnswerProbability",
    "Certificate",
    "Checks",
    "Continuations",
    "Effect",
    "EvaluateOptions",
    "Evaluation",
    "GenerationScore",
    "Outcome",
    "PromotedTokens",
    "Score",
    "SideEffects",
    "Sweep",
    "SweepOptions",
    "TransferOptions",
    "WordLogRatio",
    "certify",
    "evaluate",
    "measure_at_kl",
    "scale_to_kl",
    "sweep",
    "transfer",
]
