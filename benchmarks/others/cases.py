"""All cases, in the order in which they are measured."""

from __future__ import annotations

from others import alternating, dimension, imports, knn, lle, similarity

CASES = (
    *knn.CASES,
    *lle.CASES,
    *dimension.CASES,
    *similarity.CASES,
    *imports.CASES,
    *alternating.CASES,
)
MEASURES = tuple(dict.fromkeys(case.measure for case in CASES))
BY_NAME = {case.name: case for case in CASES}
