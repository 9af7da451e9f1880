"""The probability of one of two answers to each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from embgeom.errors import InputError
from embgeom.evaluation.scores import Score, Values
from embgeom.lm.passes import check_lengths, next_log_probabilities
from embgeom.lm.tokenizing import where_answers_part

_ITEM_KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")


@dataclass(frozen=True)
class AnswerProbability(Score):
    r"""The probability of the answer that matches a behavior, among two answers to each question.

    For items in the format of contrastive activation addition (CAA), dicts with ``question``,
    ``answer_matching_behavior`` and ``answer_not_matching_behavior``: a question that lists choices, and two
    answers such as " (A)" and " (B)". Both follow the question; where their tokens first differ, at the
    letter, the probability of the matching one is divided by the sum of both. Quantities: ``probability``
    in [0, 1] and ``log-odds``, the natural logarithm of p / (1 - p).

    Attributes
    ----------
    template : str
        What the model reads, with ``{question}`` in the question's place. The answer follows after a space.
    chat : bool
        Put what the model reads into the tokenizer's chat template, as a user's turn.

    Raises
    ------
    InputError
        If `template` has no ``{question}``; when called, if an item lacks a key, or its answers are alike.

    References
    ----------
    Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import AnswerProbability
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = (a.from_pretrained(folder) for a in (AutoModelForCausalLM, AutoTokenizer))
    >>> item = {
    ...     "question": "Is the sky blue?\n (A) Yes\n (B) No",
    ...     "answer_matching_behavior": "(A)",
    ...     "answer_not_matching_behavior": "(B)",
    ... }
    >>> bool(0 < AnswerProbability()(model, tokenizer, [item])["probability"][0] < 1)
    True
    """

    quantities: ClassVar[tuple[str, ...]] = ("probability", "log-odds")

    template: str = "{question}\n\nAnswer:"
    chat: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or "{question}" not in self.template:
            raise InputError(f"template = {self.template!r} has no {{question}} to put a question in")

    def describe(self) -> dict[str, Any]:
        """Return what is on record about the score, ready for JSON."""
        return {**super().describe(), "template": self.template, "chat": self.chat}

    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return the probabilities and log-odds of the matching answers."""
        questions = [self._encoded(tokenizer, item, place) for place, item in enumerate(samples)]
        prompts = [prompt for prompt, _, _ in questions]
        check_lengths(model, prompts, "item", least=1)
        odds = np.empty(len(samples))
        for place, logs in next_log_probabilities(model, prompts, batch_size):
            _, matching, other = questions[place]
            odds[place] = float(logs[matching]) - float(logs[other])
        # Of two equal forms the one that overflows for neither sign.
        return {"probability": 0.5 * (1 + np.tanh(odds / 2)), "log-odds": odds}

    def _encoded(self, tokenizer: Any, item: Mapping[str, str], place: int) -> tuple[list[int], int, int]:
        """Return the tokens that both answers share, and the first token of each that differs."""
        try:
            question, *answers = (item[key] for key in _ITEM_KEYS)
            prompt = self.template.replace("{question}", question)
            return where_answers_part(tokenizer, prompt, answers, chat=self.chat)
        except (KeyError, TypeError):
            keys = ", ".join(_ITEM_KEYS)
            raise InputError(f"item {place} must be a dict with {keys}, not {item!r:.60}") from None
        except InputError as error:
            raise InputError(f"item {place}: {error}") from None
