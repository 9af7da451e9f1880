"""Kinds of files to damage.

A kind is a function that writes sound files and returns which of them to damage, what to call, and an oracle:
another library's reading of the damaged file.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import embgeom
from embgeom import SteeringVector
from tests.helpers.loading import added_token, matrix, tokenizer, words, write_folder, write_shards

ROWS, COLUMNS = 24, 8
E, H = matrix(ROWS, COLUMNS), matrix(ROWS, COLUMNS, 1)


@dataclass
class Target:
    """Files that may be damaged, a call, and what another reader makes of the same files."""

    files: list[Path]
    call: Callable[[], object]
    oracle: Callable[[], object] | None = None


def _model(folder: Path) -> Path:
    tensors = {"model.embed_tokens.weight": E, "lm_head.weight": H, "model.norm.weight": H[0]}
    tokens = tokenizer([f"▁w{i}" for i in range(ROWS)], special=2)
    config = {"model_type": "llama", "tie_word_embeddings": False, "vocab_size": ROWS, "hidden_size": COLUMNS}
    return write_folder(folder / "model", tensors, config, tokens)


def _held(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as its header says; of other types than these none."""
    types = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__" and entry["dtype"] in types:
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(content[start + begin : start + end], types[entry["dtype"]])
            tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def _tensor(path: Path, *names: str) -> Callable[[], object]:
    """The first of some tensors that is in a safetensors file."""
    return lambda: next(held[name] for held in [_held(path)] for name in names if name in held)


def kind_safetensors(folder: Path) -> Target:
    model = _model(folder)
    file = model / "model.safetensors"
    return Target([file], lambda: embgeom.load(model, "output").matrix, _tensor(file, "lm_head.weight"))


def kind_norm(folder: Path) -> Target:
    model = _model(folder)
    file = model / "model.safetensors"
    return Target([file], lambda: embgeom.load_final_norm(model).weight, _tensor(file, "model.norm.weight"))


def kind_index(folder: Path) -> Target:
    model = write_shards(_model(folder), [{"model.embed_tokens.weight": E}, {"lm_head.weight": H}])
    files = [model / "model.safetensors.index.json", *sorted(model.glob("*.safetensors"))]
    head = _tensor(files[2], "lm_head.weight")
    return Target(files[:1] * 3 + files[1:], lambda: embgeom.load(model, "output").matrix, head)


def kind_config(folder: Path) -> Target:
    model = _model(folder)
    return Target([model / "config.json"], lambda: embgeom.load(model, "input").matrix)


def _tokens(model: Path) -> Callable[[], object]:
    return lambda: (x := embgeom.load(model), [x.tokens, x.token_bytes, x.special.tolist()])[1]


def kind_tokenizer(folder: Path) -> Target:
    model = _model(folder)
    file = model / "tokenizer.json"

    def spelled() -> object:
        return embgeom.load(model).tokens

    def oracle() -> object:
        from tokenizers import Tokenizer

        held = Tokenizer.from_file(str(file))
        known = {row: token for token, row in held.get_vocab(with_added_tokens=False).items()}
        known |= {row: token.content for row, token in held.get_added_tokens_decoder().items()}
        return [known.get(row, f"<row {row}>") for row in range(ROWS)]

    return Target([file], spelled, oracle)


def kind_vocabulary(folder: Path) -> Target:
    """A vocab.json with its companions."""
    model = _model(folder)
    (model / "tokenizer.json").unlink()
    vocabulary = {f"Ġw{i}": i for i in range(ROWS - 1)}
    (model / "vocab.json").write_text(json.dumps(vocabulary))
    (model / "merges.txt").write_text("#version: 0.2\nĠ w\n")
    (model / "added_tokens.json").write_text(json.dumps({"<|end|>": ROWS - 1}))
    special = {"added_tokens_decoder": {str(ROWS - 1): added_token(ROWS - 1, "<|end|>", special=True)}}
    (model / "tokenizer_config.json").write_text(json.dumps({**special, "eos_token": "<|end|>"}))
    names = ("vocab.json", "vocab.json", "added_tokens.json", "tokenizer_config.json")
    return Target([model / name for name in names], lambda: _well_formed(embgeom.load(model)))


