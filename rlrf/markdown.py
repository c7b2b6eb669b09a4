"""Markdown around text that others wrote: models, files, servers. What they wrote is shown, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rlrf.terminal import visible

_PUNCTUATION = re.compile(r"""[!-/:-@\[-`{-~]""")

SHOWN = 1_500
"""Characters of a text that a block shows; it says how many there are."""


def inline(text: str) -> str:
    """A text on one line, every punctuation mark escaped: no HTML, link, emphasis or end of a table's cell comes of it."""
    return _PUNCTUATION.sub(lambda found: "\\" + found.group(), " ".join(visible(text).split()))


def block(text: str, most: int = SHOWN) -> str:
    """A text as it is, in a fence that it can't close, cut after `most` characters and said so."""
    shown = visible(text)
    said = f"\n\n(the first {most:,} of {len(shown):,} characters)" if len(shown) > most else ""
    shown = shown[:most]
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}{said}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def picture(name: str, source: str) -> str:
    """An image; `source` is a data URI made here."""
    return f"![{inline(name)}]({source})"
