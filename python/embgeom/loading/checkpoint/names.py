"""Tensors by their names: those of a module, those that are usual for embeddings, those of other parts.

And matrices that names show not to be stored as plain numbers: quantized, with LoRA factors, in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from embgeom.errors import LoadError
from embgeom.loading.architectures import (
    ELSEWHERE,
    FAMILIES,
    LIKE_OUTPUTS,
    TEXT_MODEL,
    USUAL,
    WHOLE_NAMES,
)
from embgeom.loading.checkpoint.checkpoint import Checkpoint

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
