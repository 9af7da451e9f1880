"""What a function of your own says of texts that a model writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom._common.checks import real_number, whole_number
from embgeom.errors import InputError
from embgeom.evaluation.scores import Score, Values
from embgeom.lm.continuations import continuations
from embgeom.lm.passes import check_lengths
from embgeom.lm.tokenizing import encode_prompt


@dataclass(frozen=True)
class GenerationScore(Score):
    """What your own function says of the texts with which a model goes on from prompts.

    Quantity: ``score``.

    Attributes
    ----------
    scorer : callable
        Takes a continuation (without its prompt) and returns a finite number.
    max_new_tokens : int
        Tokens to write at most.
    temperature : float
        0 takes the likeliest token each time; above 0 tokens are drawn, with probabilities proportional to
        ``exp(logit / temperature)``. Prompt i has random numbers of its own, from the seed and i: batch
        size moves no text, and texts with and without a vector are drawn with the same luck.
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
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model, tokenizer = (a.from_pretrained(folder) for a in (AutoModelForCausalLM, AutoTokenizer))
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

    def describe(self) -> dict[str, Any]:
        """Return what is on record about the score, ready for JSON."""
        name = getattr(self.scorer, "__qualname__", type(self.scorer).__name__)
        options = {"max_new_tokens": self.max_new_tokens, "temperature": self.temperature, "chat": self.chat}
        return {**super().describe(), "scorer": name, **options}

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
        if not np.isfinite(values).all():
            place = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"the scorer returns {values[place]} for {texts[place]!r:.60}, not a finite number"
            )
        return {"score": values}
