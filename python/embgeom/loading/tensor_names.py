"""Which tensor of a checkpoint is the input embedding, and which the output matrix.

The known names come first; where none is there, the shape decides. When neither gives one tensor, the
error lists the candidates, and `tensor=` picks one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from embgeom.errors import LoadError
from embgeom.loading.checkpoint import Checkpoint
from embgeom.loading.config import ModelConfig

# The end of the tensor's name, best first: encoder-decoder models hold "shared" and copies of it.
_INPUT = (
    "shared.weight",
    "wte.weight",
    "embed_tokens.weight",
    "embed_in.weight",
    "word_embeddings.weight",
    "tok_embeddings.weight",
    "word_embedding.weight",
    "token_embedding.weight",
    "backbone.embeddings.weight",
    "backbone.embedding.weight",
    "rwkv.embeddings.weight",
)
_OUTPUT = ("lm_head.weight", "embed_out.weight", "predictions.decoder.weight", "lm_head.decoder.weight",
           "vocab_projector.weight", "output_layer.weight")  # fmt: skip
# These are common ends of other tensors' names, and count only as the whole name.
_OUTPUT_WHOLE = (
    "output.weight",
    "decoder.weight",
    "model.output.weight",
    "head.weight",
    "language_model.output.weight",
)
_ELSEWHERE = re.compile(r"(^|\.)(layers?|h|blocks?)\.\d+\.|vision|visual|audio|image|position|per_layer")
_TEXT_MODEL = re.compile(r"language_model|text_model|llm")
_MAY_EMBED = re.compile(r"emb|wte|tok|vocab|head|shared|output|word", re.IGNORECASE)


@dataclass(frozen=True)
class Choice:
    """The tensor to read.

    Attributes
    ----------
    name : str
        Its name in the checkpoint.
    tied : bool
        Whether the model uses it on the other side, too.
    notes : tuple of str
        What was odd, each a sentence.
    """

    name: str
    tied: bool
    notes: tuple[str, ...] = ()


def choose_tensor(
    checkpoint: Checkpoint, config: ModelConfig, which: str, tensor: str | None, vocabulary: int
) -> Choice:
    """Choose the tensor for `which` ("input" or "output").

    Parameters
    ----------
    checkpoint : Checkpoint
        The tensors of the model.
    config : ModelConfig
        What its config.json says.
    which : {"input", "output"}
        Embedding or unembedding.
    tensor : str or None
        The user's own choice of a name.
    vocabulary : int
        How many tokens the tokenizer has.

    Returns
    -------
    Choice
        The tensor, which the checkpoint holds under that name.

    Raises
    ------
    LoadError
        If there is no such tensor, more than one, or the model has no matrix of this kind.
    """
    if tensor is not None:
        return _asked_for(checkpoint, config, tensor)
    names = dict.fromkeys((*checkpoint.names, *checkpoint.aliases))
    own = _by_name(checkpoint, names, which)
    other = _by_name(checkpoint, names, "output" if which == "input" else "input")
    held, other_held = _held(checkpoint, own), _held(checkpoint, other)
    if held is None and other_held is None:
        found = _by_shape(checkpoint, config, which, vocabulary)
        held, other_held = (found, None) if which == "input" else (None, found)
    if which == "output" and config.tied and other_held:
        # The model computes its logits with the input embedding, whatever else the file may hold.
        return Choice(other_held, True)
    if held is not None:
        only = other_held is None and config.tied is None
        return Choice(held, only or bool(config.tied) or held == other_held)
    if config.tied is False:
        raise LoadError(
            f"{checkpoint.where} holds no {which} matrix, only {other_held}, and config.json does not tie "
            "them; take the checkpoint with its head, or pick a tensor with tensor=NAME (--tensor NAME)"
        )
    unsaid = f"config.json does not say whether the model is tied, and there is only {other_held}"
    return Choice(str(other_held), True, () if config.tied else (unsaid,))


def _asked_for(checkpoint: Checkpoint, config: ModelConfig, tensor: str) -> Choice:
    name = checkpoint.aliases.get(tensor, tensor)
    if name not in checkpoint.names:
        like = _may_embed(checkpoint.names) or list(checkpoint.names)
        raise LoadError(f"{checkpoint.where} holds no tensor {tensor}; it holds {_listed(like)}")
    either = {_held(checkpoint, _by_name(checkpoint, checkpoint.names, side)) for side in ("input", "output")}
    return Choice(name, bool(config.tied) and name in either)


def _held(checkpoint: Checkpoint, name: str | None) -> str | None:
    """Return the tensor that the file holds for a name which may be an alias."""
    return None if name is None else checkpoint.aliases.get(name, name)


def _by_name(checkpoint: Checkpoint, names: Iterable[str], which: str) -> str | None:
    """Return the tensor with a known name, or None; of several with the same ending, the text decoder's."""
    names = [n for n in names if not _ELSEWHERE.search(n)]
    for ending in _INPUT if which == "input" else _OUTPUT:
        hits = [n for n in names if n == ending or n.endswith("." + ending)]
        if len(hits) > 1:
            hits = [n for n in hits if _TEXT_MODEL.search(n)] or [n for n in hits if "decoder" in n] or hits
        held = {checkpoint.aliases.get(n, n): None for n in hits}
        if len(held) > 1:
            raise _ambiguous(checkpoint, which, {n: checkpoint.shape(n) for n in held})
        if hits:
            return hits[0]
    return next((n for n in _OUTPUT_WHOLE if which == "output" and n in names), None)


