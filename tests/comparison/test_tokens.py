"""Classes of tokens, which rows count, and how untrained rows are found."""

from __future__ import annotations

import json

import numpy as np
import pytest

import embgeom
from embgeom import Embeddings, InputError, LoadError, examples
from embgeom.comparison import TokenClasses, classify, kept_rows, shared_rows
from embgeom.comparison.tokens import CLASSES, WITHOUT, tokens_that_count
from embgeom.comparison.untrained import FEWEST_SEEDS, THRESHOLD
from embgeom.embeddings.token_format import byte_level_alphabet
from tests.helpers.loading import data

LETTERS = {byte: letter for letter, byte in byte_level_alphabet().items()}
IMPOSSIBLE = (0xC0, 0xC1, *range(0xF5, 0x100))


def vocabulary(words=400):
    """A byte-level vocabulary: 256 bytes, words with and without a space."""
    return [LETTERS[b] for b in range(256)] + [f"Ġword{chr(97 + i % 26)}{i}" for i in range(words)]


def made(tokens, untrained, *, seed=0, spread=0.02, width=64, **options):
    """Rows of Gaussian tokens, and untrained ones close to one point."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((len(tokens), width))
    x[untrained] = 1.5 + spread * generator.standard_normal((len(untrained), width))
    return Embeddings.from_array(x.astype(np.float32), tokens, name="made", **options)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.8])
def test_untrained_rows_are_found_from_bytes_that_no_text_holds(share):
    tokens = vocabulary()
    generator = np.random.default_rng(1)
    # The first words of a vocabulary and its letters are frequent, so they are trained.
    others = np.setdiff1d([*range(256), *range(300, len(tokens))], [*IMPOSSIBLE, *range(97, 123)])
    untrained = np.union1d(IMPOSSIBLE, generator.choice(others, int(share * len(others)), replace=False))
    classes = classify(made(tokens, untrained))
    assert np.flatnonzero(classes.untrained).tolist() == untrained.tolist()
    assert classes.detection.seeds == "rows of bytes that no text holds"
    assert classes.detection.n_seeds == len(IMPOSSIBLE) and classes.detection.recall == 1.0


def test_rows_at_their_small_random_start_are_found_by_distance():
    # In an input matrix they point anywhere, so only the distance tells.
    tokens, generator = vocabulary(), np.random.default_rng(2)
    x = generator.standard_normal((len(tokens), 64)) + 0.3
    untrained = np.array([*IMPOSSIBLE, *range(300, 340)])
    x[untrained] = 0.1 * generator.standard_normal((len(untrained), 64))
    classes = classify(Embeddings.from_array(x.astype(np.float32), tokens))
    assert np.flatnonzero(classes.untrained).tolist() == sorted(untrained.tolist())


def test_seeds_that_do_not_agree_find_nothing():
    classes = classify(made(vocabulary(), []))
    assert not classes.untrained.any() and classes.detection.seeds == ""
    assert np.isnan(classes.similarity_to_untrained).all()
    assert "untrained rows are not determined" in classes.summary()
    assert len(kept_rows(classes)) == 656


@pytest.mark.parametrize(("shift", "scale"), [(0.8, 1.0), (1.0, 1.0), (2.0, 1.0), (0.0, 0.3)])
def test_trained_bytes_that_are_alike_are_not_taken_for_untrained(shift, scale):
    tokens, generator = vocabulary(2000), np.random.default_rng(0)
    x = generator.standard_normal((len(tokens), 128))
    x[:256] = scale * x[:256] + shift * generator.standard_normal(128)
    classes = classify(Embeddings.from_array(x.astype(np.float32), tokens))
    assert not classes.untrained.any() and "untrained rows are not determined" in classes.summary()
    assert classes.detection.control == {"frequent words": (0, 200), "single letters": (0, 26)}
    # Rows that equal each other still are seeds.
    x[1000:1040] = x[1000]
    assert np.flatnonzero(
        classify(Embeddings.from_array(x.astype(np.float32), tokens)).untrained
    ).tolist() == [*range(1000, 1040)]


def test_letters_of_a_vocabulary_in_another_script_may_be_untrained():
    tokens = [
        *(LETTERS[b] for b in range(256)),
        *("".join(map(LETTERS.get, chr(0x4E00 + i).encode())) for i in range(400)),
    ]
    untrained = np.union1d(IMPOSSIBLE, np.arange(97, 123))
    assert np.flatnonzero(classify(made(tokens, untrained)).untrained).tolist() == untrained.tolist()


def test_copies_are_seeds_where_nothing_else_is_known():
    tokens = [f"▁w{i}" for i in range(300)]
    model = made(tokens, np.arange(100, 120), spread=0.0)
    near = model.matrix.copy()
    near[110:120] += 0.01 * np.random.default_rng(3).standard_normal((10, 64)).astype(np.float32)
    classes = classify(Embeddings.from_array(near, tokens))
    assert classes.detection.seeds == "rows that are equal" and classes.detection.n_seeds == 10
    assert np.flatnonzero(classes.untrained).tolist() == list(range(100, 120))
    assert np.flatnonzero(classes.equal).tolist() == list(range(101, 110))


def test_copies_of_words_are_not_taken_for_untrained():
    # Two pairs of synonyms share rows, but do not resemble each other.
    tokens = [f"▁w{i}" for i in range(100)]
    x = np.random.default_rng(4).standard_normal((100, 16)).astype(np.float32)
    x[11], x[21] = x[10], x[20]
    classes = classify(Embeddings.from_array(x, tokens))
    assert classes.equal.sum() == 2 and not classes.untrained.any()


def test_other_rows_that_are_known_check_the_detection():
    tokens = [*vocabulary(), *(f"<unused{i}>" for i in range(20))]
    unused = np.arange(656, 676)
    classes = classify(made(tokens, np.concatenate([IMPOSSIBLE, unused[:18]])))
    assert classes.detection.others == {"rows with reserved names": (18, 20)}
    assert classes.counts()["unused"] == 20
    said = " ".join(classes.summary().split())
    assert "18 of 20 rows with reserved names, which training never reached either, are found" in said
    assert "0 of 42 frequent words and 0 of 26 single letters count as untrained" in said
    assert "How many untrained rows are missed is not known" in said


def test_zero_rows_are_untrained():
    x = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    x[7] = 0
    assert np.flatnonzero(classify(Embeddings.from_array(x, [f"▁{i}" for i in range(50)])).untrained) == [7]


def test_few_seeds_find_nothing():
    assert FEWEST_SEEDS == 4
    tokens = [*(f"▁w{i}" for i in range(60)), *(f"<unused{i}>" for i in range(3))]
    assert classify(made(tokens, [60, 61, 62])).detection.seeds == ""


@pytest.mark.parametrize(("name", "which", "recall", "wrong"), [
    ("example:small", "input", 0.98, 0.02),
    ("example:large", "input", 0.65, 0.001),
    ("example:large", "output", 1.0, 0.04),
])  # fmt: skip
def test_tokens_that_are_known_to_be_rare_are_found(name, which, recall, wrong):
    # The record of the training lists the tokens that occur at most 50 times among 5.8 million.
    model = embgeom.load(name, which)
    rare = np.zeros(len(model), dtype=bool)
    record = examples.pair()._asdict()[name.partition(":")[2]] / "training.json"
    rare[json.loads(record.read_text())["data"]["rare_tokens"]] = True
    found = classify(model).untrained
    assert found[rare].mean() >= recall
    assert found[~rare].mean() <= wrong


def test_a_vocabulary_of_bytes_and_words():
    classes = classify(embgeom.load("example:small"))
    assert classes.counts() | {"untrained": 0} == {
        "special": 1, "byte": 161, "unused": 0, "unreachable": classes.unreachable.sum(), "equal": 0,
        "untrained": 0,
    }  # fmt: skip
    row = classes.tokens.index("ĠKing")
    assert (classes.position[row], classes.case[row], classes.script[row], classes.length[row]) == (
        "leading space", "capitalized", "Latin", 4,
    )  # fmt: skip
    assert classes.unreachable[[classes.tokens.index(LETTERS[b]) for b in IMPOSSIBLE]].all()


def test_only_words_and_only_named_tokens(tmp_path):
    tokens = ["▁king", "king", "▁queen", "s", "▁42", "<0x41>", "▁", "</s>"]
    classes = classify(Embeddings.from_array(np.eye(8, dtype=np.float32), tokens, special=["</s>"]))
    assert kept_rows(classes, only="words").tolist() == [0, 2]
    assert kept_rows(classes, only=["king"]).tolist() == [0, 1]
    assert kept_rows(classes, only=[" king", "s"]).tolist() == [0, 3]
    assert kept_rows(classes, only=["▁42"]).tolist() == [4]
    file = tmp_path / "tokens.txt"
    file.write_text("queen\n s\n\n", encoding="utf-8")
    with pytest.warns(embgeom.EmbgeomWarning, match="1 of the 2 .* not found in array: ' s'"):
        assert kept_rows(classes, only=file).tolist() == [2]
    with pytest.raises(InputError, match="names no token of array"):
        kept_rows(classes, only=["absent"])
    with pytest.raises(LoadError):
        kept_rows(classes, only=tmp_path / "none.txt")


def test_words_of_a_vocabulary_without_spaces():
    classes = classify(Embeddings.from_array(np.eye(3, dtype=np.float32), ["king", "42", "queen"]))
    assert kept_rows(classes, only="words").tolist() == [0, 2]
    spaced = Embeddings.from_array(np.eye(3, dtype=np.float32), ["king", "42", "queen"], token_format="words")
    assert kept_rows(classify(spaced), only="words").tolist() == [0, 2]


def test_what_is_left_out():
    tokens = [*vocabulary(), "<unused1>", "</s>"]
    classes = classify(made(tokens, list(IMPOSSIBLE), special=["</s>"]))
    assert len(kept_rows(classes, without=())) == len(tokens)
    assert len(kept_rows(classes)) == len(tokens) - len(IMPOSSIBLE) - 2
    assert len(kept_rows(classes, without=("byte",))) == len(tokens) - int(classes.byte.sum())
    assert kept_rows(classes, without="byte").tolist() == kept_rows(classes, without=["byte"]).tolist()
    assert set(WITHOUT) < set(CLASSES)
    with pytest.raises(InputError, match="without='bytes' is not a class of tokens: use special, byte"):
        kept_rows(classes, without=["bytes"])


def test_strata_are_alike_and_not_small():
    classes = classify(embgeom.load("example:small"))
    rows = kept_rows(classes, without=())
    strata = classes.strata(rows)
    sizes = np.bincount(strata)
    assert strata.shape == rows.shape and sizes.min() > 0 and (sizes >= 10).mean() > 0.9
    for stratum in range(len(sizes)):
        assert len(set(classes.byte[rows[strata == stratum]].tolist())) == 1
    # The order of the rows given changes no stratum.
    order = np.random.default_rng(0).permutation(len(rows))
    again = classes.strata(rows[order])
    assert len(np.unique(np.stack([strata[order], again]), axis=1).T) == len(sizes)


def test_strata_of_few_rows():
    classes = classify(embgeom.load("example:small"))
    assert classes.strata([5]).tolist() == [0]
    assert len(classes.strata()) == 4096


def test_classes_are_saved(tmp_path):
    classes = classify(made(vocabulary(), list(IMPOSSIBLE)))
    classes.save(tmp_path / "classes.safetensors")
    again = TokenClasses.load(tmp_path / "classes.safetensors")
    assert again.summary() == classes.summary() and again.texts == classes.texts
    np.testing.assert_array_equal(again.similarity_to_untrained, classes.similarity_to_untrained)
    assert (again.similarity_to_untrained[list(IMPOSSIBLE)] > THRESHOLD).all()
    assert again.to_dict()["counts"]["untrained"] == len(IMPOSSIBLE)
    assert len(classes.to_pandas()) == 656


def test_results_do_not_depend_on_threads():
    models = [made(vocabulary(9000), list(IMPOSSIBLE)) for _ in range(2)]
    one, two = (classify(model, threads=threads) for model, threads in zip(models, (1, 2), strict=True))
    np.testing.assert_array_equal(one.similarity_to_untrained, two.similarity_to_untrained)
    assert classify(models[0]) is one and not one.special.flags.writeable


@pytest.mark.model
def test_a_sentencepiece_vocabulary_of_mostly_bytes():
    classes = classify(embgeom.load(data("models", "stories260k")))
    assert classes.counts()["byte"] == 256 and classes.counts()["special"] == 3
    assert classes.detection.recall == 1.0 and 250 < classes.counts()["untrained"] < 300


@pytest.mark.model
def test_a_vocabulary_without_known_rows():
    classes = classify(embgeom.load(data("models", "tinystories-656k")))
    assert classes.detection.seeds == "" or classes.counts()["untrained"] < 100


def test_few_columns_ask_for_more_similarity():
    assert classify(made(vocabulary(), list(IMPOSSIBLE), width=32)).detection.threshold == pytest.approx(
        0.7071, abs=1e-4
    )
    assert classify(made(vocabulary(), list(IMPOSSIBLE), width=8)).detection.seeds == ""


def test_what_would_find_frequent_words_finds_nothing():
    tokens = vocabulary()
    assert classify(made(tokens, [*IMPOSSIBLE, *range(256, 290)])).detection.seeds == ""


def test_shared_tokens_are_chosen_alike_everywhere(tmp_path):
    marked = ["▁king", "king", "▁42", "</s>"]  # Its words stand after a space.
    plain = [" king", "king", " 42", "</s>"]
    a, b = (
        classify(Embeddings.from_array(np.eye(4, dtype=np.float32), tokens, special=["</s>"], name=name))
        for tokens, name in ((marked, "A"), (plain, "B"))
    )
    unmarked = classify(Embeddings.from_array(np.eye(1, dtype=np.float32), ["king"], name="C"))
    rows = np.arange(4)

    def chosen(only, without=()):
        both = tokens_that_count([a, b], [rows, rows], without=without, only=only)
        swapped = tokens_that_count([b, a], [rows, rows], without=without, only=only)
        assert both.tolist() == swapped.tolist()
        return np.flatnonzero(both).tolist()

    assert chosen(None) == [0, 1, 2, 3] and chosen(None, ("special",)) == [0, 1, 2]
    # A token of a list counts as either vocabulary writes it, and a word only where it is one in both.
    assert chosen(["▁42"]) == chosen([" 42"]) == [2] and chosen(["king"]) == [0, 1]
    assert kept_rows(unmarked, only="words").tolist() == [0]
    assert not tokens_that_count(
        [a, unmarked], [np.array([1]), np.array([0])], without=(), only="words"
    ).any()
    with pytest.raises(InputError, match="names no token of what A and B share"):
        chosen(["absent"])
    small, large = embgeom.load("example:small"), embgeom.load("example:large")
    words = [
        "Ġking",
        " queen",
        "dog",
        "cat",
        "red",
        "blue",
        "two",
        "three",
        "day",
        "house",
        "water",
    ]
    ids = shared_rows(small, large, only=words)
    compared = embgeom.compare(small, large, only=words, k=3, dimension_k=5)
    moved = embgeom.diff(small, small, only=words, k=3, dimension_k=5)
    inspected = embgeom.inspect(small, only=words, dimension_k=5)
    np.testing.assert_array_equal(compared.match.ids_a, ids[0])
    np.testing.assert_array_equal(compared.match.ids_b, ids[1])
    for result in (compared, moved, inspected):
        assert result.to_dict()["options"]["only"] == words


def test_listed_tokens_that_are_nowhere_are_named():
    model = Embeddings.from_array(np.eye(4, dtype=np.float32), ["▁king", "king", "▁queen", "s"], name="four")
    listed = [" king", "s", "nought", "nix", "nil", "none"]
    message = r"4 of the 6 tokens listed by only= \(--only\) not found in four: 'nil', 'nix', 'none', \.\.\.$"
    with pytest.warns(embgeom.EmbgeomWarning, match=message) as told:
        assert kept_rows(classify(model), only=listed).tolist() == [0, 3]
    assert told[0].filename == __file__


def test_classes_are_read_only_and_the_models_own_arrays_are_not():
    tokens = vocabulary()
    embeddings = made(tokens, [*IMPOSSIBLE], special=tokens[:1])
    before = embeddings.special.flags.writeable, embeddings.row_stats.repeated.flags.writeable
    classes = classify(embeddings)
    assert (embeddings.special.flags.writeable, embeddings.row_stats.repeated.flags.writeable) == before
    for array in (classes.special, classes.equal, classes.detection.similarity):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
