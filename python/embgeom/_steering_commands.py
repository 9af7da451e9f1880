"""What the commands that fit maps and steer do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embgeom.errors import InputError, LoadError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embgeom.emb2emb import FinalNorm
    from embgeom.embeddings import Embeddings
    from embgeom.evaluation import Score

Load = Callable[[argparse.Namespace, str], "Embeddings"]
Show = Callable[[Sequence["RenderableType"]], None]


def fit(options: argparse.Namespace, load: Load, show: Show, progress: bool) -> None:
    """Fit a map, show its scores, and write it."""
    from embgeom.emb2emb import Emb2Emb
    from embgeom.emb2emb.saving import check_path
    from embgeom.loading.final_norm import load_final_norm
    from embgeom.report import titled_table

    check_path(options.output)
    models = load(options, "_a"), load(options, "_b")
    norms: list[FinalNorm | None] = [None, None]
    if options.fold_norm:
        norms = [
            load_final_norm(name, revision=revision, local_files_only=options.offline)
            for name, revision in (
                (options.model_a, options.revision_a),
                (options.model_b, options.revision_b),
            )
        ]
    carrier = Emb2Emb.fit(
        *models,
        method=options.method,
        center=not options.no_center,
        normalize=options.normalize,
        source_norm=norms[0],
        target_norm=norms[1],
        **_method_options(options),
        held_out=options.held_out,
        shuffle=options.shuffle,
        seed=options.seed,
        threads=options.threads,
        progress=progress,
    )
    carrier.save(options.output)
    rows = [
        (name, f"{s.r2:.3f}", f"{s.cosine:.3f}", f"{s.retrieval_at_1:.3f}", f"{s.retrieval_at_10:.3f}")
        for name, s in (("held-out tokens", carrier.scores), ("fitted on shuffled pairs", carrier.shuffled))
        if s is not None
    ]
    tokens = carrier.provenance["tokens"]
    title = f"{carrier!r}: {tokens['shared']} shared tokens, {tokens['held_out']} held out"
    show([titled_table(title, ("", ">R2", ">cosine", ">retrieval@1", ">@10"), rows)])


def _method_options(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that some methods use, where they are given: a method refuses those of others."""
    given = {"ridge": options.ridge, "rank": options.rank, "k": options.k}
    found = {name: value for name, value in given.items() if value is not None}
    return found | ({"scaled": False} if options.no_scale else {})


def train_vector(options: argparse.Namespace, progress: bool) -> None:
    """Train a vector on pairs of texts, and write it."""
    from embgeom.steering import SteeringVector, load_language_model
    from embgeom.steering.files import check_vector_path
    from embgeom.steering.pairs import read_pairs

    check_vector_path(options.output)
    if options.output.endswith(".gguf") and (options.blocks is None or 0 in options.blocks):
        raise InputError("a .gguf has no place for block 0: name others by --blocks, or take .safetensors")
    pairs = read_pairs(options.pairs)
    read = options.read if options.read in ("last", "mean", "answer") else _place(options.read)
    loaded = load_language_model(options.model, revision=options.revision, local_files_only=options.offline)
    vector = SteeringVector.train(
        loaded.model,
        loaded.tokenizer,
        pairs,
        blocks=options.blocks,
        method=options.method,
        read=read,
        batch_size=options.batch_size,
        normalize=options.normalize,
        name=options.model,
        progress=progress,
    )
    vector.save(options.output)
    print(f"{vector!r}, from {len(pairs)} pairs, written to {options.output}")
    print("norms by block: " + ", ".join(f"{block}: {norm:.3g}" for block, norm in vector.norms.items()))


