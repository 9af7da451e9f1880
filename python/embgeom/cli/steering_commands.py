"""What the commands that fit a map, and make, transfer and apply steering vectors do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from embgeom._common.writing import check_kept
from embgeom.cli import steering_files as files
from embgeom.cli.options import model_inputs
from embgeom.cli.running import running
from embgeom.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embgeom.emb2emb.pairs import Norms
    from embgeom.embeddings.embeddings import Embeddings

Load = Callable[[argparse.Namespace, str], "Embeddings"]
Show = Callable[[Sequence["RenderableType"]], None]
Say = Callable[[str], None]


def fit(options: argparse.Namespace, load: Load, show: Show, progress: bool) -> None:
    """Fit a map, show its scores, and write it."""
    from embgeom.emb2emb import Emb2Emb
    from embgeom.emb2emb.map import check_path
    from embgeom.emb2emb.methods import as_method
    from embgeom.loading.final_norm import load_final_norm

    check_path(options.output)
    check_kept({"-o": options.output}, model_inputs(options))
    method = as_method(
        options.method,
        strength=options.ridge,
        rank=options.rank,
        k=options.k,
        scaled=False if options.no_scaled else None,
        center=False if options.no_center else None,
    )
    models = load(options, "_a"), load(options, "_b")
    norms: Norms = (None, None)
    if options.fold_norm:
        of_a, of_b = (
            load_final_norm(
                name, subfolder=subfolder, revision=revision, local_files_only=options.local_files_only
            )
            for name, subfolder, revision in (
                (options.model_a, options.subfolder_a, options.revision_a),
                (options.model_b, options.subfolder_b, options.revision_b),
            )
        )
        norms = of_a, of_b
    mapping = Emb2Emb.fit(
        *models,
        method=method,
        normalize=options.normalize,
        norms=norms,
        held_out=options.held_out,
        shuffle=options.shuffle,
        seed=options.seed,
        threads=options.threads,
        progress=progress,
    )
    mapping.save(options.output)
    show(mapping.tables())


def train_vector(options: argparse.Namespace, say: Say, progress: bool) -> None:
    """Train a vector on pairs of texts, and write it."""
    from embgeom.steering import SteeringVector
    from embgeom.steering.files import check_vector_path

    check_vector_path(options.output)
    check_kept({"-o": options.output}, [options.model, options.pairs])
    if options.output.endswith(".gguf") and (options.layers is None or 0 in options.layers):
        raise InputError("a .gguf has no place for block 0: name others by --layers, or take .safetensors")
    pairs = files.pairs(options.pairs)
    with running(options) as (model, tokenizer):
        vector = SteeringVector.train(
            model,
            tokenizer,
            pairs,
            layers=options.layers,
            method=options.method,
            token_position=options.token_position,
            batch_size=options.batch_size,
            add_special_tokens=not options.no_special_tokens,
            skip_long=options.skip_long,
            progress=progress,
        )
    if options.normalize:
        vector = vector.with_norm(1.0)
    vector.save(options.output)
    norms = ", ".join(f"{block}: {norm:.3g}" for block, norm in vector.norms.items())
    used, left_out = vector.provenance["pairs"], vector.provenance["left_out"]
    say(
        f"{vector!r}, from {used} pairs, written to {options.output}\nnorms by block: {norms}"
        + (f"\n{left_out} pairs left out, longer than the model reads" if left_out else "")
    )


def transfer(options: argparse.Namespace, say: Say) -> None:
    """Transfer a vector over a map, and write it."""
    from embgeom.emb2emb import Emb2Emb
    from embgeom.steering import SteeringVector
    from embgeom.steering.files import check_vector_path

    check_vector_path(options.output)
    check_kept({"-o": options.output}, [options.map, options.vector, options.norm_of])
    if options.norm is not None and options.norm_of is not None:
        raise InputError("give --norm or --norm-of, not both")
    mapping, vector = Emb2Emb.load(options.map), SteeringVector.load(options.vector)
    transferred = mapping.transfer(
        vector,
        mode=options.mode,
        layers=options.layers,
        norm=options.norm if options.norm_of is None else SteeringVector.load(options.norm_of),
        threads=options.threads,
    )
    transferred.save(options.output)
    moved = transferred.provenance["layers"]
    places = ", ".join(f"{old} to {new}" for old, new in moved.items())
    left = ", ".join(str(block) for block in vector.layers if str(block) not in moved)
    say(
        f"{transferred!r}, written to {options.output}\n"
        f"transferred by {mapping!r} ({transferred.provenance['mode']}); block {places}"
        + (f"; left out: {left}" if left else "")
    )


def steer(options: argparse.Namespace, show: Show, progress: bool) -> None:
    """Show what a model writes without and with a vector, at each of some scales."""
    from embgeom._common.progress import reporter
    from embgeom._common.tables import Table
    from embgeom.evaluation import GenerationScore
    from embgeom.lm.tokenizing import encode, warn_of_doubled
    from embgeom.steering import SteeringVector

    vector = SteeringVector.load(options.vector)
    writer = GenerationScore(
        len, max_new_tokens=options.max_new_tokens, temperature=options.temperature, chat=options.chat
    )
    scales = {f"steered, scale {scale:g}": scale for scale in options.scale}
    with running(options) as (model, tokenizer), reporter(progress, "steer") as report:
        if not options.chat:
            prompts = [encode(tokenizer, prompt) for prompt in options.prompt]
            warn_of_doubled(tokenizer, prompts, "take it away from the prompts", stacklevel=1)
        # A vector that does not fit the model is told before the first text is written.
        vector.apply(model, layers=options.layers).remove()

        def texts() -> list[str]:
            return writer.texts(
                model, tokenizer, options.prompt, batch_size=options.batch_size, seed=options.seed
            )

        written = {"unsteered": texts()}
        for done, (name, scale) in enumerate(scales.items(), start=1):
            if report:
                report("texts", done, len(scales) + 1)
            with vector.apply(model, scale, layers=options.layers, positions=options.positions) as handle:
                written[name] = texts()
                handle.check()
    for place, prompt in enumerate(options.prompt):
        rows = [(name, texts[place]) for name, texts in written.items()]
        show([Table(prompt, ("", "goes on"), rows)])
