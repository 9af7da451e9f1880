"""Prompts, answers and words as tokens, and the special tokens that a tokenizer adds to a text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

from embgeom.errors import EmbgeomWarning, InputError

# What stands for a leading space in the vocabularies of SentencePiece.
_SENTENCEPIECE_SPACE = "\u2581"
# What stands for it in those of byte-level BPE.
_BYTE_LEVEL_SPACE = "\u0120"


class AddedTokens(NamedTuple):
    """The special tokens that a tokenizer puts before and after each text."""

    front: tuple[int, ...]
    back: tuple[int, ...]


def check_text(text: object, what: str = "text") -> str:
    """Return a text, or say that it is not one: no tokenizer reads what is not Unicode."""
    if not isinstance(text, str):
        raise InputError(f"{text!r:.40} is not a text; give prompts and texts as strings")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"the {what} {text!r:.60} is not valid Unicode at character {error.start}: write it in UTF-8"
        ) from None
    return text


def encoded(tokenizer: Any, text: str, **options: Any) -> Any:
    if not callable(tokenizer):
        raise InputError(
            f"tokenizer: a {type(tokenizer).__name__} does not split texts; give the model's own"
        )
    check_text(text)
    try:
        return tokenizer(text, **options)
    except Exception as error:
        # What a tokenizer raises where its settings are damaged is not documented.
        raise InputError(
            f"the {type(tokenizer).__name__} cannot split {text!r:.40}: {type(error).__name__}: {error}; its "
            "files are damaged, or it is not a tokenizer of transformers"
        ) from error


def added_tokens(tokenizer: Any) -> AddedTokens:
    plain, whole, start = _with_and_without_special(tokenizer, "a")
    if start is None or not plain:
        return AddedTokens((), ())
    return AddedTokens(tuple(whole[:start]), tuple(whole[start + len(plain) :]))


def encode(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Return the tokens of a text that a model is to continue.

    Special tokens that the tokenizer puts in front are kept (unless not `special`); what it puts at the end,
    such as an end of text, is not, since nothing continues from there.
    """
    plain, whole, start = _with_and_without_special(tokenizer, text)
    if not special:
        return plain
    return whole if start is None else whole[: start + len(plain)]


def _with_and_without_special(tokenizer: Any, text: str) -> tuple[list[int], list[int], int | None]:
    """Return a text's tokens without and with special ones, and where the former begin in the latter."""
    plain, whole = (
        [int(token) for token in encoded(tokenizer, text, add_special_tokens=special)["input_ids"]]
        for special in (False, True)
    )
    starts = range(len(whole) - len(plain) + 1)
    return plain, whole, next((at for at in starts if whole[at : at + len(plain)] == plain), None)


def in_chat(tokenizer: Any, prompt: str) -> str:
    """Return a user's turn in the tokenizer's chat template, up to where the assistant answers."""
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("chat = True, but the tokenizer has no chat template; leave chat out")
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def encode_prompt(tokenizer: Any, prompt: str, *, chat: bool, answer: str = "") -> list[int]:
    """Return the tokens of a prompt and, if given, an answer's; with `chat`, in the tokenizer's template."""
    check_text(prompt, "prompt")
    prompt = in_chat(tokenizer, prompt) if chat else prompt
    gap = " " if answer and prompt and not prompt[-1].isspace() else ""
    return encode(tokenizer, prompt + gap + answer.strip(), special=not chat)


def where_answers_part(
    tokenizer: Any, prompt: str, answers: Sequence[str], *, chat: bool
) -> tuple[list[int], int, int]:
    """Return the tokens that a prompt with either answer shares, and the first of each that differs."""
    first, second = (encode_prompt(tokenizer, prompt, chat=chat, answer=answer) for answer in answers)
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return first[:at], one, other
    raise InputError(
        f"the answers {answers[0]!r} and {answers[1]!r} cannot be told apart by their first tokens"
    )


def word_tokens(tokenizer: Any, word: str) -> list[int]:
    tokens = encode(tokenizer, word, special=False)
    if len(tokens) != 1 and word[:1] == " ":
        # SentencePiece puts a space in front by itself, so that one of the word's own is one too many.
        bare = encode(tokenizer, word[1:], special=False)
        if bare and tokenizer.convert_ids_to_tokens(bare)[0].startswith(_SENTENCEPIECE_SPACE):
            tokens = bare
    if not tokens:
        raise InputError(f"{word!r} has no tokens; choose another word")
    return tokens


def continues_a_word(tokenizer: Any, word: str) -> bool:
    """Return whether a word as it is written continues another, and a leading space would begin a new one."""
    if not word[:1].isalpha():
        return False
    plain, spaced = (encode(tokenizer, text, special=False)[:1] for text in (word, " " + word))
    if not plain or plain == spaced:
        return False
    names = [tokenizer.convert_ids_to_tokens(tokens)[0] for tokens in (plain, spaced)]
    begins = [name.startswith((_SENTENCEPIECE_SPACE, _BYTE_LEVEL_SPACE)) for name in names]
    # Where spaces mean nothing no token holds a space together with a letter of the word.
    letters = tokenizer.decode(spaced).strip()
    return begins == [False, True] and bool(letters) and word.startswith(letters)


def word_token(tokenizer: Any, word: str, *, first: bool) -> int:
    """Return the one token of a word; with `first`, the first of several."""
    tokens = word_tokens(tokenizer, word)
    if len(tokens) == 1 or first:
        return tokens[0]
    pieces = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(tokens)))
    hint = "" if word[:1].isspace() else f", with a leading space ({' ' + word!r})"
    raise InputError(
        f"{word!r} has {len(tokens)} tokens ({pieces}), not one: write it as it follows a prompt{hint}, "
        "choose another word, or score it whole (whole=True) or by its first token (first_token=True)"
    )


def token_names(tokenizer: Any, tokens: Sequence[int]) -> str:
    names = getattr(tokenizer, "convert_ids_to_tokens", list)(list(tokens))
    return " ".join(map(str, names))


def warn_of_doubled(
    tokenizer: Any, sequences: Sequence[Sequence[int]], how_to_fix: str, *, stacklevel: int
) -> None:
    """Warn if texts hold the token for their beginning, and the tokenizer adds it once more."""
    front = list(added_tokens(tokenizer).front)
    count = sum(list(sequence[: 2 * len(front)]) == 2 * front for sequence in sequences) if front else 0
    if count:
        warnings.warn(
            f"{count} of {len(sequences)} texts begin with {token_names(tokenizer, front)} twice, since they "
            f"hold it and the tokenizer adds it; models are not used to that: {how_to_fix}",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )


def warn_of_lacking(tokenizer: Any, sequences: Sequence[Sequence[int]], *, stacklevel: int) -> None:
    """Warn if texts lack the token that the tokenizer would put in front of them."""
    front = list(added_tokens(tokenizer).front)
    if count := sum(list(sequence[: len(front)]) != front for sequence in sequences):
        warnings.warn(
            f"{count} of {len(sequences)} texts do not begin with {token_names(tokenizer, front)}, which "
            "the tokenizer would add; models that were trained with it read differently without: let it be "
            "added, or write it in front of the texts",
            EmbgeomWarning,
            stacklevel=stacklevel + 1,
        )
