"""Every language model that transformers' auto classes know, built tiny, with random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

V = 120  # rows of every vocabulary
MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "image-text": modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
}
# A field's name -> its value in a tiny config, where the default is larger; the first pattern counts.
FIELDS = [
    (r".*vocab_size(_per_layer_input)?", V),
    (r"(moe|expert|shared_expert).*(intermediate|ffn)(_hidden)?_size", 16),
    (
        r".*(intermediate|ffn_hidden|feed_forward|mlp_hidden)_size|.*ffn_dim|d_ff|ff_dim|d_inner|intermediate_dim",
        48,
    ),
    (r"(text_|out_|decoder_)?hidden_size(_global)?|d_model|n_embd|n_embed|dim|emb_dim|embed_dim|width", 32),
    (r"(input_)?embedding_size|word_embed_proj_dim|embedding_dim|d_latents", 32),
    (
        r"num_(hidden_|encoder_|decoder_)?layers|n_layers?|(encoder|decoder|attention)_layers|num_blocks",
        2,
    ),
    (r"num_mem_blocks|depth|num_self_attends_per_block", 2),
    (r".*attention_heads|n_heads?|num_heads|n_query_heads", 4),
    (r".*num_key_value_heads|num_kv_heads|multi_query_group_num|n_kv_heads", 2),
    (r"qk_head_dim", 16),
    (r".*head_dim|d_kv|.*_head_size|kv_channels|d_head", 8),
    (
        r"max_position_embeddings|n_positions|n_ctx|max_(source|target)_positions|max_seq(uence)?_len(gth)?",
        64,
    ),
    (r"num_(local_|routed_)?experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok(en)?|moe_k|top_k_experts|moe_top_?k|experts_per_token", 2),
    (r".*lora_rank|.*_low_rank_dim", 16),
    (
        r"n_shared_experts|(moe_)?num_shared_experts|first_k_dense_replace|n_group",
        1,
    ),
    (r"topk_group|num_expert_group", 1),
    (r"state_size|ssm_state_size|mamba_d_state|num_latents", 8),
    (r"image_size|input_size", 32),
    (r"patch_size|.*sliding_window(_size)?|attention_window_size|local_attention", 16),
    (r"encoder_hash_byte_group_vocab", 50),
    (r"rotary_dim", 4),
    (r"prompt_length", 1),
    (r"prompt_types", 8),
    # So that no other table has the shape of the embedding.
    (r"(pronunciation|shape)_vocab_size", 50),
]
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16}
_DOTS = {"num_key_value_heads": 4}
_INDEXED = {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8}
_INDEXED |= {
    "indexer_compress_ratio": 2,
    "ngram_vocab_size_base": 50,
    "split_ngram_parts": 1,
    "hc_lowrank": 4,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_ADAPTER = {"adapter_in_dim": 32, "adapter_out_dim": 32}
_HEARD = {"adapter_input_size": 32, "adapter_out_dim": 32}
_SPEECH = {"hidden_dim": 32, "dim_head": 8, "feedforward_mult": 1, "input_dim": 16}
_ASSISTANT = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_CODEC = {"num_filters": 2, "depths": (1,) * 7}
# By model type or class: fields that the generic way gets wrong; NAME__ holds those of a nested config.
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA,
    "granitemoehybrid": _MAMBA,
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots3_note": {"text_config__": _DOTS, "vision_config__": _ADAPTER, "audio_config__": _HEARD},
    "dots3_note_text": _DOTS,
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "mamba2": {"num_heads": 4, "head_dim": 16, "n_groups": 2},
    "nemotron": {"num_key_value_heads": 2},
    "esm": {"vocab_size": V, "pad_token_id": 1, "mask_token_id": 4},
    "esmc": {"num_key_value_heads": 4},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8]},
    "ReformerModelWithLMHead": {"is_decoder": True},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "qwen4_exp_text": _INDEXED,
    "qwen4_exp": {"text_config__": _INDEXED},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "cohere_compass": {"text_config__": {"rope_parameters": {"full_attention": _ROPE}}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "granite_speech": {"encoder_config__": _SPEECH},
    "granite_speech_plus": {"encoder_config__": _SPEECH},
    "gemma4_assistant": {"text_config__": {**_ASSISTANT, "num_kv_shared_layers": 2}},
    "vibevoice_asr": {f"{part}_tokenizer_encoder_config__": _CODEC for part in ("acoustic", "semantic")},
    "neomme": {"head_dim": 16, "embedding_rank": 8},
    "xmod": {"default_language": "en_XX"},
}
# Rotary positions in three sections, whose widths are not those of the config's heads.
_SECTIONS = {**_ROPE, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
_TYPES = "qwen2_vl qwen2_5_vl qwen2_5_omni_thinker glm46v glm4v glm4v_moe glm_ocr glmga paddleocr_vl"
for _type in _TYPES.split():
    OVERRIDES[_type] = {"text_config__": {"rope_parameters": _SECTIONS}}
# Configs whose default is refused by their own validation: what to begin with.
BEGIN = {
    "gemma4_assistant": {"text_config": {"model_type": "gemma4_text", **_ASSISTANT}},
}
# Types that transformers does not build tiny, save and load.
CANNOT = {
    "gemma3n": "needs the package timm",
    "nemo_speechlm": "saved with few weights, transformers does not load it again",
}
# Of the models that see, those which are not built tiny, or not run on text alone, or not loaded as saved.
UNSEEN = (
    "apertus1p5 blip chameleon cosmos3_edge deepseek_ocr2 diffusion_gemma emu3 ernie4_5_vl_moe evolla "
    "fast_vlm florence2 glm5_next granite4_vision hunyuan_vl hy_v4_vl idefics janus kosmos-2 mistral4 "
    "mistral_large4 molmo2 muse_glimmer muse_spark nemotron_h_omni perception_lm pi0 pix2struct "
    "pp_formulanet shieldgemma2 step3p7 udop vision-encoder-decoder"
)
# Types that run only with another model's states or with sound: where their final norm is.
NORMS = {"gemma4_assistant": "model.norm", "gemma4_unified_assistant": "model.norm"}
NORMS |= {"voxtral_realtime": "model.language_model.norm"}


@dataclass(frozen=True)
class Case:
    """A class of transformers, for a model type, with changes to its config."""

    model_type: str
    class_name: str
    task: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        changed = "".join(f"-{name}={value}" for name, value in self.changes)
        return f"{self.model_type}-{self.class_name}{changed}".replace("tie_word_embeddings", "tie")


def cases(*tasks: str) -> list[Case]:
    """Each pair of a model type and a class once."""
    found: dict[tuple[str, str], Case] = {}
    for task in tasks:
        for model_type, names in MAPPINGS[task].items():
            name = names if isinstance(names, str) else names[0]
            found.setdefault((model_type, name), Case(model_type, name, task))
    return list(found.values())


def shrink(config_class: type[PreTrainedConfig], **given: Any) -> PreTrainedConfig:
    """Return a tiny config."""
    default = config_class(**BEGIN.get(config_class.model_type, {}))
    values: dict[str, Any] = {}
    for name, value in default.__dict__.items():
        if name.startswith("_") or name in given:
            continue
        if isinstance(value, PreTrainedConfig):
            values[name] = shrink(type(value), **given.get(f"{name}__", {}))
        elif isinstance(value, int) and not isinstance(value, bool):
            if re.search(r"token_(id|index)$", name):
                if value >= V:
                    values[name] = V - 1 - len(values) % 9
            elif (small := _small(name)) is not None and value > 0:
                values[name] = small if name == "vocab_size" else min(small, value)
    if "qk_rope_head_dim" in values:
        values["num_key_value_heads"] = values.get("num_attention_heads", 4)
    depths = {
        default.__dict__.get(n) for n in ("num_hidden_layers", "n_layer", "num_layers", "decoder_layers")
    }
    for name, value in default.__dict__.items():
        if isinstance(value, (list, tuple)) and len(value) > 2 and len(value) in depths and name not in given:
            values[name] = type(value)([value[0], value[-1]])
        if isinstance(value, dict) and "mrope_section" in value and name not in given:
            values[name] = {**value, "mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0}
    values |= {name: value for name, value in given.items() if not name.endswith("__")}
    aliases = config_class.attribute_map
    return config_class(**{n: v for n, v in values.items() if aliases.get(n) not in values})


def _small(name: str) -> int | None:
    return next((size for pattern, size in FIELDS if re.fullmatch(pattern, name)), None)


def config_of(case: Case) -> PreTrainedConfig:
    """Return the config of a case's model."""
    given = {**OVERRIDES.get(case.model_type, {}), **OVERRIDES.get(case.class_name, {})}
    for name, value in case.changes:
        outer, _, inner = name.rpartition(".")
        if outer:
            given[f"{outer}__"] = {**given.get(f"{outer}__", {}), inner: value}
        else:
            given[name] = value
    config = shrink(CONFIG_MAPPING[case.model_type], **given)
    model_class = getattr(transformers, case.class_name)
    if not isinstance(config, model_class.config_class):
        # The auto class takes the part of a model that sees or hears which the class is for.
        parts = (v for v in config.__dict__.values() if isinstance(v, model_class.config_class))
        config = next(parts, config)
    return config


