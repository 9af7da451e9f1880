"""Hooks come and go without a trace, add up, and work in models of every make."""

import gc
import threading

import numpy as np
import pytest
import torch

from embgeom import InputError, SteeringVector
from tests.helpers.steering import (
    FAMILIES,
    LAYERS,
    LOGITS,
    NEW,
    WIDTH,
    additions,
    assert_logits_by_hand,
    by_hand,
    generate,
    greedy,
    hook_count,
    padded,
    prompts,
    steered_positions,
    tiny,
    vector,
)


def test_nothing_is_compiled_while_steered(monkeypatch):
    """A graph compiled before would run without the hooks, one compiled meanwhile would keep them."""
    config = pytest.importorskip("transformers").CompileConfig()
    config._compile_all_devices = True
    model, batch = tiny("llama"), padded(prompts(), "left")
    compiled = []
    monkeypatch.setattr(type(model), "get_compiled_call", lambda self, _: compiled.append(1) or self.__call__)
    with vector().apply(model):
        generate(model, batch, cache_implementation="static", compile_config=config)
    assert not compiled
    generate(model, batch, cache_implementation="static", compile_config=config)
    assert compiled


def test_a_config_of_the_callers_own_is_kept_and_not_changed(recwarn, caplog):
    config = pytest.importorskip("transformers").GenerationConfig(
        max_new_tokens=3, do_sample=False, pad_token_id=0
    )
    model, batch = tiny("llama"), padded(prompts(), "left")
    before = config.to_dict()
    with vector().apply(model):
        by_config = model.generate(**batch, generation_config=config)
        by_options = model.generate(**batch, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert by_config.tolist() == by_options.tolist()
    assert config.to_dict() == before and not recwarn.list and not caplog.records


def test_vectors_add_up_and_leave_in_any_order():
    model, plain, (prompt, *_) = tiny("gpt2"), tiny("gpt2"), prompts()
    one, two = vector([0, 1], seed=1), vector([1, 2], seed=2)

    def assert_steered_by(vectors):
        made = generate(model, {"input_ids": torch.tensor([prompt])}, **LOGITS)
        assert_logits_by_hand("gpt2", plain, [prompt], made, vectors, "all")

    first = one.apply(model, 1.5)
    with two.apply(model, -1), one.apply(model, 0.5):
        assert_steered_by([(one, 1.5), (two, -1), (one, 0.5)])
        first.remove()
        first.remove()
        assert_steered_by([(two, -1), (one, 0.5)])
    assert hook_count(model) == 0
    assert_steered_by([])


def test_vectors_with_positions_of_their_own():
    model, (prompt, *_) = tiny("gpt2"), prompts()
    one, two = vector([1], seed=1), vector([1], seed=2)
    with one.apply(model), two.apply(model, positions="generated"):
        out = generate(model, {"input_ids": torch.tensor([prompt])}, **LOGITS)
    whole = out.sequences[0].tolist()
    added = additions([True] * len(whole), [(one, 1)])
    added[1] = added[1] + additions(steered_positions("generated", len(prompt), len(whole)), [(two, 1)])[1]
    expected = by_hand("gpt2", model, whole, added)[len(prompt) - 1 : -1]
    torch.testing.assert_close(torch.cat(out.logits), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_go_when_something_fails(error):
    model, (prompt, *_) = tiny("gpt2"), prompts()

    def fail(*_):
        raise error

    failing = model.transformer.h[1].register_forward_hook(fail)
    with pytest.raises(error), vector().apply(model):
        generate(model, {"input_ids": torch.tensor([prompt])})
    failing.remove()
    assert hook_count(model) == 0
    expected = greedy("gpt2", model, prompt, NEW, [(vector(), 1)], "generated")
    with vector().apply(model, positions="generated"):
        made = generate(model, {"input_ids": torch.tensor([prompt])})[0, len(prompt) :].tolist()
    assert made == expected


def test_hooks_go_with_an_abandoned_generator():
    model = tiny("gpt2")

    def tokens():
        with vector().apply(model):
            while True:
                yield hook_count(model)

    made = tokens()
    assert next(made) > 0
    del made
    gc.collect()
    assert hook_count(model) == 0


def test_a_handle_says_whether_it_is_at_work():
    model = tiny("gpt2")
    handle = vector().apply(model)
    assert handle.active and repr(handle) == "Handle(layers 0, 2, active)"
    handle.remove()
    assert not handle.active and repr(handle) == "Handle(layers 0, 2, removed)"


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_pass(family):
    model, batch = tiny(family).train(), padded(prompts(), "right")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    with vector().apply(model):
        model(**batch, labels=batch["input_ids"]).loss.backward()
    steered = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model(**batch, labels=batch["input_ids"]).loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in steered)
    assert any(not torch.allclose(a, p.grad) for a, p in zip(steered, model.parameters(), strict=True))


def test_gradients_pass_recomputed_layers():
    model, batch = tiny("llama").train(), padded(prompts(), "right")
    with vector().apply(model):
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        kept = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        recompute = getattr(model, "activation_checkpointing_enable", None)
        (recompute or model.gradient_checkpointing_enable)({"use_reentrant": False})
        model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
    for expected, parameter in zip(kept, model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_threads_generate_side_by_side():
    model, sequences = tiny("llama"), prompts((4, 9))
    made = {}

    def run(row):
        batch = {"input_ids": torch.tensor([sequences[row]])}
        made[row] = [generate(model, batch)[0, len(sequences[row]) :].tolist() for _ in range(4)]

    with vector().apply(model, positions="generated"):
        threads = [threading.Thread(target=run, args=(row,)) for row in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for row in (0, 1):
        assert made[row] == [greedy("llama", model, sequences[row], NEW, [(vector(), 1)], "generated")] * 4


def test_a_scale_for_each_layer_and_layers_of_ones_own():
    model, (prompt, *_) = tiny("gpt2"), prompts()
    batch = {"input_ids": torch.tensor([prompt])}

    def made(*args, **options):
        with vector().apply(model, *args, **options):
            return generate(model, batch)[0, len(prompt) :].tolist()

    both = vector()
    scaled = [(both.select_layers([0]), 3.0), (both.select_layers([2]), -1.0)]
    assert made({0: 3.0, 2: -1}) == greedy("gpt2", model, prompt, NEW, scaled)
    assert made(2, layers=[2]) == greedy("gpt2", model, prompt, NEW, [(both.select_layers([2]), 2)])
    single = vector([0])
    elsewhere = SteeringVector({1: single.directions[0], 2: single.directions[0]})
    with single.apply(model, layers=[1, 2]):
        moved = generate(model, batch)[0, len(prompt) :].tolist()
    assert moved == greedy("gpt2", model, prompt, NEW, [(elsewhere, 1)])


class Wrapped(torch.nn.Module):
    """Calls the forward method of what it wraps, not the module, as adapters do."""

    def __init__(self, base_model):
        super().__init__()
        self.base_model = base_model
        self.config = base_model.config

    def forward(self, *args, **kwargs):
        return self.base_model.forward(*args, **kwargs)

    def generate(self, *args, **kwargs):
        return self.base_model.generate(*args, **kwargs)


@pytest.mark.parametrize("through", ["wrapper", "model"])
def test_a_wrapped_model(through):
    model, (prompt, *_) = tiny("llama"), prompts()
    wrapper = Wrapped(model)
    with vector().apply(wrapper, positions="generated"):
        out = generate(wrapper if through == "wrapper" else model, {"input_ids": torch.tensor([prompt])})
    assert out[0, len(prompt) :].tolist() == greedy("llama", model, prompt, NEW, [(vector(), 1)], "generated")
    assert hook_count(wrapper) == 0


def test_a_model_spread_by_accelerate():
    accelerate = pytest.importorskip("accelerate")
    model, (prompt, *_) = tiny("llama"), prompts()
    expected = greedy("llama", model, prompt, NEW, [(vector(), 1)], "generated")
    accelerate.cpu_offload(model, execution_device="cpu")
    with vector().apply(model, positions="generated"):
        out = generate(model, {"input_ids": torch.tensor([prompt])})
    assert out[0, len(prompt) :].tolist() == expected


def test_a_model_without_data():
    model = tiny("llama").to("meta")
    with vector().apply(model):
        assert model(input_ids=torch.ones(1, 4, dtype=torch.long, device="meta")).logits.is_meta


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("nan")}, "not finite"),
        ({"scale": "much"}, "must be a number"),
        ({"scale": "2"}, "must be a number"),
        ({"scale": {0: 1.0}}, "no number for layer 2"),
        ({"scale": {0: 1.0, 1: 1.0, 2: 1.0}}, "has a number for layer 1"),
        ({"layers": [1]}, "no direction for layer 1"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "two"}, "must be a layer number"),
        ({"positions": "last"}, '"generated" or a boolean mask'),
        ({"positions": "all", "generated": False}, "goes with a mask"),
        ({"positions": [[0.5]]}, "a mask is boolean"),
        ({"positions": object()}, "is unknown"),
        ({"layer_modules": "model.layers"}, "transformer.h"),
    ],
)
def test_wrong_options_are_refused_and_leave_nothing(options, message):
    model = tiny("gpt2")
    with pytest.raises(InputError, match=message):
        vector().apply(model, **options)
    assert hook_count(model) == 0


