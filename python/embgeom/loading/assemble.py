"""A load request, and the step that turns a matrix and its tokens into an `Embeddings`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings, Which, named_row_stats
from embgeom.embeddings.provenance import Provenance, norm_rows
from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import InputError, LoadError
from embgeom.loading.tokenizers.table import TokenTable

# Matrices are padded by up to a few thousand rows, and a few tokens are added without a row; beyond that
# the tokenizer belongs to another model.
_LEAST_COVERED = 0.5
_MOST_BEYOND = 0.01
_ALWAYS_BEYOND = 16


@dataclass(frozen=True)
class LoadRequest:
    """What a user asks for: a model by its name, one of its matrices, and perhaps its tokens."""

    asked: str
    which: Which
    tensor: str | None
    vocabulary: TokenTable | None
    token_format: TokenFormat | None
    threads: int
    progress: bool
    name: str | None = None

    def tokens(self, read: Callable[[], TokenTable]) -> TokenTable:
        """Return the user's tokens, or else those that `read` returns, in the user's token format."""
        table = self.vocabulary or read()
        return replace(table, token_format=self.token_format) if self.token_format else table


def assemble(
    matrix: npt.NDArray[np.float32],
    table: TokenTable,
    name: str,
    provenance: Provenance,
    request: LoadRequest,
) -> Embeddings:
    rows, name = len(matrix), request.name or name
    has_token = np.zeros(rows, dtype=bool)
    has_token[[row for row in table.tokens if row < rows]] = True
    _check_fit(table, matrix.shape, int(np.count_nonzero(has_token)), name)
    tokens = [table.tokens.get(row, f"<row {row}>") for row in range(rows)]
    matrix = matrix.view()
    matrix.flags.writeable = False
    try:
        stats = named_row_stats(matrix, tokens, threads=request.threads)
    except InputError as error:
        raise LoadError(f"{name}: {error}") from error
    return Embeddings(
        matrix=matrix,
        tokens=tokens,
        token_bytes=[table.spell(row) for row in range(rows)],
        special=np.isin(np.arange(rows), list(table.special)),
        byte_token=np.array([table.token_format.is_byte(t) for t in tokens], dtype=bool),
        has_token=has_token,
        which=request.which,
        name=name,
        row_stats=stats,
        tokens_beyond_rows=sum(row >= rows for row in table.tokens),
        provenance=replace(
            provenance, tokenizer=table.file, row_norms=tuple(stats.norms[norm_rows(rows)].tolist())
        ),
    )


def disagreements(
    shape: tuple[int, ...], said: tuple[int | None, int | None], source: str
) -> tuple[str, ...]:
    """Return how the shape of a matrix differs from what the model says of itself, in sentences."""
    return tuple(
        f"the tensor has {held} {what}, {source} {number}"
        for what, held, number in zip(("rows", "columns"), shape, said, strict=True)
        if number not in (None, held)
    )


def _check_fit(table: TokenTable, shape: tuple[int, ...], covered: int, name: str) -> None:
    rows = shape[0]
    turned = " (transposed, it would fit)" if table.size == shape[1] else ""
    where = table.file or "the vocabulary given"
    if table.listed and table.size != rows:
        raise LoadError(
            f"{where} lists {table.size} tokens, and the matrix of {name} has {rows} rows: a list needs one "
            f"for each row, in order{turned}; a table from token to row (a dict, or a vocab.json) may leave "
            "rows out"
        )
    beyond = sum(row >= rows and row not in table.special for row in table.tokens)
    tolerated = max(_ALWAYS_BEYOND, int(_MOST_BEYOND * rows))
    if beyond > tolerated or covered < _LEAST_COVERED * rows:
        raise LoadError(
            f"the tokenizer does not fit {name}: {where} holds {table.size} tokens, the matrix {rows} rows"
            f"{turned}; {beyond} tokens that are not special have no row ({tolerated} are tolerated) and "
            f"{covered} rows have a token (half must); pass the model's own with vocabulary=, or another "
            "tensor=NAME"
        )
