"""A layer that a model leaves out, or runs past its hooks, is told of: an effect of nothing is no result."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch

from embgeom import EmbgeomWarning, InputError, SteeringVector
from embgeom.evaluation import EvaluateOptions, GenerationScore, SweepOptions, evaluate, sweep
from tests.helpers.evaluation import MOOD, PROMPTS, random_vector
from tests.helpers.evaluation import tiny as tiny_with_tokenizer
from tests.helpers.steering import generate, padded, prompts, tiny, vector

IDS = torch.tensor(prompts()[:1])
PAST = "past its hooks"


class Bare(torch.nn.ModuleList):
    """Gives the layers' methods instead of the layers, as the fast paths of other libraries run them."""

    past = None

    def __iter__(self):
        return iter(
            [
                b.forward if self.past is None or i in self.past else b
                for i, b in enumerate(super().__iter__())
            ]
        )

    def __getitem__(self, at):
        return list(iter(self))[at] if isinstance(at, slice) else super().__getitem__(at)


def bare(model, past=None):
    """Make a model run its layers, or some of them, past their hooks."""
    stack = model.transformer if hasattr(model, "transformer") else model.model
    name = "h" if hasattr(stack, "h") else "layers"
    layers = Bare(list(getattr(stack, name)))
    layers.past = past
    setattr(stack, name, layers)
    return model


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_a_layer_that_is_run_past_its_hooks(family):
    model = tiny(family)
    if family == "neox":
        model.gpt_neox.layers = Bare(list(model.gpt_neox.layers))
    else:
        bare(model)
    plain = model(IDS).logits
    told = pytest.warns(EmbgeomWarning, match=f"layer 0 was steered in 0 of 1 forward passes.*{PAST}")
    with told, vector().apply(model):
        steered = model(IDS).logits
    assert torch.equal(plain, steered)
    handle = vector().apply(model)
    generate(model, {"input_ids": IDS})
    with pytest.warns(EmbgeomWarning, match="layer 0 was steered in 0 of"):
        handle.remove()
    handle.remove()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_one_layer_of_two(context):
    model = bare(tiny("llama"), past={2})
    with (
        context(),
        pytest.warns(EmbgeomWarning, match="layer 2 was steered in 0 of 2"),
        vector().apply(model),
    ):
        model(IDS)
        model(IDS)
    with vector([0, 1]).apply(model) as handle:
        model(IDS)
        handle.check()


def test_a_stack_that_is_run_past_its_hooks():
    model = bare(tiny("gpt2"))
    stack = model.transformer
    model._modules["transformer"] = Past(stack)
    with pytest.warns(EmbgeomWarning, match="layer 0 was steered in 0 of 3"), vector().apply(model):
        for _ in range(3):
            model(IDS)


