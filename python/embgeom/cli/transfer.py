"""The commands that transfer a steering vector and say what is known of it: transfer, certificate."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import embgeom
from embgeom._common.writing import check_file_writable, check_kept
from embgeom.cli.cache import CACHE
from embgeom.cli.models import (
    LOADED,
    check_vector_output,
    final_norm,
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
    not_negative,
    positive,
    tokens_options,
    whole,
)
from embgeom.cli.terminal import norms_by_layer, say, show
from embgeom.comparison.tokens import WITHOUT, shared_rows
from embgeom.emb2emb.forecast import QUESTION
from embgeom.emb2emb.lengths import Norm
from embgeom.emb2emb.methods import DEFAULT_METHOD, METHODS, as_method
from embgeom.emb2emb.transfer import TransferMode, check_mode, target_layers
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError, OutputError
from embgeom.evaluation.certificate import Certificate
from embgeom.evaluation.scaling import AT_KL
from embgeom.evaluation.transfer import TransferOptions, asks_target, check_norms
from embgeom.examples import moods
from embgeom.steering import SteeringVector
from embgeom.steering.files import check_vector_path

CONTROLS = 10
# What is read only where the target is run, with its defaults.
_OF_RUNS: dict[str, Any] = {
    "texts": None,
    "batch_size": TransferOptions.batch_size,
    "trust_remote_code": False,
    **dict.fromkeys(("dtype", "device", "device_map", "quantize")),
}
# What is read only where both models are named.
_OF_MODELS = {
    "only": None,
    "kept": None,
    "without": WITHOUT,
    "seed": 0,
    "local_files_only": False,
    **_OF_RUNS,
    **{f"which_{side}": "output" for side in ("from", "to")},
    **{f"{name}_{side}": None for side in ("from", "to") for name in LOADED},
}


def add_commands(commands: Any) -> None:
    _add_transfer(commands)
    add = add_command(commands, certificate).add_argument
    add("file", metavar="FILE", help="a vector that embgeom transfer wrote, or a certificate's .json")
    explained = "add what was measured: the .json that embgeom evaluate -o wrote for this vector"
    add("--evaluation", metavar="FILE", action=Once, help=explained)
    add("--html", metavar="PAGE", help="also write it as a page")
    explained = "write the certificate as .json, or the vector with it as .safetensors, .pt, .npz or .gguf"
    add("-o", "--output", metavar="FILE", help=explained)


def _add_transfer(commands: Any) -> None:
    pair = [model_options(f"-{side}", "output", flag=f"--{side}") for side in ("from", "to")]
    add = add_command(
        commands, transfer, *pair, tokens_options(), running_options(), LOCAL_FILES, CACHE
    ).add_argument
    add("vector", metavar="VECTOR", help="a steering vector's file")
    add("-o", "--output", metavar="FILE", required=True, help="the vector: .safetensors, .pt, .npz or .gguf")
    explained = "a map that `embgeom fit` wrote, instead of fitting one"
    add("--map", metavar="FILE", action=Once, help=explained)
    add("--method", choices=METHODS, help=f"how to fit the map (default: {DEFAULT_METHOD})")
    add("--mode", choices=get_args(TransferMode), help="default: as the method does best")
    add(
        "--layers",
        type=layer_map,
        metavar="FROM:TO,...",
        help="layers of the vector and of the target, such as 3:5,4:6; or only the target's, for a vector of "
        "one layer (default: the same relative depth where it is known, otherwise the same layers)",
    )
    add(
        "--norm",
        metavar="states|raw|LENGTH|FILE",
        action=Once,
        help="lengths instead of --at-kl: a share of the spread of the target's states, as the map makes "
        "them, a number, or those of a vector of the target; all but states run no model, nor does states "
        "with a map of states",
    )
    explained = (
        "run the target and make the vector so long that at scale 1 its KL on neutral text is this "
        f"(default: {AT_KL})"
    )
    add("--at-kl", type=positive, metavar="NATS", help=explained)
    explained = "neutral texts, one per line, on which the target is run (default: example:moods)"
    add("--texts", metavar="FILE", action=Once, help=explained)
    explained = (
        f"pair tokens at random, N times ({CONTROLS} by default): controls, which -o v.pt writes to v-0.pt, "
        "v-1.pt, ..., and whose certificates should say that nothing is kept"
    )
    add("--shuffle", nargs="?", const=CONTROLS, type=whole(1), metavar="N", help=explained)
    add("--seed", type=whole(0), default=0, help="seed of everything random (default: 0)")


def transfer(options: argparse.Namespace) -> None:
    """Transfer a steering vector to another model, by a map that is fitted for it or given."""
    files = _files(options)
    norm = _norm(options.norm)
    inputs = [options.map, options.vector, options.texts, *model_inputs(options)]
    named = [options.norm] if isinstance(norm, SteeringVector) else []
    for file in files:
        check_vector_path(file)
        check_kept({"-o": file}, [*inputs, *named])
    if options.shuffle is not None:
        _check_older(Path(options.output), files)
    _check(options)
    vector = SteeringVector.load(options.vector)
    mapping = None if options.map is None else embgeom.Emb2Emb.load(options.map)
    if options.mode is not None:
        check_mode(
            options.mode, as_method(options.method or DEFAULT_METHOD) if mapping is None else mapping.method
        )
    _check_run(options, vector, mapping, norm)
    _check_layers(options, vector, mapping, norm)
    certificates: list[Certificate] = []
    if options.model_from is not None:
        transferred = _between(options, vector, mapping, norm)
        certificates = [Certificate.from_vector(each) for each in transferred]
    elif mapping is not None:
        given = not (norm is None or isinstance(norm, str))
        how = chosen(options, "mode", "layers", "threads")
        moved = mapping.transfer(vector, norm="raw" if given else norm, **how)
        transferred = [moved.with_norm(norm) if given else moved]
    for number, (file, moved) in enumerate(zip(files, transferred, strict=True)):
        try:
            moved.save(file)
        except OutputError as error:
            before = f"; before it {', '.join(files[:number])} {'was' if number == 1 else 'were'} written"
            raise OutputError(f"{error}{before if number else ''}") from error
    more = "" if options.shuffle is None else f" and {len(files) - 1} more"
    _tell(f"{files[0]}{more}", vector, transferred[0])
    if not certificates:
        say("no certificate: it needs both models, --from and --to")
    elif options.shuffle is None:
        show([*certificates[0].tables()[:2], f"embgeom certificate {files[0]} says more"])
    else:
        verdicts = [each.verdict for each in certificates]
        counts = ", ".join(f"{verdict} for {verdicts.count(verdict)}" for verdict in dict.fromkeys(verdicts))
        say(f"from weights alone: {QUESTION}: {counts} of {len(verdicts)} controls")


def certificate(options: argparse.Namespace) -> None:
    """Show what is known of a transferred vector, and what is not."""
    output = options.output
    inputs = [options.file, options.evaluation]
    check_kept({"-o": output, "--html": options.html}, inputs)
    is_json = output is not None and Path(output).suffix == ".json"
    if output is not None:
        (check_file_writable if is_json else check_vector_path)(output)
    if options.html is not None:
        check_file_writable(options.html)
    vector = None
    if Path(options.file).suffix == ".json":
        found = Certificate.load(options.file)
    else:
        vector = SteeringVector.load(options.file)
        found = Certificate.from_vector(vector)
    if options.evaluation is not None:
        found = found.with_evaluation(embgeom.Evaluation.load(options.evaluation))
    if is_json:
        found.save(output)
    elif output is not None:
        if vector is None:
            raise InputError(f"{options.file} holds no vector to write to {output}; name a .json")
        found.attached(vector).save(output)
    if options.html is not None:
        found.to_html(options.html)
    show(found.tables())


def _files(options: argparse.Namespace) -> list[str]:
    """Return the vector's file, or those of the controls, which are numbered."""
    if options.shuffle is None:
        return [options.output]
    path = Path(options.output)
    return [str(path.with_name(f"{path.stem}-{number}{path.suffix}")) for number in range(options.shuffle)]


