from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import ConfigError
from rlrf.judges.match import MatchJudge
from rlrf.judges.math import MathJudge
from rlrf.judges.panel import Merge, PanelJudge, merge
from rlrf.judges.protocol import Judge
from rlrf.records import Case, Judgement, Rating, Scale

RULES: tuple[Merge, ...] = ("mean", "median", "min", "majority")


class SteadyJudge:
    """Says the same of every response, last case first and one at a time; a judge that fails has a reason."""

    def __init__(self, ratings: dict[str, float], weight: float = 1, scale: Scale = (-1, 1), reason: str = "") -> None:
        self.aspects = tuple(ratings)
        self.weights = dict.fromkeys(self.aspects, weight)
        self.scales = dict.fromkeys(self.aspects, scale)
        self.given, self.reason, self.closed = ratings, reason, 0

    def ingredients(self) -> dict[str, Any]:
        return {"type": "steady", "given": self.given, "reason": self.reason}

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        for case in reversed(cases):
            ratings = tuple(Rating(a, r, f"{a} {r}", self.scales[a]) for a, r in self.given.items())
            yield [Judgement(case.response_id, () if self.reason else ratings, self.reason or None, "raw", 5, 7, 1)]

    def close(self) -> None:
        self.closed += 1


def verdict(reason: str | None = None, scale: Scale = (-1, 1), /, **ratings: float | None) -> Judgement:
    return Judgement(
        "r1", tuple(Rating(a, r, f"{a} is {r}.", scale) for a, r in ratings.items()), reason, "raw", 9, 9, 1
    )


def ratings(judgement: Judgement) -> dict[str, float | None]:
    return {rating.aspect: rating.rating for rating in judgement.ratings}


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        ("mean", [1, 0, 1], 2 / 3),
        ("mean", [0.1, 0.1, 0.1], 0.1),
        ("median", [1, -1, 1], 1),
        ("median", [1, 0], 0.5),
        ("min", [1, 0, -1], -1),
        ("majority", [1, 0, 1], 1),
        ("majority", [1, 0], None),
        ("majority", [1, 0, -1], None),
        ("majority", [1, 1, 0, 0], None),
    ],
)
def test_each_rule(rule: Merge, given: list[float], expected: float | None) -> None:
    merged = merge([verdict(good=one) for one in given], rule)
    assert ratings(merged) == {"good": expected}
    assert merged.reason == (None if expected is not None else "no_majority: good")


def test_aspects_meet_by_name_and_critiques_come_once() -> None:
    merged = merge([verdict(a=1, b=0), verdict(b=0, c=-1), verdict(b=1)], "median")
    assert ratings(merged) == {"a": 1, "b": 0, "c": -1}
    assert merged.ratings[1].critique == "b is 0. b is 1."
    assert merged.rated and merged.raw_reply is None
    assert (merged.prompt_tokens, merged.completion_tokens, merged.attempts) == (0, 0, 0)


def test_without_a_quorum_every_judge_that_has_the_aspect_must_rate_it() -> None:
    merged = merge([verdict(a=1, b=1), verdict("unrated_aspects: a ('N/A')", a=None, b=1)], "mean")
    assert merged.reason == "no_quorum: a 1 of 2 (judge 2: unrated_aspects: a ('N/A'))"
    assert ratings(merged) == {"a": None, "b": 1}


def test_a_quorum_lets_judges_fail() -> None:
    judges = [verdict(a=1), verdict("judge_failed:timeout"), verdict(a=1)]
    assert merge(judges, "mean", 2).rated and ratings(merge(judges, "mean", 2)) == {"a": 1}
    assert merge(judges, "mean", 3).reason == "no_quorum: a 2 of 3 (judge 2: judge_failed:timeout)"
    assert merge(judges, "mean").reason == "no_quorum: a 2 of 3 (judge 2: judge_failed:timeout)"


def test_an_aspect_of_a_judge_that_failed_is_not_forgotten() -> None:
    judges, aspects = [verdict(a=1), verdict("no_reference")], [("a",), ("answer",)]
    merged = merge(judges, "mean", 1, aspects)
    assert merged.reason == "no_quorum: answer 0 of 1 (judge 2: no_reference)"
    assert ratings(merged) == {"a": 1, "answer": None}


def test_judges_that_chose_among_their_aspects_stand_in_for_one_that_failed() -> None:
    aspects = [("a", "b", "c")] * 3
    merged = merge([verdict(a=1, b=1), verdict(a=1, b=1), verdict("no_json")], "median", 2, aspects)
    assert merged.rated and ratings(merged) == {"a": 1, "b": 1}


def test_an_aspect_of_few_judges_needs_no_more_than_those() -> None:
    assert merge([verdict(a=1, answer=1), verdict(a=1), verdict(a=1)], "mean", 2).rated


def test_one_reason_of_all_is_the_reason() -> None:
    assert merge([verdict("truncated"), verdict("truncated")], "mean") == Judgement("r1", reason="truncated")
    merged = merge([verdict("no_json"), verdict("no_reference")], "mean")
    assert merged.reason == "no_quorum: no aspect has a rating (judge 1: no_json, judge 2: no_reference)"
    assert merged.ratings == ()