class Past(torch.nn.Module):
    """Runs a module past its hooks."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **options):
        return self.inner.forward(*args, **options)


def test_layers_that_are_dropped():
    model = tiny("opt").train()
    model.model.decoder.layerdrop = 0.5
    torch.manual_seed(0)
    told = pytest.warns(EmbgeomWarning, match=r"was steered in \d+ of 8 forward passes")
    with told, vector().apply(model):
        for _ in range(8):
            model(IDS)
    # Reading switches training off, and with it the dropping.
    with vector().apply(model.eval()):
        model(IDS)


def test_nothing_is_said_where_nothing_was_left_out():
    model = tiny("llama").train()
    recompute = getattr(model, "activation_checkpointing_enable", None)
    (recompute or model.gradient_checkpointing_enable)({"use_reentrant": False})
    batch = padded(prompts(), "right")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with vector().apply(model):
            pass
        with vector().apply(model):
            model(**batch, labels=batch["input_ids"], use_cache=False).loss.backward()
        with vector().apply(model), torch.inference_mode():
            generate(model.eval(), batch)
        # A pass that an error ends says nothing of the layers behind it.
        failing = model.model.layers[1].register_forward_hook(lambda *_: 1 / 0)
        with vector().apply(model):
            with pytest.raises(ZeroDivisionError):
                model(**batch)
            failing.remove()
            model(**batch)
        # An error within is told of, not the warning beside it.
        with pytest.raises(KeyError), vector().apply(bare(model)):
            model(**batch)
            raise KeyError


def test_vectors_are_not_trained_on_what_cannot_be_read():
    model, tokenizer = (copy.deepcopy(part) for part in tiny_with_tokenizer())
    pairs = [("Tom was happy.", "Tom was sad.")]
    with pytest.raises(InputError, match=f"layer 0 .*{PAST}"):
        SteeringVector.train(bare(model), tokenizer, pairs)
    model = copy.deepcopy(tiny_with_tokenizer()[0])
    with pytest.raises(InputError, match=f"layer 1 .*{PAST}"):
        SteeringVector.train(bare(model, past={1}), tokenizer, pairs)


def test_no_effect_of_nothing_is_shown():
    model, tokenizer = (copy.deepcopy(part) for part in tiny_with_tokenizer())
    bare(model)
    given = random_vector(model, [1])
    with pytest.raises(InputError, match="layer 1 was steered in 0 of"):
        evaluate(model, tokenizer, given, MOOD, PROMPTS, options=EvaluateOptions(random=0))
    with pytest.raises(InputError, match="layer 1 was steered in 0 of"):
        evaluate(
            model,
            tokenizer,
            given,
            GenerationScore(len, max_new_tokens=2),
            PROMPTS,
            options=EvaluateOptions(random=0),
        )
    with pytest.raises(InputError, match="layer 1 was steered in 0 of"):
        sweep(model, tokenizer, given, MOOD, PROMPTS, options=SweepOptions(random=0))


def test_a_model_is_not_copied_under_a_vector():
    model = tiny("gpt2")
    with vector().apply(model):
        for copied in (copy.deepcopy, pickle.dumps):
            with pytest.raises(InputError, match="copied or pickled while a vector"):
                copied(model)
    again = copy.deepcopy(model)
    np.testing.assert_array_equal(again(IDS).logits.detach(), model(IDS).logits.detach())


class Looped(torch.nn.Module):
    """Runs a stack several times over, as looped models do."""

    def __init__(self, stack, times):
        super().__init__()
        self.stack, self.times = stack, times

    def forward(self, input_ids=None, inputs_embeds=None, **options):
        output = self.stack(input_ids=input_ids, inputs_embeds=inputs_embeds, **options)
        for _ in range(self.times - 1):
            output = self.stack(inputs_embeds=output.last_hidden_state, **options)
        return output


def looped(times=3):
    model = tiny("llama")
    model.model = Looped(model.model, times)
    return model


def test_a_model_that_runs_its_layers_in_a_loop():
    model = looped()
    told = pytest.warns(
        EmbgeomWarning, match="ran 3 times in one forward pass, and the vector acted each time"
    )
    with told, vector().apply(model, layer_modules="model.stack.layers"):
        model(IDS)
        model(IDS)
    # Of several passes each counts by itself.
    plain = tiny("llama")
    with vector().apply(plain):
        plain(IDS)
        plain.model(IDS)
        plain(IDS)


def test_a_looped_model_is_not_read():
    model, tokenizer = tiny_with_tokenizer()
    model = copy.deepcopy(model)
    model.model = Looped(model.model, 2)
    with pytest.raises(InputError, match="layer 0 runs 2 times in one forward pass"):
        SteeringVector.train(model, tokenizer, [("a b", "a c")], layers=0, layer_modules="model.stack.layers")


def test_what_a_model_cannot_read_is_an_error_of_ours():
    model, tokenizer = tiny_with_tokenizer()
    hook = model.model.layers[1].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(InputError, match="LlamaForCausalLM cannot read texts: ZeroDivisionError"):
        SteeringVector.train(model, tokenizer, [("a b", "a c")], layers=2)
    hook.remove()
