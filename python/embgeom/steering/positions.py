"""Which positions of a forward pass are steered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embgeom.errors import InputError
from embgeom.lm.layers import need_torch
from embgeom.lm.watching import View

# A bool tensor (batch, length); None means all positions.
Chosen = Callable[[View], Any]


def chooser(positions: Any, generated: bool) -> Chosen:
    """Return the function that finds the steered positions of a forward pass; `apply` documents them.

    Raises
    ------
    InputError
        If `positions` is neither a known word nor a mask, or `generated` goes with no mask.
    """
    if isinstance(positions, str):
        if positions not in ("all", "generated"):
            raise InputError(
                f'positions = {positions!r} is unknown: use "all", "generated" or a boolean mask'
            )
        if not generated:
            raise InputError(
                f"generated=False goes with a mask over the prompt, not with positions={positions!r}"
            )
        return _tokens if positions == "all" else _from_last_prompt_token
    mask = _mask(positions)
    return lambda view: _in_mask(view, mask, generated)


def _tokens(view: View) -> Any:
    return view.valid


def _from_last_prompt_token(view: View) -> Any:
    if view.prompt is None and view.start > 0:
        # Outside of generate, whatever comes after a filled cache counts as new.
        return view.valid
    prompt_columns = view.length if view.prompt is None else view.prompt.columns
    if view.start >= prompt_columns:
        return view.valid
    columns = _columns(view)
    chosen = (columns >= prompt_columns) | (columns == _last_prompt_column(view, prompt_columns))
    return _and_valid(chosen.expand(view.batch, -1), view)


def _last_prompt_column(view: View, prompt_columns: int) -> Any:
    """Return the column of each sequence's last prompt token, (batch, 1); padding may follow it."""
    torch = need_torch()
    if view.prompt is not None and view.prompt.valid is not None:
        valid = _for_batch(view.prompt.valid.to(view.device), view)
    elif view.valid is not None and view.start == 0 and view.length >= prompt_columns:
        valid = view.valid[:, :prompt_columns]
    else:
        return prompt_columns - 1
    return torch.where(valid, torch.arange(prompt_columns, device=valid.device), -1).amax(1, keepdim=True)


def _in_mask(view: View, mask: Any, generated: bool) -> Any:
    torch = need_torch()
    if view.prompt is not None and view.prompt.columns != mask.shape[1]:
        raise InputError(
            f"positions: the mask has {mask.shape[1]} columns, the prompt {view.prompt.columns}; "
            "it needs one for each column of input_ids, padding included"
        )
    prompts = view.batch if view.prompt is None else view.prompt.sequences
    if len(mask) not in (1, prompts):
        raise InputError(
            f"positions: the mask has {len(mask)} rows for {prompts} prompts; it needs one for each, or one "
            "for all"
        )
    if view.start >= mask.shape[1]:
        return view.valid if generated else torch.zeros((view.batch, view.length), dtype=torch.bool)
    of_prompt = _for_batch(mask.to(view.device), view)[:, view.start : view.start + view.length]
    after = of_prompt.new_full((view.batch, view.length - of_prompt.shape[1]), generated)
    return _and_valid(torch.cat([of_prompt, after], dim=1), view)


def _mask(positions: Any) -> Any:
    """Return a mask as a bool tensor (sequences, columns)."""
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


def _for_batch(rows: Any, view: View) -> Any:
    """Return rows of a mask, each repeated as generate repeats its sequence: for beams and samples."""
    if view.batch % len(rows):
        raise InputError(f"positions: {len(rows)} rows of a mask do not fit a batch of {view.batch}")
    return rows.repeat_interleave(view.batch // len(rows), dim=0)


def _columns(view: View) -> Any:
    return need_torch().arange(view.start, view.start + view.length, device=view.device)[None]


def _and_valid(chosen: Any, view: View) -> Any:
    return chosen if view.valid is None else chosen & view.valid