def _check_older(path: Path, files: list[str]) -> None:
    """Refuse to write controls beside those of an earlier command, which would be taken for some of them."""
    numbered = re.compile(re.escape(path.stem) + "-[0-9]+" + re.escape(path.suffix))
    written = {Path(file).name for file in files}
    beside = [each.name for each in path.parent.iterdir() if numbered.fullmatch(each.name)]
    if older := sorted({*beside} - written, key=lambda name: (len(name), name)):
        raise InputError(
            f"{', '.join(older)} beside {files[0]} would be taken for controls of this command: remove "
            f"{'them' if len(older) > 1 else 'it'}, or name another -o"
        )


def _check(options: argparse.Namespace) -> None:
    both = [name for name in ("from", "to") if getattr(options, f"model_{name}") is None]
    if len(both) == 1 or (both and options.map is None):
        raise InputError("name both models, by --from and --to, or a map, by --map")
    if options.map is not None:
        for name in ("method", "shuffle"):
            if getattr(options, name):
                raise InputError(f"--{name} is for fitting a map, and --map names one that is fitted")
    if options.at_kl is not None and options.model_to is None:
        raise InputError("--at-kl runs the target: name it by --to")
    if options.model_to is None and (option := _given(options, _OF_MODELS)):
        raise InputError(f"{option} is of no use without --from and --to: name both models, or leave it out")
    if options.at_kl is not None and options.norm is not None:
        raise InputError("--at-kl sets the length, and --norm another; give one")


