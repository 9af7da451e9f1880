"""GGUF models: the matrix to the bit, ties, final norms, parts."""

import mmap
import struct
import sys

import numpy as np
import pytest

from embgeom import InputError, LoadError, load, load_final_norm
from tests.helpers.loading import matrix, tokenizer, words, write_folder

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from tests.helpers.gguf import entry, oracle, raw, same_bits, text, vocabulary, write_gguf  # noqa: E402

E, H = matrix(40, 256), matrix(40, 256, 1)
W = words(40)
QUANTIZED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0", "MXFP4")
# Of these the package reads the format and does not write it, so their blocks are arbitrary.
ONLY_READ = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S",
             "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS")  # fmt: skip


def model(path, tensors=None, architecture="llama", *, stored="F32", order="LITTLE", **keys):
    keys = {f"{architecture}.{key}": value for key, value in keys.items()} | vocabulary(W)
    return write_gguf(
        path, {"token_embd.weight": E} if tensors is None else tensors, architecture, keys,
        stored=stored, order=order,
    )  # fmt: skip


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16", *QUANTIZED])
def test_the_matrix_is_that_of_the_gguf_package_to_the_bit(stored, tmp_path):
    path = model(tmp_path / "m.gguf", stored=stored)
    loaded = load(path)
    assert same_bits(loaded.matrix, oracle(path))
    assert loaded.provenance.dtype == stored and loaded.tokens == W and not loaded.matrix.flags.writeable
    assert any("quantized" in note for note in loaded.provenance.notes) == (stored in QUANTIZED)


