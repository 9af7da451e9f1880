"""Which tensor of a checkpoint is the input embedding, and which the output matrix.

The names that the model's family uses come first, then names that are usual, then the shape. When these do
not give one tensor, the error lists the candidates, and `tensor=` picks one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

from embgeom.embeddings.embeddings import Which
from embgeom.errors import LoadError
from embgeom.loading.architectures import (
    ELSEWHERE,
    FAMILIES,
    LIKE_OUTPUTS,
    TEXT_MODEL,
    USUAL,
    WHOLE_NAMES,
    Architecture,
)
from embgeom.loading.checkpoint.checkpoint import Checkpoint, listed
from embgeom.loading.config import ModelConfig
from embgeom.loading.folder import READ_AS

# What the one matrix of a module is called: by PyTorch; by Flax; by TransformerLens.
_ENDS = {"input": (".weight", ".embedding"), "output": (".weight", ".kernel")}
_LENS = {"input": "embed.W_E", "output": "unembed.W_U"}
_MAY_EMBED = re.compile(r"emb|wte|tok|vocab|head|shared|output|word|logit|proj_out|decoder", re.IGNORECASE)
# fmt: off
# What follows a module's name where its matrix is not stored as plain numbers; how it is stored; and what
# to do. Quantizers: GPTQ, AWQ, bitsandbytes, FP8, MXFP4, compressed-tensors, HQQ, AQLM, QuIP#, EXL2, EXL3,
# SpQR, MLX, optimum-quanto.
_NOT_PLAIN = (
    (re.compile(r"^((lora|hada|lokr|ia3|oft|boft|vera|adapter|trainable_tokens)_"
                r"|(base_layer|modules_to_save|original_module)\.)"),
     "beside an adapter's tensors", "merge the adapter (merge_and_unload)"),
    (re.compile(r"^_?(qweight|qzeros|scales?|zeros|g_idx|SCB|CB|weight_format|biases|absmax|blocks|codes?"
                r"|codebooks|Qidxs\w*|S[UV]|su?[uv]h|trellis|q_\w+|W_q|meta|_packed_params\S*|\w*quantizer\S*"
                r"|\w*bitsandbytes\S*|(input|output|act\w*)_scale\w*|weight[.:]\S+"
                r"|(weight|embedding|kernel)_\w*(scale|packed|zero|shape|block|quant|qdata|g_idx)\w*)$"),
     "quantized", "take the original checkpoint"),
    (re.compile(r"^(weight_([guv]|orig|mask)|parametrizations\.weight\S*)$"),
     "in parts", "take a checkpoint in which they are multiplied out"),
)
# fmt: on
# Tensors that hold the codes of a quantized matrix, whose shape is not the matrix's.
CODES = re.compile(r"\.(qweight|weight_packed|W_q|weight_blocks|codes|trellis|Qidxs\w*)$")
# What may change a weight in a way that is not known; the first two are of what comes before and after it.
_ODD = re.compile(r"^(?!(embed|logit)_scale$)(s\d|smooth\w*|\w*scale\w*|mask|indices|centroids)$")
_PICK = "pick one with tensor=NAME (--tensor NAME)"
_UNSAID = "config.json does not say whether the model is tied, and there is only {}"


@dataclass(frozen=True)
class Choice:
    """The tensor to read, whether the model uses it on both sides, and whether it is (hidden size, rows)."""

    name: str
    tied: bool
    notes: tuple[str, ...] = ()
    transposed: bool = False


def side_of(checkpoint: Checkpoint, config: ModelConfig, name: str, vocabulary: int) -> Which:
    """Return "output" for a tensor that is the output matrix of a model that has two, else "input"."""
    try:
        chosen = Chooser(checkpoint, config, "output", vocabulary).choose(None)
        return "output" if chosen.name == name and not chosen.tied else "input"
    except LoadError:
        # The names leave open which tensors the sides are.
        return "input"


class Chooser:
    """One choice: the checkpoint, what is known of the model, of how many tokens, and the side asked for."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, which: str, vocabulary: int) -> None:
        self.checkpoint, self.config, self.which = checkpoint, config, which
        self.family = config.architecture or Architecture("", input=(), output=())
        self.other_side = "output" if which == "input" else "input"
        self.names = tuple(dict.fromkeys((*checkpoint.names, *checkpoint.aliases)))
        self.vocabulary = vocabulary
        self.counts = {config.vocab_size, vocabulary}

    def choose(self, tensor: str | None) -> Choice:
        if tensor is not None:
            return self._asked_for(tensor)
        chosen = self._by_name(self.which)
        if self.which == "output" and chosen is None and self.config.headless:
            raise self._error(
                f"is of a {self.config.headless}, which has no output matrix; load its input, or the "
                f"checkpoint of a model with a head, or {_PICK}"
            )
        try:
            other = self._by_name(self.other_side)
        except LoadError:
            # The names leave open what the other side is, or it is not stored as plain numbers.
            if chosen is None:
                raise
            return self._choice(chosen, False)
        if chosen and other:
            return self._of_two(chosen, other)
        return self._of_one(chosen, str(chosen or other)) if chosen or other else self._by_shape()

    def _asked_for(self, tensor: str) -> Choice:
        name, held = self._held(tensor), self.checkpoint.names
        if name not in held:
            like = listed(list(filter(may_embed, held)) or list(held), 12)
            raise self._error(f"holds no tensor {tensor}; it holds {like}")
        check_plain(self.checkpoint, [module_of(name)], self.which, asked_for=True)
        try:
            sides = {n for side in USUAL if (n := self._by_name(side))}
        except LoadError:
            # The names leave open which tensors the sides are: that is why the user named one.
            sides = set()
        tied = bool(self.config.tied) and name in sides and (len(sides) == 1 or self._equal(*sides))
        return self._choice(name, tied)

    def _of_two(self, chosen: str, other: str) -> Choice:
        """Both matrices are there: the model uses each as it is stored, and ties only equal ones."""
        if chosen == other or not self.config.tied:
            return self._choice(chosen, chosen == other)
        if self.family.ignores_head:
            embedding, head = (chosen, other) if self.which == "input" else (other, chosen)
            return self._choice(
                embedding, True, f"{head} is stored, too, but the tied model has no use for it"
            )
        tied = self._equal(chosen, other)
        # An encoder's embedding beside a decoder's is tied to nothing, and some configs cannot say otherwise.
        if tied or self.family.tied_to or self.family.ties == "always":
            return self._choice(chosen, tied)
        return self._choice(
            chosen,
            False,
            f"config.json ties input and output matrix, but {chosen} and {other} are stored and differ, and "
            "transformers does not tie such",
        )

    def _of_one(self, chosen: str | None, held: str) -> Choice:
        """One matrix is there, under `held`: it serves both sides if nothing else can be the other's."""
        side = self.other_side if chosen is None else self.which
        stray = self._stray(held, side) if self.config.tied is not False or chosen is None else None
        if chosen is not None:
            return self._choice(chosen, self.config.tied is not False and stray is None)
        if stray is not None:
            shapes = [list(self.checkpoint.shape(name)) for name in (held, stray)]
            raise self._error(
                f"holds {held} {shapes[0]} and, under a name that is not known, {stray} {shapes[1]}, which "
                f"may be the {self.which} matrix; {_PICK}"
            )
        if self.config.tied is False:
            raise self._error(
                f"holds no {self.which} matrix, only {held}, and config.json does not tie them; take the "
                f"checkpoint with its head, or {_PICK}"
            )
        return self._choice(held, True, None if self.config.tied else _UNSAID.format(held))

    def _by_name(self, side: str) -> str | None:
        modules = self.family.input if side == "input" else self.family.output
        if self.config.decoder_only:
            modules = tuple(sorted(modules, key=lambda module: "decoder" not in module))
        tied_to = self.family.tied_to if side == "output" and self.config.tied else ()
        hits = next(filter(None, (matches(self.names, module) for module in (*modules, *tied_to))), [])
        if not hits:
            check_plain(self.checkpoint, (*modules, *USUAL[side]), side)
            hits = usual(self.names, side, known=self.config.architecture is not None)
        held = list(dict.fromkeys(map(self._held, hits)))
        if len(held) > 1:
            held = pick_one(held, "encoder" if modules and "encoder" in modules[0] else "decoder")
        if len(held) > 1:
            held = [n for n in held if self.counts & set(self.checkpoint.shape(n)[:1])] or held
        if len(held) > 1:
            raise self._ambiguous(side, held)
        if held:
            check_plain(self.checkpoint, [module_of(held[0])], side)
        return held[0] if held else None

    def _held(self, name: str) -> str:
        """Return the tensor that the file holds for a name which may be an alias."""
        return self.checkpoint.aliases.get(name, name)

    def _choice(self, name: str, tied: bool, note: str | None = None) -> Choice:
        """Return the choice of a tensor, with what else is to be said about it."""
        transposed = self._is_transposed(name)
        notes = (note, f"{name} is stored transposed" if transposed else None)
        return Choice(name, tied, tuple(filter(None, notes)), transposed)

    def _is_transposed(self, name: str) -> bool:
        shape, columns = self.checkpoint.shape(name), self.config.columns
        if name.endswith(("W_U", ".kernel")):
            return True
        if len(shape) != 2 or shape[1] not in self.counts or shape[0] in self.counts:
            return False
        if columns is None:
            return not is_on_side(name, "input")
        # It may have as many columns as there are tokens, and more rows than these.
        return shape[1] != columns or shape[0] == columns

    def _equal(self, one: str, two: str) -> bool:
        """Return whether two tensors hold the same numbers, as transformers asks before it ties them."""
        turned = [(name, self._is_transposed(name)) for name in (one, two)]
        shapes = [self.checkpoint.shape(name)[:: -1 if turn else 1] for name, turn in turned]
        stored = [self.checkpoint.file(name).dtype(name) for name, _ in turned]
        if shapes[0] != shapes[1] or any(dtype not in READ_AS for dtype in stored):
            return False
        read = ((self.checkpoint.file(name).read(name), turn) for name, turn in turned)
        first, second = (matrix.T if turn else matrix for matrix, turn in read)
        return bool(np.array_equal(first, second))

    def _stray(self, held: str, side: str) -> str | None:
        """Return a matrix of the shape of `held`, which is of a `side`, that may be the other side's."""
        rows, columns = self.checkpoint.shape(held)[:1], self.checkpoint.shape(held)[1:]
        counts = {*rows, *self.counts}
        for name in self.checkpoint.names:
            # Encoders and decoders have copies of one matrix, which the names of that side tell.
            if name == held or is_elsewhere(name) or is_on_side(name, side):
                continue
            if self.config.tied is None and CODES.search(name):
                return name
            shape = self.checkpoint.shape(name)
            if len(shape) == 2 and (
                (shape[0] in counts and shape[1:] == columns)
                or (shape[1] in counts and shape[:1] == columns != rows)
            ):
                return name
        return None

    def _by_shape(self) -> Choice:
        """Return the only 2-D tensor with about as many rows as the vocabulary."""
        # An index gives no shapes, and opening every shard would fetch the whole model.
        seen = [n for n in self.checkpoint.names if may_embed(n) or not self.checkpoint.sharded]
        rows = {n: shape[0] for n in seen if len(shape := self.checkpoint.shape(n)) == 2}
        found = [n for n, count in rows.items() if count in self.counts]
        if len(found) != 1:
            least, most = 0.99 * self.vocabulary, max(1.1 * self.vocabulary, self.vocabulary + 1024)
            found = [n for n, v in rows.items() if v == self.config.vocab_size or least <= v <= most]
        if len(found) > 1:
            raise self._ambiguous(self.which, found)
        if not found:
            raise self._error(
                "holds no tensor with a known name, nor one with about "
                f"{self.config.vocab_size or self.vocabulary} rows, but {self._shapes(rows)}; {_PICK}"
            )
        (name,) = found
        check_plain(self.checkpoint, [module_of(name)], self.which)
        if self.which == "output" and self.config.tied is False:
            raise self._error(
                f"holds {name}, whose name does not tell whether it is the output matrix, and config.json "
                f"does not tie it to the input embedding; {_PICK}"
            )
        unsaid = self.which == "output" and self.config.tied is None
        return self._choice(name, self.config.tied is not False, _UNSAID.format(name) if unsaid else None)

    def _ambiguous(self, side: str, found: list[str]) -> LoadError:
        return self._error(
            f"holds {len(found)} tensors that may be the {side} matrix: {self._shapes(found)}; {_PICK}"
        )

    def _shapes(self, found: Iterable[str]) -> str:
        shown = [f"{name} {list(self.checkpoint.shape(name))}" for name in found]
        return listed(shown, 12) or "no matrices"

    def _error(self, why: str) -> LoadError:
        return LoadError(f"{self.checkpoint.where} {why}")


