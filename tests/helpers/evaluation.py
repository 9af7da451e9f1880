"""Models to evaluate on, and steering by a plain hook, written apart from the package's own."""

from contextlib import contextmanager
from dataclasses import fields
from functools import cache

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from embgeom import SteeringVector, evaluation, examples, load
from embgeom.evaluation import EvaluateOptions, SweepOptions, WordLogRatio

PROMPTS = [
    "Once upon a time there was a little girl who was",
    "He felt",
    "The dog ran to the park and saw a big red ball. It was",
    "Mother said that she was very",
    "They",
    "In the morning the boy",
]
NEUTRAL = [
    "The river runs down to the sea.",
    "Two and three are five, and five is more than four.",
    "It rained.",
]
HAPPY, SAD = [" happy", " glad"], [" sad", " angry"]
MOOD = WordLogRatio(HAPPY, SAD)


def evaluate(*arguments, **given):
    """Evaluate, with the options among the other arguments."""
    return evaluation.evaluate(*arguments, **_with_options(EvaluateOptions, given))


def sweep(*arguments, **given):
    """Sweep, with the options among the other arguments."""
    return evaluation.sweep(*arguments, **_with_options(SweepOptions, given))


def _with_options(kind, given):
    names = {each.name for each in fields(kind)}
    options = kind(**{name: value for name, value in given.items() if name in names})
    return {name: value for name, value in given.items() if name not in names} | {"options": options}


@cache
def small():
    """The small example model, and its tokenizer."""
    folder = examples.pair().small
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@cache
def tiny():
    """A random Llama with the small example's tokenizer."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        eos_token_id=0,
        bos_token_id=0,
        pad_token_id=0,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval(), small()[1]


def layers_of(model):
    return model.transformer.h if hasattr(model, "transformer") else model.model.layers


def random_vector(model, layers, norm=5.0, seed=0):
    generator = np.random.default_rng(seed)
    size = model.config.hidden_size
    vector = SteeringVector({layer: generator.standard_normal(size) for layer in layers}, model="test")
    return vector.with_norm(norm)


@contextmanager
def plainly_steered(model, vector, scale=1.0):
    """Add a vector at all positions, by hooks of its own."""
    hooks = []

    def adder(direction):
        def add(_module, _args, output):
            if isinstance(output, tuple):
                return (output[0] + direction.to(output[0].dtype), *output[1:])
            return output + direction.to(output.dtype)

        return add

    for layer, direction in vector.directions.items():
        added = torch.from_numpy(direction * np.float32(scale))
        hooks.append(layers_of(model)[layer].register_forward_hook(adder(added)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def logits_of(model, ids):
    """Logits of one sequence alone, without padding; shape (length, vocabulary), float64."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double()


def next_logs(model, ids):
    """Log-probabilities of what follows one sequence, by hand."""
    logits = logits_of(model, ids)[-1].numpy()
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def moods(model, tokenizer, vector=None, scale=1.0):
    """The score of each prompt alone, by hand."""
    positive, negative = ([tokenizer(word)["input_ids"][0] for word in words] for words in (HAPPY, SAD))
    with plainly_steered(model, vector or random_vector(model, [0]), scale if vector else 0.0):
        logs = [next_logs(model, tokenizer(prompt)["input_ids"]) for prompt in PROMPTS]
    return np.array([row[positive].mean() - row[negative].mean() for row in logs])


def happy_minus_sad(layer, norm=20.0):
    rows = load("example:small", "output")
    direction = rows.matrix[rows.row_of(" happy")] - rows.matrix[rows.row_of(" sad")]
    return SteeringVector({layer: direction}, model="example:small").with_norm(norm)
