"""Coherence with a tiny WordNet made by hand, against slow and obvious loops."""

import itertools
import os

import numpy as np
import pytest

import embgeom
from embgeom import InputError, LoadError
from embgeom.comparison import Coherence, WordNet, classify, coherence
from embgeom.comparison.coherence import MEASURES
from embgeom.comparison.nulls import correlation_estimate
from embgeom.comparison.wordnet import Relatives
from tests.helpers.wordnet import SENSES, SYNSETS, write

WORDS = (
    "dog dogs Dog hound cat cats beast king kings queen queens run running walk walked fast royal leaf "
    "big bigger"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return WordNet.load(write(tmp_path_factory.mktemp("wordnet")))


def vocabulary(d=6, seed=0):
    words = [f" {word}" for word in WORDS.split()]
    tokens = [*words, "xyzzy", " xyzzy", "dog", "12", "<unk>"]
    rng = np.random.default_rng(seed)
    return embgeom.Embeddings.from_array(rng.standard_normal((len(tokens), d)), tokens, name="tiny")


def test_a_table_is_read(tiny, tmp_path):
    assert "14 lemmas, 10 synsets" in repr(tiny)
    plain = WordNet.load(write(tmp_path / "plain", plain=True))
    assert (plain.senses, plain.files, plain.related) == (tiny.senses, tiny.files, tiny.related)
    assert tiny.parts == ["n", "n", "n", "n", "n", "v", "v", "r", "a", "n"]
    # Relations count in both directions; those to itself and to unknown synsets do not.
    assert tiny.related == [{2}, {2}, {0, 1}, {8, 7}, set(), {6}, {5}, {3}, {3}, set()]
    assert "gap" not in tiny.senses and tiny.senses["leaf"] == (2,)


@pytest.mark.parametrize(
    ("word", "lemmas"),
    [
        ("dog", ("dog",)), ("Dogs", ("dog",)), ("buses", ("bus",)), ("bus", ("bus",)), ("cities", ("city",)),
        ("running", ("run",)), ("walked", ("walk",)), ("walks", ("walk",)), ("bigger", ("big",)),
        ("biggest", ("big",)), ("fasting", ()), ("leaves", ("leaf",)), ("s", ()), ("", ()), ("xyzzy", ()),
    ],
)  # fmt: skip
def test_forms_lead_to_lemmas(tiny, word, lemmas):
    expected = () if word == "leaves" else lemmas  # The rule for -ves gives "leaf" alone.
    assert tiny.analyze(word)[0] == (lemmas if word == "leaves" else expected)


def test_a_form_has_the_senses_of_its_part_of_speech(tiny):
    assert {tiny.files[s] for s in tiny.analyze("run")[1]} == {"verb.motion", "noun.act"}
    assert {tiny.files[s] for s in tiny.analyze("running")[1]} == {"verb.motion"}
    assert tiny.parts_of("walks") == "nv" and tiny.parts_of("fast") == "ar" and tiny.parts_of("xyzzy") == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "senses.tsv").unlink(), r"has no senses.tsv or senses.tsv.gz"),
        (lambda folder: (folder / "senses.tsv").write_text("a\tb\n"), "no column 'lemma'"),
        (lambda folder: (folder / "senses.tsv").write_text("lemma\tpos\tsynset\nx\n"), "line 2: 1 of 3"),
        (lambda folder: (folder / "senses.tsv.gz").write_bytes(b"no gzip"), "cannot be read"),
    ],
)
def test_damaged_tables_are_named(tmp_path, change, message):
    folder = write(tmp_path / "wordnet", plain=True)
    change(folder)
    with pytest.raises(LoadError, match=message):
        WordNet.load(folder)


