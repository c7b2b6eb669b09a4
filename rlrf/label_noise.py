"""How many pairs are expected to be mislabelled, given how a judge did on labelled data.

Of the responses that the judge put at the top, a share PPV (positive predictive value) was truly right; of all others, a
share NPV was truly wrong. A pair of one from each side teaches the right thing with probability PPV * NPV, if the two
errors are independent and this run's responses are like the labelled ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 20_000

Confusion = Mapping[str, Mapping[str, int]]
"""label -> rating -> number of responses, both as text."""

Sides = Mapping[tuple[bool, bool], int]
"""(chosen is at the top, rejected is at the top) -> number of pairs."""

Interval = tuple[float, float, float]
"""Value, low and high."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Labelled responses by the judge's rating (top or not) and by what is true of them."""

    top_right: int
    top_wrong: int
    other_right: int
    other_wrong: int

    @property
    def ppv(self) -> float:
        """Share of the responses at the top that are truly right."""
        return self.top_right / (self.top_right + self.top_wrong)

    @property
    def npv(self) -> float:
        """Share of the other responses that are truly wrong."""
        return self.other_wrong / (self.other_right + self.other_wrong)


def reliability(confusion: Confusion, top: float | None = None) -> Reliability | str:
    """Counts of a confusion, or why it has none.

    Labels are true and false, or numbers of which the highest counts as right. `top` is the highest rating of the judge's
    scale, the highest one given when unset. A rating that is no number is none.
    """
    right = _right_labels(list(confusion))
    if right is None:
        return f"its labels {sorted(confusion)!r} are neither true and false nor several numbers"
    ratings = [rating for row in confusion.values() for rating in map(_number, row) if rating is not None]
    top = max(ratings, default=math.nan) if top is None else top
    found = {(at_top, truly): 0 for at_top in (True, False) for truly in (True, False)}
    for label, row in confusion.items():
        for text, count in row.items():
            rating = _number(text)
            if rating is not None:
                found[rating == top, label in right] += count
    if not found[True, True] + found[True, False] or not found[False, True] + found[False, False]:
        return f"its ratings of the labelled responses are not both at the top ({top:g}) and below it"
    return Reliability(found[True, True], found[True, False], found[False, True], found[False, False])


def label_noise(found: Reliability, sides: Sides, seed: int) -> tuple[Interval, Interval]:
    """Expected shares of pairs whose chosen response is not truly better, and of those whose rejected one is.

    For pairs of a response at the top against one that isn't: 1 - PPV * NPV, and (1 - PPV) * (1 - NPV). The 95 % intervals
    are quantiles of seeded draws from the Beta posteriors of PPV and NPV (Jeffreys' prior).
    """
    draw = np.random.default_rng(seed)
    ppv = np.append(draw.beta(found.top_right + 0.5, found.top_wrong + 0.5, DRAWS), found.ppv)
    npv = np.append(draw.beta(found.other_wrong + 0.5, found.other_right + 0.5, DRAWS), found.npv)
    noise, inverted, pairs = np.zeros(DRAWS + 1), np.zeros(DRAWS + 1), sum(sides.values())
    for (chosen_top, rejected_top), count in sides.items():
        chosen_right = ppv if chosen_top else 1 - npv
        rejected_wrong = 1 - ppv if rejected_top else npv
        noise += count / pairs * (1 - chosen_right * rejected_wrong)
        inverted += count / pairs * (1 - chosen_right) * (1 - rejected_wrong)
    return _interval(noise), _interval(inverted)


def _interval(shares: np.ndarray) -> Interval:
    """The last value, which the point estimates gave, with the draws' 95 % interval around it, within [0, 1]."""
    value = min(1.0, max(0.0, float(shares[-1])))
    low, high = np.quantile(shares[:-1], [0.025, 0.975])
    return value, max(0.0, min(float(low), value)), min(1.0, max(float(high), value))


def _right_labels(labels: list[str]) -> set[str] | None:
    if len(labels) > 1 and {label.lower() for label in labels} == {"true", "false"}:
        return {label for label in labels if label.lower() == "true"}
    numbers = {label: number for label in labels if (number := _number(label)) is not None}
    if len(numbers) < len(labels) or len(set(numbers.values())) < 2:
        return None
    return {label for label, number in numbers.items() if number == max(numbers.values())}


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
