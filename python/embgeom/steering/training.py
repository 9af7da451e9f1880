"""Directions from pairs of texts, by the residual stream, or from words, by the unembedding."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import whole_number
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import digest, model_versions, versions
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.lm.language_model import describe_model
from embgeom.lm.layers import Layout, find, projection
from embgeom.lm.passes import in_batches, inference, longest_text
from embgeom.lm.states import check_single_runs, read_states, state_spread
from embgeom.lm.tokenizing import added_tokens, encoded, token_names, warn_of_doubled, warn_of_lacking
from embgeom.loading import load
from embgeom.steering.pairs import Pair, check_pairs

Method = Literal["mean", "pca"]
TokenPosition = Literal["last", "mean", "answer"] | int
Float64Array = npt.NDArray[np.float64]
# A convention: the mean of fewer differences is mostly what is particular to them.
_FEW_PAIRS = 10


@dataclass(frozen=True)
class TrainOptions:
    """How texts are read, and what is made of their differences; see `SteeringVector.train`."""

    method: Method = "mean"
    token_position: TokenPosition = "last"
    batch_size: int = 8
    add_special_tokens: bool = True
    skip_long: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("mean", "pca"):
            raise InputError(f'method = {self.method!r} is unknown: use "mean" or "pca"')
        position = self.token_position
        from_end = isinstance(position, int | np.integer) and not isinstance(position, bool) and position < 0
        if position not in ("last", "mean", "answer") and not from_end:
            raise InputError(
                f'token_position = {position!r} must be "last", "mean", "answer" or a negative index such as '
                "-2"
            )
        whole_number(self.batch_size, "batch_size", 1)


class Text(NamedTuple):
    """The tokens of a text, and the indices of those at which it is read."""

    tokens: list[int]
    positions: list[int]


class Trained(NamedTuple):
    """What was learned from pairs: directions and the spread of states by layer, and how."""

    directions: dict[int, Float64Array]
    provenance: dict[str, Any]
    state_spread: dict[int, float]


class StateReader:
    """Reads the states of texts, without attention sinks, and counts these, layer by layer."""

    def __init__(self, model: Any, layout: Layout, layers: list[int], options: TrainOptions) -> None:
        self._model, self._layout, self._layers = model, layout, layers
        self._averaged = options.token_position in ("mean", "answer")
        self._left_out = np.zeros(len(layers))

    def means(self, texts: list[Text]) -> Float64Array:
        """Return the mean over each text's positions, float64 of shape (texts, layers, hidden_size)."""
        positions = [text.positions for text in texts]
        read = read_states(
            self._model, self._layout, [text.tokens for text in texts], positions, self._layers
        )
        ends = np.cumsum([len(chosen) for chosen in positions])
        found = []
        for text, kept, states in zip(
            texts, read.kept, np.split(read.states, ends[:-1], axis=1), strict=True
        ):
            # A position that was asked for by its place is read whatever it is.
            chosen = kept[:, text.positions] | (not self._averaged)
            self._left_out += (~chosen).sum(axis=1)
            if not (usable := chosen.any(axis=1)).all():
                raise InputError(
                    f"a text of {len(text.tokens)} tokens holds nothing but attention sinks after layer "
                    f"{self._layers[int(np.argmin(usable))]}, so it has no mean there; give longer texts"
                )
            found.append(np.mean(states, axis=1, where=chosen[..., None], dtype=np.float64))
        return np.stack(found)

    @property
    def sinks(self) -> dict[str, Any]:
        """How many positions of the texts were left out of the means, for the provenance."""
        counts = {str(layer): int(n) for layer, n in zip(self._layers, self._left_out, strict=True)}
        return {"sinks": counts} if self._averaged else {}


