"""PEFT adapters: what the base computes with under them, and what is refused by its name."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings

import numpy as np
import pytest

import embgeom
from embgeom.errors import LoadError
from tests.helpers.loading import matrix, tokenizer, words, write_folder, write_safetensors

ROWS, WIDTH = 40, 8
E, H = matrix(ROWS, WIDTH), matrix(ROWS, WIDTH, 1)
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": "owner/base"}
PREFIX = "base_model.model."
A, B = matrix(2, WIDTH, 2), matrix(ROWS, 2, 3)


def base_folder(path, tied=False):
    tensors = {"model.embed_tokens.weight": E, "model.norm.weight": E[0], "lm_head.weight": H}
    if tied:
        del tensors["lm_head.weight"]
    return write_folder(path / "base", tensors, {"model_type": "llama", "tie_word_embeddings": tied})


def adapter_folder(path, tensors, **config):
    folder = path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(LORA | config))
    write_safetensors(folder / "adapter_model.safetensors", {PREFIX + k: v for k, v in tensors.items()})
    return folder


HEAD_LORA = {"lm_head.lora_A.weight": A, "lm_head.lora_B.weight": B}
EMBEDDING_LORA = {
    "model.embed_tokens.lora_embedding_A": np.ascontiguousarray(B.T),
    "model.embed_tokens.lora_embedding_B": np.ascontiguousarray(A.T),
}
ROWS_OF_HEAD = {"lm_head.token_adapter.trainable_tokens_delta": E[:2]}
IN_A_LAYER = {"model.layers.0.self_attn.q_proj.lora_A.weight": matrix(2, WIDTH)}


@pytest.mark.parametrize(
    ("tensors", "config", "wanted"),
    [
        (HEAD_LORA, {}, lambda head: head + 3 * B @ A),
        (HEAD_LORA, {"use_rslora": True}, lambda head: head + np.float32(6 / 2**0.5) * (B @ A)),
        (HEAD_LORA, {"alpha_pattern": {"lm_head": 1}}, lambda head: head + 0.5 * B @ A),
        (HEAD_LORA, {"r": 9, "rank_pattern": {"q_proj": 1, ".*_head": 2}}, lambda head: head + 3 * B @ A),
        ({**HEAD_LORA, "lm_head.lora_B.bias": E[:, 0].copy()}, {}, lambda head: head + 3 * B @ A),
        ({"lm_head.weight": B @ A}, {}, lambda head: B @ A),
        (
            {"lm_head.modules_to_save.default.weight": B @ A, "lm_head.original_module.weight": H},
            {},
            lambda head: B @ A,
        ),
        (
            {**HEAD_LORA, "lm_head.base_layer.weight": 2 * H},
            {"init_lora_weights": "pissa"},
            lambda head: 2 * H + 3 * B @ A,
        ),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_of_the_head(tmp_path, tensors, config, wanted, tied):
    base, folder = base_folder(tmp_path, tied), adapter_folder(tmp_path, tensors, **config)
    model = embgeom.load(base, "output", adapter=folder)
    assert np.allclose(model.matrix, wanted(E if tied else H), atol=1e-5)
    assert not model.provenance.tied and "adapter" in model.provenance.notes[0]


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (IN_A_LAYER, {}),
        ({"model.layers.0.q_proj.lora_magnitude_vector": E[0]}, {"use_dora": True}),
        ({"model.layers.0.q_proj.ia3_l": E[0]}, {"peft_type": "IA3"}),
        ({"prompt_embeddings": matrix(3, WIDTH)}, {"peft_type": "PROMPT_TUNING"}),
    ],
)
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_of_the_layers_leaves_both(tmp_path, tensors, config, tied):
    base, folder = base_folder(tmp_path, tied), adapter_folder(tmp_path, tensors, **config)
    for which, wanted in (("input", E), ("output", E if tied else H)):
        model = embgeom.load(base, which, adapter=folder)
        assert np.array_equal(model.matrix, wanted) and model.provenance.tied == tied


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_of_one_side_leaves_the_other(tmp_path, tied):
    base, folder = base_folder(tmp_path, tied), adapter_folder(tmp_path, EMBEDDING_LORA)
    changed, kept = (embgeom.load(base, which, adapter=folder) for which in ("input", "output"))
    assert np.allclose(changed.matrix, E + 3 * B @ A, atol=1e-5)
    assert "LoRA of rank 2 of adapter added to model.embed_tokens, times 3" in changed.provenance.notes
    assert np.array_equal(kept.matrix, E if tied else H) and not kept.provenance.tied
    plain = embgeom.load(base, "input")
    assert np.array_equal(plain.matrix, E)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("indices", [[3, 5], {"embed_tokens": [3, 5]}])
def test_rows_that_were_trained(tmp_path, tied, indices):
    rows = matrix(2, WIDTH, 5)
    name = "model.embed_tokens.token_adapter.trainable_tokens_delta"
    base = base_folder(tmp_path, tied)
    folder = adapter_folder(tmp_path, {name: rows}, trainable_token_indices=indices)
    wanted = E.copy()
    wanted[[3, 5]] = rows
    changed, other = (embgeom.load(base, which, adapter=folder) for which in ("input", "output"))
    assert np.array_equal(changed.matrix, wanted)
    # Such rows keep a tie.
    assert np.array_equal(other.matrix, wanted if tied else H) and other.provenance.tied is tied


def test_a_vocabulary_that_has_grown(tmp_path):
    grown = np.vstack([E, matrix(3, WIDTH, 7)])
    a, b = matrix(2, WIDTH), matrix(ROWS + 3, 2)
    tensors = {"model.embed_tokens.weight": grown, "lm_head.base_layer.weight": grown,
               "lm_head.lora_A.weight": a, "lm_head.lora_B.weight": b}  # fmt: skip
    base, folder = base_folder(tmp_path), adapter_folder(tmp_path, tensors)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words(ROWS + 3))))
    model = embgeom.load(base, adapter=folder)
    assert np.array_equal(model.matrix, grown) and model.tokens[-1] == "▁w42"
    assert np.allclose(embgeom.load(base, "output", adapter=folder).matrix, grown + 3 * b @ a, atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "config", "why"),
    [
        ({**HEAD_LORA, "lm_head.lora_magnitude_vector": E[:, 0].copy()}, {"use_dora": True}, "by DoRA"),
        (HEAD_LORA, {"use_dora": True}, "by DoRA"),
        (HEAD_LORA, {"use_qalora": True}, "use_qalora"),
        (HEAD_LORA, {"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        (HEAD_LORA, {"r": 4}, "rank 2, and adapter_config.json says r = 4"),
        (HEAD_LORA, {"lora_alpha": "much"}, "lora_alpha = 'much'"),
        (HEAD_LORA, {"alpha_pattern": {"(": 2}}, "not a pattern"),
        ({"lm_head.lora_A.weight": A}, {}, "one half of the LoRA"),
        ({"lm_head.lora_A.weight": A, "lm_head.lora_B.weight": B[:-1].copy()}, {}, "does not fit this base"),
        ({"lm_head.ia3_l": E[0]}, {"peft_type": "IA3"}, "of the kind IA3"),
        ({"lm_head.oft_R.weight": A}, {"peft_type": "OFT"}, "of the kind OFT"),
        ({"lm_head.lora_C.weight": A}, {}, "lora_C"),
        ({"vera_A": np.ascontiguousarray(B.T)}, {"peft_type": "VERA"}, "VERA"),
        ({"my_unembed.weight": E}, {}, "in a way that embgeom does not know"),
        ({"lm_head.weight": E, "other.lm_head.weight": E}, {}, "cannot tell which"),
        (ROWS_OF_HEAD, {"trainable_token_indices": [3, 400]}, "does not fit"),
        (ROWS_OF_HEAD, {"trainable_token_indices": [3]}, "does not fit"),
        (ROWS_OF_HEAD, {}, "does not fit"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_named(tmp_path, tensors, config, why):
    base, folder = base_folder(tmp_path), adapter_folder(tmp_path, tensors, **config)
    with pytest.raises(LoadError, match=why):
        embgeom.load(base, "output", adapter=folder)


@pytest.mark.parametrize("tensors", [{"lm_head.weight": H}, IN_A_LAYER])
@pytest.mark.parametrize("which", ["input", "output"])
def test_an_adapter_alone_names_its_base(tmp_path, tensors, which):
    folder = adapter_folder(tmp_path, tensors, base_model_name_or_path="example:large")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words(ROWS))))
    for asked in (folder, folder / "adapter_model.safetensors"):
        with pytest.raises(LoadError, match=r"PEFT adapter of example:large.*load\('example:large', adap"):
            embgeom.load(asked, which)


def test_an_adapter_beside_its_model_is_applied_as_transformers_does(tmp_path):
    base, folder = base_folder(tmp_path), adapter_folder(tmp_path, HEAD_LORA)
    shutil.copytree(folder, base, dirs_exist_ok=True)
    assert np.allclose(embgeom.load(base, "output").matrix, H + 3 * B @ A, atol=1e-5)
    assert np.array_equal(embgeom.load(base / "model.safetensors", "output").matrix, H)
    (base / "adapter_model.safetensors").unlink()
    assert np.array_equal(embgeom.load(base, "output").matrix, H)


def test_an_adapter_saved_by_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    base, folder = base_folder(tmp_path), adapter_folder(tmp_path, {})
    (folder / "adapter_model.safetensors").unlink()
    tensors = {PREFIX + name: torch.tensor(value) for name, value in HEAD_LORA.items()}
    torch.save(tensors, folder / "adapter_model.bin")
    assert np.allclose(embgeom.load(base, "output", adapter=folder).matrix, H + 3 * B @ A, atol=1e-5)


def test_what_is_no_adapter(tmp_path):
    base = base_folder(tmp_path)
    with pytest.raises(LoadError, match=r"not a PEFT adapter: it holds no adapter_config\.json"):
        embgeom.load(base, adapter=base)
    with pytest.raises(LoadError, match="no such file or folder"):
        embgeom.load(base, adapter=tmp_path / "none" / "here")


def test_the_final_norm(tmp_path):
    base, folder = base_folder(tmp_path), adapter_folder(tmp_path, {"model.norm.weight": E[1]})
    assert np.array_equal(embgeom.load_final_norm(base).weight, E[0])
    assert np.array_equal(embgeom.load_final_norm(base, adapter=folder).weight, E[1])
    shutil.rmtree(folder)
    folder = adapter_folder(tmp_path, HEAD_LORA)
    assert np.array_equal(embgeom.load_final_norm(base, adapter=folder).weight, E[0])
    shutil.rmtree(folder)
    folder = adapter_folder(tmp_path, {"model.norm.ln_tuning_layers.weight": E[1]}, peft_type="LN_TUNING")
    with pytest.raises(LoadError, match="a norm, which embgeom does not merge"):
        embgeom.load_final_norm(base, adapter=folder)


KINDS = {
    "LoRA of the embedding": {"target_modules": ["embed_tokens"]},
    "LoRA of the head": {"target_modules": ["lm_head"]},
    "LoRA of both": {"target_modules": ["embed_tokens", "lm_head"], "use_rslora": True,
                     "rank_pattern": {"lm_head": 3}, "alpha_pattern": {"lm_head": 5}},
    "PiSSA": {"target_modules": ["lm_head"], "init_lora_weights": "pissa"},
    "copy of the embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "copy of the head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "rows": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
    "rows of both": {"target_modules": ["q_proj"],
                     "trainable_token_indices": {"embed_tokens": [1], "lm_head": [3, 5]}},
    "tie kept by LoRA": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "tie kept by copies": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"],
                           "ensure_weight_tying": True},
    "none of the two": {"target_modules": ["q_proj"], "use_dora": True},
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_with_the_same(tmp_path, kind, tied):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    peft = pytest.importorskip("peft", reason="peft is not installed")

    def base():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(
            vocab_size=ROWS, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=tied,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config).eval()

    with warnings.catch_warnings():
        # PEFT warns of tied embeddings, which are wanted here.
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(base(), peft.LoraConfig(r=2, lora_alpha=6, **KINDS[kind]))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "adapter")
        base().save_pretrained(tmp_path / "base")
        running = peft.PeftModel.from_pretrained(base(), tmp_path / "adapter")
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(tokenizer(words(ROWS))))
    with torch.no_grad():
        wanted = {
            "input": running.get_input_embeddings()(torch.arange(ROWS)).numpy(),
            "output": running.get_output_embeddings()(torch.eye(WIDTH)).T.numpy(),
        }
    for which, right in wanted.items():
        from_files = embgeom.load(tmp_path / "base", which, adapter=tmp_path / "adapter")
        in_memory = embgeom.load(running, which=which, vocabulary=words(ROWS))
        for loaded in (from_files, in_memory):
            assert np.allclose(loaded.matrix, right, atol=1e-6)
            assert loaded.provenance.tied == (tied and np.allclose(*wanted.values(), atol=1e-6))
    norm = embgeom.load_final_norm(tmp_path / "base", adapter=tmp_path / "adapter")
    assert np.allclose(norm.weight, embgeom.load_final_norm(running).weight)
    if not tied:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            merged = running.merge_and_unload()
        for which, right in wanted.items():
            loaded = embgeom.load(merged, which=which, vocabulary=words(ROWS))
            assert np.allclose(loaded.matrix, right, atol=1e-6)


def test_an_adapter_is_named_wherever_its_base_is(tmp_path):
    base, folder = base_folder(tmp_path, False), adapter_folder(tmp_path, HEAD_LORA)
    model = embgeom.load(base, "output", adapter=folder)
    origin = model.provenance.to_dict()
    weights = folder / "adapter_model.safetensors"
    assert model.name == f"{base.name} + {folder.name}" and origin["adapter"] == str(weights)
    assert origin["adapter_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    untouched = embgeom.load(base, "input", adapter=folder)
    assert untouched.name == base.name and untouched.provenance.adapter is None


@pytest.mark.parametrize("tensors", [{"lm_head.weight": matrix(40, WIDTH + 1)}, {"lm_head.weight": E[0]}])
def test_an_adapter_of_a_model_of_another_width_is_refused(tmp_path, tensors):
    base, folder = base_folder(tmp_path, False), adapter_folder(tmp_path, tensors)
    with pytest.raises(LoadError, match=r"does not fit this base: .* not of \d+ columns"):
        embgeom.load(base, "output", adapter=folder)


def test_rows_of_a_tied_matrix_beside_a_changed_head(tmp_path):
    # The running model puts the rows under the head, too, before the LoRA is added.
    tensors = {**HEAD_LORA, "model.embed_tokens.token_adapter.trainable_tokens_delta": E[:2]}
    adapter = adapter_folder(tmp_path, tensors, trainable_token_indices=[3, 5])
    base = base_folder(tmp_path, tied=True)
    with pytest.raises(LoadError, match="changes lm_head, and replaces rows of the base's tied matrix"):
        embgeom.load(base, "output", adapter=adapter)
    changed = embgeom.load(base, adapter=adapter).matrix
    np.testing.assert_array_equal(changed[[3, 5]], E[:2])