def test_the_package_is_read(tmp_path, monkeypatch):
    wn = pytest.importorskip("wn")
    monkeypatch.setattr(wn.config, "data_directory", tmp_path / "wn")
    with pytest.raises(LoadError, match="has no lexicon"):
        WordNet.load()
    entries = "".join(
        f'<LexicalEntry id="t-{i}"><Lemma writtenForm="{lemma}" partOfSpeech="{synset[-1]}"/>'
        f'<Sense id="t-{i}-1" synset="t-{synset}"/></LexicalEntry>'
        for i, (lemma, synset) in enumerate(SENSES) if synset != "77-n"
    )  # fmt: skip
    synsets = "".join(
        f'<Synset id="t-{synset}" ili="" partOfSpeech="{part}" lexfile="{file}">'
        + "".join(
            f'<SynsetRelation relType="{name}" target="t-{target}"/>'
            for name, targets in (link.split("=") for link in links.split(";") if link)
            for target in targets.split(",") if target not in ("99-v", synset)
        )
        + "</Synset>"
        for synset, file, part, links in SYNSETS
    )  # fmt: skip
    (tmp_path / "tiny.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE LexicalResource SYSTEM '
        '"http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">\n<LexicalResource xmlns:dc="x"><Lexicon '
        f'id="t" label="t" language="en" email="a@b" license="l" version="1">{entries}{synsets}'
        "</Lexicon></LexicalResource>",
        encoding="utf-8",
    )
    wn.add(tmp_path / "tiny.xml", progress_handler=None)
    found, tables = WordNet.load("wn"), WordNet.load(write(tmp_path / "tables"))
    assert found.name == "wn: t:1" and found.senses.keys() == tables.senses.keys()
    for word in WORDS.split():
        assert found.analyze(word)[0] == tables.analyze(word)[0] and found.parts_of(word) == tables.parts_of(
            word
        )
    assert sum(map(len, found.related)) == sum(map(len, tables.related))


def letter_pairs(text):
    marked = f"^{text.lower()}$"
    return {a + b for a, b in itertools.pairwise(marked)}


def jaccard(a, b):
    one, other = letter_pairs(a), letter_pairs(b)
    return len(one & other) / len(one | other)


def obvious(wordnet, texts, neighbors, near):
    """Every measure and base rate, word by word."""
    known = [wordnet.analyze(text) for text in texts]
    values, base = [], []
    for i, (lemmas, synsets) in enumerate(known):

        def alike(j, name, lemmas=lemmas, synsets=synsets):
            others_lemmas, others = known[j]
            return {
                "lemma": bool(set(lemmas) & set(others_lemmas)),
                "part_of_speech": bool(
                    {wordnet.parts[s] for s in synsets} & {wordnet.parts[s] for s in others}
                ),
                "lexicographer_file": bool(
                    {wordnet.files[s] for s in synsets} & {wordnet.files[s] for s in others}
                ),
                "synset": bool(synsets & others),
                "relation": any(t in wordnet.related[s] for s in synsets for t in others),
            }[name]

        row = neighbors.indices[i].tolist()
        judged = [
            (j, c) for j, c in zip(row, neighbors.similarities[i], strict=True) if not alike(j, "lemma")
        ][:near]
        rest = [j for j in range(len(texts)) if j != i]
        others = [j for j in rest if not alike(j, "lemma")]
        line, base_line = (
            [np.mean([alike(j, "lemma") for j in row[:near]])],
            [np.mean([alike(j, "lemma") for j in rest])],
        )
        for name in list(MEASURES)[1:5]:
            line.append(np.mean([alike(j, name) for j, _ in judged]))
            base_line.append(np.mean([alike(j, name) for j in others]))
        line += [
            np.mean([jaccard(texts[i], texts[j]) for j, _ in judged]),
            np.mean([1 - c for _, c in judged]),
        ]
        base_line += [np.mean([jaccard(texts[i], texts[j]) for j in rest]), np.nan]
        values.append(line)
        base.append(base_line)
    return np.array(values), np.array(base)


def test_measures_are_those_of_obvious_loops(tiny):
    model = vocabulary()
    found = coherence(model, tiny, near=4, k=10, distinct=False)
    assert found.texts == WORDS.split() and found.rows.tolist() == list(range(20))
    neighbors = embgeom.knn(model.matrix[:20], 10, center=True)
    values, base = obvious(tiny, found.texts, neighbors, 4)
    np.testing.assert_allclose(found.values, values, atol=1e-6)
    np.testing.assert_allclose(found.base, base, atol=1e-6)
    dimension = embgeom.intrinsic_dimension(model.matrix[:20], neighbors)
    np.testing.assert_array_equal(found.dimension, dimension.n_components)
    assert found.words_among_neighbors == 1.0 and found.k == 10

    # Correlations are over lemmas, whose words are averaged.
    lemmas = sorted(set(found.lemmas))
    assert len(lemmas) == 12 and found.lemmas[:3] == ["dog"] * 3
    excess = values - np.where(np.isnan(base), 0.0, base)
    of_lemma = [np.array([lemma == each for each in found.lemmas]) for lemma in lemmas]
    for place, name in enumerate(MEASURES):
        x, y = ([column[mask].mean() for mask in of_lemma] for column in (found.dimension, excess[:, place]))
        expected = correlation_estimate(x, np.float32(y), kind="spearman")
        np.testing.assert_allclose(found[name].spearman.value, expected.value, atol=1e-6)
        assert found[name].spearman.null == expected.null and found[name].spearman.stratified is not None
        np.testing.assert_allclose(found[name].mean, values[:, place].mean(), atol=1e-6)
    nouns = [lemma for lemma, part in zip(found.lemmas, found.parts_of_speech, strict=True) if part == "n"]
    assert found["spelling"].nouns.n == len(set(nouns)) == 7


