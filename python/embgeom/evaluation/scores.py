"""What steering is to change, as numbers: one or more for each sample."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import real_number, whole_number
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.passes import check_lengths, continuations, next_log_probabilities, word_log_probabilities
from embgeom.lm.tokenizing import (
    continues_a_word,
    encode_prompt,
    where_answers_part,
    word_token,
    word_tokens,
)

Values = dict[str, npt.NDArray[np.float64]]
_QUESTION_KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")


class Score(ABC):
    """Numbers that say, for each sample, how far a model shows what a vector is to bring about.

    A score of your own is a subclass with `__call__`; `GenerationScore` scores generated text by a function.

    Attributes
    ----------
    quantities : tuple of str
        The names of what is measured. The first decides: checks and choices are about it.
    """

    quantities: ClassVar[tuple[str, ...]] = ("score",)

    @abstractmethod
    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return float64 values of shape (n,) for n samples by the name of each quantity.

        The model is taken as it is, steered or not.
        """

    def samples(self, prompts: Iterable[Any]) -> list[Any]:
        """Return the samples, checked: the prompts as a list.

        Raises
        ------
        InputError
            If there are none.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise InputError(f"prompts = {prompts!r:.60} is not a list; give a list of prompts")
        found = list(prompts)
        if not found:
            raise InputError("there are no prompts to score; give some")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the score's name, quantities and options, ready for JSON."""
        options: dict[str, Any] = {}
        if is_dataclass(self):
            options = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in options.items():
            if callable(value):
                options[name] = getattr(value, "__qualname__", type(value).__name__)
            elif isinstance(value, Sequence) and not isinstance(value, str):
                options[name] = list(value)
        return {"name": type(self).__name__, "quantities": list(self.quantities), **options}


@dataclass(frozen=True)
class WordLogRatio(Score):
    """How much likelier some words are to come next than others.

    The mean log-probability of the positive words as next token, minus that of the negative ones, in nats.
    Quantity: ``log-ratio``.

    Attributes
    ----------
    positive, negative : sequence of str
        Words as they follow a prompt, so mostly with a leading space: ``" happy"``.
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

    Warns
    -----
    EmbgeomWarning
        When called, if a word has no leading space and so continues the last word of a prompt; or if whole
        words of one side have more tokens than those of the other, which makes them less likely.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import WordLogRatio
    >>> from embgeom.steering import load_language_model
    >>> model, tokenizer = load_language_model(embgeom.examples.pair().small)
    >>> mood = WordLogRatio([" happy"], [" sad"])
    >>> found = mood(model, tokenizer, ["They laughed and felt", "She cried and felt"])
    >>> bool(found["log-ratio"][0] > found["log-ratio"][1])
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

    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return the log-ratio after each prompt."""
        positive, negative = (
            [self._tokens(tokenizer, word) for word in words] for words in (self.positive, self.negative)
        )
        if both := set(positive) & set(negative):
            text = tokenizer.decode(list(min(both)))
            raise InputError(f"{text!r} stands for a positive and for a negative word")
        prompts = [encode_prompt(tokenizer, prompt, chat=self.chat) for prompt in samples]
        self._warn_of_spaces(tokenizer, samples)
        if np.mean([*map(len, positive)]) != np.mean([*map(len, negative)]):
            sides = zip((*self.positive, *self.negative), (*positive, *negative), strict=True)
            longer = ", ".join(f"{word!r} {len(tokens)}" for word, tokens in sides if len(tokens) > 1)
            warnings.warn(
                f"positive and negative words differ in numbers of tokens ({longer}); they are scored whole, "
                "by the sum of their tokens' log-probabilities, so that longer words weigh more",
                EmbgeomWarning,
                stacklevel=2,
            )
        room = max(map(len, (*positive, *negative))) - 1
        check_lengths(model, prompts, "prompt", least=1, room=room)
        logs = word_log_probabilities(model, prompts, sorted({*positive, *negative}), batch_size)
        ratios = [
            np.mean([found[word] for word in positive]) - np.mean([found[word] for word in negative])
            for found in logs
        ]
        return {"log-ratio": np.array(ratios)}

    def _warn_of_spaces(self, tokenizer: Any, prompts: Sequence[str]) -> None:
        # After a template, a quote or a line's end the next word has no space.
        if self.chat or not any(prompt[-1:].isalnum() or prompt[-1:] in (*".,;:!?",) for prompt in prompts):
            return
        for word in (*self.positive, *self.negative):
            if continues_a_word(tokenizer, word):
                warnings.warn(
                    f"{word!r} continues a word; for the next word write {' ' + word!r}",
                    EmbgeomWarning,
                    stacklevel=3,
                )

    def _tokens(self, tokenizer: Any, word: str) -> tuple[int, ...]:
        if self.whole:
            return tuple(word_tokens(tokenizer, word))
        return (word_token(tokenizer, word, first=self.first_token),)


