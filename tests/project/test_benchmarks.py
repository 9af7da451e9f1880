"""The programs that compare embgeom with other libraries and fit its costs, on tiny problems."""

import dataclasses
import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embgeom

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks/results"
PEERS = ("faiss", "sklearn", "torch", "scipy")


def run(program, folder, *options):
    # One thread: on a busy machine, threads of some libraries wait for each other much longer than they work.
    command = [
        sys.executable,
        "-m",
        f"benchmarks.{program}",
        "--output",
        str(folder),
        "--threads",
        "1",
        *options,
    ]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def missing(*modules):
    return [module for module in modules if importlib.util.find_spec(module) is None]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    done = run("compare", folder, "--quick")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_measure_has_an_exact_answer_of_embgeom(compared):
    cases = json.loads((compared / "against_others.json").read_text(encoding="utf-8"))["cases"]
    measures = {case["measure"] for case in cases.values()}
    assert measures == {
        *("knn", "queries", "lle", "dimension", "similarity", "import", "alternating", "runs", "threads"),
        *("study-768", "study-2048", "study-whole"),
        *(f"steps-{columns}" for columns in (768, 1024, 1536, 2048, 4096)),
    }
    for name, case in cases.items():
        own = case["contenders"]["embgeom"]
        assert own["median"] > 0
        # The last two measure nothing but time.
        assert own.get("exact") or case["measure"] in ("import", "alternating"), name


@pytest.mark.slow
def test_the_others_answer_the_same_question(compared):
    cases = json.loads((compared / "against_others.json").read_text(encoding="utf-8"))["cases"]
    for name, case in cases.items():
        for contender, entry in case["contenders"].items():
            assert entry["status"] in ("measured", "not installed"), (name, contender)
            assert entry.get("recall", 1) > 0.99, (name, contender)
            # Of a dimension, this is the share of tokens that float32 counts otherwise.
            counts = case["measure"].partition("-")[0] in ("dimension", "study")
            assert entry.get("error", 0) < (0.2 if counts else 1e-4), (name, contender)
            assert entry.get("weight_error", 0) < 1e-4, (name, contender)


@pytest.mark.slow
def test_every_case_is_in_the_table(compared):
    cases = json.loads((compared / "against_others.json").read_text(encoding="utf-8"))["cases"]
    page = (compared / "against_others.md").read_text(encoding="utf-8")
    for name, case in cases.items():
        assert f"## {name}\n" in page
        assert all(f"| {contender} | " in page for contender in case["contenders"])
        unmeasured = [who for who, entry in case["contenders"].items() if "median" not in entry]
        assert missing(*PEERS) or not unmeasured


@pytest.mark.parametrize(
    ("render", "record"),
    [
        ("benchmarks.compare.table", "avx2/against_others"),
        ("benchmarks.compare.table", "avx512/against_others"),
        ("benchmarks.growth.pages", "growth"),
        ("benchmarks.growth.cluster", "cluster"),
    ],
)
def test_committed_tables_are_made_of_the_committed_records(render, record):
    committed = json.loads((RESULTS / f"{record}.json").read_text(encoding="utf-8"))
    page = (RESULTS / f"{record}.md").read_text(encoding="utf-8")
    assert importlib.import_module(render).markdown(committed) == page and "goals" not in committed


@pytest.mark.slow
def test_numbers_of_other_settings_are_not_mixed(compared):
    before = (compared / "against_others.json").read_bytes()
    done = run("compare", compared, "--quick", "--only", "import", "--rows", "601")
    assert done.returncode != 0 and "rows 600, now 601" in done.stderr
    assert (compared / "against_others.json").read_bytes() == before


@pytest.mark.slow
def test_some_measures_can_be_made_anew(compared):
    file = compared / "against_others.json"
    before = json.loads(file.read_text(encoding="utf-8"))
    done = run("compare", compared, "--quick", "--only", "import")
    assert done.returncode == 0, done.stderr
    after = json.loads(file.read_text(encoding="utf-8"))
    assert list(after["cases"]) == list(before["cases"])
    assert after["cases"]["knn, k = 10"] == before["cases"]["knn, k = 10"]


