"""What a finished model can do: perplexity on held-out text beside a unigram model's, and what it writes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, set_seed

from training.corpus import Document
from training.data import blocks, stream

PROMPTS = ("One day, a little girl named Lily", "The old king", "She looked at him and said,")
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 40}
SAMPLE_SEED = 0
SAMPLE_TOKENS = 60


def load_model(folder: Path) -> PreTrainedModel:
    """Load the stored float16 weights, to compute with them in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def measure(folder: Path, streams: dict[str, np.ndarray], documents: list[Document]) -> dict[str, Any]:
    """Return every number and sample of a model card that needs the model itself."""
    model = load_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    held_out = blocks(streams["held_out"])
    loss, unigram = held_out_loss(model, held_out), unigram_loss(streams["training"], held_out)
    texts = write(model, tokenizer, tokenizer.eos_token, 64)
    known = {word for document in documents for word in words(document.training)}
    written = [word for text in texts for word in words(text)]
    return {
        "held_out_tokens": int(held_out[:, 1:].size),
        "held_out_loss": loss,
        "held_out_perplexity": math.exp(loss),
        "unigram_perplexity": math.exp(unigram),
        "held_out_perplexity_by_source": _by_source(model, folder, documents),
        "sampling": {**SAMPLING, "seed": SAMPLE_SEED, "new_tokens": SAMPLE_TOKENS},
        "samples": {prompt: write(model, tokenizer, prompt, 1)[0] for prompt in PROMPTS},
        "written_words": len(written),
        "written_words_known": sum(word in known for word in written) / len(written),
    }


def _by_source(model: PreTrainedModel, folder: Path, documents: list[Document]) -> dict[str, float]:
    """Return the held-out perplexity on each part of the text that fills a row."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    perplexities = {}
    for source in dict.fromkeys(document.source for document in documents):
        texts = [document.held_out for document in documents if document.source == source]
        if len(rows := blocks(stream(tokenizer, texts))) > 0:
            perplexities[source.name] = math.exp(held_out_loss(model, rows))
    return perplexities


def held_out_loss(model: PreTrainedModel, rows: np.ndarray) -> float:
    """Return the mean of -log p, in nats, of each row's tokens but the first, given those before it."""
    batches = torch.from_numpy(rows).split(32)
    with torch.inference_mode():
        losses = [float(model(input_ids=batch, labels=batch).loss) * len(batch) for batch in batches]
    return sum(losses) / len(rows)


def unigram_loss(training: np.ndarray, rows: np.ndarray) -> float:
    """Return the same of a model that knows only how frequent each token is (counts plus one)."""
    counts = np.bincount(training, minlength=int(rows.max()) + 1) + 1.0
    return float(-np.log(counts / counts.sum())[rows[:, 1:]].mean())


def write(model: PreTrainedModel, tokenizer: Any, prompt: str, count: int) -> list[str]:
    """Return `count` continuations of a prompt, from a fixed seed, with the prompt."""
    set_seed(SAMPLE_SEED)
    inputs = tokenizer([prompt] * count, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**inputs, **SAMPLING, max_new_tokens=SAMPLE_TOKENS)
    texts: list[str] = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return texts


def words(text: str) -> list[str]:
    """Return the words of a text in small letters; the last one may be cut, so it is left out."""
    return re.findall(r"[^\W\d_]+", text.lower())[:-1]