def train(
    model: Any,
    tokenizer: Any,
    pairs: Iterable[Sequence[str]],
    layers: int | Iterable[int] | None,
    options: TrainOptions,
    layer_modules: Any = None,
    progress: Progress = False,
) -> Trained:
    texts, layout = check_pairs(pairs), find(model, layer_modules)
    numbers = layout.numbers(layers)
    kept = _tokenized(tokenizer, texts, options, longest_text(model))
    _warn_of_special_tokens(tokenizer, [text for pair in kept.values() for text in pair], options)
    _warn_of_poor_pairs(tokenizer, kept, options)
    if all(map(_alike, kept.values())):
        raise InputError(
            f"with token_position={options.token_position!r} no pair is read at or after the token where its "
            "texts differ, so nothing tells them apart; read later"
        )
    reader = StateReader(model, layout, numbers, options)
    with inference(model), reporter(progress, "train") as report:
        check_single_runs(model, layout, next(iter(kept.values()))[0].tokens)
        # On the same texts whatever the model is trained on, so that models can be compared; and first, so
        # that a model which overflows on them fails before it has read the pairs.
        how: Any = {"batch_size": options.batch_size, "layer_modules": layer_modules}
        spread = state_spread(model, tokenizer, None, numbers, **how)
        directions, measured = _directions(reader, kept, numbers, options, report)
    # States that cancel leave the rounding of float32 behind.
    if zeros := [n for n, v in directions.items() if np.linalg.norm(v) <= 1e-6 * spread.get(n, 0.0)]:
        raise InputError(
            f"the positive and the negative texts read alike at layer {zeros[0]}: the direction is zero; "
            "leave the layer out, or read where the texts differ"
        )
    found = projection(layout)
    provenance = {
        "made_by": "train",
        **{key: value for key, value in asdict(options).items() if key not in ("batch_size", "skip_long")},
        **measured,
        **reader.sinks,
        "pairs": len(kept),
        "pairs_sha256": digest([texts[number] for number in kept]),
        "left_out": len(texts) - len(kept),
        **({"projection": {"name": found.name, "size": found.size}} if found else {}),
        **describe_model(model),
        "versions": model_versions(),
    }
    return Trained(directions, provenance, spread)


def _directions(
    reader: StateReader,
    pairs: Mapping[int, tuple[Text, Text]],
    layers: list[int],
    options: TrainOptions,
    report: Any,
) -> tuple[dict[int, Float64Array], dict[str, Any]]:
    numbers, texts, done = list(pairs), list(pairs.values()), 0
    total, kept = np.float64(0), []
    for batch in in_batches(
        [max((text.tokens for text in pair), key=len) for pair in texts], options.batch_size
    ):
        positive, negative = (reader.means([texts[index][side] for index in batch]) for side in (0, 1))
        differences = positive - negative
        if not np.isfinite(differences).all():
            row, place = np.argwhere(~np.isfinite(differences).all(axis=2))[0]
            raise InputError(
                f"layer {layers[place]} gives NaN or infinity for pair {numbers[batch[row]]}; load the model "
                "in bfloat16 or float32"
            )
        if options.method == "mean":
            total = total + differences.sum(axis=0)
        else:
            kept.append(differences.astype(np.float32))
        done += len(batch)
        if report is not None:
            report("pairs", done, len(texts))
    if options.method == "mean":
        return dict(zip(layers, total / len(texts), strict=True)), {}
    found = [_principal(rows.astype(np.float64)) for rows in np.concatenate(kept).swapaxes(0, 1)]
    shares = {str(layer): share for layer, (_, share) in zip(layers, found, strict=True)}
    return {layer: row for layer, (row, _) in zip(layers, found, strict=True)}, {"explained": shares}


def _principal(differences: Float64Array) -> tuple[Float64Array, float]:
    """Return the first principal component of differences (n, d), uncentered, and its share of squares."""
    count, size = differences.shape
    wide = count < size
    gram = differences @ differences.T if wide else differences.T @ differences
    values, vectors = np.linalg.eigh(gram)
    total = float(np.trace(gram))
    if total == 0:
        return np.zeros(size), 0.0
    direction = differences.T @ vectors[:, -1] if wide else vectors[:, -1]
    direction /= np.linalg.norm(direction)
    # Of two opposite directions that fit alike, the one is taken along which positive texts lie higher. Its
    # length is the root mean square of the differences' projections on it.
    sign = 1.0 if direction @ differences.mean(axis=0) >= 0 else -1.0
    return direction * sign * np.sqrt(values[-1] / count), float(values[-1] / total)


