"""Regular expressions that nobody vouches for, against text that nobody vouches for: never hangs, never raises a surprise."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import regex

TIMEOUT_S = 1.0
"""Processor time that one match may take."""

MAX_PATTERN = 10_000
MAX_EXPANSION = 100_000
"""Items of a pattern after its counted repeats are written out, as the engine does when it compiles."""

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d{1,10})(?:,\d*)?\}|.", re.DOTALL)


class BadPattern(ValueError):
    """A pattern that can't be used; says why and where."""


class TooSlow(RuntimeError):
    """A match that took longer than `TIMEOUT_S`."""


@lru_cache(maxsize=1024)
def compiled(pattern: str, ignore_case: bool = False) -> Any:
    """A pattern of the library `regex`. Raises BadPattern with the position."""
    if len(pattern) > MAX_PATTERN:
        raise BadPattern(f"it has {len(pattern):,} characters, more than {MAX_PATTERN:,}")
    if _expansion(pattern) > MAX_EXPANSION:
        raise BadPattern(f"its nested repeats come to more than {MAX_EXPANSION:,} items")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise BadPattern(f"{error.msg} at position {error.pos}") from error
    except (RecursionError, MemoryError, ValueError, OverflowError) as error:
        raise BadPattern(f"it can't be compiled ({type(error).__name__})") from error


def matches(pattern: str, text: str, *, whole: bool, ignore_case: bool = False) -> bool:
    """Whether the pattern fits all of the text, or some of it. Raises BadPattern and TooSlow."""
    ready = compiled(pattern, ignore_case)
    try:
        return (ready.fullmatch if whole else ready.search)(text, timeout=TIMEOUT_S) is not None
    except (TimeoutError, MemoryError) as error:
        raise TooSlow(pattern) from error


def _expansion(pattern: str) -> int:
    """How many items the pattern has once `x{n}` is n times x; an estimate from above for well-formed ones."""
    sums, last = [0], 0
    for piece in _PIECE.finditer(pattern):
        if piece[0] == "(":
            sums.append(0)
            last = 0
        elif piece[0] == ")" and len(sums) > 1:
            last = sums.pop() + 1
            sums[-1] += last
        elif piece[1]:
            times = max(1, int(piece[1]))
            sums[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sums[-1] += 1
    return sum(sums)