def test_a_vector_of_another_model_is_refused():
    model = tiny("gpt2")
    with pytest.raises(InputError, match=f"hidden size 8, .* {WIDTH}"):
        SteeringVector({0: np.ones(8)}).apply(model)
    with pytest.raises(InputError, match=f"no layer 7: the model has {LAYERS}"):
        vector([7]).apply(model)
    compiled = tiny("gpt2")
    compiled._compiled_call_impl = compiled.forward  # what torch.nn.Module.compile leaves
    with pytest.raises(InputError, match="a compiled model"):
        vector().apply(compiled)
    with pytest.raises(InputError, match="a str cannot be steered"):
        vector().apply("gpt2")
    assert hook_count(model) == 0


def test_a_mask_of_another_prompt_is_refused():
    model, batch = tiny("gpt2"), padded(prompts(), "left")
    with (
        vector().apply(model, positions=[True] * 3),
        pytest.raises(InputError, match="3 columns, the prompt 7"),
    ):
        generate(model, batch)
    mask = np.ones((2, 7), dtype=bool)
    with (
        vector().apply(model, positions=mask),
        pytest.raises(InputError, match="2 rows for 3 prompts"),
    ):
        generate(model, batch)
    # Nor are rows of a mask repeated for a batch of which they are a part.
    twice = {name: torch.cat([rows, rows]) for name, rows in batch.items()}
    with vector().apply(model, positions=np.ones((3, 7), dtype=bool)):
        for run in (generate, lambda model, given: model(**given)):
            with pytest.raises(InputError, match="3 rows for 6 prompts"):
                run(model, twice)
    assert hook_count(model) == 0


def test_a_direction_that_overflows_is_refused():
    model = tiny("gpt2", torch.float16)
    with vector().apply(model, 1e6), pytest.raises(InputError, match="load the model in bfloat16"):
        model(input_ids=torch.tensor([[3, 4]]))
