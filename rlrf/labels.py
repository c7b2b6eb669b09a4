"""Labels that people gave to responses, read so that they can be compared with a judge's ratings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rlrf.errors import DataError
from rlrf.records import Rating, Scale

Label = bool | float
"""Right or wrong, or a number on the judge's scale."""

Kind = Literal["binary", "scale"]
"""binary: compared with "at the top of its scale"; scale: compared with the rating."""


class Labelled(NamedTuple):
    """A label and the place of its row in the file."""

    place: str
    label: Label


def read_labels(value: Any, place: str, aspect: str, aspects: Sequence[str]) -> dict[str, Label]:
    """The labels of a cell by aspect: one for `aspect`, or an object with one per aspect (null: none).

    Raises:
        DataError: no label, an aspect that the judge doesn't rate, a value that is neither true or false nor a number.
    """
    if not isinstance(value, Mapping):
        return {aspect: _label(value, place)}
    if strange := sorted(set(map(str, value)) - set(aspects)):
        raise DataError(f"{place}: labels for {strange!r}, which the judge doesn't rate; it rates {list(aspects)!r}")
    found = {name: _label(one, f"{place}, aspect {name!r}") for name, one in value.items() if one is not None}
    if not found:
        raise DataError(f"{place} is {value!r}: there is no label in it; label the row or remove it")
    return found


def as_one_kind(labelled: Sequence[Labelled]) -> tuple[Kind, list[Label]]:
    """Whether a column's labels are right and wrong, or numbers on a scale, and the labels as such.

    They are right and wrong if each is true, false, 0 or 1. Raises DataError where truth values stand beside other numbers.
    """
    values = {one.label for one in labelled}
    if values <= {0, 1}:
        return "binary", [bool(one.label) for one in labelled]
    other = next(one for one in labelled if one.label not in (0, 1))
    for one in labelled:
        if isinstance(one.label, bool):
            raise DataError(
                f"{one.place} is {one.label!r}, but {other.place} is {other.label!r}; write all labels as true and false, "
                "or all as numbers on the judge's scale"
            )
    return "scale", [float(one.label) for one in labelled]


def check_on_scale(labelled: Sequence[Labelled], scale: Scale) -> None:
    """Raise DataError for the first label that is off the judge's scale."""
    low, high = scale
    for one in labelled:
        if not low <= one.label <= high:
            raise DataError(
                f"{one.place} is {one.label!r}, off the judge's scale {low:g} to {high:g}; labels are true and false, "
                "0 and 1, or numbers on that scale"
            )


def compared(rating: Rating, kind: Kind) -> float:
    """What a label of this kind is compared with: whether the rating is at the top, as 0 or 1, or the rating itself."""
    assert rating.rating is not None, "an unrated response is never compared"
    return float(rating.top) if kind == "binary" else float(rating.rating)


def shown(value: Label | None) -> str:
    """A label or rating as the confusion names it: true, false, 4, -0.5; "unrated" for None."""
    if value is None:
        return "unrated"
    return str(value).lower() if isinstance(value, bool) else f"{value:.12g}"


def _label(value: Any, place: str) -> Label:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{place} is {value!r}; a label is true or false, 0 or 1, or a number on the judge's scale: label the row or "
            "remove it"
        )
    return number
