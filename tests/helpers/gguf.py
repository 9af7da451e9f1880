"""Small GGUF files, written on the spot."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def write_gguf(
    path: Path,
    tensors: dict[str, np.ndarray],
    architecture: str = "llama",
    keys: dict[str, object] | None = None,
    *,
    stored: str | dict[str, str] = "F32",
    order: str = "LITTLE",
) -> Path:
    """A GGUF file whose tensors are quantized to the types that `stored` names."""
    writer = gguf.GGUFWriter(path, architecture, endianess=gguf.GGUFEndian[order])
    for key, value in (keys or {}).items():
        add_key(writer, key, value)
    for name, tensor in tensors.items():
        kind = gguf.GGMLQuantizationType[stored if isinstance(stored, str) else stored.get(name, "F32")]
        data = gguf.quants.quantize(tensor.astype(np.float32), kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def oracle(path, name="token_embd.weight"):
    """A tensor as the package gguf dequantizes it."""
    tensor = next(t for t in gguf.GGUFReader(path).tensors if t.name == name)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


def add_key(writer: object, key: str, value: object) -> None:
    if isinstance(value, np.ndarray):
        writer.add_array(key, value.tolist())
    elif isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def vocabulary(tokens: list[str], kind: str = "llama", types: list[int] | None = None, **ids: int) -> dict:
    """The keys of a tokenizer: tokens, their types and the ids of some, such as ``bos=1``."""
    keys: dict[str, object] = {"tokenizer.ggml.model": kind, "tokenizer.ggml.tokens": tokens}
    if types is not None:
        keys["tokenizer.ggml.token_type"] = types
    return keys | {f"tokenizer.ggml.{name}_token_id": row for name, row in ids.items()}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def raw(keys: bytes = b"", tensors: bytes = b"", counts: tuple[int, int] = (0, 0), version: int = 3) -> bytes:
    """The bytes of a header: `counts` is how many tensors and keys it says that it holds."""
    return b"GGUF" + struct.pack("<IQQ", version, *counts) + keys + tensors


def entry(name: str, dimensions: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    """The bytes of a tensor's entry in a header; dimensions in the order of the file."""
    lengths = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return text(name) + lengths + struct.pack("<IQ", kind, offset)
