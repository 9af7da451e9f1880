"""The certificate of a transferred vector: how it was made, what weights say, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.html import Section, Terms, facts, how_to_cite, page
from embgeom._common.record import array_digest, rebuilt, versions
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table
from embgeom._common.writing import write_file
from embgeom.comparison.saving import shown
from embgeom.emb2emb.forecast import (
    LEAST_RANDOM_Z,
    QUESTION,
    RULE,
    Forecast,
    LogitLens,
    Verdict,
    forecast_table,
)
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.pairs import Norms
from embgeom.emb2emb.score import COLUMNS, Scores
from embgeom.emb2emb.token_logits import TokenLogits
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import InputError, LoadError
from embgeom.evaluation.conditions import origins
from embgeom.evaluation.evaluation import Evaluation
from embgeom.evaluation.run import check_same_model
from embgeom.steering.directions import directions_digest, fingerprint, same_direction
from embgeom.steering.vector import SteeringVector

SHOWN = 10
LIMITS = (
    "Weights alone prove no steering. The agreement compares what both vectors do to the logits when the "
    "unembedding alone reads them; a steering vector acts through the layers above it, too. A vector that "
    "is not kept may still steer, and one that is kept may not, as one that does nothing to its own model: "
    "only an evaluation on the target shows it. Nor does the certificate say that the source's vector steers "
    "its own model, that its length is the best one, or that it does nothing else."
)
# The figures are those of "ridge primal" and "states ridge primal" in benchmarks/results/steering.jsonl.
_OF_STATES = (
    "This is a map of hidden states, and the agreement is about unembeddings. In the benchmark such maps had "
    "a lower one than maps of weights (0.32 against 0.52 on average) and kept 0.89 of the native effect "
    "against 0.71; where the agreement read no, in 17 of 105 cells, still 0.84. So a no says little here: "
    "evaluate the vector"
)
_STEERS = (
    "A vector steers if its effect exceeds two standard errors, and the mean of random vectors and that of "
    "vectors by maps of shuffled tokens, if there are any, by two of their standard deviations. One that is "
    "not added may be to lower the score: its effect counts in either direction. A vector does not steer "
    "if it works against what it is for, moves the score the other way than the native vector, or does not "
    "exceed these controls. Otherwise that is not decided: "
    "with fewer than three random vectors, or one or two by maps of shuffled tokens, too few samples, where "
    "the KL was not reached, or where the native vector does not exceed random ones either."
)
_TOKENS = {
    True: "on which the map was not fitted",
    False: "on all of which the map was fitted",
    None: "on some of which the map may have been fitted",
}
_MEANING: dict[Verdict, str] = {
    "yes": "yes, better than those of random vectors",
    "partly": "partly: better than a map of shuffled tokens, but as it keeps those of any vector",
    "no": "no, not better than tokens paired at random",
    "unclear": "unclear",
}


@dataclass(frozen=True)
class PromotedTokens:
    """The shared tokens whose logits a direction raises and lowers most, as `Forecast` reads them.

    Attributes
    ----------
    layer : int
        The target's layer.
    strongest, weakest : list of str
        By the transferred vector, the strongest first, and the weakest first.
    source_strongest, source_weakest : list of str
        By the source's vector.
    """

    layer: int
    strongest: list[str]
    weakest: list[str]
    source_strongest: list[str]
    source_weakest: list[str]


@dataclass(frozen=True, eq=False, repr=False)
class Certificate(Result):
    """What is known of a transferred vector; made by `certify` and kept in the vector's provenance.

    Attributes
    ----------
    source, target : dict
        The two models: name, revision, which matrix, its file and tensor, and the SHA-256 of the matrix.
    vector : dict
        The model of the source's vector, the operation, and the SHA-256 and a fingerprint of the transferred
        directions: a certificate is of these up to a positive factor, and of nothing else.
    mapping : dict
        Method, mode and options of the map, and which tokens it was fitted on.
    scores, shuffled : Scores or None
        Of the map on held-out tokens, and of one that was fitted on shuffled pairs.
    forecasts : tuple of Forecast
        What the weights alone say, layer by layer.
    promoted : tuple of PromotedTokens
        The tokens that are expected to become more and less likely, layer by layer.
    norms : dict of int to float
        The length of each transferred direction.
    length : dict
        How that length was chosen.
    evaluation : Evaluation or None
        What was measured, if anything was: effects and side effects, with controls.
    versions : dict
        Of the packages that it depends on.
    """

    source: dict[str, Any]
    target: dict[str, Any]
    vector: dict[str, Any]
    mapping: dict[str, Any]
    scores: Scores | None
    shuffled: Scores | None
    forecasts: tuple[Forecast, ...]
    promoted: tuple[PromotedTokens, ...]
    norms: dict[int, float]
    length: dict[str, Any]
    evaluation: Evaluation | None
    versions: dict[str, str]

    def __repr__(self) -> str:
        measured = f", measured: {self.measured}" if self.measured else ""
        return (
            f"Certificate({self.source['name']!r} -> {self.target['name']!r}, {self.mapping['method']}, "
            f"{self.mapping['mode']}: {self.verdict}{measured})"
        )

    @property
    def verdict(self) -> Verdict:
        """Whether the map keeps what the vector does to logits: of all layers; "partly" where they differ."""
        verdicts = {each.verdict for each in self.forecasts}
        if len(verdicts) > 1 and verdicts <= {"no", "unclear"}:
            return "unclear"
        return verdicts.pop() if len(verdicts) == 1 else "partly"

    @property
    def measured(self) -> Literal["steers", "does not steer", "not decided"] | None:
        """What the evaluation says: whether the effect is significant and beats its controls."""
        if self.evaluation is None:
            return None
        checks, outcome = self.evaluation.checks(), self.evaluation.transferred
        against = checks.works_against and checks.samples > 1
        if against or (checks.beats_random and checks.beats_shuffled is False):
            return "does not steer"
        if checks.beats_random is False:
            # Where the native vector fails, too, no transfer could be shown.
            return "not decided" if checks.native_beats_random is False else "does not steer"
        wanted = checks.moves if checks.two_sided else "lowers" if outcome.scale < 0 else "raises"
        significant = checks.moves is not None and checks.moves == wanted
        beaten = checks.beats_random and (checks.beats_shuffled or not self.evaluation.of_kind("shuffled"))
        return "steers" if beaten and significant else "not decided"

    def with_evaluation(self, evaluation: Evaluation) -> Certificate:
        """Return the certificate with what was measured of the vector.

        Raises
        ------
        InputError
            If the evaluation is of another direction, such as the negated one, or other layers; or was made
            on another model, by the SHA-256 of its files, its commit or its name, as far as both are known.
        """
        if not isinstance(evaluation, Evaluation):
            raise InputError(
                f"evaluation = {evaluation!r:.60} is not an Evaluation: embgeom.evaluate makes one"
            )
        about = evaluation.provenance.get("vector", {})
        same = same_direction(about.get("fingerprint"), self.vector.get("fingerprint"))
        if not same or about.get("operation") != self.vector.get("operation"):
            raise InputError("the evaluation is of another vector than the certificate")
        check_same_model(evaluation.provenance.get("model", {}), self.target)
        # Vectors' provenances hold certificates, and none must hold itself or those of controls.
        made = {"map": {"options": {"shuffle": True}}} if self.mapping["shuffle"] else {}
        kept = {"transferred_from": {"model": self.vector["model"]}, **made}
        shortened = {
            **evaluation.provenance,
            "vector": {**about, "provenance": kept},
            "shuffled": [{**each, "provenance": {}} for each in evaluation.provenance.get("shuffled", ())],
        }
        return replace(self, evaluation=replace(evaluation, provenance=shortened))

    def attached(self, vector: SteeringVector) -> SteeringVector:
        """Return the transferred vector with this certificate in its provenance."""
        return replace(vector, provenance={**vector.provenance, "certificate": self.to_dict()})

    @classmethod
    def from_vector(cls, vector: SteeringVector) -> Certificate:
        """Return the certificate that a vector keeps in its provenance, with the vector's norms.

        Raises
        ------
        InputError
            If it has none, or only one of another direction: it was negated, cut or changed since.
        LoadError
            If it has one that cannot be read.
        """
        kept = (each.get("certificate") for each in origins(vector.provenance, sums=False))
        if not (held := next((each for each in kept if isinstance(each, dict)), None)):
            raise InputError(
                f"{vector!r} has no certificate: embgeom.transfer attaches one",
                command=f"{vector!r} has no certificate: embgeom transfer writes one where it is given both "
                "models, by --from and --to",
            )
        try:
            certificate: Certificate = rebuilt(cls, held, {})
        except (TypeError, ValueError, LookupError) as error:
            raise LoadError(f"the certificate in {vector!r} is damaged: {error}") from error
        if not same_direction(fingerprint(vector.directions), certificate.vector.get("fingerprint")):
            raise InputError(
                f"the certificate in {vector!r} is of another direction, which was negated, cut or changed "
                "since: make it again, by embgeom.evaluation.certify"
            )
        if np.allclose([*certificate.norms.values()], [*vector.norms.values()], rtol=1e-3):
            return certificate
        return replace(certificate, norms=vector.norms, length={"norm": "scaled"})

    def tables(self) -> list[Block]:
        """Return the verdict, the forecasts, the expected tokens, the map's scores and the measurements."""
        return [self._headline(), *self._forecasts(), *self._map_tables(), *self._measured(), LIMITS]

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write it as one page that needs no other file and no network.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        names = f"{self.source['name']} to {self.target['name']}"
        about = ("source", "target", "vector", "mapping", "length", "versions")
        sections = [
            Section("Verdict", [Terms(list(self._terms()))]),
            Section("Before steering: what the weights say", self._forecasts()),
            Section("How it was made", self._map_tables()),
            Section("Measured on the target", self._measured() or ["Nothing was measured on the target."]),
            Section("What this does not say", [LIMITS]),
            Section("Parameters and provenance", [facts(n, getattr(self, n)) for n in about], closed=True),
            how_to_cite(self.versions),
        ]
        footer = f"Made with embgeom {self.versions.get('embgeom', '')}."
        text = page(f"Transfer of a steering vector: {names}", sections, lead=self._headline(), footer=footer)
        write_file(path, lambda partial: Path(partial).write_text(text, encoding="utf-8"))

    def _derived(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "measured": self.measured}

    def _headline(self) -> str:
        control = "a control, by a map of shuffled tokens; " if self.mapping["shuffle"] else ""
        return f"from weights alone: {control}{self._verdict_text()}; {self._measured_text()}"

    def _verdict_text(self) -> str:
        said = _MEANING[self.verdict]
        if self.verdict == "unclear":
            held = " held-out" if self.forecasts[0].held_out and not self._of_states else ""
            said += f", {self.forecasts[0].tokens}{held} tokens cannot tell"
        elif self.verdict == "yes" and not all(each.random_z > LEAST_RANDOM_Z for each in self.forecasts):
            # By the other half of the rule: nothing stands out of a map that keeps all.
            said = "yes, nearly unchanged, as those of any vector"
        elif len({each.verdict for each in self.forecasts}) > 1:
            said = "partly: layers differ"
        if self._of_states and self.verdict == "no":
            said += " (which says little of a map of hidden states)"
        return f"{QUESTION}: {said}"

    @property
    def _of_states(self) -> bool:
        return self.mapping.get("made_by") == "fit_states"

    def _measured_text(self) -> str:
        if self.evaluation is None:
            return "nothing was measured"
        checks = self.evaluation.checks()
        said = f"the vector {self.measured}"
        if self.measured == "not decided":
            said = "it is not decided whether the vector steers"
            if checks.beats_random is False:
                said += ", since the native one does not beat random vectors either"
        elif self.measured == "steers" and self.mapping["shuffle"]:
            said = (
                "a control steers, so this does not tell directions apart: take more prompts or other words"
            )
        elif checks.works_against:
            opposite = "moves the score the other way than the native vector"
            said += f": it {opposite if checks.two_sided else 'works against what it is for'}"
        elif checks.two_sided and checks.moves:
            said += f": it {checks.moves} the score"
        return f"measured: {said}"

    def _terms(self) -> Iterator[tuple[str, str]]:
        yield "From weights alone", self._verdict_text()
        yield "The rule", RULE
        if self._of_states:
            yield "A map of states", f"{_OF_STATES}."
        if self.mapping["shuffle"]:
            yield "A control", "The map was fitted on tokens paired at random; nothing should be transferred."
        if self.measured:
            yield "On the target", f"{self._measured_text()}. {_STEERS}"

    def _forecasts(self) -> list[Block]:
        tokens = _TOKENS[self.forecasts[0].held_out]
        if self._of_states:
            tokens = "of whose rows the map, one of hidden states, was fitted on none"
        rows = []
        for each in self.promoted:
            for end, ours, theirs in (
                ("strongest", each.strongest, each.source_strongest),
                ("weakest", each.weakest, each.source_weakest),
            ):
                rows.append((str(each.layer), end, "  ".join(ours), "  ".join(theirs)))
        return [
            forecast_table(self.forecasts),
            f"Spearman correlation of the logits of both vectors over shared tokens, {tokens}",
            RULE,
            *([_OF_STATES] if self._of_states else ()),
            Table(
                "tokens that the unembedding alone would make more and less likely",
                ("layer", "", "by the transferred vector", "by the source's vector"),
                rows,
            ),
        ]

    def _map_tables(self) -> list[Block]:
        parts: list[Block] = []
        scored = (("held-out tokens", self.scores), ("fitted on shuffled pairs", self.shuffled))
        if rows := [(name, *scores.cells()) for name, scores in scored if scores is not None]:
            parts.append(Table(f"the map: {self.mapping['method']}", ("", *COLUMNS), rows))
        lengths = ", ".join(f"{layer}: {norm:.3g}" for layer, norm in self.norms.items())
        parts.append(
            f"mode {self.mapping['mode']}; lengths by layer: {lengths} ({_length_from(self.length)})"
        )
        return parts

    def _measured(self) -> list[Block]:
        return [] if self.evaluation is None else self.evaluation.tables()


