"""Measures of a pair set against their limits: shares, the length ratio, label noise, and what a stop says."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.auditing import (
    RATIO,
    SHOWN,
    Offence,
    interval,
    limit,
    lines,
    measure,
    ratio_of_means,
    share,
    short,
    stop_message,
)
from rlrf.label_noise import Reliability, label_noise, reliability

counts = st.integers(0, 60)
totals = st.lists(st.tuples(st.floats(1, 900), st.floats(1, 900)), min_size=1, max_size=30)
USUAL = {(True, False): 10}


@given(n=st.integers(1, 500), data=st.data())
def test_a_share_lies_in_its_interval_and_keeps_limits_from_its_value_on(n: int, data: st.DataObject) -> None:
    count, bound = data.draw(st.integers(0, n)), data.draw(st.floats(0, 1))
    one = share("ties", count, n, bound, "pairs")
    assert one.value is not None
    assert one.low is not None
    assert one.high is not None
    assert 0 <= one.low <= one.value <= one.high <= 1
    assert one.passed == (count / n <= bound)
    assert share("top_yield", count, n, bound, "responses").passed == (count / n >= bound)
    assert share("ties", count, n, None, "pairs").passed


def test_what_was_not_measured_keeps_no_limit() -> None:
    assert not share("ties", 0, 0, 1.0, "pairs").passed
    assert share("ties", 0, 0, None, "pairs").passed
    assert not measure("label_noise", None, 0, 0.5, "not measured").passed


def test_offences_are_kept_up_to_ten_and_only_where_something_offends() -> None:
    several = [Offence(str(at), "said") for at in range(30)]
    assert share("ties", 30, 30, None, "pairs", several).offences == tuple(several[:SHOWN])
    assert share("ties", 0, 30, None, "pairs", several).offences == ()


@given(totals)
def test_the_length_ratio_turns_round_with_its_sides(pairs: list[tuple[float, float]]) -> None:
    above, below = zip(*pairs, strict=True)
    value, low, high = ratio_of_means(above, below)
    assert value == pytest.approx(sum(above) / sum(below))
    assert low <= value <= high
    assert ratio_of_means(below, above) == pytest.approx((1 / value, 1 / high, 1 / low))


@pytest.mark.parametrize(("sides", "value"), [(([0.0], [3.0]), 0.0), (([3.0], [0.0]), math.inf), (([0.0], [0.0]), 1.0)])
def test_the_ratio_of_nothing(sides: tuple[list[float], list[float]], value: float) -> None:
    assert ratio_of_means(*sides) == (value, value, value)


def test_the_ratios_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Prompts with lengths of their own, chosen 1.2 times as long as rejected."""
    draw = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        own = draw.gamma(4, 25, size=80)
        rejected = own * draw.gamma(20, 1 / 20, size=80)
        chosen = 1.2 * own * draw.gamma(20, 1 / 20, size=80)
        _, low, high = ratio_of_means(list(chosen), list(rejected))
        covered += low <= 1.2 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("value", "passed"), [(0.49, False), (0.5, True), (1.0, True), (2.0, True), (2.01, False)])
def test_the_ratio_is_limited_both_ways(value: float, passed: bool) -> None:
    assert measure(RATIO, (value, value, value), 9, 2.0, "said").passed == passed


def test_label_noise_by_hand() -> None:
    found = Reliability(top_right=90, top_wrong=10, other_right=20, other_wrong=80)
    (noise, low, high), (inverted, least, most) = label_noise(found, USUAL, seed=1)
    assert (found.ppv, found.npv) == (0.9, 0.8)
    assert noise == pytest.approx(1 - 0.9 * 0.8)
    assert inverted == pytest.approx(0.1 * 0.2)
    assert (low, high) == pytest.approx((0.20, 0.37), abs=0.02)
    assert (least, most) == pytest.approx((0.010, 0.040), abs=0.006)
    assert label_noise(found, USUAL, seed=1)[0] == (noise, low, high)


def test_label_noise_of_pairs_that_are_not_top_against_other() -> None:
    found = Reliability(90, 10, 20, 80)
    assert label_noise(found, {(False, False): 3}, 0)[0][0] == pytest.approx(1 - 0.2 * 0.8)
    assert label_noise(found, {(True, True): 3}, 0)[0][0] == pytest.approx(1 - 0.9 * 0.1)
    both = label_noise(found, {(True, True): 1, (True, False): 3}, 0)[0][0]
    assert both == pytest.approx((0.91 + 3 * 0.28) / 4)


