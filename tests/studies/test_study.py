"""A study of many models: what it measures, keeps and writes."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

import embgeom
from embgeom import InputError, OutputError
from embgeom.comparison.nulls import holm
from embgeom.comparison.statistic import short_p
from embgeom.runs.cache import ResultCache
from embgeom.studies import Study
from embgeom.studies.lineage import lineage
from embgeom.studies.measures import files_digest
from embgeom.studies.sentences import summary

pytest.importorskip("scipy", reason="scipy is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
WORDS = [f"▁word{number}" for number in range(60)]


def fake(name, columns, seed, words=WORDS):
    """A model whose rows share their geometry with the others."""
    shared = np.random.default_rng(0).standard_normal((len(words), 6))
    rng = np.random.default_rng(seed)
    x = shared @ rng.standard_normal((6, columns)) + 0.3 * rng.standard_normal((len(words), columns))
    return embgeom.Embeddings.from_array(x, words, name=name)


MODELS = [fake("one", 8, 1), fake("two", 12, 2), fake("three", 10, 3)]
EXTRA = fake("four", 9, 4)
OPTIONS = {"k": 4, "ks": (2, 5), "dimension_k": 20, "relabelings": 20}
QUICK = {**OPTIONS, "quick": True}


def files(folder):
    """Every file of a study but its parts and its lock, with its bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "parts" not in path.parts and path.name != "lock":
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def parts(folder):
    """Every part by its file, with what tells whether it was written again."""
    found = (folder / "parts").glob("*.safetensors")
    return {path.name: path.stat().st_ino for path in found}


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    return embgeom.study(MODELS, folder=folder, **OPTIONS), folder


def test_a_study_of_three(studied):
    study, folder = studied
    assert study.names == ("one", "two", "three") and [(p.a, p.b) for p in study.pairs] == [
        (0, 1), (0, 2), (1, 2),
    ]  # fmt: skip
    assert len(study.shared) == 1 and len(study.shared[0]) == 60
    for pair in study.pairs:
        assert pair["neighbor_overlap"].value == pytest.approx(pair.neighbor_overlap.mean())
        assert all(scores.scores.r2 > scores.shuffled.r2 for scores in pair.maps)
    assert study.lineage.linkage.shape == (2, 4) and study.lineage.branches()[-1] == (0, 1, 2)
    assert study.lineage.support[-1] == 1.0
    record = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert record == study.to_dict()


def test_it_agrees_with_compare(studied):
    study, _ = studied
    comparison = embgeom.compare(MODELS[0], MODELS[2], k=4, dimension_k=20, relabelings=20, panel=True)
    pair = study.pair(0, 2)
    assert [each.name for each in pair.statistics] == [each.name for each in comparison.statistics]
    for statistic in comparison.statistics:
        assert pair[statistic.name].estimate.to_dict() == statistic.estimate.to_dict()
    np.testing.assert_array_equal(pair.neighbor_overlap, comparison.neighbor_overlap)
    np.testing.assert_array_equal(pair.weight_cosine, comparison.weight_cosine)


def test_p_values_are_adjusted_for_all_pairs(studied):
    study, _ = studied
    statistics = [each for pair in study.pairs for each in pair.statistics]
    adjusted = holm([each.estimate.p for each in statistics])
    np.testing.assert_array_equal(adjusted, [each.p_adjusted for each in statistics])


def test_curves_meet_the_statistics(tmp_path):
    options = {"k": 4, "ks": (4, 9), "dimension_k": 9, "relabelings": 20}
    pair = embgeom.study(MODELS[:2], folder=tmp_path / "out", **options).pairs[0]
    curves = {(curve.name, curve.over): curve for curve in pair.curves}
    assert len(curves) == len(pair.curves) == 4
    assert curves["neighbor_overlap", "k"].at == (4.0, 9.0)
    for name, over, place in (
        ("neighbor_overlap", "k", 0),
        ("weight_cosine", "k", 0),
        ("dimension_spearman", "k", 1),
        ("dimension_spearman", "variance", 3),
    ):
        assert curves[name, over].estimates[place].value == pair[name].value


