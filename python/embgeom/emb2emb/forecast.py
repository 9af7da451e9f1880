"""What the weights say of a transfer before anything is steered: whether the map keeps a vector's logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Matrix, Float64Vector, RowNumbers, as_real_array
from embgeom._common.checks import check_seed
from embgeom._common.record import digest
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table
from embgeom._common.threads import one_blas_thread, resolve_threads
from embgeom.comparison.nulls import NORMAL_QUANTILE
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.pairs import Norms, Pairs, PreparedRows, Side, draw, pair_rows, split
from embgeom.emb2emb.token_logits import TokenLogits, dominant_components, logits_without, token_logits
from embgeom.emb2emb.transfer import TransferMode, check_mode, default_mode, transfer_array
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.geometry.agreement import ranks, spearman
from embgeom.steering.vector import SteeringVector

Verdict = Literal["yes", "partly", "no", "unclear"]

RELABELINGS = 100
# Conventions, tuned to nothing: so many standard deviations above a null, and an agreement that is kept
# whatever random vectors have, since no vector can stand out of a map that keeps all.
LEAST_Z = 3.0
LEAST_RANDOM_Z = 2.0
KEPT = 0.9
# Fewer tokens do not show that nothing is kept, nor does a null so wide that an agreement of USUAL would not
# pass: the lower quartile of the 870 transfers by maps of weights that keep at least half of the native
# vector's effect, where that beats random vectors (benchmarks/results/steering.jsonl).
FEWEST = 100
USUAL = 0.44
TOP_SHARE = 0.05
# Of fewer top tokens a share says little.
FEWEST_TOP = 15
_MOST_SCORED = 4096
_MOST_RELABELED = 8192
QUESTION = "the map keeps what this vector does to logits"
RULE = (
    f"no: the agreement is not {LEAST_Z:g} standard deviations above what tokens paired at random give "
    f"(unclear, where there are fewer than {FEWEST} tokens or {USUAL:g} would not be, either); "
    f"yes: it is, and also {LEAST_RANDOM_Z:g} above that of random vectors through the same map, or its "
    f"interval begins at {KEPT:g} or above; otherwise partly"
)


@dataclass(frozen=True)
class Forecast(Result):
    """What the weights alone say of one direction's transfer: whether the map keeps its logits.

    That is no word on whether the vector steers. Logits are those of the unembeddings' rows for the direction
    alone (a logit lens), over the tokens that both models share.

    Attributes
    ----------
    layer, target_layer : int or None
        Whose direction it is and where it goes; None for plain arrays.
    agreement : float
        Spearman correlation of the logits that the vector gives the source's tokens with those that the
        transferred one gives the same tokens of the target; both without the largest principal components of
        the rows, which tell frequent tokens from rare ones and would make any two directions agree or
        disagree (one component for each 100 columns, one at least). NaN where a vector is zero.
    low, high : float
        Its 95 % interval over tokens (Bonett & Wright 2000).
    null_mean, null_sd : float
        The agreement when tokens are paired at random: with sums of the target's rows, each weighted by the
        logit that the vector gives another token.
    random_mean, random_sd : float or None
        The agreement of random vectors of the source with what the same map makes of them; None without it.
    tokens : int
        How many tokens were compared.
    held_out : bool or None
        Whether the map was not fitted on these: True also of a map of hidden states, False where it was
        fitted on all of them, None where that is not known.
    top_overlap : float or None
        The share of the 5 % of tokens that the vector promotes most that are among the 5 % that the
        transferred one promotes most, by the same logits; chance gives 0.05. None if these are fewer than 15.
    row_space_share : float or None
        The share of the vector's squared length that lies in the row space of the map, which takes what is
        outside to zero; None without a linear map.
    gain : float or None
        The squared length that the map gives the vector, relative to a random direction of that length.
    nearest_token, target_nearest_token : float
        The largest absolute cosine of the vector with a token's row minus the mean row, in the source and, of
        the transferred vector, in the target.
    readout, target_readout : float
        The standard deviation of the logits over tokens, relative to a random direction of that length.
    """

    layer: int | None
    target_layer: int | None
    agreement: float
    low: float
    high: float
    null_mean: float
    null_sd: float
    random_mean: float | None
    random_sd: float | None
    tokens: int
    held_out: bool | None
    top_overlap: float | None
    row_space_share: float | None
    gain: float | None
    nearest_token: float
    target_nearest_token: float
    readout: float
    target_readout: float

    @property
    def z(self) -> float:
        """How many standard deviations the agreement is above that of tokens paired at random."""
        return (self.agreement - self.null_mean) / self.null_sd if self.null_sd > 0 else math.nan

    @property
    def random_z(self) -> float:
        """How many standard deviations it is above that of random vectors; NaN where that is not known."""
        if self.random_mean is None or not self.random_sd:
            return math.nan
        return (self.agreement - self.random_mean) / self.random_sd

    @property
    def verdict(self) -> Verdict:
        """Whether the map keeps what the vector does to logits, by the rule `RULE`."""
        # An undefined agreement has no interval and beats nothing: nothing was transferred.
        if not self.z > LEAST_Z:
            told = self.tokens >= FEWEST and self.null_mean + LEAST_Z * self.null_sd < USUAL
            return "no" if told or math.isnan(self.agreement) else "unclear"
        return "yes" if self.random_z > LEAST_RANDOM_Z or self.low >= KEPT else "partly"

    def tables(self) -> list[Block]:
        """Return the numbers and the verdict."""
        return [forecast_table([self]), f"{self.verdict} ({RULE})"]

    def _derived(self) -> dict[str, Any]:
        return {"z": self.z, "random_z": self.random_z, "verdict": self.verdict}


def forecast_table(forecasts: Sequence[Forecast]) -> Table:
    columns = (
        "layer",
        "agreement",
        "95 % interval",
        "null (± sd)",
        "random (± sd)",
        "top 5 %",
        "kept",
    )
    rows = [
        (
            f"{each.layer} to {each.target_layer}" if each.layer is not None else str(i),
            f"{each.agreement:.2f}",
            f"{each.low:.2f} to {each.high:.2f}",
            f"{each.null_mean:.2f} ± {each.null_sd:.2f}",
            "" if each.random_mean is None else f"{each.random_mean:.2f} ± {each.random_sd:.2f}",
            "" if each.top_overlap is None else f"{each.top_overlap:.0%}",
            each.verdict,
        )
        for i, each in enumerate(forecasts)
    ]
    return Table(f"logits of {forecasts[0].tokens} shared tokens: agreement of both models", columns, rows)


@dataclass(frozen=True, eq=False)
class LogitLens:
    """The shared tokens of two models by which transfers are judged; made once for many vectors.

    Attributes
    ----------
    pairs : Pairs
        The rows of the shared tokens in both models.
    scored, relabeled : ndarray of int64
        Positions among them: of the tokens that are compared, and of those that make the null.
    held_out : bool or None
        Whether the map was not fitted on the scored tokens; None where that is not known.
    seed, threads : int
        Draws the tokens, the relabelings and the random vectors; and how many threads transfer these.
    """

    pairs: Pairs
    scored: RowNumbers
    relabeled: RowNumbers
    held_out: bool | None
    seed: int
    threads: int

    @classmethod
    def prepare(
        cls,
        source: Embeddings,
        target: Embeddings,
        mapping: Emb2Emb | None = None,
        *,
        tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        norms: Norms = (None, None),
        seed: int = 0,
        threads: int | None = None,
    ) -> LogitLens:
        """Choose the tokens: those that the map has held out, if it was fitted on these tokens."""
        team, seed = resolve_threads(threads), check_seed(seed)
        for name, model in (("source", source), ("target", target)):
            if not isinstance(model, Embeddings):
                raise InputError(
                    f"the {name} is a {type(model).__name__}; a forecast needs its tokens: "
                    "embgeom.load(model, 'output')"
                )
        sides = Side.read(source, "source", team), Side.read(target, "target", team)
        rows = pair_rows(source, target, sides, tokens, team)
        pairs = Pairs(
            *(
                PreparedRows.prepare(side.matrix, ids, norm, False)
                for side, ids, norm in zip(sides, rows, norms, strict=True)
            )
        )
        kept = held = np.arange(len(pairs))
        about = {} if mapping is None else mapping.provenance
        held_out = True if mapping is not None and mapping.layers is not None else None
        if about.get("rows_sha256") == [digest(ids.tolist()) for ids in rows]:
            kept, held = split(len(pairs), about["options"]["held_out"], about["options"]["seed"])
            held_out = len(held) > 0
        scored = draw(held if len(held) else kept, _MOST_SCORED, [seed, 5])
        relabeled = draw(kept, _MOST_RELABELED, [seed, 6])
        return cls(pairs, scored, relabeled, held_out, seed, team)

    def predict(
        self,
        vectors: npt.ArrayLike,
        transferred: npt.ArrayLike,
        mapping: Emb2Emb | None = None,
        mode: TransferMode | None = None,
    ) -> tuple[Forecast, ...]:
        """Return a forecast for each of some directions, (m, d_s), and what became of them, (m, d_t)."""
        return self.forecasts(self.read(vectors, transferred), mapping, mode)

    def predict_vector(
        self, vector: SteeringVector, transferred: SteeringVector, mapping: Emb2Emb | None
    ) -> tuple[tuple[Forecast, ...], tuple[TokenLogits, TokenLogits]]:
        """Return a forecast for each layer that was transferred, and the logits."""
        layers = transferred_layers(vector, transferred)
        logits = self.read(
            np.stack([vector.directions[old] for old in layers]),
            np.stack([transferred.directions[new] for new in layers.values()]),
        )
        found = self.forecasts(logits, mapping, transferred.provenance.get("mode"))
        of_layers = zip(found, layers.items(), strict=True)
        return tuple(replace(each, layer=old, target_layer=new) for each, (old, new) in of_layers), logits

    @one_blas_thread()
    def read(self, vectors: npt.ArrayLike, transferred: npt.ArrayLike) -> tuple[TokenLogits, TokenLogits]:
        """Read the logits of directions, (m, d_s) and (m, d_t), over all shared tokens."""
        v, h = self._checked(vectors, transferred)
        return (
            token_logits(self.pairs.source, v, self._dominant[0]),
            token_logits(self.pairs.target, h, self._dominant[1]),
        )

    @one_blas_thread()
    def forecasts(
        self,
        logits: tuple[TokenLogits, TokenLogits],
        mapping: Emb2Emb | None = None,
        mode: TransferMode | None = None,
    ) -> tuple[Forecast, ...]:
        """Return a forecast for each direction that was read."""
        of_map: dict[str, Any] = {}
        preserved: dict[str, Float64Vector] = {}
        if mapping is not None:
            mode = default_mode(mapping) if mode is None else check_mode(mode)
            of_map, preserved = self._random(mapping, mode), _preserved(mapping, mode, logits[0].vectors)
        return tuple(
            self._forecast(i, logits, of_map | {name: float(each[i]) for name, each in preserved.items()})
            for i in range(len(logits[0].vectors))
        )

    def _random(self, mapping: Emb2Emb, mode: TransferMode) -> dict[str, float]:
        """Return mean and deviation of the agreement of random vectors with what the map makes of them."""
        shape = RELABELINGS, self.pairs.source.matrix.shape[1]
        v = np.random.default_rng([self.seed, 8]).standard_normal(shape)
        h = transfer_array(mapping, v, mode, self.threads)
        source = logits_without(v, self._dominant[0], self._scored_rows[0])
        target = logits_without(h, self._dominant[1], self._scored_rows[1])
        found = [spearman(*both) for both in zip(source.T, target.T, strict=True)]
        return {"random_mean": float(np.mean(found)), "random_sd": float(np.std(found, ddof=1))}

    def _checked(self, *given: npt.ArrayLike) -> tuple[Float64Matrix, Float64Matrix]:
        arrays = []
        for name, vectors, rows in zip(
            ("vectors", "transferred vectors"), given, (self.pairs.source, self.pairs.target), strict=True
        ):
            array = np.atleast_2d(as_real_array(vectors, f"the {name}").astype(np.float64))
            if array.ndim != 2 or array.shape[1] != rows.matrix.shape[1]:
                raise InputError(
                    f"the {name} have the shape {array.shape}, but the model has {rows.matrix.shape[1]} "
                    "columns: give the models in the order of the transfer"
                )
            arrays.append(array)
        if len(arrays[0]) != len(arrays[1]):
            raise InputError(f"{len(arrays[0])} vectors, but {len(arrays[1])} transferred ones")
        return arrays[0], arrays[1]

    def _forecast(
        self, index: int, sides: tuple[TokenLogits, TokenLogits], of_map: dict[str, float]
    ) -> Forecast:
        source, target = (side.logits[:, index] for side in sides)
        wanted, found = source[self.scored], target[self.scored]
        agreement = spearman(wanted, found)
        low, high = _interval(agreement, len(self.scored))
        null = self._null(wanted, source[self.relabeled])
        return Forecast(
            layer=None,
            target_layer=None,
            agreement=agreement,
            low=low,
            high=high,
            null_mean=float(null.mean()),
            null_sd=float(null.std(ddof=1)),
            random_mean=of_map.get("random_mean"),
            random_sd=of_map.get("random_sd"),
            tokens=len(self.scored),
            held_out=self.held_out,
            top_overlap=_overlap(wanted, found),
            row_space_share=of_map.get("share"),
            gain=of_map.get("gain"),
            nearest_token=float(sides[0].nearest[index]),
            target_nearest_token=float(sides[1].nearest[index]),
            readout=float(sides[0].spread[index]),
            target_readout=float(sides[1].spread[index]),
        )

    def _null(self, wanted: Float64Vector, weights: Float64Vector) -> Float64Vector:
        """Return the agreements with directions that pair tokens at random."""
        # Sums of the target's rows, each weighted by what the vector gives another token: as a map of
        # shuffled tokens makes them, but for what it inverts, and none has to be fitted.
        directions = weights[self._orders].astype(np.float32) @ self._rows[1]
        logits = logits_without(directions, self._dominant[1], self._scored_rows[1])
        a = ranks(wanted) - (len(wanted) + 1) / 2
        b = np.argsort(np.argsort(logits, axis=0), axis=0) - (len(wanted) - 1) / 2
        return np.asarray(a @ b / (np.linalg.norm(a) * np.linalg.norm(b, axis=0)))

    @cached_property
    def _orders(self) -> RowNumbers:
        generator, count = np.random.default_rng([self.seed, 7]), len(self.relabeled)
        return np.stack([generator.permutation(count) for _ in range(RELABELINGS)])

    @cached_property
    def _rows(self) -> tuple[Float32Matrix, Float32Matrix]:
        """The relabeled tokens' rows minus their mean, in both models."""
        chosen = self.pairs.choose(self.relabeled)
        return chosen.source.deviations(chosen.source.mean()), chosen.target.deviations(chosen.target.mean())

    @cached_property
    def _dominant(self) -> tuple[Float32Matrix, Float32Matrix]:
        """The largest principal components of both models' rows, by column."""
        return dominant_components(self._rows[0]), dominant_components(self._rows[1])

    @cached_property
    def _scored_rows(self) -> tuple[Float32Matrix, Float32Matrix]:
        """The scored tokens' rows minus their mean, in both models."""
        chosen = self.pairs.choose(self.scored)
        return chosen.source.deviations(chosen.source.mean()), chosen.target.deviations(chosen.target.mean())


