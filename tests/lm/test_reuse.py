"""States that are computed once and used again, against passes that run every layer."""

from contextlib import ExitStack, contextmanager, nullcontext

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from transformers.modeling_outputs import CausalLMOutput  # noqa: E402

from embgeom.errors import InputError  # noqa: E402
from embgeom.lm import reuse  # noqa: E402
from embgeom.lm.layers import find, with_stream  # noqa: E402
from embgeom.lm.passes import REUSED, inference, logits_at, padded  # noqa: E402
from embgeom.lm.reuse import reused_below  # noqa: E402
from embgeom.lm.states import Tokenized, residual_states  # noqa: E402
from tests.helpers.tiny_models import Case, build, cases  # noqa: E402

ROWS, COLUMNS = [0, 0, 1, 2, 2], [3, 19, 0, 7, 9]
TEXTS = [[7 + (3 * i * i) % 80 for i in range(n)] for n in (20, 1, 10)]


class Letters:
    """A tokenizer of letters, whose tokens are within every tiny vocabulary."""

    def __call__(self, text, **_):
        return {"input_ids": [5 + ord(letter) % 90 for letter in text]}


@contextmanager
def added(model, steered, size=3.0):
    """Add something to the output of layers."""
    layers = find(model).layers

    def hook(_layer, _args, output):
        stream = output[0] if isinstance(output, tuple) else output
        ramp = torch.linspace(-size, size, stream.shape[-1])
        return with_stream(output, stream + ramp)

    with ExitStack() as hooks:
        for layer in steered:
            hooks.callback(layers[layer].register_forward_hook(hook).remove)
        yield


def logits(model, reused, *, left=False):
    """Logits of two batches for three vectors, in a context or plainly, and whether states were reused."""
    batches = [padded(model, TEXTS[:2], left=left), padded(model, TEXTS, left=left)]
    found = []
    with inference(model), reused_below(model, Letters(), 0) if reused else nullcontext():
        served = hasattr(model, REUSED)
        for size in (3.0, 0.0, -0.5):
            for rows, batch in ((3, batches[0]), (5, batches[1])):
                with added(model, [0, len(find(model).layers) - 1], size):
                    found.append(logits_at(model, batch, ROWS[:rows], COLUMNS[:rows]))
    return torch.cat(found).float(), served


FAST = ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text", "qwen2", "mamba", "mamba2", "bloom", "falcon"]
FAST = [case for case in cases("causal") if case.model_type in FAST]


@pytest.mark.parametrize("case", FAST, ids=str)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_nothing_but_time_differs(case, left):
    model = build(case)
    plain, _ = logits(model, False, left=left)
    again, served = logits(model, True, left=left)
    assert served and torch.equal(again, plain) and not hasattr(model, REUSED)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_causal_model():
    refused = set()
    for case in cases("causal"):
        try:
            model = build(case)
            plain, _ = logits(model, False)
        except Exception:
            # Some are not built tiny, or do not run on text alone, or keep no single residual stream.
            continue
        again, served = logits(model, True)
        close = torch.allclose(again, plain, rtol=0, atol=1e-5 * float(plain.abs().max()), equal_nan=True)
        assert close, case
        refused |= set() if served else {case.model_type}
    # These hand on more than their layers' output, or give NaN, so that every layer runs each time.
    assert len(refused) < 20, sorted(refused)