@pytest.mark.slow
def test_one_contender_can_be_made_anew_and_what_is_done_is_skipped(tmp_path):
    size = ["--rows", "600", "--columns", "32", "--rounds", "1", "--only", "import"]
    file = tmp_path / "against_others.json"

    def measured(*options):
        done = run("compare", tmp_path, *size, *options)
        assert done.returncode == 0, done.stderr
        case = json.loads(file.read_text(encoding="utf-8"))["cases"]["a fresh interpreter"]
        return {name: entry["seconds"] for name, entry in case["contenders"].items()}

    before = measured()
    after = measured("--contender", "no import")
    assert [name for name in before if after[name] != before[name]] == ["no import"]
    assert measured("--minutes", "1") == after


def test_a_study_is_chosen_as_a_family():
    chosen = importlib.import_module("benchmarks.compare.__main__").chosen
    assert chosen("study,lle") == ("study-768", "study-2048", "study-whole", "lle")


def test_an_unknown_measure_is_named(tmp_path):
    done = run("compare", tmp_path, "--only", "knn,lie")
    assert done.returncode == 2 and "'lie' is none of knn, queries" in done.stderr


@pytest.mark.slow
def test_a_build_beside_itself_gives_the_same_bits():
    build = str(Path(embgeom.__file__).parents[1])
    size = ["--rows", "1600", "--columns", "32", "--rounds", "1", "--threads", "1"]
    command = [sys.executable, "-m", "benchmarks.kernels.two_builds", build, build, *size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| yes |") == 5 and "| no |" not in done.stdout


@pytest.mark.slow
def test_growth(tmp_path):
    if lacking := missing("matplotlib"):
        pytest.skip(f"{lacking[0]}: not installed")
    done = run("growth", tmp_path, "--quick")
    assert done.returncode == 0, done.stderr
    kernels = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["kernels"]
    assert list(kernels) == ["knn", "lle", "intrinsic_dimension", "global_similarity"]
    for kernel in kernels.values():
        assert all(isinstance(axis["exponent"]["all"], float) for axis in kernel["axes"].values())
        assert all(entry["seconds"] > 0 for entry in kernel["predictions"])
    assert (tmp_path / "growth.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert "Llama 3" in (tmp_path / "growth.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_cluster_is_measured_and_simulated(tmp_path):
    if lacking := missing("distributed"):
        pytest.skip(f"{lacking[0]}: not installed")
    command = [
        sys.executable,
        "-m",
        "benchmarks.growth.cluster",
        "--measure",
        "--quick",
        f"--output={tmp_path}",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    record = json.loads((tmp_path / "cluster.json").read_text(encoding="utf-8"))
    assert record["speed"]["same"] and all(entry["total"] > 0 for entry in record["simulated"])


def test_a_simulated_cluster_does_all_blocks_and_is_slowed_by_what_is_slow():
    simulation = importlib.import_module("benchmarks.growth.simulation")
    free = dict.fromkeys(
        ("link", "copy_rate", "digest_rate", "order_rate", "result_rate", "write_rate"), 1e30
    )
    free |= {"search_rate": 1e9, "token_seconds": 0.1, "order_seconds": 0, "write_seconds": 0}
    costs = simulation.Costs(**free, task_seconds=0, spread=0)
    case = simulation.Case(rows=4096, columns=64, k=100, workers=8, threads=2)
    ideal = simulation.Simulation(case, costs).run()
    work = (4096 * 4096 * 64 / 1e9 + 4096 * 0.1) / 2
    assert ideal.total == pytest.approx(work / 8) and ideal.efficiency == pytest.approx(1)
    slow = dataclasses.replace(costs, copy_rate=case.matrix_bytes / 1.0)
    # To the first worker, and in three doublings to all.
    assert simulation.Simulation(case, slow).run().spread_out == pytest.approx(4)


@pytest.mark.slow
def test_every_route_is_compared_with_the_native_vector_and_a_second_call_goes_on(tmp_path):
    if lacking := missing("torch", "transformers", "matplotlib"):
        pytest.skip(f"{lacking[0]}: not installed")
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "\n\n".join(f"The {n} boys and the {n} girls. " * 5 for n in ("big", "old", "sad", "wet") * 5)
    )
    begun = "--quick", "--texts", str(texts)
    done = run("steering", tmp_path, *begun)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "steering.jsonl"
    head, *cells = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert len(cells) == 2 * 4 * 3 and [len(each["layers"]) for each in head["directions"]] == [3, 3]
    routes = importlib.import_module("benchmarks.steering.routes").ROUTES
    assert {route.name for route in routes} | {"native", "random 0", "shuffled 0"} <= cells[0][
        "vectors"
    ].keys()
    reached = [each["search"] != "not reached" for cell in cells for each in cell["vectors"].values()]
    assert sum(reached) > 0.9 * len(reached)
    file.write_text("".join(json.dumps(each) + "\n" for each in (head, *cells[:-1])), encoding="utf-8")
    assert run("steering", tmp_path, "--table").returncode == 0
    page = (tmp_path / "steering.md").read_text(encoding="utf-8")
    assert "its numbers mean nothing" in page and "1 of 24 cells are missing" in page
    done = run("steering", tmp_path, *begun)
    assert "1 of 1:" in done.stderr and len(file.read_text(encoding="utf-8").splitlines()) == 25
    assert (tmp_path / "steering.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")
    assert "was measured with" in run("steering", tmp_path, "--quick").stderr


def attributes():
    return importlib.import_module("benchmarks.steering.attributes")


@pytest.mark.parametrize("name", ["mood", "politeness", "formality", "tense"])
def test_an_attribute_is_trained_on_other_texts_than_it_is_scored_by(name):
    attribute = attributes().ATTRIBUTES[name]
    pairs, prompts = attribute.pairs(), attribute.prompts()
    assert len(set(pairs)) == 60 and len(set(prompts)) == 40
    trained = " ".join(text for pair in pairs for text in pair)
    words = {word.strip() for word in (*attribute.positive, *attribute.negative)}
    assert len(words) == 8 and not words & set(re.findall(r"\w+", trained))
    assert not any(prompt in text for prompt in prompts for pair in pairs for text in pair)
    # Both texts of a pair are read where the same word has just ended.
    assert all(positive.split()[-1] == negative.split()[-1] for positive, negative in pairs)
    assert attribute.draw(0) == attribute.draw(0) != attribute.draw(1)


@pytest.mark.parametrize("name", ["mood", "formality", "tense"])
def test_scored_words_are_single_tokens_of_the_bundled_models(name):
    attribute, bundled = attributes().ATTRIBUTES[name], embgeom.load("example:small")
    assert all(bundled.row_of(word) >= 0 for word in (*attribute.positive, *attribute.negative))


def test_attributes_choose_or_are_held_out():
    module = attributes()
    assert not set(module.CHOICE) & set(module.HELD_OUT)
    assert {*module.CHOICE, *module.HELD_OUT} == module.ATTRIBUTES.keys()


@pytest.fixture
def table():
    return importlib.import_module("benchmarks.steering.table")


def steered(attribute="mood", **effects):
    random = {"random 0": -0.1, "random 1": 0.1}
    vectors = {"native": 2.0, **random} | {name.replace("_", " "): effect for name, effect in effects.items()}
    vectors = {name: {"effect": effect, "search": "reached"} for name, effect in vectors.items()}
    return {"source": "a", "target": "b", "attribute": attribute, "layer": 1, "seed": 0, "vectors": vectors}


def test_a_fraction_is_given_only_of_a_native_effect_that_random_vectors_have_not(table):
    # Two standard deviations above the mean of random vectors are 0.28.
    assert [table.counts(steered(native=effect)) for effect in (2.0, 0.29, 0.27, -1.0)] == [
        True,
        True,
        False,
        False,
    ]
    assert table.fraction(steered(**{"ridge primal": 1.0}), "ridge primal") == 0.5
    assert table.fraction(steered(), "random") == 0.0


def test_vectors_that_did_not_reach_the_kl_are_left_out(table):
    cell = steered(**{"ridge primal": 1.0})
    cell["vectors"]["ridge primal"]["search"] = "not reached"
    assert np.isnan(table.fraction(cell, "ridge primal"))
    cell["vectors"]["native"]["search"] = "not reached"
    assert not table.counts(cell)


def test_a_route_of_weights_is_chosen_by_choice_cells_alone(table):
    cells = [
        steered("mood", **{"ridge primal": 1.0, "ridge dual": 0.9, "states ridge primal": 2.0}),
        steered("tense", **{"ridge primal": 0.0, "ridge dual": 2.0, "states ridge primal": 2.0}),
    ]
    assert table.chosen(cells) == "ridge primal"


def test_layers_that_share_pairs_and_prompts_are_not_independent(table):
    # Three layers of one seed have no more to say than one, however alike they are.
    cells = [steered("mood", native=2.0, **{"ridge primal": effect}) for effect in (1.0, 1.2, 1.4)]
    other = steered("mood", native=2.0, **{"ridge primal": 2.0}) | {"seed": 1}
    (clusters,) = table._by_direction([*cells, other], ["mood"], "ridge primal")
    assert table._means(clusters) == pytest.approx([0.6, 1.0])
    # Half the difference of the two.
    assert table._mean(table._means(clusters)) == "0.80 +- 0.20"
    # All draws of the one group are the same.
    assert table._interval(cells, [1.0, 2.0, 3.0], np.mean) == "+2.00 (+2.00 to +2.00)"


def test_predictions_are_compared_within_a_direction(table):
    # Either target has its own level; within both, more goes with less.
    points = [("a", 1.0, 1.0), ("a", 1.1, 0.9), ("a", 1.2, 0.8), ("b", 5, 3.0), ("b", 6, 2.0), ("b", 7, 1.9)]
    assert table._within_directions(points) == pytest.approx(-1.0)


def test_controls_are_told_from_transfers(table):
    said = {
        "ridge primal": {"agreement": 0.7, "verdict": "yes"},
        "ridge dual": {"agreement": 0.5, "verdict": "partly"},
        "shuffled 0": {"agreement": 0.0, "verdict": "no"},
    }
    lines = table._told_apart([steered() | {"predicted": said}])
    assert "| maps of weights | 0.60 (0.51 to 0.69) | 50% | 50% | 0% | 0% |" in lines
    assert "| maps of shuffled tokens | 0.00 (0.00 to 0.00) | 0% | 0% | 100% | 0% |" in lines


def test_a_usual_agreement_is_the_lower_quartile_of_the_record(table):
    _, *lines = (RESULTS / "steering.jsonl").read_text(encoding="utf-8").splitlines()
    cells = [cell for line in lines if table.counts(cell := json.loads(line))]
    weights = [route.name for route in table.ROUTES if not route.of]
    good = [
        cell["predicted"][name]["agreement"]
        for cell in cells
        for name in weights
        if table.fraction(cell, name) >= 0.5
    ]
    usual = importlib.import_module("embgeom.emb2emb.forecast").USUAL
    assert len(good) == 870 and np.quantile(good, 0.25) == pytest.approx(usual, abs=0.005)


@pytest.mark.slow
def test_fitting_a_map_is_compared_with_its_reference(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    sizes = ["--rows=500", "--source=12", "--target=17", f"--output={tmp_path}"]
    command = [sys.executable, "-m", "benchmarks.steering.map_fit", *sizes]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    found = json.loads((tmp_path / "map_fit.json").read_text())["contenders"]
    # Squares of singular values within a factor of ten of each other cost two digits; float32 has seven.
    assert found["embgeom"]["error"] < 1e-12 < found["torch.linalg.lstsq, float32"]["error"] < 1e-4
    assert "| embgeom |" in (tmp_path / "map_fit.md").read_text()
