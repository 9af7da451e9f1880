"""The model cards and the docs page of the pair, from the records of the training and embgeom's measures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import embgeom
from embgeom.embeddings import Which
from embgeom.report import shown
from training.export import RECORD

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "example-models.md"
CURVE = ROOT / "docs" / "example-models-loss.svg"

WORDS = ("king", "mother", "dog", "eyes", "red", "two", "happy", "walked", "morning", "river")
NEIGHBORS = 5


def write_descriptions(folders: dict[str, Path]) -> None:
    """Write README.md into each of the two folders, and the docs page with its figure."""
    records = {
        name: json.loads((folder / RECORD).read_text(encoding="utf-8")) for name, folder in folders.items()
    }
    similarities = _similarities(folders)
    for name, folder in folders.items():
        card = _card(folder, records[name], similarities)
        (folder / "README.md").write_text(card, encoding="utf-8")
    PAGE.write_text(_page(folders, records, similarities), encoding="utf-8")
    draw_curve(records, CURVE)


def draw_curve(records: dict[str, Any], path: Path) -> None:
    """Draw loss against step: of the training text as means of 50 steps, of the held-out text as points."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "embgeom"  # the same picture gives the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, record in records.items():
        means, held_out = record["losses"]["mean_of_each_50_steps"], record["losses"]["held_out"]
        (line,) = axes.plot(
            [50 * (i + 1) for i in range(len(means))], means, label=f"{name}, training", linewidth=1
        )
        steps, losses = zip(*((int(step), loss) for step, loss in held_out.items()), strict=True)
        axes.plot(steps, losses, "o", color=line.get_color(), label=f"{name}, held out")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _card(folder: Path, record: dict[str, Any], similarities: str) -> str:
    return f"""---
license: bsd-3-clause
language: en
library_name: transformers
pipeline_tag: text-generation
---

# embgeom example: {record["name"]}

{_summary(folder, record)} It comes with [embgeom](https://arxiv.org/abs/2503.21073), which measures the geometry of
token embeddings, so that everything there can be tried without a network. It is no use for anything else: it was
trained for an hour, on old books and children's stories, whose opinions and omissions it shares.

Licence: that of embgeom (BSD-3-Clause). The text it learned from is not part of it; see below for its licences.

{_measured(record)}
{_samples(record)}
## Nearest neighbors of ten words

By cosine, {NEIGHBORS} nearest rows of the matrix.

{_neighbors(_matrices(record["name"], folder))}
## What the pair shares

{similarities}
## Training

{_training(record)}
### Text

{_text(record["data"])}
### Losses

{_losses({record["name"]: record})}"""


def _page(folders: dict[str, Path], records: dict[str, Any], similarities: str) -> str:
    matrices = [matrix for name, folder in folders.items() for matrix in _matrices(name, folder)]
    summaries = "\n".join(
        f"- `example:{name}`: {_summary(folders[name], record)}" for name, record in records.items()
    )
    return f"""# The example models

Two small language models come with embgeom, so that everything can be tried without a network. Wherever a model is named,
`example:small` and `example:large` stand for them; `embgeom.examples.pair()` gives their folders, which are ordinary Hugging
Face folders (`transformers.AutoModelForCausalLM.from_pretrained(folder)` reads them).

{summaries}

They were trained apart, from other seeds, on the same text with one tokenizer of 4,096 tokens (byte-level BPE). All numbers below
are measured on the models as they are stored, in float16; `python -m training describe` writes this page anew.

## What they share

{similarities}
## Nearest neighbors of ten words

By cosine, the {NEIGHBORS} nearest rows of each matrix.

{_neighbors(matrices)}
## How well they predict

{_predictions(records)}
{"".join(_samples(record, f" by {name}") for name, record in records.items())}## How they learned

![Loss against step](example-models-loss.svg)

{_losses(records)}
How to train them again, and to see the first losses again, is in [training/README.md](../training/README.md).

## The text

{_text(records["small"]["data"])}"""


def _summary(folder: Path, record: dict[str, Any]) -> str:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    width, blocks = (
        (config["n_embd"], config["n_layer"])
        if config["model_type"] == "gpt2"
        else (config["hidden_size"], config["num_hidden_layers"])
    )
    tied = "tied" if config["tie_word_embeddings"] else "not tied"
    return (
        f"{config['architectures'][0]}, {blocks} blocks of width {width}, {record['parameters']:,} parameters, "
        f"embedding and unembedding {tied}."
    )


