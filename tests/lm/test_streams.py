"""Where the residual stream is: in tuples and lists, in several streams, and before a projection."""

import numpy as np
import pytest
import torch

import embgeom
from embgeom import Emb2Emb, InputError, SteeringVector
from embgeom.embeddings.provenance import ModelInfo
from embgeom.lm.layers import find
from embgeom.lm.states import read_states
from embgeom.steering import fold_projection, load_language_model

tf = pytest.importorskip("transformers", reason="transformers is not installed")
PAIRS = [("Tom was very happy.", "Tom was very sad."), ("They laughed.", "They cried.")]
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 0}
IDS = [[5, 6, 7, 8], [9, 10, 11, 12]]


@pytest.fixture(scope="module")
def tokenizer():
    return load_language_model("example:small").tokenizer


def openai_gpt():
    torch.manual_seed(0)
    return tf.OpenAIGPTLMHeadModel(tf.OpenAIGPTConfig(vocab_size=4096, n_embd=32, n_layer=3, n_head=4)).eval()


def test_a_layer_that_gives_a_list(tokenizer):
    """In GPT-1, which has no last norm, the last layer's output is what the unembedding meets."""
    model = openai_gpt()
    with torch.no_grad():
        expected = model(torch.tensor(IDS), output_hidden_states=True)
        read = read_states(model, find(model), IDS, [range(4)] * 2, [0, 2]).states
        for row, state in zip(read, (1, 3), strict=True):
            np.testing.assert_allclose(row, expected.hidden_states[state].reshape(8, 32).numpy(), atol=1e-6)
        vector = SteeringVector.train(model, tokenizer, PAIRS, layers=2)
        with vector.apply(model, 3):
            steered = model(torch.tensor(IDS)).logits
        added = 3 * torch.tensor(vector.directions[2]) @ model.lm_head.weight.T
    torch.testing.assert_close(steered, expected.logits + added, atol=1e-5, rtol=1e-4)


def gemma3n():
    config = tf.Gemma3nTextConfig(
        vocab_size=4096, vocab_size_per_layer_input=4096, hidden_size=32, hidden_size_per_layer_input=8,
        intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        num_kv_shared_layers=0, laurel_rank=4, activation_sparsity_pattern=None,
        layer_types=["full_attention"] * 3,
    )  # fmt: skip
    return tf.Gemma3nForCausalLM(config).eval()


class Streams(torch.nn.Module):
    """A model whose layers work on several streams at once, as hyper-connections do."""

    def __init__(self, last=2):
        super().__init__()
        self.config = tf.GPT2Config(vocab_size=4096, n_embd=32, n_layer=2, n_head=2)
        self.embed, self.layers = torch.nn.Embedding(4096, 32), torch.nn.ModuleList()
        for _ in range(2):
            self.layers.append(torch.nn.Identity())
        self.last = last

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, attention_mask=None, use_cache=False):
        states = self.embed(input_ids)
        if self.last == 4:
            states = states[:, :, None].repeat(1, 1, 4, 1)
        elif self.last == "turned":
            states = states.transpose(0, 1)
        elif self.last == "wide":
            states = torch.cat([states, states], dim=-1)
        for layer in self.layers:
            states = layer(states)
        return states


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (gemma3n, r"\(4, \d+, \d+, 32\), not \(batch, length, 32\)"),
        (lambda: Streams(4), r"\(\d+, \d+, 4, 32\), not \(batch, length, 32\)"),
        (lambda: Streams("wide"), r"\(\d+, \d+, 64\), not \(batch, length, 32\)"),
        (lambda: Streams("turned"), r"a layer works on \(\d+, \d+\) positions, but"),
    ],
    ids=["gemma3n", "hyper-connections", "wide", "turned"],
)
def test_a_layer_that_gives_no_single_stream(make, shape, tokenizer):
    model = make()
    with pytest.raises(InputError, match=shape):
        SteeringVector.train(model, tokenizer, PAIRS, layers=1)
    with (
        pytest.raises(InputError, match=r"not \(batch, length, 32\)|a layer gives"),
        torch.no_grad(),
        SteeringVector({1: np.ones(32)}).apply(model),
    ):
        model(torch.tensor([IDS[0][:3]]))
    with pytest.raises(InputError, match=r"stream|positions"):
        embgeom.compare_states(
            (model, tokenizer), (model, tokenizer), Emb2Emb.fit(*_rows(32), held_out=0), ["Tom was happy."]
        )


def _rows(width):
    generator = np.random.default_rng(0)
    return generator.standard_normal((100, width)), generator.standard_normal((100, width))


class Plain(Streams):
    """Takes no mask and no cache, as models of a beginner's own."""

    def forward(self, input_ids):
        return Streams.forward(self, input_ids)


class Hooked(Streams):
    """Looks like a HookedTransformer of TransformerLens."""

    def forward(self, input, return_type="logits"):
        return Streams.forward(self, input)

    def run_with_hooks(self, *arguments):
        raise NotImplementedError


class HookedTransformer(Streams):
    """Has nothing of it but the name."""


class Other(Streams):
    def forward(self, tokens):
        return Streams.forward(self, tokens)


