"""The parameters of measures, and of `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TypedDict

from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.threads import resolve_threads
from embgeom.comparison.tokens import WITHOUT, check_only, check_without
from embgeom.geometry.dimension import check_variance
from embgeom.geometry.knn import Metric, check_metric
from embgeom.geometry.lle import check_reg


@dataclass(frozen=True)
class MeasureOptions:
    """The parameters of measures of two models, in a comparison and in a study.

    Attributes
    ----------
    k : int
        Neighbors for the overlap and the reconstruction weights.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    center : bool
        Subtract the mean of the tokens that count before neighbors are searched, which removes hubs. By
        Euclidean distance it changes nothing.
    reg : float
        Regularization of the reconstruction weights, see `lle`.
    variance : float
        Share of variance that defines the intrinsic dimension.
    without : tuple of str
        Classes of tokens that do not count; see `embgeom.comparison.TokenClasses`.
    only : "words", path, tuple of str, or None
        The tokens that count, if not all: words, those that a file lists, or these.
    relabelings : int
        Random relabelings of the tokens where the null has no closed form.
    seed : int
        Seed of everything random.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """

    k: int = 10
    metric: Metric = "cosine"
    center: bool = True
    reg: float = 1e-3
    variance: float = 0.95
    without: tuple[str, ...] = WITHOUT
    only: str | tuple[str, ...] | None = None
    relabelings: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_metric(self.metric)
        whole_number(self.k, "k", 1)
        flag(self.center, "center")
        check_reg(self.reg)
        check_variance(self.variance)
        whole_number(self.relabelings, "relabelings", 2)
        check_seed(self.seed)
        # Lists become tuples, so that options that were saved and loaded are equal.
        object.__setattr__(self, "without", check_without(self.without))
        object.__setattr__(self, "only", check_only(self.only))


@dataclass(frozen=True)
class CompareOptions(MeasureOptions):
    """Every parameter of a comparison, with its default; `compare` takes them by the same names.

    Those of `embgeom.comparison.MeasureOptions`, and:

    Attributes
    ----------
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or half of the tokens if that is fewer.
    dimension_sample : int, optional
        Number of random tokens whose intrinsic dimension is measured; by default of all.
    panel : bool
        Measure CKA, RSA and Procrustes similarity, too.
    curves : bool
        Measure overlap and weights over several numbers of neighbors, up to 50, too.
    threads : int, optional
        Threads to use; every core available to the process by default.
    """

    dimension_k: int | None = None
    dimension_sample: int | None = None
    panel: bool = False
    curves: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self.panel, "panel")
        flag(self.curves, "curves")
        if self.dimension_sample is not None:
            whole_number(self.dimension_sample, "dimension_sample", 1)
        object.__setattr__(self, "threads", resolve_threads(self.threads))


class CompareKeywords(TypedDict, total=False):
    """The attributes of `CompareOptions` as keywords."""

    k: int
    metric: Metric
    center: bool
    reg: float
    dimension_k: int | None
    dimension_sample: int | None
    variance: float
    without: Sequence[str]
    only: str | PathLike[str] | Sequence[str] | None
    relabelings: int
    panel: bool
    curves: bool
    seed: int
    threads: int | None
