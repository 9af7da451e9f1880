"""Tiny random models of several families, and what they compute under steering, written out by hand.

The oracle runs one sequence without padding and without a cache: embedding, then layer after layer with the
directions added in between, then norm and unembedding. It knows nothing of hooks.
"""

import functools

import numpy as np
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from embgeom import SteeringVector

# Handing tiny products to several threads takes longer than computing them.
torch.set_num_threads(1)

VOCABULARY, WIDTH, LAYERS, WINDOW = 48, 16, 3, 4
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
    "initializer_range": 0.4,
}
ROTARY = {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}


def _configs():
    return {
        "gpt2": (GPT2LMHeadModel, GPT2Config(**COMMON)),
        "llama": (LlamaForCausalLM, LlamaConfig(**COMMON, **ROTARY)),
        "neox": (GPTNeoXForCausalLM, GPTNeoXConfig(**COMMON, intermediate_size=32)),
        "opt": (
            OPTForCausalLM,
            OPTConfig(
                **{k: v for k, v in COMMON.items() if k != "initializer_range"},
                init_std=0.4,
                ffn_dim=32,
                word_embed_proj_dim=WIDTH,
            ),
        ),
        "gemma": (
            Gemma3ForCausalLM,
            Gemma3TextConfig(
                **COMMON,
                **ROTARY,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                query_pre_attn_scalar=8,
            ),
        ),
    }


NEW = 5
LOGITS = {"output_logits": True, "return_dict_in_generate": True}
FAMILIES = ("gpt2", "llama", "neox", "opt", "gemma")


@functools.cache
def _weights(family):
    torch.manual_seed(7)
    kind, config = _configs()[family]
    return kind(config).state_dict()


def tiny(family, dtype=torch.float32):
    """Return a new copy of the family's model."""
    kind, config = _configs()[family]
    model = kind(config)
    model.load_state_dict(_weights(family))
    return model.eval().to(dtype)


def vector(layers=(0, 2), seed=0, length=3.0):
    """Return a vector long enough to change what a tiny model says."""
    generator = np.random.default_rng(seed)
    directions = {layer: generator.standard_normal(WIDTH) for layer in layers}
    return SteeringVector({b: length * d / np.linalg.norm(d) for b, d in directions.items()}, "tiny")


def prompts(lengths=(5, 2, 7), seed=1):
    """Return prompts as lists of tokens, which leave out the padding token and the beginning of a text."""
    generator = np.random.default_rng(seed)
    return [generator.integers(2, VOCABULARY, size=length).tolist() for length in lengths]


def padded(sequences, side):
    """Return input_ids and attention_mask, (batch, longest)."""
    longest = max(map(len, sequences))
    ids, mask = [], []
    for tokens in sequences:
        padding = [0] * (longest - len(tokens))
        own = [1] * len(tokens)
        ids.append(padding + tokens if side == "left" else tokens + padding)
        mask.append(padding + own if side == "left" else own + padding)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def by_hand(family, model, tokens, additions):
    """Return logits (length, vocabulary) of one sequence; `additions` is {layer: (length, width)}."""
    ids = torch.tensor([tokens])
    positions = torch.arange(len(tokens))[None]
    hidden, layers, rotary = _begin(family, model, ids, positions)
    lookback = positions[0][:, None] - positions[0][None, :]
    for number, layer in enumerate(layers):
        visible = lookback >= 0
        inputs = {}
        if family == "gemma":
            kind = model.config.layer_types[number]
            inputs["position_embeddings"] = rotary(hidden, positions, kind)
            if kind == "sliding_attention":
                visible = visible & (lookback < WINDOW)
        elif rotary is not None:
            inputs["position_embeddings"] = rotary(hidden, positions)
        mask = torch.where(visible, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)[None, None]
        output = layer(hidden, attention_mask=mask, **inputs)
        hidden = output[0] if isinstance(output, tuple) else output
        if number in additions:
            hidden = hidden + additions[number].to(hidden.dtype)
    return model.get_output_embeddings()(_norm(family, model)(hidden))[0].float()


def _begin(family, model, ids, positions):
    """Return the stream that enters the first layer, the layers, and the rotary embedding if there is one."""
    if family == "gpt2":
        inner = model.transformer
        return inner.wte(ids) + inner.wpe(positions), inner.h, None
    if family == "neox":
        inner = model.gpt_neox
        return inner.embed_in(ids), inner.layers, inner.rotary_emb
    if family == "opt":
        inner = model.model.decoder
        # OPT keeps two rows before the first position.
        return inner.embed_tokens(ids) + inner.embed_positions.weight[positions + 2], inner.layers, None
    return model.model.embed_tokens(ids), model.model.layers, model.model.rotary_emb


def _norm(family, model):
    return {
        "gpt2": lambda: model.transformer.ln_f,
        "neox": lambda: model.gpt_neox.final_layer_norm,
        "opt": lambda: model.model.decoder.final_layer_norm,
    }.get(family, lambda: model.model.norm)()


def additions(steered, vectors):
    """Return {layer: (length, width)} of vectors, each with its scale, where `steered` is true."""
    where = torch.tensor(steered, dtype=torch.float32)[:, None]
    found = {}
    for given, scale in vectors:
        for layer, direction in given.directions.items():
            found[layer] = found.get(layer, 0) + where * torch.from_numpy(direction * scale)
    return found


def steered_positions(positions, prompt, length):
    """Return which of the tokens of a sequence of this length are steered."""
    first = {"all": 0, "generated": prompt - 1}[positions]
    return [place >= first for place in range(length)]


def greedy(family, model, prompt, new, vectors, positions="all"):
    """Return the tokens that a plain loop adds to a prompt, each the likeliest."""
    tokens = list(prompt)
    for _ in range(new):
        steered = steered_positions(positions, len(prompt), len(tokens))
        tokens.append(int(by_hand(family, model, tokens, additions(steered, vectors))[-1].argmax()))
    return tokens[len(prompt) :]


def hook_count(model):
    """How many hooks and methods of their own a model's modules have."""
    return sum(
        len(m._forward_hooks)
        + len(m._forward_pre_hooks)
        + len(m._backward_hooks)
        + ("generate" in m.__dict__)
        for m in model.modules()
    )


def generate(model, batch, **options):
    options = {"max_new_tokens": NEW, "do_sample": False, **options}
    return model.generate(**batch, **options)


def assert_logits_by_hand(family, model, sequences, out, vectors, positions, atol=2e-4, expand=1):
    """Each step's logits are those of the sequence written out so far, steered by hand."""
    new = len(out.logits)
    for row, tokens in enumerate(out.sequences[:, -new:].tolist()):
        prompt = sequences[row // expand]
        whole = prompt + tokens
        steered = steered_positions(positions, len(prompt), len(whole))
        expected = by_hand(family, model, whole, additions(steered, vectors))[len(prompt) - 1 : -1]
        found = torch.stack([step[row] for step in out.logits]).float()
        torch.testing.assert_close(found, expected, atol=atol, rtol=0)


def going_on(out):
    """Return the cache of an output as the argument by which the installed transformers takes it."""
    name = "cache" if "cache" in out else "past_key_values"
    return {name: out[name]}
