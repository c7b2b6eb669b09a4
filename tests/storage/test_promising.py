from __future__ import annotations

import pytest

from rlrf.config import Budget
from rlrf.records import UNBOUNDED, Judgement, Rating
from storage import promising, rows
from storage.judgements import add_judgements
from storage.store import Store
from tests.storage.builders import JUDGE, RUN, completion, judge, judgement, members, prompt, respond, uid

REWARD, MEMBER, OTHER = uid("reward"), uid("member"), uid("other")


def reward(store: Store, **scores: float | None) -> None:
    said = [
        Judgement(
            uid(name),
            () if score is None else (Rating("reward", score, scale=UNBOUNDED),),
            None if score is not None else "no",
        )
        for name, score in scores.items()
    ]
    add_judgements(store, REWARD, said, {"reward": 1.0}, RUN)


def prompts_with(store: Store, **levels: list[tuple[int, int] | None]) -> str:
    """A prompt per name, with a response per pair of levels; None for an unrated one. Returns the set's key."""
    names = []
    for name, found in levels.items():
        rows.add_prompts(store, [prompt(name)])
        each = [f"{name}{at}" for at in range(len(found))]
        respond(store, name, [completion(one) for one in each])
        said = [
            judgement(one, *(pair or ()), reason=None if pair else "no reply")
            for one, pair in zip(each, found, strict=True)
        ]
        judge(store, *said)
        names += each
    return members(store, "set", names)


def picked(store: Store, key: str, pick: str = "best", **settings: object) -> set[str]:
    return {row["response_id"] for row in promising.promising(store, key, JUDGE, pick, 0, **settings)}  # type: ignore[arg-type]


def test_the_reward_picks_and_those_without_one_come_last(store: Store) -> None:
    key = prompts_with(store, p=[(1, 1), (0, 0), (-1, 0), None], q=[(0, 0), (1, 0)])
    reward(store, p0=-3.0, p1=2.5, p2=None, p3=9.0, q0=None)
    assert picked(store, key, "reward", reward_key=REWARD) == {uid("p1"), uid("q1")}, (
        "q has no reward: its score decides"
    )
    assert picked(store, key) == {uid("p0"), uid("q1")}
    reward(store, q1=-100.0)
    assert picked(store, key, "reward", reward_key=REWARD) == {uid("p1"), uid("q1")}


@pytest.mark.parametrize(
    ("budget", "left", "out"),
    [
        (None, "abcd", {"nothing_rated": 1}),
        (Budget(), "bd", {"hopeless": 1, "nothing_rated": 1, "solved": 1}),
        (Budget(solved=0.5, hopeless=None), "cd", {"nothing_rated": 1, "solved": 2}),
        (Budget(solved=None, hopeless=0.0), "ab", {"hopeless": 2, "nothing_rated": 1}),
        (Budget(solved=None, hopeless=None), "abcd", {"nothing_rated": 1}),
    ],
)
def test_the_budget_leaves_out_what_is_solved_or_hopeless(
    store: Store, budget: Budget | None, left: str, out: dict[str, int]
) -> None:
    key = prompts_with(
        store, a=[(1, 1), (1, 1), None], b=[(1, 1), (0, 0)], c=[(-1, -1), None], d=[(-1, 1), (0, -1)], e=[None]
    )
    found = promising.promising(store, key, JUDGE, "best", 0, budget=budget)
    assert {row["prompt_id"] for row in found} == {uid(name) for name in left}
    assert promising.left_out(store, key, JUDGE, "best", budget) == out


def test_a_prompt_without_an_imperfect_response_is_counted(store: Store) -> None:
    key = prompts_with(store, a=[(1, 1)], b=[(1, 0), (1, 1)])
    assert picked(store, key, "best_imperfect") == {uid("b0")}
    assert promising.left_out(store, key, JUDGE, "best_imperfect") == {"none_promising": 1}


def test_verdicts_come_judge_by_judge_without_the_unrated(store: Store) -> None:
    prompts_with(store, p=[(1, 1), (0, 0)])
    judge(store, judgement("p0", 1, 0, critique="one"), judgement("p1", reason="no reply"), judge_key=MEMBER)
    judge(store, judgement("p0", -1, 0, critique="two"), judge_key=OTHER)
    found = promising.verdicts(store, [uid("p0"), uid("p1")], [OTHER, MEMBER])
    assert found == {
        uid("p0"): [
            (Rating("answer", -1, "two"), Rating("steps", 0, "two")),
            (Rating("answer", 1, "one"), Rating("steps", 0, "one")),
        ]
    }


def test_a_sample_of_prompts_is_seeded_and_no_larger_than_there_are(store: Store) -> None:
    key = prompts_with(store, **{name: [(0, 0), (0, 0)] for name in "abcdefgh"})
    few = promising.sample_behind(store, key, 3, 1)
    assert len(set(few)) == 3
    assert few == promising.sample_behind(store, key, 5, 1)[:3]
    assert set(promising.sample_behind(store, key, 99, 1)) == {uid(name) for name in "abcdefgh"}
    assert len({tuple(promising.sample_behind(store, key, 3, seed)) for seed in range(9)}) > 1
