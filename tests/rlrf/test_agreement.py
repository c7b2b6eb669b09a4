from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.agreement import MOST_VALUES, alpha, confusion, count_units, two_raters

LEVELS = st.sampled_from([-1.0, 0.0, 1.0])
PAIRS = st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=60)

TEXTBOOK = [
    (1, 1, 1),
    (2, 2, 3, 2),
    (3, 3, 3, 3),
    (3, 3, 3, 3),
    (2, 2, 2, 2),
    (1, 2, 3, 4),
    (4, 4, 4, 4),
    (1, 1, 2, 1),
    (2, 2, 2, 2),
    (5, 5, 5),
    (1, 1),
    (3,),
]
"""A worked example of Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: four observers, twelve units, gaps."""


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_responses_changes_nothing(pairs: list[tuple[float, float]], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = random.sample(pairs, len(pairs))
    first, second = two_raters(count_units(pairs)), two_raters(count_units(shuffled))
    assert (first.n, first.share, first.alpha) == (second.n, second.share, pytest.approx(second.alpha))
    assert first.difference == pytest.approx(second.difference)


@given(PAIRS)
def test_who_is_first_changes_only_the_sign_of_the_difference(pairs: list[tuple[float, float]]) -> None:
    one, other = two_raters(count_units(pairs)), two_raters(count_units((b, a) for a, b in pairs))
    assert (one.share, one.alpha) == (other.share, pytest.approx(other.alpha))
    assert one.difference == pytest.approx(-other.difference)


@given(st.lists(LEVELS, min_size=2, max_size=60).filter(lambda levels: len(set(levels)) > 1))
def test_perfect_agreement_is_alpha_1(levels: list[float]) -> None:
    found = two_raters(count_units((level, level) for level in levels))
    assert found.alpha == pytest.approx(1.0)
    assert (found.share, found.high, found.difference) == (1.0, 1.0, 0.0)
    assert found.low < 1.0


@given(PAIRS)
def test_the_interval_holds_the_share(pairs: list[tuple[float, float]]) -> None:
    found = two_raters(count_units(pairs))
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert found.difference_low <= found.difference <= found.difference_high


@pytest.mark.parametrize(("measurement", "expected"), [("nominal", 0.743), ("ordinal", 0.815)])
def test_the_textbook_example(measurement: str, expected: float) -> None:
    units = count_units(tuple(map(float, unit)) for unit in TEXTBOOK)
    assert alpha(units, measurement) == pytest.approx(expected, abs=0.0005)  # type: ignore[arg-type]


def test_ratings_that_say_the_opposite_are_worse_than_chance() -> None:
    found = two_raters({(-1.0, 1.0): 10, (1.0, -1.0): 10})
    assert found.alpha is not None
    assert found.alpha < 0
    assert (found.share, found.difference) == (0.0, 0.0)


@pytest.mark.parametrize(
    "units",
    [
        {},
        {(1.0,): 5},
        {(1.0, 1.0): 5},
        {(1.0, 1.0): 5, (0.0,): 5},
        {(float(value), float(value)): 1 for value in range(MOST_VALUES + 1)},
    ],
    ids=["nothing", "one rater", "one value", "one value twice rated", "measurements"],
)
def test_alpha_without_a_meaning_is_none(units: dict[tuple[float, ...], int]) -> None:
    assert alpha(units, "ordinal") is None


def test_no_response_is_no_agreement() -> None:
    found = two_raters({})
    assert (found.n, found.low, found.high, found.alpha) == (0, 0.0, 1.0, None)
    assert math.isnan(found.share)


def test_a_confusion_is_in_the_order_of_its_numbers() -> None:
    table = confusion([("10", "1"), ("2", "unrated"), ("2", "-1"), ("10", "1"), ("2", "1")])
    assert list(table) == ["2", "10"]
    assert list(table["2"].items()) == [("-1", 1), ("1", 1), ("unrated", 1)]
    assert table["10"] == {"1": 2}
