"""Files that hold one matrix and nothing else of a model: NumPy's arrays and word vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.spelling import Spelling
from embgeom.loading.assemble import assemble
from embgeom.loading.matrix_files.array_file import find_tokens, read_array
from embgeom.loading.matrix_files.word_vectors import read_word_vectors
from embgeom.loading.tokenizers.given import spelled, token_table
from embgeom.loading.tokenizers.table import TokenTable


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
    matrix, stored, table, state = read_word_vectors(path, progress=progress)
    table = spelled(replace(given, spelling=table.spelling) if given else table, spelling)
    provenance = Provenance(
        source=str(path), file=path, state=state, dtype=stored, tokenizer=table.file, notes=table.notes
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
    table = spelled(given or inside or token_table(find_tokens(path)), spelling)
    provenance = Provenance(
        source=str(path), file=path, state=state, tensor=tensor, dtype=stored, tokenizer=table.file
    )
    return assemble(matrix, table, which, path.stem, provenance, threads=threads)
