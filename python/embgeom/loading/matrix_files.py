"""Files that hold one matrix and nothing else of a model: NumPy's arrays and word vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embgeom.embeddings import Embeddings, Which
from embgeom.errors import LoadError
from embgeom.loading.array_file import find_tokens, read_array, token_table
from embgeom.loading.assemble import assemble
from embgeom.loading.tokens import TokenTable
from embgeom.loading.word_vectors import read_word_vectors
from embgeom.provenance import Provenance
from embgeom.spelling import Spelling


def load_words(
    path: Path,
    which: Which,
    given: TokenTable | None,
    spelling: Spelling | None,
    *,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    """Load a file of word vectors; see `embgeom.load`."""
    matrix, stored, table = read_word_vectors(path, progress=progress)
    table = spelled(replace(given, spelling=table.spelling) if given else table, spelling)
    provenance = Provenance(
        source=str(path), file=path, dtype=stored, tokenizer=table.file, notes=table.notes
    )
    return assemble(
        matrix, table, which, Path(path.name.removesuffix(".gz")).stem, provenance, threads=threads
    )


def load_array(
    path: Path,
    which: Which,
    tensor: str | None,
    given: TokenTable | None,
    spelling: Spelling | None,
    *,
    threads: int | None,
    progress: bool,
) -> Embeddings:
    """Load a .npy or .npz; see `embgeom.load`."""
    matrix, stored, inside, state = read_array(path, tensor, progress=progress)
    if given is None and inside is not None and len(inside.tokens) != len(matrix):
        raise LoadError(
            f"{path} holds {len(inside.tokens)} tokens for {len(matrix)} rows; save as many, or pass "
            "vocabulary= (--vocabulary)"
        )
    table = spelled(given or inside or token_table(find_tokens(path)), spelling)
    provenance = Provenance(
        source=str(path), file=path, state=state, tensor=tensor, dtype=stored, tokenizer=table.file
    )
    return assemble(matrix, table, which, path.stem, provenance, threads=threads)


def spelled(table: TokenTable, spelling: Spelling | None) -> TokenTable:
    """Return the table with the spelling that the user says, if he says one."""
    return replace(table, spelling=spelling) if spelling else table
