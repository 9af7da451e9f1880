"""Compare two models' hidden states, transferred by a map of their embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import digest, model_versions
from embgeom._common.threads import one_blas_thread
from embgeom.emb2emb import Emb2Emb
from embgeom.emb2emb.transfer import TransferMode, check_mode
from embgeom.errors import InputError
from embgeom.hidden_states.comparison import MEASURES, StateComparison, StateMeasure
from embgeom.lm.language_model import LanguageModel, describe_model, load_language_model, model_name
from embgeom.lm.layers import find
from embgeom.lm.passes import longest_text
from embgeom.lm.shared_texts import PromptPositions, sampled, shared_positions
from embgeom.lm.states import Tokenized, residual_states
from embgeom.lm.tokenizing import warn_of_doubled

Table = npt.NDArray[np.float64]
# (layers, positions, hidden_size).
States = npt.NDArray[np.float32]

# Numbers of one layer that are held as float64 at a time.
_PIECE = 1 << 18
Model = str | os.PathLike[str] | tuple[Any, Any]

Transfer = Callable[[npt.NDArray[np.float32]], npt.ArrayLike]

_FEWEST_POSITIONS = 3


class Map(Protocol):
    """Whatever transfers vectors from one model to another, such as `embgeom.Emb2Emb`."""

    def transfer(self, vectors: npt.NDArray[np.float32]) -> npt.ArrayLike:
        """Return (n, d_target) for (n, d_source)."""


def compare_states(
    source: Model,
    target: Model,
    mapping: Map,
    prompts: Sequence[str],
    *,
    shuffled: Map | None = None,
    mode: TransferMode = "primal",
    positions: PromptPositions = "all",
    max_positions: int = 2000,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress = False,
) -> StateComparison:
    """Measure in every pair of layers whether a map of the embeddings also transfers hidden states.

    Both models read the same prompts. Where tokens of both end at the same character, the source model's
    residual stream is transferred and compared with the target model's, each state of the one with each of
    the other: what goes into layer 0, and the output of every layer.

    Parameters
    ----------
    source, target : str, path-like, or (model, tokenizer)
        A folder with a transformers model, ``example:small`` or ``example:large``, which are loaded as
        float32; or a causal model of transformers and its fast tokenizer.
    mapping : object with ``transfer``
        ``transfer(vectors)`` returns (n, d_target) for (n, d_source); such as an `embgeom.Emb2Emb`.
    prompts : sequence of str
        Texts; some hundred positions in all tell much. What goes beyond a model's longest context is left
        out.
    shuffled : object with ``transfer``, optional
        The same kind of map, fitted on shuffled tokens: what a map alone brings about.
    mode : {"primal", "dual", "logits"}
        How an `embgeom.Emb2Emb` transfers states. "primal" takes h A: a state is compared as a row of the
        unembedding is. Other maps transfer in their own way.
    positions : {"all", "last"}
        All positions where tokens of both end together, or of each prompt the last one.
    max_positions : int
        Of more positions, this number is drawn.
    batch_size : int
        Prompts in one forward pass.
    seed : int
        Seed of ``numpy.random.default_rng``, which draws positions and pairs those of different prompts.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.

    Returns
    -------
    StateComparison
        Mean cosine of transferred and target states, and linear CKA of the states themselves, which needs no
        map; each of states as they are and centered, with the value where each position is paired with one of
        another prompt.

    Raises
    ------
    InputError
        If prompts share fewer than 3 positions, `mapping` returns what does not fit, or an option is out of
        range.
    LoadError
        If a folder holds no model.

    Notes
    -----
    A forward pass of each model over the prompts; with p positions, L layers and hidden size d, 4 p (L + 1) d
    bytes for each model, for the transferred states and for centered copies, and 2 p^2 L d multiply-adds for
    each Gram matrix of CKA. The models are left as they were.
    A map of the unembeddings is the one to expect much of: the residual stream is what the unembedding reads.
    Between the two example models, a least-squares map of the unembeddings gives centered cosines above 0.5
    from every layer to every layer; one of the embeddings gives 0.5 before layer 0, and nearly 0 after it.
    The first token of a text often has states of enormous norm, which dominate CKA that is not centered.

    Examples
    --------
    >>> from embgeom.hidden_states import compare_states
    >>> class Same:
    ...     def transfer(self, vectors):
    ...         return vectors
    >>> prompts = ["Once upon a time there was a cat.", "The dog ran home."]
    >>> result = compare_states("example:small", "example:small", Same(), prompts)
    >>> result
    StateComparison('example:small' and 'example:small', 4 and 4 layers, 14 positions of 2 texts)
    >>> result.match_layers()
    {0: 0, 1: 1, 2: 2, 3: 3}
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    max_positions = whole_number(max_positions, "max_positions", _FEWEST_POSITIONS)
    generator = np.random.default_rng(check_seed(seed))
    maps = [_transfer(each, check_mode(mode)) for each in (mapping, shuffled) if each is not None]
    a, b = opened(source), opened(target)
    sizes = find(a.model).hidden_size, find(b.model).hidden_size
    if None not in sizes:
        # Before the models run.
        for each in maps:
            _transferred(each, np.ones((1, 2, sizes[0] or 0), dtype=np.float32), sizes[1] or 0)
    shared = shared_positions(
        prompts, (a.tokenizer, b.tokenizer), (longest_text(a.model), longest_text(b.model)), positions
    )
    for tokenizer, texts in zip((a.tokenizer, b.tokenizer), zip(*shared, strict=True), strict=False):
        warn_of_doubled(
            tokenizer, [text.ids for text in texts], "take it away from the prompts", stacklevel=2
        )
    pairs = sampled(shared, max_positions, generator)
    counts = [len(tokenized.positions) for tokenized, _ in pairs]
    if sum(counts) < _FEWEST_POSITIONS:
        raise InputError(
            f"in {len(prompts)} prompts there are {sum(counts)} positions where tokens of both models end "
            f"together; {_FEWEST_POSITIONS} are needed, so give more or longer prompts"
        )
    measures = _measured(a.model, b.model, maps, pairs, elsewhere(counts, generator), batch_size, progress)
    provenance = {
        "source": describe_model(a.model),
        "target": describe_model(b.model),
        "map": _describe_map(mapping),
        "shuffled": None if shuffled is None else _describe_map(shuffled),
        "options": {
            "mode": mode,
            "positions": positions,
            "max_positions": max_positions,
            "batch_size": batch_size,
            "seed": seed,
            "prompts": len(prompts),
            "prompts_sha256": digest(list(prompts)),
        },
        "versions": model_versions(),
    }
    names = model_name(a.model), model_name(b.model)
    return StateComparison(*names, len(pairs), sum(counts), measures, provenance)


