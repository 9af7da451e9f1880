"""The length of a vector by what it costs: its KL on neutral text, at scale 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from embgeom._common.checks import real_number
from embgeom.errors import InputError
from embgeom.evaluation.conditions import Condition
from embgeom.evaluation.run import EvaluateOptions, as_texts, check_added, on_neutral_text
from embgeom.examples import moods
from embgeom.steering.vector import SteeringVector

AT_KL = 0.2


def scale_to_kl(
    model: Any,
    tokenizer: Any,
    vector: SteeringVector,
    at_kl: float = AT_KL,
    *,
    neutral: Iterable[str] | None = None,
    batch_size: int = 8,
    layer_modules: Any = None,
) -> SteeringVector:
    """Scale a vector such that at scale 1 it changes the model's predictions on neutral text by a given KL.

    The length that a transferred vector should have is the target's matter, and this asks the target.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model to be steered.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    vector : SteeringVector
        What is scaled, by one factor for all of its layers; it is to be added.
    at_kl : float
        KL(unsteered || steered) of the next token, mean over the texts' tokens, in nats, met within 5 %.
    neutral : iterable of str, optional
        Neutral texts; by default ten of ``embgeom.examples.moods``.
    batch_size : int
        Texts in one forward pass.
    layer_modules : str or torch.nn.ModuleList, optional
        The layers, or their path in the model, where they are not found by themselves.

    Returns
    -------
    SteeringVector
        The vector times a positive number, which its provenance holds.

    Raises
    ------
    InputError
        If the vector does not fit the model or is not to be added, or no scale has that KL.

    Notes
    -----
    Some five forward passes over the texts; states below the first layer are computed once.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import scale_to_kl
    >>> small = embgeom.steering.load_language_model("example:small")
    >>> joy = embgeom.SteeringVector.from_words("example:small", [" happy"], [" sad"], layers=2)
    >>> 5 < scale_to_kl(*small, joy).norms[2] < 40
    True
    """
    wanted = real_number(at_kl, "at_kl")
    options = EvaluateOptions(at_kl=wanted, batch_size=batch_size, layer_modules=layer_modules)
    check_added([vector])
    texts = as_texts(moods.neutral_texts()[::3] if neutral is None else neutral, wanted) or []
    condition = Condition("transferred", "transferred", vector, 1.0)
    condition.check_fits(model, options.positions, layer_modules)
    _, ((found, cost, search),) = on_neutral_text(model, tokenizer, texts, [condition], options)
    if search == "not reached":
        raise InputError(
            f"no scale of the vector has a KL of {wanted:g} on the neutral text: the nearest is "
            f"{cost.kl:.3g} at {found.scale:.3g}; ask for another KL"
        )
    scaled = vector * found.scale
    norms = {str(layer): norm for layer, norm in scaled.norms.items()}
    about = {"kl": cost.kl, "times": found.scale, "texts": len(texts), "norms": norms}
    return replace(scaled, provenance={**vector.provenance, "scaled_to_kl": about})
