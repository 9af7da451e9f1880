"""What is known of the tokenizer classes of transformers: how they write text, and how they number tokens.

A vocab.json with merges.txt may be GPT-2's, in which every character is a byte, or fastBPE's, in which "é" is
an é and ``</w>`` ends a word; a vocab.txt may hold WordPieces or plain letters. Most classes number the
pieces of a SentencePiece model as the file does; those that come from fairseq put four tokens of their own
first and leave three of the file's out, so that all others are shifted by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from embgeom.embeddings.token_format import METASPACE, TokenFormat

FileKind = Literal["json", "txt", "pieces"]
_METASPACE = TokenFormat(space=METASPACE)


@dataclass(frozen=True)
class TokenizerClass:
    """What tokenizer classes have in common: their names, the model types that use them, and their rules."""

    file: FileKind  # a vocab.json, a vocab.txt or a SentencePiece model
    names: str  # without "Tokenizer" at the end
    types: str = ""
    token_format: TokenFormat = _METASPACE
    special: str = ""  # by the class's own defaults
    first: tuple[str, ...] = ()  # tokens that the class puts before the pieces from `skipped` on
    skipped: int = 0
    last: tuple[str, ...] = ()
    sentinels: bool = False  # T5's, after the last piece
    languages: bool = False  # tokens of languages follow in an order that no file says


_BYTES = TokenFormat(byte_level=True)
_SEPARATOR = TokenFormat(separator="@@")
_WORD_END = TokenFormat(word_end="</w>")
_WORD_PIECE = TokenFormat(continuation="##")
_FAIRSEQ = "<s> <pad> </s> <unk>"
BERT = "[PAD] [UNK] [CLS] [SEP] [MASK]"
_XLM = " ".join([_FAIRSEQ, "<mask>", *(f"<special{i}>" for i in range(10))])
_FIRST = tuple(_FAIRSEQ.split())
_PEGASUS = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103)))

# fmt: off
_CLASSES = (
    TokenizerClass("json", "GPT2 CodeGen Qwen2 Qwen3_5 Whisper",
                   "gpt2 gptj gpt_neo opt codegen whisper qwen2 qwen3", _BYTES, "<|endoftext|>"),
    TokenizerClass("json", "Roberta Bart LED Longformer Mvp Luke LayoutLMv3 MarkupLM Blenderbot",
                   "roberta bart blenderbot led longformer", _BYTES, f"{_FAIRSEQ} <mask>"),
    TokenizerClass("json", "GPTNeoX", "gpt_neox", _BYTES, "<|endoftext|> <|padding|>"),
    TokenizerClass("json", "Deberta", "deberta", _BYTES, BERT),
    TokenizerClass("json", "CLIP", "clip clip_text_model", TokenFormat(byte_level=True, word_end="</w>"),
                   "<|startoftext|> <|endoftext|>"),
    TokenizerClass("json", "Flaubert XLM", "flaubert xlm", _WORD_END, _XLM),
    TokenizerClass("json", "Herbert", "herbert", _WORD_END, f"{_FAIRSEQ} <mask>"),
    TokenizerClass("json", "BioGpt", "biogpt", _WORD_END, _FAIRSEQ),
    TokenizerClass("json", "OpenAIGPT", "openai-gpt", _WORD_END, "<unk>"),
    TokenizerClass("json", "CTRL", "ctrl", _SEPARATOR, "<unk>"),
    TokenizerClass("json", "BlenderbotSmall", "blenderbot-small", _SEPARATOR,
                   "__start__ __end__ __unk__ __null__"),
    TokenizerClass("json", "Marian", "marian", _METASPACE, "<unk> </s> <pad>"),
    TokenizerClass("json", "M2M100", "m2m_100", _METASPACE, _FAIRSEQ, languages=True),
    TokenizerClass("json", "Speech2Text", "speech_to_text", _METASPACE, _FAIRSEQ),
    TokenizerClass("txt", "Bert DistilBert Electra ConvBert MobileBert SqueezeBert Lxmert "
                   "LayoutLM LayoutLMv2 DPRQuestionEncoder DPRContextEncoder DPRReader "
                   "RetriBert Realm RoFormer RoCBert "
                   "BertJapanese Nezha",
                   "bert distilbert electra convbert mobilebert lxmert layoutlm", _WORD_PIECE, BERT),
    TokenizerClass("txt", "Splinter", "", _WORD_PIECE, f"{BERT} [QUESTION]"),
    TokenizerClass("txt", "Tapas", "", _WORD_PIECE, f"{BERT} [EMPTY]"),
    TokenizerClass("txt", "MPNet", "mpnet", _WORD_PIECE, "<s> </s> <pad> <mask> [UNK]"),
    TokenizerClass("txt", "Funnel", "funnel", _WORD_PIECE, f"{_FAIRSEQ} <mask> <sep> <cls>"),
    TokenizerClass("txt", "Esm", "esm", TokenFormat(), "<cls> <pad> <eos> <unk> <mask>"),
    TokenizerClass("pieces", "Llama CodeLlama Gemma Albert XLNet BigBird DebertaV2 RemBert FNet GPTSw3 "
                   "BertGeneration Reformer Siglip Barthez SpeechT5",
                   "llama mistral mixtral gemma gemma2 gemma3 gemma3_text albert xlnet big_bird deberta-v2 "
                   "rembert fnet reformer barthez"),
    TokenizerClass("pieces", "T5", "t5 mt5 umt5", sentinels=True),
    TokenizerClass("pieces", "XLMRoberta LayoutXLM", "xlm-roberta", first=_FIRST, skipped=3,
                   last=("<mask>",)),
    TokenizerClass("pieces", "MBart MBart50 Nllb PLBart", "mbart nllb-moe plbart", first=_FIRST, skipped=3,
                   languages=True),
    TokenizerClass("pieces", "SeamlessM4T", "seamless_m4t seamless_m4t_v2",
                   first=("<pad>", "<unk>", "<s>", "</s>"), skipped=3, languages=True),
    TokenizerClass("pieces", "XGLM", "xglm", first=_FIRST, skipped=3,
                   last=tuple(f"<madeupword{i}>" for i in range(7))),
    TokenizerClass("pieces", "Camembert", "camembert", skipped=1, last=("<mask>",),
                   first=("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")),
    TokenizerClass("pieces", "Pegasus", "pegasus bigbird_pegasus pegasus_x", first=_PEGASUS, skipped=2),
)
# fmt: on
_BY_NAME = {(c.file, name): c for c in _CLASSES for name in c.names.split()}
_BY_TYPE = {(c.file, model_type): c for c in _CLASSES for model_type in c.types.split()}


def known_class(file: FileKind, name: str | None, model_type: str) -> TokenizerClass | None:
    """Return what is known of a class or, where none is named, of the one that a model type uses."""
    return _BY_NAME.get((file, name)) if name else _BY_TYPE.get((file, model_type))
