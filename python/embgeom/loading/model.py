"""`load`: from a folder, a file or a Hugging Face id to an `Embeddings`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from embgeom._arrays import as_matrix
from embgeom._threads import resolve_threads
from embgeom.embeddings import Embeddings, Which
from embgeom.errors import InputError
from embgeom.loading.array_file import ARRAY_SUFFIXES, Tokens, find_tokens, read_array, token_table
from embgeom.loading.assemble import assemble
from embgeom.loading.checkpoint import USUAL_STEMS, Checkpoint, open_checkpoint, open_file
from embgeom.loading.config import ModelConfig
from embgeom.loading.convert import check_matrix
from embgeom.loading.folder import Source
from embgeom.loading.gguf_model import find_gguf, load_gguf
from embgeom.loading.model2vec import embeddings_name, token_rows
from embgeom.loading.source import find_local, find_source
from embgeom.loading.subfolder import enter
from embgeom.loading.tensor_names import Choice, choose_tensor
from embgeom.loading.tokenizers import read_tokens
from embgeom.loading.tokens import TokenTable
from embgeom.loading.word_vectors import is_word_vectors, read_word_vectors
from embgeom.provenance import Provenance
from embgeom.spelling import Spelling, SpellingOption, as_spelling


def load(
    model: str | os.PathLike[str],
    which: Which = "input",
    *,
    tensor: str | None = None,
    tokens: Tokens | None = None,
    spelling: SpellingOption | None = None,
    subfolder: str | None = None,
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
    model : str or path-like
        A Hugging Face model folder; a ``.safetensors``, ``.bin``, ``.pt``, ``.gguf``, ``.npy`` or ``.npz``
        file; a file of word vectors (``.txt``, ``.vec``, ``.bin``, ``.kv``); a Hugging Face id, ``name`` or
        ``owner/name``; or ``example:small`` or ``example:large``, the models that come with the package (see
        `embgeom.examples`). What exists here comes before such names.
    which : {"input", "output"}
        Embedding or unembedding. They are the same in a tied model.
    tensor : str, optional
        The name of the tensor, where the usual names and the shapes do not decide.
    tokens : sequence of str, or str or Path, optional
        The tokens, where the model's own are absent or not wanted: a list, or a file (.txt with one token
        a line, .json with a list, a vocab.json or a tokenizer.json).
    spelling : Spelling or "words", optional
        How the tokens write text, where that is not to be told by the tokenizer or the tokens' own marks.
        ``"words"``: every token is a whole word; found by itself for files of word vectors.
    subfolder : str, optional
        The folder within the model that holds its weights, such as ``"text_encoder"``. For a sentence
        embedder it is found by its modules.json.
    revision : str, optional
        Branch, tag or commit of the repository, as in huggingface_hub; only for an id, as is `token`.
    cache_dir : str or path-like, optional
        The folder of the cache, of use for an id alone, as is `local_files_only`.
    token : str or bool, optional
        The access token for gated and private models.
    local_files_only : bool
        Whether to use what the cache holds and fetch nothing.
    threads : int, optional
        Threads for the scan of the rows; every core available to the process by default.
    progress : bool
        Whether to show progress bars.

    Returns
    -------
    Embeddings
        With ``matrix`` (V, d) float32, read-only. float16 and bfloat16 are converted exactly, float64 is
        rounded.

    Raises
    ------
    LoadError
        If the model, its tensor or its tokens cannot be found, read or matched to each other, or a row holds
        NaN or infinity. The message names the value and the way out.
    InputError
        If `which` is neither ``"input"`` nor ``"output"``, `spelling` is neither a `Spelling` nor
        ``"words"``, or `revision` or `token` is given with a model that is on this machine.

    Notes
    -----
    One tensor is read, by memory map, and the file's other tensors are not touched. Stored as float32 in C
    order, it is not copied: the matrix is the file's own pages, which the system may drop and read again. So
    the file must stay as it is while the matrix is in use; a process that reads pages which are gone is ended
    by the system.
    Any other type costs one converted copy of 4 V d bytes, made in pieces of 16 MiB. Members of a .npz and
    PyTorch files of the format before 1.6 cannot be mapped, and are read into memory. Every row is then
    visited once, for its norm and for NaN and infinity.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:large", "output")
    >>> model
    Embeddings('example:large', output, 4096 x 192)
    >>> model.provenance.tensor, model.provenance.dtype
    ('lm_head.weight', 'F16')
    """
    threads = resolve_threads(threads)
    if which not in ("input", "output"):
        raise InputError(f"which={which!r}; it is 'input' or 'output'")
    spelling = as_spelling(spelling)
    path, is_file = find_local(model, revision=revision, token=token)
    if is_file and path.suffix in ARRAY_SUFFIXES:
        return _load_array(path, which, tokens, spelling, threads=threads, progress=progress)
    if is_file and subfolder is not None:
        raise InputError(
            f"subfolder={subfolder!r} is for a folder or a Hugging Face id, and {model} is a file"
        )
    if is_file and is_word_vectors(path):
        if tensor is not None:
            raise InputError(f"tensor={tensor!r} has no meaning for {model}, which holds word vectors")
        return _load_words(path, which, tokens, spelling, threads=threads, progress=progress)
    if (gguf := find_gguf(path)) is not None:
        table = None if tokens is None else token_table(tokens)
        return load_gguf(
            gguf,
            which,
            table,
            asked=str(model),
            tensor=tensor,
            spelling=spelling,
            threads=threads,
            progress=progress,
        )
    source = find_source(
        model,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
        progress=progress,
    )
    return _load_model(
        source if is_file else enter(source, subfolder),
        path if is_file else None,
        asked=str(model),
        which=which,
        tensor=tensor,
        tokens=tokens,
        spelling=spelling,
        threads=threads,
        progress=progress,
    )


