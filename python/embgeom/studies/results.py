"""What a study of many models found: the result of `embgeom.study`, with its tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import IndexMatrix, RowNumbers
from embgeom._common.record import plain
from embgeom._common.result import Columns, Result, Tabular, named
from embgeom._common.tables import Block, Table, plus_minus
from embgeom.comparison.coherence import Coherence
from embgeom.comparison.curves import Curve
from embgeom.comparison.hubs import Hubs
from embgeom.comparison.saving import ModelRecord, shown
from embgeom.comparison.statistic import Statistic, TokenGroup, interval_notes, null_text
from embgeom.emb2emb.score import Scores
from embgeom.geometry.dimension import IntrinsicDimension
from embgeom.geometry.estimators import DimensionCurve, DimensionEstimate, GaussianLevel
from embgeom.hidden_states import StateComparison
from embgeom.studies.lineage import Lineage
from embgeom.studies.options import StudyOptions

EXTREMES = 10


@dataclass(frozen=True, eq=False)
class ModelGeometry:
    """The geometry of one model's rows that count, among each other.

    Attributes
    ----------
    norms : ndarray of float64, shape (v,)
        The lengths of the rows.
    mean_share : float
        The squared length of the mean row, as a share of the mean squared length: 0 for rows around the
        origin, near 1 where all rows share one direction.
    neighbors : ndarray of int32, shape (v, k)
        The nearest neighbors of each row, numbered among these rows.
    hubs : Hubs
        Among the neighbors of how many rows each is.
    dimension : IntrinsicDimension
        Of all these rows, or of a sample, whose numbers are in ``dimension.rows``.
    two_nn, mle : DimensionEstimate or None
        The dimension by the distances to neighbors, see ``embgeom.geometry.estimators``; None for inner
        products.
    gaussian : GaussianLevel
        The dimension of Gaussian rows with the same mean and covariance, a null for dimensions.
    dimension_curve : DimensionCurve or None
        Dimensions of 500 of these rows over the number of neighbors; None in a first look.
    """

    norms: npt.NDArray[np.float64]
    mean_share: float
    neighbors: IndexMatrix
    hubs: Hubs
    dimension: IntrinsicDimension
    two_nn: DimensionEstimate | None
    mle: DimensionEstimate | None
    gaussian: GaussianLevel
    dimension_curve: DimensionCurve | None

    @property
    def half_widths(self) -> dict[str, float]:
        """Half of the 95 % intervals of `gaussian`, and of `two_nn` and `mle` where these are measured."""
        errors = {"gaussian": self.gaussian.sd / self.gaussian.sample**0.5}
        for estimate in (self.two_nn, self.mle):
            if estimate is not None:
                errors[estimate.method] = estimate.standard_error
        return {name: 1.96 * error for name, error in errors.items()}

    def levels(self) -> dict[str, str]:
        """Return the mean of Gaussian rows, TwoNN and MLE, each with half of its 95 % interval."""
        values = {"gaussian": self.gaussian.mean}
        values |= {each.method: each.value for each in (self.two_nn, self.mle) if each is not None}
        return {name: plus_minus(value, self.half_widths[name]) for name, value in values.items()}


@dataclass(frozen=True, eq=False)
class ModelSummary:
    """One model of a study.

    Attributes
    ----------
    record : ModelRecord
        The model, without its matrix.
    sha256 : str
        Of the matrix as float32.
    classes : dict of str to int
        How many rows there are of each class of tokens, see `embgeom.comparison.classify`.
    notes : tuple of str
        How untrained rows were found, or why not.
    rows : ndarray of int64, shape (v,)
        The rows that count. Everything in `geometry` is numbered among them.
    geometry : ModelGeometry
        The geometry of these rows.
    coherence : Coherence or None
        Whether neighbors of words are related to them, and whether that goes with low dimension; None
        without WordNet, or where WordNet knows too few tokens.
    """

    record: ModelRecord
    sha256: str
    classes: dict[str, int]
    notes: tuple[str, ...]
    rows: RowNumbers
    geometry: ModelGeometry
    coherence: Coherence | None

    @property
    def name(self) -> str:
        """The name in tables."""
        return self.record.name

    def extremes(self, count: int = EXTREMES) -> tuple[RowNumbers, RowNumbers]:
        """Return the rows of lowest and highest dimension, most extreme first, as numbers in `rows`."""
        dimension = self.geometry.dimension
        numbers = np.arange(len(dimension.n_components)) if dimension.rows is None else dimension.rows
        defined = np.flatnonzero(dimension.n_components >= 0)
        order = numbers[defined[np.argsort(dimension.n_components[defined], kind="stable")]]
        # Of few tokens, none is shown twice.
        count = min(count, -(-len(order) // 2))
        return order[:count], order[::-1][:count]

    def token(self, number: int) -> str:
        """Return the token of one of `rows`, in quotes."""
        return shown(self.record, int(self.rows[number]))


@dataclass(frozen=True, eq=False)
class SharedTokens:
    """The n tokens that some models share, and their local geometry in each of these m models.

    Attributes
    ----------
    models : tuple of int
        The models, by their position in ``study.models``.
    rows : ndarray of int64, shape (m, n)
        The rows of the tokens in each model.
    neighbors : ndarray of int32, shape (m, n, k)
        The nearest neighbors of each token in each model, numbered among the shared tokens; -1 for none.
    n_components : ndarray of int32, shape (m, n)
        Their intrinsic dimensions; -1 where it was not measured.
    strata : ndarray of int64, shape (n,)
        The stratum of each token, among which the stratified null exchanges tokens.
    position, case, script : ndarray of str, shape (n,)
        Classes of each token, as the first model writes it, see `embgeom.comparison.TokenClasses`.
    """

    models: tuple[int, ...]
    rows: npt.NDArray[np.int64]
    neighbors: npt.NDArray[np.int32]
    n_components: npt.NDArray[np.int32]
    strata: npt.NDArray[np.int64]
    position: npt.NDArray[np.str_]
    case: npt.NDArray[np.str_]
    script: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    def index_of(self, model: int) -> int:
        """Return the position of a model of the study among `models`."""
        return self.models.index(model)


@dataclass(frozen=True)
class MapScores:
    """How well a linear map from one model to another predicts held-out tokens, see `embgeom.Emb2Emb`.

    Attributes
    ----------
    scores, shuffled : Scores
        Of the map, and of one that was fitted on shuffled tokens.
    """

    scores: Scores
    shuffled: Scores


@dataclass(frozen=True, eq=False)
class PairResult:
    """What two models of a study share.

    Attributes
    ----------
    a, b : int
        The models, by their position in ``study.models``.
    tokens : int
        The tokens it was measured on, by their position in ``study.shared``.
    statistics : tuple of Statistic
        As those of a `Comparison`; p-values are adjusted for all measures of all pairs.
    groups : tuple of TokenGroup
        Which tokens agree, as those of a `Comparison`.
    curves : tuple of Curve
        Overlap, weight cosine and correlation of dimensions over the number of neighbors, and the last also
        over the share of variance.
    neighbor_overlap, weight_cosine : ndarray of float64, shape (n,)
        Of each shared token, as those of a `Comparison`.
    maps : tuple of MapScores
        From a to b, and from b to a; empty where no maps were asked for.
    states : StateComparison or None
        The hidden states of a, transferred to b, and those of b.
    """

    a: int
    b: int
    tokens: int
    statistics: tuple[Statistic, ...]
    groups: tuple[TokenGroup, ...]
    curves: tuple[Curve, ...]
    neighbor_overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]
    maps: tuple[MapScores, ...]
    states: StateComparison | None

    def __getitem__(self, name: str) -> Statistic:
        """Return a statistic by its name."""
        return named(self.statistics, name, "statistic")

    def extremes(self, count: int = EXTREMES) -> tuple[RowNumbers, RowNumbers]:
        """Return the most and the least shared tokens, by overlap and then by weight cosine."""
        cosine = np.nan_to_num(self.weight_cosine, nan=-2.0)
        order = np.lexsort((np.arange(len(cosine)), -cosine, -self.neighbor_overlap)).astype(np.int64)
        return order[:count], order[::-1][:count]


@dataclass(frozen=True, eq=False, repr=False)
class Study(Result, Tabular):
    """What the token embeddings of many models share, as `embgeom.study` measured it.

    `summary` shows models and pairs, `to_pandas` has a row for each measure of each pair, and its folder has
    everything. `load` reads such a folder.

    Attributes
    ----------
    models : tuple of ModelSummary
        In the order in which they were given.
    shared : tuple of SharedTokens
        The tokens that all models share; in a pairwise study those of each pair.
    pairs : tuple of PairResult
        Every pair a < b.
    lineage : Lineage or None
        The tree of models; None for two models.
    options : StudyOptions
        Every parameter.
    versions : dict of str to str
        The versions of the software that measured it.
    notes : tuple of str
        What could not be measured, and why; and where tokens are too few for a map.
    """

    _large: ClassVar[bool] = True

    models: tuple[ModelSummary, ...]
    shared: tuple[SharedTokens, ...]
    pairs: tuple[PairResult, ...]
    lineage: Lineage | None
    options: StudyOptions
    versions: dict[str, str]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        counts = sorted({len(tokens) for tokens in self.shared})
        tokens = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        return f"Study({len(self.models)} models, {len(self.pairs)} pairs, {tokens} shared tokens)"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the models, of which no two are equal."""
        return tuple(model.name for model in self.models)

    @property
    def dimension_k(self) -> str:
        """Over how many neighbors dimensions of the models are: one number, or the least to the most."""
        ks = sorted({model.geometry.dimension.k for model in self.models})
        return f"{ks[0]:,}" if len(ks) == 1 else f"{ks[0]:,} to {ks[-1]:,}"

    def pair(self, a: int, b: int) -> PairResult:
        """Return what two models share, by their positions in `models`."""
        return next(pair for pair in self.pairs if {pair.a, pair.b} == {a, b})

    def token(self, tokens: SharedTokens, number: int) -> str:
        """Return a shared token in quotes, as its first model writes it."""
        return shown(self.models[tokens.models[0]].record, int(tokens.rows[0, number]))

    def matrix(self, measure: str) -> npt.NDArray[np.float64]:
        """Return the values of a measure for all pairs, (m, m) float64; NaN on the diagonal."""
        values = np.full((len(self.models),) * 2, np.nan)
        for pair in self.pairs:
            values[pair.a, pair.b] = values[pair.b, pair.a] = pair[measure].value
        return values

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Study:
        """Read the folder of a study.

        Raises
        ------
        LoadError
            If the folder does not hold a finished study, or cannot be read.
        """
        return super().load(Path(path) / "study.safetensors")

    def columns(self) -> Columns:
        """Return a row for each measure of each pair."""
        rows = list(self._rows())
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _rows(self) -> Iterator[dict[str, Any]]:
        for pair in self.pairs:
            for statistic in pair.statistics:
                yield {
                    "measure": statistic.name,
                    "model_a": self.models[pair.a].name,
                    "model_b": self.models[pair.b].name,
                    **statistic.record(),
                }

    def curve_columns(self) -> Columns:
        """Return a row for each point of each curve of each pair."""
        rows = [
            {
                "measure": curve.name,
                "model_a": self.models[pair.a].name,
                "model_b": self.models[pair.b].name,
                "over": curve.over,
                "at": float(at),
                **estimate.to_dict(),
            }
            for pair in self.pairs
            for curve in pair.curves
            for at, estimate in zip(curve.at, curve.estimates, strict=True)
        ]
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ("measure",))}

    def model_columns(self) -> Columns:
        """Return a row for each model."""
        rows = [_model_row(model) for model in self.models]
        return {
            name: [row.get(name) for row in rows] for name in dict.fromkeys(n for row in rows for n in row)
        }

    def token_columns(self) -> Columns:
        """Return a row for each shared token and model."""
        columns: dict[str, list[Any]] = {}
        for number, tokens in enumerate(self.shared):
            for at, index in enumerate(tokens.models):
                model, rows = self.models[index], tokens.rows[at]
                position = np.searchsorted(model.rows, rows)
                if not np.array_equal(model.rows.take(position, mode="clip"), rows):
                    raise RuntimeError(f"rows that {model.name} shares are not among its rows that count")
                n = len(tokens)
                part: dict[str, Any] = {
                    "shared": [number] * n,
                    "token_number": range(n),
                    "model": [model.name] * n,
                    "row": rows.tolist(),
                    "token": [model.record.tokens[row] for row in rows.tolist()],
                    "norm": model.geometry.norms[position].tolist(),
                    "in_degree": model.geometry.hubs.in_degree[position].tolist(),
                    "n_components": [c if c >= 0 else None for c in tokens.n_components[at].tolist()],
                    "stratum": tokens.strata.tolist(),
                    "position": tokens.position.tolist(),
                    "case": tokens.case.tolist(),
                    "script": tokens.script.tolist(),
                    "neighbors": tokens.neighbors[at].tolist(),
                }
                for name, values in part.items():
                    columns.setdefault(name, []).extend(values)
        return columns

    def tables(self) -> list[Block]:
        """Return the tables of `summary`: models, for each measure the values of all pairs, and cautions."""
        names = [f"{number}: {name}" for number, name in enumerate(self.names, 1)]
        blocks: list[Block] = [repr(self), Table("models", *_model_table(names, self.models)), ""]
        for number, statistic in enumerate(self.pairs[0].statistics):
            rows = [(name, *self._cells(index, number)) for index, name in enumerate(names)]
            columns = ("", *(str(number) for number in range(1, len(names) + 1)))
            blocks.append(Table(f"{statistic.label}: {statistic.meaning}", columns, rows))
        blocks.append("above the diagonal: value ± half of its 95 % interval; below it: null, mean ± sd")
        blocks += [f"warning: {note}" for note in (*self.pair_notes(), *self.notes)]
        return [*blocks, "", *(self.lineage.tables() if self.lineage else [])]

    def pair_notes(self) -> Iterator[str]:
        """Give cautions on measures of pairs, each once."""
        found: dict[str, list[str]] = {}
        for pair in self.pairs:
            for note in interval_notes(pair.statistics):
                found.setdefault(note, []).append(f"{self.names[pair.a]} and {self.names[pair.b]}")
        for note, pairs in found.items():
            which = pairs[0] if len(pairs) == 1 else f"{len(pairs)} of {len(self.pairs)} pairs"
            yield f"{which}: {note}"

    def _cells(self, index: int, number: int) -> Iterator[str]:
        """Give a row of a measure's table: values above the diagonal, and below it nulls."""
        for other in range(len(self.models)):
            if other == index:
                yield ""
                continue
            estimate = self.pair(index, other).statistics[number].estimate
            yield estimate.text() if other > index else null_text(estimate.null)

    def to_dict(self) -> dict[str, Any]:
        """Return options, models with their files' SHA-256, and every statistic, ready for JSON."""
        shared = [
            {"models": [self.models[i].name for i in tokens.models], "n": len(tokens)}
            for tokens in self.shared
        ]
        record = {
            "result": type(self).__name__,
            "options": self.options,
            "models": [
                {**model.record.to_dict(), "matrix_sha256": model.sha256, **_model_row(model)}
                for model in self.models
            ],
            "shared": shared,
            "pairs": [self._pair_record(pair) for pair in self.pairs],
            "lineage": self.lineage,
            "versions": self.versions,
            "notes": self.notes,
        }
        described: dict[str, Any] = plain(record)
        return described

    def _pair_record(self, pair: PairResult) -> dict[str, Any]:
        return {
            "a": self.models[pair.a].name,
            "b": self.models[pair.b].name,
            "shared": pair.tokens,
            "statistics": [statistic.record() for statistic in pair.statistics],
            "maps": pair.maps,
        }


