"""From text to tokens: the shared tokenizer, and the streams of tokens that are trained on and held out."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from training.corpus import Document, Source, read

VOCABULARY = 4096
CONTEXT = 256
END = "<|endoftext|>"

RARE = 50
"""A token that the training stream holds so many times or fewer was hardly trained."""


def train_tokenizer(documents: list[Document]) -> Tokenizer:
    """Byte-level BPE, as GPT-2's: it spells any text, and a word carries the space before it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (document.training for document in documents for _ in range(document.source.repeat))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def prepare(text: Path, work: Path) -> None:
    """Write `tokenizer.json`, `training.npy`, `held_out.npy` and `corpus.json` into `work`.

    The two arrays are streams of uint16 tokens, each document closed by the end token; `corpus.json` says
    what went in.
    """
    documents = list(read(text))
    tokenizer = train_tokenizer(documents)
    training = [document for document in documents for _ in range(document.source.repeat)]
    streams = {
        "training": stream(tokenizer, [document.training for document in training]),
        "held_out": stream(tokenizer, [document.held_out for document in documents]),
    }
    for name, tokens in streams.items():
        if len(tokens) < CONTEXT:
            raise ValueError(
                f"{text} gives {len(tokens)} tokens as {name} text; {CONTEXT} are needed at least"
            )
    work.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(work / "tokenizer.json"))
    for name, tokens in streams.items():
        np.save(work / f"{name}.npy", tokens)
    (work / "corpus.json").write_text(json.dumps(_description(documents, streams), indent=1) + "\n")


def blocks(tokens: np.ndarray) -> np.ndarray:
    """Cut a stream into rows of CONTEXT tokens, (n, CONTEXT); what is left at the end is dropped."""
    n = len(tokens) // CONTEXT
    return tokens[: n * CONTEXT].reshape(n, CONTEXT).astype(np.int64)


def stream(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """Return the tokens of all texts, uint16, each text closed by the end token."""
    end = tokenizer.token_to_id(END)
    encodings = tokenizer.encode_batch([text for text in texts if text])
    return np.concatenate([np.array([*encoding.ids, end], dtype=np.uint16) for encoding in encodings])


def _description(documents: list[Document], streams: dict[str, np.ndarray]) -> dict[str, object]:
    sources: dict[Source, list[Document]] = {}
    for document in documents:
        sources.setdefault(document.source, []).append(document)
    return {
        "tokens": {name: len(tokens) for name, tokens in streams.items()},
        "rare_tokens": np.flatnonzero(
            np.bincount(streams["training"], minlength=VOCABULARY) <= RARE
        ).tolist(),
        "sources": [
            {
                "name": source.name,
                "license": source.license,
                "origin": source.origin,
                "repeat": source.repeat,
                "documents": len(members),
                "characters": sum(len(document.training) for document in members),
                "files": {
                    path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                    for path in sorted({document.path for document in members})
                },
            }
            for source, members in sources.items()
        ],
    }