def test_neighbors_of_the_whole_vocabulary(tiny):
    model = vocabulary()
    classes = classify(model)
    neighbors = embgeom.knn(model, 15, center=True)
    dimension = embgeom.intrinsic_dimension(model, neighbors)
    found = coherence(
        model, tiny, neighbors=neighbors, dimension=dimension, classes=classes, near=5, distinct=False
    )
    assert 0.5 < found.words_among_neighbors < 1.0
    np.testing.assert_array_equal(found.dimension, dimension.n_components[:20])
    first = [j for j in neighbors.indices[0] if j < 20 and j not in (1, 2)][:5]
    shared = [bool({"noun.animal"} & {tiny.files[s] for s in tiny.analyze(found.texts[j])[1]}) for j in first]
    assert found.values[0, 2] == pytest.approx(np.mean(shared))
    with pytest.raises(InputError, match="give neighbors and dimension of all rows, or neither"):
        coherence(model, tiny, neighbors=neighbors)
    some = embgeom.knn(model, 5, rows=range(20))
    with pytest.raises(InputError, match="must be of all 25 rows"):
        coherence(model, tiny, neighbors=some, dimension=embgeom.intrinsic_dimension(model, some))


@pytest.mark.parametrize("kinds", [5, 70])
def test_labels_in_common_are_counted_however_many_there_are(kinds):
    rng = np.random.default_rng(kinds)
    labels = [f"noun.{i % kinds}" for i in range(140)]
    found = [frozenset(rng.choice(140, 3).tolist()) for _ in range(60)]
    words = [((f"word{i // 2}",), synsets) for i, synsets in enumerate(found)]
    judged = np.array([rng.choice(60, 6, replace=False) for _ in range(60)], np.int32)
    judged[:, 5] = -1
    shares, base = Relatives(words).label_shares(labels, judged)
    sets = [{labels[synset] for synset in synsets} for synsets in found]
    for i in range(60):
        assert shares[i] == np.mean([bool(sets[i] & sets[j]) for j in judged[i, :5]])
        others = [bool(sets[i] & sets[j]) for j in range(60) if j // 2 != i // 2]
        assert base[i] == pytest.approx(np.mean(others))


def test_one_token_of_each_lemma_counts(tiny):
    model = vocabulary()
    found = coherence(model, tiny, near=4, k=10)
    assert " ".join(found.texts) == "dog hound cat beast king queen run walk fast royal leaf big"
    alone = coherence(model.select(found.rows), tiny, near=4, k=10, distinct=False)
    assert found.values.tobytes() == alone.values.tobytes() and (found.values[:, 0] == 0).all()
    assert (found.dimension == alone.dimension).all()


def test_clusters_of_animals_are_coherent(tiny):
    rng = np.random.default_rng(1)
    names = ["dog", "hound", "cat", "beast", "leaf", "king", "queen", "bus", "run", "walk"]
    files = {name: sorted(tiny.files[s] for s in tiny.analyze(name)[1])[0] for name in names}
    centers = {file: rng.standard_normal(12) * 8 for file in set(files.values())}
    matrix = [centers[files[name]] + rng.standard_normal(12) for name in names]
    model = embgeom.Embeddings.from_array(np.array(matrix), [f" {name}" for name in names])
    found = coherence(model, tiny, near=2, k=4)["lexicographer_file"]
    assert found.mean > found.base + 0.3


def test_it_is_saved_and_printed(tiny, tmp_path):
    found = coherence(vocabulary(), tiny, near=4, k=10, distinct=False)
    found.save(tmp_path / "coherence.safetensors")
    loaded = Coherence.load(tmp_path / "coherence.safetensors")
    assert loaded.summary() == found.summary() and loaded.values.tobytes() == found.values.tobytes()
    assert "lexicographer file" in found.summary() and "100% of the nearest" in found.summary()
    assert set(found.columns()) >= {*MEASURES, "lexicographer_file_base", "lemma", "n_components"}
    assert {len(column) for column in found.columns().values()} == {20}
    with pytest.raises(InputError, match="no measure is named 'lexfile'"):
        found["lexfile"]


def test_too_few_words_are_said(tiny):
    model = vocabulary()
    with pytest.raises(InputError, match=r"3 tokens of .* are words of WordNet; at least 10"):
        coherence(model.select(range(5)), tiny)
    assert os.sep in tiny.name
