"""`load`: from a folder, a file or a Hugging Face id to an `Embeddings`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embgeom._common.arrays import as_matrix
from embgeom._common.threads import resolve_threads
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import TokenFormatOption, as_token_format
from embgeom.errors import InputError, LoadError
from embgeom.loading.adapter import Adapter, adapter_source, adapter_within, tokenizer_source
from embgeom.loading.assemble import LoadRequest, assemble, disagreements
from embgeom.loading.checkpoint import checkpoint as files
from embgeom.loading.checkpoint.checkpoint import Checkpoint
from embgeom.loading.checkpoint.choice import Choice, Chooser, side_of
from embgeom.loading.config import ModelConfig
from embgeom.loading.folder import check_matrix, parse_json
from embgeom.loading.gguf.model import GGUFModel, find_gguf, load_gguf
from embgeom.loading.matrix_files.array_file import ARRAY_SUFFIXES, load_array
from embgeom.loading.matrix_files.word_vectors import holds_word_vectors, load_words
from embgeom.loading.memory import load_object
from embgeom.loading.safetensors_file import SafetensorsFile
from embgeom.loading.source import HubOptions, Source, enter, find_local, find_source, refuse_options
from embgeom.loading.tokenizers.reading import Vocabulary, given_tokens, read_tokens

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load(
    model: Any,
    tokenizer: Any = None,
    which: Which | None = None,
    *,
    tensor: str | None = None,
    vocabulary: Vocabulary | None = None,
    adapter: str | os.PathLike[str] | None = None,
    token_format: TokenFormatOption | None = None,
    subfolder: str | None = None,
    name: str | None = None,
    threads: int | None = None,
    progress: bool = False,
    **hub: Unpack[HubOptions],
) -> Embeddings:
    """Load the token embeddings of a model, from files or from memory.

    Three forms: ``load(path_or_id, which)``, which reads only this one tensor; ``load(model, tokenizer,
    which)`` for a model in memory; ``load(matrix, vocabulary=tokens)`` for numbers in memory.

    Parameters
    ----------
    model : str, path-like, or object
        A Hugging Face model folder; a ``.safetensors``, ``.bin``, ``.pt``, ``.gguf``, ``.npy`` or ``.npz``
        file; a file of word vectors (``.txt``, ``.vec``, ``.bin``, ``.kv``); what `Embeddings.save` wrote; a
        Hugging Face id, ``name`` or ``owner/name``; or ``example:small`` or ``example:large``, the
        models that come with the package (see `embgeom.examples`). What exists here comes before such names.
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
        How the tokens write text, where neither the tokenizer nor the tokens' own marks tell. ``"words"``:
        every token is a whole word; the default for files of word vectors.
    subfolder : str, optional
        The folder within the model that holds its weights, such as ``"text_encoder"``. For a sentence
        embedder it is found by its modules.json.
    name : str, optional
        What tables and messages call the model; by default the name of the folder, file or repository, or
        ``"array"`` for a matrix.
    threads : int, optional
        Threads for the scan of the rows; every core available to the process by default.
    progress : bool
        Whether to show progress bars, or a line a minute in a log.
    **hub
        For a Hugging Face id, as in huggingface_hub: ``revision``, the branch, tag or commit; ``token``, the
        access token for gated and private models; ``cache_dir``, the folder of the cache;
        ``local_files_only``, to use what the cache holds and fetch nothing.

    Returns
    -------
    Embeddings
        With ``matrix`` (V, d) float32, read-only. float16 and bfloat16 are converted exactly, float64 is
        rounded.

    Raises
    ------
    LoadError
        If the model, its tensor or its tokens cannot be found, read or matched to each other, or a row holds
        NaN or infinity. The message names the value and how to fix it.
    InputError
        If `which` is neither ``"input"`` nor ``"output"``, `token_format` is neither a `TokenFormat` nor
        ``"words"``, an option has no meaning for what is loaded, as `revision` has none for a model on this
        machine, an object in memory has no such matrix, or a package that reads the file is not installed.

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
    asked_side = which is not None or isinstance(tokenizer, str)
    tokenizer, which = _which(tokenizer, which)
    token_format = as_token_format(token_format)
    if not isinstance(tensor, str | None):
        raise InputError(f"tensor={tensor!r:.60} is not the name of a tensor")
    if not isinstance(name, str | None):
        raise InputError(f"name={name!r:.60} is not a name: give a string")
    if unknown := hub.keys() - HubOptions.__annotations__.keys():
        raise TypeError(f"load() got an unexpected keyword argument {min(unknown)!r}")
    is_name = isinstance(model, str | os.PathLike)
    tokens = given_tokens(tokenizer, vocabulary)
    request = LoadRequest(
        str(model) if is_name else "", which, tensor, tokens, token_format, threads, progress, name
    )
    of_models = {"adapter": adapter, "subfolder": subfolder, **hub, "local_files_only": None}
    if not is_name:
        refuse_options("what is in memory", tensor=tensor, **of_models)
        return load_object(model, request)
    path, is_file = find_local(model, **hub)
    if is_file and path.suffix in ARRAY_SUFFIXES:
        refuse_options(f"{path}, an array", **of_models)
        return load_array(path, request)
    if is_file and holds_word_vectors(path):
        refuse_options(f"{model}, which holds word vectors", tensor=tensor, **of_models)
        return load_words(path, request)
    if (saved := _saved(path, is_file=is_file)) is not None:
        refuse_options(f"{path}, a saved Embeddings", tensor=tensor, token_format=token_format, **of_models)
        refuse_options(f"{path}, which holds its tokens", vocabulary=vocabulary, tokenizer=tokenizer)
        if asked_side and which != saved.which:
            raise LoadError(f"{path} holds the {saved.which} side of {saved.name} alone, not {which!r}")
        return replace(saved, name=name or saved.name)
    source = find_source(model, progress=progress, **hub)
    if is_file:
        refuse_options(f"{model}, a file", subfolder=subfolder)
    else:
        source = enter(source, subfolder)
    if (gguf := find_gguf(path if is_file else source)) is not None:
        refuse_options(f"{model}, a GGUF model", adapter=adapter)
        return load_gguf(gguf, source.revision, request)
    change = None if adapter is None else adapter_source(adapter, progress=progress, **hub)
    known_side = asked_side or tensor is None
    return _load_model(source, path if is_file else None, change, request, known_side=known_side)


