"""What kind of text a token spells: its space, case, script and length, and bytes that are not characters."""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import cache

NO_SCRIPT, DIGITS, MIXED = "none", "digits", "mixed"

# Names that models give to rows which were set aside: <unused12>, [unused12], <|reserved_special_token_3|>,
# [control_12], <|extra_3|>, <|dummy_3|>, madeupword0001. A word such as "unused" is a token like any other.
_RESERVED = re.compile(
    r"[<\[(|｜]+(un_?used|reserved|extra|placeholder|dummy|control|special|pad)[ _-]?(special[ _-]?)?(token)?"
    r"[ _-]?[0-9]+[>\])|｜]+|<unk_[0-9]+>|madeupword[0-9]+",
    re.IGNORECASE,
)
# Unicode's names begin with the script, but for these.
_SCRIPTS = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MICRO": "Greek"}
# Names of special tokens that tokenizers share: <s>, </s>, [CLS], <pad>, <|im_start|>.
_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|</?s>|<(unk|pad|mask|bos|eos|cls|sep)>|\[(UNK|PAD|MASK|BOS|EOS|CLS|SEP)\]"
)
_CONTROLS = frozenset(bytes([byte]) for byte in (*range(9), 11, 12, *range(14, 32), 127))


def is_reserved(token: str) -> bool:
    """Return whether a token's name says that its row was set aside for later."""
    return _RESERVED.fullmatch(token) is not None


def is_special(token: str) -> bool:
    """Return whether a token's name is one that tokenizers give to special tokens only."""
    return _SPECIAL.fullmatch(token) is not None


def is_impossible(spelled: bytes) -> bool:
    """Return whether no UTF-8 text holds these bytes in a row, as none holds 0xC0 or 0xFF."""
    begin = 0
    # The first bytes may end a character that an earlier token began.
    while begin < min(3, len(spelled)) and spelled[begin] & 0xC0 == 0x80:
        begin += 1
    try:
        codecs.getincrementaldecoder("utf-8")("strict").decode(spelled[begin:], final=False)
    except UnicodeDecodeError:
        return True
    return False


def decoded(spelled: bytes) -> str | None:
    """Return the characters that a token spells; None if it holds a control byte or a part of one."""
    if spelled in _CONTROLS:
        return None
    try:
        return spelled.decode("utf-8")
    except UnicodeDecodeError:
        return None


def looks_of(text: str) -> tuple[str, str, str, int]:
    """Return a token's position, case, script, and length without the spaces around it."""
    inner = text.strip(" ")
    # Most tokens are such, and take a third of the time.
    if inner.isascii() and inner.isalpha():
        return position_of(text), "lower" if inner.islower() else case_of(text), "Latin", len(inner)
    return position_of(text), case_of(text), script_of(text), len(inner)


def position_of(text: str) -> str:
    """Return where a token with letters or digits has its space; "none" for all other tokens."""
    # Most tokens are letters alone, and need no look at each.
    if not (text.strip(" ").isalnum() or any(character.isalnum() for character in text)):
        return "none"
    if text[0] == " ":
        return "leading space"
    return "trailing space" if text[-1] == " " else "continuation"


def case_of(text: str) -> str:
    """Return how the letters are written: lower, capitalized, upper or mixed; "none" where there are none."""
    if text.islower():
        return "lower"
    if text.isascii():
        letters = "".join(filter(str.isalpha, text))
    else:
        letters = "".join(c for c in text if c.isupper() or c.islower())
    if not letters:
        return "none"
    if letters.islower():
        return "lower"
    # One letter that is a capital begins a word more often than it is an abbreviation.
    if letters[0].isupper() and (len(letters) == 1 or letters[1:].islower()):
        return "capitalized"
    return "upper" if letters.isupper() else "mixed"


def script_of(text: str) -> str:
    """Return the script of a token's letters, "digits" where it has only digits, "none" where neither."""
    if text.strip(" ").isalpha() and text.isascii():
        return "Latin"
    found = {_script(character) for character in text} - {NO_SCRIPT}
    if len(found) > 1:
        found.discard(DIGITS)
    return (MIXED if len(found) > 1 else found.pop()) if found else NO_SCRIPT


def is_word(text: str) -> bool:
    """Return whether a token is a word: letters alone, between spaces, marks or apostrophes."""
    inner = text.strip(" ")
    return bool(inner) and all(
        c.isalpha() or unicodedata.category(c)[0] == "M" or c in "'’-" for c in inner
    ) and inner[0].isalpha()  # fmt: skip


@cache
def _script(character: str) -> str:
    if character.isdigit():
        return DIGITS
    if not character.isalpha():
        return NO_SCRIPT
    first = unicodedata.name(character, NO_SCRIPT).split()[0]
    return _SCRIPTS.get(first, first.capitalize() if first != NO_SCRIPT else NO_SCRIPT)
