"""A model's (un)embedding matrix with its tokens."""

from __future__ import annotations

import ast
import difflib
import operator
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, as_matrix, as_row_numbers
from embgeom._common.foreign import to_strings, type_name
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block
from embgeom.embeddings.provenance import FileState, ModelInfo, Provenance
from embgeom.embeddings.token_format import METASPACE, TokenFormat, TokenFormatOption, as_token_format, utf8
from embgeom.embeddings.token_text import is_special
from embgeom.errors import InputError
from embgeom.geometry.rows import RowStats, row_stats

_ROW = re.compile(r"<row ([0-9]{1,18})>")
_MARKS = (METASPACE, "Ġ")
# Comparing with each of 262,144 tokens would take seconds.
_SUGGESTIONS = 5
_COMPARED = 10_000
Which = Literal["input", "output"]
_PER_ROW = ("matrix", "tokens", "token_bytes", "special", "byte_token", "has_token")


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings(Result, Tabular):
    """A matrix of token embeddings and the tokens of its rows.

    Made by `embgeom.load` or `Embeddings.from_array`. Every per-row field has length V.

    Attributes
    ----------
    matrix : ndarray of float32, shape (V, d)
        One row for each token; C-contiguous and read-only; where the file allows it, a view of the file
        itself.
    tokens : list of str, length V
        The tokens as the tokenizer writes them; a row without a token is ``<row 50300>``.
    token_bytes : list of (bytes or None), length V
        What each token spells in running text, with its spaces; None for special tokens and for rows
        without a token.
    special : ndarray of bool, shape (V,)
        The tokenizer's special tokens.
    byte_token : ndarray of bool, shape (V,)
        Tokens that stand for one raw byte, such as ``<0x41>``. A vocabulary may also hold a text token for
        the same character.
    has_token : ndarray of bool, shape (V,)
        False for the rows beyond the tokenizer.
    which : {"input", "output"}
        Embedding or unembedding.
    name : str
        The name in tables and messages.
    row_stats : RowStats
        The norm of each row, the first row equal to it, and which rows are zero.
    tokens_beyond_rows : int
        How many tokens the tokenizer has for which the matrix has no row.
    provenance : Provenance
        The files it was read from.

    Raises
    ------
    InputError
        If the fields' lengths disagree.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> tokens = ["▁cat", "▁dog", "s"]
    >>> pets = embgeom.Embeddings.from_array(np.eye(3, dtype=np.float32), tokens, name="pets")
    >>> pets.row_of("dog"), pets.token_bytes[1]
    (1, b' dog')
    """

    _large: ClassVar[bool] = True

    matrix: Float32Matrix
    tokens: list[str]
    token_bytes: list[bytes | None]
    special: npt.NDArray[np.bool_]
    byte_token: npt.NDArray[np.bool_]
    has_token: npt.NDArray[np.bool_]
    which: Which
    name: str
    row_stats: RowStats
    tokens_beyond_rows: int
    provenance: Provenance

    def __post_init__(self) -> None:
        lengths = {field: len(getattr(self, field)) for field in _PER_ROW}
        if len(set(lengths.values())) != 1:
            raise InputError(
                f"the fields of Embeddings {self.name} disagree on the number of rows: {lengths}"
            )
        matrix = self.matrix.view()
        matrix.flags.writeable = False
        object.__setattr__(self, "matrix", matrix)

    @classmethod
    def from_array(
        cls,
        matrix: npt.ArrayLike,
        tokens: Sequence[str],
        *,
        name: str = "array",
        which: Which = "input",
        special: Sequence[str] | None = None,
        token_format: TokenFormatOption | None = None,
        threads: int | None = None,
    ) -> Embeddings:
        """Make an `Embeddings` from an array and a list of tokens.

        Parameters
        ----------
        matrix : array_like, shape (V, d)
            One row for each token: an array, a torch tensor or Parameter, a frame, gensim's KeyedVectors.
            float32 and C-contiguous is used as it is; anything else is converted once.
        tokens : sequence of str, length V
            The tokens of the rows.
        name : str
            The name in tables and messages.
        which : {"input", "output"}
            Whether the rows are an embedding or an unembedding.
        special : sequence of str, optional
            Those of `tokens` which are special and spell nothing. By default they are recognized by their
            names, such as ``</s>``, ``[CLS]`` or ``<|endoftext|>``, unless every token is a whole word, and a
            note in `provenance` says so.
        token_format : TokenFormat or "words", optional
            How `tokens` write text; by default it is guessed from their marks (``▁``, ``Ġ``, ``##``,
            ``<0x41>``).
            ``"words"``: every token is a whole word, which spells itself after a space.
        threads : int, optional
            All usable cores by default.

        Returns
        -------
        Embeddings
            With ``matrix`` (V, d) float32, a read-only view of the array given where that is float32 and
            C-contiguous.

        Raises
        ------
        InputError
            If `matrix` is not 2-D, is empty, or holds NaN or infinity (the row and its token are named), or
            if `tokens` is not a list of V strings, `which` is neither ``"input"`` nor ``"output"``, or
            `token_format` is neither a `TokenFormat` nor ``"words"``.

        Examples
        --------
        >>> import embgeom
        >>> embgeom.Embeddings.from_array([[1.0, 0.0], [0.0, 1.0]], ["Ġcat", "Ġdog"], name="pets")
        Embeddings('pets', input, 2 x 2)
        """
        array = as_matrix(matrix, "the matrix")
        tokens = to_strings(tokens, "the tokens")
        if which not in get_args(Which):
            raise InputError(f"which={which!r:.40} must be 'input' (embedding) or 'output' (unembedding)")
        if len(tokens) != len(array):
            raise InputError(f"{len(tokens)} tokens for {len(array)} rows; each row needs one")
        form = as_token_format(token_format) or TokenFormat.guess(tokens)
        stats = named_row_stats(array, tokens, threads=threads)
        named = [t for t in tokens if is_special(t)] if special is None and not form.whole_words else []
        specials = set(named if special is None else to_strings(special, "special"))
        notes = (
            [f"{len(named)} special tokens recognized by their names: {' '.join(named[:5])}"] if named else []
        )
        return cls(
            matrix=array,
            tokens=tokens,
            token_bytes=[None if t in specials else form.spell(t) or None for t in tokens],
            special=np.array([t in specials for t in tokens], dtype=bool),
            byte_token=np.array([form.is_byte(t) for t in tokens], dtype=bool),
            has_token=np.ones(len(tokens), dtype=bool),
            which=which,
            name=name,
            row_stats=stats,
            tokens_beyond_rows=0,
            provenance=Provenance(source="array", dtype=type_name(matrix), notes=tuple(notes)),
        )

    @property
    def zero(self) -> npt.NDArray[np.bool_]:
        """Which rows are all zero, shape (V,): a cosine with them is undefined."""
        return self.row_stats.zero

    @property
    def norms(self) -> Float64Vector:
        """The Euclidean norm of each row, float64, shape (V,)."""
        return self.row_stats.norms

    @property
    def model_info(self) -> ModelInfo:
        """The model that the matrix is of; without a name where a bare array has none."""
        known, columns = self.provenance, self.matrix.shape[1]
        sides = ("input", "output") if known.tied else (self.which,)
        norms: Any = {f"{side}_norms": known.row_norms for side in sides}
        # A file of one array is called by its file name, which is not a model's.
        if known.tensor is None and (known.file is not None or self.name == known.source):
            return ModelInfo(hidden_size=columns, num_layers=known.num_layers, **norms)
        aliases = (
            [] if known.tensor is None else [known.source, *([str(known.file.parent)] if known.file else [])]
        )
        return ModelInfo(self.name, known.revision, columns, known.num_layers, tuple(aliases), **norms)

    @cached_property
    def anomalies(self) -> dict[str, int]:
        """How many rows or tokens are not ordinary text tokens with a row of their own, by the reason."""
        return {
            "rows beyond the tokenizer": int(np.count_nonzero(~self.has_token)),
            "tokens beyond the rows": self.tokens_beyond_rows,
            "special tokens": int(np.count_nonzero(self.special)),
            "zero rows": int(np.count_nonzero(self.zero)),
            "rows equal to an earlier row": int(np.count_nonzero(self.row_stats.repeated)),
        }

    @cached_property
    def _by_token(self) -> dict[str, int]:
        return {t: row for row, t in reversed(list(enumerate(self.tokens)))}

    @cached_property
    def _by_bytes(self) -> dict[bytes, int]:
        # Of several rows that spell the same the first text token is wanted, so it is written last.
        text_last = np.lexsort((-np.arange(len(self.tokens)), ~self.byte_token))
        return {b: int(row) for row in text_last if (b := self.token_bytes[row]) is not None}

    def row_of(self, token: str | int) -> int:
        """Return the row of a token, as a person types it.

        The first of these that exists is taken: a placeholder ``"<row 42>"``; the token exactly as the
        tokenizer writes it (``"Ġdog"``); the token that spells exactly it (``"dog"``); the one that spells
        it with a leading space (``" dog"``), or with a trailing one (``"dog "``, in vocabularies that write
        a trailing space). A leading ``▁`` or ``Ġ`` is read as a space whichever of them the vocabulary uses,
        and escapes are read as tables show them. Where a byte-level vocabulary writes a lone byte as the
        letter that was typed, the token that spells the letter is taken. Among tokens that spell the same,
        text comes before a byte token, then the lower row. ``"42"`` is the token that spells 42; the
        integer 42 is the row.

        Parameters
        ----------
        token : str or int
            A token in any of the forms above, or a row number.

        Returns
        -------
        int
            The row, in [0, V).

        Raises
        ------
        InputError
            If there is no such token (close ones are listed) or no such row.
        """
        if not isinstance(token, str):
            try:
                return self._checked(operator.index(token))
            except TypeError as error:
                raise InputError(f"{token!r} is neither a token (a string) nor a row (an integer)") from error
        if match := _ROW.fullmatch(token):
            return self._checked(int(match[1]))
        for text in (token, _unescaped(token)):
            if (row := self._find(text)) is not None:
                return row
        close = _close(token, self.tokens)
        spelled = (repr(self.text(self._by_token[each])) for each in close)
        hint = f"; close in spelling: {', '.join(spelled)}" if close else ""
        raise InputError(f"{token!r} is not a token of {self.name} ({len(self)} rows){hint}")

    def _checked(self, row: int) -> int:
        if not 0 <= row < len(self):
            raise InputError(f"row {row} is outside {self.name}, whose rows are 0 to {len(self) - 1}")
        return row

    def _find(self, text: str) -> int | None:
        by_bytes = self._by_bytes
        written, spelled = self._by_token.get(text), by_bytes.get(utf8(text))
        # A byte-level vocabulary writes the byte 0xE9 as "é", but a person who types é means the letter.
        part = (by_bytes.get(bytes([byte])) == written for byte in range(0x80, 0x100))
        if written is not None and (spelled is None or text.isascii() or not any(part)):
            return written
        rows = (spelled, *(by_bytes.get(reading) for reading in _readings(text)))
        return next((row for row in rows if row is not None), None)

    def text(self, row: int) -> str:
        """Return what a row's token spells, as text, or the token itself if it spells nothing."""
        spelled = self.token_bytes[row]
        return self.tokens[row] if spelled is None else spelled.decode("utf-8", "backslashreplace")

    def select(self, rows: npt.ArrayLike) -> Embeddings:
        """Return the model with some of its rows only.

        Parameters
        ----------
        rows : array_like of int, shape (m,), or of bool, shape (V,)
            Different row numbers, in the order wanted; or which rows to keep.

        Returns
        -------
        Embeddings
            With m rows, numbered from 0, and a note in its provenance. Its matrix is a copy.

        Raises
        ------
        InputError
            If a row does not exist or is named twice, or none is left.

        Examples
        --------
        >>> import embgeom
        >>> model = embgeom.load("example:small")
        >>> model.select(~model.special)
        Embeddings('example:small', input, 4095 x 128)
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise InputError(
                    f"a mask of shape {chosen.shape} for {len(self)} rows of {self.name}; give one for each"
                )
            chosen = np.flatnonzero(chosen)
        chosen = as_row_numbers(chosen, len(self), "rows")
        if not chosen.size or len(np.unique(chosen)) != len(chosen):
            raise InputError(
                f"rows names {len(chosen)} rows of {self.name}, {len(np.unique(chosen))} of them different; "
                "name at least one, and each once"
            )
        note = f"{len(chosen)} of {len(self)} rows selected"
        first = self.row_stats.first_equal[chosen]
        _, position, group = np.unique(first, return_index=True, return_inverse=True)
        return replace(
            self,
            matrix=self.matrix[chosen],
            tokens=[self.tokens[row] for row in chosen.tolist()],
            token_bytes=[self.token_bytes[row] for row in chosen.tolist()],
            special=self.special[chosen],
            byte_token=self.byte_token[chosen],
            has_token=self.has_token[chosen],
            row_stats=RowStats(self.norms[chosen], position[group].astype(np.int64)),
            provenance=replace(self.provenance, notes=(*self.provenance.notes, note)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what this is and where it was read from, with the model file's SHA-256, but not its rows."""
        return {
            "result": "Embeddings",
            "name": self.name,
            "which": self.which,
            "shape": list(self.matrix.shape),
            "anomalies": dict(self.anomalies),
            "provenance": self.provenance.to_dict(),
        }

    def save(self, path: str | PathLike[str]) -> None:
        """Write the matrix, its tokens and its provenance as a safetensors file that `load` reads back.

        Raises
        ------
        OutputError
            If the file cannot be written, does not end in ``.safetensors``, or is one that the matrix was
            read from; then nothing changes.
        """
        origin = self.provenance
        known = replace(origin, state=FileState(sha256=origin.to_dict()["sha256"], part=True))
        Result.save(replace(self, provenance=known), path)

    def columns(self) -> Columns:
        """Return a row for each row of the matrix."""
        return {
            "token": self.tokens,
            "text": [self.text(row) for row in range(len(self))],
            "special": self.special,
            "byte_token": self.byte_token,
            "has_token": self.has_token,
            **self.row_stats.columns(),
        }

    def tables(self) -> list[Block]:
        """Return lines of text: the shape, the source, and the count of each anomaly."""
        origin = self.provenance
        revision = f" @ {origin.revision}" if origin.revision else ""
        lines: list[Block] = [repr(self), f"  source: {origin.source}{revision}"]
        if origin.tensor:
            tied = ", tied" if origin.tied else ""
            where = f" in {origin.file}" if origin.file else ""
            lines.append(f"  tensor: {origin.tensor} ({origin.dtype}{tied}){where}")
        if origin.bytes_fetched is not None and origin.bytes_stored is not None:
            lines.append(f"  fetched: {origin.bytes_fetched:,} of the file's {origin.bytes_stored:,} bytes")
        if origin.tokenizer:
            lines.append(f"  tokens: {origin.tokenizer}")
        lines += [f"  {what}: {count}" for what, count in self.anomalies.items()]
        return lines + [f"  note: {note}" for note in origin.notes]

    def _inputs(self) -> list[Path]:
        return self.provenance.inputs

    def __len__(self) -> int:
        return len(self.tokens)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[np.generic]:
        """Return the matrix, so that every function which takes an array takes an `Embeddings`."""
        if dtype is None or np.dtype(dtype) == self.matrix.dtype:
            return self.matrix.copy() if copy else self.matrix
        if copy is False:
            raise ValueError(f"the float32 matrix of {self.name} cannot be had as {dtype} without a copy")
        return self.matrix.astype(dtype)

    def __repr__(self) -> str:
        v, d = self.matrix.shape
        return f"Embeddings({self.name!r}, {self.which}, {v} x {d})"


