"""How the example models are made: text, tokens, a run that is stopped and goes on, a folder that loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import real_data

import embgeom
from embgeom import examples

pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[train]'")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install '.[train]'")

from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from training import corpus, data, export, measure, train
from training.models import RECIPES, Recipe
from training.reproduce import TOLERANCE, reproduce

SENTENCES = [
    f"The {noun} {verb} near the {place}, and nobody saw it there again that day."
    for noun in ("king", "dog", "queen", "old man", "little girl", "bird")
    for verb in ("walked", "slept", "sang", "waited", "played")
    for place in ("river", "house", "tree", "road", "sea")
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder laid out like the text, with little in it."""
    folder = tmp_path_factory.mktemp("text")
    for source in corpus.SOURCES:
        path = folder / source.pattern.replace("*", "book_1")
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".json":
            path.write_text(json.dumps([" ".join(SENTENCES[i : i + 3]) for i in range(140)] * 5))
        else:
            path.write_text("\n\n".join(SENTENCES))
    return folder


@pytest.fixture(scope="module")
def prepared(text, tmp_path_factory):
    work = tmp_path_factory.mktemp("data")
    data.prepare(text, work)
    return work


@pytest.fixture(scope="module")
def tiny():
    config = GPT2Config(
        vocab_size=400, n_positions=data.CONTEXT, n_embd=8, n_layer=1, n_head=1, resid_pdrop=0.1,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return Recipe("tiny", config, seed=3, learning_rate=1.0, steps=6, batch=2)


def of_steps(log, kind="loss"):
    return list(train.losses(log, kind).values())


def test_text_is_plain_lines():
    assert corpus.clean(
        [
            "“It’s\nhere”—she said of the old house near the river.",
            "  ",
            "1 2 3 | 4 5 6",
            "A mark[12] and _stress_.",
        ]
    ) == ('"It\'s here"--she said of the old house near the river.\nA mark and stress.')
    assert corpus.clean(["Produced by somebody"]) == ""


def test_every_part_of_the_text_is_read_and_some_is_held_out(text):
    documents = list(corpus.read(text))
    assert {document.source for document in documents} == set(corpus.SOURCES)
    books = [document for document in documents if document.source.repeat == 1]
    for book in books:
        assert book.training.splitlines() + book.held_out.splitlines() == SENTENCES
        assert 0 < len(book.held_out) < 0.04 * len(book.training)
    stories = [document for document in documents if document.path.suffix == ".json"]
    assert [i for i, story in enumerate(stories) if story.held_out] == list(range(49, 700, 50))
    assert all(bool(story.training) != bool(story.held_out) for story in stories)


def test_a_part_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no gutenberg/\*.txt .*training/README.md"):
        list(corpus.read(tmp_path))


def test_tokens_spell_the_text(text, prepared):
    description = json.loads((prepared / "corpus.json").read_text())
    tokenizer = data.Tokenizer.from_file(str(prepared / "tokenizer.json"))
    documents = list(corpus.read(text))
    for name, part in (("training", "training"), ("held_out", "held_out")):
        stream = np.load(prepared / f"{name}.npy")
        assert stream.dtype == np.uint16 and len(stream) == description["tokens"][name] and stream[-1] == 0
        repeats = (1 if part == "held_out" else document.source.repeat for document in documents)
        pieces = [getattr(d, part) for d, n in zip(documents, repeats, strict=True) for _ in range(n)]
        assert tokenizer.decode(stream.tolist(), skip_special_tokens=False) == "".join(
            piece + data.END for piece in pieces if piece
        )
    assert tokenizer.encode("Zoë 🙂").ids and tokenizer.decode(tokenizer.encode("Zoë 🙂").ids) == "Zoë 🙂"


def test_preparing_again_gives_the_same_files(text, prepared, tmp_path):
    data.prepare(text, tmp_path)
    for file in prepared.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_blocks_are_whole():
    rows = data.blocks(np.arange(2 * data.CONTEXT + 5, dtype=np.uint16))
    assert rows.shape == (2, data.CONTEXT) and rows[1, -1] == 2 * data.CONTEXT - 1


def test_a_run_goes_on_where_it_stopped(prepared, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_EVERY", 2)
    straight = of_steps(train.train(tiny, prepared, tmp_path / "straight"))
    assert len(straight) == tiny.steps and straight[-1] < straight[0]
    assert of_steps(train.train(tiny, prepared, tmp_path / "stopped", stop_after=5)) == straight[:5]
    # A process that is ended while it writes leaves a folder without its last file.
    (tmp_path / "stopped" / "checkpoint-4" / "trainer_state.json").write_text('{"half": ')
    assert train._last_checkpoint(tmp_path / "stopped").name == "checkpoint-2"
    assert of_steps(train.train(tiny, prepared, tmp_path / "stopped")) == straight


def test_seeds_matter(prepared, tiny, tmp_path):
    first, second = (
        of_steps(train.train(replace(tiny, seed=seed), prepared, tmp_path / str(seed), stop_after=2))
        for seed in (1, 2)
    )
    assert first != second


def test_what_is_exported_loads_everywhere(text, prepared, tiny, tmp_path):
    folder, run, documents = tmp_path / "tiny", tmp_path / "run", list(corpus.read(text))
    with pytest.raises(FileNotFoundError, match="tiny is not trained to its end"):
        export.export(tiny, prepared, run, folder, documents)
    log = train.train(tiny, prepared, run)
    folder.mkdir()
    (folder / "earlier").touch()
    export.export(tiny, prepared, run, folder, documents)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "training.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.glob("tmp*")] == []
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert record["losses"]["first_steps"] == of_steps(log)
    assert 0 < record["measured"]["written_words_known"] <= 1
    # The trainer and our own measure mean the same by a loss, and float16 does not move it.
    assert record["measured"]["held_out_loss"] == pytest.approx(of_steps(log, "eval_loss")[-1], rel=1e-3)
    model = embgeom.load(folder)
    assert model.provenance.tied and model.provenance.dtype == "F16" and model.index(" king") > 0
    with_transformers = AutoModelForCausalLM.from_pretrained(folder)
    np.testing.assert_array_equal(
        with_transformers.get_input_embeddings().weight.float().detach().numpy(), model.matrix
    )
    assert AutoTokenizer.from_pretrained(folder).decode([model.index(" king")]) == " king"


def test_the_recorded_training_begins_in_the_same_way(tmp_path):
    # All 50 recorded steps take two minutes: python -m training reproduce small --text TEXT.
    data.prepare(Path(real_data.find("text")), tmp_path)
    for name, folder in examples.pair()._asdict().items():
        record = json.loads((folder / export.RECORD).read_text(encoding="utf-8"))
        assert json.loads((tmp_path / "corpus.json").read_text()) == record["data"]
        assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
        assert train.hyperparameters(RECIPES[name]) == record["hyperparameters"]
        assert reproduce(RECIPES[name], tmp_path, folder, steps=3) < TOLERANCE


def test_only_recorded_steps_can_be_repeated(prepared):
    with pytest.raises(ValueError, match="steps = 51; the losses of 1 to 50 steps are on record"):
        reproduce(RECIPES["small"], prepared, examples.pair().small, steps=51)


def test_losses_against_obvious_ones():
    rows = np.array([[0, 1, 2], [0, 2, 2]])
    # Counts plus one of tokens 0, 1, 2 in [0, 1, 1, 2, 2, 2]: 2, 3, 4 of 9.
    expected = -np.mean(np.log([3 / 9, 4 / 9, 4 / 9, 4 / 9]))
    assert measure.unigram_loss(np.array([0, 1, 1, 2, 2, 2]), rows) == pytest.approx(expected)
    model = replace(RECIPES["small"]).build().eval()
    rows = np.random.default_rng(0).integers(0, data.VOCABULARY, (3, 20))
    logits = model(input_ids=measure.torch.from_numpy(rows)).logits.detach().double().numpy()[:, :-1]
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = -np.take_along_axis(logits, rows[:, 1:, None], axis=-1).mean()
    assert measure.held_out_loss(model, rows) == pytest.approx(expected, rel=1e-5)


def test_words_are_letters():
    assert measure.words("Don't say \"Zoë's 3 dogs\" aga") == ["don", "t", "say", "zoë", "s", "dogs"]