def test_models_of_other_make(tokenizer):
    plain = Plain()
    pairs = [("Tom was happy", "Tom was sad"), ("They laughed", "They cried")]
    found = SteeringVector.train(plain, tokenizer, pairs, layers=1)
    ids = [tokenizer(text)["input_ids"][-1] for pair in pairs for text in pair]
    rows = plain.embed.weight.detach().numpy()[ids]
    np.testing.assert_allclose(found.directions[1], (rows[::2] - rows[1::2]).mean(0), atol=1e-6)
    for call in (
        lambda: SteeringVector.train(Hooked(), tokenizer, PAIRS),
        lambda: SteeringVector({1: np.ones(32)}).apply(Hooked()),
        lambda: SteeringVector({1: np.ones(32)}).apply(HookedTransformer()),
    ):
        with pytest.raises(
            InputError, match=r"Hooked\w* of TransformerLens is not supported.*hook_resid_post"
        ):
            call()
    with pytest.raises(InputError, match="Other takes no input_ids"):
        SteeringVector.train(Other(), tokenizer, PAIRS)


def opt():
    torch.manual_seed(0)
    config = tf.OPTConfig(
        vocab_size=4096, hidden_size=128, word_embed_proj_dim=64, ffn_dim=128, num_hidden_layers=2,
        num_attention_heads=4, do_layer_norm_before=False, pad_token_id=0, max_position_embeddings=64,
        init_std=0.2,
    )  # fmt: skip
    return tf.OPTForCausalLM(config).eval()


@pytest.fixture(scope="module")
def projected(tmp_path_factory, tokenizer):
    """An OPT whose residual stream is wider than its unembedding, and that unembedding."""
    folder = tmp_path_factory.mktemp("models") / "opt"
    opt().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_language_model(folder).model, embgeom.load(folder, "output")


def test_a_projection_is_named(projected, tokenizer):
    model, rows = projected
    large = embgeom.load("example:large", "output")
    there, back = Emb2Emb.fit(rows, large, held_out=0), Emb2Emb.fit(large, rows, held_out=0)
    vector = SteeringVector.train(model, tokenizer, PAIRS, layers=1)
    with pytest.raises(
        InputError, match=r"hidden size 128, and the source, opt, 64: the model projects .*project_out"
    ):
        there.transfer(vector, norm="raw")
    with pytest.raises(InputError, match=r"either it is another model's, or the model projects"):
        there.transfer(SteeringVector({1: np.ones(128)}), norm="raw")
    with pytest.raises(InputError, match=r"it is a vector of org/other; fit a map"):
        there.transfer(SteeringVector({1: np.ones(128)}, model_info=ModelInfo("org/other")), norm="raw")
    with pytest.raises(InputError, match=r"projects it to 64 before .*project_out.*fold_projection"):
        back.transfer(SteeringVector({1: np.ones(192)}), norm="raw").apply(model)
    with pytest.raises(InputError, match="it is another model's"):
        SteeringVector({1: np.ones(192)}).apply(model)


def test_a_projection_is_folded_in(projected, tokenizer):
    model, rows = projected
    folded = fold_projection(rows, model)
    assert folded.matrix.shape == (4096, 128) and folded.tokens == rows.tokens
    assert "project_out" in folded.provenance.notes[-1]
    with torch.no_grad():
        plain = model(torch.tensor(IDS)).logits
        happy = SteeringVector.from_words(folded, [" happy"], [" sad"], layers=1)
        with happy.apply(model, 2):
            steered = model(torch.tensor(IDS)).logits
    # Behind the last layer there is no norm in this model, so logits move by the rows' products.
    moved = 2 * folded.matrix @ happy.directions[1]
    np.testing.assert_allclose((steered - plain).numpy(), np.broadcast_to(moved, plain.shape), atol=2e-3)
    assert np.abs(moved).max() > 0.1
    large = embgeom.load("example:large", "output")
    vector = SteeringVector.train(model, tokenizer, PAIRS, layers=1)
    assert Emb2Emb.fit(folded, large, held_out=0).transfer(vector, norm="raw").hidden_size == 192
    back = Emb2Emb.fit(large, folded, held_out=0).transfer(
        SteeringVector({1: np.ones(192)}), layers=1, norm="raw"
    )
    with back.apply(model), torch.no_grad():
        model(torch.tensor(IDS))
    small = load_language_model("example:small").model
    with pytest.raises(InputError, match="does not project"):
        fold_projection(rows, small)
    with pytest.raises(InputError, match="has 128 columns, but"):
        fold_projection(folded, model)


@pytest.mark.parametrize(
    ("make", "ahead"),
    [
        (lambda: tf.MambaForCausalLM(tf.MambaConfig(**SMALL, state_size=4)), 0),
        (lambda: tf.RwkvForCausalLM(tf.RwkvConfig(**SMALL, context_length=32, attention_hidden_size=16)), 0),
        (lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**SMALL, num_attention_heads=2)), 1),
    ],
    ids=["mamba", "rwkv", "gpt2"],
)
def test_where_hidden_states_have_a_layer(make, ahead):
    """As SteeringVector's docstring says; the last of them has passed the last norm."""
    torch.manual_seed(0)
    model = make().eval()
    ids = [[5, 6, 7]]
    with torch.no_grad():
        states = model(torch.tensor(ids), output_hidden_states=True).hidden_states
    read = read_states(model, find(model), ids, [range(3)], [0, 1, 2]).states
    same = [[np.allclose(row, state[0].numpy(), atol=1e-5) for state in states] for row in read]
    for layer in range(3):
        places = [place for place, equal in enumerate(same[layer]) if equal]
        assert places == ([layer + ahead] if layer + ahead < len(states) - 1 else [])