def kind_word_pieces(folder: Path) -> Target:
    model = _model(folder)
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", *(f"##w{i}" for i in range(ROWS - 2))]))
    return Target([model / "vocab.txt"], lambda: _well_formed(embgeom.load(model)))


def kind_tiktoken(folder: Path) -> Target:
    model = _model(folder)
    (model / "tokenizer.json").unlink()
    ranks = "".join(f"{base64.b64encode(bytes([65 + i])).decode()} {i}\n" for i in range(ROWS))
    (model / "tiktoken.model").write_text(ranks)
    return Target([model / "tiktoken.model"], lambda: _well_formed(embgeom.load(model)))


def kind_tekken(folder: Path) -> Target:
    model = _model(folder)
    (model / "tokenizer.json").unlink()
    pieces = [base64.b64encode(bytes([65 + i])).decode() for i in range(ROWS - 2)]
    vocabulary = [{"rank": i, "token_bytes": piece, "token_str": None} for i, piece in enumerate(pieces)]
    config = {"default_vocab_size": ROWS, "default_num_special_tokens": 2}
    content = {"config": config, "vocab": vocabulary, "special_tokens": []}
    (model / "tekken.json").write_text(json.dumps(content))
    return Target([model / "tekken.json"], lambda: _well_formed(embgeom.load(model)))


def kind_numpy(folder: Path) -> Target:
    file = folder / "m.npy"
    np.save(file, E)
    (folder / "m.tokens.txt").write_text("\n".join(words(ROWS)))
    return Target(
        [file],
        lambda: embgeom.load(file).matrix,
        lambda: np.load(file, allow_pickle=False).astype(np.float32),
    )


def kind_archive(folder: Path) -> Target:
    file = folder / "m.npz"
    np.savez(file, matrix=E, tokens=np.array(words(ROWS)), special=np.array(words(2)))
    return Target(
        [file], lambda: embgeom.load(file).matrix, lambda: np.load(file)["matrix"].astype(np.float32)
    )


def kind_torch(folder: Path, **options: object) -> Target:
    import torch

    model = _model(folder)
    (model / "model.safetensors").unlink()
    file = model / "pytorch_model.bin"
    tensors = {"model.embed_tokens.weight": torch.tensor(E), "lm_head.weight": torch.tensor(H)}
    torch.save(tensors, file, **options)

    def oracle() -> object:
        return torch.load(file, weights_only=True)["lm_head.weight"].float().numpy()

    return Target([file], lambda: embgeom.load(model, "output").matrix, oracle)


def kind_old_torch(folder: Path) -> Target:
    return kind_torch(folder, _use_new_zipfile_serialization=False)


def kind_gguf(folder: Path) -> Target:
    return _gguf(folder, H)


def kind_quantized_gguf(folder: Path) -> Target:
    import gguf

    return _gguf(folder, gguf.quants.quantize(matrix(ROWS, 32), gguf.GGMLQuantizationType.Q8_0), "Q8_0")


def _gguf(folder: Path, head: np.ndarray, stored: str = "F32") -> Target:
    import gguf

    file = folder / "m.gguf"
    out = gguf.GGUFWriter(file, "llama")
    out.add_block_count(2)
    out.add_embedding_length(COLUMNS)
    out.add_tokenizer_model("llama")
    out.add_token_list([f"▁w{i}" for i in range(ROWS)])
    out.add_token_types([3, 3] + [1] * (ROWS - 2))
    out.add_tensor("token_embd.weight", E)
    out.add_tensor("output_norm.weight", H[0])
    out.add_tensor("output.weight", head, raw_dtype=gguf.GGMLQuantizationType[stored])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()

    def oracle() -> object:
        held = {t.name: t for t in gguf.GGUFReader(file).tensors}
        tensor = held.get("output.weight", held.get("token_embd.weight"))
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    return Target([file], lambda: embgeom.load(file, "output").matrix, oracle)


