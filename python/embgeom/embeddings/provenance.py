"""Where a matrix comes from, so that a result says what it was measured on."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from embgeom.errors import LoadError


@dataclass(frozen=True)
class FileState:
    """The state of a file when it was read, and its SHA-256 if known beforehand."""

    stamp: tuple[int, int, int] | None = None  # inode, size and time of change of a local file
    sha256: str | None = None  # the one by which the Hugging Face Hub knows the file
    part: bool = False  # whether no more than a part of the file is on this machine

    @classmethod
    def from_status(cls, status: os.stat_result) -> FileState:
        return cls((status.st_ino, status.st_size, status.st_mtime_ns))


# Norms differ by less than _ALIKE between copies of one model in 32 and 16 bits, by less than _UNLIKE between
# a model and its 4-bit quantization or fine-tuned copy, and by more somewhere between any two others. Norms
# whose largest is not _VARYING times the smallest tell nothing.
_ALIKE, _UNLIKE, _VARYING = 0.01, 0.1, 1.05


def norm_rows(count: int) -> list[int]:
    """Return the rows, of this many, by whose norms a matrix is told from others."""
    return [1 << power for power in range(17) if 1 << power < count]


@dataclass(frozen=True)
class ModelInfo:
    """Which model a matrix or a steering vector belongs to, to the extent that it is known.

    Attributes
    ----------
    name : str or None
        What it was loaded as: a folder, a Hugging Face id or an example's name.
    revision : str or None
        The commit of a Hugging Face repository.
    hidden_size : int or None
        The size of its residual stream.
    num_layers : int or None
        How many transformer layers it has.
    aliases : tuple of str
        Other names of the same model, such as the folder it lies in.
    input_norms, output_norms : tuple of float
        The norms of rows 1, 2, 4, 8, ... of its embedding and its unembedding, by which it is told from
        another model of the same name; empty where they are not known.
    """

    name: str | None = None
    revision: str | None = None
    hidden_size: int | None = None
    num_layers: int | None = None
    aliases: tuple[str, ...] = ()
    input_norms: tuple[float, ...] = ()
    output_norms: tuple[float, ...] = ()

    def differs_from(self, other: ModelInfo) -> bool:
        """Return whether both are known and are different models.

        Rows of like norms are of one model, whatever it is called, unless all rows are nearly of one length;
        and rows of unlike norms are of two. Else names decide: both have some and share none, where
        their last parts are compared.
        """
        for mine, others in ((self.input_norms, other.input_norms), (self.output_norms, other.output_norms)):
            if mine and others:
                # Rows that were added change the number of norms, not those of the first rows.
                apart = max(abs(a - b) / (max(a, b) or 1) for a, b in zip(mine, others, strict=False))
                # Rows that were all scaled to one length are alike in any two models.
                vary = min(max(norms) - _VARYING * min(norms) for norms in (mine, others)) > 0
                if apart > _UNLIKE or (apart < _ALIKE and vary):
                    return apart > _UNLIKE
        known = [{_last_part(n) for n in (m.name, *m.aliases) if n} - {""} for m in (self, other)]
        return all(known) and not known[0] & known[1]


def _last_part(name: str) -> str:
    """Return the last part of a path or id: one model is called by its id, folder or short name."""
    parts = [part for part in re.split(r"[/\\]", name) if part]
    if not parts or parts[-1] in (".", "..", "~"):
        return ""
    # The Hub's cache keeps owner/name at models--owner--name/snapshots/<commit>.
    if len(parts) > 2 and parts[-2] == "snapshots":
        return parts[-3].rsplit("--", maxsplit=1)[-1].casefold()
    return parts[-1].removeprefix("example:").casefold().removesuffix(".gguf")


@dataclass(frozen=True)
class Provenance:
    """Where an `Embeddings` was read from.

    Attributes
    ----------
    source : str
        The folder, file or Hugging Face id as it was asked for; ``"array"`` for an array in memory, the class
        for a model in memory.
    revision : str or None
        The commit of a Hugging Face repository.
    file : Path or None
        The model file that holds the tensor; of a file on the Hub the tensor alone, as the cache keeps it.
    tensor : str or None
        The tensor's name in that file.
    dtype : str or None
        The type in which the file stores it, as the file names it: ``"F32"``, ``"BF16"``, ...
    tied : bool
        Whether the model uses one matrix as input embedding and output (un)embedding.
    num_layers : int or None
        How many transformer layers the model has, by its config.json; None where that is not known.
    tokenizer : Path or None
        The file the tokens were read from.
    adapter : Path or None
        The file of the PEFT adapter that was merged into the tensor.
    notes : tuple of str
        Anomalies met while loading, each a sentence.
    bytes_fetched, bytes_stored : int or None
        Of a file on the Hugging Face Hub that is read by byte ranges: how many of its bytes were fetched (its
        header and the tensor), by this load or by an earlier one, and how many there are.
    state : FileState or None
        The state of `file` when it was read; `to_dict` leaves it out.
    row_norms : tuple of float
        The norms of some rows of the tensor, as `ModelInfo` has them; `to_dict` leaves them out.
    """

    source: str
    revision: str | None = None
    file: Path | None = None
    tensor: str | None = None
    dtype: str | None = None
    tied: bool = False
    num_layers: int | None = None
    tokenizer: Path | None = None
    adapter: Path | None = None
    notes: tuple[str, ...] = ()
    bytes_fetched: int | None = None
    bytes_stored: int | None = None
    state: FileState | None = field(default=None, repr=False, compare=False)
    row_norms: tuple[float, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, with the SHA-256, ready for JSON; if that is unavailable, a note says why."""
        plain = {name: str(v) if isinstance(v, Path) else v for name, v in asdict(self).items()}
        del plain["state"], plain["row_norms"]
        plain |= {"notes": list(self.notes), "sha256": None}
        try:
            plain["sha256"] = self.sha256
            if self.adapter is not None:
                plain["adapter_sha256"] = file_sha256(self.adapter)
        except LoadError as error:
            # A result must not be lost because the file that it was computed from is gone.
            plain["notes"] = [*self.notes, f"no SHA-256: {error}"]
        return plain

    @property
    def inputs(self) -> list[Path]:
        """The files and the folder that were read, where known: no result may overwrite them."""
        read = [path for path in (self.file, self.tokenizer, self.adapter) if path is not None]
        folder = Path(self.source).expanduser() if self.file is not None else None
        return [*read, folder] if folder is not None and folder.is_dir() else read

    @cached_property
    def sha256(self) -> str | None:
        """SHA-256 of the model file in hexadecimal, computed when first asked for; None if it is not known.

        The Hugging Face Hub names a large file by its SHA-256, so there nothing is read.

        Raises
        ------
        LoadError
            If the file is gone, is not as it was when the model was loaded, or cannot be read.
        """
        if self.state is not None and (self.state.part or self.state.sha256 is not None):
            return self.state.sha256
        if self.file is None:
            return None
        return file_sha256(self.file, self._check_unchanged)

    def _check_unchanged(self, descriptor: int) -> None:
        now = FileState.from_status(os.fstat(descriptor))
        if self.state and self.state.stamp and now.stamp != self.state.stamp:
            raise LoadError(f"{self.file} is not the file any more that was loaded; load it again")


def file_sha256(file: Path, check: Callable[[int], None] = lambda descriptor: None) -> str:
    """Return the SHA-256 of a file, whose descriptor is checked before and after it is read."""
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            check(stream.fileno())
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
            check(stream.fileno())
    except OSError as error:
        raise LoadError(f"{file} cannot be read for its SHA-256: {error.strerror}") from error
    return digest.hexdigest()
