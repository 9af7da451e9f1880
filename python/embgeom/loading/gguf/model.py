"""A model that is a GGUF file, or several: which tensor is which, its tokens, and what it says of itself.

Names are the same in every GGUF model, and llama.cpp computes logits with the input embedding where there is
no `output.weight`; so nothing is guessed here.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.norm import FinalNorm
from embgeom.embeddings.provenance import Provenance
from embgeom.embeddings.token_format import METASPACE, TokenFormat, byte_level_alphabet
from embgeom.errors import LoadError
from embgeom.loading.assemble import LoadRequest, assemble, disagreements
from embgeom.loading.checkpoint.choice import Choice
from embgeom.loading.folder import READ_AS, Folder, check_matrix
from embgeom.loading.gguf.file import MAGIC, GGUFFile
from embgeom.loading.source import Source
from embgeom.loading.tokenizers.reading import read_tokens
from embgeom.loading.tokenizers.table import TokenTable

_KEY = "tokenizer.ggml."
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
_WITHOUT_TOKEN = re.compile(r"\[PAD\d+\]")
# These are special whatever their type.
_NAMED_SPECIAL = ("bos", "eos", "unknown", "seperator", "separator", "cls", "mask")
# These are special unless their type is normal: a config may name any token, as RWKV's names two newlines.
_NAMED = ("padding", "eot", "eom", "prefix", "suffix", "middle", "fim_pre", "fim_suf", "fim_mid", "fim_pad",
          "fim_rep", "fim_sep")  # fmt: skip
# The kind "gpt2" is BPE of any alphabet. These pre-tokenizers escape spaces as SentencePiece does.
_METASPACE_PRE = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
_BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": 10, "r": 13, "t": 9, "\\": 92, "'": 39, '"': 34}
SUFFIX = ".gguf"
_INPUT, _OUTPUT = "token_embd.weight", "output.weight"
# The first is the decoder's of a T5, the last the name that LFM2's norm after its layers has in older files.
_FINAL_NORMS = ("dec.output_norm", "output_norm", "token_embd_norm")
_LFM2 = ("lfm2", "lfm2moe")
# Converters leave the heads of these out.
_ENCODERS = frozenset({
    "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert", "neo-bert",
    "eurobert", "t5encoder", "gemma-embedding", "llama-embed", "wavtokenizer-dec",
})  # fmt: skip
# LayerNorms without bias; where only the epsilon of a LayerNorm is stored, the norm is one, too.
_LAYER_NORMS = frozenset({"command-r", "cohere2", "cohere2moe", "dbrx", "mpt", "olmo"})
_PROJECTOR = (
    "the part of a model that turns images or sound into embeddings (mmproj); name the file of the language "
    "model"
)
_NO_MODEL = {
    "controlvector": "a control vector, not a model; read it with embgeom.SteeringVector.load",
    "imatrix": "an importance matrix, statistics for quantizing a model; name the model's own file",
    "clip": _PROJECTOR,
    "mmproj": _PROJECTOR,
    "clip-vision": _PROJECTOR,
    "adapter": "a LoRA adapter, not a model; merge it into its base with llama-export-lora, and name the "
    "result",
}
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.gguf)", re.IGNORECASE)


def find_gguf(place: Path | Source) -> Path | None:
    """Return the GGUF file that a name or a folder means, or None for another kind of model."""
    if isinstance(place, Path):
        return place if place.suffix.lower() == SUFFIX or _begins_as_gguf(place) else None
    if not isinstance(place, Folder):
        return None
    path = place.path
    if any(path.glob("*.safetensors*")) or any(path.glob("pytorch_model*.bin*")):
        return None
    found = sorted(file for file in path.glob("*.[gG][gG][uU][fF]") if not file.name.startswith("mmproj"))
    models = [file for file in found if not (part := _PART.fullmatch(file.name)) or int(part[2]) == 1]
    if len(models) > 1:
        raise LoadError(
            f"{path} holds {len(models)} GGUF models: {', '.join(file.name for file in models[:8])}; "
            "name one of these files"
        )
    return next(iter(models or found), None)


def load_gguf(path: Path, revision: str | None, request: LoadRequest) -> Embeddings:
    model = GGUFModel(path)
    choice = model.choose(request.which, request.tensor)
    held_in = model.file(choice.name)
    shape, stored = held_in.shape(choice.name), held_in.dtype(choice.name)
    check_matrix(shape, f"{choice.name} in {held_in.path}")
    table = request.tokens(model.tokens)
    said = (model.integer("vocab_size"), model.integer("embedding_length"))
    matrix = held_in.read(choice.name, progress=request.progress)
    provenance = Provenance(
        source=request.asked,
        revision=revision,
        file=held_in.path,
        state=held_in.state,
        tensor=choice.name,
        dtype=stored,
        tied=choice.tied,
        num_layers=model.num_layers,
        notes=choice.notes + table.notes + disagreements(shape, said, "the metadata say"),
    )
    loaded = assemble(matrix, table, model.path.stem, provenance, request)
    if stored in READ_AS:
        return loaded
    equal = np.count_nonzero(loaded.row_stats.repeated)
    rounded = f"values are quantized ({stored}): {equal} of {len(matrix)} rows equal an earlier one"
    return replace(loaded, provenance=replace(loaded.provenance, notes=(*provenance.notes, rounded)))


class GGUFModel:
    """A model in one GGUF file, or in parts named ``...-00001-of-00003.gguf``."""

    def __init__(self, path: Path) -> None:
        self.path, others, self.missing = _parts(path)
        self._first = first = GGUFFile(self.path)
        self.architecture = first.text("general.architecture") or ""
        for kind in (self.architecture, first.text("general.type")):
            if kind in _NO_MODEL:
                raise LoadError(f"{self.path} is {_NO_MODEL[kind]}")
        parts = first.integer("split.count") or 1
        if not others and not self.missing and parts > 1:
            self.missing = (f"the rest of its {parts} parts, named ...-00001-of-{parts:05}.gguf and so on,",)
        files = (first, *map(GGUFFile, others))
        self._files = {name: file for file in files for name in file.names}

    @property
    def num_layers(self) -> int | None:
        """The number of layers without draft heads; None for an encoder-decoder."""
        if self.architecture == "t5" or (count := self.integer("block_count")) is None:
            return None
        return count - (self.integer("nextn_predict_layers") or 0)

    def choose(self, which: Which, tensor: str | None) -> Choice:
        ties = self._tied()
        if tensor is not None:
            self.file(tensor)
            return Choice(tensor, ties is True and tensor in (_INPUT, _OUTPUT))
        if which == "input":
            self.file(_INPUT)
            unsure = f"{', '.join(self.missing)} is not here, so it may or may not be the output matrix, too"
            return Choice(_INPUT, ties is True, (unsure,) if ties is None else ())
        if _OUTPUT in self._files or self.missing:
            self.file(_OUTPUT)
            return Choice(_OUTPUT, ties is True)
        if self.architecture in _ENCODERS:
            raise LoadError(
                f"{self.path} holds no output matrix: a GGUF file of an encoder ({self.architecture}) has "
                "none; take the original checkpoint with its head"
            )
        self.file(_INPUT)
        return Choice(_INPUT, True)

    def file(self, name: str) -> GGUFFile:
        if (file := self._files.get(name)) is not None:
            if (scale := f"{name.removesuffix('.weight')}.scale") in self._files:
                raise LoadError(
                    f"{self.path} holds {scale} beside {name}: its numbers are not the model's without that "
                    "scale, which embgeom does not apply; take the original checkpoint"
                )
            return file
        if self.missing:
            raise LoadError(
                f"{self.path.name} and the parts beside it hold no tensor {name}, and "
                f"{', '.join(self.missing)} is not there; fetch it"
            )
        known = [n for n in self._files if not n.startswith("blk.")] or list(self._files)
        listed = ", ".join(known[:12]) or "no tensors at all, as a file of a vocabulary alone does"
        raise LoadError(f"{self.path} holds no tensor {name}; it holds {listed}")

    def tokens(self) -> TokenTable:
        if (table := gguf_tokens(self._first)) is not None:
            return table
        try:
            return read_tokens(Folder(self.path.parent))
        except LoadError as error:
            raise LoadError(f"{self.path} holds no tokens, and beside it: {error}") from error

    def final_norm(self) -> FinalNorm:
        if self.architecture == "olmo":
            width = self.integer("embedding_length") or self.file(_INPUT).shape(_INPUT)[-1]
            return FinalNorm.from_weights([1.0] * width, "layer_norm")
        names = _FINAL_NORMS if self.architecture in _LFM2 else _FINAL_NORMS[:-1]
        found = [name for name in names if f"{name}.weight" in self._files]
        if not found or self.architecture in _ENCODERS:
            raise LoadError(
                f"{self.path} ({self.architecture}) holds no final norm ({_FINAL_NORMS[1]}.weight); make one "
                "with embgeom.FinalNorm.from_weights(weight, kind)"
            )
        weight = self.file(f"{found[0]}.weight").read(f"{found[0]}.weight")
        # llama.cpp's converter has added the 1 of those norms that multiply with 1 + weight.
        return FinalNorm.from_weights(weight, "layer_norm" if self._centers(found[0]) else "rms_norm")

    def _tied(self) -> bool | None:
        """Return whether one matrix is both input and output; None if that depends on a missing part."""
        held = self._files.get(_INPUT), self._files.get(_OUTPUT)
        if held[0] is not None and held[1] is not None:
            return held[0].same_bytes(_INPUT, held[1], _OUTPUT)
        return None if self.missing else held[1] is None and self.architecture not in _ENCODERS

    def _centers(self, name: str) -> bool:
        epsilons = {key.rpartition(".")[2] for key in self._first.keys if ".attention.layer_norm" in key}
        return (
            f"{name}.bias" in self._files
            or self.architecture in _LAYER_NORMS
            or epsilons == {"layer_norm_epsilon"}
        )

    def integer(self, key: str) -> int | None:
        return self._first.integer(f"{self.architecture}.{key}")


def _parts(path: Path) -> tuple[Path, list[Path], tuple[str, ...]]:
    """Return the first part of a model, the other parts that exist, and the names of missing ones."""
    if (part := _PART.fullmatch(path.name)) is None:
        return path, [], ()
    names = [f"{part[1]}-{number:05}-of-{part[3]}{part[4]}" for number in range(1, int(part[3]) + 1)]
    there = [file for name in names if (file := path.with_name(name)).is_file()]
    if path.name not in names or path.with_name(names[0]) not in there:
        raise LoadError(
            f"{path} is a part of a model, and {names[0] if names else 'the first'}, which holds its "
            "metadata, is not beside it; fetch it"
        )
    return there[0], there[1:], tuple(name for name in names if path.with_name(name) not in there)


def _begins_as_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == MAGIC
    except OSError:
        return False


# llama.cpp's converter writes tokens as the tokenizer does, with four exceptions that are undone here:
# WordPiece loses its ``##`` and marks the beginning of a word by ``▁`` instead; the tokens of RWKV are
# written as Python writes bytes; a row without a token is named ``[PAD<row>]`` and marked as unused; and in
# tokens that were added as plain text ``▁`` is a space already.
def gguf_tokens(file: GGUFFile) -> TokenTable | None:
    kind = file.text(f"{_KEY}model")
    tokens = file.strings(f"{_KEY}tokens")
    if kind in (None, "none", "no_vocab") or not tokens:
        return None
    types = file.integers(f"{_KEY}token_type")
    if types is not None and len(types) < len(tokens):
        raise LoadError(
            f"{file.path} holds {len(tokens)} tokens, but the types of {len(types)}; convert the model again"
        )

    def named(name: str) -> int | None:
        return file.integer(f"{_KEY}{name}_token_id")

    types = np.full(len(tokens), _NORMAL) if types is None else types[: len(tokens)]
    token_format = _token_format(file, kind, tokens, types)
    written = {"bert": _word_piece, "rwkv": _bytes}.get(kind, str)
    table = {
        row: token if of_type == _CONTROL else written(token)
        for row, (token, of_type) in enumerate(zip(tokens, types.tolist(), strict=True))
        if not (of_type == _UNUSED and _WITHOUT_TOKEN.fullmatch(token))
    }
    special = set(np.flatnonzero(np.isin(types, (_UNKNOWN, _CONTROL, _UNUSED))).tolist())
    special |= {row for name in _NAMED_SPECIAL if (row := named(name)) is not None}
    others = (row for name in _NAMED if (row := named(name)) is not None)
    special |= {row for row in others if row < len(types) and types[row] != _NORMAL}
    if kind == "bert":
        special |= {row for row, token in table.items() if token in _BERT_SPECIAL}
    as_text = set() if token_format.space else set(np.flatnonzero(types == _USER_DEFINED).tolist())
    return TokenTable(file.path, table, token_format, frozenset(as_text), frozenset(special & table.keys()))


def _token_format(
    file: GGUFFile, kind: str | None, tokens: list[str], types: npt.NDArray[np.int64]
) -> TokenFormat:
    # A name such as <0x0A> alone may be text, all 256 are the bytes.
    byte_fallback = bool((types == _BYTE).any()) or {f"<0x{b:02X}>" for b in range(256)} <= set(tokens)
    metaspace = TokenFormat(space=METASPACE, byte_fallback=byte_fallback)
    kinds = {
        "bert": TokenFormat(continuation="##"),
        "rwkv": TokenFormat(byte_level=True),
        "gpt2": TokenFormat(byte_level=True),
        "plamo2": TokenFormat(byte_fallback=byte_fallback),
        **dict.fromkeys(("llama", "t5", "gemma4"), metaspace),
    }
    if kind == "gpt2":
        # Converters take a BPE over SentencePiece's alphabet for one over bytes.
        bytes_, spaces = (sum(token.startswith(mark) for token in tokens) for mark in ("Ġ", METASPACE))
        if file.text(f"{_KEY}pre") in _METASPACE_PRE or spaces > bytes_:
            return metaspace
    if kind not in kinds:
        raise LoadError(
            f"{file.path} has tokens of the kind {kind!r} (tokenizer.ggml.model), and embgeom does not know "
            "how they write text; pass vocabulary= (--vocabulary), a list or a file with one token for each "
            "row"
        )
    return kinds[kind]


def _word_piece(token: str) -> str:
    """Return a token of WordPiece as its own vocabulary writes it; a lone mark stands for ``##▁``."""
    if token.startswith(METASPACE) and token != METASPACE:
        return token.removeprefix(METASPACE)
    return f"##{token}"


@cache
def _byte_level_letters() -> dict[int, str]:
    return {byte: letter for letter, byte in byte_level_alphabet().items()}


def _bytes(token: str) -> str:
    """Return a token that is written as Python writes bytes in the letters of a byte-level vocabulary."""
    letters = _byte_level_letters()

    def byte(escape: re.Match[str]) -> str:
        code = escape[1]
        return chr(int(code[1:], 16) if code[0] == "x" and len(code) == 3 else _ESCAPED.get(code, ord(code)))

    return "".join(letters.get(ord(letter), letter) for letter in _ESCAPE.sub(byte, token))
