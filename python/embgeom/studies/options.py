"""The parameters of a study."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import get_args

from embgeom._common.checks import flag, whole_number
from embgeom.comparison.comparison import MeasureOptions
from embgeom.embeddings.embeddings import Which
from embgeom.errors import InputError


@dataclass(frozen=True)
class StudyOptions(MeasureOptions):
    """Every parameter of a study that decides on its numbers.

    Those of `embgeom.comparison.MeasureOptions`, and:

    Attributes
    ----------
    which : {"input", "output"}
        Embeddings or unembeddings, where models are given by name.
    pairwise : bool
        Whether each pair of models is compared on all tokens that these two share, instead of the tokens that
        all models share.
    quick : bool
        A first look: dimensions of 500 tokens, the overlap's curve alone, up to k = 200, 20 relabelings, and
        neither maps nor CKA, RSA and Procrustes similarity.
    ks : tuple of int
        The numbers of neighbors of the curves; those that a vocabulary does not have are left out.
    dimension_k : int
        Neighbors for the intrinsic dimension; at most half of the tokens.
    states : bool
        Whether to compare hidden states, too, where models can be run.
    wordnet : path or "wn", optional
        WordNet, by which the coherence of neighbors is measured, see `embgeom.comparison.coherence`.
    """

    which: Which = "input"
    pairwise: bool = False
    quick: bool = False
    ks: tuple[int, ...] = (10, 50, 200, 1200)
    dimension_k: int = 200
    states: bool = False
    wordnet: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.which not in get_args(Which):
            raise InputError(
                f"which = {self.which!r:.40} is unknown: use one of {', '.join(get_args(Which))}"
            )
        for name in ("pairwise", "quick", "states"):
            flag(getattr(self, name), name)
        if self.wordnet is not None:
            object.__setattr__(self, "wordnet", os.fspath(self.wordnet))
        whole_number(self.dimension_k, "dimension_k", 2)
        if not self.ks:
            raise InputError("ks is empty; give the numbers of neighbors of the curves, such as (10, 50)")
        object.__setattr__(self, "ks", tuple(sorted({whole_number(k, "ks", 1) for k in self.ks})))
