"""The last part of the demonstration: a steering vector transferred from one bundled model to the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from embgeom import examples
from embgeom._common.checks import need
from embgeom._common.tables import Table
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError
from embgeom.examples import moods

if TYPE_CHECKING:
    from embgeom.evaluation import Outcome

# Where the vector is read in the small model and added in the large one: half of the way up either.
SOURCE_LAYER, TARGET_LAYER = 1, 2
SCALE = 8.0
PROMPTS, RANDOM = 20, 5


def transferred_vector(small: Embeddings, large: Embeddings, threads: int | None) -> Iterator[RenderableType]:
    """Yield what a happy-minus-sad vector of the small model does in the large one, beside its controls.

    Parameters
    ----------
    small, large : Embeddings
        The two bundled models' unembeddings.
    threads : int, optional
        Threads for the map.

    Yields
    ------
    rich renderables
        A question, a table and how to read it; or, without torch and transformers, what to install.
    """
    yield Text("5. Does a direction that steers one model steer the other?", style="bold")
    try:
        for package in ("torch", "transformers"):
            need(package, "This part runs the models, so it")
    except InputError as error:
        yield Padding(Text(str(error)), (0, 0, 1, 1))
        return
    yield Padding(
        Text(
            "The difference between 60 happy and 60 sad texts inside the small model, transferred by a "
            "linear map that was fitted on the two unembeddings' shared tokens, and added to what the "
            "large model computes. Measured: log-probability of happy words less that of sad ones, after "
            "new prompts."
        ),
        (0, 0, 0, 1),
    )
    yield _table(small, large, threads)
    yield Padding(
        Text(
            "Above 0 means happier. Transferred should be far from random and from a map that was fitted on "
            "shuffled tokens, and negating it should reverse the effect. KL measures side effects."
        ),
        (0, 0, 1, 1),
    )


def _table(small: Embeddings, large: Embeddings, threads: int | None) -> RenderableType:
    from embgeom.emb2emb import Emb2Emb
    from embgeom.evaluation import WordLogRatio, evaluate
    from embgeom.steering import SteeringVector, load_language_model

    folders = examples.pair()
    source, target = (load_language_model(folder) for folder in folders)
    vector = SteeringVector.train(*source, moods.pairs(), layers=SOURCE_LAYER, batch_size=30)
    native = SteeringVector.train(*target, moods.pairs(), layers=TARGET_LAYER, batch_size=30)
    transferred, shuffled = (
        Emb2Emb.fit(small, large, held_out=0, shuffle=shuffle, threads=threads).transfer(
            vector, layers=TARGET_LAYER
        )
        for shuffle in (False, True)
    )
    found = evaluate(
        *target,
        transferred,
        WordLogRatio(moods.HAPPY, moods.SAD),
        moods.prompts()[:: 60 // PROMPTS],
        scale=SCALE,
        native=native,
        random=RANDOM,
        shuffled=shuffled,
        neutral=moods.neutral_texts()[:5],
        batch_size=30,
    )
    checks = found.checks()
    rows = [
        (name, f"{found[key].effect.mean:+.1f}", f"{_side_effects(found[key]):.1f}")
        for name, key in (
            ("transferred from the small model", "transferred"),
            ("transferred, negated", "transferred_negated"),
            ("native to the large model", "native"),
            ("transferred by a map of shuffled tokens", "shuffled_0"),
        )
    ]
    rows.append((f"{RANDOM} random ones, mean", f"{checks.random_mean:+.1f}", ""))
    return Table(None, ("vector, all of one length", "effect, nats", "KL"), rows)


def _side_effects(outcome: Outcome) -> float:
    return float("nan") if outcome.side_effects is None else outcome.side_effects.kl
