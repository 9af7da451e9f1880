"""Models that project their residual stream to another size before the unembedding, as OPT-350m does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from embgeom._common.arrays import as_matrix
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.geometry.rows import row_stats
from embgeom.lm.layers import Layout, find, need_torch


class Projection(NamedTuple):
    """The linear layer between residual stream and unembedding."""

    name: str
    layer: Any
    size: int


def projection(layout: Layout) -> Projection | None:
    """Return the projection of a model; None where the unembedding has the size of the residual stream."""
    torch = need_torch()
    heads = [m.get_output_embeddings() for m in layout.above if hasattr(m, "get_output_embeddings")]
    shape: Any = next((head.weight.shape for head in heads if hasattr(head, "weight")), ())
    if layout.hidden_size is None or len(shape) != 2 or shape[1] == layout.hidden_size:
        return None
    for name, layer in layout.above[0].named_modules():
        # Layers hold linear maps of any shape; the projection stands beside them.
        fits = isinstance(layer, torch.nn.Linear) and layer.weight.shape == (shape[1], layout.hidden_size)
        if fits and not name.startswith(f"{layout.path}."):
            return Projection(name, layer, int(shape[1]))
    return None


def fold_projection(unembedding: Embeddings, model: Any, layer_modules: Any = None) -> Embeddings:
    """Return the unembedding as the residual stream meets it: times the model's projection.

    OPT-350m's residual stream has 1,024 columns, which ``project_out`` takes to the 512 of the unembedding.
    Maps that carry steering vectors, and vectors of words, need rows as wide as the residual stream.

    Parameters
    ----------
    unembedding : Embeddings
        What ``embgeom.load(name, "output")`` returns, V x w.
    model : transformers.PreTrainedModel
        The same model, with its projection from d to w columns.
    layer_modules : str or torch.nn.ModuleList, optional
        The model's layers, where they are not found by themselves.

    Returns
    -------
    Embeddings
        V x d, in float32, computed in float64: the logits of a normed state h are these rows times h.

    Raises
    ------
    InputError
        If the model has no such projection, or the sizes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from embgeom import Embeddings
    >>> from embgeom.steering import fold_projection
    >>> from transformers import OPTConfig, OPTForCausalLM
    >>> config = OPTConfig(vocab_size=3, hidden_size=8, word_embed_proj_dim=4, num_hidden_layers=1,
    ...     ffn_dim=8, num_attention_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=1)
    >>> rows = Embeddings.from_array(np.eye(3, 4), ["a", "b", "c"], which="output")
    >>> fold_projection(rows, OPTForCausalLM(config))
    Embeddings('array', output, 3 x 8)
    """
    found = projection(find(model, layer_modules))
    if found is None:
        raise InputError(
            f"{type(model).__name__} does not project its residual stream: take the unembedding as it is"
        )
    if unembedding.matrix.shape[1] != found.size:
        raise InputError(
            f"{unembedding!r} has {unembedding.matrix.shape[1]} columns, but {found.name} of "
            f"{type(model).__name__} gives {found.size}: it is another model's"
        )
    weight = found.layer.weight.detach().double().cpu().numpy()
    matrix = as_matrix(unembedding.matrix.astype("float64") @ weight, "the matrix").view()
    matrix.flags.writeable = False
    notes = (*unembedding.provenance.notes, f"the rows are multiplied with {found.name}, {weight.shape}")
    provenance = replace(unembedding.provenance, notes=notes)
    return replace(unembedding, matrix=matrix, row_stats=row_stats(matrix), provenance=provenance)