def _given(options: argparse.Namespace, defaults: dict[str, Any]) -> str | None:
    """Return the first option of these that has another value than its default."""
    given = (name for name, default in defaults.items() if getattr(options, name) != default)
    return next((f"--{'with' if name == 'kept' else name.replace('_', '-')}" for name in given), None)


def _check_run(
    options: argparse.Namespace, vector: SteeringVector, mapping: embgeom.Emb2Emb | None, norm: object
) -> None:
    """Refuse what is for running the target where it is not run."""
    runs = options.model_to is None or options.at_kl is not None or asks_target(vector, mapping, norm)
    if not runs and (option := _given(options, _OF_RUNS)):
        way = "an ablation needs no length" if options.norm is None else f"with --norm {options.norm}"
        raise InputError(f"{option} is of no use where no model is run ({way}): leave it out")


def _check_layers(
    options: argparse.Namespace, vector: SteeringVector, mapping: embgeom.Emb2Emb | None, norm: object
) -> None:
    """Refuse layers that do not fit, or not the file, by what files say of the models without weights."""
    sides = []
    for suffix in ("_from", "_to"):
        known, name = sizes(options, suffix), getattr(options, f"model{suffix}")
        sides.append(ModelInfo(name, hidden_size=known.columns, num_layers=known.num_layers))
    if mapping is not None and options.model_from is None:
        sides = [mapping.source, mapping.target]
    of_map = None if mapping is None else mapping.layers
    moved = target_layers(vector, options.layers, sides[0], sides[1], of_map)
    if all(side.num_layers for side in sides):
        check_norms(norm, moved, sides[1].hidden_size)
    others = ",".join(f"{old}:{new}" for old, new in moved.items() if new) or f"{vector.layers[-1]}:1"
    check_vector_output(options.output, moved.values(), vector.operation, f", such as {others}")


def _between(
    options: argparse.Namespace, vector: SteeringVector, mapping: embgeom.Emb2Emb | None, norm: Any
) -> list[SteeringVector]:
    """Transfer the vector between two models that are named, for each control by another map."""
    texts = None if options.texts is None else text_lines(options.texts, moods.neutral_texts)
    models = load_model(options, "_from"), load_model(options, "_to")
    folded = (False, False) if mapping is None else mapping.provenance.get("folded") or (False, False)
    norms = [
        final_norm(options, side) if given else None
        for side, given in zip(("_from", "_to"), folded, strict=True)
    ]
    how = TransferOptions(
        tokens=shared_rows(*models, **chosen(options, "without", "only", "threads")),
        norms=(norms[0], norms[1]),
        texts=texts,
        **chosen(options, "seed", "batch_size", "threads"),
    )
    seeds = range(options.seed, options.seed + (options.shuffle or 0))
    with ExitStack() as stack:
        runs = asks_target(vector, mapping, norm)
        model = stack.enter_context(running(one_side(options, "_to"))) if runs else None
        return [
            embgeom.transfer(
                vector,
                *models,
                mapping=mapping or options.method or DEFAULT_METHOD,
                norm=norm,
                model=model,
                options=each,
                **chosen(options, "mode", "layers", "at_kl", "progress"),
            )
            for each in [replace(how, shuffle=True, seed=seed) for seed in seeds] or [how]
        ]


def _norm(text: str | None) -> Any:
    """Return what --norm asks for: a word, a length, or the vector in a file."""
    if text in (None, *get_args(Norm)):
        return text
    try:
        return not_negative(str(text))
    except argparse.ArgumentTypeError:
        if Path(str(text)).suffix:
            return SteeringVector.load(str(text))
        raise InputError(
            f"--norm {text} is neither states, raw, a length from 0 on, nor the file of a vector"
        ) from None


def _tell(written: str, vector: SteeringVector, transferred: SteeringVector) -> None:
    made = transferred.provenance
    moved, scaled = made["layers"], made.get("scaled_to_kl")
    left_out = ", ".join(str(layer) for layer in vector.layers if str(layer) not in moved)
    say(
        f"{transferred!r}, written to {written}\n"
        f"transferred by {made['transferred_by']} ({made['mode']}); "
        f"layer {', '.join(f'{old} to {new}' for old, new in moved.items())}"
        + (f"; left out: {left_out}" if left_out else "")
        + f"\n{norms_by_layer(transferred)}"
        + (f"; KL {scaled['kl']:.2g} on neutral text at scale 1" if scaled else "")
    )
