"""Which tensor of a checkpoint is the input embedding, and which the output matrix.

The names that the model's family uses come first, then names that are usual, then the shape. When these do
not give one tensor, the error lists the candidates, and `tensor=` picks one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from embgeom.embeddings.embeddings import Which
from embgeom.errors import LoadError
from embgeom.loading.architectures import USUAL, Architecture
from embgeom.loading.checkpoint import names
from embgeom.loading.checkpoint.checkpoint import Checkpoint, listed
from embgeom.loading.config import ModelConfig
from embgeom.loading.convert import READ_AS

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
            like = listed(list(filter(names.may_embed, held)) or list(held), 12)
            raise self._error(f"holds no tensor {tensor}; it holds {like}")
        names.check_plain(self.checkpoint, [names.module_of(name)], self.which, asked_for=True)
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
        hits = next(filter(None, (names.matches(self.names, module) for module in (*modules, *tied_to))), [])
        if not hits:
            names.check_plain(self.checkpoint, (*modules, *USUAL[side]), side)
            hits = names.usual(self.names, side, known=self.config.architecture is not None)
        held = list(dict.fromkeys(map(self._held, hits)))
        if len(held) > 1:
            held = names.pick_one(held, "encoder" if modules and "encoder" in modules[0] else "decoder")
        if len(held) > 1:
            held = [n for n in held if self.counts & set(self.checkpoint.shape(n)[:1])] or held
        if len(held) > 1:
            raise self._ambiguous(side, held)
        if held:
            names.check_plain(self.checkpoint, [names.module_of(held[0])], side)
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
            return not names.is_on_side(name, "input")
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
            if name == held or names.is_elsewhere(name) or names.is_on_side(name, side):
                continue
            if self.config.tied is None and names.CODES.search(name):
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
        seen = [n for n in self.checkpoint.names if names.may_embed(n) or not self.checkpoint.sharded]
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
        names.check_plain(self.checkpoint, [names.module_of(name)], self.which)
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