def certify(
    vector: SteeringVector,
    transferred: SteeringVector,
    source: Embeddings,
    target: Embeddings,
    mapping: Emb2Emb,
    *,
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    norms: Norms = (None, None),
    seed: int = 0,
    threads: int | None = None,
) -> Certificate:
    """Make the certificate of a transferred vector, from weights alone.

    Parameters
    ----------
    vector, transferred : SteeringVector
        The source's vector, and what ``mapping.transfer`` made of it.
    source, target : Embeddings
        The unembeddings of both models.
    mapping : Emb2Emb
        The map.
    tokens, norms : optional
        As for `Emb2Emb.fit`; the same as there.
    seed : int
        Draws the tokens that are compared, and relabelings.
    threads : int, optional
        Threads to use; every core available to the process by default.

    Returns
    -------
    Certificate
        ``certificate.attached(transferred)`` keeps it with the vector, in every format of files.

    Raises
    ------
    InputError
        If sizes do not fit, or there are too few shared tokens.

    Notes
    -----
    As `embgeom.emb2emb.predict_transfer`; besides, both matrices are hashed, at some 2 GB/s.
    `embgeom.transfer` fits, transfers and certifies in one step.

    Examples
    --------
    >>> import embgeom
    >>> from embgeom.evaluation import certify
    >>> small, large = (embgeom.load(folder, "output") for folder in embgeom.examples.pair())
    >>> mapping = embgeom.Emb2Emb.fit(small, large)
    >>> joy = embgeom.SteeringVector.from_words(small, [" happy"], [" sad"], layers=3)
    >>> transferred = mapping.transfer(joy, norm="raw")
    >>> certificate = certify(joy, transferred, small, large, mapping)
    >>> certificate
    Certificate('small' -> 'large', ridge, logits: partly)
    >>> len(certificate.promoted[0].strongest)
    10
    """
    lens = LogitLens.prepare(source, target, mapping, tokens=tokens, norms=norms, seed=seed, threads=threads)
    forecasts, logits = lens.predict_vector(vector, transferred, mapping)
    options, about = mapping.provenance.get("options", {}), transferred.provenance
    return Certificate(
        source=_model(source),
        target=_model(target),
        vector={
            "model": vector.model,
            "operation": transferred.operation,
            "directions_sha256": directions_digest(transferred.directions),
            "fingerprint": fingerprint(transferred.directions),
        },
        mapping={
            "method": mapping.method.name,
            "mode": about.get("mode"),
            "shuffle": bool(options.get("shuffle")),
            **{
                key: mapping.provenance[key]
                for key in ("options", "tokens", "rows_sha256", "folded", "fit", "made_by")
                if key in mapping.provenance
            },
        },
        scores=mapping.scores,
        shuffled=mapping.shuffled,
        forecasts=forecasts,
        promoted=_promoted(lens, forecasts, logits, (source, target)),
        norms=transferred.norms,
        length={
            key: about[key]
            for key in ("norm", "share", "state_spread", "scaled_to_kl", "scaled_to_norms")
            if key in about
        },
        evaluation=None,
        versions=versions(),
    )


