"""The field has names for what this package does: words that it uses instead of its own do not come back."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python/embgeom"
FILES = sorted(PACKAGE.rglob("*.py"))
PAGES = sorted(
    {ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cpp/README.md", *ROOT.glob("docs/**/*.md")}
)
MODEL_ROOMS = ("lm", "steering", "emb2emb", "evaluation", "hidden_states", "cli", "comparison")

# A word of the project's own, as part of a name: the field's word for it.
NAMES = {
    "as_dict": "to_dict",
    "block_list": "layer_modules",
    "carr(y|ies|ied|ier|ying)": "transfer",
    "ceiling": "max_components",
    "certaint(y|ies)": "kind",
    "content": "to_dict",
    "exceeds_random": "beats_random",
    "FloatMatrix": "Float32Matrix, Float64Matrix",
    "inspect_model": "inspect",
    "Luck": "GumbelSampling",
    "match_vocabularies": "match",
    "Measuring": "EvaluationRun",
    "prices?": "side_effects",
    "relative_depth": "matching_layer",
    "RowScan": "RowStats",
    "saturated": "near_max",
    "scan_rows": "row_stats",
    "share_of_own": "fraction_of_native",
    "space_side": "space_position",
    "Spelling": "TokenFormat",
    "TextScore": "GenerationScore",
    "transport": "mode",
    "Watch": "PassTracker",
    "WordShift": "WordLogRatio",
    "wrong_way": "anti_steered",
}
# Words that mean something else where no transformer is run.
NAMES_OF_MODELS = {
    "blocks?": "layers",
    "(?<!half_)width": "hidden_size",
    "own": "native",
    "Trial": "Condition",
    "Facts": "Checks",
}
OPTIONS = {
    "--blocks": "--layers",
    "--items": "--questions",
    "--less": "--negative",
    "--more": "--positive",
    "--no-scale": "--no-scaled",
    "--offline": "--local-files-only",
    "--own": "--native",
    "--read": "--token-position",
    "--source-blocks": "--source-layers",
    "--tokens-file": "--vocabulary",
    "--transport": "--mode",
}
# What a reader would stumble over: what to say instead.
SENTENCES = {
    r"\b(carry|carries|carried|carrier|carrying)\b": "transfer",
    r"\bbeside (what )?chance": "with two null baselines",
    r"\bIt takes some seconds": "It takes a few seconds",
    r"\blie to each other": "relative positions",
    r"\bless the mean": "after subtracting the mean",
    r"\bKL is the price": "KL measures side effects",
    r"\bthe price\b|\bits price\b|\ba price\b": "side effects",
    r"\bwhat is odd about": "anomalies",
    r"\bof other people\b": "third-party",
    r"\bthe space (before|behind)\b": "leading or trailing space",
    r"\bbehind (a|the|its|each|every) (word|words|layer|layers|token|text)\b": "trailing, after",
    r"\bwhole or not at all\b": "atomically",
    r"\bhow sure the match\b": "the kind of match",
    r"\bmoved against\b": "moved in the undesired direction",
    r"\bthe way out\b": "how to fix it",
    r"\bsteered less unsteered\b": "steered minus unsteered",
    r"\btold from none\b": "not significant",
    r"\bis no (row number|number|text|path|vector|map|model|matrix)\b": "is not a",
    r"\b[Ff]ind out before\b": "Check early that",
    r"\btold of\b": "reported",
    r"\bin so far as\b": "to the extent that",
    r"\bno such is\b": "no such ... is assumed",
}


def names(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "asname"):
            if isinstance(value := getattr(node, field, None), str):
                found.add(value)
    return found


def texts(path: Path) -> str:
    """Docstrings, messages and comments of a file, or a page without its blocks of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return " ".join(text.split())
    strings = [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    comments = re.findall(r"#\s*(.*)", text)
    return " ".join(" ".join([*strings, *comments]).split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_the_fields(path):
    words = dict(NAMES)
    if path.relative_to(PACKAGE).parts[0] in MODEL_ROOMS:
        words |= NAMES_OF_MODELS
    pattern = re.compile("|".join(rf"(?:^|_)(?:{word})(?:_|$)" for word in words))
    assert not {name for name in names(path) if pattern.search(name)}


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_options_are_named_as_in_python(path):
    text = path.read_text(encoding="utf-8")
    assert not {option for option in OPTIONS if re.search(rf"(?<![\w-]){option}(?![\w-])", text)}


@pytest.mark.parametrize("path", [*FILES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_sentences_need_no_second_reading(path):
    text = texts(path)
    assert not {
        found.group(): instead for words, instead in SENTENCES.items() for found in re.finditer(words, text)
    }
