"""What the report page is made of, before any of it is HTML; texts are plain and go through the template's escaping."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlrf.terminal import visible


@dataclass(frozen=True)
class Table:
    """A table and where its numbers come from. The first cell of a row is its head."""

    caption: str
    columns: list[str]
    rows: list[list[str]]
    view: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture as an SVG element, what it shows, the view that its numbers come from, and the numbers themselves."""

    svg: str
    caption: str
    view: str
    table: Table


@dataclass(frozen=True)
class Texts:
    """A long text that is shown when asked for."""

    title: str
    text: str


@dataclass
class Section:
    """One section of the page."""

    id: str
    title: str
    text: str = ""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    texts: list[Texts] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show, not even a sentence."""
        return not (self.text or self.figures or self.tables or self.texts)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], view: str = "") -> Table:
    """A table of any values: None is empty, whole numbers get separators, floats four digits."""
    return Table(caption, [visible(one) for one in columns], [[cell(one) for one in row] for row in rows], view)


def cell(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return visible(str(value))


def percent(value: float | None) -> str:
    """A share as text."""
    return "" if value is None else f"{value:.1%}"


def interval(low: float | None, high: float | None, scale: float = 1, digits: int = 3) -> str:
    """An interval as text."""
    return "" if low is None or high is None else f"{scale * low:.{digits}f} to {scale * high:.{digits}f}"


def plural(count: int, noun: str) -> str:
    """3 pairs, 1 pair."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
