"""WordNet: which senses a word has, and how these are related; read from tables or from the package wn."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector, IndexMatrix
from embgeom._common.checks import need
from embgeom.errors import LoadError, first_line

PARTS_OF_SPEECH = "nvar"
"""Nouns, verbs, adjectives (satellites included) and adverbs."""
# WordNet's rules of detachment, by part of speech: an ending, and what replaces it.
_ENDINGS = {
    "n": (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
          ("men", "man"), ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
          ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}  # fmt: skip
_TABLES = {"senses": ("lemma", "pos", "synset"), "synsets": ("synset", "lexfile", "pos", "relations")}


@dataclass(frozen=True, eq=False, repr=False)
class WordNet:
    """The senses of a language's words; read by `WordNet.load`.

    Attributes
    ----------
    name : str
        Where it is from.
    senses : dict of str to tuple of int
        For each lemma, in lower case, the numbers of its synsets.
    files : list of str
        The lexicographer file of each synset, such as ``"noun.animal"``.
    parts : list of str
        Its part of speech: n, v, a or r (a satellite adjective is an adjective).
    related : list of set of int
        The synsets that a relation links it to, in either direction.
    """

    name: str
    senses: dict[str, tuple[int, ...]]
    files: list[str]
    parts: list[str]
    related: list[set[int]]
    _known: dict[str, tuple[tuple[str, ...], frozenset[int]]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"WordNet({self.name!r}, {len(self.senses)} lemmas, {len(self.files)} synsets)"

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> WordNet:
        """Read WordNet.

        Parameters
        ----------
        path : path, optional
            A folder with the tables ``senses.tsv`` (columns lemma, pos, synset) and ``synsets.tsv`` (synset,
            lexfile, pos, relations as ``name=id,id;name=id``), plain or ending in ``.gz``. By default, or for
            ``"wn"``, all lexicons of the package wn, which ``python -m wn download oewn:2024`` installs.

        Raises
        ------
        LoadError
            If a table is absent or cannot be read, or wn has no lexicon.
        InputError
            If the package wn is needed and not installed.
        """
        if path is None or path == "wn":
            return _from_package()
        folder = Path(path)
        ids: dict[str, int] = {}
        files: list[str] = []
        parts: list[str] = []
        links: list[list[str]] = []
        for synset, lexfile, part, relations in _table(folder, "synsets"):
            ids[synset] = len(files)
            files.append(lexfile)
            parts.append("a" if part == "s" else part)
            targets = (relation.partition("=")[2].split(",") for relation in relations.split(";"))
            links.append([each for of_relation in targets for each in of_relation if each])
        senses = ((lemma, synset) for lemma, _, synset in _table(folder, "senses"))
        return cls(str(folder), _numbered(senses, ids), files, parts, _symmetric(links, ids))

    def parts_of(self, word: str) -> str:
        """Return the parts of speech that a word may have, such as ``"nv"``."""
        held = {self.parts[synset] for synset in self.analyze(word)[1]}
        return "".join(part for part in PARTS_OF_SPEECH if part in held)

    def analyze(self, word: str) -> tuple[tuple[str, ...], frozenset[int]]:
        """Return the lemmas that a word may be a form of, itself first, and all their synsets.

        Case does not matter. Regular endings are taken off by WordNet's rules and where a consonant was
        doubled; irregular forms that are no lemmas are not known. Both are empty for another word.
        """
        word = word.lower()
        if word not in self._known:
            found = {word: set(self.senses.get(word, ()))}
            for part, endings in _ENDINGS.items():
                for stem in _stems(word, part, endings):
                    fitting = {synset for synset in self.senses.get(stem, ()) if self.parts[synset] == part}
                    found.setdefault(stem, set()).update(fitting)
            lemmas = tuple(lemma for lemma, synsets in found.items() if synsets)
            self._known[word] = lemmas, frozenset().union(*found.values())
        return self._known[word]


def _stems(word: str, part: str, endings: Iterable[tuple[str, str]]) -> Iterator[str]:
    for ending, instead in endings:
        stem = word.removesuffix(ending)
        if len(stem) < 2 or stem == word:
            continue
        yield stem + instead
        if part != "n" and not instead and stem[-1] == stem[-2]:
            yield stem[:-1]


def _table(folder: Path, name: str) -> Iterator[list[str]]:
    """Give the wanted columns of each row of a table."""
    for path in (folder / f"{name}.tsv.gz", folder / f"{name}.tsv"):
        if path.is_file():
            break
    else:
        raise LoadError(f"{folder} has no {name}.tsv or {name}.tsv.gz; name a folder with WordNet's tables")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            header = next(file, "").rstrip("\n").split("\t")
            if missing := [column for column in _TABLES[name] if column not in header]:
                raise LoadError(f"{path} has no column {missing[0]!r}; its columns are {', '.join(header)}")
            wanted = [header.index(column) for column in _TABLES[name]]
            for number, line in enumerate(file, 2):
                cells = line.rstrip("\n").split("\t")
                if len(cells) < len(header):
                    raise LoadError(f"{path}, line {number}: {len(cells)} of {len(header)} columns")
                yield [cells[column] for column in wanted]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} cannot be read: {first_line(error)}") from error


def _numbered(senses: Iterable[tuple[str, str]], ids: dict[str, int]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for lemma, synset in senses:
        if synset in ids:
            found.setdefault(lemma.lower(), []).append(ids[synset])
    return {lemma: tuple(numbers) for lemma, numbers in found.items()}


def _symmetric(links: list[list[str]], ids: dict[str, int]) -> list[set[int]]:
    related: list[set[int]] = [set() for _ in links]
    for number, targets in enumerate(links):
        for target in targets:
            if (other := ids.get(target, number)) != number:
                related[number].add(other)
                related[other].add(number)
    return related


def _from_package() -> WordNet:
    wn = need("wn", "WordNet without a folder of tables", extra="wordnet")
    lexicons = wn.lexicons()
    if not lexicons:
        raise LoadError(
            "the package wn has no lexicon: run `python -m wn download oewn:2024`, or name a folder"
        )
    ids: dict[str, int] = {}
    files: list[str] = []
    parts: list[str] = []
    links: list[list[str]] = []
    for synset in wn.synsets():
        ids[synset.id] = len(files)
        files.append(synset.lexfile() or "")
        parts.append("a" if synset.pos == "s" else synset.pos)
        links.append([other.id for others in synset.relations().values() for other in others])
    senses = ((word.lemma(), synset.id) for word in wn.words() for synset in word.synsets())
    name = "wn: " + ", ".join(f"{lexicon.id}:{lexicon.version}" for lexicon in lexicons)
    return WordNet(name, _numbered(senses, ids), files, parts, _symmetric(links, ids))


class Relatives:
    """The words that share something with each word, by number."""

    def __init__(self, words: list[tuple[tuple[str, ...], frozenset[int]]]) -> None:
        lemmas, self._synsets = [each for each, _ in words], [found for _, found in words]
        by_lemma: dict[str, set[int]] = {}
        for number, names in enumerate(lemmas):
            for name in names:
                by_lemma.setdefault(name, set()).add(number)
        self.same = [set().union(*(by_lemma[name] for name in names)) for names in lemmas]
        self._by_synset: dict[int, set[int]] = {}
        for number, found in enumerate(self._synsets):
            for synset in found:
                self._by_synset.setdefault(synset, set()).add(number)

    def same_shares(self, positions: IndexMatrix) -> tuple[Float64Vector, Float64Vector]:
        """Return the share of neighbors that share a lemma with each word, and its base rate."""
        shares = np.array([_share(near, same) for near, same in zip(positions, self.same, strict=True)])
        others = max(len(positions) - 1, 1)
        return shares, np.array([(len(same) - 1) / others for same in self.same])

    def linked_shares(
        self, links: Callable[[int], Iterable[int]], judged: IndexMatrix
    ) -> tuple[Float64Vector, Float64Vector]:
        """Return the share of judged words with a synset that one of the word's links to, and its base."""
        shares, base = np.full((2, len(judged)), np.nan)
        everyone = len(judged)
        for number, found in enumerate(self._synsets):
            linked: set[int] = set()
            for synset in found:
                for other in links(synset):
                    linked |= self._by_synset.get(other, set())
            shares[number] = _share(judged[number], linked)
            same = self.same[number]
            base[number] = len(linked - same) / max(everyone - len(same), 1)
        return shares, base

    def label_shares(self, labels: Sequence[str], judged: IndexMatrix) -> tuple[Float64Vector, Float64Vector]:
        """Return the share of judged words with a label in common, and its base rate."""
        column = {label: position for position, label in enumerate(sorted(set(labels)))}
        has = np.zeros((len(self._synsets), len(column)), dtype=bool)
        for number, found in enumerate(self._synsets):
            has[number, [column[labels[synset]] for synset in found]] = True
        # The sets of labels are few: whether two have one in common is looked up.
        kinds, kind, counts = np.unique(has, axis=0, return_inverse=True, return_counts=True)
        kind, overlapping = kind.ravel(), kinds.astype(np.float32) @ kinds.T.astype(np.float32) > 0
        shares = mean_where(overlapping[kind[:, None], kind[np.maximum(judged, 0)]], judged >= 0)
        alike = overlapping @ counts
        base = np.full(len(judged), np.nan)
        for number, same in enumerate(self.same):
            within = np.count_nonzero(overlapping[kind[number], kind[list(same)]])
            base[number] = (alike[kind[number]] - within) / max(len(judged) - len(same), 1)
        return shares, base


def _share(judged: npt.NDArray[np.int32], wanted: set[int]) -> float:
    known = judged[judged >= 0].tolist()
    return sum(number in wanted for number in known) / len(known) if known else np.nan


def mean_where(values: npt.NDArray[Any], known: npt.NDArray[np.bool_]) -> Float64Vector:
    """Return the mean of the known values of each row, NaN where there are none."""
    counts = known.sum(axis=1)
    result: Float64Vector = np.where(known, values, 0).sum(axis=1) / np.where(counts, counts, np.nan)
    return result
