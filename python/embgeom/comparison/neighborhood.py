"""The neighborhood of one token, in one model or in several side by side."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, overload

import numpy as np

from embgeom._common.checks import flag
from embgeom._common.progress import Progress
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, Table
from embgeom._common.threads import resolve_threads
from embgeom.comparison.saving import loaded, shown
from embgeom.comparison.tokens import WITHOUT, check_without, classify
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.token_format import utf8
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    dimension_neighbors,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, check_k, knn
from embgeom.geometry.lle import LLE, LLEStatus, check_reg, lle

_VALUES = {"cosine": "cosine", "inner_product": "inner product", "euclidean": "distance"}
_Model = Embeddings | str | PathLike[str]
_Models = list[Any] | tuple[Any, ...]


@dataclass(frozen=True, eq=False, repr=False)
class TokenNeighborhood(Result, Tabular):
    """One token's neighborhood.

    Attributes
    ----------
    model : str
        The name of the model.
    row : int
        The token's row.
    token : str
        The token as tables show it, in quotes.
    norm : float
        The length of its row.
    neighbors : Neighbors
        Its k nearest rows, shape (1, k).
    neighbor_tokens : list of str, length k
        Their tokens as tables show them.
    lle : LLE
        Their reconstruction weights, shape (1, k).
    dimension : IntrinsicDimension
        Intrinsic dimension over a wider neighborhood, shape (1,).
    also : dict of str to int
        What else the text that was asked for may mean, with its row: ``' king'`` where ``king`` was typed and
        is a token, too.
    """

    model: str
    row: int
    token: str
    norm: float
    neighbors: Neighbors
    neighbor_tokens: list[str]
    lle: LLE
    dimension: IntrinsicDimension
    also: dict[str, int]

    def __repr__(self) -> str:
        return f"TokenNeighborhood({self.token} of {self.model!r}, {self.neighbors!r})"

    def tables(self) -> list[Block]:
        """Return the table of `summary`, and lines on weights and dimension."""
        dimension = self.dimension
        status = LLEStatus(self.lle.status[0]).name.lower().replace("_", " ")
        return [
            Table(
                f"nearest rows of {self.token} (row {self.row}) in {self.model}{_centered(self.neighbors)}",
                ("row", "token", _VALUES[self.neighbors.metric], "LLE weight"),
                zip(*self.columns().values(), strict=True),
            ),
            f"LLE residual {self.lle.residuals[0]:.4g}, of a row of norm {self.norm:.4g}; weights: {status}",
            f"intrinsic dimension {dimension.n_components[0]} of at most {dimension.max_components} "
            f"({dimension.variance:.0%} of variance, {dimension.k} neighbors), "
            f"participation ratio {dimension.participation_ratio[0]:.4g}",
            *_also_lines([self]),
        ]

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each neighbor, nearest first."""
        near = self.neighbors
        values = near.distances if near.metric == "euclidean" else near.similarities
        return {
            "row": near.indices[0],
            "token": self.neighbor_tokens,
            _VALUES[near.metric].replace(" ", "_"): values[0],
            "weight": self.lle.weights[0],
        }