@dataclass(frozen=True)
class AnswerProbability(Score):
    r"""The probability of the answer that matches a behavior, among two answers to each question.

    For questions in the format of contrastive activation addition (CAA), dicts with ``question``,
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
        If `template` has no ``{question}``; when called, if a question lacks a key, or its answers are alike.

    References
    ----------
    Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import AnswerProbability
    >>> from embgeom.steering import load_language_model
    >>> model, tokenizer = load_language_model(embgeom.examples.pair().small)
    >>> question = {
    ...     "question": "Is the sky blue?\n (A) Yes\n (B) No",
    ...     "answer_matching_behavior": "(A)",
    ...     "answer_not_matching_behavior": "(B)",
    ... }
    >>> bool(0 < AnswerProbability()(model, tokenizer, [question])["probability"][0] < 1)
    True
    """

    quantities: ClassVar[tuple[str, ...]] = ("probability", "log-odds")

    template: str = "{question}\n\nAnswer:"
    chat: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.template, str) or "{question}" not in self.template:
            raise InputError(f"template = {self.template!r} has no {{question}} to put a question in")

    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return the probabilities and log-odds of the matching answers."""
        questions = [self._encoded(tokenizer, each, position) for position, each in enumerate(samples)]
        prompts = [prompt for prompt, _, _ in questions]
        check_lengths(model, prompts, "question", least=1)
        odds = np.empty(len(samples))
        for position, logs in next_log_probabilities(model, prompts, batch_size):
            _, matching, other = questions[position]
            odds[position] = float(logs[matching]) - float(logs[other])
        # Of two equal forms the one that overflows for neither sign.
        return {"probability": 0.5 * (1 + np.tanh(odds / 2)), "log-odds": odds}

    def _encoded(
        self, tokenizer: Any, sample: Mapping[str, str], position: int
    ) -> tuple[list[int], int, int]:
        try:
            question, *answers = (sample[key] for key in _QUESTION_KEYS)
            prompt = self.template.replace("{question}", question)
            return where_answers_part(tokenizer, prompt, answers, chat=self.chat)
        except (KeyError, TypeError):
            keys = ", ".join(_QUESTION_KEYS)
            raise InputError(f"question {position} must be a dict with {keys}, not {sample!r:.60}") from None
        except InputError as error:
            raise InputError(f"question {position}: {error}") from None


@dataclass(frozen=True)
class GenerationScore(Score):
    """What your own function says of the texts that a model writes after prompts.

    Quantity: ``score``.

    Attributes
    ----------
    scorer : callable
        Takes a continuation (without its prompt) and returns a finite number.
    max_new_tokens : int
        Tokens to write at most.
    temperature : float
        0 takes the likeliest token each time; above 0 tokens are drawn, with probabilities proportional to
        ``exp(logit / temperature)``. Prompt i has random numbers of its own, from the seed and i: the batch
        size changes no text, and texts with and without a vector are drawn with the same random numbers.
    chat : bool
        Put each prompt into the tokenizer's chat template, as a user's turn.

    Raises
    ------
    InputError
        If `max_new_tokens` is below 1 or `temperature` negative; when called, if `scorer` returns no finite
        number.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import GenerationScore
    >>> from embgeom.steering import load_language_model
    >>> model, tokenizer = load_language_model(embgeom.examples.pair().small)
    >>> length = GenerationScore(lambda text: len(text.split()), max_new_tokens=5)
    >>> bool(length(model, tokenizer, ["Once upon a time"])["score"][0] > 0)
    True
    """

    scorer: Callable[[str], float]
    max_new_tokens: int = 40
    temperature: float = 0.0
    chat: bool = False

    def __post_init__(self) -> None:
        whole_number(self.max_new_tokens, "max_new_tokens", 1)
        if not 0 <= real_number(self.temperature, "temperature") < np.inf:
            raise InputError(f"temperature = {self.temperature} must be finite and 0 at least")

    def texts(
        self, model: Any, tokenizer: Any, samples: Sequence[str], *, batch_size: int = 8, seed: int = 0
    ) -> list[str]:
        """Return what the model writes after each prompt."""
        prompts = [encode_prompt(tokenizer, prompt, chat=self.chat) for prompt in samples]
        check_lengths(model, prompts, "prompt", least=1, room=self.max_new_tokens)
        return continuations(
            model,
            tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            batch_size=batch_size,
            seed=seed,
        )

    def __call__(
        self, model: Any, tokenizer: Any, samples: Sequence[Any], *, batch_size: int = 8, seed: int = 0
    ) -> Values:
        """Return what the function says of each continuation."""
        texts = self.texts(model, tokenizer, samples, batch_size=batch_size, seed=seed)
        values = np.array([real_number(self.scorer(text), "what the scorer returns") for text in texts])
        if (undefined := np.flatnonzero(~np.isfinite(values))).size:
            first = undefined[0]
            raise InputError(
                f"the scorer returns {values[first]} for {texts[first]!r:.60}, not a finite number"
            )
        return {"score": values}