def _by_shape(checkpoint: Checkpoint, config: ModelConfig, which: str, vocabulary: int) -> str:
    """Return the only 2-D tensor with about as many rows as the vocabulary."""

    def fits(rows: int) -> bool:
        return rows == config.vocab_size or 0.99 * vocabulary <= rows <= max(
            1.1 * vocabulary, vocabulary + 1024
        )

    names: list[str] = list(checkpoint.names)
    if checkpoint.sharded:
        # The index gives no shapes, and opening every shard would fetch the whole model.
        names = _may_embed(names)
    exact = _candidates(checkpoint, names, lambda rows: rows in (config.vocab_size, vocabulary))
    found = exact if len(exact) == 1 else _candidates(checkpoint, names, fits)
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise _ambiguous(checkpoint, which, found)
    rows = config.vocab_size or vocabulary
    matrices = _candidates(checkpoint, names, lambda _: True)
    raise LoadError(
        f"{checkpoint.where} holds no tensor with a known name, nor one with about {rows} rows, but "
        f"{_listed(matrices)}; pick one with tensor=NAME (--tensor NAME)"
    )


def _may_embed(names: Iterable[str]) -> list[str]:
    return [n for n in names if _MAY_EMBED.search(n) and not _ELSEWHERE.search(n)]


def _candidates(
    checkpoint: Checkpoint, names: Iterable[str], wanted: Callable[[int], bool]
) -> dict[str, tuple[int, ...]]:
    shapes = {n: checkpoint.shape(n) for n in names}
    return {n: s for n, s in shapes.items() if len(s) == 2 and wanted(s[0])}


def _ambiguous(checkpoint: Checkpoint, which: str, found: dict[str, tuple[int, ...]]) -> LoadError:
    return LoadError(
        f"{checkpoint.where} holds {len(found)} tensors that may be the {which} matrix: {_listed(found)}; "
        "pick one with tensor=NAME (--tensor NAME)"
    )


def _listed(found: list[str] | dict[str, tuple[int, ...]], most: int = 12) -> str:
    shapes = found if isinstance(found, dict) else {}
    shown = [f"{name} {list(shapes[name])}" if name in shapes else name for name in list(found)[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(shown) or "no matrices") + more