def predict_transfer(
    vector: SteeringVector,
    transferred: SteeringVector,
    source: Embeddings,
    target: Embeddings,
    mapping: Emb2Emb | None = None,
    *,
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    norms: Norms = (None, None),
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Forecast, ...]:
    """Say from weights alone whether a map keeps what a vector does to logits.

    Parameters
    ----------
    vector, transferred : SteeringVector
        The source's vector, and what `Emb2Emb.transfer` made of it.
    source, target : Embeddings
        The unembeddings of both models.
    mapping : Emb2Emb, optional
        The map that it was transferred by: tokens that it has held out are compared, and its numbers are
        added.
    tokens, norms : optional
        As for `Emb2Emb.fit`; the same as there.
    seed : int
        Draws the tokens that are compared, at most 4,096, 100 relabelings and 100 random vectors.
    threads : int, optional
        Threads to use; every core available to the process by default.

    Returns
    -------
    tuple of Forecast
        One for each layer that was transferred.

    Raises
    ------
    InputError
        If sizes do not fit, or there are too few shared tokens.

    Notes
    -----
    Weights alone prove no steering: a vector may act by other layers than the unembedding, which reads only
    the last, and one that does nothing to its own model is transferred as well as any. Both matrices are read
    once, an eigenproblem of d x d is solved for each, 100 random vectors are transferred, and for each layer
    100 sums of at most 8,192 rows of the target are formed.

    References
    ----------
    Bonett & Wright (2000). Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations. Psychometrika.
    Mu & Viswanath (2018). All-but-the-top: simple and effective postprocessing for word representations.
    ICLR.

    Examples
    --------
    >>> import embgeom
    >>> small, large = (embgeom.load(folder, "output") for folder in embgeom.examples.pair())
    >>> mapping = embgeom.Emb2Emb.fit(small, large)
    >>> joy = embgeom.SteeringVector.from_words(small, [" happy"], [" sad"], layers=3)
    >>> transferred = mapping.transfer(joy, norm="raw")
    >>> (found,) = embgeom.emb2emb.predict_transfer(joy, transferred, small, large, mapping)
    >>> found.z > 3, found.verdict
    (True, 'partly')
    """
    lens = LogitLens.prepare(source, target, mapping, tokens=tokens, norms=norms, seed=seed, threads=threads)
    return lens.predict_vector(vector, transferred, mapping)[0]