def test_simulated_pairs_are_mislabelled_as_often_as_expected() -> None:
    draw, right = random.Random(4), Reliability(180, 20, 60, 140)
    pairs = [(draw.random() < right.ppv, draw.random() < right.npv) for _ in range(20_000)]
    (noise, *_), (inverted, *_) = label_noise(right, USUAL, 0)
    assert sum(not (good and bad) for good, bad in pairs) / 20_000 == pytest.approx(noise, abs=0.01)
    assert sum(not good and not bad for good, bad in pairs) / 20_000 == pytest.approx(inverted, abs=0.01)


@given(st.tuples(counts, counts, counts, counts), st.integers(0, 5))
def test_noise_is_a_share_and_inverted_pairs_are_part_of_it(cells: tuple[int, int, int, int], seed: int) -> None:
    one, two, three, four = cells
    if not one + two or not three + four:
        return
    (noise, low, high), (inverted, least, most) = label_noise(Reliability(*cells), USUAL, seed)
    assert 0 <= low <= noise <= high <= 1
    assert 0 <= least <= inverted <= most <= 1
    assert inverted <= noise + 1e-12
    assert (noise == 0) == (two == 0 and three == 0)


@pytest.mark.parametrize(
    "confusion",
    [
        {"true": {"1": 7, "0": 1, "-1": 2}, "false": {"1": 4, "-1": 5}},
        {"True": {"1.0": 7, "0.0": 3}, "False": {"1.0": 4, "-1.0": 5}},
        {"3": {"1": 7, "0": 3}, "2": {"1": 1, "-1": 2}, "1": {"1": 3, "-1": 3, "unrated": 40}},
    ],
)
def test_a_confusion_is_read_by_its_highest_label_and_rating(confusion: dict[str, dict[str, int]]) -> None:
    assert reliability(confusion) == Reliability(7, 4, 3, 5)


def test_a_judge_that_never_gave_its_top_is_not_read_as_if_it_had() -> None:
    confusion = {"true": {"0": 7, "-1": 1}, "false": {"-1": 4}}
    assert isinstance(reliability(confusion, 1.0), str)
    assert reliability(confusion) == Reliability(7, 0, 1, 4)


@pytest.mark.parametrize(
    "confusion",
    [{}, {"true": {"1": 3}}, {"A": {"1": 3}, "B": {"0": 3}}, {"1": {"1": 3}}, {"1": {"1": 3}, "0": {"1": 2}}],
)
def test_a_confusion_without_both_sides_says_nothing(confusion: dict[str, dict[str, int]]) -> None:
    assert isinstance(reliability(confusion), str)


def test_the_table_is_of_one_width_and_says_what_is_over() -> None:
    measures = [
        share("ties", 3, 4, 0.5, "pairs"),
        share("top_yield", 3, 4, 0.8, "responses"),
        share("unrated", 1, 4, None, "responses"),
        measure(RATIO, (1.25, 1.1, 1.4), 9, 2.0, "said"),
        measure("label_noise", None, 0, 0.5, "not measured"),
    ]
    said = lines(measures)
    assert len(said) == 6
    assert said[1].split() == ["ties", "75.0%", "30.1", "to", "95.4", "at", "most", "50.0%", "OVER"]
    assert said[2].endswith("at least 80.0%  UNDER")
    assert said[3].split() == ["unrated", "25.0%", "4.6", "to", "69.9"]
    assert said[4].endswith("ok")
    assert said[5].endswith("NOT MEASURED")
    assert len({line.index("%") for line in said[1:4]}) == 1
    assert (interval(measures[3]), limit(measures[3])) == ("1.10 to 1.40", "1/2 to 2")


def test_a_stop_says_limit_value_remedy_and_rows_and_nothing_steers_the_terminal() -> None:
    measures = [share("ties", 3, 4, 0.5, "pairs have equal scores"), share("refinements", 1, 4, None, "pairs")]
    row: dict[str, Any] = {
        "place": 0,
        "said": "both score\n1.00",
        "prompt_id": "0123456789abcdef",
        "prompt": "what\n is \x1b[31mit",
        "chosen": "long " * 90,
        "rejected": None,
    }
    said = stop_message(measures, {"ties": [row], "refinements": [row]})
    assert "audit.ties is at most 50.0%, found 75.0%: 3 of 4 pairs have equal scores" in said
    assert "remedy: the judge can't tell the two apart" in said
    assert "refinements" not in said
    assert r'1. prompt 01234567 "what is \x1b[31mit" | chosen "long long' in said
    assert said.endswith("| both score 1.00")
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) < 260


@given(st.text())
def test_shortened_texts_are_one_safe_line(text: str) -> None:
    said = short(text, 20)
    assert len(said) <= 22
    assert "\n" not in said
    assert "\x1b" not in said
