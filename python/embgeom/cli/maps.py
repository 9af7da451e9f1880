"""The commands on maps between models: fit, transfer."""

from __future__ import annotations

import argparse
from typing import Any, get_args

import embgeom
from embgeom._common.writing import check_kept
from embgeom.cli.models import load_model, model_inputs, model_options
from embgeom.cli.options import (
    LOCAL_FILES,
    Once,
    add_command,
    chosen,
    finite,
    not_negative,
    tokens_options,
    whole,
)
from embgeom.cli.terminal import norms_by_layer, say, show
from embgeom.comparison.tokens import shared_rows
from embgeom.emb2emb.map import check_path
from embgeom.emb2emb.methods import METHODS, as_method
from embgeom.emb2emb.transfer import TransferMode
from embgeom.errors import InputError
from embgeom.steering.files import check_vector_path


def add_commands(commands: Any) -> None:
    _add_fit(commands)
    _add_transfer(commands)


def _add_fit(commands: Any) -> None:
    pair = model_options("-a", "output"), model_options("-b", "output")
    add = add_command(commands, fit, *pair, tokens_options(), LOCAL_FILES).add_argument
    add("-o", "--output", metavar="FILE", required=True, help="the map: a .safetensors file")
    add("--method", choices=METHODS, default="low_rank", help="how to fit (default: low_rank)")
    add("--no-center", dest="center", action="store_const", const=False, help="fit no intercept")
    add("--normalize", action="store_true", help="first scale all rows to length 1")
    add("--fold-norm", action="store_true", help="fold each model's final norm into its unembedding")
    add(
        "--strength",
        type=_positive,
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
    """Fit a map from one model to another on the tokens that they share."""
    check_path(options.output)
    check_kept({"-o": options.output}, model_inputs(options))
    method = as_method(options.method, **chosen(options, "strength", "rank", "k", "scaled", "center"))
    source, target = load_model(options, "_a"), load_model(options, "_b")
    mapping = embgeom.Emb2Emb.fit(
        source,
        target,
        method=method,
        tokens=shared_rows(source, target, **chosen(options, "without", "only", "threads")),
        norms=(_norm(options, "_a"), _norm(options, "_b")),
        **chosen(options, "normalize", "held_out", "shuffle", "seed", "threads", "progress"),
    )
    mapping.save(options.output)
    show(mapping.tables())


def _norm(options: argparse.Namespace, suffix: str) -> embgeom.FinalNorm | None:
    if not options.fold_norm:
        return None
    return embgeom.load_final_norm(
        getattr(options, f"model{suffix}"),
        subfolder=getattr(options, f"subfolder{suffix}"),
        revision=getattr(options, f"revision{suffix}"),
        local_files_only=options.local_files_only,
    )


def _add_transfer(commands: Any) -> None:
    add = add_command(commands, transfer).add_argument
    add("vector", metavar="VECTOR", help="a steering vector's file")
    add("--map", metavar="FILE", action=Once, required=True, help="a map that `embgeom fit` wrote")
    add("-o", "--output", metavar="FILE", required=True, help="the vector: .safetensors, .pt or .gguf")
    add("--mode", choices=get_args(TransferMode), help="default: dual, or primal for an lle map")
    add(
        "--layers",
        type=_layer_map,
        metavar="FROM:TO,...",
        help="layers of the vector and of the target, such as 3:5,4:6; or only the target's, for a vector of "
        "one layer (default: the same relative depth where it is known, otherwise the same layers)",
    )
    add("--norm", type=not_negative, metavar="LENGTH", help="scale each direction to this norm")
    add("--norm-of", metavar="FILE", action=Once, help="... or to the norms of this vector of the target")


def transfer(options: argparse.Namespace) -> None:
    """Transfer a steering vector to another model by a map."""
    check_vector_path(options.output)
    check_kept({"-o": options.output}, [options.map, options.vector, options.norm_of])
    if options.norm is not None and options.norm_of is not None:
        raise InputError("give --norm or --norm-of, not both")
    load = embgeom.SteeringVector.load
    mapping, vector = embgeom.Emb2Emb.load(options.map), load(options.vector)
    norm = options.norm if options.norm_of is None else load(options.norm_of)
    transferred = mapping.transfer(vector, norm=norm, **chosen(options, "mode", "layers", "threads"))
    transferred.save(options.output)
    moved = transferred.provenance["layers"]
    left_out = ", ".join(str(layer) for layer in vector.layers if str(layer) not in moved)
    say(
        f"{transferred!r}, written to {options.output}\n"
        f"transferred by {mapping!r} ({transferred.provenance['mode']}); "
        f"layer {', '.join(f'{old} to {new}' for old, new in moved.items())}"
        + (f"; left out: {left_out}" if left_out else "")
        + f"\n{norms_by_layer(transferred)}"
    )


def _positive(text: str) -> float:
    if (number := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def _layer_map(text: str) -> int | dict[int, int]:
    """Read ``3:5,4:6``, or only ``5``."""
    try:
        if ":" not in text:
            return int(text)
        pairs = [(int(old), int(new)) for old, new in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither FROM:TO,..., such as 3:5,4:6, nor one layer"
        ) from None
    if len(found := dict(pairs)) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} names a layer of the vector twice")
    return found
