"""What is known of models' architectures: the one file to open when a model is added.

A row is a family: the ``model_type`` of its configs, the names of its input embedding, its output matrix and
its final norm, what that norm computes, and when one matrix is both. Names are those of modules and hold
wherever a checkpoint's name ends with them; ``*`` stands for the number of the last layer. The facts are
those of transformers 5.24, which tests/loading/test_all_architectures.py compares with the running models,
and of models whose code comes with their checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Literal

from embgeom.embeddings.norm import NormKind

# Whose tie_word_embeddings says that one matrix is both input embedding and output matrix: the config's own
# (of a model that sees or hears the outer one), that of its text model, either, or nobody's.
Ties = Literal["own", "text", "either", "always", "never"]


@dataclass(frozen=True)
class Architecture:
    """What a family of models has in common; names are those of modules, best first."""

    types: str
    input: tuple[str, ...] = ("embed_tokens",)
    output: tuple[str, ...] = ("lm_head",)
    norm: tuple[str, ...] = ("norm",)
    kind: NormKind = "rms_norm"
    ties: Ties = "own"
    tied: bool = False  # where no config says
    tied_to: tuple[str, ...] = ()  # what the output matrix is tied to, if not to the input embedding
    ignores_head: bool = False  # a tied model does not look at an output matrix that is stored
    weightless: bool = False  # the final norm multiplies with ones
    why_no_norm: str = ""  # why there is no norm to fold into the output matrix
    input_note: str = ""  # what the running model does to the matrix beyond what is stored
    output_note: str = ""
    unnoted_vocabulary: int = 0  # models with so many tokens do nothing to the matrix


_layer_norm = partial(Architecture, kind="layer_norm")
_tied_layer_norm = partial(Architecture, kind="layer_norm", tied=True)
_HEADS = ("cls.predictions.decoder", "lm_head.decoder")
_TRANSFORM = ("cls.predictions.transform.LayerNorm",)
_WORDS = ("word_embeddings",)
_PROJECTED = "the model's head is a network of its own: no norm feeds the output matrix"
# The first Baichuan, of 64,000 tokens, has a head of the usual kind.
_NORM_HEAD = "Baichuan 2 scales the rows of lm_head to length 1 when it runs; these are the rows as stored"

# fmt: off
_FAMILIES = (
    # Llama and its like: an RMSNorm named "norm".
    Architecture("afmoe apertus apertus1p5_text arcee aria_text arctic axk1 axk2 beam bitnet chameleon "
        "cosmos3_edge_text cwm deci deepseek_v2 deepseek_v3 deepseek_v32 deepseek_ocr2_text diffllama doge "
        "dots1 dots3_note_text dream emu3_text_model evolla exaone4 exaone_moe flex_olmo flint glm glm4 "
        "glm4_moe glm4_moe_lite glm4v_text glm4v_moe_text glm5_next_text glm_image_text glm_moe_dsa "
        "glm_ocr_text gpt_oss granite granite4_vision_text granitemoe granitemoe_swa granitemoehybrid "
        "granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hy_v4_vl_text hyperclovax "
        "internlm internlm3 iquestcoder kolibri1 laguna llama llama4_text longcat_flash mellum mimo "
        "mimo_v2_flash minicpm minimax minimax_m2 ministral ministral3 mistral mistral4 mistral_large4_text "
        "mixtral mllama_text_model molmo2_text muse_glimmer_text olmo2 olmo3 olmo_hybrid olmoe phi3 "
        "phi4_multimodal qwen2 qwen2_moe qwen2_vl_text qwen2_5_vl_text qwen3 qwen2_5_omni_talker qwen3_moe "
        "qwen3_omni_moe_text qwen3_omni_moe_talker_text qwen3_vl_text sarvam_mla seed_oss solar_open "
        "unlimited_ocr_text voxtral_realtime_text xverse eurobert"),
    Architecture("ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text granite_docling_text granite_swa "
        "hunyuan_vl_text jetmoe lara_mini minicpm3 paddleocr_vl_text qwen2_5_omni_text qwen3_vl_moe_text "
        "smollm3 youtu zaya gemma3n_text gemma4_text gemma4_unified_text", tied=True),
    Architecture("bailing_hybrid", input=_WORDS, ties="never"),
    Architecture("sarvam_moe bailing_moe bailing_moe_v2", input=_WORDS),
    Architecture("kimi_linear moshi", ties="never"),
    Architecture("baichuan", output_note=_NORM_HEAD, unnoted_vocabulary=64000),
    Architecture("jamba bamba falcon_h1", norm=("final_layernorm", "norm")),
    Architecture("zamba zamba2", norm=("final_layernorm", "norm"), tied=True),
    Architecture("deepseek_v4", output=("head", "lm_head")),
    Architecture("exaone qwen", input=("wte",), norm=("ln_f",)),
    Architecture("internlm2", input=("tok_embeddings",), output=("output", "lm_head")),
    Architecture("chatglm", input=_WORDS, output=("output_layer",), norm=("final_layernorm",)),
    Architecture("llada", input=("wte",), output=("transformer.ff_out",), norm=("ln_f",), ignores_head=True),
    Architecture("molmo", input=("wte",), output=("transformer.ff_out",), norm=("ln_f",), ignores_head=True,
        input_note="Molmo puts the rows of wte.new_embedding after these when it runs"),
    Architecture("openelm", input=("token_embeddings",), tied=True, ignores_head=True),
    Architecture("inkling_text inkling2_text inkling2_loop_text", input=("llm.embed", "embed_tokens"),
        output=("llm.unembed", "lm_head"), norm=("llm.norm", "norm"), ties="never"),
    Architecture("lfm2 lfm2_moe lfm3", norm=("embedding_norm",), tied=True),
    # RMSNorms that multiply with 1 + weight.
    Architecture("gemma gemma2 gemma3_text vaultgemma t5gemma2_text", kind="rms_norm_plus_one", tied=True),
    Architecture("recurrent_gemma", norm=("final_norm",), kind="rms_norm_plus_one", tied=True),
    Architecture("minimax_m3_vl_text muse_spark_text qwen3_5_moe_text qwen3_5_text qwen3_next step3p5",
        kind="rms_norm_plus_one"),
    Architecture("qwen4_exp_text qwen4_exp", norm=(),
        why_no_norm="it ends with a mixer of several residual streams"),
    Architecture("blt", input=("local_encoder.embed_tokens",), norm=("local_decoder.norm",)),
    # Norms without a weight.
    Architecture("nanochat dory", input=("embed_tokens", "backbone.embeddings"), norm=(), weightless=True),
    Architecture("hrm_text", norm=(), weightless=True),
    _layer_norm("olmo", norm=(), weightless=True),
    _layer_norm("hf_olmo", input=("wte",), output=("transformer.ff_out",), norm=("ln_f",), ignores_head=True,
        weightless=True),
    # State-space models.
    Architecture("mamba falcon_mamba", input=("backbone.embeddings", "backbone.embedding"), norm=("norm_f",),
        tied=True),
    Architecture("mamba2", input=("backbone.embeddings", "backbone.embedding"), norm=("norm_f",)),
    Architecture("nemotron_h", input=("backbone.embeddings",), norm=("norm_f",), ties="never"),
    Architecture("xlstm", input=("backbone.embeddings",), norm=("out_norm",), ties="never"),
    _layer_norm("rwkv rwkv5 rwkv6", input=("rwkv.embeddings",), output=("head",), norm=("ln_out",)),
    _layer_norm("rwkv7", input=("model.embeddings",)),
    # Decoders with a LayerNorm at their end.
    _layer_norm("jais2 phimoe stablelm orion"),
    _tied_layer_norm("cohere cohere2 cohere2_moe cohere_compass_text starcoder2"),
    Architecture("nemotron", kind="layer_norm_plus_one"),
    _layer_norm("persimmon", input=("embed_tokens", "embedding.word_embeddings"),
        output=("lm_head", "word_embeddings_for_head"), norm=("final_layernorm",)),
    _layer_norm("phi", norm=("final_layernorm",)),
    _tied_layer_norm("gpt2 gpt-sw3 gpt_bigcode gpt_neo", input=("wte",), norm=("ln_f",)),
    _layer_norm("codegen gptj", input=("wte",), norm=("ln_f",)),
    _tied_layer_norm("mpt", input=("wte",), norm=("norm_f",)),
    _layer_norm("dbrx", input=("wte",), norm=("norm_f",), ties="never"),
    _tied_layer_norm("bloom falcon", input=_WORDS, norm=("ln_f",)),
    _layer_norm("gpt_neox", input=("embed_in",), output=("embed_out", "lm_head"), norm=("final_layer_norm",)),
    _tied_layer_norm("gpt_neox_japanese", input=("embed_in",), output=("embed_out",),
        norm=("final_layer_norm",)),
    _tied_layer_norm("ctrl", input=("transformer.w", "w"), norm=("layernorm",)),
    Architecture("cpmant", input=("input_embedding",), norm=("output_layernorm",), ties="never"),
    _tied_layer_norm("biogpt", output=("output_projection",), norm=("layer_norm",)),
    _tied_layer_norm("xglm", norm=("layer_norm",)),
    _tied_layer_norm("opt", norm=("final_layer_norm",),
        why_no_norm="its layers end with norms of their own (do_layer_norm_before is false)"),
    _tied_layer_norm("modernbert-decoder", input=("tok_embeddings",), output=("decoder",),
        norm=("lm_head.norm", "final_norm")),
    # Models whose last layer ends with the norm that the head sees.
    _tied_layer_norm("openai-gpt", input=("tokens_embed",), norm=("h.*.ln_2",)),
    _tied_layer_norm("xlnet", input=("word_embedding",), output=("lm_loss",),
        norm=("layer.*.ff.layer_norm",)),
    _tied_layer_norm("xlm flaubert", input=("transformer.embeddings", "embeddings"),
        output=("pred_layer.proj",), norm=("layer_norm2.*",)),
    _layer_norm("git", input=_WORDS, output=("output",), norm=("git.encoder.layer.*.output.LayerNorm",)),
    _tied_layer_norm("bert-generation", input=_WORDS, output=("lm_head.decoder", "decoder"),
        norm=("encoder.layer.*.output.LayerNorm",)),
    # Encoders with a decoder, and their decoders alone.
    _tied_layer_norm("bart blenderbot-small mvp plbart led", input=("shared", "decoder.embed_tokens"),
        norm=("decoder.layers.*.final_layer_norm",)),
    _tied_layer_norm("blenderbot m2m_100 mbart nllb-moe pegasus pegasus_x",
        input=("shared", "decoder.embed_tokens"), norm=("decoder.layer_norm",)),
    _tied_layer_norm("marian", input=("encoder.embed_tokens", "shared", "decoder.embed_tokens"),
        norm=("decoder.layers.*.final_layer_norm",)),
    _tied_layer_norm("trocr", input=("decoder.embed_tokens",), output=("output_projection",),
        norm=("decoder.layers.*.final_layer_norm",)),
    _tied_layer_norm("bigbird_pegasus", input=("shared", "decoder.embed_tokens"),
        norm=("decoder.layernorm_embedding",)),
    _tied_layer_norm("whisper speech_to_text moonshine", input=("decoder.embed_tokens",),
        output=("proj_out", "lm_head"), norm=("decoder.layer_norm", "decoder.norm")),
    _tied_layer_norm("seamless_m4t seamless_m4t_v2", input=("text_decoder.embed_tokens", "shared"),
        norm=("text_decoder.layer_norm",)),
    _tied_layer_norm("prophetnet", input=("prophetnet.word_embeddings", "decoder.word_embeddings"),
        norm=("decoder.layers.*.feed_forward_layer_norm",)),
    _layer_norm("fsmt", input=("encoder.embed_tokens",), output=("output_projection",),
        norm=("decoder.layers.*.final_layer_norm",), tied_to=("decoder.embed_tokens",)),
    Architecture("longt5 mt5 t5 umt5 udop", input=("shared", "decoder.embed_tokens"),
        norm=("decoder.final_layer_norm",), ties="always"),
    Architecture("switch_transformers", input=("shared", "decoder.embed_tokens"),
        norm=("decoder.final_layer_norm",), tied=True),
    Architecture("t5gemma t5gemma2", input=("encoder.embed_tokens",), output=("lm_head.out_proj",),
        norm=("decoder.norm",), kind="rms_norm_plus_one", tied=True, tied_to=("decoder.embed_tokens",)),
    # Masked language models: a small network with a norm stands before the output matrix.
    _tied_layer_norm("bert big_bird deberta deberta-v2 ernie fnet layoutlm megatron-bert mra nomic_bert "
        "nystromformer roc_bert roformer squeezebert tapas yoso", input=_WORDS, output=_HEADS,
        norm=_TRANSFORM),
    _tied_layer_norm("mobilebert", input=_WORDS, output=_HEADS, norm=_TRANSFORM,
        output_note="MobileBERT puts the rows of cls.predictions.dense after these when it runs"),
    _tied_layer_norm("camembert data2vec-text esm ibert jina_embeddings_v3 longformer mpnet roberta "
        "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod", input=_WORDS, output=("lm_head.decoder",),
        norm=("lm_head.layer_norm",)),
    _layer_norm("esmc", input=("embed_tokens",), output=("lm_head.decoder",), norm=("lm_head.layer_norm",)),
    _layer_norm("luke", input=_WORDS, output=("lm_head.decoder",), norm=("lm_head.layer_norm",),
        ties="never"),
    _tied_layer_norm("gte", input=_WORDS, output=("lm_head.decoder",), norm=("lm_head.norm",)),
    _tied_layer_norm("albert", input=_WORDS, output=("predictions.decoder",),
        norm=("predictions.LayerNorm",)),
    _layer_norm("reformer", input=_WORDS, output=("lm_head.decoder",), norm=("reformer.encoder.layer_norm",)),
    _layer_norm("musicgen musicgen_decoder musicgen_melody musicgen_melody_decoder", input=(), output=(),
        norm=("decoder.layer_norm",), ties="never"),
    _layer_norm("rembert", input=_WORDS, output=_HEADS, norm=("cls.predictions.LayerNorm",), ties="never"),
    _tied_layer_norm("electra convbert", input=_WORDS, output=("generator_lm_head",),
        norm=("generator_predictions.LayerNorm",)),
    _tied_layer_norm("distilbert", input=_WORDS, output=("vocab_projector",), norm=("vocab_layer_norm",)),
    _tied_layer_norm("funnel", input=_WORDS, norm=("decoder.layers.*.ffn.layer_norm",)),
    _tied_layer_norm("modernbert", input=("tok_embeddings",), output=("decoder",), norm=("head.norm",)),
    Architecture("neobert", input=("model.encoder",), output=("decoder",), norm=("model.layer_norm",)),
    Architecture("neomme", input=_WORDS, norm=(), tied=True, why_no_norm=_PROJECTED),
    Architecture("perceiver", input=("input_preprocessor.embeddings",), output=(), norm=(), ties="always",
        why_no_norm="a decoder that attends to latents stands before the output matrix"),
    Architecture("ultrabert", output=("head.decoder", "cls"), norm=(), why_no_norm=_PROJECTED),
    # Models that see or hear around one of the above: the outer config decides on ties.
    Architecture("apertus1p5 aria cosmos3_edge cosmos3_omni deepseek_ocr2 dots3_note emu3 exaone4_5 glm46v "
        "glm5_next glm_image glmga granite4_vision hy_v4_vl idefics idefics2 idefics3 llava_next "
        "mistral_large4 molmo2 muse_glimmer qianfan_ocr qwen2_5_omni qwen2_5_omni_thinker qwen3_omni_moe "
        "qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe smolvlm unlimited_ocr video_llava vipllava"),
    _layer_norm("cohere_compass"),
    _layer_norm("fuyu", norm=("final_layernorm",)),
    Architecture("minicpmv4_6 minicpmv4_7 muse_spark qwen3_5 qwen3_5_moe step3p7", kind="rms_norm_plus_one"),
    Architecture("deepseek_vl deepseek_vl_hybrid ernie4_5_vl_moe gemma3n gemma4 gemma4_assistant "
        "gemma4_unified gemma4_unified_assistant glmasr got_ocr2 granite_docling granite_speech "
        "granite_speech_plus hyperclovax_vision_v2 internvl janus kimi_k25 lighton_ocr mistral3 "
        "moss_transcribe_diarize ovis2 pp_chart2table qwen3_asr voxtral_realtime", tied=True),
    Architecture("lfm2_vl lfm3_vl", norm=("embedding_norm",), tied=True),
    Architecture("gemma3 paligemma minicpm_ocr colpali", kind="rms_norm_plus_one", tied=True),
    _tied_layer_norm("aya_vision cohere2_vision"),
    _tied_layer_norm("florence2", input=("shared", "decoder.embed_tokens"),
        norm=("decoder.layers.*.final_layer_norm",)),
    Architecture("glm4v glm4v_moe glm_ocr llava llava_next_video llava_onevision fast_vlm perception_lm "
        "qwen2_5_vl qwen2_vl video_llama_3", ties="either"),
    Architecture("hunyuan_vl paddleocr_vl", ties="either", tied=True),
    Architecture("shieldgemma2", kind="rms_norm_plus_one", ties="either", tied=True),
    Architecture("minimax_m3_vl", kind="rms_norm_plus_one", ties="either"),
    Architecture("blip-2 instructblip instructblipvideo llama4", ties="text"),
    _tied_layer_norm("encoder-decoder vision-encoder-decoder",
        input=("encoder.embeddings.word_embeddings", *_WORDS), output=_HEADS, norm=_TRANSFORM, ties="text",
        tied_to=("decoder.bert.embeddings.word_embeddings",)),
    _tied_layer_norm("kosmos-2", norm=("layer_norm",), ties="either"),
    _tied_layer_norm("kosmos-2.5", norm=("layer_norm",), ties="text"),
    Architecture("audioflamingo3 mllama musicflamingo nemo_speechlm omniasr qwen2_audio vibevoice_asr "
        "voxtral", ties="never"),
    Architecture("inkling2 inkling2_loop inkling_mm_model", input=("llm.embed",), output=("llm.unembed",),
        norm=("llm.norm",), ties="never"),
    _layer_norm("modernvbert", input=("tok_embeddings",), norm=("projection_head.norm",)),
    Architecture("ultravbert", output=("head.decoder",), norm=(), why_no_norm=_PROJECTED),
)
FAMILIES = {model_type: family for family in _FAMILIES for model_type in family.types.split()}

# For model types that stand in no row: ends of names, best first. Encoder-decoder models hold "shared" and
# copies.
USUAL = {
    "input": ("shared", "wte", "embed_tokens", "embed_in", "word_embeddings", "tok_embeddings",
              "word_embedding", "token_embedding", "backbone.embeddings", "backbone.embedding",
              "rwkv.embeddings"),
    "output": ("lm_head", "embed_out", "predictions.decoder", "lm_head.decoder", "vocab_projector",
               "output_layer", "generator_lm_head", "word_embeddings_for_head", "transformer.ff_out"),
}
# These are common ends of other tensors' names, and count only as the whole name.
WHOLE_NAMES = {
    "input": ("model.embeddings", "embeddings"),
    "output": ("output", "decoder", "model.output", "head", "language_model.output"),
}
# What the last part of a name may end with, where none of these is there.
LIKE_OUTPUTS = re.compile(r"(^|_)(unembed(ding)?|lm_?head|output_embeddings?|to_logits)$", re.IGNORECASE)
USUAL_NORMS = ("ln_f", "final_layer_norm", "final_layernorm", "norm_f", "ln_out", "embedding_norm",
               "final_norm", "norm", "layer_norm", "ln_final")
# Usual modules without modules inside: what follows such a name in an adapter is the adapter's.
LEAVES = {"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "shared", "lm_head",
          "embed_out", "output_layer"}

# Names with these belong to another part of the model: a layer, an image encoder, a draft head, ...
ELSEWHERE = re.compile(
    r"(^|[._])(layers?|h|blocks?)\.\d+\.|vision|visual|audio|image|position|pos_emb|wpe|token_type|per_layer"
    r"|speech|protein|q_?former|codec|mtp|nextn|draft|eagle|medusa|speculator|talker|token2wav"
    r"|code_predictor|code2wav|depth_decoder|projector|merger|connector|resampler|aligner|lora"
    r"|gemma_expert|patcher"
)
# Of several hits, the one of the text model is meant, then the decoder's.
TEXT_MODEL = re.compile(r"language_model|text_model|llm|thinker|text_decoder")

# Where a model keeps its layers, as the path ends, best first: in a model that sees or hears, those of the
# language model are meant.
LAYER_PATHS = (
    "language_model.model.layers", "language_model.layers", "text_model.layers", "model.decoder.layers",
    "decoder.layers", "transformer.h", "gpt_neox.layers", "transformer.blocks", "backbone.layers",
    "model.layers", "layers", "h", "blocks",
)
# fmt: on
