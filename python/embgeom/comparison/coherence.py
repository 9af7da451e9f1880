"""Semantic coherence: whether the neighbors of a word are related to it in WordNet."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, IndexMatrix, RowNumbers
from embgeom._common.checks import flag, whole_number
from embgeom._common.progress import Progress
from embgeom._common.result import Columns, Result, Tabular, named
from embgeom._common.tables import Block, Table
from embgeom._common.threads import one_blas_thread
from embgeom.comparison.nulls import Baseline, Estimate, correlation_estimate
from embgeom.comparison.tokens import TokenClasses, classify, kept_rows
from embgeom.comparison.wordnet import Relatives, WordNet, mean_where
from embgeom.embeddings.embeddings import Embeddings, check_embeddings
from embgeom.errors import InputError
from embgeom.geometry.agreement import ranks
from embgeom.geometry.dimension import IntrinsicDimension, dimension_neighbors, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, knn
from embgeom.runs.cache import active

MEASURES = {
    "lemma": "share of neighbors with a lemma in common",
    "part_of_speech": "share of neighbors of another lemma with a part of speech in common",
    "lexicographer_file": "those with a lexicographer file in common, such as noun.animal",
    "synset": "those with a synset in common",
    "relation": "those of which a relation links a synset to one of the word's",
    "spelling": "shared letter pairs with neighbors of another lemma (Jaccard)",
    "distance": "mean distance of neighbors of another lemma",
}
"""What is measured of each word, by name. All but the distance have a base rate."""
# Words, evenly spaced, with whose spelling each is compared for the base rate.
_SPELLED = 500
# Words at a time whose letter pairs are compared.
_PIECE = 1024
_FEWEST = 10


@dataclass(frozen=True)
class CoherenceStatistic:
    """One measure of coherence.

    Attributes
    ----------
    name, meaning : str
        As in `MEASURES`.
    mean, base : float
        Its mean over words, and that of its base rate: its value for random words instead of neighbors. NaN
        where there is none.
    spearman : Estimate
        The Spearman correlation of intrinsic dimension with the measure minus its base rate, over lemmas.
    given_frequency_and_norm : float
        The same given the row number, which stands for frequency, and the norm of the row: a partial
        correlation of ranks.
    nouns : Estimate
        `spearman` over words that are nouns and nothing else.
    """

    name: str
    meaning: str
    mean: float
    base: float
    spearman: Estimate
    given_frequency_and_norm: float
    nouns: Estimate


@dataclass(frozen=True, eq=False, repr=False)
class Coherence(Result, Tabular):
    """How far the neighbors of m words are related to them, and to dimension; returned by `coherence`.

    Attributes
    ----------
    model, wordnet : str
        The model and where WordNet is from.
    statistics : tuple of CoherenceStatistic
        One for each of `MEASURES`.
    rows : ndarray of int64, shape (m,)
        The words' rows of the matrix.
    texts, lemmas, parts_of_speech : list of str, length m
        What they spell, the lemma that they count for, and all their parts of speech, such as ``"nv"``.
    dimension : ndarray of int32, shape (m,)
        Their intrinsic dimension.
    values, base : ndarray of float32, shape (m, measures)
        Each measure and its base rate, in the order of `MEASURES`; NaN where there is none.
    words_among_neighbors : float
        The mean share of the nearest that are words of WordNet at all: 1 where neighbors were sought among
        these.
    near, k : int
        Neighbors of each word that are judged, and that its dimension is over.
    """

    _large: ClassVar[bool] = True

    model: str
    wordnet: str
    statistics: tuple[CoherenceStatistic, ...]
    rows: RowNumbers
    texts: list[str]
    lemmas: list[str]
    parts_of_speech: list[str]
    dimension: npt.NDArray[np.int32]
    values: Float32Matrix
    base: Float32Matrix
    words_among_neighbors: float
    near: int
    k: int

    def __repr__(self) -> str:
        return (
            f"Coherence({self.model!r}: {len(self.rows)} words of {len(set(self.lemmas))} lemmas, "
            f"{self.near} nearest, dimension over {self.k})"
        )

    def __getitem__(self, name: str) -> CoherenceStatistic:
        """Return a statistic by name."""
        return named(self.statistics, name, "measure")

    def tables(self) -> list[Block]:
        """Return a row for each measure: its mean, its base rate, and its correlation with dimension."""
        lines = (
            (
                each.name.replace("_", " "),
                each.mean,
                each.base,
                each.spearman.text(),
                _null(each.spearman.null),
                _null(each.spearman.stratified),
                each.given_frequency_and_norm,
                each.nouns.text(),
            )
            for each in self.statistics
        )
        header = (
            "measure", "mean", "base rate", "with dimension", "null", "null in strata",
            "given frequency, norm", "nouns alone",
        )  # fmt: skip
        return [
            Table(f"{self!r}: Spearman correlation of each measure with dimension", header, lines),
            "Negative: words of low dimension have the more coherent neighbors (for the distance, positive: "
            f"nearer ones). {self.words_among_neighbors:.0%} of the nearest rows are words of WordNet.",
            *(f"{name.replace('_', ' ')}: {meaning}" for name, meaning in MEASURES.items()),
        ]

    def columns(self) -> Columns:
        """Return a row for each word: each measure, and its base rate."""
        named = {
            name: column
            for position, measure in enumerate(MEASURES)
            for name, column in (
                (measure, self.values[:, position]),
                (f"{measure}_base", self.base[:, position]),
            )
        }
        return {
            "row": self.rows,
            "text": self.texts,
            "lemma": self.lemmas,
            "parts_of_speech": self.parts_of_speech,
            "n_components": self.dimension,
            **named,
        }


def _null(null: Baseline | None) -> str:
    return "" if null is None else f"{null.mean:.3f} ± {null.sd:.3f}"


@one_blas_thread()
def coherence(
    embeddings: Embeddings,
    wordnet: WordNet | str | PathLike[str] | None = None,
    *,
    neighbors: Neighbors | None = None,
    dimension: IntrinsicDimension | None = None,
    classes: TokenClasses | None = None,
    near: int = 20,
    k: int | None = None,
    variance: float = 0.95,
    center: bool = True,
    distinct: bool = True,
    threads: int | None = None,
    progress: Progress = False,
) -> Coherence:
    """Measure how far a word's neighbors are related to it, and whether that goes with low dimension.

    Words are tokens of letters after a space (anywhere, where a vocabulary marks no spaces) that WordNet
    knows, without special, unused, equal and untrained rows. Neighbors and dimension are those among these
    words, unless they are given: among all rows, much of what looks like coherence is that neighbors are
    words at all.

    Parameters
    ----------
    embeddings : Embeddings
        The model.
    wordnet : WordNet, or what `WordNet.load` takes
        Its words, parts of speech, lexicographer files and relations.
    neighbors : Neighbors, optional
        Of all rows of the model, instead of those among the words. Of each list, words of WordNet count.
    dimension : IntrinsicDimension, optional
        Of all rows of the model; goes with `neighbors`.
    classes : TokenClasses, optional
        What `classify` returned for the model; found first by default.
    near : int
        How many neighbors are judged: the nearest of another lemma, so that forms of one word, which agree
        in everything, do not count.
    k, variance, center
        As for `intrinsic_dimension`, over cosines.
    distinct : bool
        Whether only one token of each lemma counts, that of the lowest row, which is the most frequent where
        tokens come from byte-pair encoding. Otherwise neighbors are largely forms of the same word, and the
        share of these, "lemma", is measured.
    threads, progress : optional
        As for `knn`.

    Returns
    -------
    Coherence

    Raises
    ------
    InputError
        If fewer than 10 tokens are words of WordNet, or arguments do not fit each other.
    LoadError
        If WordNet cannot be read.

    Notes
    -----
    Base rates are exact, over all other words of another lemma, except for spelling: over 500 words.
    Tokens of one lemma are averaged before the correlation. Its interval allows for lemmas that share
    neighbors, which are those of one word each; nulls relabel all lemmas, or those of the same class,
    frequency and length. The search and the dimensions of the words take nearly all of the time.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.comparison import coherence
    >>> model = embgeom.load("example:small")
    >>> found = coherence(model, "oewn")  # doctest: +SKIP
    >>> found["lexicographer_file"].spearman.value < 0  # doctest: +SKIP
    True
    """
    check_embeddings(embeddings)
    known = wordnet if isinstance(wordnet, WordNet) else WordNet.load(wordnet)
    near = whole_number(near, "near", 1)
    distinct = flag(distinct, "distinct")
    if (neighbors is None) != (dimension is None):
        raise InputError("give neighbors and dimension of all rows, or neither")
    classes = classify(embeddings, threads=threads) if classes is None else classes
    rows, texts = known_words(embeddings, classes, known, distinct=distinct)
    if neighbors is None or dimension is None:
        x = embeddings.matrix[rows]
        wide = dimension_neighbors(k, len(rows) - 1, "k")
        call = active((embeddings.name, x))
        common: dict[str, Any] = {"threads": threads, "progress": progress}
        neighbors = call(knn, x, max(wide, min(2 * near, len(rows) - 1)), center=center, **common)
        dimension = call(intrinsic_dimension, x, neighbors.first(wide), variance=variance, **common)
        around, positions, similarities = neighbors, neighbors.indices, neighbors.similarities
        components = dimension.n_components
    else:
        if not len(neighbors.indices) == len(dimension.n_components) == len(embeddings):
            raise InputError(f"neighbors and dimension must be of all {len(embeddings)} rows")
        position = np.full(len(embeddings) + 1, -1, dtype=np.int32)  # The last is that of -1.
        position[rows] = np.arange(len(rows))
        around = neighbors.select(rows)
        positions, similarities = position[around.indices], around.similarities
        components = dimension.n_components[rows]
    lemmas = [known.analyze(text)[0][0] for text in texts]
    values, base = _measured(known, texts, positions, similarities, near)
    parts = [known.parts_of(text) for text in texts]
    units = _Units(
        lemmas,
        components,
        around.first(min(dimension.k, around.k)),
        np.stack([rows, embeddings.norms[rows]], axis=1),
        classes.strata(rows),
        np.array([part == "n" for part in parts]),
    )
    statistics = (
        units.statistic(name, meaning, values[:, column], base[:, column])
        for column, (name, meaning) in enumerate(MEASURES.items())
    )
    return Coherence(
        model=embeddings.name,
        wordnet=known.name,
        statistics=tuple(statistics),
        rows=rows,
        texts=texts,
        lemmas=lemmas,
        parts_of_speech=parts,
        dimension=components,
        values=values,
        base=base,
        words_among_neighbors=float((positions[:, :near] >= 0).mean()),
        near=near,
        k=dimension.k,
    )


def _measured(
    wordnet: WordNet,
    texts: list[str],
    positions: IndexMatrix,
    similarities: Float32Matrix,
    near: int,
) -> tuple[Float32Matrix, Float32Matrix]:
    """Return each measure of each word, and its base rate."""
    relatives = Relatives([wordnet.analyze(text) for text in texts])
    judged, distances = _nearest_of_another_lemma(relatives, positions, similarities, near)
    columns = {
        "lemma": relatives.same_shares(positions[:, :near]),
        "part_of_speech": relatives.label_shares(wordnet.parts, judged),
        "lexicographer_file": relatives.label_shares(wordnet.files, judged),
        "synset": relatives.linked_shares(lambda synset: (synset,), judged),
        "relation": relatives.linked_shares(lambda synset: wordnet.related[synset], judged),
        "spelling": _spelling(texts, judged),
        "distance": (distances, np.full(len(texts), np.nan)),
    }
    values, base = (
        np.stack([columns[name][part] for name in MEASURES], axis=1).astype(np.float32) for part in (0, 1)
    )
    return values, base


def known_words(
    embeddings: Embeddings, classes: TokenClasses, wordnet: WordNet, *, distinct: bool = True
) -> tuple[RowNumbers, list[str]]:
    """Return the rows of words that WordNet knows, and what they spell; `distinct`: one for each lemma."""
    rows = kept_rows(classes, only="words")
    texts = [(classes.texts[row] or "").strip(" ") for row in rows]
    kept = [position for position, text in enumerate(texts) if wordnet.analyze(text)[0]]
    if distinct:
        _, first = np.unique([wordnet.analyze(texts[position])[0][0] for position in kept], return_index=True)
        kept = [kept[position] for position in np.sort(first)]
    if len(kept) < _FEWEST:
        raise InputError(
            f"{len(kept)} tokens of {embeddings.name} are words of WordNet; at least {_FEWEST} are needed"
        )
    return rows[kept], [texts[position] for position in kept]


def _nearest_of_another_lemma(
    relatives: Relatives, positions: IndexMatrix, similarities: Float32Matrix, near: int
) -> tuple[IndexMatrix, Float64Vector]:
    """Return the nearest words of another lemma, -1 where there are fewer, and their mean distance."""
    judged = np.full((len(positions), near), -1, dtype=np.int32)
    distances = np.full(len(positions), np.nan)
    for number, (row, same) in enumerate(zip(positions.tolist(), relatives.same, strict=True)):
        found = []
        for rank, other in enumerate(row):
            if other >= 0 and other not in same:
                found.append(rank)
                if len(found) == near:
                    break
        if found:
            judged[number, : len(found)] = positions[number, found]
            distances[number] = np.mean(1.0 - similarities[number, found].astype(np.float64))
    return judged, distances


def _spelling(texts: list[str], judged: IndexMatrix) -> tuple[Float64Vector, Float64Vector]:
    """Return the mean Jaccard index of letter pairs, ends included, with judged and with other words."""
    pairs = [{f"^{text}$"[i : i + 2] for i in range(len(text) + 1)} for text in map(str.lower, texts)]
    number = {pair: position for position, pair in enumerate(sorted(set().union(*pairs)))}
    has = np.zeros((len(texts), len(number)), dtype=np.float32)
    for position, held in enumerate(pairs):
        has[position, [number[pair] for pair in held]] = 1.0
    sizes = has.sum(axis=1)
    shares, base = np.full((2, len(texts)), np.nan)
    drawn = np.arange(min(_SPELLED, len(texts))) * len(texts) // min(_SPELLED, len(texts))
    for begin in range(0, len(texts), _PIECE):
        piece = slice(begin, min(begin + _PIECE, len(texts)))
        near = np.maximum(judged[piece], 0)
        common = np.stack([np.einsum("ij,ij->i", has[piece], has[column]) for column in near.T], axis=1)
        jaccard = common / (sizes[piece, None] + sizes[near] - common)
        shares[piece] = mean_where(jaccard, judged[piece] >= 0)
        common = has[piece] @ has[drawn].T
        itself = np.arange(piece.start, piece.stop)[:, None] == drawn
        base[piece] = mean_where(common / (sizes[piece, None] + sizes[drawn] - common), ~itself)
    return shares, base


class _Units:
    """Means over the words of each lemma, over which correlations are taken."""

    def __init__(
        self,
        lemmas: list[str],
        dimension: npt.NDArray[np.int32],
        around: Neighbors,
        controls: npt.NDArray[np.float64],
        strata: RowNumbers,
        nouns: npt.NDArray[np.bool_],
    ) -> None:
        _, first, self._unit = np.unique(lemmas, return_index=True, return_inverse=True)
        self._strata, self._nouns, self._around = strata[first], nouns[first], around.select(first)
        self._dimension = self._means(np.where(dimension >= 0, dimension, np.nan))
        self._controls = [self._means(column) for column in controls.T]

    def _means(self, values: npt.NDArray[Any]) -> Float64Vector:
        known = ~np.isnan(values)
        sums, counts = (
            np.bincount(self._unit, weights, len(self._strata))
            for weights in (np.where(known, values, 0), known)
        )
        means: Float64Vector = sums / np.where(counts, counts, np.nan)
        return means

    def statistic(
        self, name: str, meaning: str, values: npt.NDArray[Any], base: npt.NDArray[Any]
    ) -> CoherenceStatistic:
        """Return a measure with its correlation with dimension."""
        excess = self._means(values if name == "distance" else values - base)
        some = self._nouns
        near, of_nouns = ((each, each) for each in (self._around, self._around.select(some)))
        return CoherenceStatistic(
            name,
            meaning,
            float(np.nanmean(values)) if not np.isnan(values).all() else np.nan,
            float(np.nanmean(base)) if not np.isnan(base).all() else np.nan,
            correlation_estimate(
                self._dimension, excess, kind="spearman", strata=self._strata, neighbors=near
            ),
            self._partial(excess),
            correlation_estimate(
                self._dimension[some],
                excess[some],
                kind="spearman",
                strata=self._strata[some],
                neighbors=of_nouns,
            ),
        )

    def _partial(self, excess: Float64Vector) -> float:
        """Return the correlation of ranks after a linear fit on the ranks of the controls was subtracted."""
        known = ~(np.isnan(excess) | np.isnan(self._dimension))
        fitted = np.stack(
            [np.ones(known.sum()), *(ranks(column[known]) for column in self._controls)], axis=1
        )
        left = []
        for column in (self._dimension, excess):
            rank = ranks(column[known])
            left.append(rank - fitted @ np.linalg.lstsq(fitted, rank, rcond=None)[0])
        scale = float(np.linalg.norm(left[0]) * np.linalg.norm(left[1]))
        return float(left[0] @ left[1]) / scale if scale > 0.0 else float("nan")
