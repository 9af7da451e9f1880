"""
The compiled kernels of embgeom; use the functions of the package, which check their input.
"""
from __future__ import annotations
import collections.abc
import embgeom.errors
import numpy
import numpy.typing
import typing
__all__: list[str] = ['InvalidInput', 'Metric', 'float32_shares', 'global_similarity', 'instruction_set', 'intrinsic_dimension', 'knn_of_queries', 'knn_of_rows', 'lle', 'paired_products', 'positions', 'rank', 'rank_correlation', 'relabeled_agreement', 'row_products', 'row_stats', 'similarity_terms', 'stratum_moments', 'stratum_norms', 'tridiagonal_form']
class InvalidInput(embgeom.errors.InputError):
    pass
class Metric:
    """
    Members:
    
      cosine
    
      inner_product
    
      euclidean
    """
    __members__: typing.ClassVar[dict[str, Metric]]
    cosine: typing.ClassVar[Metric]
    euclidean: typing.ClassVar[Metric]
    inner_product: typing.ClassVar[Metric]
    @typing.overload
    def __eq__(self, other: Metric) -> bool:
        ...
    @typing.overload
    def __eq__(self, other: typing.Any) -> bool:
        ...
    def __getstate__(self) -> int:
        ...
    def __hash__(self) -> int:
        ...
    def __index__(self) -> int:
        ...
    def __init__(self, value: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __int__(self) -> int:
        ...
    @typing.overload
    def __ne__(self, other: Metric) -> bool:
        ...
    @typing.overload
    def __ne__(self, other: typing.Any) -> bool:
        ...
    def __repr__(self) -> str:
        ...
    def __setstate__(self, state: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def __str__(self) -> str:
        ...
    @property
    def name(self) -> str:
        ...
    @property
    def value(self) -> int:
        ...
def float32_shares(x: numpy.typing.NDArray[numpy.float32], list: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex]) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    The shares of variance that float32 finds for the rows listed, and the bounds of their errors.
    """
def global_similarity(a: numpy.typing.NDArray[numpy.float32], b: numpy.typing.NDArray[numpy.float32], rows: numpy.typing.NDArray[numpy.int64] | None, *, center: bool, include_diagonal: bool, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> float:
    """
    Correlation of two matrices' pairwise cosine similarities.
    """
def instruction_set() -> str:
    """
    The widest instructions that the kernels use on this processor (avx512, avx2 or base), and the BLAS library with the core for which it chose its own.
    """
def intrinsic_dimension(x: numpy.typing.NDArray[numpy.float32], neighbors: numpy.typing.NDArray[numpy.int32], rows: numpy.typing.NDArray[numpy.int64] | None, *, variance: typing.SupportsFloat | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.bool]]:
    """
    How many principal components explain a share of the variance of each token's neighbors.
    """
def knn_of_queries(x: numpy.typing.NDArray[numpy.float32], queries: numpy.typing.NDArray[numpy.float32], *, k: typing.SupportsInt | typing.SupportsIndex, metric: Metric, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32]]:
    """
    The k nearest rows of x for each row of another matrix.
    """
def knn_of_rows(x: numpy.typing.NDArray[numpy.float32], rows: numpy.typing.NDArray[numpy.int64] | None, *, k: typing.SupportsInt | typing.SupportsIndex, metric: Metric, exclude_self: bool, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.float32]]:
    """
    The k nearest rows of x for all of its rows, or for those listed.
    """
def lle(x: numpy.typing.NDArray[numpy.float32], neighbors: numpy.typing.NDArray[numpy.int32], rows: numpy.typing.NDArray[numpy.int64] | None, *, reg: typing.SupportsFloat | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.uint8]]:
    """
    Reconstruction weights of tokens over their neighbors.
    """
def paired_products(x: numpy.typing.NDArray[numpy.float32], y: numpy.typing.NDArray[numpy.float32], x_rows: numpy.typing.NDArray[numpy.int64], y_rows: numpy.typing.NDArray[numpy.int64], *, x_factors: numpy.typing.NDArray[numpy.float64] | None, y_factors: numpy.typing.NDArray[numpy.float64] | None, roots: numpy.typing.NDArray[numpy.float64] | None, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    Sums of products of paired rows, from which a linear map is fitted.
    """
def positions(a: numpy.typing.NDArray[numpy.int32], b: numpy.typing.NDArray[numpy.int32], *, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> numpy.typing.NDArray[numpy.int32]:
    """
    The place of each neighbor in another list.
    """
def rank(values: numpy.typing.NDArray[numpy.float32], *, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float64]]:
    """
    The order of values and their ranks, equal ones averaged.
    """
def rank_correlation(x: numpy.typing.NDArray[numpy.float32], ranks: numpy.typing.NDArray[numpy.float64], *, progress: typing.Any) -> float:
    """
    The rank correlation of numbers whose centered ranks are given with the products of rows.
    """
def relabeled_agreement(a: numpy.typing.NDArray[numpy.int32], values_a: numpy.typing.NDArray[numpy.float64] | None, b: numpy.typing.NDArray[numpy.int32], values_b: numpy.typing.NDArray[numpy.float64] | None, labels: numpy.typing.NDArray[numpy.int32], *, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> numpy.typing.NDArray[numpy.float64]:
    """
    How far two lists of neighbors agree when tokens are relabeled.
    """
def row_products(x: numpy.typing.NDArray[numpy.float32], y: numpy.typing.NDArray[numpy.float32], *, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]]:
    """
    Products of the columns of two matrices, and what each row has of their squared norms.
    """
def row_stats(x: numpy.typing.NDArray[numpy.float32], *, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.int64]]:
    """
    Norms of the rows of x, and the first row equal to each.
    """
def similarity_terms(a: numpy.typing.NDArray[numpy.float32], b: numpy.typing.NDArray[numpy.float32], *, center: bool, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[float, tuple[float, float, float], tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], numpy.typing.NDArray[numpy.float64], tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]]:
    """
    What baselines and intervals of that correlation are made of.
    """
def stratum_moments(directions: tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], begins: numpy.typing.NDArray[numpy.int64], *, threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> tuple[numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]]:
    """
    Means and scatters of directions within strata, and the products of the scatters.
    """
def stratum_norms(a: tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], b: tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.int64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64], numpy.typing.NDArray[numpy.float64]], begins: numpy.typing.NDArray[numpy.int64], means_a: numpy.typing.NDArray[numpy.float64], means_b: numpy.typing.NDArray[numpy.float64], *, shared: numpy.typing.NDArray[numpy.float64], factors: numpy.typing.NDArray[numpy.float64], threads: typing.SupportsInt | typing.SupportsIndex, progress: typing.Any) -> numpy.typing.NDArray[numpy.float64]:
    """
    Norms of the products of two matrices' deviations within strata, with a matrix between them.
    """
def tridiagonal_form(c: numpy.typing.NDArray[numpy.float32]) -> tuple[numpy.typing.NDArray[numpy.float32], numpy.typing.NDArray[numpy.float32]]:
    """
    Diagonal and off-diagonal of the tridiagonal form that float32 gives a symmetric matrix.
    """