def _model(model: Embeddings) -> dict[str, Any]:
    known = model.provenance.to_dict()
    kept = {
        key: known[key] for key in ("source", "revision", "file", "tensor", "dtype", "sha256", "tokenizer")
    }
    shape = list(model.matrix.shape)
    return {
        "name": model.name,
        "which": model.which,
        "shape": shape,
        "matrix_sha256": array_digest(model.matrix),
        **kept,
    }


def _promoted(
    lens: LogitLens,
    forecasts: tuple[Forecast, ...],
    logits: tuple[TokenLogits, TokenLogits],
    models: tuple[Embeddings, Embeddings],
) -> tuple[PromotedTokens, ...]:
    sides = list(zip((lens.pairs.source, lens.pairs.target), logits, models, strict=True))
    found = []
    for index, forecast in enumerate(forecasts):
        ends = []
        for rows, each, model in sides[::-1]:
            order = np.argsort(each.logits[:, index], kind="stable")
            for positions in (order[::-1][:SHOWN], order[:SHOWN]):
                ends.append([shown(model, row) for row in rows.rows[positions]])
        found.append(PromotedTokens(forecast.target_layer or 0, *ends))
    return tuple(found)


def _length_from(length: dict[str, Any]) -> str:
    norm, scaled = length.get("norm"), length.get("scaled_to_kl")
    if norm == "scaled":
        return "scaled since it was made"
    if "scaled_to_norms" in length:
        return "as asked for"
    if isinstance(scaled, dict):
        return f"at which scale 1 had a KL of {scaled['kl']:.2g} on neutral text"
    if norm == "states":
        share = length.get("share")
        return "by the spread of the target's states" + (f", {share:g} times" if share else "")
    return "as the map made them"
