from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.records import Rating
from rlrf.scoring import is_positive, score

LEVELS = st.sampled_from([-1, 0, 1])
WEIGHTS = st.floats(0.01, 100)


def ratings(*levels: int | None) -> tuple[Rating, ...]:
    return tuple(Rating(f"aspect_{at}", level) for at, level in enumerate(levels))


def test_score_is_the_weighted_mean() -> None:
    assert score(ratings(1, 0, -1), [3.0, 1.0, 1.0]) == pytest.approx(0.4)


def test_unrated_has_no_score_and_is_not_positive() -> None:
    assert score(ratings(1, None), [1.0, 1.0]) is None
    assert score((), ()) is None
    assert not is_positive(ratings(1, None))
    assert not is_positive(())


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        score(ratings(1, 1), weights)


@given(st.lists(st.tuples(LEVELS, WEIGHTS), min_size=1, max_size=8))
def test_score_lies_on_the_scale_and_is_1_exactly_for_positives(pairs: list[tuple[int, float]]) -> None:
    rated = ratings(*(level for level, _ in pairs))
    result = score(rated, [weight for _, weight in pairs])
    assert result is not None
    assert -1 <= result <= 1 + 1e-12
    assert is_positive(rated) == (result > 1 - 1e-9)