def _model_row(model: ModelSummary) -> dict[str, Any]:
    geometry = model.geometry
    dimension, v = geometry.dimension, len(model.rows)
    components = dimension.n_components[dimension.n_components >= 0]
    quantiles = np.quantile(geometry.norms, (0.0, 0.1, 0.5, 0.9, 1.0)).tolist()
    return {
        "model": model.name,
        "which": model.record.which,
        "vocabulary": model.record.shape[0],
        "hidden_size": model.record.shape[1],
        "kept": v,
        **{f"class_{name}": count for name, count in model.classes.items()},
        **dict(zip(("norm_min", "norm_10", "norm_median", "norm_90", "norm_max"), quantiles, strict=True)),
        "mean_share": geometry.mean_share,
        "in_degree_max": int(geometry.hubs.in_degree.max()),
        "in_degree_skewness": geometry.hubs.skewness,
        "dimension_k": dimension.k,
        "dimension_tokens": len(components),
        "dimension_mean": float(components.mean()) if len(components) else float("nan"),
        "dimension_max": dimension.max_components,
        "dimension_gaussian": geometry.gaussian.mean,
        "dimension_gaussian_half_width": geometry.half_widths["gaussian"],
        "participation_ratio_mean": float(np.nanmean(dimension.participation_ratio)),
        "two_nn": geometry.two_nn.value if geometry.two_nn else None,
        "two_nn_half_width": geometry.half_widths.get("two_nn"),
        "mle": geometry.mle.value if geometry.mle else None,
        "mle_half_width": geometry.half_widths.get("mle"),
        **{
            f"coherence_{each.name}_spearman": each.spearman.value
            for each in (model.coherence.statistics if model.coherence else ())
        },
    }


def _model_table(names: list[str], models: tuple[ModelSummary, ...]) -> tuple[Any, Any]:
    shown_columns = {
        "vocabulary": "rows",
        "kept": "kept",
        "hidden_size": "columns",
        "mean_share": "mean share",
        "in_degree_skewness": "hub skewness",
        "dimension_mean": "mean dimension",
        "dimension_max": "of at most",
        "dimension_gaussian": "of Gaussian rows",
    }
    rows = []
    for name, model in zip(names, models, strict=True):
        row = _model_row(model)
        cells = (row[column] for column in shown_columns)
        rows.append((name, *(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)))
    return ("model", *shown_columns.values()), rows