def matches(
    names: Iterable[str], module: str, ends: tuple[str, ...] = (".weight", ".kernel", ".embedding")
) -> list[str]:
    """Return the tensors of the module of that name, wherever it stands but in another part of the model.

    A ``*`` in the name stands for a number, and the highest one is meant; `ends` follow the name.
    """
    pattern = _pattern(module)
    # Large models have 100,000 names: the expression is only tried on those that end alike.
    alike = tuple(module.rpartition("*")[2] + end for end in ends)
    found = [(n, m) for n in names if n.endswith(alike) and (m := pattern.match(module_of(n)))]
    found = [(n, m) for n, m in found if not ELSEWHERE.search(m["before"])]
    if "*" in module and found:
        last = max(int(m["number"]) for _, m in found)
        return [n for n, m in found if int(m["number"]) == last]
    return [n for n, _ in found]


@cache
def _pattern(module: str) -> re.Pattern[str]:
    path = re.escape(module).replace(r"\*", r"(?P<number>[0-9]{1,9})")
    return re.compile(rf"(?P<before>(?:.*\.)?){path}$")


def usual(names: Iterable[str], side: str, *, known: bool) -> list[str]:
    """Return the tensors with a name that is usual for a side, "input" or "output".

    Of a model whose type is not `known`, all usual names count, since nothing tells which the model uses; but
    "shared" is what encoder-decoder models call that of which they also store copies.
    """
    names = list(names)
    found: list[str] = []
    for end in USUAL[side]:
        found += matches(names, end, _ENDS[side])
        if found and (known or end == "shared"):
            return found
    found = found or [n for n in names if module_of(n) in WHOLE_NAMES[side] and n.endswith(_ENDS[side])]
    if side == "output" and not found:
        like = [n for n in names if LIKE_OUTPUTS.search(module_of(n).rpartition(".")[2])]
        found = [n for n in like if n.endswith(_ENDS[side]) and not is_elsewhere(n)]
    return found or [n for n in names if n == _LENS[side] or n.endswith("." + _LENS[side])]