def _load_model(
    source: Source,
    file: Path | None,
    *,
    asked: str,
    which: Which,
    tensor: str | None,
    tokens: Tokens | None,
    spelling: Spelling | None,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    """Load from the one `file` of tensors if it is given, else from those that `source` holds."""
    # A file is opened first, so that a wrong one is told first; of a folder or repository the small files are
    # read first, so that a missing tokenizer is told before gigabytes are fetched.
    checkpoint = Checkpoint.single(open_file(file)) if file else None
    config = ModelConfig.read(source)
    table = _spelled(read_tokens(source) if tokens is None else token_table(tokens), spelling)
    checkpoint = checkpoint or open_checkpoint(source)
    choice = _choose(checkpoint, config, which, tensor, table)
    held_in = checkpoint.file(choice.name)
    shape = held_in.shape(choice.name)[:: -1 if choice.transposed else 1]
    check_matrix(shape, f"{choice.name} in {held_in.path}")
    matrix = held_in.read(choice.name, progress=progress)
    provenance = Provenance(
        source=asked,
        revision=source.revision,
        **checkpoint.origin(choice.name),
        tensor=choice.name,
        dtype=held_in.dtype(choice.name),
        tied=choice.tied,
        blocks=config.blocks,
        tokenizer=table.file,
        notes=(
            *checkpoint.notes,
            *choice.notes,
            *table.notes,
            *_disagreements(shape, config),
            *config.notes(which),
        ),
    )
    if embeddings_name(checkpoint.names) == choice.name:
        matrix, more = token_rows(checkpoint.whole_file(choice.name), choice.name)
        provenance = replace(provenance, notes=provenance.notes + more)
    elif choice.transposed:
        matrix = as_matrix(matrix.T)
    name = file.stem if file and file.stem not in USUAL_STEMS else source.name
    return assemble(matrix, table, which, name, provenance, threads=threads)


def _choose(
    checkpoint: Checkpoint, config: ModelConfig, which: Which, tensor: str | None, table: TokenTable
) -> Choice:
    """Choose the tensor; that of model2vec may have fewer rows than there are tokens."""
    name = embeddings_name(checkpoint.names)
    if name is not None and tensor is None:
        return Choice(name, tied=False)
    return choose_tensor(checkpoint, config, which, tensor, table.size)


def _load_words(
    path: Path,
    which: Which,
    tokens: Tokens | None,
    spelling: Spelling | None,
    *,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    matrix, stored, table = read_word_vectors(path, progress=progress)
    table = table if tokens is None else replace(token_table(tokens), spelling=table.spelling)
    table = _spelled(table, spelling)
    provenance = Provenance(
        source=str(path), file=path, dtype=stored, tokenizer=table.file, notes=table.notes
    )
    return assemble(
        matrix, table, which, Path(path.name.removesuffix(".gz")).stem, provenance, threads=threads
    )


def _load_array(
    path: Path,
    which: Which,
    tokens: Tokens | None,
    spelling: Spelling | None,
    *,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    matrix, stored, inside = read_array(path, progress=progress)
    table = token_table(tokens) if tokens is not None else inside or token_table(find_tokens(path))
    table = _spelled(table, spelling)
    provenance = Provenance(source=str(path), file=path, dtype=stored, tokenizer=table.file)
    return assemble(matrix, table, which, path.stem, provenance, threads=threads)


def _spelled(table: TokenTable, spelling: Spelling | None) -> TokenTable:
    """Return the table with the spelling that the user says, if he says one."""
    return replace(table, spelling=spelling) if spelling else table


def _disagreements(shape: tuple[int, ...], config: ModelConfig) -> tuple[str, ...]:
    pairs = (("rows", shape[0], config.vocab_size), ("columns", shape[1], config.width))
    return tuple(
        f"the tensor has {held} {what}, config.json says {said}"
        for what, held, said in pairs
        if said not in (None, held)
    )
