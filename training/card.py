"""The model cards and the docs page of the pair, from the records of the training and embgeom's measures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import embgeom
from embgeom.embeddings import Which
from embgeom.report import shown
from training.data import RARE
from training.export import RECORD

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "example-models.md"
CURVE = "example-models-loss.svg"

WORDS = ("king", "mother", "dog", "eyes", "red", "two", "happy", "walked", "morning", "river")
NEIGHBORS = 5


def write_descriptions(folders: dict[str, Path], page: Path = PAGE) -> None:
    """Write README.md into each of the two folders, and the docs page with its figure beside it."""
    records = {
        name: json.loads((folder / RECORD).read_text(encoding="utf-8")) for name, folder in folders.items()
    }
    similarities = _similarities(folders, records["small"]["data"]["rare_tokens"])
    texts = {
        **{
            folder / "README.md": _card(folder, records[name], similarities)
            for name, folder in folders.items()
        },
        page: _page(folders, records, similarities),
    }
    draw_curve(records, page.with_name(CURVE))
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


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

{_summary(folder, record)}

It comes with embgeom, which measures the geometry of token embeddings (after
[Lee et al., 2025](https://arxiv.org/abs/2503.21073)), so that everything there can be tried without a network. It is meant for
nothing else: it learned for an hour, from old books and children's stories, whose opinions and omissions it shares.

License: that of embgeom, BSD-3-Clause. The text it learned from is not part of it; the licenses of that are below.

{_measured(record)}
{_samples(record)}## Nearest neighbors of ten words

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
The one matrix of the small model serves at both ends, and is more like the large model's unembedding than its embedding. Bytes and
pieces of words which the text hardly holds were hardly trained: in an unembedding they lie close together, in an embedding at
random. As the last column shows, some hundreds of them move a measure a good deal.

## Nearest neighbors of ten words

By cosine, the {NEIGHBORS} nearest rows of each matrix.

{_neighbors(matrices)}
## How well they predict

{_predictions(records)}
{"".join(_samples(record, f" by {name}") for name, record in records.items())}## How they learned

![Loss against step]({CURVE})

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


def _similarities(folders: dict[str, Path], rare: list[int]) -> str:
    sides: tuple[tuple[Which, str, str], ...] = (
        ("input", "embeddings", ""),
        ("output", "unembeddings", " --which-a output --which-b output"),
    )
    parts = []
    for which, meaning, options in sides:
        small, large = (embgeom.load(folder, which) for folder in folders.values())
        comparison = embgeom.compare(small, large)
        trained = embgeom.compare(_without(small, rare), _without(large, rare))
        parts.append(
            f"The {meaning}, over {len(comparison.match):,} shared tokens (`embgeom compare example:small "
            f"example:large{options}`), and over the {len(trained.match):,} of them that the training text holds more than "
            f"{RARE} times:\n"
        )
        parts.append(
            _table(
                (
                    meaning,
                    "value",
                    "paired at random",
                    "random rows",
                    f"value, without {len(rare)} rare tokens",
                ),
                (
                    (
                        m.name,
                        *(
                            f"{value:.4f}"
                            for value in (m.value, m.shuffled, m.gaussian, trained[m.name].value)
                        ),
                    )
                    for m in comparison.measures
                ),
            )
        )
    return "\n".join(parts)


def _without(model: embgeom.Embeddings, rows: list[int]) -> embgeom.Embeddings:
    kept = np.setdiff1d(np.flatnonzero(~model.special), rows)
    return embgeom.Embeddings.from_array(
        model.matrix[kept], [model.tokens[row] for row in kept], name=model.name
    )


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

Seed {record["seed"]} (weights and order of the text). AdamW in float32, on {record["threads"]} thread: {hyperparameters}. Versions: {versions}.

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
            s["license"],
            s["origin"],
        )
        for s in data["sources"]
    )
    return _table(("text", "documents", "characters", "times seen in an epoch", "license", "from"), lines) + (
        f"\n{data['tokens']['training']:,} tokens to train on, {data['tokens']['held_out']:,} held out. The SHA-256 of each file "
        "is in training.json. Left out are paragraphs that are less than 85 % letters and spaces.\n"
    )


def _losses(records: dict[str, Any]) -> str:
    header: list[str] = ["step"]
    columns: list[dict[str, str]] = []
    for name, record in records.items():
        header += [f"{name}: training (mean of 50 steps)", f"{name}: held out"]
        means, held_out = record["losses"]["mean_of_each_50_steps"], record["losses"]["held_out"]
        columns.append({step: f"{means[int(step) // 50 - 1]:.3f}" for step in held_out})
        columns.append({step: f"{loss:.3f}" for step, loss in held_out.items()})
    steps = sorted({step for column in columns for step in column}, key=int)
    return _table(header, ((step, *(column.get(step, "") for column in columns)) for step in steps))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
