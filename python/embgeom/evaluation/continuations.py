"""What a model writes, and how much it repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom.lm.tokenizing import encode

# As in the papers that these measures come from.
_REPEATED = 4
_DISTINCT = 2


@dataclass(frozen=True)
class Continuations:
    """What a model writes after some prompts, and how much it repeats itself.

    Attributes
    ----------
    texts : tuple of str
        A continuation for each prompt.
    repetition : float
        Share of runs of four tokens that the same text held before, mean over texts (rep-4 of Welleck et al.,
        2020): 0 where nothing is repeated, near 1 in a loop. NaN where no text has four tokens.
    distinct : float
        Different pairs of adjacent tokens by all of them, over all texts (distinct-2 of Li et al., 2016):
        small where the texts are much alike. NaN where no text has two tokens.

    References
    ----------
    Welleck et al. (2020). Neural text generation with unlikelihood training. ICLR.
    Li et al. (2016). A diversity-promoting objective function for neural conversation models. NAACL.

    Examples
    --------
    >>> from embgeom.evaluation import Continuations
    >>> from transformers import AutoTokenizer
    >>> import embgeom
    >>> tokenizer = AutoTokenizer.from_pretrained(embgeom.examples.pair().small)
    >>> Continuations.from_texts(tokenizer, [" a cat and a cat and a cat and a cat"]).repetition
    0.625
    """

    texts: tuple[str, ...]
    repetition: float
    distinct: float

    @classmethod
    def from_texts(cls, tokenizer: Any, texts: Sequence[str]) -> Continuations:
        """Return the measures of texts, over the tokens that the tokenizer splits them into."""
        tokens = [encode(tokenizer, text, special=False) for text in texts]
        runs = [_runs(each, _REPEATED) for each in tokens]
        repeated = [1 - len(set(each)) / len(each) for each in runs if each]
        pairs = [pair for each in tokens for pair in _runs(each, _DISTINCT)]
        return cls(
            tuple(texts),
            float(np.mean(repeated)) if repeated else float("nan"),
            len(set(pairs)) / len(pairs) if pairs else float("nan"),
        )


def _runs(tokens: Sequence[int], length: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)]