def test_what_was_changed_by_hand_is_written_again(studied, tmp_path):
    _, complete = studied
    folder = tmp_path / "out"
    embgeom.study(MODELS, folder=folder, **OPTIONS)
    (folder / "pairs.csv").write_text("edited", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    embgeom.study(MODELS, folder=folder, **OPTIONS)
    assert files(folder) == files(complete) | {"notes.txt": b"mine"}


def test_models_by_themselves(studied):
    study, folder = studied
    for model, fake_model in zip(study.models, MODELS, strict=True):
        geometry = model.geometry
        assert geometry.hubs.in_degree.sum() == 60 * 4 and geometry.two_nn.n == 60
        assert geometry.gaussian.k == geometry.dimension.k == 20
        assert geometry.dimension_curve.k == (2, 5)
        np.testing.assert_allclose(geometry.norms, fake_model.norms)
        lowest, highest = (geometry.dimension.n_components[rows] for rows in model.extremes(5))
        assert lowest.max() <= highest.min() and len(lowest) == 5
    header = (folder / "models.csv").read_text(encoding="utf-8").splitlines()[0]
    assert {"two_nn", "two_nn_half_width", "mle_half_width", "dimension_gaussian_half_width"} <= set(
        header.split(",")
    )


def test_wordnet(tmp_path):
    senses = [
        "lemma\tpos\tsynset",
        *(f"{'abcdefghijklmnop'[i]}{'aeiou'[i % 5]}n\tn\ts{i}" for i in range(16)),
    ]
    synsets = [
        "synset\tlexfile\tpos\trelations",
        *(f"s{i}\tnoun.{'food' if i % 2 else 'body'}\tn\t" for i in range(16)),
    ]
    for name, lines in (("senses", senses), ("synsets", synsets)):
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = [f"▁{line.split(chr(9))[0]}" for line in senses[1:]]
    known = [fake(name, 8, seed, words) for seed, name in enumerate(("one", "two"))]
    options = {**OPTIONS, "quick": True, "wordnet": tmp_path}
    study = embgeom.study(known, folder=tmp_path / "out", **options)
    assert [len(model.coherence.rows) for model in study.models] == [16, 16]
    # Its search is a part.
    kept = ResultCache(tmp_path / "out" / "parts").entries()
    assert sum(entry.what.startswith("knn(k=15") for entry in kept) == 2
    assert [model.coherence.k for model in study.models] == [7, 7]
    p = holm([each.spearman.p for model in study.models for each in model.coherence.statistics])
    said = dict(summary(study))["Coherence"]
    assert all(f"p = {short_p(p[number])}" in said for number in (2, 9)) and "(Holm)" in said
    few = embgeom.study(known, folder=tmp_path / "few", **{**options, "dimension_k": 5})
    assert [model.coherence.k for model in few.models] == [5, 5]
    with pytest.warns(embgeom.EmbgeomWarning, match=": .*words of WordNet"):
        study = embgeom.study(MODELS[:2], folder=tmp_path / "none", **options)
    assert study.models[0].coherence is None


def test_tokens_that_count(tmp_path):
    only = [word[1:] for word in WORDS[:30]]
    study = embgeom.study(MODELS[:2], folder=tmp_path / "out", only=only, **OPTIONS)
    assert [len(model.rows) for model in study.models] == [30, 30] and len(study.shared[0]) == 30
    assert study.shared[0].rows.tolist() == [list(range(30))] * 2


def test_a_list_counts_in_every_vocabulary_however_one_writes_it(tmp_path):
    a = fake("a", 8, 1, [*WORDS, *(f"▁other{number}" for number in range(9))])
    b = fake("b", 12, 2, [word.replace("▁", "Ġ") for word in reversed(WORDS)])
    # Few of them as B writes them.
    only = [*WORDS[:30], *(word.replace("▁", "Ġ") for word in WORDS[40:44]), "▁other3"]
    for number, listed in enumerate((only, WORDS[10:40])):
        study = embgeom.study([a, b], folder=tmp_path / str(number), only=listed, **QUICK)
        table = study.token_columns()
        for model, embeddings in zip(study.models, (a, b), strict=True):
            mine = np.array(table["model"]) == model.name
            norms, rows = np.array(table["norm"])[mine], np.array(table["row"])[mine]
            assert mine.sum() == len(study.shared[0]) == len(listed) - listed.count("▁other3")
            np.testing.assert_allclose(norms, embeddings.norms[rows])
    with pytest.warns(embgeom.EmbgeomWarning, match="not found in what a and b share: '▁other3'"):
        comparison = embgeom.compare(a, b, only=only, k=4, dimension_k=20, relabelings=20)
    assert comparison["neighbor_overlap"].estimate.n == 34
    with pytest.warns(
        embgeom.EmbgeomWarning, match=r"1 of the 11 tokens listed .* not found in a or b: 'no'"
    ):
        embgeom.study([a, b], folder=tmp_path / "few", only=[*WORDS[:10], "no"], **QUICK)
    with pytest.raises(InputError, match="names no token of a or b"):
        embgeom.study([a, b], folder=tmp_path / "none", only=["absent"], **QUICK)
    model = replace(study.models[0], rows=study.models[0].rows[1:])
    with pytest.raises(RuntimeError, match="not among its rows that count"):
        replace(study, models=(model, study.models[1])).token_columns()


def test_why_hidden_states_are_not_compared_is_said(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="transformers is not installed")
    loads = []

    def load(folder, which, **options):
        loads.append(folder)
        raise embgeom.LoadError(f"{folder} is damaged")

    options = {**QUICK, "states": True}
    with pytest.warns(embgeom.EmbgeomWarning, match="of (one|two) are not compared: it is not a folder"):
        embgeom.study(MODELS[:2], folder=tmp_path / "none", **options)
    monkeypatch.setattr("embgeom.studies.study.runnable", lambda model: str(tmp_path))
    monkeypatch.setattr("embgeom.studies.measures.load", load)
    with pytest.warns(
        embgeom.EmbgeomWarning, match="hidden states of (one|two) are not compared: .* is damaged"
    ):
        study = embgeom.study(MODELS, folder=tmp_path / "out", **options)
    assert len(loads) == len(study.notes) == 2 and all(pair.states is None for pair in study.pairs)
    assert "is damaged" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"warning: {study.notes[0]}" in " ".join(study.summary().split())


def test_maps_on_few_tokens_are_named(tmp_path):
    wide = fake("wide", 40, 5)
    with pytest.warns(embgeom.EmbgeomWarning, match=r"fitted on 60 tokens, fewer than .* of wide \(40\)"):
        study = embgeom.study([MODELS[0], wide], folder=tmp_path / "out", **OPTIONS)
    assert "understate" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert len(study.notes) == 1 and "--pairwise" not in study.notes[0]
    with pytest.warns(embgeom.EmbgeomWarning, match=r"; --pairwise \(pairwise=True\) fits"):
        embgeom.study([*MODELS[:2], wide], folder=tmp_path / "three", **OPTIONS)


def test_a_caution_on_all_pairs_is_said_once(studied):
    study, _ = studied
    pairs = []
    for pair in study.pairs:
        first, *others = pair.statistics
        few = replace(first, estimate=replace(first.estimate, neighborhoods=9.0))
        pairs.append(replace(pair, statistics=(few, *others)))
    said = replace(study, pairs=tuple(pairs)).summary()
    assert "3 of 3 pairs: there are only 9 times as many tokens" in " ".join(said.split())
    assert said.count("times as many") == 1


def test_support_allows_for_what_tokens_share():
    value = np.random.default_rng(0).uniform(size=400)
    values = {(0, 1): value + 0.02, (0, 2): value, (1, 2): value}
    half_width = 1.96 * value.std() / 20

    def support(wider, *, same_tokens=True, first=values[0, 1]):
        widths = dict.fromkeys(values, wider * half_width) | {(0, 1): 3 * wider * half_width}
        tree = lineage("x", "abc", {**values, (0, 1): first}, widths, same_tokens=same_tokens, seed=0)
        assert tree.branches()[0] == (0, 1) and tree.tables()[0].rows[-1][-1] == ""
        return tree.support[0], tree.tables()[0].columns[-1]

    # What is drawn together differs by the same each time.
    assert support(0.1) == (1.0, "support")
    assert support(1.0)[0] < 0.9
    share, label = support(0.1, same_tokens=False)
    assert share < 0.9 and label == "support (approximate)"


@pytest.mark.slow
def test_hidden_states_of_models_that_can_be_run(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    models, options = ["example:small", "example:large"], {**OPTIONS, "quick": True, "states": True}
    study = embgeom.study(models, folder=tmp_path / "out", **options)
    states = study.pairs[0].states
    assert (states.source_layers, states.target_layers) == (4, 6)
    centered = states["centered_cosine"]
    assert np.nanmean(centered.value) > np.nanmean(centered.shuffled) + 0.1
    again = embgeom.study(models, folder=tmp_path / "out", **options)
    assert again.to_dict() == study.to_dict()


def test_a_study_reads_back_equal(studied):
    study, folder = studied
    again = Study.load(folder)
    assert again.summary() == study.summary() and again.to_dict() == study.to_dict()


def test_a_second_call_reads_everything_and_writes_the_same(studied, capsys):
    _, folder = studied
    before = files(folder)
    embgeom.study(MODELS, folder=folder, progress=True, **OPTIONS)
    assert "0 parts computed" in capsys.readouterr().err
    assert files(folder) == before


def test_interrupted_at_any_moment_it_goes_on_to_the_same_files(studied, tmp_path, monkeypatch):
    _, complete = studied
    real, steps = embgeom.runs.cache.ResultCache.keep, 0
    folder = tmp_path / "out"

    def keep(self, *arguments):
        nonlocal steps
        steps += 1
        if steps % 3 == 0:
            raise KeyboardInterrupt
        return real(self, *arguments)

    monkeypatch.setattr(embgeom.runs.cache.ResultCache, "keep", keep)
    interrupts = 0
    while True:
        try:
            embgeom.study(MODELS, folder=folder, **OPTIONS)
            break
        except KeyboardInterrupt as interrupt:
            interrupts += 1
            assert "run the same call to resume" in interrupt.args[0]
    assert interrupts > 5
    assert files(folder) == files(complete)


def test_another_model_computes_only_what_is_new(studied, tmp_path):
    folder = tmp_path / "out"
    embgeom.study(MODELS, folder=folder, **OPTIONS)
    before = parts(folder)
    embgeom.study([*MODELS, EXTRA], folder=folder, **OPTIONS)
    after = parts(folder)
    assert before.items() <= after.items()
    alone = tmp_path / "alone"
    embgeom.study([*MODELS, EXTRA], folder=alone, **OPTIONS)
    assert files(folder) == files(alone)


def test_pairs_on_their_own_tokens(tmp_path):
    few = fake("few", 7, 5, WORDS[:20])
    study = embgeom.study([*MODELS[:2], few], folder=tmp_path / "out", pairwise=True, quick=True, **OPTIONS)
    assert [len(tokens) for tokens in study.shared] == [60, 20, 20]
    assert [pair.tokens for pair in study.pairs] == [0, 1, 2]


def test_killed_while_files_are_written_it_goes_on_to_those_of_other_models(tmp_path, monkeypatch):
    two, folder, saved = MODELS[:2], tmp_path / "out", embgeom.studies.folder.save_figure

    def interrupted(figure, path):
        saved(figure, path)
        if path.name == "lineage.png":
            raise KeyboardInterrupt

    monkeypatch.setattr("embgeom.studies.folder.save_figure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embgeom.study(MODELS, folder=folder, **QUICK)
    assert (folder / "figures" / "lineage.svg").is_file()
    monkeypatch.undo()
    embgeom.study(two, folder=folder, **QUICK)
    embgeom.study(two, folder=tmp_path / "alone", **QUICK)
    assert files(folder) == files(tmp_path / "alone")


def test_no_matrix_is_held_longer_than_its_calls(tmp_path, monkeypatch):
    known, held, alive = embgeom.runs.cache.Parts.know, [], []

    def know(self, matrices):
        matrices = list(matrices)
        known(self, matrices)
        alive.append(sum(each() is not None for each in held))
        held.extend(weakref.ref(x) for _, x, _ in matrices)

    monkeypatch.setattr(embgeom.runs.cache.Parts, "know", know)
    embgeom.study(MODELS, folder=tmp_path / "out", pairwise=True, **QUICK)
    assert len(held) == 9 and not any(alive)


def test_a_part_that_cannot_be_written_ends_the_study(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OutputError("parts/x cannot be written: No space left on device")

    monkeypatch.setattr("embgeom.runs.cache.write_file", full)
    with pytest.raises(OutputError, match=r"No space left on device; make room .* the same call goes on"):
        embgeom.study(MODELS[:2], folder=tmp_path / "out", **QUICK)


def test_groups_of_tokens_are_those_of_compare(studied):
    study, _ = studied
    comparison = embgeom.compare(MODELS[0], MODELS[2], k=4, dimension_k=20, relabelings=20, panel=True)
    assert study.pair(0, 2).groups == comparison.groups


def test_neighbors_of_dimensions_are_those_measured(tmp_path):
    study = embgeom.study(MODELS[:2], folder=tmp_path / "out", quick=True, ks=(5,))
    assert study.dimension_k == "29" and study.options.dimension_k == 200
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert text.count("the 29 nearest neighbors") == 2 and "200 nearest" not in text


def test_all_files_of_a_model_decide_on_its_hidden_states(tmp_path):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "README.md"):
        (tmp_path / name).write_bytes(b"one")
    before = files_digest(str(tmp_path))
    (tmp_path / "README.md").write_bytes(b"two")
    assert files_digest(str(tmp_path)) == before
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"two")
    assert files_digest(str(tmp_path)) != before


@pytest.mark.parametrize("strange", ["parts/thesis.tex", "figures/mine.svg"])
def test_a_folder_with_folders_of_the_same_names_is_refused(tmp_path, strange):
    (tmp_path / strange).parent.mkdir()
    (tmp_path / strange).write_text("important", encoding="utf-8")
    with pytest.raises(OutputError, match=rf"is not a study folder \(it holds '{strange}'\)"):
        embgeom.study(MODELS, folder=tmp_path, **QUICK)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("important", encoding="utf-8")
    with pytest.raises(OutputError, match=r"\(it holds 'thesis\.tex'\)"):
        embgeom.study(MODELS, folder=tmp_path, **OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_cannot_be_studied(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(InputError, match="at least two models: name another one, or inspect one model"):
        embgeom.study(MODELS[:1], folder=folder)
    with pytest.raises(InputError, match="unexpected keyword argument 'nonsense'"):
        embgeom.study(MODELS, folder=folder, nonsense=1)
    with pytest.raises(InputError, match="metric = 'angle' is unknown"):
        embgeom.study(MODELS, folder=folder, metric="angle")
    other = fake("other", 5, 1, [f"▁other{number}" for number in range(20)])
    with pytest.raises(InputError, match="too few shared tokens"):
        embgeom.study([*MODELS, other], folder=folder, **OPTIONS)
