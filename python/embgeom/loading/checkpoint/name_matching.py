"""Tensors by their names: those of a module, those that are usual for embeddings, those of other parts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from embgeom.loading.architectures import (
    ELSEWHERE,
    FAMILIES,
    LIKE_OUTPUTS,
    TEXT_MODEL,
    USUAL_INPUTS,
    USUAL_OUTPUTS,
    WHOLE_INPUTS,
    WHOLE_OUTPUTS,
)

# What the one matrix of a module is called: by PyTorch; by Flax; by TransformerLens.
_ENDS = {"input": (".weight", ".embedding"), "output": (".weight", ".kernel")}
_LENS = {"input": "embed.W_E", "output": "unembed.W_U"}
_MAY_EMBED = re.compile(r"emb|wte|tok|vocab|head|shared|output|word|logit|proj_out|decoder", re.IGNORECASE)


def matches(
    names: Iterable[str], module: str, ends: tuple[str, ...] = (".weight", ".kernel", ".embedding")
) -> list[str]:
    """Return the tensors of the module of that name, wherever it stands but in another part of the model."""
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
    """Return the tensors with a name that is usual for a side, "input" or "output"."""
    names = list(names)
    ends, whole = (USUAL_INPUTS, WHOLE_INPUTS) if side == "input" else (USUAL_OUTPUTS, WHOLE_OUTPUTS)
    found: list[str] = []
    for end in ends:
        found += matches(names, end, _ENDS[side])
        if found and (known or end == "shared"):
            return found
    found = found or [n for n in names if module_of(n) in whole and n.endswith(_ENDS[side])]
    if side == "output" and not found:
        like = [n for n in names if LIKE_OUTPUTS.search(module_of(n).rpartition(".")[2])]
        found = [n for n in like if n.endswith(_ENDS[side]) and not is_elsewhere(n)]
    return found or [n for n in names if n == _LENS[side] or n.endswith("." + _LENS[side])]


def pick_one(names: list[str], part: str) -> list[str]:
    """Return those of several tensors that belong to the text model, and there to a `part` of it."""
    names = [n for n in names if TEXT_MODEL.search(n)] or names
    return [n for n in names if part in n] or names


def module_of(name: str) -> str:
    """Return the name of the module that a tensor belongs to."""
    return name.rpartition(".")[0]


def is_elsewhere(name: str) -> bool:
    """Return whether a tensor belongs to a layer or to another part than the language model's ends."""
    return ELSEWHERE.search(name) is not None


def is_on_side(name: str, side: str) -> bool:
    """Return whether a tensor has the name of some family's input embedding, or output matrix, alone."""
    module = module_of(name)
    sides = {s for s in ("input", "output") if any(pattern.match(module) for pattern in _every_name(s))}
    return sides == {side}


@cache
def _every_name(side: str) -> tuple[re.Pattern[str], ...]:
    usual_names = USUAL_INPUTS if side == "input" else USUAL_OUTPUTS
    named = (m for f in FAMILIES.values() for m in ((*f.input, *f.tied_to) if side == "input" else f.output))
    return tuple(_pattern(m) for m in dict.fromkeys((*usual_names, *named)))


def may_embed(name: str) -> bool:
    """Return whether a name looks like an embedding's, outside of layers."""
    return _MAY_EMBED.search(name) is not None and not is_elsewhere(name)
