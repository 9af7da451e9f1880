"""The parameters of a study."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import get_args

from embgeom._common.checks import check_seed, flag, whole_number
from embgeom.comparison.tokens import WITHOUT, check_only, check_without
from embgeom.embeddings.embeddings import Which
from embgeom.errors import InputError
from embgeom.geometry.dimension import check_variance
from embgeom.geometry.knn import Metric
from embgeom.geometry.lle import check_reg


@dataclass(frozen=True)
class StudyOptions:
    """Every parameter of a study that decides on its numbers.

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
    without : tuple of str
        Classes of tokens that do not count, see `embgeom.comparison.classify`.
    only : "words", path, tuple of str, or None
        The tokens that count, if not all: words, those that a file lists, or these.
    k : int
        Neighbors for the overlap and the reconstruction weights.
    ks : tuple of int
        The numbers of neighbors of the curves; those that a vocabulary does not have are left out.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    center : bool
        Subtract the mean of the tokens that count before neighbors are searched, which removes hubs.
    reg : float
        Regularization of the reconstruction weights, see `embgeom.lle`.
    dimension_k : int
        Neighbors for the intrinsic dimension; at most half of the tokens.
    variance : float
        Share of variance that defines the intrinsic dimension.
    relabelings : int
        Random relabelings of the tokens where the null has no closed form.
    states : bool
        Whether to compare hidden states, too, where models can be run.
    wordnet : path or "wn", optional
        WordNet, by which the coherence of neighbors is measured, see `embgeom.comparison.coherence`.
    seed : int
        Seed of everything random.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """

    which: Which = "input"
    pairwise: bool = False
    quick: bool = False
    without: tuple[str, ...] = WITHOUT
    only: str | tuple[str, ...] | None = None
    k: int = 10
    ks: tuple[int, ...] = (10, 50, 200, 1200)
    metric: Metric = "cosine"
    center: bool = True
    reg: float = 1e-3
    dimension_k: int = 200
    variance: float = 0.95
    relabelings: int = 200
    states: bool = False
    wordnet: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("which", Which), ("metric", Metric)):
            if getattr(self, name) not in get_args(known):
                raise InputError(
                    f"{name} = {getattr(self, name)!r:.40} is unknown: use one of {get_args(known)}"
                )
        for name in ("pairwise", "quick", "center", "states"):
            flag(getattr(self, name), name)
        object.__setattr__(self, "without", check_without(self.without))
        object.__setattr__(self, "only", check_only(self.only))
        if self.wordnet is not None:
            object.__setattr__(self, "wordnet", os.fspath(self.wordnet))
        whole_number(self.k, "k", 1)
        whole_number(self.relabelings, "relabelings", 2)
        whole_number(self.dimension_k, "dimension_k", 2)
        if not self.ks:
            raise InputError("ks is empty; give the numbers of neighbors of the curves, such as (10, 50)")
        object.__setattr__(self, "ks", tuple(sorted({whole_number(k, "ks", 1) for k in self.ks})))
        check_reg(self.reg)
        check_variance(self.variance)
        check_seed(self.seed)
