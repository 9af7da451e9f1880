"""A model's vocabulary as a table to look at: a row for each token, with its coordinates in a layout."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, RowNumbers
from embgeom._common.checks import check_seed, flag, need
from embgeom._common.progress import Progress
from embgeom._common.record import plain, versions
from embgeom._common.result import Columns, Plotted, Result, Tabular, new_figure
from embgeom._common.style import SEQUENTIAL
from embgeom._common.tables import Block, Table, check_table_format, distribution, write_table
from embgeom._common.threads import resolve_threads
from embgeom._common.writing import write_file
from embgeom.comparison.coherence import MEASURES, coherence
from embgeom.comparison.saving import ModelRecord, loaded
from embgeom.comparison.tokens import (
    CLASSES,
    WITHOUT,
    TokenClasses,
    check_only,
    check_without,
    classify,
    kept_rows,
)
from embgeom.comparison.wordnet import WordNet
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.errors import InputError, OutputError
from embgeom.geometry.dimension import IntrinsicDimension, dimension_neighbors, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, check_k, knn
from embgeom.runs.cache import active
from embgeom.runs.run import run

ORDINARY = "text"
_DESCRIBED = ("position", "case", "script", "length")


@dataclass(frozen=True, eq=False, repr=False)
class Atlas(Result, Tabular, Plotted):
    """A model's tokens with their coordinates in a layout of two dimensions, as `atlas` made it.

    Attributes
    ----------
    model : ModelRecord
        The tokens of the table, n of the model's rows, without their matrix.
    rows : ndarray of int64, shape (n,)
        Their rows in the model.
    norms : ndarray of float64, shape (n,)
        Lengths of the rows.
    token_class : list of str, length n
        The first class of ``embgeom.comparison.CLASSES`` that a token is of, or ``"text"``.
    position, case, script : ndarray of str, shape (n,)
    length : ndarray of int64, shape (n,)
        As of `embgeom.comparison.TokenClasses`.
    neighbors : Neighbors
        Of each token, numbered by the rows of the table; shape (n, k).
    dimension : IntrinsicDimension
        Over a wider neighborhood, shape (n,).
    coordinates : ndarray of float32, shape (n, 2)
        UMAP's layout of the neighbors.
    coherence : ndarray of float32, shape (n,), or None
        The share of a word's nearest words in its lexicographer file of WordNet, minus the base rate; NaN
        for what is not a word that WordNet knows. None without WordNet.
    options : dict of str to object
        Every parameter.
    versions : dict of str to str
        The versions of the software that measured it.
    from_cache : list of str
        What was read from the cache instead of computed.
    """

    _large: ClassVar[bool] = True

    model: ModelRecord
    rows: RowNumbers
    norms: Float64Vector
    token_class: list[str]
    position: npt.NDArray[np.str_]
    case: npt.NDArray[np.str_]
    script: npt.NDArray[np.str_]
    length: RowNumbers
    neighbors: Neighbors
    dimension: IntrinsicDimension
    coordinates: Float32Matrix
    coherence: npt.NDArray[np.float32] | None
    options: dict[str, Any]
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        return f"Atlas({self.model.name!r}, {len(self.rows)} tokens, {self.neighbors!r})"

    def tables(self) -> list[Block]:
        """Return the counts of classes, and the quantiles of norms and dimensions."""
        names, counts = np.unique(self.token_class, return_counts=True)
        quantities: dict[str, npt.NDArray[Any]] = {
            "norm": self.norms,
            "intrinsic dimension": self.dimension.defined,
            "participation ratio": self.dimension.participation_ratio,
        }
        title = f"{len(self.rows)} tokens of {self.model.name}"
        return [
            Table(title, ("class", "tokens"), zip(names.tolist(), counts.tolist(), strict=True)),
            distribution(quantities),
        ]

    def columns(self) -> Columns:
        """Return a row for each token; `neighbors` in the format of the package embedding-atlas."""
        near = zip(self.neighbors.indices.tolist(), self.neighbors.distances.tolist(), strict=True)
        listed = [{"ids": ids, "distances": distances} for ids, distances in near]
        return {**self._plain_columns(), "neighbors": listed}

    def _plain_columns(self) -> dict[str, Any]:
        spelled = (
            token if text is None else text.decode("utf-8", "backslashreplace")
            for token, text in zip(self.model.tokens, self.model.token_bytes, strict=True)
        )
        return {
            "row": self.rows,
            "token": self.model.tokens,
            "text": list(spelled),
            "class": self.token_class,
            **{name: getattr(self, name) for name in _DESCRIBED},
            "norm": self.norms,
            "dimension": self.dimension.n_components,
            "participation_ratio": self.dimension.participation_ratio,
            **({} if self.coherence is None else {"coherence": self.coherence}),
            "x": self.coordinates[:, 0],
            "y": self.coordinates[:, 1],
        }

    def to_parquet(self, path: str | PathLike[str]) -> None:
        """Write the table of `columns` as a Parquet file, which the package embedding-atlas opens.

        Raises
        ------
        OutputError
            If the file cannot be written, does not end in ``.parquet``, or is one that the model was read
            from; then nothing changes.
        InputError
            If pyarrow is not installed.
        """
        check_parquet(path)
        import pyarrow

        indices, distances = self.neighbors.indices, self.neighbors.distances
        ends = np.arange(0, indices.size + 1, indices.shape[1], dtype=np.int32)
        lists = [pyarrow.ListArray.from_arrays(ends, values.ravel()) for values in (indices, distances)]
        near = pyarrow.StructArray.from_arrays(lists, names=["ids", "distances"])
        columns = {**self._plain_columns(), "neighbors": near}
        write_file(path, lambda partial: write_table(partial, columns), inputs=self._inputs())

    def figure(self) -> Any:
        """Draw the layout, colored by intrinsic dimension."""
        figure = new_figure(7, 6)
        axes = figure.subplots()
        drawn = axes.scatter(
            *self.coordinates.T,
            c=self.dimension.defined,
            s=2,
            cmap=SEQUENTIAL,
            linewidths=0,
            rasterized=True,
        )
        figure.colorbar(drawn, ax=axes, label="intrinsic dimension")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"{len(self.rows)} tokens of {self.model.name}, by UMAP")
        return figure

    def _inputs(self) -> Iterable[Any]:
        return self.model.provenance.inputs


def check_parquet(path: str | PathLike[str]) -> None:
    if Path(path).suffix != ".parquet":
        raise OutputError(f"{path} does not end in .parquet, the format of an atlas")
    check_table_format("parquet")


def atlas(
    embeddings: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    k: int = 15,
    center: bool = True,
    dimension_k: int | None = None,
    without: Iterable[str] = WITHOUT,
    only: str | PathLike[str] | Sequence[str] | None = None,
    wordnet: WordNet | str | PathLike[str] | None = None,
    folder: str | PathLike[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Atlas:
    """Make a table of a model's tokens to look at, with a layout of their exact neighbors by UMAP.

    ``atlas(...).to_parquet("atlas.parquet")`` writes a file that the package embedding-atlas opens:
    ``embedding-atlas atlas.parquet --text text --x x --y y --neighbors neighbors``.

    Parameters
    ----------
    embeddings : Embeddings, or str or path-like
        The model, or its name as `load` takes it.
    which : {"input", "output"}
        Embedding or unembedding, where the model is given by name.
    k : int
        Neighbors of each token by cosine, in the table and in the layout.
    center : bool
        Find neighbors after subtracting the mean embedding of the tokens in the table.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or half of the tokens if that is fewer.
    without, only
        Which tokens the table has, as for `embgeom.comparison.kept_rows`; zero rows, which have no
        direction, are always left out.
    wordnet : WordNet, or what `WordNet.load` takes, optional
        By which the coherence of words is measured.
    folder : path, optional
        Where the search and the dimensions keep their blocks, by which the same call goes on after an
        interruption; see `run`.
    seed : int
        Seed of the layout.
    threads, progress : optional
        As for `compare`. UMAP shows no progress, and uses one thread, so that a seed gives one layout.

    Returns
    -------
    Atlas

    Raises
    ------
    InputError
        If umap-learn is not installed, or a parameter does not fit the model.
    LoadError
        If the model cannot be loaded.

    Notes
    -----
    A search for neighbors, the dimensions of all tokens, and UMAP. Within `use_cache`, neighbors and
    dimensions that were computed before are read instead.

    Examples
    --------
    >>> import embgeom
    >>> made = embgeom.atlas("example:small", only="words")  # doctest: +SKIP
    >>> made.to_parquet("atlas.parquet")  # doctest: +SKIP
    """
    team = resolve_threads(threads)
    umap = need("umap", "an atlas", extra="atlas")
    model = loaded(embeddings, which, team, progress)
    seed, center, without = check_seed(seed), flag(center, "center"), check_without(without)
    classes = classify(model, threads=team)
    rows = kept_rows(classes, without=without, only=only)
    rows = rows[~model.zero[rows]]
    if len(rows) < 4:
        raise InputError(f"{len(rows)} tokens of {model.name} count; a layout needs at least 4")
    chosen = model.select(rows)
    k, wide = check_k(k, len(rows) - 1), dimension_neighbors(dimension_k, len(rows) - 1)
    common: dict[str, Any] = {"threads": team, "progress": progress}
    call = active((model.name, chosen.matrix))
    if folder is None:
        around = call(knn, chosen, max(k, wide), center=center, **common)
        neighbors = around.first(k)
        dimension = call(intrinsic_dimension, chosen, around.first(wide), **common)
    else:
        common["center"] = center
        neighbors = run("knn", chosen, Path(folder) / "knn", k=k, **common)
        dimension = run("dimension", chosen, Path(folder) / "dimension", k=wide, **common)
        del common["center"]
    return Atlas(
        model=ModelRecord.from_embeddings(chosen),
        rows=rows,
        norms=chosen.norms,
        token_class=[
            next((name for name in CLASSES if getattr(classes, name)[row]), ORDINARY) for row in rows.tolist()
        ],
        position=classes.position[rows],
        case=classes.case[rows],
        script=classes.script[rows],
        length=classes.length[rows],
        neighbors=neighbors,
        dimension=dimension,
        coordinates=_layout(umap, chosen.matrix, neighbors, seed),
        coherence=None
        if wordnet is None
        else _coherence(model, wordnet, classes, rows, {"center": center, **common}),
        options={
            "k": k,
            "center": center,
            "dimension_k": wide,
            "without": list(without),
            "only": plain(check_only(only)),
            "seed": seed,
            "threads": team,
        },
        versions=versions(["umap-learn"]),
        from_cache=call.served,
    )


def _coherence(
    model: Embeddings, wordnet: Any, classes: TokenClasses, rows: RowNumbers, common: dict[str, Any]
) -> npt.NDArray[np.float32]:
    """Return how many more of each word's nearest words are in its lexicographer file than by chance."""
    # Of dimensions the table has those of all rows: over few neighbors, those of the words take no time.
    found = coherence(model, wordnet, classes=classes, k=5, **common)
    column = list(MEASURES).index("lexicographer_file")
    of_rows = np.full(len(model), np.nan, dtype=np.float32)
    of_rows[found.rows] = found.values[:, column] - found.base[:, column]
    return of_rows[rows]


def _layout(umap: Any, x: Float32Matrix, neighbors: Neighbors, seed: int) -> Float32Matrix:
    maker = umap.UMAP(
        n_neighbors=neighbors.k + 1,
        metric="cosine",
        precomputed_knn=neighbors.to_umap(),
        random_state=seed,
        n_jobs=1,
    )
    with warnings.catch_warnings():
        # That new rows cannot be placed, and other things that no caller can change.
        warnings.simplefilter("ignore")
        coordinates: Float32Matrix = maker.fit_transform(x)
    return coordinates
