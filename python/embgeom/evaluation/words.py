"""How likely some words are to come next, beside others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from embgeom.errors import InputError
from embgeom.evaluation.scores import Score, Values
from embgeom.lm.passes import check_lengths, word_log_probabilities
from embgeom.lm.tokenizing import encode_prompt, word_token, word_tokens


@dataclass(frozen=True)
class WordLogRatio(Score):
    """How much likelier some words are to come next than others.

    The mean log-probability of the positive words as next token, less that of the negative ones, in nats.
    Quantity: ``log-ratio``.

    Attributes
    ----------
    positive, negative : sequence of str
        Words as they follow a prompt, so mostly with the space before them: ``" happy"``.
    first_token : bool
        Let the first token of a word stand for it where it has several. It may begin other words, too.
    whole : bool
        Score words of several tokens whole: the sum of their tokens' log-probabilities, each after the ones
        before it.
    chat : bool
        Put each prompt into the tokenizer's chat template, as a user's turn.

    Raises
    ------
    InputError
        If there are no words; when called, if a word has several tokens (unless `first_token` or `whole`),
        or the same tokens stand on both sides.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import WordLogRatio
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = (a.from_pretrained(folder) for a in (AutoModelForCausalLM, AutoTokenizer))
    >>> mood = WordLogRatio([" happy"], [" sad"])
    >>> shift = mood(model, tokenizer, ["They laughed and felt", "She cried and felt"])
    >>> bool(shift["log-ratio"][0] > shift["log-ratio"][1])
    True
    """

    quantities: ClassVar[tuple[str, ...]] = ("log-ratio",)

    positive: Sequence[str]
    negative: Sequence[str]
    first_token: bool = False
    whole: bool = False
    chat: bool = False

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            words = getattr(self, name)
            if isinstance(words, str) or not words:
                raise InputError(f"{name} = {words!r} must be a list of words, one at least")

    def describe(self) -> dict[str, Any]:
        """Return what is on record about the score, ready for JSON."""
        native = {name: list(getattr(self, name)) for name in ("positive", "negative")}
        return {
            **super().describe(),
            **native,
            "first_token": self.first_token,
            "whole": self.whole,
            "chat": self.chat,
        }

    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return the log-ratio after each prompt."""
        positive, negative = (
            [self._tokens(tokenizer, word) for word in words] for words in (self.positive, self.negative)
        )
        if both := set(positive) & set(negative):
            tokens = tokenizer.convert_ids_to_tokens(list(min(both)))
            raise InputError(f"{' '.join(map(repr, tokens))} stands for a positive and for a negative word")
        prompts = [encode_prompt(tokenizer, prompt, chat=self.chat) for prompt in samples]
        room = max(map(len, (*positive, *negative))) - 1
        check_lengths(model, prompts, "prompt", least=1, room=room)
        logs = word_log_probabilities(model, prompts, sorted({*positive, *negative}), batch_size)
        shifts = [
            np.mean([found[word] for word in positive]) - np.mean([found[word] for word in negative])
            for found in logs
        ]
        return {"log-ratio": np.array(shifts)}

    def _tokens(self, tokenizer: Any, word: str) -> tuple[int, ...]:
        if self.whole:
            return tuple(word_tokens(tokenizer, word))
        return (word_token(tokenizer, word, first=self.first_token),)