def check_embeddings(model: object) -> Embeddings:
    if isinstance(model, Embeddings):
        return model
    shown = f"the string {model!r:.60}" if isinstance(model, str) else f"a {type(model).__name__}"
    raise InputError(f"{shown} is not an Embeddings: pass embgeom.load(...) of it")


def named_row_stats(matrix: Float32Matrix, tokens: Sequence[str], *, threads: int | None = None) -> RowStats:
    """Return `row_stats`, with an error that also names the token of a row with NaN or infinity."""
    try:
        return row_stats(matrix, threads=threads)
    except InputError as error:
        for start in range(0, len(matrix), 4096):
            bad = np.flatnonzero(~np.isfinite(matrix[start : start + 4096]).all(axis=1))
            if bad.size:
                row = start + int(bad[0])
                raise InputError(
                    f"row {row}, token {tokens[row]!r}, holds NaN or infinity; "
                    "repair the row in the checkpoint, or pass the finite rows to Embeddings.from_array"
                ) from error
        raise


def _readings(text: str) -> list[bytes]:
    """Return what else `text` may spell, best first: a word after a space, a word before one."""
    if text[:1] in _MARKS:
        text = " " + text[1:]
    if text.startswith(" "):
        return [utf8(text), utf8(text[1:] + " ")]
    return [utf8(" " + text), utf8(text + " ")]


def _unescaped(token: str) -> str:
    """Return `token` with the escapes in which tables show it read as characters."""
    if "\\" not in token:
        return token
    with warnings.catch_warnings():
        # An unknown escape is no reason to warn: it stays as it is.
        warnings.simplefilter("ignore")
        try:
            return str(ast.literal_eval(f'"{token}"'))
        except (SyntaxError, ValueError):
            return token


def _close(token: str, tokens: Sequence[str]) -> list[str]:
    core = _core(token)
    if not core:
        return []
    same = [t for t in tokens if _core(t) == core]
    cores = ((t, _core(t)) for t in tokens)
    alike = [t for t, c in cores if c[:1] == core[:1] and abs(len(c) - len(core)) <= 2][:_COMPARED]
    wanted = difflib.get_close_matches(core, {_core(t) for t in alike}, n=_SUGGESTIONS, cutoff=0.6)
    near = [t for best in wanted for t in alike if _core(t) == best]
    return list(dict.fromkeys(same + near))[:_SUGGESTIONS]


def _core(token: str) -> str:
    return token.strip(" ▁Ġ#").lower()
