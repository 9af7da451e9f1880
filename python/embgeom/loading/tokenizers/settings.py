"""What the small files beside a vocabulary say, and what is known of the tokenizer classes that they name.

Transformers names special tokens in many places, which changed from version to version: under seven standard
keys of tokenizer_config.json, under any other key that ends in ``_token`` (``image_token``, ``boi_token``),
in ``additional_special_tokens`` (version 4) or ``extra_special_tokens`` (version 5, a list or a table of
names), in special_tokens_map.json, and as ``special`` in ``added_tokens_decoder``. All of them count.

A vocab.json with merges.txt may be GPT-2's, in which every character is a byte, or fastBPE's, in which "é" is
an é and ``</w>`` ends a word; a vocab.txt may hold WordPieces or plain letters. Most classes number the
pieces of a SentencePiece model as the file does; those that come from fairseq put four tokens of their own
first and leave three of the file's out, so that all others are shifted by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from embgeom.embeddings.token_format import METASPACE, TokenFormat
from embgeom.errors import LoadError
from embgeom.loading.folder import read_json
from embgeom.loading.source import Source
from embgeom.loading.tokenizers.table import Added, TokenTable, check_token, is_id, make_table

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

_json, _text, _pieces = (partial(TokenizerClass, kind) for kind in ("json", "txt", "pieces"))
_with_languages = partial(_pieces, skipped=3, languages=True)

# fmt: off
_CLASSES = (
    _json("GPT2 CodeGen Qwen2 Qwen3_5 Whisper", "gpt2 gptj gpt_neo opt codegen whisper qwen2 qwen3",
          _BYTES, "<|endoftext|>"),
    _json("Roberta Bart LED Longformer Mvp Luke LayoutLMv3 MarkupLM Blenderbot",
          "roberta bart blenderbot led longformer", _BYTES, f"{_FAIRSEQ} <mask>"),
    _json("GPTNeoX", "gpt_neox", _BYTES, "<|endoftext|> <|padding|>"),
    _json("Deberta", "deberta", _BYTES, BERT),
    _json("CLIP", "clip clip_text_model", TokenFormat(byte_level=True, word_end="</w>"),
          "<|startoftext|> <|endoftext|>"),
    _json("Flaubert XLM", "flaubert xlm", _WORD_END, _XLM),
    _json("Herbert", "herbert", _WORD_END, f"{_FAIRSEQ} <mask>"),
    _json("BioGpt", "biogpt", _WORD_END, _FAIRSEQ),
    _json("OpenAIGPT", "openai-gpt", _WORD_END, "<unk>"),
    _json("CTRL", "ctrl", _SEPARATOR, "<unk>"),
    _json("BlenderbotSmall", "blenderbot-small", _SEPARATOR, "__start__ __end__ __unk__ __null__"),
    _json("Marian", "marian", _METASPACE, "<unk> </s> <pad>"),
    _json("M2M100", "m2m_100", _METASPACE, _FAIRSEQ, languages=True),
    _json("Speech2Text", "speech_to_text", _METASPACE, _FAIRSEQ),
    _text("Bert DistilBert Electra ConvBert MobileBert SqueezeBert Lxmert LayoutLM LayoutLMv2 "
          "DPRQuestionEncoder DPRContextEncoder DPRReader RetriBert Realm RoFormer RoCBert BertJapanese "
          "Nezha",
          "bert distilbert electra convbert mobilebert lxmert layoutlm", _WORD_PIECE, BERT),
    _text("Splinter", "", _WORD_PIECE, f"{BERT} [QUESTION]"),
    _text("Tapas", "", _WORD_PIECE, f"{BERT} [EMPTY]"),
    _text("MPNet", "mpnet", _WORD_PIECE, "<s> </s> <pad> <mask> [UNK]"),
    _text("Funnel", "funnel", _WORD_PIECE, f"{_FAIRSEQ} <mask> <sep> <cls>"),
    _text("Esm", "esm", TokenFormat(), "<cls> <pad> <eos> <unk> <mask>"),
    _pieces("Llama CodeLlama Gemma Albert XLNet BigBird DebertaV2 RemBert FNet GPTSw3 BertGeneration "
            "Reformer Siglip Barthez SpeechT5",
            "llama mistral mixtral gemma gemma2 gemma3 gemma3_text albert xlnet big_bird deberta-v2 rembert "
            "fnet reformer barthez"),
    _pieces("T5", "t5 mt5 umt5", sentinels=True),
    _pieces("XLMRoberta LayoutXLM", "xlm-roberta", first=_FIRST, skipped=3, last=("<mask>",)),
    _with_languages("MBart MBart50 Nllb PLBart", "mbart nllb-moe plbart", first=_FIRST),
    _with_languages("SeamlessM4T", "seamless_m4t seamless_m4t_v2", first=("<pad>", "<unk>", "<s>", "</s>")),
    _pieces("XGLM", "xglm", first=_FIRST, skipped=3, last=tuple(f"<madeupword{i}>" for i in range(7))),
    _pieces("Camembert", "camembert", skipped=1, last=("<mask>",),
            first=("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED")),
    _pieces("Pegasus", "pegasus bigbird_pegasus pegasus_x", first=_PEGASUS, skipped=2),
)
# fmt: on
_BY_NAME = {(c.file, name): c for c in _CLASSES for name in c.names.split()}
_BY_TYPE = {(c.file, model_type): c for c in _CLASSES for model_type in c.types.split()}

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens")
_CONFIG, _SPECIAL, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside a vocabulary say; `values` is the content of tokenizer_config.json."""

    tokenizer_class: str | None = None  # without the "Fast" of version 4 and without "Tokenizer"
    model_type: str = ""
    special: tuple[str, ...] = ()  # in the order in which transformers adds those that are new
    added: list[Added] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> str:
        if self.tokenizer_class:
            return f"{self.tokenizer_class}Tokenizer"
        return f"a tokenizer {f'of model type {self.model_type}' if self.model_type else 'without a class'}"

    def known(self, file: FileKind) -> TokenizerClass | None:
        """Return what is known of the class, or of that of the model type, if it reads such a file."""
        name = self.tokenizer_class
        return _BY_NAME.get((file, name)) if name else _BY_TYPE.get((file, self.model_type))

    def table(
        self,
        path: Path,
        vocabulary: Mapping[str, int],
        token_format: TokenFormat,
        special: Iterable[str] = (),
        named: Iterable[str] | None = None,
    ) -> TokenTable:
        named = self.special if named is None else named
        return make_table(path, vocabulary, self.added, token_format, special, named)


