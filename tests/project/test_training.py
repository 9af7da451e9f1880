"""How the example models are made: text, tokens, a run that is stopped and goes on, a folder that loads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embgeom
from embgeom import examples
from tests.helpers import real_data

pytest.importorskip("transformers", reason="transformers is not installed: pip install '.[train]'")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install '.[train]'")

from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config

from embgeom.examples import RECORD
from training import corpus, data, export, measure, train
from training.__main__ import main
from training.models import RECIPES, Recipe
from training.reproduce import TOLERANCE, reproduce

SENTENCES = [
    f"The {noun} {verb} near the {place}, and two happy eyes saw it there that red morning."
    for noun in ("king", "dog", "queen", "mother", "little girl", "bird")
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
        vocab_size=450, n_positions=data.CONTEXT, n_embd=8, n_layer=1, n_head=1, resid_pdrop=0.1,
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


@pytest.mark.parametrize("content", [b"", b" \n\n ", b"{}", b"[1]", "ä".encode("latin-1")])
def test_files_that_hold_no_text_are_named(text, tmp_path, content):
    shutil.copytree(text, tmp_path / "text")
    (tmp_path / "text" / "tinystories_1000.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"1000.json (holds no text|is not what is read as TinyStories)"):
        data.prepare(tmp_path / "text", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_a_text_that_is_too_short_is_refused(text, tmp_path):
    shutil.copytree(text, tmp_path / "text")
    (tmp_path / "text" / "tinystories_1000.json").write_text(json.dumps(["A dog ran to the house."]))
    with pytest.raises(ValueError, match="tokens as held_out text; 256 are needed at least"):
        data.prepare(tmp_path / "text", tmp_path / "work")


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
    (tmp_path / "stopped" / "checkpoint-old").mkdir()
    assert train.last_checkpoint(tmp_path / "stopped").name == "checkpoint-2"
    assert of_steps(train.train(tiny, prepared, tmp_path / "stopped")) == straight


def test_seeds_matter(prepared, tiny, tmp_path):
    first, second = (
        of_steps(train.train(replace(tiny, seed=seed), prepared, tmp_path / str(seed), stop_after=2))
        for seed in (1, 2)
    )
    assert first != second


def test_a_finished_run_stays_as_it_is(prepared, tiny, tmp_path):
    log = train.train(tiny, prepared, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = train.train(tiny, prepared, tmp_path)
    assert of_steps(again) == of_steps(log) and len(of_steps(again)) == tiny.steps
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_goes_on_only_as_it_began(prepared, tiny, tmp_path):
    train.train(tiny, prepared, tmp_path, stop_after=1)
    with pytest.raises(ValueError, match="began with other seed and hyperparameters; remove it"):
        train.train(replace(tiny, seed=4), prepared, tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no tokens; run python -m training prepare first"):
        train.train(tiny, tmp_path / "nowhere", tmp_path)


def test_what_is_exported_loads_everywhere(text, prepared, tiny, tmp_path):
    work, folders, page = tmp_path / "work", tmp_path / "folders", tmp_path / "docs" / "page.md"
    recipes, documents = (tiny, replace(tiny, name="other", seed=4)), list(corpus.read(text))
    (folders / "tiny").mkdir(parents=True)
    (folders / "tiny" / "earlier").touch()
    page.parent.mkdir()
    shutil.copytree(prepared, work / "data")
    log = train.train(tiny, work / "data", work / "tiny")
    train.train(recipes[1], work / "data", work / "other", stop_after=2)
    with pytest.raises(FileNotFoundError, match=r"other is not trained to its end \(0 of 6 steps"):
        export.export(recipes, work, folders, documents, page)
    # What was there stays until all that takes its place is whole.
    assert [path.name for path in folders.rglob("*")] == ["tiny", "earlier"] and not page.exists()
    train.train(recipes[1], work / "data", work / "other")
    export.export(recipes, work, folders, documents, page)
    assert sorted(path.name for path in folders.iterdir()) == ["other", "tiny"]
    folder = folders / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json", "training.json",
    ]  # fmt: skip
    assert sorted(path.name for path in page.parent.iterdir()) == ["example-models-loss.svg", "page.md"]
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert record["losses"]["first_steps"] == of_steps(log)
    assert 0 < record["measured"]["written_words_known"] <= 1
    # The trainer and our own measure mean the same by a loss, and float16 does not move it.
    assert record["measured"]["held_out_loss"] == pytest.approx(of_steps(log, "eval_loss")[-1], rel=1e-3)
    model = embgeom.load(folder)
    assert model.provenance.tied and model.provenance.dtype == "F16" and model.row_of(" king") > 0
    with_transformers = AutoModelForCausalLM.from_pretrained(folder)
    np.testing.assert_array_equal(
        with_transformers.get_input_embeddings().weight.float().detach().numpy(), model.matrix
    )
    assert AutoTokenizer.from_pretrained(folder).decode([model.row_of(" king")]) == " king"


@pytest.mark.model
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_the_recorded_training_begins_in_the_same_way(name):
    # All 50 recorded steps take a minute each: python -m training reproduce small --text TEXT.
    folder = getattr(examples.pair(), name)
    assert (
        train.hyperparameters(RECIPES[name]) == json.loads((folder / RECORD).read_text())["hyperparameters"]
    )
    assert reproduce(RECIPES[name], Path(real_data.find("text")), folder, steps=2) < TOLERANCE


def test_the_command_says_what_is_wrong(text, tmp_path, capsys):
    for arguments, message in (
        (["train", "small", "--work", tmp_path], "holds no tokens; run python -m training prepare first"),
        (["export", "--text", text, "--work", tmp_path], "small is not trained to its end (0 of 4000 steps"),
        (["prepare", "--text", tmp_path, "--work", tmp_path], "holds no gutenberg/*.txt"),
        (["reproduce", "small", "--text", text, "--steps", "51"], "steps = 51; the losses of 1 to 50 steps"),
        (["reproduce", "small", "--text", text], "is not the text on record: "),
    ):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith("training: ") and error.count("\n") == 1
    main(["prepare", "--text", str(text), "--work", str(tmp_path)])
    assert (tmp_path / "data" / "training.npy").is_file()


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
