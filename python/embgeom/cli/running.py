"""The language model of a command, at work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embgeom._common.threads import resolve_threads
from embgeom.errors import InputError, first_line

if TYPE_CHECKING:
    from embgeom.steering import LanguageModel


@contextmanager
def running(options: argparse.Namespace) -> Iterator[LanguageModel]:
    """Load the model of a command, and give it while it is to run.

    Raises
    ------
    InputError
        If the number of threads is out of range, or the accelerator's memory does not suffice.
    LoadError
        If the model cannot be loaded.
    """
    from embgeom.steering import load_language_model

    threads = None if options.threads is None else resolve_threads(options.threads)
    loaded = load_language_model(
        options.model,
        revision=options.revision,
        local_files_only=options.local_files_only,
        trust_remote_code=options.trust_remote_code,
    )
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with _quiet_transformers():
            yield loaded
    except torch.cuda.OutOfMemoryError as error:
        size = options.batch_size
        raise InputError(f"{first_line(error)}; less is needed with a --batch-size below {size}") from error
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Let transformers log errors alone, unless the user has asked for more.

    While a model is loaded it may say what is wrong with the weights. After that it speaks of how it is
    called, which is nothing that a user could change.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
