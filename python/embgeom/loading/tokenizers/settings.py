"""What the small files beside a vocabulary say: the tokenizer's class, its special and its added tokens.

Transformers names special tokens in many places, which changed from version to version: under seven standard
keys of tokenizer_config.json, under any other key that ends in ``_token`` (``image_token``, ``boi_token``),
in ``additional_special_tokens`` (version 4) or ``extra_special_tokens`` (version 5, a list or a table of
names), in special_tokens_map.json, and as ``special`` in ``added_tokens_decoder``. All of them count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from embgeom.errors import LoadError
from embgeom.loading.folder import Source, read_json
from embgeom.loading.tokenizers.classes import FileKind, TokenizerClass, known_class
from embgeom.loading.tokenizers.table import Added, check_token, is_id

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens")
_CONFIG, _SPECIAL, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside a vocabulary say; `values` is the content of tokenizer_config.json."""

    tokenizer_class: str | None  # without the "Fast" of version 4 and without "Tokenizer"
    model_type: str
    special: tuple[str, ...]  # in the order in which transformers adds those that are new
    added: list[Added]
    values: Mapping[str, Any]

    @property
    def described(self) -> str:
        """The tokenizer's class for a message, or else the model type."""
        if self.tokenizer_class:
            return f"{self.tokenizer_class}Tokenizer"
        return f"a tokenizer {f'of model type {self.model_type}' if self.model_type else 'without a class'}"

    def known(self, file: FileKind) -> TokenizerClass | None:
        """Return what is known of the class, if it reads such a file."""
        return known_class(file, self.tokenizer_class, self.model_type)


def read_settings(source: Source) -> TokenizerSettings:
    """Read the files beside a vocabulary; of files that are absent, nothing."""
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


def token_content(value: Any) -> str | None:
    """Return the token in a string or in a token's record; None for anything else."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _class_name(values: Mapping[str, Any]) -> str | None:
    name = values.get("tokenizer_class")
    # These two read a tokenizer.json of any class.
    if not isinstance(name, str) or name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    return name.removesuffix("Fast").removesuffix("Tokenizer") or None


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that one file names: the standard ones, the model's own, then the lists."""
    own = [key for key in values if key.endswith("_token") and key not in _STANDARD]
    found: list[Any] = [values.get(key) for key in (*_STANDARD, *own)]
    for key in _LISTS:
        held: Any = values.get(key)
        table = isinstance(held, dict) and token_content(held) is None
        found += held.values() if table else held if isinstance(held, list) else [held]
    yield from filter(None, map(token_content, found))


def _added(decoder: Any, table: Mapping[str, Any], named: Mapping[str, None]) -> list[Added]:
    """Return the added tokens by id; those of ``added_tokens_decoder`` come before added_tokens.json."""
    found: dict[int, Added] = {}

    def add(row: Any, value: Any, where: str) -> None:
        content = token_content(value)
        if not is_id(row) or content is None:
            raise LoadError(
                f"{where}: {value!r:.60} with id {row!r:.20} is not an added token; fetch it again"
            )
        special = isinstance(value, dict) and value.get("special") is True
        found[row] = (row, check_token(content, where), special or content in named)

    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        add(int(key) if key.isascii() and key.isdigit() and len(key) < 12 else key, value, _CONFIG)
    known = {content for _, content, _ in found.values()}
    for content, row in table.items():
        if not is_id(row) or (row not in found and content not in known):
            add(row, content, _ADDED)
    return list(found.values())
