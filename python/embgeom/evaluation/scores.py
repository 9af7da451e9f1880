"""What steering is to change, as numbers: one or more for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError

Values = dict[str, npt.NDArray[np.float64]]


class Score(ABC):
    """Numbers that tell, for each sample, how far a model shows what a vector is to bring about.

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
            raise InputError(f"prompts = {prompts!r:.60} is no list; give a list of prompts")
        found = list(prompts)
        if not found:
            raise InputError("there are no prompts to score; give some")
        return found

    def describe(self) -> dict[str, Any]:
        """Return what is on record about the score, ready for JSON."""
        return {"name": type(self).__name__, "quantities": list(self.quantities)}


def check_score(score: object) -> None:
    """Raise InputError for what is no score."""
    if not isinstance(score, Score):
        raise InputError(
            f"score = {score!r:.60} is not a score: give a WordLogRatio, an AnswerProbability, a "
            "GenerationScore around a function of your own, or a subclass of Score"
        )