def transfer(options: argparse.Namespace) -> None:
    """Carry a vector over a map, and write it."""
    from embgeom.emb2emb import Emb2Emb
    from embgeom.steering import SteeringVector
    from embgeom.steering.files import check_vector_path

    check_vector_path(options.output)
    if options.norm is not None and options.norm_of is not None:
        raise InputError("give --norm or --norm-of, not both")
    carrier = Emb2Emb.load(options.map)
    carried = carrier.transfer(
        SteeringVector.load(options.vector),
        transport=options.transport,
        blocks=options.blocks,
        norm=options.norm if options.norm_of is None else SteeringVector.load(options.norm_of),
        threads=options.threads,
    )
    carried.save(options.output)
    places = ", ".join(f"{old} to {new}" for old, new in carried.provenance["blocks"].items())
    print(f"{carried!r}, written to {options.output}")
    print(f"carried by {carrier!r} ({carried.provenance['transport']}); block {places}")


def steer(options: argparse.Namespace, show: Show) -> None:
    """Show what a model writes without and with a vector."""
    from embgeom.evaluation import TextScore
    from embgeom.report import titled_table
    from embgeom.steering import SteeringVector, load_language_model

    vector = SteeringVector.load(options.vector)
    model, tokenizer = load_language_model(
        options.model, revision=options.revision, local_files_only=options.offline
    )
    writer = TextScore(
        len, max_new_tokens=options.max_new_tokens, temperature=options.temperature, chat=options.chat
    )

    def texts() -> list[str]:
        return writer.texts(
            model, tokenizer, options.prompt, batch_size=options.batch_size, seed=options.seed
        )

    unsteered = texts()
    with vector.apply(model, options.scale, blocks=options.blocks, positions=options.positions):
        steered = texts()
    for prompt, before, after in zip(options.prompt, unsteered, steered, strict=True):
        rows = (("unsteered", before), (f"steered, scale {options.scale:g}", after))
        show([titled_table(prompt, ("", "goes on"), rows)])


def evaluate(options: argparse.Namespace, show: Show, progress: bool) -> None:
    """Show the effect of a vector beside its controls."""
    from embgeom._writing import check_file_writable
    from embgeom.evaluation import evaluate as measure
    from embgeom.steering import SteeringVector, load_language_model

    for file in (options.output, options.figure):
        if file is not None:
            check_file_writable(file)
    score, samples = _score(options)
    vector = SteeringVector.load(options.vector)
    own = None if options.own is None else SteeringVector.load(options.own)
    shuffled = [SteeringVector.load(file) for file in options.shuffled]
    neutral = None if options.neutral is None else _lines(options.neutral)
    model, tokenizer = load_language_model(
        options.model, revision=options.revision, local_files_only=options.offline
    )
    found = measure(
        model,
        tokenizer,
        vector,
        score,
        samples,
        scale=options.scale,
        blocks=options.blocks,
        own=own,
        random=options.random,
        shuffled=shuffled or None,
        neutral=neutral,
        positions=options.positions,
        seed=options.seed,
        batch_size=options.batch_size,
        progress=progress,
    )
    show(found.table())
    if options.output is not None:
        found.save(options.output)
    if options.figure is not None:
        found.figure(options.figure)


def _score(options: argparse.Namespace) -> tuple[Score, list[Any]]:
    """Return what is scored and on what, from one of two sets of options."""
    from embgeom.evaluation import AnswerProbability, WordShift
    from embgeom.loading.folder import parse_json, read_bytes

    words = (options.prompts, options.more, options.less)
    if options.items is not None:
        if any(value is not None for value in words):
            raise InputError("give --items, or --prompts with --more and --less, not both")
        items = parse_json(read_bytes(Path(options.items)), options.items)
        if not isinstance(items, list):
            raise LoadError(f"{options.items} holds a JSON {type(items).__name__}, not a list of items")
        return AnswerProbability(chat=options.chat), items
    if any(value is None for value in words):
        raise InputError("give --prompts with --more and --less, or --items")
    return WordShift(options.more, options.less, whole=True, chat=options.chat), _lines(options.prompts)


def _lines(path: str) -> list[str]:
    from embgeom.loading.folder import read_lines

    lines = [line for line in read_lines(Path(path)) if line.strip()]
    if not lines:
        raise InputError(f"{path} holds no text; write one in each line")
    return lines


def _place(read: str) -> int:
    try:
        return int(read)
    except ValueError:
        raise InputError(f"--read {read} is none of last, mean, answer, and no number such as -2") from None
