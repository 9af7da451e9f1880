"""Prompts, answers and words as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embgeom.errors import InputError
from embgeom.lm.tokenizing import check_text, encoded

# What stands for the space before a word in the vocabularies of SentencePiece.
_SENTENCEPIECE_SPACE = "\u2581"


def encode(tokenizer: Any, text: str, *, special: bool = True) -> list[int]:
    """Return the tokens of a text that a model is to go on from.

    Special tokens that the tokenizer puts in front are kept (unless not `special`); what it puts behind,
    such as an end of text, is not, since nothing goes on from there.
    """
    plain = [int(token) for token in encoded(tokenizer, text, add_special_tokens=False)["input_ids"]]
    if not special:
        return plain
    whole = [int(token) for token in encoded(tokenizer, text)["input_ids"]]
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[: start + len(plain)]
    return whole


def encode_prompt(tokenizer: Any, prompt: str, *, chat: bool, answer: str = "") -> list[int]:
    """Return the tokens of a prompt and, if given, an answer's; with `chat`, in the tokenizer's template."""
    check_text(prompt, "prompt")
    if not chat:
        return encode(tokenizer, _joined(prompt, answer))
    if not getattr(tokenizer, "chat_template", None):
        raise InputError("chat = True, but the tokenizer has no chat template; leave chat out")
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return encode(tokenizer, _joined(text, answer), special=False)


def _joined(prompt: str, answer: str) -> str:
    gap = " " if answer and prompt and not prompt[-1].isspace() else ""
    return prompt + gap + answer.strip()


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
    """Return the tokens of a word as it follows a text."""
    tokens = encode(tokenizer, word, special=False)
    if len(tokens) != 1 and word[:1] == " ":
        # SentencePiece puts a space in front by itself, so that one of the word's own is one too many.
        bare = encode(tokenizer, word[1:], special=False)
        if bare and tokenizer.convert_ids_to_tokens(bare)[0].startswith(_SENTENCEPIECE_SPACE):
            tokens = bare
    if not tokens:
        raise InputError(f"{word!r} has no tokens; choose another word")
    return tokens


def word_token(tokenizer: Any, word: str, *, first: bool) -> int:
    """Return the one token of a word; with `first`, the first of several."""
    tokens = word_tokens(tokenizer, word)
    if len(tokens) == 1 or first:
        return tokens[0]
    pieces = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(tokens)))
    hint = "" if word[:1].isspace() else f", with the space before it ({' ' + word!r})"
    raise InputError(
        f"{word!r} has {len(tokens)} tokens ({pieces}), not one: write it as it follows a prompt{hint}, "
        "choose another word, or score it whole (whole=True) or by its first token (first_token=True)"
    )
