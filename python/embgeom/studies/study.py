"""`embgeom.study`: measure what the token embeddings of many models share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import need, warn
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import array_digest, digest, model_versions, versions
from embgeom._common.threads import one_blas_thread, resolve_threads
from embgeom.comparison.coherence import Coherence
from embgeom.comparison.compare import statistics, token_groups
from embgeom.comparison.nulls import holm
from embgeom.comparison.saving import ModelRecord, loaded
from embgeom.comparison.tokens import classify, kept_rows, listed_rows, tokens_that_count
from embgeom.comparison.wordnet import WordNet
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.vocabulary import MIN_SHARED, match, require_shared
from embgeom.errors import InputError, LoadError
from embgeom.hidden_states import StateComparison
from embgeom.runs.cache import Parts
from embgeom.studies.folder import PARTS, shared_before, study_folder, write_study
from embgeom.studies.lineage import lineage
from embgeom.studies.measures import (
    PairMeasures,
    check_packages,
    files_digest,
    ks_of,
    map_scores,
    model_coherence,
    model_geometry,
    options_of,
    pair_measures,
    runnable,
    shared_geometry,
    state_comparison,
    unembedding,
)
from embgeom.studies.options import StudyOptions
from embgeom.studies.results import MapScores, ModelSummary, PairResult, SharedTokens, Study

Model = Embeddings | str | PathLike[str]
# What is measured of a pair: measures, maps both ways, hidden states.
Measured = tuple[PairMeasures, tuple[MapScores, ...], StateComparison | None]
LINEAGE_MEASURE = "neighbor_overlap"


@one_blas_thread()
def study(
    models: Sequence[Model],
    *,
    folder: str | PathLike[str],
    threads: int | None = None,
    progress: Progress = False,
    **options: Any,
) -> Study:
    """Measure what the token embeddings of many models share, in a folder that keeps everything computed.

    Every model is measured by itself, on all of its rows that count, and every pair of models on the tokens
    that all models share. However the process ends, the same call goes on where it stopped; a call with one
    more model computes only what is new.

    Parameters
    ----------
    models : sequence of Embeddings, or of what `load` takes
        At least two models.
    folder : path
        Where the study keeps its parts and writes its tables. It is made if it is not there; a folder with
        anything but a study in it is refused.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.
    **options
        The fields of `embgeom.studies.StudyOptions`, such as ``quick=True`` or ``pairwise=True``.

    Returns
    -------
    Study

    Raises
    ------
    InputError
        If there are fewer than two models, they share too few tokens, a parameter does not fit them, or a
        package of ``embgeom[study]`` is not installed.
    LoadError
        If a model cannot be loaded.
    OutputError
        If the folder is in use by another process, holds something else, or cannot be written.

    Notes
    -----
    One search for neighbors and one intrinsic dimension of each row for each model, and again on the shared
    tokens; what remains of a pair takes seconds. Parts on shared tokens are computed again when another model
    changes which tokens are shared. Parts are found by the SHA-256 of the matrices, all parameters and the
    build of the package.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import tempfile
    >>> import embgeom
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     study = embgeom.study(["example:small", "example:large"], folder=folder, quick=True)
    >>> study
    Study(2 models, 1 pairs, 3757 shared tokens)
    >>> study.pair(0, 1)["neighbor_overlap"].value > 0.2
    True
    """
    try:
        chosen = StudyOptions(**options)
    except TypeError as error:
        raise InputError(f"{error}".replace("StudyOptions.__init__()", "a study")) from None
    if isinstance(models, str | PathLike | Embeddings) or len(models) < 2:
        raise InputError(
            "a study compares at least two models: name another one, or inspect one model by itself "
            "(embgeom inspect MODEL, embgeom.inspect(model))"
        )
    for module in ("scipy", "pyarrow", "matplotlib"):
        need(module, "a study", extra="study")
    if chosen.states:
        check_packages()
    team = resolve_threads(threads)
    taken = [loaded(model, chosen.which, team, progress) for model in models]
    inputs = [path for model in taken for path in model.provenance.inputs]
    with study_folder(folder, inputs) as path, reporter(progress, "study") as report:
        work = _Work(taken, chosen, Parts(path / PARTS), team, report)
        try:
            result = work.result()
        except KeyboardInterrupt as interrupt:
            done = len(work.parts.served) + len(work.parts.computed)
            interrupt.args = (f"{done} parts are in {path / PARTS}; run the same call to resume",)
            raise
        before = shared_before(path)
        written = write_study(result, path)
        if progress is True:
            for line in _told(work, before, result, written):
                print(f"embgeom: {line}", file=sys.stderr, flush=True)
    return result


class _Work:
    """The models of a study, and how far it is."""

    def __init__(
        self,
        models: Sequence[Embeddings],
        options: StudyOptions,
        parts: Parts,
        threads: int,
        report: ProgressCallable | None,
    ) -> None:
        self.models, self.options, self.parts, self.threads = models, options, parts, threads
        self.classes = [classify(model, threads=threads) for model in models]
        self.sha256 = [array_digest(model.matrix) for model in models]
        self._files: dict[str, str] = {}
        self.wordnet = None if options.wordnet is None else WordNet.load(options.wordnet)
        if self.wordnet is not None:
            held = [sorted(self.wordnet.senses.items()), self.wordnet.files, self.wordnet.parts]
            self._wordnet_digest = digest([self.wordnet.name, *held, list(map(sorted, self.wordnet.related))])
        self.names = _distinct([model.name for model in models])
        self._listed = self._listed_rows()
        # The output side of each model whose hidden states are compared, or why it has none.
        self._unembeddings: dict[int, Embeddings | LoadError] = {}
        self.notes: list[str] = []
        self._report = report
        count = len(models)
        pairs = count * (count - 1) // 2
        shared = 2 * pairs if options.pairwise else count
        self._steps = (
            count * (1 if self.wordnet is None else 2)
            + shared
            + pairs * ((1 if options.quick else 3) + options.states)
        )
        self._step = 0

    def result(self) -> Study:
        """Measure everything that is not there yet."""
        summaries = tuple(map(self._summary, range(len(self.models))))
        everyone = tuple(range(len(self.models)))
        sets = list(combinations(everyone, 2)) if self.options.pairwise else [everyone]
        rows = [self._shared_rows(models) for models in sets]
        shared: list[SharedTokens] = []
        found: dict[tuple[int, int], tuple[int, Measured]] = {}
        for number, (models, numbers) in enumerate(zip(sets, rows, strict=True)):
            tokens, of_pairs = self._of_set(models, numbers)
            shared.append(tokens)
            found |= {pair: (number, measured) for pair, measured in of_pairs.items()}
            # The next matrices are made after these are gone.
            self.parts.know(())
        pairs = self._pairs(found, shared)
        if not self.options.quick or self.options.states:
            self._note_few_tokens(shared)
        tree = None
        if len(self.models) > 2:
            values = {(pair.a, pair.b): getattr(pair, LINEAGE_MEASURE) for pair in pairs}
            widths = {(pair.a, pair.b): pair[LINEAGE_MEASURE].estimate.half_width for pair in pairs}
            same, seed = not self.options.pairwise, self.options.seed
            tree = lineage(LINEAGE_MEASURE, self.names, values, widths, same_tokens=same, seed=seed)
        packages = versions(("scipy", "matplotlib", "pyarrow"))
        return Study(summaries, tuple(shared), pairs, tree, self.options, packages, tuple(self.notes))

    def _of_set(
        self, models: Sequence[int], rows: Sequence[RowNumbers]
    ) -> tuple[SharedTokens, dict[tuple[int, int], Measured]]:
        """Return the tokens that some models share, and what was measured of each pair of them."""
        matrices = self._matrices(models, rows)
        tokens, found = self._shared(models, rows, matrices), {}
        for a, b in combinations(models, 2):
            both = matrices[models.index(a)], matrices[models.index(b)]
            measures, maps = self._measures(a, b, *both, tokens), self._maps(a, b, *both)
            found[a, b] = measures, maps, self._states(a, b, tokens)
        return tokens, found

    def _summary(self, index: int) -> ModelSummary:
        model, name, classes = self.models[index], self.names[index], self.classes[index]
        kept = np.flatnonzero(self._counting([index], [np.arange(len(model))])).astype(np.int64)
        if len(kept) < MIN_SHARED:
            raise InputError(f"{len(kept)} rows of {name} count, and at least {MIN_SHARED} are needed")
        x = model.matrix[kept]
        self.parts.know([(name, x, self._digest(index, kept))])
        options = options_of(self.options, len(x))
        geometry = self._call(name, model_geometry, x, options, ks_of(self.options, len(x)), parts=self.parts)
        record = replace(ModelRecord.from_embeddings(model), name=name)
        notes = (*classes.found_by(), *classes.notes)
        return ModelSummary(
            record,
            self.sha256[index],
            classes.counts(),
            notes,
            kept,
            geometry,
            self._coherence(index),
        )

    def _coherence(self, index: int) -> Coherence | None:
        if self.wordnet is None:
            return None
        model, classes, name = self.models[index], self.classes[index], self.names[index]
        known = model, classes, self.wordnet
        options = options_of(self.options, len(model))
        # Classes depend on the tokenizer, too: words that count, and what they spell.
        words = kept_rows(classes, only="words")
        identity = digest([model.tokens, classes.texts, array_digest(words), self._wordnet_digest])
        self.parts.know([(name, model.matrix, self.sha256[index])])
        what, given = f"{name}, coherence", {"known": known, "parts": self.parts}
        try:
            found: Coherence = self._call(what, model_coherence, model.matrix, identity, options, **given)
        except InputError as error:
            self._note(f"{name}: {error}")
            return None
        return replace(found, model=name)

    def _listed_rows(self) -> list[npt.NDArray[np.bool_]]:
        """Return which rows of each model a list names, as any of the models spells it; [] without a list."""
        only = self.options.only
        if only is None or only == "words":
            return []
        rows = [np.arange(len(model)) for model in self.models]
        listed = listed_rows(self.classes, rows, only, " or ".join(self.names))
        pairs = list(combinations(range(len(self.models)), 2))
        matches = [(listed[a], listed[b], *match(self.models[a], self.models[b])) for a, b in pairs]
        before = -1
        # Until tokens that match count in both models, or in neither.
        while before != (before := sum(int(mask.sum()) for mask in listed)):
            for a, b, ids_a, ids_b in matches:
                a[ids_a] = b[ids_b] = a[ids_a] | b[ids_b]
        return listed

    def _counting(self, models: Sequence[int], rows: Sequence[RowNumbers]) -> npt.NDArray[np.bool_]:
        """Return which tokens count, of which `rows` has the rows in each of some models."""
        classes, without = [self.classes[model] for model in models], self.options.without
        only = None if self._listed else self.options.only
        counts = tokens_that_count(classes, rows, without=without, only=only)
        return counts & self._listed[models[0]][rows[0]] if self._listed else counts

    def _note(self, note: str) -> None:
        """Warn of something once, and have the report say it."""
        if note not in self.notes:
            self.notes.append(note)
            warn(note)

    def _note_few_tokens(self, shared: Sequence[SharedTokens]) -> None:
        """Say where maps are fitted on so few tokens that they understate what models share."""
        for tokens in shared:
            columns = {self.names[model]: self.models[model].matrix.shape[1] for model in tokens.models}
            wide = [f"{name} ({size})" for name, size in columns.items() if len(tokens) < 2 * size]
            if wide:
                better = "; --pairwise (pairwise=True) fits each pair on all tokens that the two share"
                self._note(
                    f"maps between {', '.join(columns)} are fitted on {len(tokens)} tokens, fewer than twice "
                    f"the columns of {', '.join(wide)}: they understate what these models share"
                    + better
                    * (len(tokens.models) > 2)
                )

    def _shared_rows(self, models: Sequence[int]) -> list[RowNumbers]:
        """Return the rows of the tokens that all of these models share and keep, in each of them."""
        first, *others = models
        rows = np.full((len(models), len(self.models[first])), -1, dtype=np.int64)
        rows[0] = np.arange(rows.shape[1])
        for position, other in enumerate(others, 1):
            found = match(self.models[first], self.models[other])
            require_shared(found)
            rows[position, found.ids_a] = found.ids_b
        rows = rows[:, (rows >= 0).all(axis=0)]
        rows = rows[:, self._counting(models, list(rows))].copy()
        if rows.shape[1] < MIN_SHARED:
            names = ", ".join(self.names[model] for model in models)
            raise InputError(
                f"{names} share {rows.shape[1]} tokens that count, and {MIN_SHARED} are needed; leave "
                "a model out, or compare each pair on the tokens of these two (pairwise=True, --pairwise)"
            )
        return list(rows)

    def _matrices(self, models: Sequence[int], rows: Sequence[RowNumbers]) -> list[Float32Matrix]:
        matrices = [self.models[model].matrix[ids] for model, ids in zip(models, rows, strict=True)]
        self.parts.know(
            (self.names[model], x, self._digest(model, ids))
            for model, ids, x in zip(models, rows, matrices, strict=True)
        )
        return matrices

    def _digest(self, model: int, rows: RowNumbers) -> str:
        """Return what stands for the matrix of some rows of a model: rows are read faster than it."""
        return digest([self.sha256[model], array_digest(rows)])

    def _shared(
        self, models: Sequence[int], rows: Sequence[RowNumbers], matrices: Sequence[Float32Matrix]
    ) -> SharedTokens:
        n, classes, ids = len(rows[0]), self.classes[models[0]], rows[0]
        options, ks = options_of(self.options, n), ks_of(self.options, n)
        found = [
            self._call(
                f"{self.names[model]}, {n} shared tokens", shared_geometry, x, options, ks, parts=self.parts
            )
            for model, x in zip(models, matrices, strict=True)
        ]
        return SharedTokens(
            tuple(models),
            np.stack(rows),
            np.stack([each.neighbors for each in found]),
            np.stack([each.n_components for each in found]),
            classes.strata(ids),
            classes.position[ids],
            classes.case[ids],
            classes.script[ids],
        )

    def _measures(
        self, a: int, b: int, x_a: Float32Matrix, x_b: Float32Matrix, tokens: SharedTokens
    ) -> PairMeasures:
        options, ks = options_of(self.options, len(tokens)), ks_of(self.options, len(tokens))
        what = f"{self.names[a]} and {self.names[b]}"
        found: PairMeasures = self._call(
            what, pair_measures, x_a, x_b, tokens.strata, options, ks, parts=self.parts
        )
        return found

    def _maps(self, a: int, b: int, x_a: Float32Matrix, x_b: Float32Matrix) -> tuple[MapScores, ...]:
        if self.options.quick:
            return ()
        ways = ((a, b, x_a, x_b), (b, a, x_b, x_a))
        return tuple(
            self._call(
                f"map from {self.names[one]} to {self.names[other]}", map_scores, x, y, self.options.seed
            )
            for one, other, x, y in ways
        )

    def _states(self, a: int, b: int, tokens: SharedTokens) -> StateComparison | None:
        """Return a comparison of hidden states, if it was asked for and both models can be run."""
        if not self.options.states:
            return None
        folders = [runnable(self.models[model]) for model in (a, b)]
        sources = [folder for folder in folders if folder is not None]
        if len(sources) < 2:
            self._step += 1
            for model, folder in zip((a, b), folders, strict=True):
                if folder is None:
                    self._note(
                        f"hidden states of {self.names[model]} are not compared: it is not a folder with "
                        "config.json and weights (.safetensors or .bin), from which a model can be run"
                    )
            return None
        rows = [tokens.rows[tokens.index_of(model)] for model in (a, b)]
        identity = tuple(self._file_digest(folder) for folder in sources)
        identity += (self.sha256[a], self.sha256[b])
        identity += tuple(f"{name} {number}" for name, number in model_versions().items())
        sides = [partial(self._unembedding, *each) for each in zip((a, b), sources, strict=True)]
        arguments = *rows, *sources, identity, self.options.seed
        what = f"hidden states of {self.names[a]} and {self.names[b]}"
        try:
            found: StateComparison = self._call(what, state_comparison, *arguments, known=sides)
        except (InputError, LoadError) as error:
            broken = [model for model in (a, b) if isinstance(self._unembeddings.get(model), LoadError)]
            names = " and ".join(self.names[model] for model in broken or (a, b))
            self._note(f"hidden states of {names} are not compared: {error}")
            return None
        return found

    def _unembedding(self, model: int, folder: str) -> Embeddings:
        """Return the output side of a model, which is loaded once."""
        if model not in self._unembeddings:
            try:
                self._unembeddings[model] = unembedding(self.models[model], folder, self.threads)
            except LoadError as error:
                self._unembeddings[model] = error
        if isinstance(found := self._unembeddings[model], LoadError):
            raise found
        return found

    def _file_digest(self, folder: str) -> str:
        if folder not in self._files:
            self._files[folder] = files_digest(folder)
        return self._files[folder]

    def _pairs(
        self,
        found: dict[tuple[int, int], tuple[int, Measured]],
        shared: Sequence[SharedTokens],
    ) -> tuple[PairResult, ...]:
        """Return all pairs, with p-values adjusted for all of their measures."""
        p = [estimate.p for _, (measured, *_) in found.values() for estimate in measured.estimates.values()]
        adjusted = iter(holm(p).tolist())
        pairs = []
        for (a, b), (number, (measured, maps, states)) in found.items():
            options = options_of(self.options, len(shared[number]))
            found_here = statistics(measured.estimates, options)
            adjusted_here = tuple(replace(each, p_adjusted=next(adjusted)) for each in found_here)
            of_tokens = measured.neighbor_overlap, measured.weight_cosine
            ids = shared[number].rows[shared[number].index_of(a)]
            groups = tuple(token_groups(self.classes[a], ids, *of_tokens, measured.estimates))
            pairs.append(
                PairResult(a, b, number, adjusted_here, groups, measured.curves, *of_tokens, maps, states)
            )
        return tuple(pairs)

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any, **known: Any) -> Any:
        """Return a part, which reports under a name with the number of the step."""
        self._step += 1
        report, before = self._report, f"{self._step} of {self._steps}, {what}"

        def progress(phase: str, done: int, total: int) -> None:
            if report is not None:
                report(f"{before}: {phase}" if phase else before, done, total)

        takes: dict[str, Any] = {"threads": self.threads, "progress": progress if report else False}
        return self.parts(function, *arguments, **takes, **known)


def _told(work: _Work, before: list[int], result: Study, written: bool) -> Iterator[str]:
    """Give what happened in a call, which no file says."""
    now = [len(tokens) for tokens in result.shared]
    if len(before) == len(now) == 1 and before != now:
        yield (
            f"the models share {now[0]} tokens ({before[0]} in the previous study), so measures on shared "
            "tokens were recomputed; only= (--only) with a list of tokens keeps the set the same"
        )
    computed, served = len(work.parts.computed), len(work.parts.served)
    yield f"{computed} parts computed; {served} reads from the folder"
    yield "all files written" if written else "files unchanged"


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are equal, by numbering those that are."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
