"""One number per response, and whether it counts as fully successful.

In the paper a scalar reward model ranks responses; with a judge alone, the weighted mean of its ratings does.
"""

from __future__ import annotations

from collections.abc import Sequence

from rlrf.records import Rating


def score(ratings: Sequence[Rating], weights: Sequence[float]) -> float | None:
    """The weighted mean of the ratings, in [-1, 1]; None when an aspect is unrated or there is none.

    Raises:
        ValueError: not one weight for each rating, or a weight that is not positive.
    """
    if not ratings:
        return None
    if len(ratings) != len(weights) or min(weights) <= 0:
        raise ValueError(f"weights {list(weights)!r} for {len(ratings)} ratings: give each one a positive weight")
    levels = [rating.rating for rating in ratings]
    if None in levels:
        return None
    return sum(weight * level for weight, level in zip(weights, levels, strict=True) if level) / sum(weights)


def is_positive(ratings: Sequence[Rating]) -> bool:
    """Whether every aspect is at the top level: the paper's D+ (section 3.3)."""
    return bool(ratings) and all(rating.rating == 1 for rating in ratings)
