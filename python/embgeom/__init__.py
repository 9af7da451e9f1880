"""The geometry of language models' token embeddings, over whole vocabularies."""

# First, before anything that takes long to import: this handles Ctrl-C where the process is the command.
import embgeom._common.signals as _signals  # noqa: F401

# Public names are imported when first used, so that `import embgeom` is quick; __init__.pyi has their types.
_HOMES = {
    "comparison.atlas": ("Atlas", "atlas"),
    "comparison.changes": ("Diff",),
    "comparison.compare": ("compare",),
    "comparison.comparison": ("Comparison", "LocalGeometry"),
    "comparison.diff": ("diff",),
    "comparison.inspect": ("Inspection", "inspect"),
    "comparison.neighborhood": ("TokenNeighborhood", "TokenNeighborhoods", "inspect_token"),
    "emb2emb": ("Emb2Emb",),
    "embeddings.embeddings": ("Embeddings",),
    "embeddings.norm": ("FinalNorm",),
    "embeddings.provenance": ("Provenance",),
    "embeddings.token_format": ("TokenFormat",),
    "embeddings.vocabulary": ("Match", "match"),
    "errors": ("EmbgeomError", "EmbgeomWarning", "InputError", "LoadError", "OutputError"),
    "evaluation": ("Evaluation", "Sweep", "evaluate", "sweep", "transfer"),
    "geometry.agreement": ("neighbor_overlap", "weight_cosine"),
    "geometry.dimension": ("IntrinsicDimension", "intrinsic_dimension"),
    "geometry.knn": ("Neighbors", "knn"),
    "geometry.lle": ("LLE", "LLEStatus", "lle"),
    "geometry.rows": ("RowStats", "row_stats"),
    "geometry.similarity": ("global_similarity",),
    "hidden_states": ("StateComparison", "compare_states", "matching_layer"),
    "loading": ("load",),
    "loading.final_norm": ("load_final_norm",),
    "runs.cache": ("use_cache",),
    "runs.run": ("run",),
    "steering": ("SteeringVector",),
    "studies": ("Study",),
    "studies.study": ("study",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_PACKAGES = ("comparison", "emb2emb", "evaluation", "examples", "hidden_states", "steering", "studies")

__all__ = sorted([*_HOME, "__version__", "examples"])  # noqa: PLE0605


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in _HOME:
        value = getattr(import_module(f"embgeom.{_HOME[name]}"), name)
    elif name in _PACKAGES:
        value = import_module(f"embgeom.{name}")
    elif name == "__version__":
        value = import_module("importlib.metadata").version("embgeom")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
