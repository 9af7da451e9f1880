"""Compare two models' hidden states, transferred by a map of their embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest, model_versions
from embgeom.emb2emb import Emb2Emb
from embgeom.emb2emb.transfer import TransferMode, check_mode
from embgeom.errors import InputError
from embgeom.hidden_states.measures import centered, linear_cka, mean_cosines
from embgeom.hidden_states.positions import Positions, elsewhere, sampled, shared_positions
from embgeom.hidden_states.result import StateComparison, StateMeasure
from embgeom.hidden_states.states import States, opened, residual_states
from embgeom.lm.language_model import describe_model, model_name
from embgeom.lm.layers import Layout, find
from embgeom.lm.passes import longest_text
from embgeom.lm.tokenizing import warn_of_doubled

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
    positions: Positions = "all",
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
        All places where tokens of both end together, or of each prompt the last one.
    max_positions : int
        Of more positions, so many are drawn.
    batch_size : int
        Prompts in one forward pass.
    seed : int
        Seed of ``numpy.random.default_rng``, which draws positions and pairs those of different prompts.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    StateComparison
        Mean cosine of transferred and target states, and linear CKA of the states themselves, which needs no
        map and says how alike the states lie; each of states as they are and centered, beside the value where
        each position is paired with one of another prompt.

    Raises
    ------
    InputError
        If prompts share fewer than 3 positions, `mapping` returns what does not fit, or an option is out of
        range.
    LoadError
        If a folder holds no model.

    Notes
    -----
    A forward pass of each model over the prompts; with p positions, B layers and width d, 4 p (B + 1) d bytes
    for each model, for the transferred states and for centered copies, and 2 p^2 B d multiply-adds for each
    Gram matrix of CKA. The models are left as they were.
    A map of the unembeddings is the one to expect much of: the residual stream is what the unembedding reads.
    Between the two example models, a least-squares map of the unembeddings gives centered cosines above 0.5
    from every layer to every layer; one of the embeddings gives 0.5 before layer 0, and nearly 0 behind it.
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
    StateComparison('example:small' and 'example:small', 4 and 4 layers, 14 positions of 2 prompts)
    >>> result.match_layers()
    {0: 0, 1: 1, 2: 2, 3: 3}
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    max_positions = whole_number(max_positions, "max_positions", _FEWEST_POSITIONS)
    generator = np.random.default_rng(check_seed(seed))
    maps = [mapping] if shuffled is None else [mapping, shuffled]
    for each in maps:
        if not callable(getattr(each, "transfer", None)):
            raise InputError(
                f"{type(each).__name__} has no method transfer(vectors); pass a map such as embgeom.Emb2Emb"
            )
    mappings = [_mapping(each, check_mode(mode)) for each in maps]
    a, b = opened(source), opened(target)
    _check_maps(mappings, find(a.model), find(b.model))
    limits = longest_text(a.model), longest_text(b.model)
    shared = shared_positions(prompts, (a.tokenizer, b.tokenizer), limits, positions)
    for tokenizer, texts in zip((a.tokenizer, b.tokenizer), zip(*shared, strict=True), strict=False):
        warn_of_doubled(
            tokenizer, [text.ids for text in texts], "take it away from the prompts", stacklevel=2
        )
    pairs = sampled(shared, max_positions, generator)
    counts = [len(tokenized.places) for tokenized, _ in pairs]
    if sum(counts) < _FEWEST_POSITIONS:
        raise InputError(
            f"in {len(prompts)} prompts there are {sum(counts)} places where tokens of both models end "
            f"together; {_FEWEST_POSITIONS} are needed, so give more or longer prompts"
        )
    partner = elsewhere(counts, generator)
    of_a, of_b = zip(*pairs, strict=True)
    with reporter(progress, "hidden states") as report:
        states_a = residual_states(a.model, of_a, batch_size=batch_size, report=report, phase="source")
        states_b = residual_states(b.model, of_b, batch_size=batch_size, report=report, phase="target")
        measures = (
            *_cosines(mappings, states_a, states_b, partner),
            *_ckas(states_a, states_b, partner, report),
        )
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


def _mapping(mapping: Map, mode: TransferMode) -> Transfer:
    if isinstance(mapping, Emb2Emb):
        return lambda vectors: mapping.transfer(vectors, mode=mode)
    return mapping.transfer


def _describe_map(mapping: Map) -> dict[str, Any]:
    return {"map": repr(mapping), "provenance": getattr(mapping, "provenance", None)}


def _check_maps(mappings: Sequence[Transfer], source: Layout, target: Layout) -> None:
    """Try the maps before the models run, where the models' configs tell their widths."""
    if source.hidden_size is not None and target.hidden_size is not None:
        for each in mappings:
            _moved(each, np.ones((2, source.hidden_size), dtype=np.float32), target.hidden_size)


def _cosines(
    mappings: Sequence[Transfer],
    source: States,
    target: States,
    partner: npt.NDArray[np.int64],
) -> list[StateMeasure]:
    transferred, *control = (_transferred(transfer, source, target.shape[2]) for transfer in mappings)
    scrambled = control[0] if control else None
    return [
        StateMeasure(
            name,
            meaning,
            mean_cosines(prepare(transferred), prepare(target)),
            mean_cosines(prepare(transferred), prepare(target)[:, partner]),
            None if scrambled is None else mean_cosines(prepare(scrambled), prepare(target)),
        )
        for name, meaning, prepare in (
            ("cosine", "mean cosine of transferred and target states", lambda states: states),
            ("centered cosine", "the same, less the mean state of each layer", centered),
        )
    ]


def _ckas(source: States, target: States, partner: npt.NDArray[np.int64], report: Any) -> list[StateMeasure]:
    measures = []
    for name, meaning, prepare in (
        ("CKA", "similarity of the Gram matrices of centered states; needs no map", centered),
        ("uncentered CKA", "the same of states as they are", lambda states: states),
    ):
        a, b = prepare(source), prepare(target)
        value = linear_cka(a, b, report=report, phase=name)
        null = linear_cka(a, b[:, partner], report=report, phase=f"{name}, shuffled")
        measures.append(StateMeasure(name, meaning, value, null, None))
    return measures


def _transferred(transfer: Transfer, states: States, width: int) -> States:
    """Return the states in the target's space, layer by layer."""
    return np.stack([_moved(transfer, vectors, width) for vectors in states])


def _moved(transfer: Transfer, vectors: npt.NDArray[np.float32], width: int) -> npt.NDArray[np.float32]:
    """Return what a map makes of vectors, checked."""
    moved = as_real_array(transfer(vectors), "what the map returns")
    if moved.shape != (len(vectors), width):
        raise InputError(
            f"the map turns {vectors.shape} into {moved.shape}, and the target needs "
            f"{(len(vectors), width)}; was it fitted for these two models, in this direction?"
        )
    if not np.isfinite(moved).all():
        raise InputError("the map returns NaN or infinity")
    return np.asarray(moved, dtype=np.float32)
