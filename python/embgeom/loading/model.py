"""`load`: from a folder, a file or a Hugging Face id to an `Embeddings`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

from embgeom._common.arrays import as_matrix
from embgeom._common.threads import resolve_threads
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormat, TokenFormatOption, as_token_format
from embgeom.errors import InputError, LoadError
from embgeom.loading.adapter import Adapter, adapter_source, adapter_within, tokenizer_source
from embgeom.loading.assemble import assemble
from embgeom.loading.checkpoint.checkpoint import USUAL_STEMS, Checkpoint, open_checkpoint, open_file
from embgeom.loading.checkpoint.model2vec import embeddings_name, token_rows
from embgeom.loading.checkpoint.tensor_names import Choice, choose_tensor, side_of
from embgeom.loading.config import ModelConfig
from embgeom.loading.convert import check_matrix
from embgeom.loading.folder import Source
from embgeom.loading.gguf.model import find_gguf, load_gguf
from embgeom.loading.matrix_files.array_file import ARRAY_SUFFIXES, load_array
from embgeom.loading.matrix_files.word_vectors import is_word_vectors, load_words
from embgeom.loading.memory.objects import load_object
from embgeom.loading.source import enter, find_local, find_source, refuse_options
from embgeom.loading.tokenizers.given import Tokens, given_tokens, spelled
from embgeom.loading.tokenizers.reading import read_tokens
from embgeom.loading.tokenizers.table import TokenTable


@overload
def load(
    model: str | os.PathLike[str],
    which: Which = "input",
    *,
    tokenizer: Any = None,
    tensor: str | None = None,
    vocabulary: Tokens | None = None,
    adapter: str | os.PathLike[str] | None = None,
    token_format: TokenFormatOption | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Embeddings: ...


@overload
def load(
    model: Any,
    tokenizer: Any = None,
    which: Which = "input",
    *,
    vocabulary: Tokens | None = None,
    token_format: TokenFormatOption | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Embeddings: ...


# The second argument has a name of its own in each form.
def load(  # type: ignore[misc]
    model: Any,
    tokenizer: Any = None,
    which: Any = None,
    *,
    tensor: str | None = None,
    vocabulary: Tokens | None = None,
    adapter: str | os.PathLike[str] | None = None,
    token_format: TokenFormatOption | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    threads: int | None = None,
    progress: bool = False,
) -> Embeddings:
    """Load the token embeddings of a model, from files or from memory.

    Three forms: ``load(path_or_id, which)``, of which only this one tensor is read; ``load(model, tokenizer,
    which)`` for a model in memory; ``load(matrix, vocabulary=tokens)`` for numbers in memory.

    Parameters
    ----------
    model : str, path-like, or object
        A Hugging Face model folder; a ``.safetensors``, ``.bin``, ``.pt``, ``.gguf``, ``.npy`` or ``.npz``
        file; a file of word vectors (``.txt``, ``.vec``, ``.bin``, ``.kv``); a Hugging Face id, ``name`` or
        ``owner/name``; or ``example:small`` or ``example:large``, the models that come with the package (see
        `embgeom.examples`). What exists here comes before such names.
        Or in memory: a model of transformers, also under PEFT's adapters, a sentence embedder, a layer; a
        NumPy array, a torch tensor or Parameter, a frame of polars or pandas whose columns are dimensions,
        gensim's KeyedVectors.
    tokenizer : object, optional
        The tokenizer of transformers or tokenizers, for a model in memory. Left out for a path, where the
        second argument is `which`.
    which : {"input", "output"}
        Embedding or unembedding; "input" by default, or where `tensor` names the model's output matrix,
        "output". They are the same in a tied model.
    tensor : str, optional
        The name of the tensor of a checkpoint, where the usual names and the shapes do not decide, or of the
        array of a .npz.
    vocabulary : sequence of str, mapping of str to int, or str or Path, optional
        The tokens, where the model's own are absent or not wanted: a list, a table of token to row, or a file
        (.txt with one token a line, .json with a list, a vocab.json or a tokenizer.json).
    adapter : str or path-like, optional
        The folder or id of a PEFT adapter, to be merged into the matrix of the model that it was trained on.
    token_format : TokenFormat or "words", optional
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
        If `which` is neither ``"input"`` nor ``"output"``, `token_format` is neither a `TokenFormat` nor
        ``"words"``, an option has no meaning for what is loaded, as `revision` has none for a model on this
        machine, or an object in memory has no such matrix.

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
    >>> embgeom.load([[1.0, 0.0], [0.0, 1.0]], vocabulary=["cat", "dog"]).row_of("dog")
    1
    """
    threads = resolve_threads(threads)
    side_said = which is not None or isinstance(tokenizer, str)
    tokenizer, which = _which(tokenizer, which)
    token_format = as_token_format(token_format)
    if not isinstance(tensor, str | None):
        raise InputError(f"tensor={tensor!r:.60} is no name of a tensor")
    of_models = {"adapter": adapter, "subfolder": subfolder}
    if not isinstance(model, str | os.PathLike):
        hub_only = {"revision": revision, "cache_dir": cache_dir, "token": token}
        refuse_options("what is in memory", tensor=tensor, **of_models, **hub_only)
        return load_object(
            model,
            which,
            tokenizer=tokenizer,
            vocabulary=vocabulary,
            token_format=token_format,
            threads=threads,
        )
    given = given_tokens(tokenizer, vocabulary)
    path, is_file = find_local(model, revision=revision, token=token)
    if is_file and path.suffix in ARRAY_SUFFIXES:
        refuse_options(f"{path}, an array", **of_models, cache_dir=cache_dir)
        return load_array(path, which, tensor, given, token_format, threads=threads, progress=progress)
    if is_file:
        refuse_options(f"{model}, a file", subfolder=subfolder)
    if is_file and is_word_vectors(path):
        refuse_options(f"{model}, which holds word vectors", tensor=tensor, **of_models, cache_dir=cache_dir)
        return load_words(path, which, given, token_format, threads=threads, progress=progress)
    hub: dict[str, Any] = {
        "cache_dir": cache_dir,
        "token": token,
        "local_files_only": local_files_only,
        "progress": progress,
    }
    source = find_source(model, revision=revision, **hub)
    source = source if is_file else enter(source, subfolder)
    if (gguf := find_gguf(path if is_file else source)) is not None:
        refuse_options(f"{model}, a GGUF model", adapter=adapter)
        return load_gguf(
            gguf,
            which,
            given,
            asked=str(model),
            revision=source.revision,
            tensor=tensor,
            token_format=token_format,
            threads=threads,
            progress=progress,
        )
    return _load_model(
        source,
        path if is_file else None,
        asked=str(model),
        which=which if side_said or tensor is None else None,
        tensor=tensor,
        given=given,
        token_format=token_format,
        adapter=None if adapter is None else adapter_source(adapter, **hub),
        threads=threads,
        progress=progress,
    )


def _load_model(
    source: Source,
    file: Path | None,
    *,
    asked: str,
    which: Which | None,
    tensor: str | None,
    given: TokenTable | None,
    token_format: TokenFormat | None,
    adapter: Source | None,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    """Load from the one `file` of tensors if it is given, else from those that `source` holds."""
    # A file is opened first, so that a wrong one is told first; of a folder or repository the small files are
    # read first, so that a missing tokenizer is told before gigabytes are fetched.
    checkpoint = Checkpoint.single(open_file(file)) if file else None
    config = ModelConfig.read(source)
    adapter = adapter or adapter_within(source, asked, file, tensor)
    change = None if adapter is None else Adapter.read(adapter)
    table = spelled(given or read_tokens(tokenizer_source(source, adapter)), token_format)
    checkpoint = checkpoint or open_checkpoint(source)
    choice = _choose(checkpoint, config, which or "input", tensor, table)
    which = which or side_of(checkpoint, config, choice.name, table.size)
    held_in = checkpoint.file(choice.name)
    shape = held_in.shape(choice.name)[:: -1 if choice.transposed else 1]
    check_matrix(shape, f"{choice.name} in {held_in.path}")
    notes = (
        checkpoint.notes + choice.notes + table.notes + _disagreements(shape, config) + config.notes(which)
    )
    if embeddings_name(checkpoint.names) == choice.name:
        matrix, more = token_rows(checkpoint.whole_file(choice.name), choice.name)
        notes += more
    else:
        matrix = held_in.read(choice.name, progress=progress)
    if choice.transposed:
        matrix = as_matrix(matrix.T)
    provenance = Provenance(
        source=asked,
        revision=source.revision,
        **checkpoint.origin(choice.name),
        tensor=choice.name,
        dtype=held_in.dtype(choice.name),
        tied=choice.tied,
        num_layers=config.num_layers,
        tokenizer=table.file,
        notes=notes,
    )
    if change is not None:
        matrix, tied, more = change.matrix(matrix, choice.name, which, choice.tied)
        provenance = replace(
            provenance, tied=tied, notes=provenance.notes + more, adapter=change.file.path if more else None
        )
    name = file.stem if file and file.stem not in USUAL_STEMS else source.name
    if change is not None and provenance.adapter is not None:
        name = f"{name} + {change.name}"
    return assemble(matrix, table, which, name, provenance, threads=threads)


def _choose(
    checkpoint: Checkpoint, config: ModelConfig, which: Which, tensor: str | None, table: TokenTable
) -> Choice:
    """Choose the tensor; that of model2vec may have fewer rows than there are tokens."""
    name = embeddings_name(checkpoint.names)
    if name is not None and tensor is None:
        if which == "output":
            raise LoadError(f"{checkpoint.where} is a model of model2vec, which has no output matrix")
        return Choice(name, tied=False)
    return choose_tensor(checkpoint, config, which, tensor, table.size)


def _which(tokenizer: Any, which: Any) -> tuple[Any, Which]:
    """Tell a tokenizer from the side, which is the second argument where there is no tokenizer."""
    if isinstance(tokenizer, str):
        if which is not None:
            raise InputError(f"tokenizer={tokenizer!r} is no tokenizer object; a file goes to vocabulary=")
        tokenizer, which = None, tokenizer
    which = "input" if which is None else which
    if which not in ("input", "output"):
        raise InputError(
            f"which={which!r}; it is 'input' or 'output' (a tokenizer's file goes to vocabulary=)"
        )
    return tokenizer, which


def _disagreements(shape: tuple[int, ...], config: ModelConfig) -> tuple[str, ...]:
    pairs = (("rows", shape[0], config.vocab_size), ("columns", shape[1], config.width))
    return tuple(
        f"the tensor has {held} {what}, config.json says {said}"
        for what, held, said in pairs
        if said not in (None, held)
    )