def _measured(
    source: Any,
    target: Any,
    maps: Sequence[Transfer],
    prompts: Sequence[tuple[Tokenized, Tokenized]],
    partner: npt.NDArray[np.int64],
    batch_size: int,
    progress: Progress,
) -> tuple[StateMeasure, ...]:
    """Run both models, and compare states as they are and centered; `partner` pairs positions at random."""
    of_a, of_b = zip(*prompts, strict=True)
    with reporter(progress, "hidden states") as report:
        a = residual_states(source, of_a, batch_size=batch_size, report=report, phase="source").states
        b = residual_states(target, of_b, batch_size=batch_size, report=report, phase="target").states
        moved = [_transferred(each, a, b.shape[2]) for each in maps]
        measures: dict[str, Any] = {}
        for name, prepare in (("", lambda states: states), ("centered", centered)):
            x, *control = map(prepare, moved)
            y, source_states = prepare(b), prepare(a)
            by_map = mean_cosines(control[0], y) if control else None
            cosine, cka = ("centered_cosine", "cka") if name else ("cosine", "uncentered_cka")
            measures[cosine] = (mean_cosines(x, y), mean_cosines(x, y[:, partner]), by_map)
            ckas = (
                linear_cka(source_states, other, report=report, phase=phase)
                for other, phase in ((y, cka), (y[:, partner], f"{cka}, shuffled"))
            )
            measures[cka] = (*ckas, None)
    return tuple(StateMeasure(name, *measures[name]) for name in MEASURES)


