"""Which positions of a forward pass are steered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy.typing as npt

from embgeom.errors import InputError
from embgeom.lm.layers import need_torch
from embgeom.lm.tracker import ForwardContext

Positions = Literal["all", "generated"]
# A boolean mask over the columns of the prompts, (prompts, columns) or (columns,).
Mask = npt.ArrayLike
# Returns a bool tensor (batch, length); None means all positions.
Chooser = Callable[[ForwardContext], Any]


def chooser(positions: Positions | Mask, generated: bool) -> Chooser:
    if isinstance(positions, str) and positions in ("all", "generated"):
        if not generated:
            raise InputError(
                f"generated=False goes with a mask over the prompt, not with positions={positions!r}"
            )
        return (lambda context: context.valid) if positions == "all" else _from_last_prompt_token
    mask = _mask(positions)
    return lambda context: _in_mask(context, mask, generated)


def _from_last_prompt_token(context: ForwardContext) -> Any:
    columns_of_prompt = context.length if context.prompt is None else context.prompt.columns
    # Outside of generate, whatever comes after a filled cache counts as new.
    if context.start >= columns_of_prompt or (context.prompt is None and context.start > 0):
        return context.valid
    columns = need_torch().arange(context.start, context.start + context.length, device=context.device)[None]
    last = _last_prompt_column(context, columns_of_prompt)
    chosen = (columns >= columns_of_prompt) | (columns == last)
    return _and_valid(chosen.expand(context.batch, -1), context)


def _last_prompt_column(context: ForwardContext, columns: int) -> Any:
    """Return the column of each sequence's last prompt token, (batch, 1); padding may follow it."""
    torch = need_torch()
    if context.prompt is not None and context.prompt.valid is not None:
        valid = _for_batch(context.prompt.valid.to(context.device), context)
    elif context.valid is not None and context.start == 0 and context.length >= columns:
        valid = context.valid[:, :columns]
    else:
        return columns - 1
    return torch.where(valid, torch.arange(columns, device=valid.device), -1).amax(1, keepdim=True)


def _in_mask(context: ForwardContext, mask: Any, generated: bool) -> Any:
    torch, prompt = need_torch(), context.prompt
    if prompt is not None and prompt.columns != mask.shape[1]:
        raise InputError(
            f"positions: the mask has {mask.shape[1]} columns, the prompt {prompt.columns}; "
            "it needs one for each column of input_ids, padding included"
        )
    prompts = context.batch if prompt is None else prompt.sequences
    if len(mask) not in (1, prompts):
        raise InputError(
            f"positions: the mask has {len(mask)} rows for {prompts} prompts; it needs one for each, or one "
            "for all"
        )
    if context.start >= mask.shape[1]:
        return context.valid if generated else torch.zeros((context.batch, context.length), dtype=torch.bool)
    in_prompt = _for_batch(mask.to(context.device), context)
    in_prompt = in_prompt[:, context.start : context.start + context.length]
    after = in_prompt.new_full((context.batch, context.length - in_prompt.shape[1]), generated)
    return _and_valid(torch.cat([in_prompt, after], dim=1), context)


def _mask(positions: Mask) -> Any:
    torch = need_torch()
    try:
        mask = torch.as_tensor(positions)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f'positions = {positions!r:.60} is unknown: use "all", "generated" or a boolean mask'
        ) from None
    if mask.ndim == 1:
        mask = mask[None]
    if mask.ndim != 2 or mask.numel() == 0 or not bool(((mask == 0) | (mask == 1)).all()):
        raise InputError(
            f"positions: a mask is boolean and of shape (batch, prompt length), not {mask.dtype} "
            f"of shape {tuple(mask.shape)}"
        )
    return mask.bool()


def _for_batch(rows: Any, context: ForwardContext) -> Any:
    """Return rows of a mask, each repeated as generate repeats its sequence: for beams and samples."""
    if context.batch % len(rows):
        raise InputError(f"positions: {len(rows)} rows of a mask do not fit a batch of {context.batch}")
    return rows.repeat_interleave(context.batch // len(rows), dim=0)


def _and_valid(chosen: Any, context: ForwardContext) -> Any:
    return chosen if context.valid is None else chosen & context.valid
