"""What an evaluation records of its model, vectors, score and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from embgeom._common.record import digest, model_versions
from embgeom.lm.language_model import describe_model

if TYPE_CHECKING:
    from embgeom.evaluation.scores import Score
    from embgeom.steering import SteeringVector


def describe_vector(vector: SteeringVector) -> dict[str, Any]:
    """Return what is on record about a vector."""
    directions = {str(layer): direction.tolist() for layer, direction in vector.directions.items()}
    return {
        "model": vector.model,
        "norms": vector.norms,
        "directions_sha256": digest(directions),
        "provenance": dict(vector.provenance),
    }


def describe_run(
    model: Any, vectors: Mapping[str, Any], score: Score, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the provenance of a result."""
    return {
        "model": describe_model(model),
        **vectors,
        "score": score.describe(),
        "options": dict(options),
        "versions": model_versions(),
    }
