"""The options of the commands that fit maps and steer."""

from __future__ import annotations

from typing import Any, get_args

from embgeom.cli.option_values import (
    Once,
    alternatives,
    block_map,
    blocks,
    factors,
    finite,
    not_negative,
    positive,
    reading_place,
    whole,
)


def add_fit_options(command: Any) -> None:
    """Add what `embgeom fit` takes beside its two models."""
    from embgeom.emb2emb.methods import METHODS

    command.add_argument("-o", "--output", metavar="FILE", required=True, help="the map: a .safetensors file")
    command.add_argument(
        "--method",
        choices=METHODS,
        default="low_rank",
        help="how the map is fitted (default: low_rank)",
    )
    command.add_argument("--no-center", action="store_true", help="fit no intercept")
    command.add_argument("--normalize", action="store_true", help="scale all rows to length 1 first")
    command.add_argument(
        "--fold-norm", action="store_true", help="fold each model's final norm into its unembedding"
    )
    command.add_argument(
        "--ridge",
        type=positive,
        metavar="S",
        help="strength of a ridge or low_rank map, relative to the mean eigenvalue (default: by generalised "
        "cross-validation)",
    )
    command.add_argument(
        "--rank",
        type=whole(1),
        metavar="R",
        help="rank of a low_rank map (default: as many directions as keep 95%% of the fitted variance)",
    )
    command.add_argument(
        "--no-scaled", action="store_true", help="only turn: a procrustes map that does not scale, too"
    )
    command.add_argument("-k", type=whole(1), help="neighbors of an lle map (default: 20)")
    command.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        default=0.1,
        help="share of the tokens to score on (default: 0.1)",
    )
    command.add_argument(
        "--shuffle", action="store_true", help="pair tokens at random: a control that should transfer nothing"
    )
    command.add_argument("--seed", type=whole(0), default=0, help="seed of the tokens held out (default: 0)")


def add_train_options(command: Any) -> None:
    """Add what `embgeom train-vector` takes beside its model."""
    command.add_argument(
        "--pairs",
        metavar="FILE",
        required=True,
        help="contrastive texts: .json, .jsonl, .csv or .tsv with positive and negative, or CAA's keys; or "
        "example:moods, some that come with embgeom",
    )
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the vector: .safetensors, .pt or .gguf"
    )
    _add_blocks(command, "read and steer (default: all)")
    command.add_argument("--method", choices=("mean", "pca"), default="mean", help="default: mean")
    command.add_argument(
        "--token-position",
        type=reading_place,
        metavar="PLACE",
        default="last",
        help="last, mean, answer, or a place from the end such as -2 (default: last)",
    )
    command.add_argument("--normalize", action="store_true", help="scale each direction to norm 1")
    command.add_argument(
        "--no-special-tokens",
        action="store_true",
        help="let the tokenizer add none: for texts that hold them, as chat templates do",
    )
    command.add_argument(
        "--skip-long", action="store_true", help="leave out pairs that are longer than the model reads"
    )
    _add_batch(command)


def add_transfer_options(command: Any) -> None:
    """Add what `embgeom transfer` takes."""
    from embgeom.emb2emb.transfer import TransferMode

    command.add_argument("vector", metavar="VECTOR", help="a steering vector's file")
    command.add_argument("--map", metavar="FILE", action=Once, required=True, help="what `embgeom fit` wrote")
    command.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="the vector: .safetensors, .pt or .gguf"
    )
    command.add_argument(
        "--mode",
        choices=get_args(TransferMode),
        help="default: dual, or primal for an lle map",
    )
    command.add_argument(
        "--layers",
        type=block_map,
        metavar="FROM:TO,...",
        help="which block goes to which block of the target, such as 3:5,4:6; or the target's block alone, "
        "for a vector of one block (default: the same relative depth where the models' depths differ and "
        "are known, otherwise the same blocks)",
    )
    command.add_argument(
        "--norm", type=not_negative, metavar="LENGTH", help="scale each direction to this norm"
    )
    command.add_argument(
        "--norm-of", metavar="FILE", action=Once, help="... or to the norms of this vector of the target"
    )