def build(case: Case) -> Any:
    """Return the model of a case, every parameter of it random."""
    model = getattr(transformers, case.class_name)(config_of(case)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                # The weights of norms lie away from 0 and 1, with which a wrong kind may do no harm.
                centre = 0.3 if parameter.dim() == 1 else 0.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + centre)
    return model


def variants(case: Case) -> Iterator[Case]:
    """The case, and as its configs say the other of ties: the outer one, that of the language model."""
    yield case
    if case.model_type == "dbrx":
        return  # Its config refuses to be tied.
    default = CONFIG_MAPPING[case.model_type](**BEGIN.get(case.model_type, {}))
    names = ["tie_word_embeddings"]
    for part in ("text_config", "decoder"):
        if isinstance(getattr(default, part, None), PreTrainedConfig):
            names.append(f"{part}.tie_word_embeddings")
    for name in names:
        config = getattr(default, name.partition(".")[0]) if "." in name else default
        flipped = not getattr(config, "tie_word_embeddings", False)
        yield Case(case.model_type, case.class_name, case.task, ((name, flipped),))


def output_matrix(model: Any) -> Any:
    """Return the module that computes the logits, or None."""
    head = model.get_output_embeddings()
    if isinstance(head, torch.nn.Embedding):
        # FSMT names the decoder's embedding, which it also holds as a linear layer.
        return model.get_submodule("model.decoder.output_projection")
    return head


