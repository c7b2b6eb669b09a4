"""Text of models, files and servers, made safe to show: what steers a terminal is spelled out instead."""

from __future__ import annotations

import re

_STEERING = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline: colours, titles, cursor, erasing
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, which make text read as what it isn't
    "\u2028\u2029"  # line breaks that an editor shows and a log doesn't
    "\ud800-\udfff"  # lone surrogates, which no output encoding takes
    "]"
)


def visible(text: str) -> str:
    """The text with every steering character as a Python escape, `\\x1b` for one; tabs, newlines and letters stay."""
    return _STEERING.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)