def _tokenized(
    tokenizer: Any, pairs: Sequence[Pair], options: TrainOptions, limit: int | None
) -> dict[int, tuple[Text, Text]]:
    back, found = len(added_tokens(tokenizer).back), {}
    for number, pair in enumerate(pairs):
        both = [_tokens(tokenizer, text, options.add_special_tokens) for text in pair]
        lengths = [len(tokens) for tokens, _ in both]
        if options.skip_long and limit is not None and max(lengths) > limit:
            continue
        apart = next(
            (i for i, (a, b) in enumerate(zip(both[0][0], both[1][0], strict=False)) if a != b), min(lengths)
        )
        texts = []
        for side, text, (tokens, special) in zip(("positive", "negative"), pair, both, strict=True):
            positions = _positions(options.token_position, special, apart, back)
            where = f"the {side} text of pair {number}, {text!r:.60}, has {len(tokens)} tokens"
            if limit is not None and len(tokens) > limit:
                raise InputError(
                    f"{where}; the model reads {limit} at most: shorten it, or leave such pairs out by "
                    "skip_long=True (--skip-long)"
                )
            if not positions or (positions == [0] and options.token_position in ("mean", "answer")):
                first = " beyond the first, an attention sink," if positions else ""
                raise InputError(f"{where} and none{first} at token_position={options.token_position!r}")
            texts.append(Text(tokens, positions))
        found[number] = (texts[0], texts[1])
    if not found:
        raise InputError(f"all {len(pairs)} pairs are longer than the {limit} tokens that the model reads")
    return found


def _tokens(tokenizer: Any, text: str, add_special_tokens: bool) -> tuple[list[int], list[int]]:
    found = encoded(tokenizer, text, add_special_tokens=add_special_tokens, return_special_tokens_mask=True)
    tokens = [int(token) for token in found["input_ids"]]
    special = found.get("special_tokens_mask") if add_special_tokens else None
    return tokens, list(special or [0] * len(tokens))


def _positions(position: TokenPosition, special: list[int], apart: int, back: int) -> list[int]:
    """Return the indices of the tokens at which a text is read; none where it is too short."""
    length = len(special)
    if position in ("mean", "answer"):
        first = apart if position == "answer" else 0
        return [index for index in range(first, length) if not special[index]]
    # What the tokenizer puts at the end of a text is not part of it.
    end = length - back if back and all(special[length - back :]) else length
    index = end + (-1 if position == "last" else int(position))
    return [index] if index >= 0 else []


def _alike(pair: tuple[Text, Text]) -> bool:
    """Whether a model sees the same in both texts where they are read: it sees no token that comes later."""
    (positive, positions), (negative, others) = pair
    end = positions[-1] + 1
    return positions == others and positive[:end] == negative[:end]


def _warn_of_special_tokens(tokenizer: Any, texts: list[Text], options: TrainOptions) -> None:
    """Warn of texts that begin or end for the model otherwise than those that it was trained on."""
    level, sequences = 4, [text.tokens for text in texts]
    if options.add_special_tokens:
        warn_of_doubled(
            tokenizer, sequences, "pass add_special_tokens=False (--no-special-tokens)", stacklevel=level
        )
        if back := added_tokens(tokenizer).back:
            warnings.warn(
                f"the tokenizer puts {token_names(tokenizer, back)} at the end of each text; it is not read: "
                "positions count from the text's own last token",
                EmbgeomWarning,
                stacklevel=level,
            )
    else:
        warn_of_lacking(tokenizer, sequences, stacklevel=level)
    end = getattr(tokenizer, "eos_token_id", None)
    ended = sum(text.tokens[text.positions[-1]] == end for text in texts)
    if options.token_position == "last" and end is not None and ended:
        warnings.warn(
            f"{ended} of {len(texts)} texts are read at {token_names(tokenizer, [end])}, which ends a text: "
            "take it away from them, or read before it (token_position=-2, --token-position -2)",
            EmbgeomWarning,
            stacklevel=level,
        )


