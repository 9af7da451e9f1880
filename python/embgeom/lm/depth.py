"""Layers of two models that lie equally deep."""

from __future__ import annotations

from embgeom._common.checks import whole_number


def matching_layer(layer: int, from_count: int, to_count: int) -> int:
    """Return the layer of another model that lies as deep, as a share of all layers.

    Parameters
    ----------
    layer : int
        A layer, counted from 0.
    from_count : int
        How many layers its model has.
    to_count : int
        How many layers the other model has.

    Returns
    -------
    int
        The layer, counted from 0, whose output has passed the share of layers nearest to
        ``(layer + 1) / from_count``; the deeper one where two are equally near. Never less than 0.

    Raises
    ------
    InputError
        If there is no such layer.

    Notes
    -----
    A simple guess, which knows nothing of the models; `StateComparison.match_layers` looks at their states.

    Examples
    --------
    >>> from embgeom.hidden_states import matching_layer
    >>> [matching_layer(layer, 4, 6) for layer in range(4)]
    [1, 2, 4, 5]
    """
    from_count = whole_number(from_count, "from_count", 1)
    to_count = whole_number(to_count, "to_count", 1)
    layer = whole_number(layer, "layer", 0, from_count - 1, hint="; layers are counted from 0")
    # In whole numbers, so that halves are rounded alike everywhere.
    passed = (2 * (layer + 1) * to_count + from_count) // (2 * from_count)
    return max(0, passed - 1)
