"""What kind of text a token spells: its space, case, script and length, and bytes that are not characters."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from threading import Lock

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers

NO_SCRIPT, DIGITS, MIXED = "none", "digits", "mixed"

# Names that models give to rows which were set aside: <unused12>, [unused12], <|reserved_special_token_3|>,
# [control_12], <|extra_3|>, <|dummy_3|>, madeupword0001. A word such as "unused" is a token like any other.
_RESERVED = re.compile(
    r"[<\[(|｜]+(un_?used|reserved|extra|placeholder|dummy|control|special|pad)[ _-]?(special[ _-]?)?(token)?"
    r"[ _-]?[0-9]+[>\])|｜]+|<unk_[0-9]+>|madeupword[0-9]+",
    re.IGNORECASE,
)
_RESERVED_BEGINS = frozenset("<[(|｜mM")
# Unicode's names begin with the script, but for these.
_SCRIPTS = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MICRO": "Greek"}
# Names of special tokens that tokenizers share: <s>, </s>, [CLS], <pad>, <|im_start|>.
_SPECIAL = re.compile(
    r"<\|[^|<>\s]+\|>|</?s>|<(unk|pad|mask|bos|eos|cls|sep)>|\[(UNK|PAD|MASK|BOS|EOS|CLS|SEP)\]"
)
_Strings = npt.NDArray[np.str_]
_POSITIONS = ("none", "leading space", "trailing space", "continuation")
_CASES = ("none", "lower", "capitalized", "upper", "mixed")
_UPPER, _LOWER, _DIGIT, _WORD = 1, 2, 4, 8
# The number of each script that was met.
_script_names = {NO_SCRIPT: 0, DIGITS: 1, MIXED: 2}
_new_script = Lock()
# So many texts, whose characters stay in the cache, are looked at together.
_PIECE = 16384
_CONTROLS = frozenset(bytes([byte]) for byte in (*range(9), 11, 12, *range(14, 32), 127))


def is_reserved(token: str) -> bool:
    """Return whether a token's name says that its row was set aside for later."""
    # Most tokens begin like none of these.
    return token[:1] in _RESERVED_BEGINS and _RESERVED.fullmatch(token) is not None


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


def looks_of(texts: Sequence[str]) -> tuple[_Strings, _Strings, _Strings, RowNumbers]:
    """Return each text's position, case, script, and length without the spaces around it.

    Only texts with letters or digits have a position: where their space is. Letters are lower, capitalized,
    upper or mixed; the script is that of the letters, or "digits" where there are only digits.
    """
    pieces = [_looks_of(texts[begin : begin + _PIECE]) for begin in range(0, len(texts), _PIECE)]
    position, case, script, length = np.concatenate([np.zeros((4, 0), np.int64), *pieces], axis=1)
    return _named(_POSITIONS, position), _named(_CASES, case), _named(list(_script_names), script), length


def _named(names: Sequence[str], numbers: RowNumbers) -> _Strings:
    """Return the names of some numbers, with room for the longest of them."""
    width = max((len(names[number]) for number in np.flatnonzero(np.bincount(numbers)).tolist()), default=1)
    return np.array(names, f"U{width}")[numbers]


def _looks_of(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the numbers of positions, cases and scripts, and lengths."""
    # A zero ends each text, so that none is empty.
    characters = np.frombuffer("\0".join([*texts, ""]).encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(sizes + 1) - 1
    begins = ends - sizes
    distinct = np.flatnonzero(np.bincount(characters))
    of_code = np.zeros((2, distinct[-1] + 1), np.int16)
    of_code[:, distinct] = np.array([_kind(chr(code)) for code in distinct.tolist()]).T
    kind, script = (table[characters] for table in of_code)
    found = np.bitwise_or.reduceat(kind, begins)
    capitals = np.add.reduceat(kind & _UPPER, begins, dtype=np.int32)
    letters = np.flatnonzero(kind & (_UPPER | _LOWER))
    first = characters[np.append(letters, 0)[np.searchsorted(letters, begins)]]
    # One letter that is a capital begins a word more often than it is an abbreviation.
    case = np.select(
        [found & (_UPPER | _LOWER) == 0, capitals == 0, (of_code[0][first] & _UPPER == 1) & (capitals == 1),
         found & _LOWER == 0],
        [0, 1, 2, 3],
        4,
    )  # fmt: skip
    position = np.select(
        [found & _WORD == 0, characters[begins] == ord(" "), characters[ends - 1] == ord(" ")], [0, 1, 2], 3
    )
    least = np.minimum.reduceat(np.where(script > 0, script, np.int16(len(_script_names))), begins)
    greatest = np.maximum.reduceat(script, begins)
    scripts = np.select([greatest == 0, least == greatest], [found & _DIGIT > 0, greatest], 2)
    lengths = [len(text.strip(" ")) for text in texts]
    return np.stack([position, case, scripts, lengths])


@cache
def _kind(character: str) -> tuple[int, int]:
    """Return whether it is upper, lower, a digit, and a letter or digit; and the number of its script."""
    script = 0
    if character.isalpha():
        first = unicodedata.name(character, NO_SCRIPT).split()[0]
        name = _SCRIPTS.get(first, first.capitalize() if first != NO_SCRIPT else NO_SCRIPT)
        # Two threads that meet new scripts would give them one number.
        with _new_script:
            script = _script_names.setdefault(name, len(_script_names))
    kind = _UPPER * character.isupper() | _LOWER * character.islower()
    return kind | _DIGIT * character.isdigit() | _WORD * character.isalnum(), script


def is_word(text: str) -> bool:
    """Return whether a token is a word: letters alone, between spaces, marks or apostrophes."""
    inner = text.strip(" ")
    return bool(inner) and all(
        c.isalpha() or unicodedata.category(c)[0] == "M" or c in "'’-" for c in inner
    ) and inner[0].isalpha()  # fmt: skip