def _transfer(mapping: Map, mode: TransferMode) -> Transfer:
    if isinstance(mapping, Emb2Emb):
        return lambda vectors: mapping.transfer(vectors, mode=mode)
    if not callable(getattr(mapping, "transfer", None)):
        raise InputError(
            f"{type(mapping).__name__} has no method transfer(vectors); pass a map such as embgeom.Emb2Emb"
        )
    return mapping.transfer


def _describe_map(mapping: Map) -> dict[str, Any]:
    return {"map": repr(mapping), "provenance": getattr(mapping, "provenance", None)}


def _transferred(transfer: Transfer, states: States, size: int) -> States:
    layers = []
    for vectors in states:
        moved = as_real_array(transfer(vectors), "what the map returns")
        if moved.shape != (len(vectors), size):
            raise InputError(
                f"the map turns {vectors.shape} into {moved.shape}, and the target needs "
                f"{(len(vectors), size)}; was it fitted for these two models, in this direction?"
            )
        if not np.isfinite(moved).all():
            raise InputError("the map returns NaN or infinity")
        layers.append(np.asarray(moved, dtype=np.float32))
    return np.stack(layers)


def centered(states: States) -> States:
    mean = states.mean(axis=1, keepdims=True, dtype=np.float64)
    result: States = (states - mean).astype(np.float32)
    return result


@one_blas_thread()
def mean_cosines(a: States, b: States) -> Table:
    """Return the mean cosine over positions, of each layer in `a` (s, p, d) with each in `b` (t, p, d).

    The cosine of a zero state counts as 0.
    """
    total = np.zeros((len(a), len(b)))
    step = max(1, _PIECE // a.shape[2])
    for start in range(0, a.shape[1], step):
        units = (_units(states[:, start : start + step]).reshape(len(states), -1) for states in (a, b))
        total += np.matmul(next(units), next(units).T)
    total /= a.shape[1]
    return total


@one_blas_thread()
def linear_cka(a: States, b: States, *, report: ProgressCallable | None = None, phase: str = "CKA") -> Table:
    """Return the cosine of the Gram matrices of each layer in `a` (s, p, d) with those in `b` (t, p, e).

    For states that are centered over positions this is linear CKA, between 0 and 1; NaN for a layer whose
    states are all zero.
    """
    positions = a.shape[1]
    cross, squares_a, squares_b = np.zeros((len(a), len(b))), np.zeros(len(a)), np.zeros(len(b))
    step = max(1, _PIECE // positions)
    for start in range(0, positions, step):
        grams_a, grams_b = _grams(a, start, step), _grams(b, start, step)
        cross += grams_a @ grams_b.T
        squares_a += np.einsum("ij,ij->i", grams_a, grams_a)
        squares_b += np.einsum("ij,ij->i", grams_b, grams_b)
        if report:
            report(phase, min(start + step, positions), positions)
    norms = np.sqrt(np.outer(squares_a, squares_b))
    return np.divide(cross, norms, out=np.full_like(cross, np.nan), where=norms > 0)


def _units(states: States) -> Table:
    wide = states.astype(np.float64)
    norms = np.linalg.norm(wide, axis=2, keepdims=True)
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide


def _grams(states: States, start: int, step: int) -> Table:
    """Return some rows of each layer's Gram matrix, as (layers, rows * positions)."""
    return np.stack([(layer[start : start + step] @ layer.T).astype(np.float64).ravel() for layer in states])


def opened(model: Any) -> LanguageModel:
    if isinstance(model, tuple) and len(model) == 2:
        return LanguageModel(*model)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            f"a model is a folder or (model, tokenizer) of transformers, not {type(model).__name__}"
        )
    return load_language_model(model, local_files_only=True, dtype="float32")


def elsewhere(counts: Sequence[int], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return for each position one of another prompt, each of them once.

    `counts` says how many positions each prompt has. Where one prompt has most of all positions, some of its
    own are left with each other.
    """
    order = generator.permutation(len(counts))
    ends = np.cumsum(counts)
    positions = np.concatenate([np.arange(ends[i] - counts[i], ends[i]) for i in order])
    # Positions of one prompt stand together, so a shift by the longest prompt moves all of them off it.
    partner = np.empty_like(positions)
    partner[positions] = np.roll(positions, -min(max(counts), len(positions) // 2))
    return partner