def kind_word_vectors(folder: Path) -> Target:
    """A word2vec text; its numbers are text, so that a damaged one may be another good number."""
    file = folder / "vectors.vec"
    rows = [f"word{i} " + " ".join(map(repr, row.tolist())) for i, row in enumerate(E)]
    file.write_text("\n".join([f"{ROWS} {COLUMNS}", *rows]) + "\n")
    return Target([file], lambda: _well_formed(embgeom.load(file)))


def kind_word2vec(folder: Path) -> Target:
    file = folder / "vectors.bin"
    rows = b"".join(f"word{i} ".encode() + row.tobytes() + b"\n" for i, row in enumerate(E))
    file.write_bytes(f"{ROWS} {COLUMNS}\n".encode() + rows)
    return Target([file], lambda: _well_formed(embgeom.load(file)))


def _vector(file: Path, read: Callable[[], dict[object, object]] | None = None) -> Target:
    SteeringVector({1: E[0], 3: E[1]}, model="toy").save(file)
    return Target([file], lambda: _directions(SteeringVector.load(file).directions), read)


def _directions(directions: object) -> object:
    return {int(layer): np.asarray(vector, np.float32) for layer, vector in dict(directions).items()}


def kind_vector_safetensors(folder: Path) -> Target:
    file = folder / "v.safetensors"
    return _vector(file, lambda: {int(name.split(".")[-1]): v for name, v in _held(file).items()})


def kind_vector_torch(folder: Path) -> Target:
    import torch

    file = folder / "v.pt"

    def oracle() -> dict[object, object]:
        held = torch.load(file, weights_only=True, mmap=True)["directions"]
        return {int(str(k).split(".")[-1]): t.float().numpy() for k, t in held.items() if torch.is_tensor(t)}

    return _vector(file, oracle)


def kind_vector_gguf(folder: Path) -> Target:
    import gguf

    file = folder / "v.gguf"

    def oracle() -> dict[object, object]:
        return {int(t.name.split(".")[-1]): t.data.copy() for t in gguf.GGUFReader(file).tensors}

    return _vector(file, oracle)


def kind_vector_archive(folder: Path) -> Target:
    file = folder / "v.npz"
    np.savez(file, **{"1": E[0], "layer_3": E[1]})

    def oracle() -> dict[object, object]:
        with np.load(file) as held:
            return {int(name.split("_")[-1]): held[name].astype(np.float32) for name in held.files}

    return Target([file], lambda: _directions(SteeringVector.load(file).directions), oracle)


def kind_vector_array(folder: Path) -> Target:
    file = folder / "v.npy"
    np.save(file, E[0])
    return Target(
        [file],
        lambda: _directions(SteeringVector.load(file, layer=1).directions),
        lambda: {1: np.load(file).astype(np.float32).reshape(-1)},
    )


def kind_map(folder: Path) -> Target:
    file = folder / "map.safetensors"
    embgeom.Emb2Emb.fit(E, H, method="ridge", held_out=0).save(file)
    return Target([file], lambda: embgeom.Emb2Emb.load(file).matrix, _tensor(file, "matrix"))


def kind_pairs(folder: Path) -> Target:
    from embgeom.steering import read_pairs

    file = folder / "pairs.json"
    file.write_text(json.dumps([{"positive": "I am glad.", "negative": "I am sad."}] * 4))
    return Target([file], lambda: bool(read_pairs(file)))


def _well_formed(model: embgeom.Embeddings) -> str:
    """What holds for whatever was read; which letters a damaged text spells, only the file knows."""
    good = len(model.tokens) == len(model.matrix) == len(model.special)
    good &= all(isinstance(token, str) for token in model.tokens) and bool(np.isfinite(model.matrix).all())
    return "well formed" if good else f"ill formed: {model}"


KINDS = {name.removeprefix("kind_"): value for name, value in globals().items() if name.startswith("kind_")}