def declared_sizes(model: str | os.PathLike[str], **hub: Unpack[HubOptions]) -> ModelConfig:
    """Return what the files of a model say of its sizes, reading no weights; nothing where they cannot."""
    try:
        path, is_file = find_local(model, **hub)
        if is_file and (path.suffix in ARRAY_SUFFIXES or holds_word_vectors(path)):
            return ModelConfig()
        source = find_source(model, **hub)
        if (gguf := find_gguf(path if is_file else source)) is None:
            return ModelConfig.read(source)
        found = GGUFModel(gguf)
    except (LoadError, InputError):
        # Loading says what is wrong.
        return ModelConfig()
    size = found.integer("embedding_length")
    return ModelConfig(columns=size, hidden_size=size, num_layers=found.num_layers)


def _saved(path: Path, *, is_file: bool) -> Embeddings | None:
    kind, place = None, path
    if is_file and path.suffix == ".safetensors":
        fields = parse_json(
            SafetensorsFile(path).metadata.get("embgeom", "null").encode(), f"the header of {path}"
        )
        kind = fields.get("result") if isinstance(fields, dict) else None
        if kind == "Embeddings":
            return Embeddings.load(path)
    for result in ("Comparison", "Inspection"):
        if kind == result:
            place = path.parent
        elif (path / f"{result.lower()}.safetensors").is_file():
            kind = result
    if kind is not None:
        raise LoadError(f"{path} holds no model but a saved {kind}: read it by {kind}.load({str(place)!r})")
    return None


def _load_model(
    source: Source, file: Path | None, adapter: Source | None, request: LoadRequest, *, known_side: bool
) -> Embeddings:
    """Load from the one `file` of tensors if it is given, else from those that `source` holds."""
    # A file is opened first, so that a wrong one is reported first; of a folder or repository the small files
    # are read first, so that a missing tokenizer is reported before gigabytes are fetched.
    checkpoint = Checkpoint.single(files.open_file(file)) if file else None
    config = ModelConfig.read(source)
    adapter = adapter or adapter_within(source, request.asked, file, request.tensor)
    change = None if adapter is None else Adapter(adapter)
    table = request.tokens(lambda: read_tokens(tokenizer_source(source, adapter)))
    checkpoint = checkpoint or files.open_checkpoint(source)
    choice = _choose(checkpoint, config, request, table.size)
    tensor, tied = choice.name, choice.tied
    if not known_side:
        request = replace(request, which=side_of(checkpoint, config, tensor, table.size))
    held_in = checkpoint.file(tensor)
    shape = held_in.shape(tensor)[:: -1 if choice.transposed else 1]
    check_matrix(shape, f"{tensor} in {held_in.path}")
    computed: tuple[str, ...] = ()
    if files.embeddings_name(checkpoint.names) == tensor:
        matrix, computed = files.token_rows(checkpoint.whole_file(tensor), tensor)
    else:
        matrix = held_in.read(tensor, progress=request.progress)
    if choice.transposed:
        matrix = as_matrix(matrix.T)
    name = file.stem if file and file.stem not in files.USUAL_STEMS else source.name
    merged: tuple[str, ...] = ()
    if change is not None:
        matrix, tied, merged = change.matrix(matrix, tensor, request.which, tied)
        name = f"{name} + {change.name}" if merged else name
    said = disagreements(shape, (config.vocab_size, config.columns), "config.json says")
    notes = (*checkpoint.notes, *choice.notes, *table.notes, *said)
    provenance = Provenance(
        source=request.asked,
        revision=source.revision,
        **checkpoint.origin(tensor),
        tensor=tensor,
        dtype=held_in.dtype(tensor),
        tied=tied,
        num_layers=config.num_layers,
        adapter=change.file.path if change and merged else None,
        notes=(*notes, *config.notes(request.which), *computed, *merged),
    )
    return assemble(matrix, table, name, provenance, request)


def _choose(checkpoint: Checkpoint, config: ModelConfig, request: LoadRequest, vocabulary: int) -> Choice:
    """Choose the tensor; that of model2vec may have fewer rows than there are tokens."""
    name = files.embeddings_name(checkpoint.names)
    if name is None or request.tensor is not None:
        return Chooser(checkpoint, config, request.which, vocabulary).choose(request.tensor)
    if request.which == "output":
        raise LoadError(f"{checkpoint.where} is a model of model2vec, which has no output matrix")
    return Choice(name, tied=False)


def _which(tokenizer: Any, which: Any) -> tuple[Any, Which]:
    """Tell a tokenizer from the side, which is the second argument where there is no tokenizer."""
    if isinstance(tokenizer, str):
        if which is not None:
            raise InputError(f"tokenizer={tokenizer!r} is not a tokenizer object; a file goes to vocabulary=")
        tokenizer, which = None, tokenizer
    which = "input" if which is None else which
    if which not in ("input", "output"):
        raise InputError(
            f"which={which!r} must be 'input' (embedding) or 'output' (unembedding); a tokenizer's file goes "
            "to vocabulary="
        )
    return tokenizer, which
