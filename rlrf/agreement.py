"""How far two or more raters of the same responses agree: shares, differences, and Krippendorff's alpha. Pure numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlrf.evaluating import mean_interval, wilson

Measurement = Literal["nominal", "ordinal"]
"""Values are only the same or not, or they also have an order."""

Units = Mapping[tuple[float, ...], int]
"""The ratings of one response, whoever gave none left out -> number of responses with exactly these."""

MOST_VALUES = 100
"""Alpha takes a table of every value against every other; more values than this are measurements, not levels."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two raters over the responses that both rated.

    Attributes:
        n: responses that both rated.
        share: share of equal ratings, NaN for no response; `low` and `high` are its 95 % Wilson interval.
        difference: mean of second minus first; `difference_low` and `difference_high` are its 95 % normal interval.
        alpha: Krippendorff's alpha, None where it is undefined.
    """

    n: int
    share: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    alpha: float | None


def alpha(units: Units, measurement: Measurement) -> float | None:
    """Krippendorff's alpha, agreement beyond chance: 1 perfect, 0 as by chance, below 0 worse than chance.

    Library `krippendorff`. None where it is undefined: no response with two ratings, one value only (nothing says what
    chance would do), or more than 100 values.
    """
    import krippendorff

    kept = {unit: count for unit, count in units.items() if count and len(unit) > 1}
    if not 1 < len({one for unit in kept for one in unit}) <= MOST_VALUES:
        return None
    width = max(map(len, kept))
    rows = [[*unit, *[math.nan] * (width - len(unit))] for unit in kept]
    table = np.repeat(np.array(rows, dtype=float), list(kept.values()), axis=0)
    return float(krippendorff.alpha(reliability_data=table.T, level_of_measurement=measurement))


def two_raters(units: Units, measurement: Measurement = "ordinal") -> Agreement:
    """The agreement of two raters: (first, second) -> number of responses."""
    n = sum(units.values())
    equal = sum(count for (first, second), count in units.items() if first == second)
    differences = [second - first for (first, second), count in sorted(units.items()) for _ in range(count)]
    low, high = wilson(equal, n)
    share = equal / n if n else math.nan
    return Agreement(n, share, low, high, *mean_interval(differences), alpha(units, measurement))


def confusion(pairs: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """label -> rating -> number of responses, both as text and sorted; (label, rating) of every response."""
    found: dict[str, dict[str, int]] = {}
    for label, rating in pairs:
        row = found.setdefault(label, {})
        row[rating] = row.get(rating, 0) + 1
    return {label: dict(sorted(row.items(), key=_by_number)) for label, row in sorted(found.items(), key=_by_number)}


def count_units(units: Iterable[tuple[float, ...]]) -> dict[tuple[float, ...], int]:
    """How many responses have the same ratings."""
    return dict(Counter(units))


def _by_number(item: tuple[str, object]) -> tuple[bool, float, str]:
    try:
        return False, float(item[0]), item[0]
    except ValueError:
        return True, 0.0, item[0]
