"""Maps that are fitted once: with the cache in use they are found again by what they were fitted on."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from embgeom._common.arrays import RowNumbers
from embgeom._common.native import build_digest, core, source_digest
from embgeom._common.record import array_digest, plain
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.methods import Method, as_method
from embgeom.emb2emb.pairs import Norms
from embgeom.embeddings.embeddings import Embeddings
from embgeom.runs.cache import active
from embgeom.runs.requests import Request


def fit(
    source: Embeddings,
    target: Embeddings,
    *,
    method: Method | str,
    tokens: tuple[RowNumbers, RowNumbers],
    norms: Norms = (None, None),
    threads: int | None = None,
    progress: Any = False,
    **options: Any,
) -> tuple[Emb2Emb, list[str]]:
    """Fit a map, or read it from the cache, and say what was read; `options` are those of `Emb2Emb.fit`."""
    method, models, cached = as_method(method), (source, target), active()

    def compute() -> Emb2Emb:
        given = {"method": method, "tokens": tokens, "norms": norms, "threads": threads, "progress": progress}
        return Emb2Emb.fit(source, target, **given, **options)

    if not cached.in_use:
        return compute(), []
    folded = [None if norm is None else [array_digest(norm.weight), norm.centers] for norm in norms]
    key = {
        "build": build_digest(),
        "source": source_digest(),
        "instructions": core.instruction_set(),
        "function": "Emb2Emb.fit",
        "matrices": [array_digest(model.matrix) for model in models],
        "rows": [array_digest(ids) for ids in tokens],
        "norms": folded,
        "method": plain(asdict(method)),
        "options": options,
    }
    shapes = [model.matrix.shape for model in models]
    request = Request(key, {"method": method.name}, shapes, 0, None, None, Emb2Emb)
    found = cached.once(request, [model.name for model in models], compute)
    # The same numbers may come from other files, by other names.
    about = {"source": source.to_dict(), "target": target.to_dict()}
    mapping = replace(
        found,
        names=(source.name, target.name),
        source=source.model_info,
        target=target.model_info,
        provenance={**found.provenance, **about},
    )
    return mapping, cached.served