def add_steer_options(command: Any) -> None:
    """Add what `embgeom steer` takes beside its model."""
    _add_vector(command)
    command.add_argument(
        "--scale",
        type=finite,
        metavar="S",
        nargs="+",
        default=[1.0],
        help="its factor, or several (default: 1)",
    )
    _add_blocks(command, "steer (default: all that the vector has)")
    command.add_argument("--prompt", metavar="TEXT", action="append", required=True, help="may be repeated")
    command.add_argument(
        "--max-new-tokens", type=whole(1), metavar="N", default=40, help="tokens to write (default: 40)"
    )
    command.add_argument(
        "--temperature",
        type=not_negative,
        metavar="T",
        default=0.0,
        help="0 takes the likeliest token each time (default: 0)",
    )
    command.add_argument("--chat", action="store_true", help="put prompts into the model's chat template")
    command.add_argument("--seed", type=whole(0), default=0, help="seed of drawn texts (default: 0)")
    _add_batch(command)


def add_evaluate_options(command: Any) -> None:
    """Add what `embgeom evaluate` takes beside its model."""
    _add_vector(command)
    command.add_argument("--scale", type=finite, metavar="S", default=1.0, help="its factor (default: 1)")
    _add_blocks(command, "steer (default: all that the vector has)")
    _add_measuring(command)


def add_sweep_options(command: Any) -> None:
    """Add what `embgeom sweep` takes beside its model."""
    from embgeom.evaluation.sweep import SCALES

    _add_vector(command)
    command.add_argument(
        "--layers",
        metavar="B,...",
        type=alternatives,
        help="blocks to try, counted from 0: 1,2,3 one after the other, 2+3 both together (default: each "
        "that the vector has); a vector of one block may be tried at others",
    )
    command.add_argument(
        "--scales",
        metavar="S,...",
        type=factors,
        default=SCALES,
        help=f"factors to try at each (default: {','.join(f'{scale:g}' for scale in SCALES)}); where the "
        "first is negative write --scales=-1,1",
    )
    command.add_argument(
        "--max-kl",
        type=not_negative,
        metavar="NATS",
        help="choose only where the price is this at most: KL(unsteered || steered) for each token of the "
        "--neutral texts",
    )
    _add_measuring(command)


def _add_measuring(command: Any) -> None:
    """Add what is scored, beside what, and where the results go."""
    what = command.add_argument_group("what is scored: words after prompts, or answers to items")
    what.add_argument(
        "--prompts",
        metavar="FILE",
        help="beginnings of texts, one in each line; or example:moods, some that come with embgeom",
    )
    what.add_argument(
        "--positive",
        metavar="WORD",
        nargs="+",
        help="words that should become likelier, such as ' happy' (example:moods has some of its own)",
    )
    what.add_argument("--negative", metavar="WORD", nargs="+", help="words that should become less likely")
    what.add_argument("--questions", metavar="FILE", help="questions with two answers, in CAA's JSON format")
    controls = command.add_argument_group("controls")
    controls.add_argument(
        "--native", metavar="FILE", action=Once, help="the model's own vector, whose norm is taken"
    )
    controls.add_argument(
        "--shuffled",
        metavar="FILE",
        nargs="+",
        default=[],
        help="vectors transferred by maps of shuffled tokens",
    )
    controls.add_argument(
        "--random", type=whole(0), metavar="N", default=20, help="random vectors of equal norm (default: 20)"
    )
    controls.add_argument(
        "--neutral",
        metavar="FILE",
        help="texts to take the price on, one in each line; or example:moods",
    )
    command.add_argument("--chat", action="store_true", help="put prompts into the model's chat template")
    command.add_argument("--seed", type=whole(0), default=0, help="seed of what is drawn (default: 0)")
    command.add_argument("-o", "--output", metavar="FILE", help="write everything as .json")
    command.add_argument("--figure", metavar="FILE", help="draw the effects as .svg, .png or .pdf")
    _add_batch(command)


def _add_vector(command: Any) -> None:
    command.add_argument(
        "--vector", metavar="FILE", required=True, action=Once, help="a steering vector's file"
    )
    command.add_argument(
        "--positions", choices=("all", "generated"), default="all", help="where it acts (default: all)"
    )


def _add_blocks(command: Any, use: str) -> None:
    command.add_argument("--layers", metavar="B,...", type=blocks, help=f"blocks to {use}, counted from 0")


def _add_batch(command: Any) -> None:
    command.add_argument(
        "--batch-size", type=whole(1), metavar="N", default=8, help="texts in one forward pass (default: 8)"
    )
