"""Two architectures: in GPT-2's manner with tied embeddings, in Llama's with an unembedding of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed

from training.data import CONTEXT, VOCABULARY


@dataclass(frozen=True)
class Recipe:
    """One model: configuration, seed (of weights and of the order of the text), and how it is trained."""

    name: str
    config: GPT2Config | LlamaConfig
    seed: int
    learning_rate: float
    steps: int
    batch: int = 8

    def describe(self) -> dict[str, Any]:
        """Return the architecture in words and numbers; both kinds of configuration know these names."""
        return {
            "architecture": type(self.config).__name__.removesuffix("Config"),
            "blocks": self.config.num_hidden_layers,
            "width": self.config.hidden_size,
            "context": CONTEXT,
            "heads": self.config.num_attention_heads,
            "tied": self.config.tie_word_embeddings,
        }

    def build(self) -> PreTrainedModel:
        """Return the untrained model."""
        set_seed(self.seed)
        if isinstance(self.config, GPT2Config):
            return GPT2LMHeadModel(self.config)
        return LlamaForCausalLM(self.config)


# The end token is the only special one, and the first of the vocabulary.
_SPECIAL = {"bos_token_id": 0, "eos_token_id": 0}

RECIPES = {
    "small": Recipe(
        name="small",
        config=GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=128,
            n_layer=4,
            n_head=4,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=True,
            **_SPECIAL,
        ),
        seed=1,
        learning_rate=3e-3,
        steps=4000,
    ),
    "large": Recipe(
        name="large",
        config=LlamaConfig(
            vocab_size=VOCABULARY,
            max_position_embeddings=CONTEXT,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=6,
            tie_word_embeddings=False,
            **_SPECIAL,
        ),
        seed=2,
        learning_rate=2e-3,
        steps=4000,
    ),
}