def read_settings(source: Source) -> TokenizerSettings:
    values, config, named, table = (
        read_json(path) if (path := source.find(name)) else {}
        for name in (_CONFIG, "config.json", _SPECIAL, _ADDED)
    )
    special = dict.fromkeys([*_named(values), *_named(named)])
    return TokenizerSettings(
        tokenizer_class=_class_name(values) or _class_name(config),
        model_type=str(config.get("model_type") or ""),
        special=tuple(special),
        added=_added(values.get("added_tokens_decoder"), table, special),
        values=values,
    )


def token_of(value: Any) -> str | None:
    token = value.get("content") if isinstance(value, dict) else value
    return token if isinstance(token, str) else None


def _class_name(values: Mapping[str, Any]) -> str | None:
    name = values.get("tokenizer_class")
    # These two read a tokenizer.json of any class.
    if not isinstance(name, str) or name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    return name.removesuffix("Fast").removesuffix("Tokenizer") or None


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that one file names: the standard ones, the model's own, then the lists."""
    keys = dict.fromkeys((*_STANDARD, *(key for key in values if key.endswith("_token"))))
    found: list[Any] = [values.get(key) for key in keys]
    for key in _LISTS:
        held: Any = values.get(key)
        table = isinstance(held, dict) and token_of(held) is None
        found += held.values() if table else held if isinstance(held, list) else [held]
    yield from filter(None, map(token_of, found))


def _added(decoder: Any, table: Mapping[str, Any], named: Mapping[str, None]) -> list[Added]:
    found: dict[int, Added] = {}

    def add(row: Any, value: Any, where: str) -> None:
        token = token_of(value)
        if not is_id(row) or token is None:
            raise LoadError(
                f"{where}: {value!r:.60} with id {row!r:.20} is not an added token; fetch it again"
            )
        special = isinstance(value, dict) and value.get("special") is True
        found[row] = (row, check_token(token, where), special or token in named)

    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        add(int(key) if key.isascii() and key.isdigit() and len(key) < 12 else key, value, _CONFIG)
    known = {token for _, token, _ in found.values()}
    for token, row in table.items():
        if not is_id(row) or (row not in found and token not in known):
            add(row, token, _ADDED)
    return list(found.values())
