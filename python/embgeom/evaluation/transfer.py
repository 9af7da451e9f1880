"""`transfer`: a steering vector of one model becomes one of another, in one step, with a certificate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy.typing as npt

from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.progress import Progress
from embgeom._common.threads import resolve_threads
from embgeom.comparison.tokens import shared_rows
from embgeom.emb2emb.lengths import Norm, check_norm
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.methods import DEFAULT_METHOD, Method, as_method
from embgeom.emb2emb.pairs import Norms
from embgeom.emb2emb.transfer import Layers, TransferMode, check_mode, target_layers
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError
from embgeom.evaluation.certificate import certify
from embgeom.evaluation.run import EvaluateOptions, as_texts, check_added
from embgeom.evaluation.scaling import AT_KL, scale_to_kl
from embgeom.lm.language_model import LanguageModel, load_language_model, model_info
from embgeom.lm.states import state_spread
from embgeom.loading import load
from embgeom.loading.model import declared_sizes
from embgeom.steering.directions import check_length
from embgeom.steering.vector import SteeringVector

Model = Embeddings | str | PathLike[str]


@dataclass(frozen=True)
class TransferOptions:
    """Options of `transfer` that are seldom needed.

    Parameters
    ----------
    tokens : pair of array_like of int, optional
        Rows of both models to pair, as for `Emb2Emb.fit`.
    norms : pair of (FinalNorm or None)
        Final norms to fold into the unembeddings, as for `Emb2Emb.fit`; of a map that is given, the same.
    shuffle : bool
        Pair tokens at random: a control, whose certificate should say that nothing is kept. `evaluate` takes
        ten of them, each of another seed, as a baseline.
    seed : int
        Of everything that is drawn.
    texts : iterable of str, optional
        Neutral texts on which the target is run for the length; by default those of `scale_to_kl` and
        `embgeom.steering.state_spread`.
    batch_size : int
        Texts in one forward pass.
    threads : int, optional
        Threads to use; every core available to the process by default.

    Raises
    ------
    InputError
        If an option is out of its range.
    """

    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None
    norms: Norms = (None, None)
    shuffle: bool = False
    seed: int = 0
    texts: Iterable[str] | None = None
    batch_size: int = 8
    threads: int | None = None

    def __post_init__(self) -> None:
        flag(self.shuffle, "shuffle")
        check_seed(self.seed)
        whole_number(self.batch_size, "batch_size", 1)
        resolve_threads(self.threads)
        # They are gone through more than once.
        object.__setattr__(self, "texts", as_texts(self.texts, name="texts"))


def transfer(
    vector: SteeringVector,
    source: Model,
    target: Model,
    *,
    mapping: Emb2Emb | Method | str = DEFAULT_METHOD,
    mode: TransferMode | None = None,
    layers: Layers = None,
    norm: Norm | float | SteeringVector | None = None,
    at_kl: float | None = None,
    model: tuple[Any, Any] | None = None,
    options: TransferOptions | None = None,
    progress: Progress = False,
) -> SteeringVector:
    """Transfer a steering vector to another model: fit a map, transfer, find the length, certify.

    Parameters
    ----------
    vector : SteeringVector
        A vector of the source.
    source, target : Embeddings, str or path
        The unembeddings of both models as ``embgeom.load(model, "output")`` returns them, or what to load.
    mapping : Emb2Emb, LeastSquares, Ridge, LowRank, Procrustes, NeighborWeights or str
        A map from source to target, or how to fit one, as for `Emb2Emb.fit`.
    mode, layers : optional
        As for `Emb2Emb.transfer`.
    norm : {"states", "raw"}, float or SteeringVector, optional
        The length instead of `at_kl`: the words as for `Emb2Emb.transfer`, the others as for
        `SteeringVector.with_norm`. For "states" the target is run, unless the map is one of states. A vector
        whose operation is not addition gets the length that `Emb2Emb.transfer` gives it by default.
    at_kl : float, optional
        Make the vector so long that at scale 1 its KL on neutral text is this, as `scale_to_kl` does; by
        default 0.2.
    model : (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase), optional
        The target as `embgeom.steering.load_language_model` returns it; by default it is loaded by the name
        of `target` where it has to be run.
    options : TransferOptions, optional
        The tokens, the texts, a shuffled control, seed and threads.
    progress : bool or callable
        As for `Emb2Emb.fit`.

    Returns
    -------
    SteeringVector
        The target's, with its certificate, which `Certificate.from_vector` reads.

    Raises
    ------
    InputError
        If an argument is out of its range, the vector does not fit the source, layers do not fit, both
        lengths are asked for, a map is of other models, or `target` cannot be run and no `model` is given;
        before anything is fitted or run.

    Notes
    -----
    Costs a fit (`Emb2Emb.fit`; within `embgeom.use_cache` a map that was fitted before is read), a forecast
    (`certify`) and, unless ``norm="raw"``, some six forward passes of the target over short texts.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import Certificate
    >>> joy = embgeom.SteeringVector.from_words("example:small", [" happy"], [" sad"], layers=2)
    >>> transferred = embgeom.transfer(joy, "example:small", "example:large")
    >>> transferred.layers, 10 < transferred.norms[4] < 60
    ((4,), True)
    >>> Certificate.from_vector(transferred)
    Certificate('example:small' -> 'example:large', ridge, logits: partly)
    """
    options = TransferOptions() if options is None else options
    _check(vector, options, norm, at_kl)
    given = mapping if isinstance(mapping, Emb2Emb) else None
    method = mapping.method if isinstance(mapping, Emb2Emb) else as_method(mapping)
    if mode is not None:
        check_mode(mode, method)
    of_map = None if given is None else given.layers
    target_layers(vector, layers, _declared(source), _declared(target), of_map)
    a, b = (
        side if isinstance(side, Embeddings) else load(side, "output", threads=options.threads)
        for side in (source, target)
    )
    if given is not None:
        check_map(given, a, b, options)
    moved = target_layers(vector, layers, a.model_info, b.model_info, of_map)
    check_norms(norm, moved, b.matrix.shape[1])
    runs = at_kl is not None or asks_target(vector, given, norm)
    if model is None and runs:
        model = _language_model(b)
    if model is not None and b.model_info.differs_from(model_info(model[0])):
        raise InputError(f"the model that would be run for the length is not that of {b!r}")
    drawn: Any = {"seed": options.seed, "threads": options.threads}
    tokens = options.tokens or shared_rows(a, b, threads=options.threads)
    about: Any = {"tokens": tokens, "norms": options.norms, **drawn}
    if not isinstance(mapping, Emb2Emb):
        mapping = Emb2Emb.fit(a, b, method=mapping, shuffle=options.shuffle, progress=progress, **about)
    how: Any = {"mode": mode, "layers": layers, "norm": norm, "threads": options.threads}
    if model is not None and runs:
        found = _at_length(vector, mapping, model, at_kl, options, how)
    elif norm is None or isinstance(norm, str):
        found = mapping.transfer(vector, **how)
    else:
        found = mapping.transfer(vector, **how | {"norm": "raw"}).with_norm(norm)
    return certify(vector, found, a, b, mapping, **about).attached(found)


def asks_target(vector: SteeringVector, mapping: Emb2Emb | None, norm: object) -> bool:
    """Whether the target is run for the length of a vector."""
    if norm is None:
        return vector.operation != "ablate"
    return norm == "states" and (mapping is None or mapping.layers is None)


def check_norms(norm: object, moved: Mapping[int, int], hidden_size: int | None) -> None:
    """Raise InputError where norms cannot be taken from a vector, by the layers that directions go to."""
    if not isinstance(norm, SteeringVector):
        return
    if norm.hidden_size != (hidden_size or norm.hidden_size):
        of_target = "norms are taken from a vector of the target"
        what = f"norm is a vector of hidden size {norm.hidden_size}, and the target has {hidden_size}"
        raise InputError(f"{what}: {of_target}", command=f"--{what}: {of_target}")
    if lacking := [layer for layer in moved.values() if layer not in norm.layers]:
        what = f"norm is a vector without layer {lacking[0]} of the target, only {list(norm.layers)}: "
        raise InputError(f"{what}choose others by layers=", command=f"--{what}choose others by --layers")


def check_map(mapping: Emb2Emb, source: Embeddings, target: Embeddings, options: TransferOptions) -> None:
    """Raise InputError where a map that was fitted before is of other models, or otherwise than asked for."""
    named = (("source", "from", mapping.source, source), ("target", "to", mapping.target, target))
    for side, option, known, model in named:
        if known.differs_from(model.model_info):
            what = f"is {model.name}, but the map is of {known.name!r}: name its models"
            raise InputError(f"{side} {what}", command=f"--{option} {what}")
        fitted = mapping.provenance.get(side)
        which = fitted.get("which") if isinstance(fitted, dict) else None
        if which not in (None, model.which) and not model.provenance.tied:
            what = f"is the {model.which} side of {model.name}, but the map was fitted on the {which} side"
            raise InputError(
                f"{side} {what}: load that, by which={which!r}",
                command=f"--{option} {what}: choose --which-{option} {which}",
            )
    if options.shuffle:
        raise InputError("shuffle is for fitting a map, and mapping is one that is fitted")
    folded = mapping.provenance.get("folded") or [False, False]
    if folded != [norm is not None for norm in options.norms]:
        raise InputError(f"the map folds final norms by {folded}: give TransferOptions the same norms=")


def _at_length(
    vector: SteeringVector,
    mapping: Emb2Emb,
    model: tuple[Any, Any],
    at_kl: float | None,
    options: TransferOptions,
    how: dict[str, Any],
) -> SteeringVector:
    """Transfer a vector and run the target for its length."""
    batch: Any = {"batch_size": options.batch_size}
    # A coordinate is compared with those of the source's states, which were measured on the default texts.
    read: Any = options.texts if vector.operation == "add" else None
    found = mapping.transfer(vector, state_spread=state_spread(*model, read, **batch), **how)
    if how["norm"] is not None or (vector.operation != "add" and at_kl is None):
        return found
    return scale_to_kl(*model, found, AT_KL if at_kl is None else at_kl, neutral=options.texts, **batch)


def _check(
    vector: SteeringVector,
    options: TransferOptions,
    norm: Norm | float | SteeringVector | None,
    at_kl: float | None,
) -> None:
    """Raise InputError where arguments are none that any two models could take."""
    if not isinstance(vector, SteeringVector):
        raise InputError(f"vector = {vector!r:.60} is not a SteeringVector: SteeringVector.load reads a file")
    if not isinstance(options, TransferOptions):
        raise InputError(f"options = {options!r:.60} is not a TransferOptions")
    if at_kl is not None and norm is not None:
        one = "sets the length, and {}norm another: give one"
        raise InputError(f"at_kl {one.format('')}", command=f"--at-kl {one.format('--')}")
    if at_kl is not None:
        EvaluateOptions(at_kl=at_kl)
        check_added([vector])
    if isinstance(norm, str):
        check_norm(norm)
    elif norm is not None and not isinstance(norm, SteeringVector):
        check_length(norm)


def _declared(model: Model) -> ModelInfo:
    """Return what is known of a model before its weights are read."""
    if isinstance(model, Embeddings):
        return model.model_info
    known = declared_sizes(model)
    return ModelInfo(str(model), hidden_size=known.columns, num_layers=known.num_layers)


def _language_model(of: Embeddings) -> LanguageModel:
    """Load the model that an unembedding is of, to be run."""
    known = of.provenance
    if known.adapter is not None or known.file is None or known.tensor is None:
        merged = known.adapter is not None
        raise InputError(
            f"{of!r} {'has an adapter merged in' if merged else 'is not from the files of a model'}, so the "
            'target cannot be loaded to be run for the length: give model=(model, tokenizer), or norm="raw"'
        )
    is_here = Path(known.source).expanduser().exists()
    return load_language_model(known.source, revision=None if is_here else known.revision)
