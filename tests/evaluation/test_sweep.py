"""The search for layer and scale, and results as tables, files and figures."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

import embgeom
from embgeom.evaluation import GenerationScore
from tests.helpers.evaluation import (
    HAPPY,
    MOOD,
    NEUTRAL,
    PROMPTS,
    evaluate,
    random_vector,
    small,
    sweep,
    tiny,
)


def planted():
    """A vector that is good at layer 3, and worse and worse before it."""
    rows = embgeom.load("example:small", "output")
    direction = rows.matrix[rows.row_of(" happy")] - rows.matrix[rows.row_of(" sad")]
    return embgeom.SteeringVector(dict.fromkeys((0, 2, 3), direction), "example:small").with_norm(4.0)


@pytest.fixture(scope="module")
def found():
    model, tokenizer = small()
    return sweep(model, tokenizer, planted(), MOOD, PROMPTS, scales=(4, 1), random=3, neutral=NEUTRAL, seed=2)


@pytest.fixture(scope="module")
def evaluation():
    model, tokenizer = small()
    shuffled = random_vector(model, [0, 2, 3])
    return evaluate(
        model,
        tokenizer,
        planted(),
        MOOD,
        PROMPTS,
        native=planted(),
        random=3,
        shuffled=shuffled,
        neutral=NEUTRAL,
    )


def test_the_halves_share_no_sample(found):
    choice, rest = found.choice_samples.tolist(), found.held_out_samples.tolist()
    assert sorted(choice + rest) == list(range(6)) and len(choice) == 3
    assert found.held_out.samples == 3 and len(found.unsteered["log-ratio"]) == 3


def test_every_setting_is_tried(found):
    model, tokenizer = small()
    assert [(o.layers, o.scale) for o in found.grid] == [((b,), s) for b in (0, 2, 3) for s in (4.0, 1.0)]
    chosen_prompts = [PROMPTS[place] for place in found.choice_samples]
    for outcome in found.grid:
        alone = evaluate(
            model,
            tokenizer,
            planted(),
            MOOD,
            chosen_prompts,
            layers=outcome.layers,
            scale=outcome.scale,
            random=0,
            neutral=NEUTRAL,
        ).transferred
        assert outcome.effect.mean == pytest.approx(alone.effect.mean, abs=1e-5)
        assert outcome.side_effects.kl == pytest.approx(alone.side_effects.kl, rel=1e-4)


def test_the_best_is_chosen_and_evaluated_on_other_samples(found):
    model, tokenizer = small()
    assert found.chosen.effect.mean == max(outcome.effect.mean for outcome in found.grid)
    others = [PROMPTS[place] for place in found.held_out_samples]
    alone = evaluate(
        model, tokenizer, planted(), MOOD, others, layers=3, scale=4, random=3, neutral=NEUTRAL, seed=2
    )
    assert (found.chosen.layers, found.chosen.scale) == ((3,), 4.0)
    for one, other in zip(found.held_out.outcomes, alone.outcomes, strict=True):
        assert (one.name, one.effect, one.side_effects) == (other.name, other.effect, other.side_effects)
    assert found.held_out.checks().beats_random


def test_a_limit_on_the_price(found):
    model, tokenizer = small()
    limit = sorted(outcome.side_effects.kl for outcome in found.grid)[2]
    limited = sweep(
        model,
        tokenizer,
        planted(),
        MOOD,
        PROMPTS,
        scales=(4, 1),
        random=0,
        neutral=NEUTRAL,
        seed=2,
        max_kl=limit * 1.0001,
    )
    allowed = [outcome for outcome in found.grid if outcome.side_effects.kl <= limit]
    best = max(allowed, key=lambda outcome: outcome.effect.mean)
    assert len(allowed) == 3 and limited.chosen.name == best.name != found.chosen.name
    nothing = sweep(
        model, tokenizer, planted(), MOOD, PROMPTS, scales=[8], random=0, neutral=NEUTRAL, max_kl=0
    )
    assert nothing.chosen is None and nothing.held_out is None and len(nothing.grid) == 3
    assert "no setting has a defined effect with KL at most 0" in nothing.summary()
    assert nothing.to_dict()["held_out"] is None and "none within" in repr(nothing)


def test_several_layers_together_and_the_norm_of_the_native_vector():
    model, tokenizer = tiny()
    vector, native = random_vector(model, [0, 1, 2]), random_vector(model, [0, 1, 2], norm=0.5, seed=3)
    found = sweep(
        model,
        tokenizer,
        vector,
        MOOD,
        PROMPTS,
        layers=[1, (0, 2)],
        scales=[1],
        native=native,
        random=1,
        neutral=NEUTRAL,
    )
    assert [outcome.name for outcome in found.grid] == ["layer_1_scale_1", "layer_0+2_scale_1"]
    assert [outcome.label for outcome in found.grid] == ["layer 1, scale 1", "layers 0+2, scale 1"]
    alone = evaluate(
        model, tokenizer, vector.with_norm(native), MOOD, PROMPTS, layers=(0, 2), random=0, neutral=NEUTRAL
    )
    assert found.grid[1].side_effects == alone.transferred.side_effects
    assert found.held_out["native"].layers == found.chosen.layers


def test_a_single_direction_is_swept_over_layers():
    model, tokenizer = small()
    one = planted().select_layers([3])
    found = sweep(
        model, tokenizer, one, MOOD, PROMPTS, layers=range(4), scales=[4], native=one * 0.5, random=0
    )
    assert [outcome.layers for outcome in found.grid] == [(0,), (1,), (2,), (3,)]
    assert found.held_out["transferred"].effect == found.held_out["native"].effect


def test_layers_are_compared_at_equal_kl(tmp_path):
    model, tokenizer = small()
    found = sweep(model, tokenizer, planted(), MOOD, PROMPTS, neutral=NEUTRAL, random=3, at_kl=0.1)
    assert [outcome.name for outcome in found.grid] == ["layer_0", "layer_2", "layer_3"]
    for outcome in (*found.grid, *found.held_out.outcomes):
        assert outcome.search == "reached" and outcome.side_effects.kl == pytest.approx(0.1, rel=0.05)
    assert found.chosen.effect.mean == max(outcome.effect.mean for outcome in found.grid)
    assert "largest effect at KL 0.1: layer" in found.summary()
    found.plot(tmp_path / "sweep.png")
    found.save(tmp_path / "sweep.json")
    again = type(found).load(tmp_path / "sweep.json")
    assert again.to_dict() == found.to_dict()
    again.plot(tmp_path / "again.png")
    for more in ({"scales": [1]}, {"max_kl": 1}):
        with pytest.raises(embgeom.InputError, match=r"at_kl = 0\.1 says how strongly to steer"):
            sweep(model, tokenizer, planted(), MOOD, PROMPTS, neutral=NEUTRAL, at_kl=0.1, **more)


def test_what_is_not_added_is_chosen_by_its_effect_in_either_direction():
    model, tokenizer = small()
    away = replace(planted(), operation="project_to", value=-1.0)
    found = sweep(model, tokenizer, away, MOOD, PROMPTS, scales=(0.5, 2), random=3)
    assert max(outcome.effect.mean for outcome in found.grid) < 0
    assert abs(found.chosen.effect.mean) == max(abs(outcome.effect.mean) for outcome in found.grid)
    assert f"largest effect, up or down: {found.chosen.label}" in found.summary()
    assert found.held_out.checks().two_sided


def test_drawn_texts_are_swept():
    model, tokenizer = small()
    score = GenerationScore(lambda text: text.count("happy"), max_new_tokens=3, temperature=0.5)
    one, other = (
        sweep(model, tokenizer, planted(), score, PROMPTS[:4], scales=[2], random=0) for _ in range(2)
    )
    one, other = one.to_dict(), other.to_dict()
    assert one == other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": PROMPTS[:3]}, r"a sweep needs 4 samples at least, two for each half, not 3"),
        ({"max_kl": 1}, r"max_kl = 1 limits the side effects on neutral text; give some"),
        ({"max_kl": -1, "neutral": NEUTRAL}, r"max_kl = -1 must be 0 at least"),
        ({"scales": []}, r"there is nothing to try"),
        ({"layers": []}, r"there is nothing to try"),
        ({"scales": [1, float("nan")]}, r"must be finite"),
        ({"layers": [1, 9]}, r"no direction for layer 9"),
        ({"native": embgeom.SteeringVector({0: np.ones(32)})}, r"native has no direction for layer 1"),
        ({"native": 5}, r"native = 5 is not a SteeringVector"),
        ({"shuffled": embgeom.SteeringVector({0: np.ones(9)})}, r"shuffled has hidden size 9, the vector 32"),
        ({"shuffled": [None]}, r"shuffled = None is not a SteeringVector"),
        ({"random": -1}, r"random = -1 must be at least 0"),
        ({"seed": -1}, r"seed = -1 must be at least 0"),
        ({"batch_size": 0}, r"batch_size = 0 must be at least 1"),
        ({"positions": "last"}, r"positions = 'last': it is 'all' or 'generated'"),
        ({"vector": random_vector(tiny()[0], [9])}, "there is no layer 9"),
    ],
)
def test_errors_come_before_the_model_runs(options, message):
    model, tokenizer = tiny()
    given = {"prompts": PROMPTS, "scales": [1], "random": 0, **options}
    vector = given.pop("vector", random_vector(model, [0, 1]))
    ran = []
    hook = model.register_forward_pre_hook(lambda *_: ran.append(True))
    try:
        with pytest.raises(embgeom.InputError, match=message):
            sweep(model, tokenizer, vector, MOOD, **given)
    finally:
        hook.remove()
    assert not ran


def test_an_evaluation_as_tables(evaluation):
    text = evaluation.summary()
    lines = {line[:16].strip(): line for line in text.splitlines()}
    transferred = evaluation.transferred
    assert (
        f"{transferred.effect.mean:+.4f}" in lines["vector"]
        and f"{transferred.side_effects.kl:.4f}" in lines["vector"]
    )
    assert "vector, negated" in lines and "transferred" not in text
    came_over = {**evaluation.provenance["vector"], "provenance": {"transferred_from": {"model": "other"}}}
    moved = replace(evaluation, provenance={**evaluation.provenance, "vector": came_over})
    assert "\n transferred  " in moved.summary() and "\n transferred, negated  " in moved.summary()
    # A control is not taken for a transfer, also as a multiple.
    control = {"transferred_from": {"model": "other"}, "map": {"options": {"shuffle": True}}}
    came_over["provenance"] = {"times": 2.0, "of": control}
    assert "\n shuffled control, negated  " in moved.summary() and "\n transferred" not in moved.summary()
    random = [evaluation[f"random_{number}"].effect.mean for number in range(3)]
    assert f"{np.mean(random):+.4f}" in text and f"{np.std(random, ddof=1):.4f}" in text
    assert "by log-ratio:\nfraction of the native vector's effect: 1.00" in text
    assert "negating the vector reverses its effect, both beyond 2 ±: yes" in text
    assert "beats vectors by maps of shuffled tokens: not decided, with fewer than 3" in text
    assert max(map(len, text.splitlines())) <= 110
    Console(width=80, file=io.StringIO()).print(*evaluation.tables())
    with pytest.raises(embgeom.InputError, match="no outcome is named 'best'; there are 'transferred'"):
        evaluation["best"]


def test_a_sweep_as_tables(found):
    text = found.summary()
    for outcome in found.grid:
        assert f"{outcome.effect.mean:+.4f}" in text and outcome.label in text
    assert f"largest effect: {found.chosen.label}; on the other samples:" in text
    assert f"{found.held_out.transferred.effect.mean:+.4f}" in text


def test_files(evaluation, found, tmp_path):
    for name, result in (("evaluation.json", evaluation), ("sweep.json", found)):
        result.save(tmp_path / name)
        written = json.loads((tmp_path / name).read_text(encoding="utf-8"))
        assert written == result.to_dict()
        held_out = result.held_out if name == "sweep.json" else result
        assert written["checks"] == held_out.to_dict()["checks"]
        provenance = written["provenance"]
        assert provenance["versions"]["torch"] and provenance["versions"]["transformers"]
        assert provenance["model"]["class"] == "GPT2LMHeadModel"
        assert provenance["score"]["positive"] == HAPPY
        assert provenance["options"]["seed"] in (0, 2)
        assert provenance["vector"]["norms"].keys() == {"0", "2", "3"}
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert written["checks"]["log-ratio"]["fraction_of_native"] == pytest.approx(1)
    assert len([outcome for outcome in written["outcomes"] if outcome["kind"] == "random"]) == 3
    assert (
        written["outcomes"][0]["values"]["log-ratio"] == evaluation.transferred.values["log-ratio"].tolist()
    )
    with pytest.raises(embgeom.OutputError):
        evaluation.save(tmp_path / "nowhere" / "evaluation.json")


def test_results_are_read_again(evaluation, found, tmp_path):
    for result in (evaluation, found):
        result.save(tmp_path / "result.json")
        again = type(result).load(tmp_path / "result.json")
        assert again.to_dict() == result.to_dict() and again.summary() == result.summary()


def test_results_as_frames(evaluation, found):
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = evaluation.to_pandas().set_index("name")
    assert frame.loc["native_negated", "log-ratio_mean"] == evaluation["native_negated"].effect.mean
    assert frame.loc["random_2", "kl"] == evaluation["random_2"].side_effects.kl
    frame = found.to_pandas()
    assert frame["scale"].tolist() == [4, 1] * 3 and len(frame) == len(found.grid)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_figures(evaluation, found, tmp_path, ending):
    for name, result in (("evaluation", evaluation), ("sweep", found)):
        file = tmp_path / f"{name}.{ending}"
        result.plot(file)
        assert file.stat().st_size > 5000
    assert len(list(tmp_path.iterdir())) == 2


def test_figures_say_what_is_drawn(evaluation, found):
    def texts(figure):
        import matplotlib.text

        return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}

    drawn = texts(evaluation.figure())
    layers = ", ".join(map(str, evaluation.transferred.layers))
    assert "random vectors, mean ± 2 sd" in drawn
    assert any(f" {layers}, scale {evaluation.transferred.scale:g}" in text for text in drawn)
    assert any("effect on log-ratio (nats), " in text for text in drawn)
    assert {"chosen", "effect on log-ratio (nats)"} <= texts(found.figure())
    assert ("KL limit" in texts(found.figure())) == (found.max_kl is not None)
    # The controls of the chosen setting, or what of them is missing.
    swept = texts(found.figure())
    said = "controls of the chosen setting, on the other samples; not measured: native, shuffled vectors"
    assert {"3 random, mean ± sd", said} <= swept
    every = texts(replace(found, held_out=evaluation).figure())
    assert {"native ± standard error", "3 random, mean ± sd", "1 shuffled, mean ± sd"} <= every
    assert "controls of the chosen setting, on the other samples" in every
    bare = replace(evaluation, outcomes=evaluation.outcomes[:1])
    assert "not measured: native, random, shuffled vectors" in texts(replace(found, held_out=bare).figure())


def test_figures_of_unknown_formats(evaluation, found, tmp_path):
    for result in (evaluation, found):
        with pytest.raises(
            embgeom.OutputError, match=r"suffix '\.doc'; a figure is one of \.svg, \.pdf, \.png"
        ):
            result.plot(tmp_path / "figure.doc")
    assert not list(tmp_path.iterdir())


def test_figures_of_little(tmp_path):
    model, tokenizer = tiny()
    vector = random_vector(model, [0])
    evaluate(model, tokenizer, vector, MOOD, PROMPTS[:1], random=0).plot(tmp_path / "one.png")
    sweep(model, tokenizer, vector, MOOD, PROMPTS, scales=[1], random=1).plot(tmp_path / "two.png")
    assert len(list(tmp_path.iterdir())) == 2
