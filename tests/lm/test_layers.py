"""The layers of a model are found in every layout, or the error says how to point at them."""

from types import SimpleNamespace

import pytest
import torch

from embgeom import InputError
from embgeom.lm.layers import find
from tests.helpers.steering import FAMILIES, LAYERS, WIDTH, tiny


def nested(path, length=3, config=True, **others):
    """Return a model with a list of modules at a path, and at those of `others` (written with __)."""
    model = torch.nn.Module()
    if config:
        model.config = SimpleNamespace(num_hidden_layers=3, hidden_size=4)
    for where, size in {path: length, **{k.replace("__", "."): v for k, v in others.items()}}.items():
        *names, last = where.split(".")
        module = model
        for name in names:
            if not hasattr(module, name):
                module.add_module(name, torch.nn.Module())
            module = getattr(module, name)
        module.add_module(last, torch.nn.ModuleList(torch.nn.Identity() for _ in range(size)))
    return model


@pytest.mark.parametrize(
    ("family", "path"),
    list(
        zip(
            FAMILIES,
            ("transformer.h", "model.layers", "gpt_neox.layers", "model.decoder.layers", "model.layers"),
            strict=True,
        )
    ),
)
def test_families(family, path):
    model = tiny(family)
    layout = find(model)
    assert (layout.path, len(layout.layers), layout.hidden_size) == (path, LAYERS, WIDTH)
    assert layout.above[0] is model and layout.above[-1] is layout.stack
    assert any(child is layout.layers for child in layout.stack.children())


@pytest.mark.parametrize(
    "path",
    [
        "model.layers",
        "transformer.h",
        "transformer.blocks",
        "gpt_neox.layers",
        "model.decoder.layers",
        "model.language_model.layers",
        "language_model.model.layers",
        "backbone.layers",
        "base_model.model.model.layers",
        "layers",
        "somewhere.else",
    ],
)
def test_layouts(path):
    assert find(nested(path)).path == path


def test_other_lists_do_not_matter():
    assert find(nested("model.language_model.layers", vision__layers=3)).path == "model.language_model.layers"
    assert find(nested("model.layers", vision__encoder__layers=5)).path == "model.layers"
    assert find(nested("odd.list", vision__layers=5)).path == "odd.list"
    assert find(nested("model.layers", config=False, other__list=5)).path == "model.layers"


def test_a_list_that_is_not_found_can_be_named():
    model = nested("one.list", two__list=3)
    with pytest.raises(InputError, match=r"one.list \(3\), two.list \(3\); say where .*layer_modules="):
        find(model)
    assert find(model, "two.list").path == "two.list"
    assert find(model, model.one.list).path == "one.list"
    with pytest.raises(
        InputError, match=r"'three' is not a ModuleList in the model; its lists are: one.list"
    ):
        find(model, "three")
    with pytest.raises(InputError, match="the ModuleList given is not a ModuleList in the model"):
        find(model, torch.nn.ModuleList())
    with pytest.raises(InputError, match="which are: none"):
        find(torch.nn.Linear(2, 2))


def test_models_that_cannot_be_steered_are_refused():
    model = nested("model.layers")
    model.config.is_encoder_decoder = True
    with pytest.raises(InputError, match="an encoder and a decoder"):
        find(model)


def test_a_missing_package_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install \"embgeom\[steer\]\""):
        find(None)
