"""Steering vectors from contrastive pairs of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import whole_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest, model_versions
from embgeom.errors import InputError
from embgeom.lm.language_model import describe_model, model_info, model_name
from embgeom.lm.layers import find
from embgeom.lm.passes import in_batches, inference, longest_text
from embgeom.lm.projection import projection
from embgeom.steering.pairs import check_pairs
from embgeom.steering.reading import (
    Text,
    TokenPosition,
    check_token_position,
    mean_states,
    tell_of_special_tokens,
    tokenize,
)

if TYPE_CHECKING:
    from embgeom.steering.vector import SteeringVector

Method = Literal["mean", "pca"]


def train(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Sequence[str]],
    *,
    layers: int | Iterable[int] | None = None,
    method: Method = "mean",
    token_position: TokenPosition = "last",
    batch_size: int = 8,
    normalize: bool = False,
    add_special_tokens: bool = True,
    skip_long: bool = False,
    name: str | None = None,
    layer_modules: Any = None,
    progress: Progress = False,
) -> SteeringVector:
    """Make a vector from pairs of texts that differ in what is to be steered.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        A causal language model, on any device and of any floating dtype.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer. It need not have a padding token, and is not changed.
    pairs : iterable of (str, str)
        A positive and a negative text each, such as `embgeom.steering.pairs.read_pairs` reads.
    layers : int or iterable of int, optional
        The layers to read and give directions for, counted from 0; all by default.
    method : {"mean", "pca"}
        ``"mean"``: the mean of positive minus negative. ``"pca"``: the first principal component of these
        differences, not centered (centering would take away the mean, which is what is wanted), which is
        that of the differences together with their negatives. Its sign is such that positive texts lie
        higher on the average, its length the root mean square of the differences' projections on it; so
        scale 1 means much the same for both methods.
    token_position : {"last", "mean", "answer"} or negative int
        Where the residual stream is read: at each text's last token; the mean over its tokens; the mean
        over those after the beginning that the two texts of the pair share; or at the token at that place
        from the end. Tokens that the tokenizer adds by itself have no part in the means, and behind a text
        they are not its end.
    batch_size : int
        Texts in one forward pass. It has no effect on the result but by rounding.
    normalize : bool
        Scale each direction to norm 1.
    add_special_tokens : bool
        Let the tokenizer add its special tokens; False for texts that hold them, as chat templates do.
    skip_long : bool
        Leave out pairs of which a text is longer than the model reads, instead of raising an error.
    name : str, optional
        What to call the model; by default what it was loaded as.
    layer_modules : str or torch.nn.ModuleList, optional
        The layers, or their path in the model, where they are not found by themselves.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    SteeringVector
        With a direction for each of `layers`. Its provenance holds the options, the number of pairs that were
        read and their SHA-256, how many were left out, the model's name, commit and the SHA-256 of its
        config, and versions; for ``"pca"`` also the share of the differences' squares that each direction
        explains.

    Raises
    ------
    InputError
        If an option is unknown, a pair is not two texts, a text is too short to be read there or (unless
        `skip_long`) longer than the model reads, the texts of no pair differ up to where they are read, a
        direction is zero, the model gives NaN or infinity, a layer keeps no single residual stream or does
        not run as a module, or the layers are not found.

    Warns
    -----
    EmbgeomWarning
        If texts begin for the model otherwise than its tokenizer lets them begin (with the beginning-of-text
        token twice or not at all), or are read at the token that ends a text.

    Notes
    -----
    Two forward passes for each `batch_size` pairs, up to the last of `layers`. Differences are summed in
    float64; ``"pca"`` keeps them, 4 bytes for each pair, layer and column, and solves an eigenproblem of
    the smaller of pairs and width for each layer. The model is in eval mode meanwhile. Vectors at work in
    the model act while it is read.

    References
    ----------
    Rimsky et al. (2024). Steering Llama 2 via contrastive activation addition. ACL.
    Zou et al. (2023). Representation engineering. arXiv:2310.01405.

    Examples
    --------
    >>> import embgeom
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> folder = embgeom.examples.pair().small
    >>> model = AutoModelForCausalLM.from_pretrained(folder)
    >>> pairs = [("Tom was happy.", "Tom was sad."), ("They laughed.", "They cried.")]
    >>> embgeom.SteeringVector.train(
    ...     model, AutoTokenizer.from_pretrained(folder), pairs, layers=[1, 2], name="small"
    ... )
    SteeringVector('small', layers 1, 2, hidden_size 128)
    """
    texts = check_pairs(pairs)
    if method not in ("mean", "pca"):
        raise InputError(f'method = {method!r} is unknown: use "mean" or "pca"')
    size = whole_number(batch_size, "batch_size", 1)
    layout = find(model, layer_modules)
    numbers = layout.numbers(layers)
    kept = tokenize(
        tokenizer,
        texts,
        check_token_position(token_position),
        add_special_tokens,
        longest_text(model),
        skip_long,
    )
    numbered, tokens = list(kept), list(kept.values())
    tell_of_special_tokens(tokenizer, tokens, token_position, add_special_tokens, stacklevel=2)
    if all(_alike(pair) for pair in tokens):
        raise InputError(
            f"with token_position={token_position!r} no pair is read at or after the token where its texts "
            "differ, so nothing tells them apart; read later"
        )
    gather = _Sum() if method == "mean" else _Principal()
    done = 0
    with inference(model), reporter(progress, "train") as report:
        for batch in in_batches([_longer(pair) for pair in tokens], size):
            positive, negative = (
                mean_states(model, layout, numbers, [tokens[pair][side] for pair in batch]) for side in (0, 1)
            )
            gather.add(_checked(positive - negative, numbers, [numbered[place] for place in batch]))
            done += len(batch)
            if report is not None:
                report("pairs", done, len(tokens))
    directions, measured = gather.directions()
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    if not norms.all():
        raise InputError(
            f"the positive and the negative texts read alike at layer {numbers[int(np.argmin(norms))]}: the "
            "direction is zero; leave the layer out, or read where the texts differ"
        )
    if normalize:
        directions /= norms
    found = projection(layout)
    # Not at the head: the class takes its method `train` from this module.
    from embgeom.steering.vector import SteeringVector

    return SteeringVector(
        {layer: direction.astype(np.float32) for layer, direction in zip(numbers, directions, strict=True)},
        name or model_name(model),
        {
            "made_by": "train",
            "method": method,
            "token_position": token_position,
            "normalize": bool(normalize),
            "add_special_tokens": bool(add_special_tokens),
            **{what: dict(zip(map(str, numbers), values, strict=True)) for what, values in measured.items()},
            "pairs": len(kept),
            "pairs_sha256": digest([texts[number] for number in kept]),
            "left_out": len(texts) - len(kept),
            **({"projection": {"name": found.name, "size": found.size}} if found else {}),
            **describe_model(model),
            "versions": model_versions(),
        },
        model_info(model),
    )


class _Sum:
    """The mean of differences, which are summed as they come."""

    def __init__(self) -> None:
        self._sum: npt.NDArray[np.float64] | None = None
        self._count = 0

    def add(self, differences: npt.NDArray[np.float64]) -> None:
        total = differences.sum(axis=0)
        self._sum = total if self._sum is None else self._sum + total
        self._count += len(differences)

    def directions(self) -> tuple[npt.NDArray[np.float64], dict[str, list[float]]]:
        if self._sum is None:
            raise InputError("there are no pairs; one (positive, negative) is needed at least")
        return self._sum / self._count, {}


class _Principal:
    """The direction along which the differences are longest, layer by layer."""

    def __init__(self) -> None:
        self._kept: list[npt.NDArray[np.float32]] = []

    def add(self, differences: npt.NDArray[np.float64]) -> None:
        self._kept.append(differences.astype(np.float32))

    def directions(self) -> tuple[npt.NDArray[np.float64], dict[str, list[float]]]:
        differences = np.concatenate(self._kept)
        found = [
            _principal(differences[:, layer].astype(np.float64)) for layer in range(differences.shape[1])
        ]
        return np.stack([direction for direction, _ in found]), {"explained": [share for _, share in found]}


def _principal(differences: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Return the first principal component of differences (n, d), uncentered, and its share of squares.

    Its length is the root mean square of the differences' projections on it; it points the way of their mean.
    """
    count, width = differences.shape
    wide = count < width
    gram = differences @ differences.T if wide else differences.T @ differences
    values, vectors = np.linalg.eigh(gram)
    total = float(np.trace(gram))
    if total == 0:
        return np.zeros(width), 0.0
    direction = differences.T @ vectors[:, -1] if wide else vectors[:, -1]
    direction /= np.linalg.norm(direction)
    # Of two opposite directions that fit alike, the one is taken along which positive texts lie higher.
    sign = 1.0 if direction @ differences.mean(axis=0) >= 0 else -1.0
    return direction * sign * np.sqrt(values[-1] / count), float(values[-1] / total)


def _alike(pair: tuple[Text, Text]) -> bool:
    """Whether a model sees the same in both texts where they are read: it sees no token that comes later."""
    (positive, places), (negative, others) = pair
    end = places[-1] + 1
    return places == others and positive[:end] == negative[:end]


def _longer(pair: tuple[Text, Text]) -> list[int]:
    return max((tokens for tokens, _ in pair), key=len)


def _checked(
    differences: npt.NDArray[np.float64], layers: list[int], pairs: list[int]
) -> npt.NDArray[np.float64]:
    """Return differences (pairs, layers, width), or say where the model gave no number."""
    if not np.isfinite(differences).all():
        row, layer = np.argwhere(~np.isfinite(differences).all(axis=2))[0]
        raise InputError(
            f"layer {layers[layer]} gives NaN or infinity for pair {pairs[row]}; load the model "
            "in bfloat16 or float32"
        )
    return differences
