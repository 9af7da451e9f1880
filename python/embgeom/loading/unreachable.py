"""Which tokens a tokenizer never produces: the text of each is encoded again, in a few contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.token_format import byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.folder import read_bytes
from embgeom.loading.gguf.file import GGUFFile
from embgeom.loading.gguf.model import SUFFIX

# What stands before a token may decide whether it is produced: a word or its continuation, a mark, a newline.
_BEFORE = ("", "zq", "a", "«", "1", "\n", " ")
_TEXTS_AT_A_TIME = 4096


def unreachable_rows(model: Embeddings) -> npt.NDArray[np.bool_] | None:
    """Return which rows' tokens the tokenizer never produces; None where it cannot be asked.

    Special tokens and tokens that spell no whole characters are not asked for. Of a GGUF file only the merges
    of byte-level vocabularies are known, not how they split the text before.
    """
    encode = _encoder(model)
    if encode is None:
        return None
    texts: dict[int, str] = {}
    for row, (spelled, special, raw) in enumerate(
        zip(model.token_bytes, model.special.tolist(), model.byte_token.tolist(), strict=True)
    ):
        if spelled is not None and not special and not raw:
            try:
                texts[row] = spelled.decode("utf-8")
            except UnicodeDecodeError:
                continue
    for before in _BEFORE:
        rows = list(texts)
        for row, ids in zip(rows, encode([before + texts[row] for row in rows]), strict=True):
            # SentencePiece puts a space before a text, so the token " dog" is what "dog" gives.
            if row in ids:
                del texts[row]
        if not before:
            rows = [row for row, text in texts.items() if text.startswith(" ")]
            for row, ids in zip(rows, encode([texts[row][1:] for row in rows]), strict=True):
                if row in ids:
                    del texts[row]
    unreachable = np.zeros(len(model), dtype=bool)
    unreachable[list(texts)] = True
    return unreachable


def _encoder(model: Embeddings) -> Callable[[list[str]], Iterator[list[int]]] | None:
    path = model.provenance.tokenizer
    try:
        if path is None or not path.is_file():
            return None
        if path.name.endswith("tokenizer.json"):
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_buffer(read_bytes(path))
        elif path.suffix.lower() == SUFFIX:
            tokenizer = _byte_level(GGUFFile(path), model)
        else:
            return None
    except (LoadError, OSError, ValueError):
        return None
    except Exception as error:
        # The library raises nothing more specific for a tokenizer that it cannot build.
        if type(error) is not Exception:
            raise
        return None
    if tokenizer is None:
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encode = partial(tokenizer.encode_batch_fast, add_special_tokens=False)
    return lambda texts: (
        encoding.ids
        for begin in range(0, len(texts), _TEXTS_AT_A_TIME)
        for encoding in encode(texts[begin : begin + _TEXTS_AT_A_TIME])
    )


def _byte_level(file: GGUFFile, model: Embeddings) -> Any:
    """Return the tokenizer of a GGUF file's merges; None where they are not those of bytes."""
    if file.text("tokenizer.ggml.model") != "gpt2":
        return None
    merges = file.strings("tokenizer.ggml.merges")
    letters = byte_level_alphabet().keys()
    if not merges or not set("".join(merges)) <= {*letters, " "}:
        return None
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = dict(zip(reversed(model.tokens), reversed(range(len(model))), strict=True))
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer
