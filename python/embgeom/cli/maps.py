"""The command that fits a map between models: fit."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from typing import Any

import embgeom
from embgeom._common.writing import check_kept
from embgeom.cli.cache import CACHE
from embgeom.cli.models import (
    check_layers,
    final_norm,
    is_moods,
    load_model,
    model_inputs,
    model_options,
    one_side,
    running,
    running_options,
    sizes,
    text_lines,
)
from embgeom.cli.options import (
    LOCAL_FILES,
    Once,
    add_command,
    chosen,
    layer_map,
    positive,
    tokens_options,
    whole,
)
from embgeom.cli.terminal import show
from embgeom.comparison.tokens import WITHOUT, shared_rows
from embgeom.emb2emb.methods import DEFAULT_METHOD, METHODS, Method, as_method
from embgeom.emb2emb.transfer import check_path
from embgeom.errors import InputError
from embgeom.examples import moods

# What only a fit on matrices knows.
_OF_MATRICES = ("fold_norm", "normalize", "only", "tensor_a", "tensor_b", "adapter_a", "adapter_b",
                "vocabulary_a", "vocabulary_b", "token_format_a", "token_format_b")  # fmt: skip


def add_commands(commands: Any) -> None:
    pair = model_options("-a", "output"), model_options("-b", "output")
    shared = tokens_options(), running_options(), LOCAL_FILES, CACHE
    add = add_command(commands, fit, *pair, *shared).add_argument
    add("-o", "--output", metavar="FILE", required=True, help="the map: a .safetensors file")
    add(
        "--states",
        metavar="FILE",
        action=Once,
        help="fit on the models' hidden states on these texts, one a line, instead of their matrices: some "
        "hundred different ones of a few sentences",
    )
    explained = (
        "with --states: the layer of A, counted from 0, and that of B, or only A's for the same relative "
    )
    explained += "depth in B (default: two thirds of A's depth)"
    add("--layers", type=_layer_pair, metavar="A[:B]", help=explained)
    explained = f"how to fit (default: {DEFAULT_METHOD})"
    add("--method", choices=METHODS, default=DEFAULT_METHOD, help=explained)
    add("--no-center", dest="center", action="store_const", const=False, help="fit no intercept")
    add("--normalize", action="store_true", help="first scale all rows to length 1")
    add("--fold-norm", action="store_true", help="fold each model's final norm into its unembedding")
    add(
        "--strength",
        type=positive,
        metavar="S",
        help="of ridge, relative to the mean eigenvalue (default: by generalized cross-validation)",
    )
    add("--rank", type=whole(1), metavar="R", help="default: as many as keep 95%% of the fitted variance")
    add(
        "--no-scaled",
        dest="scaled",
        action="store_const",
        const=False,
        help="a procrustes map that only rotates",
    )
    add("-k", type=whole(1), help="neighbors of an lle map (default: 20)")
    add("--held-out", type=float, metavar="SHARE", default=0.1, help="tokens to score on (default: 0.1)")
    add(
        "--shuffle", action="store_true", help="pair tokens at random: a control that should transfer nothing"
    )
    add("--seed", type=whole(0), default=0, help="seed of the held-out tokens (default: 0)")


def fit(options: argparse.Namespace) -> None:
    """Fit a map from one model to another on the tokens that they share, or on hidden states."""
    check_path(options.output)
    check_kept({"-o": options.output}, [*model_inputs(options), options.states])
    method = as_method(options.method, **chosen(options, "strength", "rank", "k", "scaled", "center"))
    mapping = _of_matrices(options, method) if options.states is None else _of_states(options, method)
    mapping.save(options.output)
    show(mapping.tables())


def _of_matrices(options: argparse.Namespace, method: Method) -> embgeom.Emb2Emb:
    if options.layers is not None:
        raise InputError("--layers are those of hidden states: give texts by --states, or leave it out")
    source, target = load_model(options, "_a"), load_model(options, "_b")
    return embgeom.Emb2Emb.fit(
        source,
        target,
        method=method,
        tokens=shared_rows(source, target, **chosen(options, "without", "only", "threads")),
        norms=(final_norm(options, "_a"), final_norm(options, "_b")) if options.fold_norm else (None, None),
        **chosen(options, "normalize", "held_out", "shuffle", "seed", "threads", "progress"),
    )


def _of_states(options: argparse.Namespace, method: Method) -> embgeom.Emb2Emb:
    refused = [name for name in _OF_MATRICES if getattr(options, name)]
    refused += [name for name in ("which_a", "which_b") if getattr(options, name) != "output"]
    refused += ["without"] if tuple(options.without) != WITHOUT else []
    if refused:
        raise InputError(f"--{refused[0].replace('_', '-')} is about matrices; with --states leave it out")
    if is_moods(options.states):
        raise InputError(
            f"{options.states} holds 30 texts of one template, too few and too alike for a map: name a file "
            "of some hundred different ones, one a line"
        )
    texts = text_lines(options.states, moods.neutral_texts)
    asked = options.layers if isinstance(options.layers, tuple) else (options.layers,)
    for side, layer in zip(("_a", "_b"), asked, strict=False):
        check_layers(sizes(options, side), getattr(options, f"model{side}"), [] if layer is None else [layer])
    with ExitStack() as stack:
        models = [stack.enter_context(running(one_side(options, side))) for side in ("_a", "_b")]
        return embgeom.Emb2Emb.fit_states(
            *models[0],
            *models[1],
            texts,
            options.layers,
            method=method,
            **chosen(options, "held_out", "shuffle", "batch_size", "seed", "progress"),
        )


def _layer_pair(text: str) -> tuple[int, int] | int:
    """Read ``12:15``, or only ``12``."""
    found = layer_map(text)
    if isinstance(found, int):
        return found
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B, a layer of each model, such as 12:15")
    [pair] = found.items()
    return pair
