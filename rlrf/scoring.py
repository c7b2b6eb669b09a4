"""One number per response, and whether it counts as fully successful.

In the paper a scalar reward model ranks responses; with a judge alone, the weighted mean of its ratings does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlrf.records import Rating


def score(ratings: Sequence[Rating], weights: Mapping[str, float]) -> float | None:
    """The weighted mean of the ratings' levels, in [-1, 1] (a reward: the reward); None when one is unrated or none is there.

    Raises:
        ValueError: an aspect without a weight, or a weight that is not positive.
    """
    if not ratings:
        return None
    missing = sorted({rating.aspect for rating in ratings} - {name for name, weight in weights.items() if weight > 0})
    if missing:
        raise ValueError(f"aspects {missing!r} without a positive weight in {dict(weights)!r}: give each one")
    levels = [rating.level for rating in ratings]
    if None in levels:
        return None
    shares = [weights[rating.aspect] for rating in ratings]
    return sum(weight * level for weight, level in zip(shares, levels, strict=True) if level) / sum(shares)


def is_positive(ratings: Sequence[Rating]) -> bool:
    """Whether every aspect is at the top of its scale: the paper's D+ (section 3.3)."""
    return bool(ratings) and all(rating.top for rating in ratings)
