"""The two models that come with the package: what they are, what they learned, what the docs say of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import embgeom
from embgeom import examples
from embgeom.errors import LoadError
from embgeom.loading import load
from tests.helpers.printed import differences
from tests.helpers.real_data import EXAMPLES, ROOT

PAGE = ROOT / "docs" / "example-models.md"
FILES = {
    "README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
    "tokenizer_config.json", "training.json",
}  # fmt: skip
# Each word with words that mean something near: of the five nearest rows at least one is among them.
RELATED = {
    "king": {"queen", "prince", "princess", "lord", "Prince", "Princess", "kingdom"},
    "mother": {"father", "mamma", "sister", "brother", "daughter", "aunt", "grandmother"},
    "two": {"three", "four", "five", "six", "several"},
    "red": {"blue", "green", "yellow", "white", "black", "brown"},
    "walked": {"went", "ran", "stepped", "hurried", "turned", "rode"},
    "morning": {"evening", "afternoon", "night", "day"},
}


@pytest.fixture(scope="module")
def comparison():
    return embgeom.compare(*EXAMPLES, without=())


def record(folder):
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def table_rows(text):
    """The cells of every row of the tables of a Markdown text, by the first cell."""
    rows = (re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("| "))
    return [[cell.strip() for cell in row] for row in rows]


def test_the_pair_is_two_folders():
    pair = examples.pair()
    assert isinstance(pair, tuple) and pair == (pair.small, pair.large)
    for folder in pair:
        assert {path.name for path in folder.iterdir()} == FILES
        # What is installed for everybody has to be readable by everybody.
        assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_they_are_small():
    size = sum(path.stat().st_size for folder in examples.pair() for path in folder.iterdir())
    assert size <= 12_000_000


def test_two_architectures_of_other_width_and_depth():
    small, large = (json.loads((folder / "config.json").read_text()) for folder in examples.pair())
    assert (small["model_type"], small["n_embd"], small["n_layer"]) == ("gpt2", 128, 4)
    assert (large["model_type"], large["hidden_size"], large["num_hidden_layers"]) == ("llama", 192, 6)
    assert small["vocab_size"] == large["vocab_size"] == 4096
    assert small["tie_word_embeddings"] and not large["tie_word_embeddings"]


@pytest.mark.parametrize("which", ["input", "output"])
@pytest.mark.parametrize("name", ["small", "large"])
def test_names_stand_for_folders(name, which):
    folder = getattr(examples.pair(), name)
    by_name, by_folder = load(f"example:{name}", which), load(folder, which)
    np.testing.assert_array_equal(by_name.matrix, by_folder.matrix)
    assert (by_name.name, by_folder.name) == (f"example:{name}", name)
    assert by_name.provenance.source == f"example:{name}"
    assert by_name.provenance.file == folder / "model.safetensors"
    assert by_name.provenance.tied == (name == "small") and by_name.provenance.dtype == "F16"
    assert not by_name.provenance.notes


def test_the_unembedding_of_the_large_one_is_its_own():
    assert np.array_equal(load("example:small").matrix, load("example:small", "output").matrix)
    assert not np.array_equal(load("example:large").matrix, load("example:large", "output").matrix)


@pytest.mark.parametrize(
    "name", ["example:", "example:medium", "example:small/", "example:SMALL", "example:.."]
)
def test_names_that_stand_for_nothing(name):
    with pytest.raises(LoadError, match=r"no example '.*'; .* are example:small and example:large$"):
        load(name)


def test_what_exists_here_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example:small").symlink_to(examples.pair().large)
    assert load("example:small").matrix.shape == (4096, 192)


@pytest.mark.parametrize("name", EXAMPLES)
def test_rare_tokens_are_left_out(name):
    model = load(name, "output")
    kept = examples.without_rare_tokens(model)
    rare = record(getattr(examples.pair(), name.partition(":")[2]))["data"]["rare_tokens"]
    assert (kept.name, kept.which, len(kept.tokens)) == (name, "output", 4096 - 1 - len(rare))
    assert set(model.tokens) - set(kept.tokens) == {model.tokens[row] for row in [0, *rare]}
    row = model.row_of(" king")
    np.testing.assert_array_equal(kept.matrix[kept.row_of(" king")], model.matrix[row])
    assert kept.token_bytes[kept.row_of(" king")] == b" king"


def test_rare_tokens_are_known_of_examples_only():
    pets = embgeom.Embeddings.from_array(np.eye(3), ["cat", "dog", "cow"], name="pets")
    with pytest.raises(embgeom.InputError, match=r"no training\.json next to pets; only"):
        examples.without_rare_tokens(pets)


def test_no_row_is_odd():
    for name in EXAMPLES:
        model = load(name)
        assert {value for key, value in model.anomalies.items() if key != "special tokens"} == {0}
        assert model.anomalies["special tokens"] == 1 and model.special.nonzero()[0].tolist() == [0]


@pytest.mark.parametrize("which", ["input", "output"])
@pytest.mark.parametrize("word", RELATED)
def test_neighbors_of_common_words_are_related_words(word, which):
    for name in EXAMPLES:
        model = load(name, which)
        near = embgeom.knn(model.matrix, 5, rows=[model.row_of(f" {word}")]).indices[0]
        assert {model.text(row).strip() for row in near} & RELATED[word], (name, near)


def test_the_models_share_their_geometry(comparison):
    assert len(comparison.match) == 4095
    for name in ("global_similarity", "global_similarity_centered", "neighbor_overlap", "weight_cosine"):
        measure = comparison[name]
        assert measure.value > 0.15 and abs(measure.null.mean) < 0.01 and measure.p_adjusted < 1e-9, name


@pytest.mark.slow
def test_the_page_and_the_cards_say_what_is_measured(tmp_path):
    for module in ("transformers", "accelerate", "matplotlib"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install '.[train]'")
    from training.card import write_descriptions

    folders = {name: tmp_path / name for name in examples.Pair._fields}
    for name, folder in folders.items():
        shutil.copytree(getattr(examples.pair(), name), folder)
        (folder / "README.md").unlink()
    write_descriptions(folders, tmp_path / PAGE.name)
    written = {tmp_path / PAGE.name: PAGE}
    written |= {
        folders[name] / "README.md": folder / "README.md"
        for name, folder in examples.pair()._asdict().items()
    }
    for new, committed in written.items():
        text, expected = (path.read_text(encoding="utf-8") for path in (new, committed))
        assert differences(text, expected) == [], "run: python -m training describe"
    assert (tmp_path / "example-models-loss.svg").stat().st_size > 10_000


def test_the_cards_state_how_the_models_were_made():
    for name, folder in examples.pair()._asdict().items():
        card, said = (folder / "README.md").read_text(encoding="utf-8"), record(folder)
        assert f"    python -m training train {name} --work WORK" in card
        assert f"Seed {said['seed']} " in card and "license: bsd-3-clause" in card
        for source in said["data"]["sources"]:
            assert source["name"] in card and source["license"] in card and source["files"]
        last = list(said["losses"]["held_out"].items())[-1]
        assert [last[0], f"{last[1]:.3f}"] in [[row[0], row[-1]] for row in table_rows(card)]
        for text in said["measured"]["samples"].values():
            assert text.splitlines()[0] in card


def test_the_record_of_the_training():
    for folder in examples.pair():
        said = record(folder)
        losses, measured = said["losses"], said["measured"]
        assert len(losses["first_steps"]) == 50 and losses["first_steps"][0] == pytest.approx(
            np.log(4096), abs=0.1
        )
        assert len(losses["means"]) == said["hyperparameters"]["max_steps"] / losses["window"]
        # Storing as float16 costs nothing that can be seen: the last held-out loss is the stored model's.
        assert measured["held_out_loss"] == pytest.approx(list(losses["held_out"].values())[-1], abs=2e-3)
        assert measured["held_out_perplexity"] == pytest.approx(np.exp(measured["held_out_loss"]))
        assert measured["held_out_perplexity"] < measured["unigram_perplexity"] / 5
        assert measured["written_words_known"] > 0.98


def test_the_folders_are_found_without_a_checkout():
    assert examples.pair().small.parent == Path(examples.__file__).parent