def test_two_scales_of_one_aspect_do_not_mix() -> None:
    merged = merge([verdict(a=1, b=1), verdict(None, (0, 1), a=1)], "mean")
    assert merged.reason == "scales_differ: a" and ratings(merged) == {"a": None, "b": 1}
    with pytest.raises(ConfigError, match="'a' has the scales"):
        PanelJudge([SteadyJudge({"a": 1}), SteadyJudge({"a": 1}, scale=(0, 1))])


def test_verdicts_must_be_on_one_response() -> None:
    with pytest.raises(ValueError, match="give those on one"):
        merge([Judgement("r1"), Judgement("r2")], "mean")
    with pytest.raises(ValueError, match="give those on one"):
        merge([], "mean")


VERDICTS = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from("abc"), st.sampled_from([-1.0, 0.0, 1.0, 0.3]), min_size=1).map(
            lambda given: verdict(**given)
        ),
        st.dictionaries(st.sampled_from("abc"), st.none(), min_size=1).map(lambda given: verdict("no", **given)),
        st.just(verdict("truncated")),
    ),
    min_size=1,
    max_size=6,
)


@given(
    VERDICTS, st.sampled_from(RULES), st.none() | st.integers(1, 6), st.randoms(use_true_random=False), st.booleans()
)
def test_order_changes_no_merged_rating(verdicts: list[Judgement], rule: Merge, quorum: int | None, chance: Any, known: bool) -> None:  # fmt: skip
    aspects = [tuple("abc") for _ in verdicts] if known else None
    merged = merge(verdicts, rule, quorum, aspects)
    shuffled = list(verdicts)
    chance.shuffle(shuffled)
    again = merge(shuffled, rule, quorum, aspects)
    assert ratings(again) == ratings(merged)
    assert again.rated == merged.rated
    assert merged.rated == (bool(merged.ratings) and None not in ratings(merged).values())


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=7), st.sampled_from(("mean", "median", "min")))
def test_a_merged_rating_lies_between_the_lowest_and_the_highest(given_: list[float], rule: Merge) -> None:
    [only] = merge([verdict(a=one) for one in given_], rule).ratings
    assert only.rating is not None and min(given_) <= only.rating <= max(given_)


@given(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(1, 6), st.sampled_from(RULES))
def test_judges_that_agree_are_believed(level: float, number: int, rule: Merge) -> None:
    assert ratings(merge([verdict(a=level)] * number, rule)) == {"a": level}


def test_a_panel_judges_every_case_once_and_closes_all() -> None:
    members = [SteadyJudge({"a": 1, "b": 0}, weight=3), SteadyJudge({"b": 1, "c": 1})]
    panel: Judge = PanelJudge(members, "mean")
    cases = [Case(str(at), (), None, "") for at in range(600)]
    batches = list(panel.judge(cases))
    assert [len(batch) for batch in batches] == [512, 88]
    assert [one.response_id for batch in batches for one in batch] == [case.response_id for case in cases]
    assert ratings(batches[0][0]) == {"a": 1, "b": 0.5, "c": 1}
    assert panel.aspects == ("a", "b", "c") and panel.weights == {"a": 3, "b": 2, "c": 1}
    panel.close()
    assert [member.closed for member in members] == [1, 1]


def test_stored_verdicts_merge_to_the_same() -> None:
    members: list[Judge] = [
        SteadyJudge({"a": 1}),
        SteadyJudge({"a": 0, "b": 1}),
        SteadyJudge({"b": 1}, reason="no_json"),
    ]
    panel = PanelJudge(members, "mean", 1)
    [[whole]] = panel.judge([Case("r1", (), None, "")])
    stored = [one for member in members for [one] in member.judge([Case("r1", (), None, "")])]
    assert panel.merge(stored) == whole


def test_real_members_merge() -> None:
    panel = PanelJudge([MathJudge(), MatchJudge("regex", r"(?s).*#### \d+")], "min")
    [[judgement]] = panel.judge([Case("r1", (), "42", "Step 1: 13 + 28 = 41.\n#### 41")])
    assert ratings(judgement)["answer"] == -1 and ratings(judgement)["format"] == 1
    assert "42" not in " ".join(rating.critique for rating in judgement.ratings)
    [[truncated]] = panel.judge([Case("r1", (), "42", "Step", "length")])
    assert truncated.reason == "truncated"


def test_identity_has_the_members_the_rule_and_the_quorum() -> None:
    members = [SteadyJudge({"a": 1}), SteadyJudge({"a": 0})]
    kinds = [PanelJudge(members), PanelJudge(members, "min"), PanelJudge(members, quorum=1), PanelJudge(members[::-1])]
    assert len({json.dumps(panel.ingredients()) for panel in kinds}) == 4


@pytest.mark.parametrize(("number", "quorum"), [(1, None), (2, 3)])
def test_a_panel_that_cannot_work_is_refused(number: int, quorum: int | None) -> None:
    with pytest.raises(ConfigError, match="two or more"):
        PanelJudge([SteadyJudge({"a": 1})] * number, "mean", quorum)