def pick_one(names: list[str], part: str) -> list[str]:
    """Return those of several tensors that belong to the text model, and there to a `part` of it."""
    names = [n for n in names if TEXT_MODEL.search(n)] or names
    return [n for n in names if part in n] or names


def module_of(name: str) -> str:
    return name.rpartition(".")[0]


def is_elsewhere(name: str) -> bool:
    """Return whether a tensor belongs to a layer or to another part than the language model's ends."""
    return ELSEWHERE.search(name) is not None


def is_on_side(name: str, side: str) -> bool:
    """Return whether a tensor has the name of some family's input embedding, or output matrix, alone."""
    sides = {s for s in USUAL if any(pattern.match(module_of(name)) for pattern in _every_name(s))}
    return sides == {side}


@cache
def _every_name(side: str) -> tuple[re.Pattern[str], ...]:
    named = (m for f in FAMILIES.values() for m in ((*f.input, *f.tied_to) if side == "input" else f.output))
    return tuple(_pattern(m) for m in dict.fromkeys((*USUAL[side], *named)))


def may_embed(name: str) -> bool:
    return _MAY_EMBED.search(name) is not None and not is_elsewhere(name)


def check_plain(
    checkpoint: Checkpoint, modules: Iterable[str], side: str, *, asked_for: bool = False
) -> None:
    """Refuse a side whose matrix, under one of the names of `modules`, is not stored as plain numbers.

    Of a tensor that the user `asked_for`, what is not known beside it is no reason to refuse it.
    """
    matrix = "the input embedding" if side == "input" else "the output matrix"
    for module in filter(None, modules):
        path = re.compile(rf"(?P<before>(?:.*\.)?){re.escape(module)}(\.|_(?=blocks$|scales$))(?P<rest>.+)$")
        named = ((n, path.match(n)) for n in checkpoint.names if module in n)
        found = {n: m["rest"] for n, m in named if m and not ELSEWHERE.search(m["before"])}
        for pattern, how, instead in _NOT_PLAIN:
            if parts := [n for n, rest in found.items() if pattern.match(rest)]:
                raise LoadError(
                    f"{checkpoint.where}: {matrix} is stored {how}, as {', '.join(parts[:3])}, "
                    f"which embgeom does not read; {instead}"
                )
        odd = [
            n for n, rest in found.items() if _ODD.match(rest) and f"{n.removesuffix(rest)}weight" in found
        ]
        if odd and not asked_for:
            raise LoadError(
                f"{checkpoint.where}: beside {matrix} stands {odd[0]}, whose meaning embgeom does not know; "
                "take the matrix as it is stored with tensor=NAME (--tensor NAME)"
            )