def test_layers_below_run_once_for_each_batch():
    model, ran = build(Case("llama", "LlamaForCausalLM", "causal")), []
    layers = find(model).layers
    for number, layer in enumerate(layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    batch = padded(model, TEXTS)
    with inference(model), reused_below(model, Letters(), 0):
        ran.clear()
        for _ in range(3):
            with added(model, [0]):
                assert logits_at(model, batch, ROWS, COLUMNS).shape == (5, 120)
    assert ran == [0, 1, 1, 1]
    assert not any("forward" in layer.__dict__ for layer in layers)


def test_only_some_positions_are_unembedded(monkeypatch):
    model, shapes = build(Case("llama", "LlamaForCausalLM", "causal")), []
    model.lm_head.register_forward_hook(lambda _head, args, _out: shapes.append(tuple(args[0].shape)))
    batch = padded(model, TEXTS)
    with inference(model):
        some = logits_at(model, batch, ROWS, COLUMNS)
        monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
        torch.testing.assert_close(some, logits_at(model, batch, ROWS, COLUMNS))
    assert shapes == [(1, 5, 32), (3, 20, 32)] and not model.lm_head._forward_pre_hooks


def test_without_memory_every_layer_runs(monkeypatch):
    monkeypatch.setattr(reuse, "MOST_BYTES", 0)
    model = build(Case("llama", "LlamaForCausalLM", "causal"))
    assert logits(model, True)[1] is False


class Odd(torch.nn.Module):
    """A model of two layers; they share what only the first computes, or run twice."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.config = transformers.GPT2Config(vocab_size=120, n_embd=16, n_layer=2, n_head=2)
        self.embed = torch.nn.Embedding(120, 16)
        self.layers = torch.nn.ModuleList([Layer(self, kind), Layer(self, kind)])
        self.head = torch.nn.Linear(16, 120)
        self.kind, self.shared = kind, None

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        hidden = self.embed(input_ids)
        if self.kind == "passed on":
            self.shared = None
        for layer in [*self.layers] * (2 if self.kind == "looped" else 1):
            hidden = layer(hidden)
        return CausalLMOutput(logits=self.head(hidden))


class Layer(torch.nn.Module):
    def __init__(self, model, kind):
        super().__init__()
        self.linear, self.kind = torch.nn.Linear(16, 16), kind
        self.above = [model]

    def forward(self, hidden):
        (model,), found = self.above, torch.tanh(self.linear(hidden))
        if self.kind != "looped":
            if self is model.layers[0]:
                model.shared = hidden
            else:
                found = found + model.shared
        return hidden + found


@pytest.mark.parametrize("kind", ["left behind", "passed on", "looped"])
def test_models_whose_layers_hand_on_more(kind):
    model = Odd(kind).eval()
    plain, _ = logits(model, False)
    again, served = logits(model, True)
    assert not served and torch.equal(again, plain)


def test_a_failing_pass_leaves_the_model_as_it_was():
    model = build(Case("llama", "LlamaForCausalLM", "causal"))
    with pytest.raises(InputError), inference(model), reused_below(model, Letters(), 0):
        assert hasattr(model, REUSED)
        raise InputError("no")
    assert not hasattr(model, REUSED) and "forward" not in find(model).layers[0].__dict__


def test_what_is_added_in_place_after_it_does_not_add_up():
    model = build(Case("llama", "LlamaForCausalLM", "causal"))
    batch = padded(model, TEXTS)

    def hook(_layer, _args, output):
        (output[0] if isinstance(output, tuple) else output).add_(0.3)

    with inference(model), reused_below(model, Letters(), 0):
        handle = find(model).layers[0].register_forward_hook(hook)
        first, *others = (logits_at(model, batch, ROWS, COLUMNS) for _ in range(4))
        handle.remove()
    assert all(torch.equal(first, other) for other in others)


def test_a_context_within_another_reuses_its_own_states():
    model = build(Case("llama", "LlamaForCausalLM", "causal"))
    batch = padded(model, TEXTS)
    with inference(model), added(model, [0]):
        plain = logits_at(model, batch, ROWS, COLUMNS)
    with inference(model), reused_below(model, Letters(), 1):
        unsteered = logits_at(model, batch, ROWS, COLUMNS)
        outer = model.__dict__[REUSED]
        with reused_below(model, Letters(), 0), added(model, [0]):
            assert model.__dict__[REUSED] is not outer
            for _ in range(2):
                assert torch.equal(logits_at(model, batch, ROWS, COLUMNS), plain)
        assert model.__dict__[REUSED] is outer
        assert torch.equal(logits_at(model, batch, ROWS, COLUMNS), unsteered)
    assert not hasattr(model, REUSED) and "forward" not in find(model).layers[0].__dict__


def test_states_of_a_model_that_loops_are_not_read():
    prompts = [Tokenized([5, 6, 7], np.array([1, 2]))]
    with pytest.raises(InputError, match="its layers in a loop"):
        residual_states(Odd("looped").eval(), prompts, batch_size=1, report=None, phase="")
