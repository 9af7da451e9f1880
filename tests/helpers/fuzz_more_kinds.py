"""More kinds of files to damage: tokenizers of other libraries, words, adapters, nested folders, pairs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import embgeom
from tests.helpers.fuzz_kinds import ROWS, E, H, Target, _model, _well_formed
from tests.helpers.loading import words

# What writes the sound files of a kind.
NEEDS = {"sentencepiece": "sentencepiece", "keyed_vectors": "gensim"}


def kind_sentencepiece(folder: Path) -> Target:
    import sentencepiece

    model, out = _model(folder), io.BytesIO()
    (model / "tokenizer.json").unlink()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on a mat and the dog ran off"] * 30),
        model_writer=out,
        vocab_size=ROWS,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (model / "tokenizer.model").write_bytes(out.getvalue())
    return Target([model / "tokenizer.model"], lambda: _well_formed(embgeom.load(model)))


def kind_keyed_vectors(folder: Path) -> Target:
    from gensim.models import KeyedVectors

    file, vectors = folder / "v.kv", KeyedVectors(E.shape[1])
    vectors.add_vectors([f"word{i}" for i in range(ROWS)], E)
    vectors.save(str(file))
    return Target([file], lambda: _well_formed(embgeom.load(file)))


def kind_adapter(folder: Path) -> Target:
    model, adapter = _model(folder), folder / "adapter"
    adapter.mkdir()
    pair = {"lora_A": E[:2], "lora_B": np.ascontiguousarray(H[:, :2])}
    tensors = {f"base_model.model.lm_head.{name}.weight": part for name, part in pair.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["lm_head"]}
    (adapter / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": str(model), "task_type": "CAUSAL_LM"})
    )
    files = [adapter / "adapter_model.safetensors", adapter / "adapter_config.json"]
    return Target(files, lambda: _well_formed(embgeom.load(model, "output", adapter=adapter)))


def kind_modules(folder: Path) -> Target:
    outer = folder / "embedder"
    outer.mkdir()
    _model(folder).rename(outer / "0_Transformer")
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (outer / "modules.json").write_text(json.dumps(modules))
    return Target([outer / "modules.json"], lambda: _well_formed(embgeom.load(outer)))


def kind_model2vec(folder: Path) -> Target:
    model = _model(folder)
    save_file({"embeddings": E, "weights": np.ones(ROWS)}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"model_type": "model2vec", "hidden_dim": E.shape[1]}))
    files = [model / "model.safetensors", model / "config.json"]
    return Target(files, lambda: _well_formed(embgeom.load(model)))


def kind_special_tokens(folder: Path) -> Target:
    model = _model(folder)
    named = {"bos_token": "▁w3", "additional_special_tokens": ["▁w4", {"content": "▁w5", "lstrip": False}]}
    (model / "special_tokens_map.json").write_text(json.dumps(named))
    (model / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "▁w2"}}))
    files = [model / "special_tokens_map.json", model / "tokenizer_config.json"]
    return Target(files, lambda: _well_formed(embgeom.load(model)))


def kind_lines(folder: Path) -> Target:
    """The tokens of a .npy, one a line."""
    np.save(folder / "m.npy", E)
    file = folder / "m.tokens.txt"
    file.write_text("\n".join(words(ROWS)))
    return Target([file], lambda: _well_formed(embgeom.load(folder / "m.npy")))


def kind_table_of_pairs(folder: Path) -> Target:
    from embgeom.steering import read_pairs

    file = folder / "pairs.csv"
    file.write_text("positive,negative\n" + '"I am, glad.",I am sad.\n' * 4)
    return Target([file], lambda: bool(read_pairs(file)))


KINDS = {name.removeprefix("kind_"): value for name, value in globals().items() if name.startswith("kind_")}
