"""What the small files beside a vocabulary say: the tokenizer's class, its special and its added tokens.

Transformers names special tokens in many places, which changed from version to version: under seven standard
keys of tokenizer_config.json, under any other key that ends in ``_token`` (``image_token``, ``boi_token``),
in ``additional_special_tokens`` (version 4) or ``extra_special_tokens`` (version 5, a list or a table of
names), in special_tokens_map.json, and as ``special`` in ``added_tokens_decoder``. All of them count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from embgeom.errors import LoadError
from embgeom.loading.folder import Source, read_json
from embgeom.loading.tokenizers.table import Added, check_token, is_id

_STANDARD = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTS = ("model_specific_special_tokens", "extra_special_tokens", "additional_special_tokens")
_CONFIG, _SPECIAL, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


@dataclass(frozen=True)
class TokenizerSettings:
    """What the files beside a vocabulary say.

    Attributes
    ----------
    tokenizer_class : str or None
        The class in transformers, without the "Fast" of version 4 and without "Tokenizer" at its end.
    model_type : str
        The model_type of config.json; empty where it has none.
    special : tuple of str
        The special tokens that are named, in the order in which transformers adds those that are new.
    added : list of (int, str, bool)
        The tokens added to the vocabulary: id, content, and whether it is special.
    values : mapping of str to object
        The content of tokenizer_config.json.
    """

    tokenizer_class: str | None = None
    model_type: str = ""
    special: tuple[str, ...] = ()
    added: list[Added] = field(default_factory=list)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def described(self) -> str:
        """The tokenizer's class for a message, or else the model type."""
        if self.tokenizer_class:
            return f"{self.tokenizer_class}Tokenizer"
        return (
            f"a tokenizer of model type {self.model_type}"
            if self.model_type
            else "a tokenizer without a class"
        )


def read_settings(source: Source) -> TokenizerSettings:
    """Read the files beside a vocabulary.

    Parameters
    ----------
    source : Source
        The model's files.

    Returns
    -------
    TokenizerSettings
        What they say; of files that are absent, nothing.

    Raises
    ------
    LoadError
        If one of them is broken.
    """
    values, config = _content(source, _CONFIG), _content(source, "config.json")
    named = dict.fromkeys([*_named(values), *_named(_content(source, _SPECIAL))])
    return TokenizerSettings(
        tokenizer_class=_class_name(values) or _class_name(config),
        model_type=str(config.get("model_type") or ""),
        special=tuple(named),
        added=_added(values.get("added_tokens_decoder"), _content(source, _ADDED), named),
        values=values,
    )


def _content(source: Source, filename: str) -> dict[str, Any]:
    path = source.find(filename)
    return read_json(path) if path else {}


def _class_name(values: Mapping[str, Any]) -> str | None:
    name = values.get("tokenizer_class")
    # These two are no class of a model, but what reads a tokenizer.json of any.
    if not isinstance(name, str) or name in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    return name.removesuffix("Fast").removesuffix("Tokenizer") or None


def _named(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the special tokens that one file names: the standard ones, the model's own, then the lists."""
    own = [key for key in values if key.endswith("_token") and key not in _STANDARD]
    for key in (*_STANDARD, *own):
        value = values.get(key)
        yield from _contents(value if isinstance(value, str) or _is_token(value) else None)
    for key in _LISTS:
        yield from _contents(values.get(key))


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str)


def _contents(value: Any) -> Iterator[str]:
    """Yield the tokens in a string, a token's record, a list of these, or a table of names to these."""
    if isinstance(value, str):
        if value:
            yield value
    elif _is_token(value):
        yield from _contents(value["content"])
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, str) or _is_token(item):
                yield from _contents(item)


def _added(decoder: Any, table: Mapping[str, Any], named: Mapping[str, None]) -> list[Added]:
    """Return the added tokens by id; those of ``added_tokens_decoder`` come before added_tokens.json."""
    found: dict[int, Added] = {}
    for key, value in decoder.items() if isinstance(decoder, dict) else ():
        row = int(key) if key.isascii() and key.isdigit() and len(key) < 12 else -1
        if not is_id(row) or not (isinstance(value, str) or _is_token(value)):
            raise LoadError(f"{_CONFIG}: {value!r:.60} with id {key!r:.20} is no added token; fetch it again")
        content = check_token(value if isinstance(value, str) else value["content"], _CONFIG)
        special = isinstance(value, dict) and value.get("special") is True
        found[row] = (row, content, special or content in named)
    known = {content for _, content, _ in found.values()}
    for content, number in table.items():
        if not is_id(number):
            raise LoadError(
                f"{_ADDED}: {content!r:.60} with id {number!r:.20} is no added token; fetch it again"
            )
        if number not in found and content not in known:
            found[number] = (number, check_token(content, _ADDED), content in named)
    return list(found.values())
