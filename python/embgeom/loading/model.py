"""`load`: from a folder, a file or a Hugging Face id to an `Embeddings`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embgeom.embeddings import Embeddings, Which, scan_named_rows
from embgeom.errors import InputError, LoadError
from embgeom.loading.array_file import ARRAY_SUFFIXES, Tokens, find_tokens, read_array, token_table
from embgeom.loading.checkpoint import Checkpoint, open_checkpoint, open_file
from embgeom.loading.config import ModelConfig
from embgeom.loading.folder import Folder, Source, unreadable
from embgeom.loading.hub import HubRepo, looks_like_repo_id
from embgeom.loading.tensor_names import choose_tensor
from embgeom.loading.tokens import TokenTable, read_tokens
from embgeom.provenance import Provenance

# Matrices are padded by up to a few thousand rows, and a few tokens are added without a row; beyond this
# the tokenizer belongs to another model.
_LEAST_COVERED = 0.5
_MOST_BEYOND = 0.01
_ALWAYS_BEYOND = 16


def load(
    model: str | os.PathLike[str],
    which: Which = "input",
    *,
    tensor: str | None = None,
    tokens: Tokens | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Embeddings:
    """Load the token embeddings of a model; only this one tensor of it is read.

    Parameters
    ----------
    model
        A Hugging Face model folder; a ``.safetensors``, ``.bin``, ``.pt``, ``.npy`` or ``.npz`` file; or a
        Hugging Face id, ``name`` or ``owner/name``. What exists here comes before an id.
    which
        ``"input"`` for the embedding, ``"output"`` for the unembedding. They are the same in a tied model.
    tensor
        The name of the tensor, where the usual names and the shapes do not decide.
    tokens
        The tokens, where the model's own are absent or not wanted: a list, or a file (.txt with one token
        a line, .json with a list, or a tokenizer.json).
    revision, cache_dir, token, local_files_only
        As in huggingface_hub; only for an id.
    threads
        Threads for the scan of the rows.
    progress
        Show progress bars.

    Returns
    -------
    Embeddings
        The matrix (V, d) float32, read-only; a view of the file itself where it is stored so. float16 and
        bfloat16 are converted exactly, float64 is rounded.

    Raises
    ------
    LoadError
        If the model, its tensor or its tokens cannot be found, read or matched to each other, or a row holds
        NaN or infinity. The message names the value and the way out.
    InputError
        If `which` is neither ``"input"`` nor ``"output"``.

    Examples
    --------
    >>> import tempfile, pathlib, numpy as np, embgeom.loading
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pets.npz"
    >>> np.savez(path, matrix=np.eye(2, dtype=np.float32), tokens=["▁cat", "▁dog"])
    >>> embgeom.loading.load(path)
    Embeddings('pets', input, 2 x 2)
    """
    if which not in ("input", "output"):
        raise InputError(f"which={which!r}; it is 'input' or 'output'")
    path = Path(model).expanduser()
    is_file, is_folder = _kind(path)
    if is_file and path.suffix in ARRAY_SUFFIXES:
        return _load_array(path, which, tokens, threads=threads, progress=progress)
    source: Source
    if is_file or is_folder:
        source = Folder(path.parent if is_file else path)
    elif looks_like_repo_id(str(model)):
        source = HubRepo(
            str(model),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            progress=progress,
        )
    else:
        raise LoadError(f"{model}: no such file or folder, and not a Hugging Face id either (owner/name)")
    config = ModelConfig.read(source)
    # The small files come first: a tokenizer that is missing should be told before gigabytes are fetched.
    table = read_tokens(source) if tokens is None else token_table(tokens)
    checkpoint = Checkpoint.single(open_file(path)) if is_file else open_checkpoint(source)
    choice = choose_tensor(checkpoint, config, which, tensor, table.size)
    file = checkpoint.file(choice.name)
    _check_matrix(file.shape(choice.name), f"{choice.name} in {file.path}")
    provenance = Provenance(
        source=str(model),
        revision=source.revision,
        file=file.path,
        tensor=choice.name,
        dtype=file.dtype(choice.name),
        tied=choice.tied,
        tokenizer=table.file,
        notes=choice.notes + _disagreements(file.shape(choice.name), config),
    )
    matrix = file.read(choice.name, progress=progress)
    name = path.stem if is_file else source.name
    return _assemble(matrix, table, which, name, provenance, threads=threads)


def _kind(path: Path) -> tuple[bool, bool]:
    """Return whether `path` is a file, and whether it is a folder that may be entered."""
    try:
        is_folder = path.is_dir()
        if is_folder:
            next(path.iterdir(), None)
        return path.is_file(), is_folder
    except OSError as error:
        raise unreadable(path, error) from error


def _load_array(
    path: Path, which: Which, tokens: Tokens | None, *, threads: int | None, progress: bool
) -> Embeddings:
    matrix, stored, inside = read_array(path, progress=progress)
    _check_matrix(matrix.shape, str(path))
    table = token_table(tokens if tokens is not None else inside if inside is not None else find_tokens(path))
    provenance = Provenance(source=str(path), file=path, dtype=stored, tokenizer=table.file)
    return _assemble(matrix, table, which, path.stem, provenance, threads=threads)


def _check_matrix(shape: tuple[int, ...], where: str) -> None:
    if len(shape) != 2 or 0 in shape:
        raise LoadError(f"{where} has shape {list(shape)}; it must be (tokens, width) and not empty")


def _disagreements(shape: tuple[int, ...], config: ModelConfig) -> tuple[str, ...]:
    pairs = (("rows", shape[0], config.vocab_size), ("columns", shape[1], config.width))
    return tuple(
        f"the tensor has {held} {what}, config.json says {said}"
        for what, held, said in pairs
        if said not in (None, held)
    )


def _assemble(
    matrix: NDArray[np.float32],
    table: TokenTable,
    which: Which,
    name: str,
    provenance: Provenance,
    *,
    threads: int | None,
) -> Embeddings:
    rows = len(matrix)
    has_token = np.zeros(rows, dtype=bool)
    has_token[[row for row in table.tokens if row < rows]] = True
    _check_fit(table, rows, int(np.count_nonzero(has_token)), name)
    tokens = [table.tokens.get(row, f"<row {row}>") for row in range(rows)]
    matrix = matrix.view()
    matrix.flags.writeable = False
    try:
        scan = scan_named_rows(matrix, tokens, threads=threads)
    except InputError as error:
        raise LoadError(f"{name}: {error}") from error
    return Embeddings(
        matrix=matrix,
        tokens=tokens,
        token_bytes=[table.spell(row) for row in range(rows)],
        special=np.isin(np.arange(rows), list(table.special)),
        byte_token=np.array([table.spelling.is_byte(t) for t in tokens], dtype=bool),
        has_token=has_token,
        which=which,
        name=name,
        rows=scan,
        tokens_beyond_rows=sum(row >= rows for row in table.tokens),
        provenance=provenance,
    )


def _check_fit(table: TokenTable, rows: int, covered: int, name: str) -> None:
    where = table.file or "tokens="
    beyond = sum(row >= rows and row not in table.special for row in table.tokens)
    tolerated = max(_ALWAYS_BEYOND, int(_MOST_BEYOND * rows))
    if beyond > tolerated or covered < _LEAST_COVERED * rows:
        raise LoadError(
            f"the tokenizer does not fit {name}: {where} holds {table.size} tokens, the matrix {rows} rows; "
            f"{beyond} tokens that are not special have no row ({tolerated} are tolerated) and {covered} "
            "rows have a token (half must); pass the model's own with tokens=, or another tensor with tensor=NAME"
        )