def input_matrix(model: Any) -> Any:
    """Return the rows that tokens are looked up in; None where there are several tables."""
    if hasattr(model, "perceiver"):
        # Perceiver calls its latents the input embeddings.
        return model.perceiver.input_preprocessor.embeddings.weight
    return getattr(model.get_input_embeddings(), "weight", None)


def final_norm(model: Any) -> Any:
    """Return the norm whose output the head is applied to, by watching a forward pass; None where none is."""
    ran: list[tuple[Any, torch.Tensor]] = []
    fed: list[torch.Tensor] = []

    def watch(module: Any, given: Any, named: Any) -> None:
        fed.append((given[0] if given else next(iter(named.values()))).detach().float())

    def note(module: Any, _: Any, out: Any) -> None:
        if torch.is_tensor(out) and (not fed or out.shape[-1] == fed[-1].shape[-1]):
            ran.append((module, out.detach().float()))

    if model.config.model_type in NORMS:
        return model.get_submodule(NORMS[model.config.model_type])
    head = output_matrix(model)
    head = head[0] if isinstance(head, torch.nn.ModuleList) else head
    if head is None:
        return None
    hooks = [m.register_forward_hook(note) for m in model.modules() if "Norm" in type(m).__name__]
    hooks.append(head.register_forward_pre_hook(watch, with_kwargs=True))
    try:
        _forward(model, fed)
    finally:
        for hook in hooks:
            hook.remove()
    if not fed:
        return ran[-1][0]
    seen = fed[-1].reshape(-1, fed[-1].shape[-1])
    for module, out in reversed(ran):
        rows = out.reshape(-1, out.shape[-1])[-len(seen) :]
        if rows.shape == seen.shape and (torch.cosine_similarity(rows, seen, dim=-1) > 1 - 1e-4).all():
            return module
    return None


@torch.no_grad()
def _forward(model: Any, fed: list[torch.Tensor]) -> None:
    ids = torch.arange(3, 13)[None]
    ids = ids.expand(getattr(model.config, "num_codebooks", None) or 1, -1)
    given = {"input_ids": ids, "use_cache": False}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = ids
    try:
        model(**given)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        if fed:
            return
        # A model that will not run on text alone: its language model does, and feeds the head.
        inner = model.model if hasattr(model, "model") else model
        inner = next(
            (getattr(inner, n) for n in ("language_model", "text_model") if hasattr(inner, n)), inner
        )
        inner = inner.get_decoder() if hasattr(inner, "lm_head") else inner
        out = inner(inputs_embeds=model.get_input_embeddings()(ids), use_cache=False)
        fed.append(out.last_hidden_state.detach().float())
