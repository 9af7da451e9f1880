"""The model cards and the docs page of the pair, from the records of the training and embgeom's measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import embgeom
from embgeom.comparison.saving import shown
from embgeom.comparison.statistic import null_text
from embgeom.embeddings.embeddings import Which
from training.corpus import HELD_OUT_EVERY, HELD_OUT_SHARE, PROSE_SHARE
from training.data import CONTEXT, RARE, VOCABULARY

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "example-models.md"
CURVE = "example-models-loss.svg"

WORDS = ("king", "mother", "dog", "eyes", "red", "two", "happy", "walked", "morning", "river")
NEIGHBORS = 5


def write_descriptions(folders: dict[str, Path], page: Path = PAGE) -> Path:
    """Write README.md into each of the two folders, and the docs page; return its figure, which lies beside it."""
    records = {name: embgeom.examples.record(folder) for name, folder in folders.items()}
    similarities = _similarities(folders)
    texts = {
        **{
            folder / "README.md": _card(folder, records[name], similarities)
            for name, folder in folders.items()
        },
        page: _page(folders, records, similarities),
    }
    figure = page.with_name(CURVE)
    draw_curve(records, figure)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    return figure


def draw_curve(records: dict[str, Any], path: Path) -> None:
    """Draw loss against step: of the training text as means of 50 steps, of the held-out text as points."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "embgeom"  # the same picture gives the same file
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for name, record in records.items():
        means, held_out, window = (record["losses"][key] for key in ("means", "held_out", "window"))
        ends = [window * (i + 1) for i in range(len(means))]
        (line,) = axes.plot(ends, means, label=f"{name}, training", linewidth=1)
        steps, losses = zip(*((int(step), loss) for step, loss in held_out.items()), strict=True)
        axes.plot(steps, losses, "o", color=line.get_color(), label=f"{name}, held out")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _card(folder: Path, record: dict[str, Any], similarities: str) -> str:
    hyperparameters = record["hyperparameters"]
    seen = hyperparameters["max_steps"] * hyperparameters["per_device_train_batch_size"] * CONTEXT
    return f"""---
license: bsd-3-clause
language: en
library_name: transformers
pipeline_tag: text-generation
---

# embgeom example: {record["name"]}

{_summary(record)}

It comes with embgeom, which measures the geometry of token embeddings (after
[Lee et al., 2025](https://arxiv.org/abs/2503.21073)), so that everything there can be tried without a network. It is meant for
nothing else: it learned from {seen / 1e6:.1f} million tokens of old books and children's stories, whose opinions and omissions it shares.

License: BSD-3-Clause, like embgeom. The training text is not part of it; its licenses are listed below.

{_measured(record)}
{_samples(record)}## Nearest neighbors of ten words

By cosine, {NEIGHBORS} nearest rows of the matrix.

{_neighbors(_matrices(record["name"], folder))}
## What the pair shares

Value ± half of its 95 % interval; *null*: mean ± standard deviation if the tokens of one model are relabeled at random; *null in strata*: the same if only
tokens of like spelling, frequency and length are exchanged.

{similarities}
## Training

{_training(record)}
### Text

{_text(record["data"])}
### Losses

{_losses({record["name"]: record})}"""


def _page(folders: dict[str, Path], records: dict[str, Any], similarities: str) -> str:
    matrices = [matrix for name, folder in folders.items() for matrix in _matrices(name, folder)]
    summaries = "\n".join(f"- `example:{name}`: {_summary(record)}" for name, record in records.items())
    return f"""# The example models

Two small language models come with embgeom, so that everything can be tried without a network. Use `example:small` and
`example:large` wherever a model is named. `embgeom.examples.pair()` gives their folders, which are ordinary Hugging
Face folders (`transformers.AutoModelForCausalLM.from_pretrained(folder)` reads them).

{summaries}

They were trained independently, from different seeds, on the same text with one tokenizer of {VOCABULARY:,} tokens (byte-level BPE). What they share,
their neighbors, predictions and samples are measured on the stored models, in float16; the losses by step are those of
the training. `python -m training describe` writes this page.

## What they share

Each value stands with half of its 95 % interval. *Null* is the mean ± standard deviation of the same statistic if the tokens of one model are relabeled at
random, *null in strata* if only tokens of like spelling, frequency and length are exchanged.

{similarities}
The small model's tied matrix resembles the large model's unembedding more than its embedding. Bytes and pieces of words that hardly
occur in the text are undertrained: in an unembedding they lie close together and far out, in an embedding at random. As the last
column shows, a few hundred of them move a statistic a good deal. If many of a token's neighbors are undertrained, the few directions
toward them hold nearly all of the variance, and its intrinsic dimension is low for that reason alone.
(`embgeom.examples.without_rare_tokens` leaves them out, and so does `embgeom demo`.)

## Nearest neighbors of ten words

By cosine, the {NEIGHBORS} nearest rows of each matrix.

{_neighbors(matrices)}
## How well they predict

{_predictions(records)}
{"".join(_samples(record, f" by {name}") for name, record in records.items())}## How they learned

![Loss against step]({CURVE})

{_losses(records)}
How to train them again, and how to reproduce the first losses, is in [training/README.md](../training/README.md).

## The text

{_text(next(iter(records.values()))["data"])}"""