@pytest.mark.parametrize("stored", ONLY_READ)
def test_types_that_the_package_only_reads(stored, tmp_path):
    kind = gguf.GGMLQuantizationType[stored]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(3).integers(0, 256, (40, 256 // block * size), dtype=np.uint8)
    # Scales that are neither NaN nor infinite: the exponent of a float16 is never full.
    data &= 0x7B
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list(W)
    writer.add_tokenizer_model("llama")
    writer.add_tensor("token_embd.weight", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loaded = load(tmp_path / "m.gguf")
    assert loaded.matrix.shape == (40, 256) and loaded.provenance.dtype == stored
    assert same_bits(loaded.matrix, oracle(tmp_path / "m.gguf"))


@pytest.mark.parametrize("stored", ["F32", "F16"])
def test_big_endian(stored, tmp_path):
    rows = E.astype(np.float16 if stored == "F16" else np.float32)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(W)
    writer.add_tensor("token_embd.weight", rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    np.testing.assert_array_equal(load(tmp_path / "m.gguf").matrix, rows.astype(np.float32))


def test_quantized_big_endian_is_refused(tmp_path):
    path = model(tmp_path / "m.gguf", stored="Q8_0", order="BIG")
    with pytest.raises(LoadError, match="big-endian"):
        load(path)


def test_float32_is_a_view_of_the_file_and_needs_no_gguf_package(tmp_path, monkeypatch):
    path = model(tmp_path / "m.gguf", {"token_embd.weight": matrix(40, 1024)})
    quantized = model(tmp_path / "q.gguf", stored="Q8_0")
    half = model(tmp_path / "h.gguf", stored="F16")
    monkeypatch.setitem(sys.modules, "gguf", None)
    base = load(path).matrix
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base.base, mmap.mmap)
    assert load(half).provenance.dtype == "F16"
    with pytest.raises(InputError, match=r'Q8_0, which needs gguf: pip install "embgeom\[gguf\]"'):
        load(quantized)


def test_a_type_that_cannot_be_dequantized_is_named(tmp_path):
    block = struct.pack("<f", 1.0) + bytes(36)
    keys = text("general.architecture") + struct.pack("<I", 8) + text("llama")
    head = raw(keys, entry("token_embd.weight", (32, 1), 9), (1, 1))
    (tmp_path / "m.gguf").write_bytes(head + bytes(-len(head) % 32) + block)
    with pytest.raises(LoadError, match=r"stored as Q8_1.*cannot dequantize"):
        load(tmp_path / "m.gguf", vocabulary=["a"])
    head = raw(keys, entry("token_embd.weight", (32, 1), 77), (1, 1))
    (tmp_path / "m.gguf").write_bytes(head + bytes(-len(head) % 32) + block)
    with pytest.raises(LoadError, match="stored as type 77"):
        load(tmp_path / "m.gguf", vocabulary=["a"])
    head = raw(keys, entry("token_embd.weight", (8, 1), 26), (1, 1))
    (tmp_path / "m.gguf").write_bytes(head + bytes(-len(head) % 32) + block)
    with pytest.raises(LoadError, match="stored as I32"):
        load(tmp_path / "m.gguf", vocabulary=["a"])


def test_equal_rows_are_counted(tmp_path):
    rows = np.repeat(E[:20], 2, axis=0)
    loaded = load(model(tmp_path / "m.gguf", {"token_embd.weight": rows}, stored="Q4_0"))
    assert "values are quantized (Q4_0): 20 of 40 rows equal an earlier one" in loaded.provenance.notes


def test_a_scale_that_is_not_finite_names_the_row(tmp_path):
    path = model(tmp_path / "m.gguf", stored="Q8_0")
    content = bytearray(path.read_bytes())
    content[-7 * 8 * 34 :][:2] = b"\0\x7c"
    start = len(content) - 7 * 8 * 34
    content[start : start + 2] = b"\0\x7c"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"row 33.*▁w33"):
        load(path)


def test_output_and_ties(tmp_path):
    untied = model(tmp_path / "u.gguf", {"token_embd.weight": E, "output.weight": H})
    found = load(untied, "output")
    np.testing.assert_array_equal(found.matrix, H)
    assert not found.provenance.tied and not load(untied).provenance.tied
    tied = load(model(tmp_path / "t.gguf"), "output")
    np.testing.assert_array_equal(tied.matrix, E)
    assert tied.provenance.tied and tied.provenance.tensor == "token_embd.weight"
    # Two equal copies are one matrix; of two types or values they are not.
    copies = model(tmp_path / "c.gguf", {"token_embd.weight": E, "output.weight": E})
    assert load(copies, "output").provenance.tied and load(copies).provenance.tied
    other = model(
        tmp_path / "o.gguf", {"token_embd.weight": E, "output.weight": E}, stored={"output.weight": "Q8_0"}
    )
    assert not load(other, "output").provenance.tied


def test_an_encoder_has_no_output_matrix(tmp_path):
    path = model(tmp_path / "m.gguf", architecture="bert")
    assert not load(path).provenance.tied
    with pytest.raises(LoadError, match=r"no output matrix.*encoder \(bert\)"):
        load(path, "output")


def test_a_tensor_by_name_and_what_is_not_there(tmp_path):
    path = model(
        tmp_path / "m.gguf", {"token_embd.weight": E, "blk.0.attn_q.weight": H, "output_norm.weight": E[0]}
    )
    np.testing.assert_array_equal(load(path, tensor="blk.0.attn_q.weight").matrix, H)
    with pytest.raises(LoadError, match=r"no tensor lm_head.weight; it holds token_embd.weight, output_norm"):
        load(path, tensor="lm_head.weight")
    with pytest.raises(LoadError, match=r"output_norm.weight in .* has shape"):
        load(path, tensor="output_norm.weight")
    empty = write_gguf(tmp_path / "v.gguf", {}, "llama", vocabulary(W))
    with pytest.raises(LoadError, match="no tensors at all, as a file of a vocabulary alone"):
        load(empty)


def test_facts_of_the_metadata(tmp_path):
    path = model(
        tmp_path / "m.gguf", block_count=7, vocab_size=41, embedding_length=256, nextn_predict_layers=1
    )
    provenance = load(path).provenance
    assert provenance.num_layers == 6
    assert provenance.notes == ("the tensor has 40 rows, the metadata say 41",)
    assert load(model(tmp_path / "t5.gguf", architecture="t5", block_count=3)).provenance.num_layers is None


def test_folders_and_names(tmp_path):
    (tmp_path / "one").mkdir()
    path = model(tmp_path / "one" / "tiny.F32.gguf")
    write_gguf(tmp_path / "one" / "mmproj-tiny.gguf", {"v.weight": E}, "clip")
    assert load(tmp_path / "one").name == "tiny.F32" and load(tmp_path / "one").provenance.file == path
    model(tmp_path / "one" / "tiny.Q8.gguf", stored="Q8_0")
    with pytest.raises(LoadError, match=r"2 GGUF models: tiny.F32.gguf, tiny.Q8.gguf; name one"):
        load(tmp_path / "one")
    # As Ollama names them; and of a model that is there in both forms, the original is read.
    blob = tmp_path / "sha256-0123"
    blob.write_bytes(path.read_bytes())
    np.testing.assert_array_equal(load(blob).matrix, E)
    folder = write_folder(tmp_path / "both", {"wte.weight": H}, {}, tokenizer(W))
    model(folder / "tiny.gguf")
    np.testing.assert_array_equal(load(folder).matrix, H)
    with pytest.raises(LoadError, match="no such file"):
        load("absent.gguf")


def test_subfolders_and_options_of_the_hub(tmp_path):
    (tmp_path / "parts" / "q8").mkdir(parents=True)
    norm = {"token_embd.weight": E, "output_norm.weight": E[0]}
    path = model(tmp_path / "parts" / "q8" / "tiny.gguf", norm)
    np.testing.assert_array_equal(load(tmp_path / "parts", subfolder="q8").matrix, E)
    np.testing.assert_array_equal(load_final_norm(tmp_path / "parts", subfolder="q8").weight, E[0])
    for call in (load, load_final_norm):
        with pytest.raises(InputError, match="subfolder"):
            call(path, subfolder="q8")
        with pytest.raises(InputError, match="revision"):
            call(path, revision="main")
    # A file beside the model's is not the model's.
    write_folder(tmp_path / "both", {"norm.weight": 2 * E[0], "wte.weight": H}, {}, tokenizer(W))
    model(tmp_path / "both" / "tiny.gguf", norm)
    np.testing.assert_array_equal(load_final_norm(tmp_path / "both" / "tiny.gguf").weight, E[0])


def test_a_token_format_that_the_user_says(tmp_path):
    found = load(model(tmp_path / "m.gguf"), token_format="words")
    assert found.token_bytes[1] == " ▁w1".encode()


def parts(folder, *tensors, keys=True):
    names = [folder / f"tiny-{i:05}-of-{len(tensors):05}.gguf" for i in range(1, len(tensors) + 1)]
    for number, (path, held) in enumerate(zip(names, tensors, strict=True)):
        split = {"split.no": number, "split.count": len(tensors)}
        more = (vocabulary(W) | {"llama.block_count": 2}) if number == 0 else {}
        write_gguf(path, held, "llama", split | more)
    return names


def test_parts_of_a_model(tmp_path):
    names = parts(tmp_path, {"token_embd.weight": E}, {"blk.0.attn_q.weight": E}, {"output.weight": H})
    for path in (*names, tmp_path):
        found = load(path, "output")
        np.testing.assert_array_equal(found.matrix, H)
        assert found.provenance.file == names[2] and found.tokens == W and found.provenance.num_layers == 2
    (tmp_path / "capitals").mkdir()
    for path in names:
        (tmp_path / "capitals" / path.with_suffix(".GGUF").name).symlink_to(path)
    np.testing.assert_array_equal(load(tmp_path / "capitals", "output").matrix, H)
    names[1].unlink()
    assert not load(names[0]).provenance.tied
    with pytest.raises(
        LoadError, match=r"no tensor blk.0.attn_q.weight, and tiny-00002-of-00003.gguf is not"
    ):
        load(names[0], tensor="blk.0.attn_q.weight")
    names[2].unlink()
    with pytest.raises(LoadError, match=r"no tensor output.weight.*tiny-00003-of-00003.gguf"):
        load(names[0], "output")
    assert "may or may not be the output matrix" in load(names[0]).provenance.notes[0]
    alone = tmp_path / "renamed.gguf"
    names[0].rename(alone)
    with pytest.raises(LoadError, match="the rest of its 3 parts"):
        load(alone, "output")
    with pytest.raises(LoadError, match=r"tiny-00001-of-00007.gguf, which holds its metadata"):
        load(parts(tmp_path, {}, {"output.weight": H}, {})[1].rename(tmp_path / "tiny-00002-of-00007.gguf"))


@pytest.mark.parametrize(
    ("architecture", "name", "bias", "keys", "centers"),
    [
        ("llama", "output_norm", False, {"attention.layer_norm_rms_epsilon": 1e-5}, False),
        ("gemma3", "output_norm", False, {"attention.layer_norm_rms_epsilon": 1e-5}, False),
        ("nemotron", "output_norm", True, {"attention.layer_norm_rms_epsilon": 1e-5}, True),
        ("command-r", "output_norm", False, {"attention.layer_norm_epsilon": 1e-5}, True),
        ("some-new-one", "output_norm", False, {"attention.layer_norm_epsilon": 1e-5}, True),
        ("gpt2", "output_norm", True, {}, True),
        ("t5", "dec.output_norm", False, {"attention.layer_norm_epsilon": 1e-5,
                                          "attention.layer_norm_rms_epsilon": 1e-5}, False),
        ("lfm2", "token_embd_norm", False, {"attention.layer_norm_rms_epsilon": 1e-5}, False),
    ],
)  # fmt: skip
def test_final_norms_are_gains_as_they_are_stored(architecture, name, bias, keys, centers, tmp_path):
    gains = np.linspace(0.5, 2, 256).astype(np.float32)
    tensors = {"token_embd.weight": E, f"{name}.weight": gains}
    if bias:
        tensors[f"{name}.bias"] = gains
    norm = load_final_norm(model(tmp_path / "m.gguf", tensors, architecture, **keys))
    np.testing.assert_array_equal(norm.weight, gains)
    assert norm.centers == centers


def test_final_norms_that_are_not_stored(tmp_path):
    norm = load_final_norm(model(tmp_path / "o.gguf", architecture="olmo"))
    assert norm.weight.tolist() == [1.0] * 256 and norm.centers
    tensors = {"token_embd.weight": E, "token_embd_norm.weight": E[0]}
    for architecture in ("llama", "bert"):
        with pytest.raises(LoadError, match="no final norm"):
            load_final_norm(model(tmp_path / "m.gguf", tensors, architecture))


@pytest.mark.parametrize(
    ("architecture", "keys", "message"),
    [
        ("controlvector", {}, "is a control vector.*SteeringVector.load"),
        ("imatrix", {}, "importance matrix"),
        ("whatever", {"general.type": "imatrix"}, "importance matrix"),
        ("clip", {}, "mmproj"),
        ("llama", {"general.type": "adapter"}, "LoRA adapter"),
    ],
)
def test_what_is_no_model_says_what_it_is(architecture, keys, message, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", {"direction.1": E[0]}, architecture, keys)
    for call in (load, load_final_norm):
        with pytest.raises(LoadError, match=message):
            call(path)


@pytest.mark.parametrize(("which", "scale"), [("output", "output.scale"), ("input", "token_embd.scale")])
def test_a_scale_beside_the_matrix_is_named(tmp_path, which, scale):
    tensors = {"token_embd.weight": E, "output.weight": E + 1, scale: np.full(1, 2, np.float32)}
    path = model(tmp_path / "m.gguf", tensors)
    with pytest.raises(LoadError, match=f"holds {scale} beside"):
        load(path, which)
    load(path, "input" if which == "output" else "output")
