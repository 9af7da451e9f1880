"""What a model's config.json says about its family, its vocabulary, its sizes, its depth and its ties."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embgeom.loading.architectures import FAMILIES, Architecture
from embgeom.loading.folder import read_json
from embgeom.loading.source import Source

# Where a model of several parts keeps the configuration of its language model.
_NESTED = ("text_config", "language_config", "llm_config", "thinker_config", "decoder")
_HIDDEN_SIZE = ("hidden_size", "n_embd", "d_model", "n_embed", "dim")
# The size of the embedding comes first: some models project it to another hidden size.
_COLUMNS = ("word_embed_proj_dim", "embedding_size", "input_embedding_size", *_HIDDEN_SIZE)
_NUM_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_TIED = (
    "tie_word_embeddings",
    "weight_tying",
    "tie_embedding",
    "tie_embeddings",
    "share_input_output_layers",
)
# "Gemma2ForCausalLM" is of the model type "gemma2".
_CLASS = re.compile(r"(\w+?)(?:For[A-Z]\w*|LMHeadModel|Model)$")
# A base model, or one that classifies, computes no logits of tokens.
_HEADLESS = re.compile(
    r"(?!.*(Head|MTModel))\w+Model$|\w+For(\w+Classification|QuestionAnswering|MultipleChoice)$"
)
_BY_CLASS = {re.sub(r"[-_.]", "", model_type): family for model_type, family in FAMILIES.items()}


@dataclass(frozen=True)
class ModelConfig:
    """The few values of config.json that loading needs; None where it does not say."""

    vocab_size: int | None = None
    columns: int | None = None  # of the matrix
    hidden_size: int | None = None  # of the residual stream
    num_layers: int | None = None  # None also for an encoder and a decoder, which have a number each
    tied: bool | None = None
    model_type: str = ""  # of the whole model
    decoder_only: bool = False  # a decoder, of a family that may have an encoder, too
    architecture: Architecture | None = None  # of the language model, if its family is known
    headless: str = ""  # the class of a model without an output matrix

    @classmethod
    def read(cls, source: Source) -> ModelConfig:
        path = source.find("config.json")
        return cls() if path is None else cls.parse(read_json(path))

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Return the values of a parsed config.json; a nested language model's come before the outer ones."""
        levels = [config]
        while nested := next((n for key in _NESTED if isinstance(n := levels[-1].get(key), dict)), None):
            levels.append(nested)
        merged = {key: value for level in levels for key, value in level.items()}
        rows, padded = _positive(merged, "vocab_size"), _positive(merged, "embedding_size")
        if rows and padded and padded >= rows:
            # OLMo and its like call the padded number of rows so, not the number of columns.
            rows = padded
            del merged["embedding_size"]
        classes = _classes(config)
        encodes = merged.get("is_encoder_decoder") is True
        return cls(
            vocab_size=rows,
            columns=_positive(merged, *_COLUMNS),
            hidden_size=_positive(merged, *_HIDDEN_SIZE),
            num_layers=None if encodes else _positive(merged, *_NUM_LAYERS),
            tied=_tied(levels),
            model_type=str(config.get("model_type", "")),
            decoder_only=any(name.endswith("ForCausalLM") for name in classes),
            architecture=_architecture(levels),
            headless=classes[0] if classes and all(map(_HEADLESS.match, classes)) else "",
        )

    def notes(self, which: str) -> tuple[str, ...]:
        """Return what the running model does beyond looking rows up and multiplying with them."""
        notes = []
        if self.columns and self.hidden_size and self.columns != self.hidden_size:
            notes.append(
                f"the model projects between the rows, of {self.columns} columns, and its residual stream, "
                f"of hidden size {self.hidden_size} (project_in and project_out, in OPT's words)"
            )
        family = self.architecture
        if family and self.vocab_size != family.unnoted_vocabulary:
            notes.append(family.output_note if which == "output" else family.input_note)
        return tuple(filter(None, notes))


def _classes(config: Mapping[str, Any]) -> list[str]:
    classes = config.get("architectures")
    return [str(name) for name in classes] if isinstance(classes, list) else []


def _family(config: Mapping[str, Any]) -> Architecture | None:
    """Return the family by the model type or, where there is none, by the name of the model's class."""
    if config.get("model_type") is not None:
        return FAMILIES.get(str(config["model_type"]))
    named = filter(None, map(_CLASS.match, _classes(config)))
    return next(filter(None, (_BY_CLASS.get(m[1].replace("_", "").lower()) for m in named)), None)


def _architecture(levels: list[Mapping[str, Any]]) -> Architecture | None:
    """Return the innermost family that is known: a model that sees has its text model's names and norm."""
    outer, usual = _family(levels[0]), Architecture("")
    if outer and (outer.input, outer.output, outer.norm) != (usual.input, usual.output, usual.norm):
        # A family with names of its own keeps them, whatever its text model.
        return outer
    return next((family for level in reversed(levels) if (family := _family(level))), None)


def _tied(levels: list[Mapping[str, Any]]) -> bool | None:
    """Return whether the running model ties, or None where neither the config nor the table tells."""
    if "thinker_config" in levels[0]:
        # A model that thinks and talks holds a whole model for each.
        levels = levels[1:]
    outer, text = _says(levels[0]), _says(levels[-1])
    family, inner = _family(levels[0]), _family(levels[-1])
    if family is None:
        # Of a model that is not known, a tie is believed wherever it is said: it counts only where one
        # matrix is missing.
        said = [v for v in (outer, text) if v is not None]
        return any(said) if said else inner.tied if inner else None
    if family.ties in ("always", "never"):
        return family.ties == "always"
    if text is None:
        text = (inner or family).tied
    if family.ties == "text":
        return text
    outer = family.tied if outer is None else outer
    return outer or (family.ties == "either" and len(levels) > 1 and text)


def _says(config: Mapping[str, Any]) -> bool | None:
    return next((value for key in _TIED if isinstance(value := config.get(key), bool)), None)


def _positive(config: Mapping[str, Any], *keys: str) -> int | None:
    values = (config.get(key) for key in keys)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0), None)
