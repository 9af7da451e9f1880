"""Small model folders, written on the spot, for the tests of loading."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.helpers import real_data

ITEM_TYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "BF16", "int8": "I8"}


def data(*parts: str) -> Path:
    """Path of a file or folder of the real data, or skip the test."""
    return Path(real_data.find("/".join(parts)))


def matrix(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def write_safetensors(
    path: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None
) -> Path:
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, array in tensors.items():
        begin = len(data)
        data += array.tobytes()
        header[name] = {
            "dtype": ITEM_TYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [begin, len(data)],
        }
    return write_raw_safetensors(path, header, data)


def write_raw_safetensors(path: Path, header: object, data: bytes) -> Path:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def tokenizer(
    tokens: list[str], *, special: int = 0, decoder: object = None, **model: object
) -> dict[str, object]:
    """A tokenizer.json whose first `special` tokens are special."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # A WordPiece model has no merges but a longest word.
    rest = {"max_input_chars_per_word": 100} if model.get("type") == "WordPiece" else {"merges": []}
    return {
        "version": "1.0",
        "added_tokens": [added_token(i, t, special=True) for i, t in enumerate(tokens[:special])],
        "decoder": decoder if decoder is not None else metaspace(),
        "model": {"type": "BPE", "vocab": vocabulary, **rest, **model},
    }


def added_token(row: int, content: str, *, special: bool) -> dict[str, object]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": row, "content": content, "special": special, **flags}


def metaspace() -> dict[str, object]:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def words(count: int) -> list[str]:
    return [f"▁w{i}" for i in range(count)]


def write_folder(
    folder: Path,
    tensors: dict[str, np.ndarray],
    config: dict[str, object] | None = None,
    tokens: dict[str, object] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A model folder; without `tokens` the tokenizer has a word for each row of the first tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = len(next(iter(tensors.values())))
    (folder / "config.json").write_text(json.dumps(config or {}))
    (folder / "tokenizer.json").write_text(json.dumps(tokens or tokenizer(words(rows))))
    write_safetensors(folder / "model.safetensors", tensors, metadata)
    return folder


def write_shards(folder: Path, shards: list[dict[str, np.ndarray]]) -> Path:
    """Replace model.safetensors by shards and their index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    table = {}
    for i, tensors in enumerate(shards, 1):
        name = f"model-{i:05}-of-{len(shards):05}.safetensors"
        write_safetensors(folder / name, tensors)
        table |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return folder