def _summary(record: dict[str, Any]) -> str:
    model = record["model"]
    return (
        f"{model['architecture']}, {model['blocks']} layers, hidden size {model['width']}, {model['heads']} heads, a context of "
        f"{model['context']} tokens, "
        f"{record['parameters']:,} parameters, embedding and unembedding {'tied' if model['tied'] else 'not tied'}."
    )


def _similarities(folders: dict[str, Path]) -> str:
    sides: tuple[tuple[Which, str, str], ...] = (
        ("input", "embeddings", ""),
        ("output", "unembeddings", " --which-a output --which-b output"),
    )
    parts = []
    for which, meaning, options in sides:
        small, large = (embgeom.load(folder, which) for folder in folders.values())
        comparison = embgeom.compare(small, large, without=())
        rare = map(embgeom.examples.without_rare_tokens, (small, large))
        trained = embgeom.compare(*rare, without=())
        parts.append(
            f"The {meaning}, over {len(comparison.match):,} shared tokens (`embgeom compare example:small "
            f"example:large{options} --with all`), and over the {len(trained.match):,} of them that occur more than {RARE} times "
            "in the training text; no class of tokens is left out:\n"
        )
        parts.append(
            _table(
                (
                    meaning,
                    "value",
                    "null",
                    "null in strata",
                    f"value, without {len(comparison.match) - len(trained.match)} rare tokens",
                ),
                (
                    (
                        m.label,
                        m.estimate.text(),
                        null_text(m.null),
                        "" if m.stratified is None else null_text(m.stratified),
                        trained[m.name].estimate.text(),
                    )
                    for m in comparison.statistics
                ),
            )
        )
    return "\n".join(parts)


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
    near = embgeom.knn(model.matrix, NEIGHBORS, rows=[model.row_of(word)]).indices[0]
    return ", ".join(shown(model, int(row)).replace("|", "\\|") for row in near)


def _measured(record: dict[str, Any]) -> str:
    return f"""## How well it predicts

{_predictions({record["name"]: record})}"""


def _predictions(records: dict[str, Any]) -> str:
    measured = [record["measured"] for record in records.values()]
    lines = [
        ("held-out tokens predicted", *(f"{m['held_out_tokens']:,}" for m in measured)),
        ("held-out loss, nats per token", *(f"{m['held_out_loss']:.4f}" for m in measured)),
        ("held-out perplexity", *(f"{m['held_out_perplexity']:.1f}" for m in measured)),
        ("perplexity of a unigram model", *(f"{m['unigram_perplexity']:.1f}" for m in measured)),
        *(
            (
                f"held-out perplexity on: {part}",
                *(f"{m['held_out_perplexity_by_source'][part]:.1f}" for m in measured),
            )
            for part in measured[0]["held_out_perplexity_by_source"]
        ),
        (
            "written words that occur in the training text",
            *(f"{m['written_words_known']:.1%} of {m['written_words']:,}" for m in measured),
        ),
    ]
    return _table(("", *records), lines) + (
        f"\nHeld out are the last {HELD_OUT_SHARE:.0%} of each book or collection, and every {HELD_OUT_EVERY}th story. The end of a book "
        "may be unlike the rest of it: that of the collected Darwin is an index, that of Du Bois ends in a bibliography. A token is "
        f"predicted from those before it in its stretch of {CONTEXT}. The unigram model knows how frequent each token is in the "
        "training text.\n"
    )


def _samples(record: dict[str, Any], by: str = "") -> str:
    sampling = record["measured"]["sampling"]
    quoted = "\n\n".join("> " + text.replace("\n", "\n> ") for text in record["measured"]["samples"].values())
    return (
        f"## A sample written{by}\n\nTemperature {sampling['temperature']}, the {sampling['top_k']} likeliest tokens, "
        f"seed {sampling['seed']}, {sampling['new_tokens']} new tokens; not chosen among several.\n\n{quoted}\n\n"
    )


def _training(record: dict[str, Any]) -> str:
    commands = "\n".join(f"    {command}" for command in record["command"])
    hyperparameters = ", ".join(f"{name} {value}" for name, value in record["hyperparameters"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"""In a checkout of embgeom, with the text in the folder TEXT:

{commands}

Seed {record["seed"]} (weights and order of the text). AdamW in float32, on {record["threads"]} thread, {record["instruction set"]}: {hyperparameters}. Versions: {versions}.

`python -m training reproduce {record["name"]} --text TEXT` trains the first 50 steps again and compares their losses with those in
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
        "is in training.json. Paragraphs of less than "
        f"{PROSE_SHARE:.0%} letters and spaces are left out, and with them the shortest lines of dialogue.\n"
    )


def _losses(records: dict[str, Any]) -> str:
    header: list[str] = ["step"]
    columns: list[dict[str, str]] = []
    for name, record in records.items():
        means, held_out, window = (record["losses"][key] for key in ("means", "held_out", "window"))
        header += [f"{name}: training (mean of {window} steps)", f"{name}: held out"]
        columns.append({step: f"{means[int(step) // window - 1]:.3f}" for step in held_out})
        columns.append({step: f"{loss:.3f}" for step, loss in held_out.items()})
    steps = sorted({step for column in columns for step in column}, key=int)
    return _table(header, ((step, *(column.get(step, "") for column in columns)) for step in steps))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
