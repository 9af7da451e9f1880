"""What a model's config.json says about its vocabulary, its width, its depth and its ties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embgeom.loading.folder import Source, read_json

# Where a multimodal model keeps the configuration of its language model.
_NESTED = ("text_config", "language_config", "llm_config")
# The width of the embedding comes first: some models project it to another hidden size.
_WIDTH = ("word_embed_proj_dim", "embedding_size", "hidden_size", "n_embd", "d_model", "n_embed", "dim")
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Transformers ties a model whose config says nothing, except these, whose own default is not to.
# fmt: off
_UNTIED_BY_DEFAULT = frozenset({
    "deepseek_v2", "deepseek_v3", "glm", "glm4", "gpt_neox", "gpt_oss", "gptj", "llama", "mistral", "mixtral",
    "nemotron", "olmo", "olmo2", "olmoe", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "stablelm",
})
# fmt: on


@dataclass(frozen=True)
class ModelConfig:
    """The few values of config.json that loading needs; None where it does not say.

    Attributes
    ----------
    vocab_size : int or None
        How many rows the matrix should have.
    width : int or None
        How many columns.
    tied : bool or None
        Whether one matrix is both input embedding and output matrix.
    blocks : int or None
        How many transformer blocks; None also for an encoder and a decoder, which have a number each.
    """

    vocab_size: int | None = None
    width: int | None = None
    tied: bool | None = None
    blocks: int | None = None

    @classmethod
    def read(cls, source: Source) -> ModelConfig:
        """Return the values of the config.json at `source`; all None if it has none.

        Parameters
        ----------
        source : Source
            The model's files.

        Returns
        -------
        ModelConfig
            The values.

        Raises
        ------
        LoadError
            If the file cannot be read, or holds no JSON object.
        """
        path = source.find("config.json")
        return cls() if path is None else cls.parse(read_json(path))

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Return the values of a parsed config.json; a nested language model's come before the outer ones.

        Parameters
        ----------
        config : mapping of str to object
            The content of the file.

        Returns
        -------
        ModelConfig
            The values.
        """
        text: dict[str, Any] = next((config[key] for key in _NESTED if isinstance(config.get(key), dict)), {})
        merged = {**config, **text}
        tied = merged.get("tie_word_embeddings")
        if not isinstance(tied, bool):
            tied = False if str(merged.get("model_type")) in _UNTIED_BY_DEFAULT else None
        blocks = None if merged.get("is_encoder_decoder") is True else _positive(merged, *_BLOCKS)
        return cls(_positive(merged, "vocab_size"), _positive(merged, *_WIDTH), tied, blocks)


def _positive(config: Mapping[str, Any], *keys: str) -> int | None:
    """Return the first positive integer under one of `keys`."""
    values = (config.get(key) for key in keys)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)
