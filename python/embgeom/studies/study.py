"""`embgeom.study`: measure what the token embeddings of many models share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import combinations
from os import PathLike
from typing import Any

import numpy as np

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import need
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import array_digest, versions
from embgeom._common.threads import resolve_threads
from embgeom.comparison.saving import ModelRecord
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.vocabulary import MIN_SHARED, match, require_shared
from embgeom.errors import InputError
from embgeom.loading import load
from embgeom.runs.cache import Parts
from embgeom.studies.folder import PARTS, study_folder, write_study
from embgeom.studies.lineage import lineage
from embgeom.studies.measures import (
    Local,
    map_scores,
    model_geometry,
    pair_measures,
    shared_geometry,
)
from embgeom.studies.results import MapScores, ModelSummary, PairResult, SharedTokens, Study, StudyOptions

Model = Embeddings | str | PathLike[str]
LINEAGE_MEASURE = "neighbor_overlap"


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
    Study(2 models, 1 pairs, 4095 shared tokens)
    >>> study.pair(0, 1)["neighbor_overlap"].value > 0.2
    True
    """
    try:
        chosen = StudyOptions(**options)
    except TypeError as error:
        raise InputError(f"{error}".replace("StudyOptions.__init__()", "a study")) from None
    if isinstance(models, str | PathLike | Embeddings) or len(models) < 2:
        raise InputError(f"models = {models!r:.80} are not two models or more; give a list of them")
    for module in ("scipy", "pyarrow", "matplotlib"):
        need(module, "a study", extra="study")
    team = resolve_threads(threads)
    loaded = [
        model
        if isinstance(model, Embeddings)
        else load(model, chosen.which, threads=team, progress=progress is True)
        for model in models
    ]
    inputs = [path for model in loaded for path in model.provenance.inputs]
    with study_folder(folder, inputs) as path, reporter(progress, "study") as report:
        work = _Work(loaded, chosen, Parts(path / PARTS), team, report)
        try:
            result = work.result()
        except KeyboardInterrupt as interrupt:
            done = len(work.parts.served) + len(work.parts.computed)
            interrupt.args = (f"{done} parts are in {path / PARTS}, and the same call goes on from there",)
            raise
        write_study(result, path)
        if progress is True:
            computed, read = len(work.parts.computed), len(work.parts.served)
            told = f"{computed} parts computed, {read} read from {path / PARTS}"
            print(f"embgeom: {told}", file=sys.stderr, flush=True)
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
        self.names = _distinct([model.name for model in models])
        self._report = report
        count = len(models)
        pairs = count * (count - 1) // 2
        shared = 2 * pairs if options.pairwise else count
        self._steps = count + shared + pairs * (1 if options.quick else 3)
        self._step = 0

    def result(self) -> Study:
        """Measure everything that is not there yet."""
        summaries = tuple(self._summary(index) for index in range(len(self.models)))
        groups = list(combinations(range(len(self.models)), 2))
        sets = groups if self.options.pairwise else [tuple(range(len(self.models)))]
        rows = [self._shared_rows(models, summaries) for models in sets]
        shared, pairs = [], []
        for number, (models, numbers) in enumerate(zip(sets, rows, strict=True)):
            matrices = self._matrices(models, numbers)
            shared.append(self._shared(models, numbers, matrices))
            for a, b in combinations(models, 2):
                pairs.append(self._pair(a, b, number, matrices[models.index(a)], matrices[models.index(b)]))
        tree = None
        if len(self.models) > 2:
            values = {(pair.a, pair.b): getattr(pair, LINEAGE_MEASURE) for pair in pairs}
            tree = lineage(LINEAGE_MEASURE, self.names, values, seed=self.options.seed)
        packages = versions(("scipy", "matplotlib", "pyarrow"))
        return Study(summaries, tuple(shared), tuple(pairs), tree, self.options, packages)

    def _summary(self, index: int) -> ModelSummary:
        model, name = self.models[index], self.names[index]
        kept = np.flatnonzero(~model.special & model.has_token & ~model.zero).astype(np.int64)
        x = model.matrix[kept]
        self.parts.know(name, x)
        geometry = self._call(name, model_geometry, x, Local.of(self.options, len(x)))
        record = ModelRecord.from_embeddings(model)
        record = ModelRecord(**{**vars(record), "name": name})
        return ModelSummary(record, array_digest(model.matrix), dict(model.anomalies), kept, geometry)

    def _shared_rows(self, models: Sequence[int], summaries: Sequence[ModelSummary]) -> list[RowNumbers]:
        """Return the rows of the tokens that all of these models share and keep, in each of them."""
        first = models[0]
        common, partner = summaries[first].rows, {}
        for other in models[1:]:
            found = match(self.models[first], self.models[other])
            require_shared(found)
            is_kept = np.isin(found.ids_b, summaries[other].rows)
            partner[other] = dict(
                zip(found.ids_a[is_kept].tolist(), found.ids_b[is_kept].tolist(), strict=True)
            )
            common = np.array([row for row in common.tolist() if row in partner[other]], dtype=np.int64)
        if len(common) < MIN_SHARED:
            names = ", ".join(self.names[model] for model in models)
            raise InputError(
                f"{names} share {len(common)} tokens, and at least {MIN_SHARED} are needed; leave a "
                "model out, or compare each pair on its own tokens (pairwise=True, --pairwise)"
            )
        others = [np.array([partner[o][row] for row in common.tolist()], dtype=np.int64) for o in models[1:]]
        return [common, *others]

    def _matrices(self, models: Sequence[int], rows: Sequence[RowNumbers]) -> list[Float32Matrix]:
        matrices = [self.models[model].matrix[ids] for model, ids in zip(models, rows, strict=True)]
        for model, x in zip(models, matrices, strict=True):
            self.parts.know(self.names[model], x)
        return matrices

    def _shared(
        self, models: Sequence[int], rows: Sequence[RowNumbers], matrices: Sequence[Float32Matrix]
    ) -> SharedTokens:
        local = Local.of(self.options, len(rows[0]))
        found = [
            self._call(f"{self.names[model]}, shared tokens", shared_geometry, x, local)
            for model, x in zip(models, matrices, strict=True)
        ]
        return SharedTokens(
            tuple(models),
            np.stack(rows),
            np.stack([each.neighbors for each in found]),
            np.stack([each.n_components for each in found]),
        )

    def _pair(self, a: int, b: int, tokens: int, x_a: Float32Matrix, x_b: Float32Matrix) -> PairResult:
        options, names = self.options, (self.names[a], self.names[b])
        found = self._call(" and ".join(names), pair_measures, x_a, x_b, Local.of(options, len(x_a)))
        maps: list[MapScores] = []
        if not options.quick:
            for one, other, what in ((x_a, x_b, names), (x_b, x_a, names[::-1])):
                maps.append(
                    self._call("map from {} to {}".format(*what), map_scores, one, other, options.seed)
                )
        return PairResult(a, b, tokens, **vars(found), maps=tuple(maps), states=None)

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return a part, which reports under a name with the number of the step."""
        self._step += 1
        report, before = self._report, f"{self._step} of {self._steps}, {what}"

        def progress(phase: str, done: int, total: int) -> None:
            if report is not None:
                report(f"{before}: {phase}" if phase else before, done, total)

        takes: dict[str, Any] = {"threads": self.threads, "progress": progress if report else False}
        if "parts" in function.__annotations__:
            takes["parts"] = self.parts
        return self.parts(function, *arguments, **takes)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Return names of which no two are equal, by numbering those that are."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
