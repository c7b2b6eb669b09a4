"""What evaluation reports: shares and means with intervals, paired differences, and the gate's verdict. Pure numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlrf.config import Gate

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share, within [0, 1]; (0, 1) for no trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    low, high = min(centre - half, share), max(centre + half, share)  # rounding can miss the share at 0 and 1
    return max(0.0, low), min(1.0, high)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % normal interval of the mean; the interval is the point itself for fewer than two values."""
    if not values:
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, mean, mean
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    half = Z95 * math.sqrt(variance / len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Verdict:
    """The gate's decision: the paired gain in accuracy with its 95 % interval, the length ratio, and why."""

    promote: bool
    gain: float
    low: float
    high: float
    length_ratio: float
    reason: str


def gate(new: Sequence[bool], old: Sequence[bool], length_ratio: float, rules: Gate) -> Verdict:
    """Whether the new policy replaces the old one. `new[i]` and `old[i]` answer the same held-out prompt.

    The gain is paired: differences per prompt have a smaller variance than two separate shares.
    """
    gain, low, high = mean_interval([float(a) - float(b) for a, b in zip(new, old, strict=True)])
    said = f"gain {100 * gain:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
    if math.isnan(gain) or low <= rules.min_gain:
        return Verdict(
            False, gain, low, high, length_ratio, f"{said}; its lower bound must exceed {100 * rules.min_gain:+.1f}"
        )
    if length_ratio > rules.max_length_ratio:
        limit = f"answers are {length_ratio:.2f} x as long, limit {rules.max_length_ratio:.2f}"
        return Verdict(False, gain, low, high, length_ratio, f"{said}; {limit}")
    return Verdict(True, gain, low, high, length_ratio, said)
