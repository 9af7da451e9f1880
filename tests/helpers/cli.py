"""The command line in tests, and a folder with what its commands on steering read."""

import json

from embgeom.cli.main import main
from embgeom.examples import moods


def status(*arguments):
    """Run the command, and return its exit status."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        return stopped.code


def run(*arguments):
    assert status(*arguments) == 0


def fill(folder):
    """Write a map, pairs, prompts, neutral texts, and vectors of both bundled models; return the folder."""
    pairs = [{"positive": good, "negative": bad} for good, bad in moods.pairs()]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    (folder / "prompts.txt").write_text("\n".join(moods.prompts()[:4]))
    (folder / "neutral.txt").write_text("\n".join(moods.neutral_texts()[:2]))
    run("fit", "example:small", "example:large", "-o", folder / "map.safetensors", "--quiet")
    for model in ("small", "large"):
        output = folder / f"{model}.safetensors"
        run("train-vector", f"example:{model}", "--pairs", folder / "pairs.json", "-o", output, "--quiet")
    return folder


def commands(folder):
    """A command line for each command that runs a model."""
    vector, output = ("--vector", folder / "small.safetensors"), ("-o", folder / "v.pt")
    return {
        "train-vector": ("train-vector", "example:small", "--pairs", folder / "pairs.json", *output),
        "steer": ("steer", "example:small", *vector, "--prompt", "Tom"),
        "evaluate": (
            "evaluate", "example:small", *vector, "--random", "2", "--prompts", folder / "prompts.txt",
            "--positive", " happy", "--negative", " sad",
        ),
    }  # fmt: skip
