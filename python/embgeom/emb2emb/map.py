"""`Emb2Emb`: a map from one model's residual stream to another's, fitted on the tokens that they share."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import check_seed, flag
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest, versions
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table
from embgeom._common.threads import resolve_threads
from embgeom.emb2emb import score
from embgeom.emb2emb import transfer as transferring
from embgeom.emb2emb.lengths import Norm
from embgeom.emb2emb.methods import DEFAULT_METHOD, Method, as_method
from embgeom.emb2emb.pairs import (
    Norms,
    Pairs,
    PreparedRows,
    Side,
    check_sides,
    check_weights,
    mean_one,
    pair_of,
    pair_rows,
    split,
)
from embgeom.emb2emb.score import COLUMNS, Scores
from embgeom.emb2emb.states import chosen_layers, fit_paired, paired_states
from embgeom.emb2emb.transfer import FittedMap, TransferMode, check_path
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.language_model import LanguageModel
from embgeom.steering.vector import SteeringVector


@dataclass(frozen=True, eq=False, repr=False)
class Emb2Emb(FittedMap, Result):
    """A map from the vectors of a source model to those of a target model with a different hidden size.

    Made by `fit` or `load`. It is fitted on rows of the two models' embedding or unembedding matrices,
    weights alone: row u of a shared token in the source goes to ``(u - source_mean) A + target_mean``,
    about its row in the target.

    Attributes
    ----------
    method : LeastSquares, Ridge, LowRank, Procrustes or NeighborWeights
        How A was found.
    matrix : ndarray of float64, shape (d_s, d_t), or None
        A; None for `NeighborWeights`, which is not linear.
    logits_matrix : ndarray of float64, shape (d_s, d_t)
        L of the mode "logits".
    source_rows, target_rows : ndarray of float32, shapes (n, d_s) and (n, d_t), or None
        The shared rows, for `NeighborWeights`.
    source_mean, target_mean : ndarray of float64, shapes (d_s,) and (d_t,)
        What is subtracted and added; zero without ``center``.
    source, target : ModelInfo
        The two models; without a name for plain arrays.
    names : tuple of str
        What to call the two models.
    layers : tuple of (int, int), or None
        The source's layer and the target's whose states it was fitted on; None for a map of weights.
    scores, shuffled : Scores or None
        On held-out tokens, of this map and of one that was fitted the same way on shuffled pairs.
    provenance : dict
        Both models with the hashes of their files, the tokens used, options, and details of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> rng = np.random.default_rng(0)
    >>> source = rng.standard_normal((300, 8))
    >>> target = source @ rng.standard_normal((8, 12))
    >>> mapping = embgeom.Emb2Emb.fit(source, target, method="least_squares")
    >>> round(mapping.scores.r2, 6), round(mapping.scores.retrieval_at_1, 6), mapping.shuffled.r2 < 0.1
    (1.0, 1.0, True)
    >>> mapping.transfer(source[0]).shape
    (12,)
    """

    scores: Scores | None = None
    shuffled: Scores | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    _large = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_provenance()

    @classmethod
    def fit(
        cls,
        source: Embeddings | npt.ArrayLike,
        target: Embeddings | npt.ArrayLike,
        *,
        method: Method | str = DEFAULT_METHOD,
        tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        weights: npt.ArrayLike | None = None,
        norms: Norms = (None, None),
        normalize: bool = False,
        held_out: float = 0.1,
        shuffle: bool = False,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress = False,
    ) -> Emb2Emb:
        """Fit a map on the tokens that two models share.

        Parameters
        ----------
        source, target : Embeddings or array_like
            The two models, both of the same side (input or output); or two arrays whose rows are paired.
        method : LeastSquares, Ridge, LowRank, Procrustes or NeighborWeights, or a name
            How to fit. The names ``"least_squares"`` (the published method), ``"ridge"``, ``"low_rank"``,
            ``"procrustes"`` and ``"lle"`` stand for the methods with their default options. `Ridge` is the
            default; its vectors are transferred in the mode "logits", which had the largest effect where
            routes were chosen (``docs/reference/evidence.md``).
        tokens : pair of array_like of int, optional
            Rows of the source and of the target to pair, such as ``embgeom.match(source, target)`` for all
            tokens that both have. By default of two `Embeddings`: without special, unused, equal and
            untrained rows (`embgeom.comparison.shared_rows`).
        weights : array_like, shape (n,), optional
            How much each pair counts, not negative; equally by default. Not for `NeighborWeights`.
        norms : pair of (FinalNorm or None)
            Final norms to fold into the unembeddings of source and target, see `embgeom.load_final_norm`. An
            input embedding takes none, unless it is tied.
        normalize : bool
            Whether to scale all rows to length 1 first.
        held_out : float
            The share of the tokens that the map is not fitted on, and is scored on, one token at least; 0 for
            no scores. At most 4,096 tokens held out are scored.
        shuffle : bool
            Whether to pair source rows with those of random other tokens: a control that transfers nothing.
        seed : int
            Draws the held-out tokens, those of them that are scored, and the shuffled pairs.
        threads : int, optional
            Threads to use; every core available to the process by default.
        progress : bool or callable
            True for a bar on standard error, or a line a minute in a log; or a callable
            ``(phase, done, total)``.

        Returns
        -------
        Emb2Emb
            The map, with its scores.

        Raises
        ------
        InputError
            If there are too few shared tokens, an option is out of its range, a norm is to be folded into an
            input embedding that is not tied, or a value is not finite.

        Warns
        -----
        EmbgeomWarning
            If least squares is asked for and the tokens do not determine a single map, but for the direction
            that a folded LayerNorm takes away; the one of smallest norm is returned.

        Notes
        -----
        One pass over both matrices by the kernel, n (d_s^2 / 2 + d_s d_t + d_t^2 / 2) multiply-adds in
        float64, and as many for the shuffled control; then an eigendecomposition or singular value
        decomposition of d x d; and the scores, at most 4,096 x 16,384 d_t multiply-adds in float32. Memory
        besides the matrices: some 24 bytes for each of d_s^2 + d_s d_t + d_t^2 numbers; for the scores, up to
        16,384 rows of the target in float32, or before that 4,096 of both models in float64 a few times over,
        and what `knn` takes; for `NeighborWeights` the shared tokens' rows of both models. Two matrices of
        50,257 x 768 on two threads take 233 MB so. Within `embgeom.use_cache` a map that was fitted on the
        same numbers before is read. Through the squares of x'x a least-squares fit sees
        singular values down to 7e-7 of the largest; float32 rows hold no more than that.

        References
        ----------
        Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
        embeddings. COLM.

        Examples
        --------
        >>> import embgeom
        >>> from embgeom.emb2emb import LowRank
        >>> small, large = (embgeom.load(folder, "output") for folder in embgeom.examples.pair())
        >>> mapping = embgeom.Emb2Emb.fit(small, large, method=LowRank(rank=20))
        >>> mapping
        Emb2Emb('small' -> 'large', low_rank, 128 -> 192)
        >>> mapping.provenance["tokens"]["shared"], mapping.provenance["fit"]["rank"]
        (3658, 20)
        """
        method, seed, team = as_method(method), check_seed(seed), resolve_threads(threads)
        norms = pair_of(norms, "norms", "norm")
        normalize, shuffle = flag(normalize, "normalize"), flag(shuffle, "shuffle")
        check_sides(source, target, norms)
        sides = Side.read(source, "source", team), Side.read(target, "target", team)
        rows = pair_rows(source, target, sides, tokens, team)
        counts = check_weights(weights, len(rows[0]), method.name)
        kept, held = split(len(rows[0]), held_out, seed)
        both = (
            PreparedRows.prepare(side.matrix, ids, norm, normalize)
            for side, ids, norm in zip(sides, rows, norms, strict=True)
        )
        with reporter(progress, "emb2emb") as report:
            found = score.fit_once(
                Pairs(*both),
                kept,
                held,
                method,
                weights=None if counts is None else mean_one(counts[kept]),
                shuffle=shuffle,
                seed=seed,
                threads=team,
                report=report,
                about={
                    "source": sides[0].info,
                    "target": sides[1].info,
                    "names": (sides[0].name, sides[1].name),
                },
            )
        loses_mean = norms[0] is not None and norms[0].centers
        if doubt := score.undetermined(found, loses_mean):
            warnings.warn(doubt, EmbgeomWarning, stacklevel=2)
        options = {"normalize": normalize, "held_out": float(held_out), "shuffle": shuffle, "seed": seed}
        provenance = {
            "made_by": "fit",
            "source": sides[0].description,
            "target": sides[1].description,
            "rows_sha256": [digest(ids.tolist()) for ids in rows],
            "options": {"method": asdict(method), **options, "weights": weights is not None},
            "folded": [norm is not None for norm in norms],
            "versions": versions(),
        }
        return cls._from_fit(found, provenance)

    @classmethod
    def fit_states(
        cls,
        source: Any,
        source_tokenizer: Any,
        target: Any,
        target_tokenizer: Any,
        texts: Sequence[str],
        layers: tuple[int, int] | int | None = None,
        *,
        method: Method | str = DEFAULT_METHOD,
        held_out: float = 0.1,
        shuffle: bool = False,
        batch_size: int = 8,
        seed: int = 0,
        progress: Progress = False,
    ) -> Emb2Emb:
        """Fit a map on hidden states instead of weights: those of two layers, on texts that both models read.

        Parameters
        ----------
        source, target : transformers.PreTrainedModel
            Two causal language models.
        source_tokenizer, target_tokenizer : transformers.PreTrainedTokenizerBase
            Their tokenizers, fast ones, which may differ: states are paired where tokens of both end at the
            same character, as they do at the ends of words.
        texts : sequence of str
            Plain texts; 100 to 300 of a few sentences do. Of each, up to 1,024 tokens are read; of texts with
            more than 100,000 tokens in all, as many are drawn as hold these.
        layers : (int, int) or int, optional
            The layer of the source and that of the target, counted from 0; of one layer, the source's, the
            target's is at the same relative depth. By default the source's at two thirds of its depth.
        method : LeastSquares, Ridge, LowRank, Procrustes or NeighborWeights, or a name
            How to fit, as in `fit`.
        held_out : float
            The share of the texts that the map is not fitted on, and is scored on.
        shuffle : bool
            Whether to pair the source's states with the target's at random other tokens, as a control.
        batch_size : int
            Texts in one forward pass.
        seed : int
            Draws the texts held out, and whatever else is drawn.
        progress : bool or callable
            As in `fit`.

        Returns
        -------
        Emb2Emb
            A map like any other. Its `layers` say where it belongs; `transfer` takes v A by default, and the
            lengths of vectors from the spread of its states.

        Raises
        ------
        InputError
            If a model has no such layer or cannot be read, a tokenizer does not say where its tokens end, or
            too few tokens of both models end together.

        Warns
        -----
        EmbgeomWarning
            If it is fitted on fewer than ten tokens for each column of the larger model, or held-out texts
            repeat those that it is fitted on.

        Notes
        -----
        One forward pass of each model over the texts, up to its layer, and a fit like that of `fit`. Memory:
        4 bytes for each token and each column of both residual streams. Attention sinks are left out.

        Examples
        --------
        >>> import embgeom
        >>> from embgeom.examples import moods
        >>> small, large = map(embgeom.steering.load_language_model, embgeom.examples.pair())
        >>> mapping = embgeom.Emb2Emb.fit_states(*small, *large, moods.neutral_texts(), (2, 4))
        >>> mapping.layers, mapping.scores.r2 > mapping.shuffled.r2
        ((2, 4), True)
        """
        method, seed = as_method(method), check_seed(seed)
        options: Any = {"held_out": held_out, "shuffle": flag(shuffle, "shuffle"), "seed": seed}
        models = LanguageModel(source, source_tokenizer), LanguageModel(target, target_tokenizer)
        pair = chosen_layers(layers, *models)
        with reporter(progress, "emb2emb") as report:
            read = paired_states(*models, texts, [pair], batch_size=batch_size, seed=seed, report=report)
            return cls._from_fit(*fit_paired(read, pair, method, report=report, **options))

    @classmethod
    def _from_fit(cls, found: score.FitResult, provenance: dict[str, Any]) -> Emb2Emb:
        arrays = {each.name: getattr(found.fitted, each.name) for each in fields(FittedMap)}
        return cls(
            **arrays, scores=found.scores, shuffled=found.shuffled, provenance=provenance | found.details
        )

    def predict(self, rows: npt.ArrayLike, *, threads: int | None = None) -> npt.NDArray[np.float64]:
        """Predict the target rows of tokens from their source rows; the means count.

        Parameters
        ----------
        rows : array_like, shape (d_s,) or (m, d_s)
            Rows of the source, as the map was fitted on them: with the norm folded in, of length 1, where
            the fit did so.
        threads : int, optional
            Threads for `NeighborWeights`; every core available to the process by default.

        Returns
        -------
        ndarray of float64, shape (d_t,) or (m, d_t)
            One for each row.

        Raises
        ------
        InputError
            If the size does not fit, or a value is NaN or infinite.
        """
        return transferring.predict(self, rows, threads)

    @overload
    def transfer(
        self,
        vectors: SteeringVector,
        *,
        mode: TransferMode | None = ...,
        layers: Mapping[int, int] | int | None = ...,
        norm: Norm | None = ...,
        state_spread: Mapping[int, float] | None = ...,
        threads: int | None = ...,
    ) -> SteeringVector: ...

    @overload
    def transfer(
        self,
        vectors: npt.NDArray[Any] | Sequence[Any],
        *,
        mode: TransferMode | None = ...,
        threads: int | None = ...,
    ) -> npt.NDArray[np.float32]: ...

    def transfer(
        self,
        vectors: SteeringVector | npt.NDArray[Any] | Sequence[Any],
        *,
        mode: TransferMode | None = None,
        layers: Mapping[int, int] | int | None = None,
        norm: Norm | None = None,
        state_spread: Mapping[int, float] | None = None,
        threads: int | None = None,
    ) -> SteeringVector | npt.NDArray[np.float32]:
        """Transfer directions of the source's residual stream to the target's.

        Parameters
        ----------
        vectors : SteeringVector, or array_like of shape (d_s,) or (m, d_s)
            One direction or a stack of them; the means do not count, since directions are differences.
        mode : {"primal", "dual", "logits"}, optional
            "primal" takes v A, as published, which treats v as an embedding. "dual" takes the pseudo-inverse
            of A, transposed, which keeps logits where A fits exactly and loses no direction of v, as a
            narrower target does. "logits" asks for the direction h of the target whose logits U_t h for the
            shared tokens are nearest to the source's U_s v, by ridge regression: the same aim, without
            inverting A, and the same for every method of `fit`. By default "dual" for low-rank and Procrustes
            maps, "logits" for least squares and ridge, "primal" for maps of states and by neighbors.
        layers : int or mapping of int to int, optional
            For a `SteeringVector`: the layer of the target for the source's only layer, or for each of its
            layers. By default the same ones; between models that are known to differ in depth, those at the
            same relative depth (`embgeom.matching_layer`), and of several that go to one layer the nearest;
            of a map of states its own.
        norm : {"states", "raw"}, optional
            How long a `SteeringVector` becomes. "states", the default: half of the spread of the target's
            states at the layer, however long `vectors` is; one whose operation sets or limits a coordinate
            keeps its length compared with the spread, and one that is projected out stays raw. "raw": as the
            map makes it, and all arrays, too short or too long by a factor of up to 50; then
            `SteeringVector.with_norm` takes a number or the norms of a vector of the target.
        state_spread : mapping of int to float, optional
            The spread of the target's states by layer, for "states", as `embgeom.steering.state_spread`
            measures it and a trained vector of the target keeps it. By default that of the map, if it is one
            of states.
        threads : int, optional
            Threads for `NeighborWeights`; every core available to the process by default.

        Returns
        -------
        SteeringVector, or ndarray of float32 of shape (d_t,) or (m, d_t)
            As `vectors` was given.

        Raises
        ------
        InputError
            If a size, a mode or a layer does not fit, a result to be scaled is zero, or the spread of states
            is needed and not known.

        Warns
        -----
        EmbgeomWarning
            If a steering vector is, by the names kept with both, another model's than the map's source; if
            the map is of input embeddings that are not tied to the unembedding; or if "dual" inverts a map of
            full rank, which magnifies noise.
        """
        if not isinstance(vectors, SteeringVector):
            if (layers, norm, state_spread) != (None, None, None):
                raise InputError("layers=, norm= and state_spread= are for a SteeringVector, not for arrays")
            moved = transferring.transfer_array(self, vectors, mode, threads)
            _warn(transferring.full_rank_dual(self, mode))
            return moved
        known = self.provenance.get("state_spread")
        result = transferring.transfer_vector(self, vectors, mode, layers, norm, state_spread, known, threads)
        result.provenance["map"] = self.provenance
        _warn(
            transferring.full_rank_dual(self, mode),
            transferring.other_model(vectors, self),
            transferring.of_inputs(self.provenance),
        )
        return result

    def save(self, path: str | PathLike[str]) -> None:
        """Write the map to a safetensors file, atomically.

        Raises
        ------
        OutputError
            If the file cannot be written, its name does not end in ``.safetensors``, or it is a file that the
            map was fitted on.
        """
        check_path(path)
        self._check_provenance()
        super().save(Path(path).expanduser())

    def _check_provenance(self) -> None:
        try:
            json.dumps(self.provenance, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(
                f"the provenance of the map cannot be written: {error}; it is a dict of strings, finite "
                "numbers, lists and dicts"
            ) from error

    def _inputs(self) -> Iterable[str]:
        sides = (self.provenance.get(side) for side in ("source", "target"))
        read = [side.get("provenance") for side in sides if isinstance(side, dict)]
        files = (
            about.get(name) for about in read if isinstance(about, dict) for name in ("file", "tokenizer")
        )
        return [file for file in files if isinstance(file, str)]

    def tables(self) -> list[Block]:
        """Return what was fitted on what, and the scores next to those of shuffled pairs."""
        scored = (("held-out tokens", self.scores), ("fitted on shuffled pairs", self.shuffled))
        rows = [(name, *scores.cells()) for name, scores in scored if scores is not None]
        tokens, about, title = self.provenance.get("tokens"), self.provenance, repr(self)
        if isinstance(tokens, dict) and self.layers is None:
            title += f": {tokens.get('shared')} shared tokens, {tokens.get('held_out')} held out"
        elif isinstance(tokens, dict):
            paired = f"{tokens.get('shared')} paired tokens of {about.get('texts_read')} texts"
            title += f": {paired}, {tokens.get('held_out')} held out (texts: {about.get('texts_held_out')})"
        return [Table(title, ("", *COLUMNS), rows)] if rows else [title]


def _warn(*doubts: str | None) -> None:
    for doubt in filter(None, doubts):
        warnings.warn(doubt, EmbgeomWarning, stacklevel=3)