@dataclass(frozen=True, eq=False, repr=False)
class TokenNeighborhoods(Result, Tabular):
    """One token's neighborhoods in several models.

    Attributes
    ----------
    models : tuple of TokenNeighborhood
        One for each model that has the token.
    shared : list of str
        The tokens that are neighbors in all of these, in the order of the first; empty for one model.
    missing : tuple of str
        Which models do not have the token, each in a sentence with close ones.
    """

    models: tuple[TokenNeighborhood, ...]
    shared: list[str]
    missing: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"TokenNeighborhoods({self.models[0].token} in {', '.join(each.model for each in self.models)})"
        )

    def tables(self) -> list[Block]:
        """Return the table of `summary`: the neighborhoods side by side, and lines on each."""
        first = self.models[0]
        names = [f"{chr(ord('A') + number)}: {each.model}" for number, each in enumerate(self.models)]
        tokens = {each.token for each in self.models}
        sides = [tuple(each.columns().values())[1:3] for each in self.models]
        columns = [column for name in names for column in (name, _VALUES[first.neighbors.metric])]
        rows = zip(*(values for side in sides for values in side), strict=True)
        return [
            Table(
                f"nearest rows of {' and '.join(sorted(tokens))}{_centered(first.neighbors)}", columns, rows
            ),
            *([f"in all of them: {'  '.join(self.shared) or 'none'}"] if len(self.models) > 1 else []),
            Table(None, ("", *names), self._facts()),
            *_also_lines(self.models),
            *(f"note: {sentence}" for sentence in self.missing),
        ]

    def _facts(self) -> list[tuple[str, ...]]:
        """Return what else is known of the token, a row for each quantity."""
        facts = [
            {
                "token": each.token,
                "row": str(each.row),
                "norm": f"{each.norm:.4g}",
                "LLE residual": f"{each.lle.residuals[0]:.4g}",
                "intrinsic dimension": f"{each.dimension.n_components[0]} of at most "
                f"{each.dimension.max_components}",
                "participation ratio": f"{each.dimension.participation_ratio[0]:.4g}",
            }
            for each in self.models
        ]
        return [(name, *(fact[name] for fact in facts)) for name in facts[0]]

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each model and neighbor."""
        sides = [each.columns() for each in self.models]
        k = self.models[0].neighbors.k
        return {
            "model": [each.model for each in self.models for _ in range(k)],
            "rank": np.tile(np.arange(1, k + 1), len(sides)),
            **{name: np.concatenate([np.asarray(side[name]) for side in sides]) for name in sides[0]},
        }


@overload
def inspect_token(
    embeddings: _Model,
    token: str | int,
    *,
    which: Which = "input",
    k: int = 10,
    metric: Metric = "cosine",
    center: bool = True,
    without: Iterable[str] = WITHOUT,
    reg: float = 1e-3,
    dimension_k: int | None = None,
    variance: float = 0.95,
    threads: int | None = None,
    progress: Progress = False,
) -> TokenNeighborhood: ...
@overload
def inspect_token(
    embeddings: _Models,
    token: str | int,
    *,
    which: Which = "input",
    k: int = 10,
    metric: Metric = "cosine",
    center: bool = True,
    without: Iterable[str] = WITHOUT,
    reg: float = 1e-3,
    dimension_k: int | None = None,
    variance: float = 0.95,
    threads: int | None = None,
    progress: Progress = False,
) -> TokenNeighborhoods: ...
def inspect_token(
    embeddings: _Model | _Models,
    token: str | int,
    *,
    which: Which = "input",
    k: int = 10,
    metric: Metric = "cosine",
    center: bool = True,
    without: Iterable[str] = WITHOUT,
    reg: float = 1e-3,
    dimension_k: int | None = None,
    variance: float = 0.95,
    threads: int | None = None,
    progress: Progress = False,
) -> TokenNeighborhood | TokenNeighborhoods:
    """Find one token's nearest neighbors, their reconstruction weights and its intrinsic dimension.

    Parameters
    ----------
    embeddings : Embeddings, or str or path-like, or a list of them
        The model, or its name as `load` takes it. Several models are shown side by side.
    token : str or int
        The token as `Embeddings.row_of` takes it, or its row number. In several models, the same text is
        looked up in all of them: as it stands where all have it, otherwise with a space before it where all
        have that. Models that do not have it are left out, and a note says so.
    which : {"input", "output"}
        As in `inspect`.
    k : int
        Neighbors to find and to reconstruct from.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    center : bool
        Find neighbors after subtracting the mean embedding of the tokens that count: otherwise a few rows
        are neighbors of very many.
    without : iterable of str
        Classes of tokens that are not neighbors of any, of `embgeom.comparison.kept_rows`.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default as in `inspect`.
    reg, variance, threads, progress
        See `compare`.

    Returns
    -------
    TokenNeighborhood or TokenNeighborhoods
        The latter for a list of models.

    Raises
    ------
    InputError
        If no model has such a token (the message lists similar ones), its row is zero, or a parameter does
        not fit; or if several models are asked for a row number, which means another token in each.
    LoadError
        If a model cannot be loaded.

    Notes
    -----
    For each model, one pass over the matrix, a centered copy of it, and one eigenvalue problem.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> near = embgeom.inspect_token(model, " two", k=5).neighbors.indices[0]
    >>> " three" in [model.text(row) for row in near]
    True
    >>> embgeom.inspect_token(model, "king", k=5).also
    {"' king'": 1371}
    >>> embgeom.inspect_token([model, "example:large"], " three", k=5).shared
    ["' two'", "' six'", "' several'"]
    """
    team = resolve_threads(threads)
    given = embeddings if isinstance(embeddings, list | tuple) else [embeddings]
    models = [loaded(model, which, team, progress) for model in given]
    options: dict[str, Any] = {
        "k": k,
        "dimension_k": dimension_k,
        "metric": metric,
        "center": flag(center, "center"),
        "without": check_without(without),
        "reg": check_reg(reg),
        "variance": check_variance(variance),
        "common": {"threads": team, "progress": progress},
    }
    rows, missing = rows_of(models, token)
    found = [_neighborhood(model, row, _also(model, token, row), **options) for model, row in rows]
    if given is not embeddings:
        return found[0]
    others = [set(each.neighbor_tokens) for each in found[1:]]
    shared = [name for name in found[0].neighbor_tokens if all(name in other for other in others)]
    return TokenNeighborhoods(tuple(found), shared if others else [], missing)


def rows_of(
    models: Sequence[Embeddings], token: str | int
) -> tuple[list[tuple[Embeddings, int]], tuple[str, ...]]:
    """Return the models that have a token, with its row, and which do not have it."""
    if not models:
        raise InputError("no model is given; name at least one")
    if len(models) > 1 and not isinstance(token, str):
        raise InputError(
            f"{token!r:.40} is a row number, which is another token in each model; name the token"
        )
    rows: list[tuple[Embeddings, int]] = []
    missing: list[InputError] = []
    for model in models:
        try:
            rows.append((model, model.row_of(token)))
        except InputError as error:
            missing.append(error)
    if not rows:
        raise InputError("; ".join(map(str, missing)))
    word = utf8(f" {token}")
    if len({model.token_bytes[row] for model, row in rows}) > 1 and all(
        word in model.token_bytes for model, _ in rows
    ):
        rows = [(model, model.token_bytes.index(word)) for model, _ in rows]
    return rows, tuple(map(str, missing))


def _also(model: Embeddings, token: str | int, row: int) -> dict[str, int]:
    """Return the word that whoever types a piece of it may mean."""
    word = utf8(f" {token}")
    if not isinstance(token, str) or word not in model.token_bytes:
        return {}
    other = model.token_bytes.index(word)
    return {} if other == row else {shown(model, other): other}


def _neighborhood(
    model: Embeddings,
    row: int,
    also: dict[str, int],
    *,
    k: int,
    dimension_k: int | None,
    metric: Metric,
    center: bool,
    without: tuple[str, ...],
    reg: float,
    variance: float,
    common: dict[str, Any],
) -> TokenNeighborhood:
    x = model.matrix
    if model.zero[row] and metric == "cosine":
        raise InputError(
            f"the row of {model.tokens[row]!r} (number {row}) is zero: it has no neighbors by cosine"
        )
    kept = np.flatnonzero(~classify(model, threads=common["threads"]).excluded(without))
    usable = kept[~model.zero[kept]] if metric == "cosine" else kept
    others = int(np.count_nonzero(usable != row))
    k, wide = check_k(k, others), dimension_neighbors(dimension_k, others)
    # The token itself, which may be of a class that does not count, is the first that is left out.
    found = knn(
        x[usable],
        min(max(k, wide) + 1, len(usable)),
        queries=x[[row]],
        metric=metric,
        center=center,
        **common,
    )
    ids = usable[found.indices[0]]
    others_first = np.argsort(ids == row, kind="stable")[: max(k, wide)]
    around = Neighbors(
        ids[others_first][None].astype(np.int32),
        found.similarities[:, others_first],
        metric,
        np.array([row]),
        tokens=model.tokens,
        center=center,
    )
    near = around.first(k)
    return TokenNeighborhood(
        model=model.name,
        row=row,
        token=shown(model, row),
        norm=float(model.norms[row]),
        neighbors=near,
        neighbor_tokens=[shown(model, other) for other in near.indices[0]],
        lle=lle(x, near, reg=reg, **common),
        dimension=intrinsic_dimension(x, around.first(wide), variance=variance, **common),
        also=also,
    )


def _also_lines(found: Sequence[TokenNeighborhood]) -> list[str]:
    """Return what else was perhaps meant, and what to type for it."""
    names = " ".join(shlex.quote(each.model) for each in found)
    tokens = dict.fromkeys(token for each in found for token in each.also)
    return [f"{token}, with a space, is another token: embgeom neighbors {names} {token}" for token in tokens]


def _centered(near: Neighbors) -> str:
    return ", centered" if near.center else ""
