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
from embgeom.loading.architectures import USUAL_INPUTS, USUAL_OUTPUTS, Architecture
from embgeom.loading.checkpoint.checkpoint import Checkpoint
from embgeom.loading.checkpoint.name_matching import (
    is_elsewhere,
    is_on_side,
    matches,
    may_embed,
    module_of,
    pick_one,
    usual,
)
from embgeom.loading.checkpoint.stored_parts import check_plain, holds_codes
from embgeom.loading.config import ModelConfig
from embgeom.loading.convert import READ_AS

_PICK = "pick one with tensor=NAME (--tensor NAME)"
_DIFFER = (
    "config.json ties input and output matrix, but {} and {} are stored and differ, and transformers does "
    "not tie "
    "such"
)


@dataclass(frozen=True)
class Choice:
    """The tensor to read."""

    name: str
    tied: bool
    notes: tuple[str, ...] = ()
    transposed: bool = False


def choose_tensor(
    checkpoint: Checkpoint, config: ModelConfig, which: str, tensor: str | None, vocabulary: int
) -> Choice:
    """Choose the tensor for `which` ("input" or "output")."""
    return _Chooser(checkpoint, config, which, vocabulary).choose(tensor)


def side_of(checkpoint: Checkpoint, config: ModelConfig, name: str, vocabulary: int) -> Which:
    """Return which matrix of a model a tensor is that was asked for by its name alone."""
    try:
        chosen = _Chooser(checkpoint, config, "output", vocabulary).choose(None)
        return "output" if chosen.name == name and not chosen.tied else "input"
    except LoadError:
        # The names leave open which tensors the sides are.
        return "input"


