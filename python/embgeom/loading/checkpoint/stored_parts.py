"""Matrices that a checkpoint does not hold as plain numbers: quantised, with LoRA factors, in parts."""

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
_QUANTISED = re.compile(
    r"^(qweight|qzeros|scales?|zeros|g_idx|SCB|CB|weight_format|biases|absmax|codes?|codebooks|Qidxs\w*|S[UV]|su?[uv]h"
    r"|trellis|q_\w+|W_q|meta|_packed_params\S*|\w*quantizer\S*|\w*bitsandbytes\S*|(input|output|act\w*)_scale\w*"
    r"|(weight|embedding|kernel)_\w*(scale|packed|zero|shape|block|quant|qdata|g_idx)\w*|weight[.:]\S+)$"
)
_PARTS = re.compile(r"^(weight_[gv]|parametrizations\.weight\S*)$")


def check_plain(checkpoint: Checkpoint, modules: Iterable[str], side: str) -> None:
    """Refuse a side whose matrix is not stored as plain numbers.

    Parameters
    ----------
    checkpoint : Checkpoint
        The tensors of the model.
    modules : iterable of str
        The names that the matrix's module may have.
    side : {"input", "output"}
        Which matrix it is, for the message.

    Raises
    ------
    LoadError
        If such a module has tensors of a quantiser, an adapter or another division into parts.
    """
    matrix = "the input embedding" if side == "input" else "the output matrix"
    for module in filter(None, modules):
        path = re.compile(rf"(?P<before>(?:.*\.)?){re.escape(module)}\.(?P<rest>.+)$")
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
            (_QUANTISED, "quantised", "take the original checkpoint"),
            (_PARTS, "in parts", "take a checkpoint in which they are multiplied out"),
        ):
            if parts := [n for n, rest in found.items() if pattern.match(rest)]:
                raise LoadError(
                    f"{checkpoint.where}: {matrix} is stored {how}, as {', '.join(parts[:3])}, "
                    f"which embgeom does not read; {instead}"
                )
