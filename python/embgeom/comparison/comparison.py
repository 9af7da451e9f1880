"""What a comparison of two models' token embeddings holds."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.vocabulary import Match
from embgeom.errors import InputError
from embgeom.geometry.dimension import IntrinsicDimension
from embgeom.geometry.knn import Metric, Neighbors
from embgeom.geometry.lle import LLE

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class CompareOptions:
    """Every parameter of a comparison.

    Attributes
    ----------
    k : int
        Neighbors for the overlap and the reconstruction weights.
    metric : str
        How neighbors are found.
    reg : float
        Regularization of the reconstruction weights, see `lle`.
    dimension_k : int
        Neighbors for the intrinsic dimension.
    dimension_sample : int
        Tokens whose intrinsic dimension is measured.
    variance : float
        Share of variance that defines the intrinsic dimension.
    seed : int
        Seed of the null models and of the sample of tokens.
    threads : int
        Threads used. It changes no result.
    """

    k: int
    metric: Metric
    reg: float
    dimension_k: int
    dimension_sample: int
    variance: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Statistic:
    """One number on what two models share, with its value under two null models.

    Attributes
    ----------
    name : str
        The key in ``comparison[name]`` and in files: ``"global_similarity"``,
        ``"global_similarity_centered"``, ``"neighbor_overlap"``, ``"weight_cosine"``,
        ``"dimension_pearson"`` or ``"dimension_spearman"``.
    label, meaning : str
        How tables call and explain it.
    value : float
        For the two models as they are.
    shuffled : float
        For the same matrices with each token of the first paired with a random token of the second.
    gaussian : float
        For independent Gaussian rows of the same shapes.
    """

    name: str
    label: str
    meaning: str
    value: float
    shuffled: float
    gaussian: float


@dataclass(frozen=True, eq=False)
class LocalGeometry:
    """The local geometry of one model's n shared tokens, of which m were sampled for the dimension.

    Attributes
    ----------
    neighbors : Neighbors
        Of each shared token, numbered among the shared tokens; shape (n, k).
    lle : LLE
        Their reconstruction weights, shape (n, k).
    dimension : IntrinsicDimension
        Of the sampled tokens, shape (m,).
    """

    neighbors: Neighbors
    lle: LLE
    dimension: IntrinsicDimension


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What two models' token embeddings share.

    Attributes
    ----------
    a, b : Embeddings
        The models.
    match : Match
        The tokens that both have, and why others were left out. The n shared tokens are numbered by
        their place there.
    options : CompareOptions
        Every parameter.
    statistics : tuple of Statistic
        Each with its values under the two null models.
    overlap : ndarray of float64, shape (n,)
        Share of common neighbors of each shared token.
    weight_cosine : ndarray of float64, shape (n,)
        Cosine similarity of each shared token's reconstruction weights.
    sampled : ndarray of int64, shape (m,)
        The shared tokens whose intrinsic dimension was measured.
    local_a, local_b : LocalGeometry
        Neighbors (numbered among the shared tokens), weights and dimensions in each model.
    """

    a: Embeddings
    b: Embeddings
    match: Match
    options: CompareOptions
    statistics: tuple[Statistic, ...]
    overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]
    sampled: RowNumbers
    local_a: LocalGeometry
    local_b: LocalGeometry

    def __repr__(self) -> str:
        values = ", ".join(f"{statistic.name} {statistic.value:.4f}" for statistic in self.statistics)
        return f"Comparison({self.a.name!r} and {self.b.name!r}, {len(self.match)} shared tokens: {values})"

    def __getitem__(self, name: str) -> Statistic:
        """Return a statistic by its name."""
        for statistic in self.statistics:
            if statistic.name == name:
                return statistic
        known = ", ".join(repr(statistic.name) for statistic in self.statistics)
        raise InputError(f"no statistic is named {name!r}; there are {known}")

    def weight_cosine_quantiles(self) -> dict[float, float]:
        """Return the 10 %, 50 % and 90 % quantiles of the weight cosines that are defined."""
        defined = self.weight_cosine[~np.isnan(self.weight_cosine)]
        values = np.quantile(defined, QUANTILES) if defined.size else np.full(len(QUANTILES), np.nan)
        return {quantile: float(value) for quantile, value in zip(QUANTILES, values, strict=True)}

    def summary(self) -> str:
        """Return the comparison as readable tables."""
        from embgeom._common.tables import as_text
        from embgeom.comparison.report import comparison_tables

        return as_text(comparison_tables(self))

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write the tables of `summary` as one HTML file.

        Raises
        ------
        OutputError
            If the file cannot be written, or is one that a model was read from; then nothing is left at
            `path`.
        """
        from embgeom.comparison.report import write_html

        write_html(self, path)

    def save(
        self, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
    ) -> None:
        """Write arrays (npz), a table of tokens (csv or parquet), and measures with provenance (JSON).

        The folder appears when all of it is written, or not at all.

        Raises
        ------
        OutputError
            If the folder holds something already, lies in a model's folder, or cannot be written. With
            `overwrite` earlier results are replaced, but a folder with any other file in it is still refused.
        """
        from embgeom.comparison.results import save_comparison

        save_comparison(self, folder, table_format=table_format, overwrite=overwrite)
