"""Damaged files, and what reading one must come to: `python -m tests.helpers.fuzzing KIND FIRST COUNT DIR`.

What is called must agree with the kind's oracle or raise an EmbgeomError; where the oracle refuses the
file, whatever is returned must be what the sound file gave. Every case is seeded by its number, so that a
failure is found again by its kind and number.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np

from embgeom import EmbgeomError
from tests.helpers.fuzz_kinds import KINDS as ARRAYS
from tests.helpers.fuzz_kinds import Target
from tests.helpers.fuzz_more_kinds import KINDS as OTHERS

KINDS = ARRAYS | OTHERS
SECONDS, MEGABYTES = 5, 500
COUNTS = [0, 1, 7, 255, 1 << 15, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to three random changes; a text that is JSON is changed as JSON half of the time."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = _damage_json(content, draw) if draw.random() < 0.5 else _damage_bytes(content, draw)
    return content


def _damage_bytes(content: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    # Headers come first, and a change there says more than one among the numbers.
    reach = len(data) if draw.random() < 0.4 else min(len(data), 512)
    at = draw.randrange(reach) if reach else 0
    match draw.choice(("flip", "flip", "flip", "cut", "count", "swap", "insert", "remove", "append")):
        case "flip" if data:
            data[at] ^= 1 << draw.randrange(8)
        case "cut":
            del data[draw.randrange(len(data) + 1) :]
        case "count":
            data[at : at + 8] = draw.choice(COUNTS).to_bytes(8, "little")
        case "swap" if reach > 16:
            other, length = draw.randrange(reach), draw.choice((1, 4, 8))
            one, two = data[at : at + length], data[other : other + length]
            data[at : at + length], data[other : other + length] = two, one
        case "insert":
            data[at:at] = draw.randbytes(draw.randrange(1, 9))
        case "remove":
            del data[at : at + draw.randrange(1, 9)]
        case "append":
            data += draw.randbytes(draw.randrange(1, 64))
    return bytes(data)


def _damage_json(content: bytes, draw: random.Random) -> bytes:
    """Change a value, a key or a place of a JSON file, or of the header of a safetensors file."""
    header = int.from_bytes(content[:8], "little")
    is_header = content[8:9] == b"{" and 8 + header <= len(content)
    text, rest = (content[8 : 8 + header], content[8 + header :]) if is_header else (content, b"")
    try:
        value = json.loads(text)
        places = list(_places(value))
        if not places:
            return _damage_bytes(content, draw)
        holder, key = draw.choice(places)
        other, other_key = draw.choice(places)
        odd = [
            None,
            True,
            -1,
            1.5,
            "",
            "\x00",
            "a" * 300,
            [],
            {},
            [[]],
            draw.choice(COUNTS),
            10**30,
            "\ud800",
        ]
        match draw.choice(("value", "value", "swap", "remove", "key")):
            case "value":
                holder[key] = draw.choice(odd)
            case "swap":
                holder[key], other[other_key] = other[other_key], holder[key]
            case "remove":
                del holder[key]
            case "key" if isinstance(holder, dict):
                holder[draw.choice(("", "extra", "weight_map", "model", str(other_key)))] = holder.pop(key)
        changed = json.dumps(value).encode()
    except (ValueError, RecursionError):
        return _damage_bytes(content, draw)
    return len(changed).to_bytes(8, "little") + changed + rest if is_header else changed


def _places(value: object):
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _same(one: object, two: object) -> bool:
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return one.shape == two.shape and np.array_equal(one, two, equal_nan=True)
    return type(one) is type(two) and one == two


def _megabytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(field))


def outcome(target: Target, sound: object) -> str:
    """Call, and say what came of it; "ok" and "refused" are what it should be."""
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _megabytes("VmRSS"), time.monotonic()
    try:
        got = target.call()
        result = "ok"
    except EmbgeomError as error:
        result = "refused" if "\n" not in str(error).strip() else f"more than a line: {error!r:.300}"
    except BaseException as error:
        result = f"{type(error).__module__}.{type(error).__name__}: {error!s:.300}"
    seconds, grown = time.monotonic() - start, _megabytes("VmHWM") - before
    if seconds > SECONDS or grown > MEGABYTES:
        return f"{seconds:.1f} s and {grown} MB for: {result}"
    if result == "ok" and not _same(got, sound) and not (target.oracle and _agrees(target.oracle, got)):
        return f"another result: {got!r:.300}"
    return result


def _agrees(oracle: Callable[[], object], got: object) -> bool:
    try:
        return _same(got, oracle())
    except BaseException:
        return False


def main(kind: str, first: int, count: int, folder: Path) -> None:
    """Print a line for each case."""
    warnings.simplefilter("ignore")
    target = KINDS[kind](folder)
    # A matrix may be a view of the file, which is about to change.
    sound = deepcopy(target.call())
    whole = {path: path.read_bytes() for path in target.files}
    # A size that a file only claims is to be refused, not tried.
    used = _megabytes("VmSize") << 20
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), resource.RLIM_INFINITY))
    for number in range(first, first + count):
        draw = random.Random(f"{kind} {number}")
        path = draw.choice(target.files)
        path.write_bytes(damaged(whole[path], draw))
        print(number, " ".join(outcome(target, sound).split()), flush=True)
        path.write_bytes(whole[path])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
