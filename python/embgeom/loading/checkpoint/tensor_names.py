"""Which tensor of a checkpoint is the input embedding, and which the output matrix.

The names that the model's family uses come first, then names that are usual, then the shape. When these do
not give one tensor, the error lists the candidates, and `tensor=` picks one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from embgeom.embeddings.embeddings import Which
from embgeom.errors import LoadError
from embgeom.loading.architectures import USUAL, Architecture
from embgeom.loading.checkpoint.checkpoint import Checkpoint
from embgeom.loading.checkpoint.names import (
    check_plain,
    holds_codes,
    is_elsewhere,
    is_on_side,
    matches,
    may_embed,
    module_of,
    pick_one,
    usual,
)
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


def choose_tensor(
    checkpoint: Checkpoint, config: ModelConfig, which: str, tensor: str | None, vocabulary: int
) -> Choice:
    """Choose the tensor for `which`, of a model of so many tokens, or the one that the user names."""
    return _Chooser(checkpoint, config, which, vocabulary).choose(tensor)


def side_of(checkpoint: Checkpoint, config: ModelConfig, name: str, vocabulary: int) -> Which:
    """Return "output" for a tensor that is the output matrix of a model that has two, else "input"."""
    try:
        chosen = _Chooser(checkpoint, config, "output", vocabulary).choose(None)
        return "output" if chosen.name == name and not chosen.tied else "input"
    except LoadError:
        # The names leave open which tensors the sides are.
        return "input"


class _Chooser:
    """One choice: the checkpoint, what is known of the model, and the side that is asked for."""

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
            raise LoadError(
                f"{self.checkpoint.where} is of a {self.config.headless}, which has no output matrix; load "
                f"its input, or the checkpoint of a model with a head, or {_PICK}"
            )
        try:
            other = self._by_name(self.other_side)
        except LoadError:
            # What the other side is, is not to be told, or it is not stored as plain numbers.
            if chosen is None:
                raise
            return self._choice(chosen, False)
        if chosen is not None and other is not None:
            return self._of_two(chosen, other)
        if chosen is None and other is None:
            return self._by_shape()
        return self._of_one(chosen, str(chosen or other))

    def _asked_for(self, tensor: str) -> Choice:
        name = self._held(tensor)
        if name not in self.checkpoint.names:
            like = [n for n in self.checkpoint.names if may_embed(n)] or list(self.checkpoint.names)
            raise LoadError(f"{self.checkpoint.where} holds no tensor {tensor}; it holds {_listed(like)}")
        check_plain(self.checkpoint, [module_of(name)], self.which, asked_for=True)
        return self._choice(name, self._ties(name))

    def _ties(self, name: str) -> bool:
        """Return whether the model uses a tensor that the user named on both sides."""
        try:
            sides = {n for side in USUAL if (n := self._by_name(side))}
        except LoadError:
            # The names leave open which tensors the sides are: that is why the user named one.
            return False
        return bool(self.config.tied) and name in sides and (len(sides) == 1 or self._equal(*sides))

    def _of_two(self, chosen: str, other: str) -> Choice:
        """Both matrices are there: the model uses each as it is stored, and ties only equal ones."""
        if chosen == other:
            return self._choice(chosen, True)
        if not self.config.tied:
            return self._choice(chosen, False)
        if self.family.headless:
            embedding, head = (chosen, other) if self.which == "input" else (other, chosen)
            return self._choice(
                embedding, True, f"{head} is stored, too, but the tied model has no use for it"
            )
        if self._equal(chosen, other):
            return self._choice(chosen, True)
        # An encoder's embedding beside a decoder's is tied to nothing, and some configs cannot say otherwise.
        if self.family.tied_to or self.family.ties == "always":
            return self._choice(chosen, False)
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
            raise LoadError(
                f"{self.checkpoint.where} holds {held} {list(self.checkpoint.shape(held))} and, under a name "
                f"that is not known, {stray} {list(self.checkpoint.shape(stray))}, which may be the "
                f"{self.which} matrix; {_PICK}"
            )
        if self.config.tied is False:
            raise LoadError(
                f"{self.checkpoint.where} holds no {self.which} matrix, only {held}, and config.json does "
                f"not tie them; take the checkpoint with its head, or {_PICK}"
            )
        return self._choice(held, True, None if self.config.tied else _UNSAID.format(held))

    def _by_name(self, side: str) -> str | None:
        """Return the tensor with a known name, or None where there is none."""
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
        """Return whether a matrix has its rows, one for each token, as columns."""
        shape, columns = self.checkpoint.shape(name), self.config.columns
        by_shape = len(shape) == 2 and shape[1] in self.counts and shape[0] not in self.counts
        if by_shape and shape[1] == columns != shape[0]:
            # As many columns as there are tokens, and more rows than these.
            by_shape = False
        elif by_shape and columns is None:
            by_shape = not is_on_side(name, "input")
        return by_shape or name.endswith(("W_U", ".kernel"))

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
        """Return a matrix of the shape of `held`, which is of a `side`, that may be the other side's.

        Encoders and decoders have copies of one matrix, which the names of that side tell.
        """
        shape = self.checkpoint.shape(held)
        rows, columns = shape[:1], shape[1:]
        counts = {*rows, *self.counts}
        for name in self.checkpoint.names:
            if name == held or is_elsewhere(name) or is_on_side(name, side):
                continue
            if self.config.tied is None and holds_codes(name):
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
        most = max(1.1 * self.vocabulary, self.vocabulary + 1024)

        def fits(rows: int) -> bool:
            return rows == self.config.vocab_size or 0.99 * self.vocabulary <= rows <= most

        # An index gives no shapes, and opening every shard would fetch the whole model.
        names = [n for n in self.checkpoint.names if may_embed(n) or not self.checkpoint.sharded]
        exact = self._candidates(names, self.counts.__contains__)
        found = exact if len(exact) == 1 else self._candidates(names, fits)
        if len(found) > 1:
            raise self._ambiguous(self.which, found)
        if not found:
            held = _listed(self._candidates(names, lambda _: True))
            raise LoadError(
                f"{self.checkpoint.where} holds no tensor with a known name, nor one with about "
                f"{self.config.vocab_size or self.vocabulary} rows, but {held}; {_PICK}"
            )
        (name,) = found
        check_plain(self.checkpoint, [module_of(name)], self.which)
        if self.which == "output" and self.config.tied is False:
            raise LoadError(
                f"{self.checkpoint.where} holds {name}, whose name does not tell whether it is the output "
                f"matrix, and config.json does not tie it to the input embedding; {_PICK}"
            )
        unsaid = self.which == "output" and self.config.tied is None
        return self._choice(name, self.config.tied is not False, _UNSAID.format(name) if unsaid else None)

    def _candidates(self, names: Iterable[str], wanted: Callable[[int], bool]) -> dict[str, tuple[int, ...]]:
        shapes = {n: self.checkpoint.shape(n) for n in names}
        return {n: s for n, s in shapes.items() if len(s) == 2 and wanted(s[0])}

    def _ambiguous(self, side: str, found: Iterable[str]) -> LoadError:
        shapes = {name: self.checkpoint.shape(name) for name in found}
        return LoadError(
            f"{self.checkpoint.where} holds {len(shapes)} tensors that may be the {side} matrix: "
            f"{_listed(shapes)}; {_PICK}"
        )


def _listed(found: list[str] | dict[str, tuple[int, ...]], most: int = 12) -> str:
    shapes = found if isinstance(found, dict) else {}
    shown = [f"{name} {list(shapes[name])}" if name in shapes else name for name in list(found)[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(shown) or "no matrices") + more
