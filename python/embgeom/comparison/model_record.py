"""What a result keeps of a model: its tokens and where it was read from, but not its matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embgeom._common.tables import Block, Table
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.provenance import Provenance


@dataclass(frozen=True, eq=False, repr=False)
class ModelRecord:
    """What was compared or inspected: all that is known of an `Embeddings` except its matrix.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the matrix, V and d.
    name, which, tokens, token_bytes, anomalies, provenance
        As those of `Embeddings`.
    """

    name: str
    which: Which
    shape: tuple[int, int]
    tokens: list[str]
    token_bytes: list[bytes | None]
    anomalies: dict[str, int]
    provenance: Provenance

    @classmethod
    def from_embeddings(cls, model: Embeddings) -> ModelRecord:
        rows, columns = model.matrix.shape
        known = model.tokens, model.token_bytes, model.anomalies, model.provenance
        return cls(model.name, model.which, (rows, columns), *known)

    def __repr__(self) -> str:
        return f"ModelRecord({self.name!r}, {self.which}, {self.shape[0]} x {self.shape[1]})"

    def to_dict(self) -> dict[str, Any]:
        """Return what this is and where it was read from, with the model file's SHA-256, ready for JSON."""
        return {
            "name": self.name,
            "which": self.which,
            "shape": list(self.shape),
            "anomalies": dict(self.anomalies),
            "provenance": self.provenance.to_dict(),
        }


def shown(model: Embeddings | ModelRecord, row: int) -> str:
    """Return a token in quotes, with its spaces; a token that is only part of a character as bytes."""
    spelled = model.token_bytes[int(row)]
    if spelled is None:
        return repr(model.tokens[int(row)])
    try:
        return repr(spelled.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(spelled)


def model_tables(title: str, *models: ModelRecord) -> list[Block]:
    """Return a table of matrices and their anomalies, and the notes made while loading them."""
    names = [f"{letter}: {model.name}" for letter, model in zip("AB", models, strict=False)]
    described = [_described(model) for model in models]
    rows = ((label, *(facts[label] for facts in described)) for label in described[0])
    notes = [
        f"{name}: {note}" if len(models) > 1 else f"note: {note}"
        for name, model in zip(names, models, strict=True)
        for note in model.provenance.notes
    ]
    table = Table(title, ("", *(names if len(models) > 1 else ("value",))), rows)
    return [table, *notes, ""] if notes else [table]


def _described(model: ModelRecord) -> dict[str, str]:
    origin = model.provenance
    return {
        "matrix": f"{model.which}, {model.shape[0]} x {model.shape[1]}",
        "tensor": f"{origin.tensor or 'none'}, stored as {origin.dtype}{', tied' if origin.tied else ''}",
        **{anomaly: str(count) for anomaly, count in model.anomalies.items()},
    }
