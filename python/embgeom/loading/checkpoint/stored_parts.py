"""Matrices that a checkpoint does not hold as plain numbers: quantized, with LoRA factors, in parts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from embgeom.errors import LoadError
from embgeom.loading.architectures import ELSEWHERE
from embgeom.loading.checkpoint.checkpoint import Checkpoint

_LORA = re.compile(
    r"^((lora|hada|lokr|ia3|oft|boft|vera|adapter|trainable_tokens)_|(base_layer|modules_to_save|original_module)\.)"
)
# GPTQ, AWQ, bitsandbytes, FP8, MXFP4, compressed-tensors, HQQ, AQLM, QuIP#, EXL2, EXL3, SpQR, MLX,
# optimum-quanto.
_QUANTIZED = re.compile(
    r"^_?(qweight|qzeros|scales?|zeros|g_idx|SCB|CB|weight_format|biases|absmax|blocks|codes?|codebooks"
    r"|Qidxs\w*|S[UV]|su?[uv]h"
    r"|trellis|q_\w+|W_q|meta|_packed_params\S*|\w*quantizer\S*|\w*bitsandbytes\S*|(input|output|act\w*)_scale\w*"
    r"|(weight|embedding|kernel)_\w*(scale|packed|zero|shape|block|quant|qdata|g_idx)\w*|weight[.:]\S+)$"
)
_CODES = re.compile(r"\.(qweight|weight_packed|W_q|weight_blocks|codes|trellis|Qidxs\w*)$")
_PARTS = re.compile(r"^(weight_([guv]|orig|mask)|parametrizations\.weight\S*)$")
# What may change a weight in a way that is not known; the first two are of what comes before and behind it.
_ODD = re.compile(r"^(?!(embed|logit)_scale$)(s\d|smooth\w*|\w*scale\w*|mask|indices|centroids)$")


def check_plain(
    checkpoint: Checkpoint, modules: Iterable[str], side: str, *, asked_for: bool = False
) -> None:
    """Refuse a side whose matrix is not stored as plain numbers."""
    matrix = "the input embedding" if side == "input" else "the output matrix"
    for module in filter(None, modules):
        path = re.compile(rf"(?P<before>(?:.*\.)?){re.escape(module)}(\.|_(?=blocks$|scales$))(?P<rest>.+)$")
        found = {
            n: m["rest"]
            for n in checkpoint.names
            if module in n and (m := path.match(n)) and not ELSEWHERE.search(m["before"])
        }
        for pattern, how, instead in (
            (
                _LORA,
                "beside an adapter's tensors",
                "merge the adapter (merge_and_unload)",
            ),
            (_QUANTIZED, "quantized", "take the original checkpoint"),
            (_PARTS, "in parts", "take a checkpoint in which they are multiplied out"),
        ):
            if parts := [n for n, rest in found.items() if pattern.match(rest)]:
                raise LoadError(
                    f"{checkpoint.where}: {matrix} is stored {how}, as {', '.join(parts[:3])}, "
                    f"which embgeom does not read; {instead}"
                )
        odd = [n for n, rest in found.items() if _ODD.match(rest)]
        odd = [n for n in odd if f"{n.removesuffix(found[n])}weight" in found]
        if odd and not asked_for:
            raise LoadError(
                f"{checkpoint.where}: beside {matrix} stands {odd[0]}, whose meaning embgeom does not know; "
                "take the matrix as it is stored with tensor=NAME (--tensor NAME)"
            )


def holds_codes(name: str) -> bool:
    """Return whether a tensor holds the codes of a quantized matrix, whose shape is not the matrix's."""
    return _CODES.search(name) is not None
