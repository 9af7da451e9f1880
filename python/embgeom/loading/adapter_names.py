"""What the tensors of a PEFT adapter are called: the module they change, and how they change it."""

from __future__ import annotations

import re

from embgeom.loading.architectures import USUAL_INPUTS, USUAL_OUTPUTS, WHOLE_INPUTS, WHOLE_OUTPUTS

_PREFIX = "base_model.model."
WHOLE, SAVED_BASE, ROWS = "whole", "base", "rows"
# The end of a tensor's name after its module -> what it is. An adapter's own name may stand in it.
_PARTS = {
    r"modules_to_save(\.\w+)?\.weight": WHOLE,
    r"base_layer\.weight": SAVED_BASE,
    r"(token_adapter\.)?trainable_tokens_delta(\.\w+)?": ROWS,
    r"lora_embedding_A(\.\w+)?": "embedding A",
    r"lora_embedding_B(\.\w+)?": "embedding B",
    r"lora_A(\.\w+)?\.weight": "A",
    r"lora_B(\.\w+)?\.weight": "B",
    r"lora_magnitude_vector(\.\w+)*": "DoRA",
    r"weight": WHOLE,
    r"(\w+\.)*bias|original_module\..*|(token_adapter\.)?trainable_tokens_original.*": "",
}
SIDES = {
    "input": {name.rpartition(".")[2] for name in (*USUAL_INPUTS, *WHOLE_INPUTS)},
    "output": {name.rpartition(".")[2] for name in (*USUAL_OUTPUTS, *WHOLE_OUTPUTS)} | {"unembed"},
}
_LEAVES = {"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "shared", "lm_head",
           "embed_out", "output_layer"}  # fmt: skip


def split_name(name: str) -> tuple[str, str | None]:
    """Return the module that a tensor of an adapter changes, and what it is to it."""
    words = name.removeprefix(_PREFIX).split(".")
    # A layer of the base has no module inside: what stands behind its name is the adapter's.
    inside = next((i + 1 for i, word in enumerate(words) if word in _LEAVES), None)
    for pattern, part in _PARTS.items():
        match = re.fullmatch(rf"(?P<module>.+?)\.(?:{pattern})", ".".join(words))
        if match and (inside is None or match["module"].count(".") < inside):
            return match["module"], part
    return ".".join(words[:inside] if inside else words[:-1] or words), None
