"""Where a matrix comes from: enough to say which numbers were measured on what."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embgeom.errors import LoadError


@dataclass(frozen=True)
class Provenance:
    """Where an `Embeddings` was read from.

    Attributes
    ----------
    source : str
        The folder, file or Hugging Face id as it was asked for; ``"array"`` for an array in memory.
    revision : str or None
        The commit of a Hugging Face repository.
    file : Path or None
        The model file that holds the tensor.
    tensor : str or None
        The tensor's name in that file.
    dtype : str or None
        The type in which the file stores it, as the file names it: ``"F32"``, ``"BF16"``, ...
    tied : bool
        Whether the model uses one matrix as input embedding and output (un)embedding.
    blocks : int or None
        How many transformer blocks the model has, by its config.json; None where that is not known.
    tokenizer : Path or None
        The file the tokens were read from.
    notes : tuple of str
        What was odd while loading, each a sentence.
    """

    source: str
    revision: str | None = None
    file: Path | None = None
    tensor: str | None = None
    dtype: str | None = None
    tied: bool = False
    blocks: int | None = None
    tokenizer: Path | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, with the SHA-256, ready for JSON."""
        plain = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()}
        return {**plain, "notes": list(self.notes), "sha256": self.sha256}

    @property
    def inputs(self) -> list[Path]:
        """What was read, files and folder, as far as it is known: no result goes into its place."""
        read = [path for path in (self.file, self.tokenizer) if path is not None]
        folder = Path(self.source).expanduser() if self.file is not None else None
        return [*read, folder] if folder is not None and folder.is_dir() else read

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the model file in hexadecimal, computed when first asked for; None without a file.

        The Hugging Face cache names a large file's blob by its SHA-256, so there nothing is read.

        Raises
        ------
        LoadError
            If the file is gone or cannot be read any more.
        """
        if self.file is None:
            return None
        blob = self.file.resolve()
        if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
            return blob.name
        digest = hashlib.sha256()
        try:
            with self.file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise LoadError(f"{self.file} cannot be read for its SHA-256: {error.strerror}") from error
        return digest.hexdigest()