def _similarities(folders: dict[str, Path]) -> str:
    small, large = folders.values()
    parts = []
    sides: tuple[tuple[Which, str], ...] = (("input", "embeddings"), ("output", "unembeddings"))
    for which, meaning in sides:
        comparison = embgeom.compare(small, large, which=which)
        lines = (
            (m.name, *(f"{value:.4f}" for value in (m.value, m.shuffled, m.gaussian)))
            for m in comparison.measures
        )
        parts.append(
            f"The {meaning}, over {len(comparison.match):,} shared tokens (`embgeom compare example:small example:large"
            + ("`):" if which == "input" else " --which-a output --which-b output`):")
        )
        parts.append(_table((meaning, "value", "paired at random", "random rows"), lines))
    return "\n\n".join(parts)


def _matrices(name: str, folder: Path) -> list[tuple[str, embgeom.Embeddings]]:
    model = embgeom.load(folder)
    if model.provenance.tied:
        return [(f"{name}", model)]
    return [(f"{name}, embeddings", model), (f"{name}, unembeddings", embgeom.load(folder, "output"))]


def _neighbors(matrices: Sequence[tuple[str, embgeom.Embeddings]]) -> str:
    return _table(
        ("word", *(title for title, _ in matrices)),
        ((word, *(_nearest(model, f" {word}") for _, model in matrices)) for word in WORDS),
    )


def _nearest(model: embgeom.Embeddings, word: str) -> str:
    near = embgeom.knn(model.matrix, NEIGHBORS, rows=[model.index(word)]).indices[0]
    return ", ".join(shown(model, int(row)).replace("|", "\\|") for row in near)


def _measured(record: dict[str, Any]) -> str:
    return f"""## How well it predicts

{_predictions({record["name"]: record})}"""


def _predictions(records: dict[str, Any]) -> str:
    measured = [record["measured"] for record in records.values()]
    lines = [
        ("held-out tokens", *(f"{m['held_out_tokens']:,}" for m in measured)),
        ("held-out loss, nats a token", *(f"{m['held_out_loss']:.4f}" for m in measured)),
        ("held-out perplexity", *(f"{m['held_out_perplexity']:.1f}" for m in measured)),
        ("perplexity of a unigram model", *(f"{m['unigram_perplexity']:.1f}" for m in measured)),
        ("held-out bits a byte", *(f"{m['held_out_bits_per_byte']:.3f}" for m in measured)),
        (
            "written words that occur in the training text",
            *(f"{m['written_words_known']:.1%} of {m['written_words']:,}" for m in measured),
        ),
    ]
    return _table(("", *records), lines) + (
        "\nHeld out are the last 2 % of each book and every 50th story; a token is predicted from those before it in its "
        "stretch of 256. The unigram model knows how frequent each token is in the training text.\n"
    )


def _samples(record: dict[str, Any], by: str = "") -> str:
    sampling = record["measured"]["sampling"]
    quoted = "\n\n".join("> " + text.replace("\n", "\n> ") for text in record["measured"]["samples"].values())
    return (
        f"## A sample of what is written{by}\n\nTemperature {sampling['temperature']}, the {sampling['top_k']} likeliest tokens, "
        f"seed {sampling['seed']}, {sampling['new_tokens']} new tokens; not chosen among several.\n\n{quoted}\n\n"
    )


def _training(record: dict[str, Any]) -> str:
    commands = "\n".join(f"    {command}" for command in record["command"])
    hyperparameters = ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""In a checkout of embgeom, with the text in the folder TEXT:

{commands}

Seed {record["seed"]} (weights and order of the text). {hyperparameters}. AdamW in float32, on {record["threads"]} thread; {versions}.
`python -m training reproduce {record["name"]} --text TEXT` trains the first 50 steps anew and compares their losses with those in
training.json.
"""


def _text(data: dict[str, Any]) -> str:
    lines = (
        (
            s["name"],
            f"{s['documents']:,}",
            f"{s['characters']:,}",
            str(s["repeat"]),
            s["licence"],
            s["origin"],
        )
        for s in data["sources"]
    )
    return _table(("text", "documents", "characters", "times seen in an epoch", "licence", "from"), lines) + (
        f"\n{data['tokens']['training']:,} tokens to train on, {data['tokens']['held_out']:,} held out. The SHA-256 of each file "
        "is in training.json.\n"
    )


def _losses(records: dict[str, Any]) -> str:
    header: list[str] = ["step"]
    columns: list[list[str]] = []
    for name, record in records.items():
        header += [f"{name}: training (mean of 50 steps)", f"{name}: held out"]
        means, held_out = record["losses"]["mean_of_each_50_steps"], record["losses"]["held_out"]
        columns += [
            [f"{means[int(step) // 50 - 1]:.3f}" for step in held_out],
            [f"{v:.3f}" for v in held_out.values()],
        ]
    steps = list(next(iter(records.values()))["losses"]["held_out"])
    return _table(header, zip(steps, *columns, strict=True))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
