from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import ConfigError, DataError
from rlrf.judge_checking import Example, check, data_digest, result, with_chosen_aspects
from rlrf.labels import Label
from rlrf.records import LEVELS, UNBOUNDED, Case, Choice, Judgement, Prompt, Rating, Scale

ASPECTS = ("answer", "steps")


class Parrot:
    """Rates both aspects with the number that the response is; 'none' is unrated, though it has a rating of one aspect."""

    aspects = ASPECTS

    def __init__(self, scale: Scale = LEVELS, batch: int = 3) -> None:
        self.scale, self.batch, self.asked = scale, batch, 0
        self.weights = dict.fromkeys(ASPECTS, 1.0)

    def ingredients(self) -> dict[str, Any]:
        return {"type": "parrot"}

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        for start in range(0, len(cases), self.batch):
            batch = cases[start : start + self.batch]
            self.asked += len(batch)
            yield [self._judge(case) for case in reversed(batch)]

    def choose(self, prompts: Sequence[Prompt]) -> Iterator[list[Choice]]:
        yield [Choice(prompt.prompt_id, (prompt.messages[0]["content"],), prompt_tokens=2) for prompt in prompts]

    def close(self) -> None:
        """Holds nothing."""

    def _judge(self, case: Case) -> Judgement:
        if case.text == "none":
            return Judgement(case.response_id, (Rating("answer", 1),), reason="no_json", prompt_tokens=5)
        ratings = tuple(Rating(name, float(case.text), "", self.scale) for name in case.aspects or ASPECTS)
        return Judgement(case.response_id, ratings, prompt_tokens=5, completion_tokens=7)


def example(number: int, text: str, label: Label | None = True, question: str = "answer", **labels: Label) -> Example:
    given = labels or {"answer": True if label is None else label}
    case = Case(f"id {number}", ({"role": "user", "content": question},), None, text, prompt_id=question)
    return Example(case, given, f"row {number}")


def quiet(done: int, unrated: int) -> None:
    """Nobody watches."""


TEXTS = st.lists(st.tuples(st.sampled_from(["-1", "0", "1", "none"]), st.booleans()), min_size=1, max_size=30)


@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows: list[tuple[str, bool]], random) -> None:  # type: ignore[no-untyped-def]
    examples = [example(number, text, label) for number, (text, label) in enumerate(rows)]
    shuffled = random.sample(examples, len(examples))
    [one], _ = check(Parrot(), examples, quiet)
    [other], _ = check(Parrot(), shuffled, quiet)
    assert one.plain() | {"alpha": None} == other.plain() | {"alpha": None}
    assert one.alpha == pytest.approx(other.alpha)
    assert data_digest(examples) == data_digest(shuffled)


@given(TEXTS)
def test_unrated_responses_never_agree(rows: list[tuple[str, bool]]) -> None:
    [found], _ = check(Parrot(), [example(number, *row) for number, row in enumerate(rows)], quiet)
    rated = [(text, label) for text, label in rows if text != "none"]
    equal = sum((text == "1") == label for text, label in rated)
    assert (found.n, found.unrated) == (len(rated), len(rows) - len(rated))
    assert found.agreement == (equal / len(rated) if rated else None)
    assert found.agreement_of_all == equal / len(rows)
    assert found.reasons == ({"no_json": found.unrated} if found.unrated else {})
    assert sum(count for row in found.confusion.values() for count in row.values()) == len(rows)


def test_progress_is_told_of_every_response() -> None:
    told: list[tuple[int, int]] = []
    check(Parrot(), [example(n, "none" if n % 2 else "1") for n in range(7)], lambda *done: told.append(done))
    assert [sum(column) for column in zip(*told, strict=True)] == [7, 3]


def test_a_label_off_the_scale_stops_at_the_first_batch() -> None:
    judge = Parrot((1, 5))
    with pytest.raises(DataError, match=r"row 8 is 7.0, off the judge's scale 1 to 5"):
        check(judge, [example(n, "3", 7.0 if n == 8 else 3.0) for n in range(9)], quiet)
    assert judge.asked == 3


def test_a_reward_can_not_agree_with_a_label() -> None:
    with pytest.raises(ConfigError, match="'answer' has no highest value"):
        check(Parrot(UNBOUNDED), [example(0, "3")], quiet)


def test_labels_on_another_scale() -> None:
    [found], _ = check(Parrot((1, 5)), [example(n, text, 4.0) for n, text in enumerate("4451")], quiet)
    assert (found.labels, found.agreement) == ("scale", 0.5)
    assert found.confusion == {"4": {"1": 1, "4": 2, "5": 1}}


def test_an_aspect_that_was_not_rated_has_a_reason() -> None:
    examples, choices = with_chosen_aspects(Parrot(), [example(0, "1", question="steps"), example(1, "1")])
    assert [one.case.aspects for one in examples] == [("steps",), ("answer",)]
    [found], judgements = check(Parrot(), examples, quiet)
    assert (found.n, found.reasons) == (1, {"aspect_not_rated": 1})
    told = result(Parrot(), [found], [*choices, *judgements], 2, 0.5)
    assert told["tokens"] == {"prompt": 2 * 2 + 2 * 5, "completion": 14}
    assert (told["responses_per_second"], told["n"], told["judge"]) == (4.0, 1, "parrot")


def test_other_contents_are_other_data() -> None:
    base = [example(0, "1"), example(1, "0", False)]
    changed = [
        [base[0]],
        [base[0], example(1, "0", True)],
        [base[0], example(1, "1", False)],
        [example(0, "1", question="other"), base[1]],
    ]
    assert len({data_digest(one) for one in (base, *changed)}) == 5
