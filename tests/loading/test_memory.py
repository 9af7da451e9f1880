"""Models, tokenizers, tensors, frames and word vectors in memory: the matrix that runs, the right tokens."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import embgeom
from embgeom.errors import EmbgeomError, InputError, LoadError
from tests.helpers.loading import added_token, data, matrix, tokenizer, words, write_folder

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

E, H = matrix(40, 8), matrix(40, 8, 1)
EXAMPLES = {"small": embgeom.examples.pair().small, "large": embgeom.examples.pair().large}


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request):
    """The name of a bundled model, the running model, and its tokenizer."""
    folder = EXAMPLES[request.param]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return f"example:{request.param}", model, transformers.AutoTokenizer.from_pretrained(folder)


def tiny(**config):
    small = {"vocab_size": 40, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**small, **heads, **config)).eval()


@pytest.mark.parametrize("which", ["input", "output"])
def test_a_model_in_memory_is_what_its_folder_is(example, which):
    name, model, tokens = example
    stored = embgeom.load(name, which)
    for loaded in (
        embgeom.load(model, tokens, which),
        embgeom.load(model, which=which, tokenizer=tokens),
        embgeom.load(model, tokens.backend_tokenizer, which),
        embgeom.load(model, which),
        embgeom.load(model, which=which, vocabulary=tokens),
    ):
        assert np.array_equal(loaded.matrix, stored.matrix) and loaded.which == which
        assert loaded.tokens == stored.tokens and loaded.token_bytes == stored.token_bytes
        assert np.array_equal(loaded.special, stored.special)
        assert loaded.provenance.tied == stored.provenance.tied
        assert loaded.provenance.num_layers == stored.provenance.num_layers
        assert loaded.provenance.dtype == "float16" and "in memory" in loaded.provenance.source
    assert dict(model.named_parameters()).keys() >= {loaded.provenance.tensor}
    assert json.dumps(loaded.to_dict())


def test_the_matrix_stays_when_the_model_learns():
    model = tiny()
    loaded = embgeom.load(model, vocabulary=words(40))
    before = loaded.matrix.copy()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(2)
    assert np.array_equal(loaded.matrix, before)


def test_what_runs_counts_and_not_what_the_config_says():
    model = tiny(tie_word_embeddings=True)
    assert embgeom.load(model, vocabulary=words(40)).provenance.tied
    model.lm_head.weight = torch.nn.Parameter(torch.tensor(H))
    loaded = embgeom.load(model, which="output", vocabulary=words(40))
    assert np.array_equal(loaded.matrix, H) and not loaded.provenance.tied
    model.resize_token_embeddings(48, mean_resizing=False)
    assert len(embgeom.load(model, vocabulary=words(48))) == 48


def test_tokens_added_in_memory_are_there(example):
    _, model, tokens = example
    model = type(model)(type(model.config).from_dict({**model.config.to_dict(), "vocab_size": 4098}))
    folder_of = embgeom.examples.pair().small
    tokens = transformers.AutoTokenizer.from_pretrained(folder_of)
    tokens.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    tokens.add_tokens(["zyx word"])
    loaded = embgeom.load(model, tokens)
    assert loaded.tokens[4096:] == ["<|mark|>", "zyx word"] and loaded.special[4096:].tolist() == [
        True,
        False,
    ]
    assert loaded.token_bytes[4096:] == [None, b"zyx word"]


@pytest.mark.model
@pytest.mark.parametrize("model", ["gpt2", "gpt-neox-20b"])
def test_tokenizers_of_real_models(model):
    file = data("tokenizers", model) / "tokenizer.json"
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token="<|endoftext|>")
    rows = max(tokens.get_vocab().values()) + 1
    matrix_of = np.ones((rows, 2), np.float32)
    loaded, stored = embgeom.load(matrix_of, tokens), embgeom.load(matrix_of, vocabulary=file)
    assert loaded.tokens == tokens.convert_ids_to_tokens(list(range(rows)))
    assert loaded.token_bytes == stored.token_bytes and all(loaded.special[tokens.all_special_ids])


def test_a_tokenizer_written_in_python():
    class Slow:
        vocab_size, all_special_ids = 4, [0]
        added_tokens_decoder = {0: SimpleNamespace(content="<s>", special=True)} | {
            4: SimpleNamespace(content="added▁", special=False)
        }

        def get_vocab(self):
            return {"<s>": 0, "▁the": 1, "ing": 2, "▁": 3, "added▁": 4}

    loaded = embgeom.load(matrix(5, 2), Slow())
    assert loaded.token_bytes == [None, b" the", b"ing", b" ", "added▁".encode()]
    Slow.byte_decoder = {}
    Slow.get_vocab = lambda self: {"<s>": 0, "Ġthe": 1, "Ã©": 2, "b": 3}
    Slow.added_tokens_decoder = {}
    assert embgeom.load(matrix(4, 2), Slow()).token_bytes == [None, b" the", "é".encode(), b"b"]
    del Slow.byte_decoder
    Slow.get_vocab = lambda self: {"<s>": 0, "the": 1, "se": 2, "b": 3}
    with pytest.raises(InputError, match="how Slow writes spaces"):
        embgeom.load(matrix(4, 2), Slow())
    assert embgeom.load(matrix(4, 2), vocabulary=Slow().get_vocab()).tokens[1] == "the"


def test_a_tokenizer_written_in_python_that_transformers_has(tmp_path):
    vocabulary = {"<unk>": 0, "the": 1, "th@@": 2, "ese": 3, "a@@": 4, "b": 5}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nth ese</w>\n")
    tokens = transformers.CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    tokens.add_tokens(["more text"])
    loaded = embgeom.load(matrix(7, 2), tokens)
    assert loaded.token_bytes == [None, b"the ", b"th", b"ese ", b"a", b"b ", b"more text"]


def test_a_tokenizer_of_the_tokenizers_library(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    content = tokenizer(words(40), special=1)
    content["added_tokens"].append(added_token(40, "plain text", special=False))
    tokens = tokenizers.Tokenizer.from_str(json.dumps(content))
    loaded = embgeom.load(matrix(41, 8), tokens)
    assert loaded.token_bytes[:2] == [None, b" w1"] and loaded.token_bytes[40] == b"plain text"
    processor = SimpleNamespace(tokenizer=tokens)
    assert embgeom.load(matrix(41, 8), processor).tokens == loaded.tokens


def test_where_no_tokenizer_is_at_hand(tmp_path):
    with pytest.raises(InputError, match=r"LlamaForCausalLM does not say.*tokenizer=, or vocabulary="):
        embgeom.load(tiny())
    folder = write_folder(tmp_path / "m", {"a.weight": E}, {"model_type": "llama"})
    model = tiny()
    model.config.name_or_path = str(folder)
    assert embgeom.load(model).tokens == words(40)
    shutil.rmtree(folder)
    with pytest.raises(
        InputError, match=r"no tokenizer of .* is available .*pass tokenizer=, or vocabulary="
    ):
        embgeom.load(model)


def test_wrappers_are_looked_through(example):
    name, model, tokens = example
    stored = embgeom.load(name)
    parallel = torch.nn.DataParallel(model)
    sentence = torch.nn.Module()
    sentence.tokenizer, sentence._first_module = tokens, lambda: SimpleNamespace(auto_model=model)
    pipeline = SimpleNamespace(model=model, tokenizer=tokens)
    for loaded in (embgeom.load(parallel, tokens), embgeom.load(sentence), embgeom.load(pipeline)):
        assert np.array_equal(loaded.matrix, stored.matrix) and loaded.tokens == stored.tokens
    static = torch.nn.Module()
    table = torch.nn.EmbeddingBag(4096, 4)
    static.tokenizer, static._first_module = tokens, lambda: SimpleNamespace(embedding=table)
    assert np.array_equal(embgeom.load(static).matrix, table.weight.detach().numpy())


def test_static_models():
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    content = tokenizer(words(40), special=1, unk_token="▁w0")
    tokens = tokenizers.Tokenizer.from_str(json.dumps(content))
    mapping, weights = np.arange(40)[::-1] // 2, np.linspace(1, 2, 40, dtype=np.float32)
    model = model2vec.StaticModel(E[:20], tokens, weights=weights, token_mapping=mapping)
    loaded = embgeom.load(model)
    assert np.array_equal(loaded.matrix, E[mapping] * weights[:, None]) and loaded.tokens == words(40)
    assert loaded.name == "StaticModel"


def test_models_without_a_head_say_so(example):
    _, model, tokens = example
    with pytest.raises(InputError, match=r"has no output matrix.*AutoModelForCausalLM"):
        embgeom.load(model.base_model, tokens, "output")
    assert np.array_equal(embgeom.load(model.base_model, tokens).matrix, embgeom.load(model, tokens).matrix)


class Coded(torch.nn.Module):
    """A layer of a quantized model."""

    def __init__(self, package="", **fields):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(E))
        for name, value in fields.items():
            setattr(self, name, value)


def in_package(name, package):
    return type(name, (Coded,), {"__module__": package})()


QUANTIZED = {
    "bitsandbytes": in_package("Linear8bitLt", "bitsandbytes.nn.modules"),
    "awq": in_package("WQLinear_GEMM", "awq.modules.linear"),
    "gptqmodel": in_package("TorchQuantLinear", "gptqmodel.nn_modules"),
    "qweight": Coded(qweight=torch.zeros(2)),
    "weight_scale_inv": Coded(weight_scale_inv=torch.ones(1)),
    "packed weights": SimpleNamespace(weight=lambda: E),
    "torch.int8": SimpleNamespace(weight=torch.zeros(40, 8, dtype=torch.int8)),
}


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_layers_are_named(kind):
    model = tiny()
    model.get_output_embeddings = lambda: QUANTIZED[kind]
    with pytest.raises(InputError, match=f"the output layer .*{kind}"):
        embgeom.load(model, which="output", vocabulary=words(40))
    assert len(embgeom.load(model, vocabulary=words(40))) == 40


def test_weights_that_are_not_here():
    with torch.device("meta"):
        model = tiny()
    with pytest.raises(
        InputError, match=r"input matrix of LlamaForCausalLM is on the device 'meta'.*accelerate"
    ):
        embgeom.load(model, vocabulary=words(40))


def test_layers_and_tensors():
    embedding = torch.nn.Embedding.from_pretrained(torch.tensor(E))
    linear = torch.nn.Linear(8, 40, bias=False)
    linear.weight = torch.nn.Parameter(torch.tensor(E))
    for model in (embedding, linear, linear.weight, torch.tensor(E), E, E.tolist()):
        loaded = embgeom.load(model, vocabulary=words(40))
        assert np.array_equal(loaded.matrix, E) and loaded.tokens == words(40)
        assert loaded.token_bytes[3] == b" w3" and not loaded.matrix.flags.writeable
        with pytest.raises(
            InputError, match="does not say which token each row is: pass tokenizer=, or vocab"
        ):
            embgeom.load(model)
    assert embgeom.load(E, vocabulary=np.array(words(40))).tokens == words(40)
    assert embgeom.load(E, vocabulary={t: i for i, t in enumerate(words(40))}).tokens == words(40)
    assert embgeom.load(E, "output", vocabulary=words(40)).which == "output"


def test_frames_with_their_tokens():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    polars = pytest.importorskip("polars", reason="polars is not installed")
    names = [f"d{i}" for i in range(8)]
    frames = [
        pandas.DataFrame(E, index=words(40)),
        pandas.DataFrame(E, columns=names).assign(token=words(40)),
        polars.DataFrame(E, schema=names).with_columns(polars.Series("token", words(40))),
        polars.DataFrame(E, schema=names).with_columns(
            polars.Series("t", words(40)).cast(polars.Categorical)
        ),
    ]
    for frame in frames:
        loaded = embgeom.load(frame)
        assert np.array_equal(loaded.matrix, E) and loaded.tokens == words(40)
        assert embgeom.load(frame, vocabulary=[f"x{i}" for i in range(40)]).tokens[0] == "x0"
    for frame in (pandas.DataFrame(E), polars.DataFrame(E)):
        assert embgeom.load(frame, vocabulary=words(40)).tokens == words(40)
        with pytest.raises(InputError, match="a frame without strings does not say"):
            embgeom.load(frame)
    with pytest.raises(
        InputError, match="column 'id' of the frame holds integers or booleans among columns of floats"
    ):
        embgeom.load(frames[1].assign(id=range(40)))
    with pytest.raises(InputError, match="2 columns or indices of strings"):
        embgeom.load(frames[1].assign(more="x"))
    with pytest.raises(InputError, match="lazy frame"):
        embgeom.load(frames[2].lazy())
    with pytest.raises(InputError, match="no columns of numbers"):
        embgeom.load(frames[2].select("token"))


def test_word_vectors_are_words():
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    vectors = models.KeyedVectors(8)
    vectors.add_vectors([f"w{i}" for i in range(40)], E)
    for held in (vectors, SimpleNamespace(wv=vectors)):
        loaded = embgeom.load(held)
        assert np.array_equal(loaded.matrix, E) and loaded.token_bytes[3] == b" w3"
    assert embgeom.load(vectors, vocabulary=words(40)).tokens == words(40)


@pytest.mark.parametrize(
    ("call", "kind", "why"),
    [
        (lambda: embgeom.load(None), LoadError, "neither a path.*embgeom takes NumPy arrays, torch tensors"),
        (lambda: embgeom.load(object()), LoadError, "neither a path nor a Hugging Face id"),
        (lambda: embgeom.load(torch.nn.Dropout()), LoadError, "neither a path nor a Hugging Face id"),
        (
            lambda: embgeom.load(E, "outputs", vocabulary=words(40)),
            InputError,
            "which='outputs' must be 'input'",
        ),
        (lambda: embgeom.load("example:small", "output", "input"), InputError, "not a tokenizer object"),
        (lambda: embgeom.load(E, {"a": 1}), InputError, "tokenizer= is a dict"),
        (lambda: embgeom.load(E, SimpleNamespace()), InputError, "tokenizer= is a SimpleNamespace"),
        (
            lambda: embgeom.load(E, vocabulary=words(40), revision="main"),
            InputError,
            "revision='main' has no",
        ),
        (lambda: embgeom.load(E, vocabulary={"a": -1}), InputError, "'a'. = -1"),
        (lambda: embgeom.load(E, vocabulary={}), InputError, "is empty"),
        (lambda: embgeom.load(E, vocabulary=[1] * 40), LoadError, "vocabulary= is not a list of strings"),
        (lambda: embgeom.load(E, vocabulary=words(39)), LoadError, "lists 39 tokens, .* has 40 rows"),
        (lambda: embgeom.load(E, vocabulary=words(41)), LoadError, "lists 41 tokens, .* has 40 rows"),
        (
            lambda: embgeom.load(E, vocabulary={w: i for i, w in enumerate(words(7))}),
            LoadError,
            "does not fit array",
        ),
        (
            lambda: embgeom.load(E, vocabulary=words(40), revision="main"),
            InputError,
            "revision='main' has no",
        ),
        (lambda: embgeom.load(E, vocabulary=words(40), tensor="x"), InputError, "tensor='x' has no meaning"),
        (
            lambda: embgeom.load(E, vocabulary=words(40), adapter="x"),
            InputError,
            "adapter='x' has no meaning",
        ),
        (lambda: embgeom.load(E[0], vocabulary=["a"]), InputError, "must be a matrix"),
        (lambda: embgeom.load(np.full((2, 2), np.nan), vocabulary=["a", "b"]), LoadError, "row 0, token 'a'"),
        (lambda: embgeom.load(embgeom.load(E, vocabulary=words(40))), InputError, "is loaded already"),
    ],
)
def test_what_cannot_be_loaded(call, kind, why):
    with pytest.raises(kind, match=why) as told:
        call()
    assert isinstance(told.value, EmbgeomError) and "\n" not in str(told.value)


def test_a_folder_takes_a_tokenizer_object(example):
    name, _, tokens = example
    assert embgeom.load(name, tokenizer=tokens).tokens == embgeom.load(name).tokens
    assert embgeom.load(name, tokens).tokens == embgeom.load(name).tokens


def test_an_option_that_does_not_exist():
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'tokens'"):
        embgeom.load(E, tokens=words(40))


def test_matrices_in_memory_are_told_apart_by_name():
    one, other = (embgeom.load(E, vocabulary=words(40), name=name) for name in ("before", "after"))
    assert embgeom.match(one, other).summary().startswith("before and after share 40 tokens")
    assert embgeom.load(E, vocabulary=words(40)).name == "array"
    assert embgeom.load("example:small", name="mine").name == "mine"
    with pytest.raises(InputError, match="name=3 is not a name"):
        embgeom.load(E, vocabulary=words(40), name=3)