def _warn_of_poor_pairs(
    tokenizer: Any, pairs: Mapping[int, tuple[Text, Text]], options: TrainOptions
) -> None:
    """Warn of pairs too few to tell their common difference from others, and of those that end alike."""
    ends = {text.tokens[text.positions[-1]] for pair in pairs.values() for text in pair}
    end = getattr(tokenizer, "eos_token_id", None)
    if len(pairs) < _FEW_PAIRS:
        warnings.warn(
            f"a vector from {len(pairs)} pair{'s' if len(pairs) > 1 else ''} holds whatever else their texts "
            f"differ in: give {_FEW_PAIRS} at least, some dozens of different ones",
            EmbgeomWarning,
            stacklevel=4,
        )
    # Of a token that ends a text another warning speaks.
    if options.token_position == "last" and len(ends) == 1 and end not in ends:
        warnings.warn(
            f"all texts are read at the same last token, {token_names(tokenizer, [*ends])}: what they differ "
            "in may show better one token earlier (token_position=-2, --token-position -2); compare both",
            EmbgeomWarning,
            stacklevel=4,
        )


def unembedding_of(given: Embeddings | str | PathLike[str]) -> Embeddings:
    """Return the matrix by which a model writes words, loaded if it is given by name."""
    if isinstance(given, str | PathLike):
        return load(given, "output")
    if not isinstance(given, Embeddings):
        raise InputError(
            f"an object of type {type(given).__name__} has no tokens to look words up in; give "
            "embgeom.load(model, 'output'), or the model's name"
        )
    if given.which != "output" and not given.provenance.tied:
        raise InputError(
            f"{given!r} is an input embedding, but words are written by the unembedding: load it by "
            "embgeom.load(model, 'output')"
        )
    return given


def from_words(
    model: Embeddings, positive: Sequence[str], negative: Sequence[str]
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    words = {"positive": positive, "negative": negative}
    for side, listed in words.items():
        if isinstance(listed, str):
            raise InputError(f"{side} = {listed!r} is one string; give a list of words")
    if not positive:
        raise InputError("positive holds no word; give one at least")
    rows = _word_rows(model, words)
    ordinary = np.flatnonzero(model.has_token & ~model.special & ~model.zero).tolist()
    direction = _mean_row(model, rows["positive"]) - _mean_row(model, rows["negative"] or ordinary)
    if not direction.any():
        raise InputError("the positive and the negative words have the same mean, so there is no direction")
    return direction.astype(np.float32), {
        "made_by": "from_words",
        **{side: list(listed) for side, listed in words.items()},
        "rows": rows,
        "model": model.name,
        "unembedding": list(model.matrix.shape),
        "source": model.provenance.source,
        "commit": model.provenance.revision,
        "tensor": model.provenance.tensor,
        "versions": versions(),
    }


def _word_rows(model: Embeddings, words: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Return the rows of the words, or name all of those that are not a single token."""
    rows: dict[str, list[int]] = {side: [] for side in words}
    missing = []
    for side, listed in words.items():
        for word in listed:
            try:
                rows[side].append(model.row_of(word))
            except InputError as error:
                missing.append((word, error))
    if missing:
        named = ", ".join(repr(word) for word, _ in missing)
        raise InputError(
            f"no single token of {model.name} spells {named}; leave out words of several tokens, or write "
            f"them as the model does, with a leading space ({missing[0][1]})"
        ) from missing[0][1]
    return rows


def _mean_row(model: Embeddings, rows: list[int]) -> npt.NDArray[np.float64]:
    # In batches, so that a whole vocabulary is never copied in float64.
    total = np.zeros(model.matrix.shape[1])
    for start in range(0, len(rows), 4096):
        total += model.matrix[rows[start : start + 4096]].sum(axis=0, dtype=np.float64)
    return total / len(rows)