class _Chooser:
    """One choice: the checkpoint, what is known of the model, and the side that is asked for."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, which: str, vocabulary: int) -> None:
        self.checkpoint, self.config, self.which, self.vocabulary = checkpoint, config, which, vocabulary
        self.other_side = "output" if which == "input" else "input"
        self.names = tuple(dict.fromkeys((*checkpoint.names, *checkpoint.aliases)))

    def choose(self, tensor: str | None) -> Choice:
        if tensor is not None:
            return self._asked_for(tensor)
        own = self._by_name(self.which)
        if self.which == "output" and own is None and self.config.headless:
            raise LoadError(
                f"{self.checkpoint.where} is of a {self.config.headless}, which has no output matrix; load "
                f"its input, or the checkpoint of a model with a head, or {_PICK}"
            )
        try:
            other = self._by_name(self.other_side)
        except LoadError:
            # What the other side is, is not to be told, or it is not stored as plain numbers.
            if own is None:
                raise
            return self._choice(own, False)
        if own is None and other is None:
            return self._by_shape()
        if own is not None and other is not None:
            return self._of_two(own, other)
        return self._of_one(own, str(own or other))

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
            sides = {n for side in ("input", "output") if (n := self._by_name(side))}
        except LoadError:
            # The names leave open which tensors the sides are: that is why the user named one.
            return False
        return bool(self.config.tied) and name in sides and (len(sides) == 1 or self._equal(*sides))

    def _of_two(self, own: str, other: str) -> Choice:
        """Both matrices are there: the model uses each as it is stored, and ties only equal ones."""
        if own == other:
            return self._choice(own, True)
        if not self.config.tied:
            return self._choice(own, False)
        family = self.config.architecture
        if family and family.headless:
            embedding, head = (own, other) if self.which == "input" else (other, own)
            return self._choice(
                embedding, True, (f"{head} is stored, too, but the tied model has no use for it",)
            )
        if self._equal(own, other):
            return self._choice(own, True)
        # An encoder's embedding beside a decoder's is tied to nothing, and some configs cannot say otherwise.
        apart = family is not None and (bool(family.tied_to) or family.ties == "always")
        return self._choice(own, False, () if apart else (_DIFFER.format(own, other),))

    def _of_one(self, own: str | None, held: str) -> Choice:
        """One matrix is there, under `held`: it serves both sides if nothing else can be the other's."""
        side = self.other_side if own is None else self.which
        stray = self._stray(held, side) if self.config.tied is not False or own is None else None
        if own is not None:
            return self._choice(own, self.config.tied is not False and stray is None)
        if stray is not None:
            raise LoadError(
                f"{self.checkpoint.where} holds {held} {list(self.checkpoint.shape(held))} and, under a name "
                f"that is not known, {stray} {list(self.checkpoint.shape(stray))}, which may be the "
                f"{self.which} matrix; {_PICK}"
            )
        if self.config.tied is False:
            raise LoadError(
                f"{self.checkpoint.where} holds no {self.which} matrix, only {held}, and config.json does "
                "not tie "
                "them; take the checkpoint with its head, or pick a tensor with tensor=NAME (--tensor NAME)"
            )
        unsaid = f"config.json does not say whether the model is tied, and there is only {held}"
        return self._choice(held, True, () if self.config.tied else (unsaid,))

    def _by_name(self, side: str) -> str | None:
        """Return the tensor with a known name, or None where there is none."""
        family, checkpoint = self.config.architecture, self.checkpoint
        modules = _modules(family, side)
        if self.config.decoder_only:
            modules = tuple(sorted(modules, key=lambda module: "decoder" not in module))
        hits: list[str] = []
        for module in modules:
            if hits := matches(self.names, module):
                break
        if not hits and side == "output" and family and family.tied_to and self.config.tied:
            hits = next((found for module in family.tied_to if (found := matches(self.names, module))), [])
        if not hits:
            check_plain(checkpoint, (*modules, *(USUAL_INPUTS if side == "input" else USUAL_OUTPUTS)), side)
            hits = usual(self.names, side, known=family is not None)
        held = list(dict.fromkeys(self._held(name) for name in hits))
        if len(held) > 1:
            held = pick_one(held, "encoder" if modules and "encoder" in modules[0] else "decoder")
        if len(held) > 1:
            rows = (self.config.vocab_size, self.vocabulary)
            held = [n for n in held if set(rows) & set(checkpoint.shape(n)[:1])] or held
        if len(held) > 1:
            raise self._ambiguous(side, held)
        if held:
            check_plain(checkpoint, [module_of(held[0])], side)
        return held[0] if held else None

    def _held(self, name: str) -> str:
        """Return the tensor that the file holds for a name which may be an alias."""
        return self.checkpoint.aliases.get(name, name)

    def _choice(self, name: str, tied: bool, notes: tuple[str, ...] = ()) -> Choice:
        """Return the choice of a tensor, with what else is to be said of it."""
        if self._is_transposed(name):
            return Choice(name, tied, (*notes, f"{name} is stored transposed"), True)
        return Choice(name, tied, notes)

    def _is_transposed(self, name: str) -> bool:
        """Return whether a matrix has its rows, one for each token, as columns."""
        shape = self.checkpoint.shape(name)
        rows = {self.config.vocab_size, self.vocabulary}
        by_shape = len(shape) == 2 and shape[1] in rows and shape[0] not in rows
        if by_shape and shape[1] == self.config.width != shape[0]:
            # As many columns as there are tokens, and more rows than these.
            by_shape = False
        elif by_shape and self.config.width is None:
            by_shape = not is_on_side(name, "input")
        return by_shape or name.endswith(("W_U", ".kernel"))

    def _equal(self, one: str, two: str) -> bool:
        """Return whether two tensors hold the same numbers, as transformers asks before it ties them."""
        turned = [-1 if self._is_transposed(name) else 1 for name in (one, two)]
        shapes = [self.checkpoint.shape(n)[::turn] for n, turn in zip((one, two), turned, strict=True)]
        stored = [self.checkpoint.file(n).dtype(n) for n in (one, two)]
        if shapes[0] != shapes[1] or any(dtype not in READ_AS for dtype in stored):
            return False
        first, second = (self.checkpoint.file(name).read(name) for name in (one, two))
        return bool(
            np.array_equal(first if turned[0] == 1 else first.T, second if turned[1] == 1 else second.T)
        )

    def _stray(self, held: str, side: str) -> str | None:
        """Return a matrix of the shape of `held`, which is of a `side`, that may be the other side's."""
        rows, width = self.checkpoint.shape(held)[0], self.checkpoint.shape(held)[1:]
        counts = {rows, self.config.vocab_size, self.vocabulary}
        for name in self.checkpoint.names:
            if name == held or is_elsewhere(name) or is_on_side(name, side):
                continue
            if self.config.tied is None and holds_codes(name):
                return name
            shape = self.checkpoint.shape(name)
            if len(shape) == 2 and (
                (shape[0] in counts and shape[1:] == width)
                or (shape[1] in counts and shape[:1] == width != (rows,))
            ):
                return name
        return None

    def _by_shape(self) -> Choice:
        """Return the only 2-D tensor with about as many rows as the vocabulary."""

        def fits(rows: int) -> bool:
            return rows == self.config.vocab_size or 0.99 * self.vocabulary <= rows <= max(
                1.1 * self.vocabulary, self.vocabulary + 1024
            )

        # An index gives no shapes, and opening every shard would fetch the whole model.
        names = [n for n in self.checkpoint.names if may_embed(n) or not self.checkpoint.sharded]
        exact = self._candidates(names, lambda rows: rows in (self.config.vocab_size, self.vocabulary))
        found = exact if len(exact) == 1 else self._candidates(names, fits)
        if len(found) > 1:
            raise self._ambiguous(self.which, found)
        if not found:
            rows = self.config.vocab_size or self.vocabulary
            raise LoadError(
                f"{self.checkpoint.where} holds no tensor with a known name, nor one with about {rows} "
                "rows, but "
                f"{_listed(self._candidates(names, lambda _: True))}; {_PICK}"
            )
        (name,) = found
        check_plain(self.checkpoint, [module_of(name)], self.which)
        if self.which == "output" and self.config.tied is False:
            raise LoadError(
                f"{self.checkpoint.where} holds {name}, whose name does not tell whether it is the output "
                "matrix, "
                f"and config.json does not tie it to the input embedding; {_PICK}"
            )
        unsaid = f"config.json does not say whether the model is tied, and there is only {name}"
        silent = self.which == "output" and self.config.tied is None
        return self._choice(name, self.config.tied is not False, (unsaid,) if silent else ())

    def _candidates(self, names: Iterable[str], wanted: Callable[[int], bool]) -> dict[str, tuple[int, ...]]:
        shapes = {n: self.checkpoint.shape(n) for n in names}
        return {n: s for n, s in shapes.items() if len(s) == 2 and wanted(s[0])}

    def _ambiguous(self, side: str, found: Iterable[str]) -> LoadError:
        shapes = {name: self.checkpoint.shape(name) for name in found}
        return LoadError(
            f"{self.checkpoint.where} holds {len(shapes)} tensors that may be the {side} matrix: "
            f"{_listed(shapes)}; {_PICK}"
        )


def _modules(family: Architecture | None, side: str) -> tuple[str, ...]:
    return () if family is None else family.input if side == "input" else family.output


def _listed(found: list[str] | dict[str, tuple[int, ...]], most: int = 12) -> str:
    shapes = found if isinstance(found, dict) else {}
    shown = [f"{name} {list(shapes[name])}" if name in shapes else name for name in list(found)[:most]]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return (", ".join(shown) or "no matrices") + more
