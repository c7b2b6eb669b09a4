from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.records import UNBOUNDED, Rating
from rlrf.scoring import is_positive, score

LEVELS = st.sampled_from([-1, 0, 1])
WEIGHTS = st.floats(0.01, 100)


def ratings(*levels: int | None) -> tuple[Rating, ...]:
    return tuple(Rating(f"aspect_{at}", level) for at, level in enumerate(levels))


def weights(*given: float) -> dict[str, float]:
    return {f"aspect_{at}": weight for at, weight in enumerate(given)}


def test_score_is_the_weighted_mean() -> None:
    assert score(ratings(1, 0, -1), weights(3.0, 1.0, 1.0)) == pytest.approx(0.4)


def test_ratings_on_other_scales_count_by_their_place_on_them() -> None:
    rated = (Rating("clarity", 5, scale=(1, 5)), Rating("depth", 3, scale=(1, 5)))
    assert [rating.level for rating in rated] == [1, 0]
    assert score(rated, {"clarity": 1.0, "depth": 1.0}) == 0.5
    assert is_positive(rated[:1]) and not is_positive(rated)


@pytest.mark.parametrize("rating", [2, -1.5, float("nan"), float("inf")])
def test_a_rating_off_its_scale_is_no_rating(rating: float) -> None:
    with pytest.raises(ValueError, match="answer"):
        Rating("answer", rating)


def test_a_reward_is_its_own_score_and_never_at_the_top() -> None:
    reward = (Rating("reward", 7.25, scale=UNBOUNDED),)
    assert score(reward, {"reward": 1.0}) == 7.25
    assert not is_positive(reward)


def test_unrated_has_no_score_and_is_not_positive() -> None:
    assert score(ratings(1, None), weights(1.0, 1.0)) is None
    assert score((), {}) is None
    assert not is_positive(ratings(1, None))
    assert not is_positive(())


@pytest.mark.parametrize("given", [[1.0], [1.0, 0.0], [1.0, -1.0]])
def test_weights_that_do_not_fit_are_refused(given: list[float]) -> None:
    with pytest.raises(ValueError, match="positive weight"):
        score(ratings(1, 1), weights(*given))


@given(st.lists(st.tuples(LEVELS, WEIGHTS), min_size=1, max_size=8))
def test_score_lies_on_the_scale_and_is_1_exactly_for_positives(pairs: list[tuple[int, float]]) -> None:
    rated = ratings(*(level for level, _ in pairs))
    result = score(rated, weights(*(weight for _, weight in pairs)))
    assert result is not None
    assert -1 <= result <= 1 + 1e-12
    assert is_positive(rated) == (result > 1 - 1e-9)
