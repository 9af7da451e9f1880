"""What the errors of requests to the Hugging Face Hub mean, and what to do about them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from embgeom.loading.hub.ranges import GaveUp


def hub_utils() -> Any:
    """Return the module in which every version of huggingface_hub has its errors and switches."""
    return import_module("huggingface_hub.utils")


def why_it_failed(error: Exception) -> str:
    """Say what a request failed with, and what to do about it."""
    if isinstance(error, GaveUp):
        return error.why
    errors = hub_utils()
    known = (
        (errors.GatedRepoError, "the model is gated; accept its terms on its page, then pass token= or run "
                                "`hf auth login`"),
        (errors.RepositoryNotFoundError, "no such model; if the model is private, pass token="),
        (errors.RevisionNotFoundError, "no such revision; look for its name on the model's page"),
        (errors.LocalTokenNotFoundError, "token=True takes the token of `hf auth login`, and there is none"),
        (errors.FileMetadataError, "the server is no Hugging Face Hub; check HF_ENDPOINT and the proxies"),
        (PermissionError, "the cache cannot be written; pass cache_dir= or set HF_HOME"),
    )  # fmt: skip
    if (why := next((why for kind, why in known if isinstance(error, kind)), None)) is not None:
        return why
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "access is refused; pass a token= that is valid and may read the model"
    if status is not None and status < 500:
        return "the Hub refuses the request; check the id and HF_ENDPOINT"
    return "the connection to the Hub failed; check the network and HF_ENDPOINT"