def transferred_layers(vector: SteeringVector, transferred: SteeringVector) -> dict[int, int]:
    """Return the target's layer for each layer of the vector that was transferred."""
    moved = transferred.provenance.get("layers")
    found = {int(old): int(new) for old, new in moved.items()} if isinstance(moved, dict) else {}
    if set(found) <= set(vector.layers) and set(found.values()) == set(transferred.layers):
        return found
    raise InputError(
        f"{transferred!r} does not say which layers of {vector!r} it has: give what Emb2Emb.transfer returned"
    )


def _preserved(mapping: Emb2Emb, mode: TransferMode, v: Float64Matrix) -> dict[str, Float64Vector]:
    """Return how much of each vector the map keeps, where it is a matrix."""
    matrix = mapping.matrix_of(mode)
    if matrix is None:
        return {}
    left, sizes, _ = np.linalg.svd(matrix, full_matrices=False)
    inside = v @ left[:, sizes > 1e-8 * sizes[0]]
    squares = np.square(v).sum(axis=1)
    squares[squares == 0] = np.nan
    usual = np.square(sizes).sum() / len(matrix)
    return {
        "share": np.square(inside).sum(axis=1) / squares,
        "gain": np.square(v @ matrix).sum(axis=1) / squares / usual,
    }


def _interval(correlation: float, count: int) -> tuple[float, float]:
    if count <= 3 or not abs(correlation) < 1:
        return correlation, correlation
    reach = NORMAL_QUANTILE * math.sqrt((1 + correlation**2 / 2) / (count - 3))
    middle = math.atanh(correlation)
    return math.tanh(middle - reach), math.tanh(middle + reach)


def _overlap(wanted: Float64Vector, found: Float64Vector) -> float | None:
    if (most := round(TOP_SHARE * len(wanted))) < FEWEST_TOP:
        return None
    tops = [set(np.argpartition(values, -most)[-most:].tolist()) for values in (wanted, found)]
    return len(tops[0] & tops[1]) / most
