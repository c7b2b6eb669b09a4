from __future__ import annotations

import math
from typing import Any

import pytest

from rlrf.handles import Handle, Outcome
from storage import ledger, rows
from storage.reflecting import reflection
from storage.store import Store
from tests.storage.builders import (
    JUDGE,
    RUN,
    completion,
    evaluation,
    judge,
    judgement,
    members,
    policy,
    prompt,
    respond,
    uid,
)

Levels = tuple[int, int] | None


def handle(stage: str, name: str) -> Handle:
    return Handle(stage=stage, key=uid(name), rows=1, digest=uid("digest"))


def answers(store: Store, prompt_name: str, kind: str, levels: list[Levels], parent: str | None = None) -> list[str]:
    names = [f"{prompt_name} {kind} {at}" for at in range(len(levels))]
    respond(store, prompt_name, [completion(name) for name in names], parent)
    said = zip(names, levels, strict=True)
    judge(store, *(judgement(name, *(pair or ()), reason=None if pair else "no reply") for name, pair in said))
    return names


def iteration(store: Store, *prompts: tuple[Levels, list[Levels], list[Levels]]) -> list[dict[str, Any]]:
    """Per prompt the parent's levels, its refinements' and the plain responses'; what reflection was worth."""
    refined, plain = [], []
    for number, (parent, better, others) in enumerate(prompts):
        name = f"p{number}"
        rows.add_prompts(store, [prompt(name)])
        draft = answers(store, name, "draft", [parent])[0]
        refined += answers(store, name, "refined", better, draft)
        plain += answers(store, name, "plain", others)
    members(store, "refined", refined)
    members(store, "plain", plain)
    stages = [handle("judge", "j1"), handle("refine", "refined"), handle("compare", "plain"), handle("judge", "j2")]
    base = policy("base")
    ledger.add_policy(store, base, "model")
    outcome = Outcome.of(1, base, evaluation("exam", base), [*stages, handle("judge", "j3")])
    assert list(outcome.stages) == ["judge", "refine", "compare", "judge again", "judge again again"]
    ledger.add_iteration(store, RUN, "policy", outcome, JUDGE)
    return reflection(store, RUN)


def test_refinements_are_held_against_their_own_parents(store: Store) -> None:
    (row,) = iteration(
        store,
        ((0, 0), [(1, 1), (0, 0), (-1, 0), None], []),
        ((1, 1), [(1, 0), (1, 1)], []),
    )
    assert (row["prompts"], row["refinements"], row["unrated"]) == (2, 6, 1)
    assert (row["parents_positive"], row["positives_broken"]) == (2, 1)
    assert (row["parents_top"], row["tops_broken"]) == (2, 1)
    overall, answer, steps = row["lifts"]
    assert [lift["aspect"] for lift in row["lifts"]] == ["score", "answer", "steps"]
    assert (overall["n"], overall["win"], overall["tie"], overall["loss"]) == (5, 1, 2, 2)
    per_prompt = [(1 + 0 - 0.5) / 3, (-0.5 + 0) / 2]
    mean = sum(per_prompt) / 2
    half = 1.959963984540054 * abs(per_prompt[0] - per_prompt[1]) / 2
    assert overall["mean"] == pytest.approx(mean)
    assert (overall["low"], overall["high"]) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert (answer["win"], answer["tie"], answer["loss"]) == (1, 3, 1)
    assert (steps["win"], steps["tie"], steps["loss"]) == (1, 3, 1)
    assert row["plain"] is None


def test_a_broken_aspect_counts_once_even_where_the_score_rises(store: Store) -> None:
    (row,) = iteration(store, ((1, -1), [(0, 1), (1, 0)], []))
    assert row["lifts"][0]["win"] == 2
    assert (row["parents_top"], row["tops_broken"], row["parents_positive"]) == (2, 1, 0)


def test_refinements_are_paired_by_prompt_with_plain_responses(store: Store) -> None:
    (row,) = iteration(
        store,
        ((0, 0), [(1, 1), (0, 0)], [(0, 0), None]),
        ((0, 0), [(1, 1), None], [(1, 1), (-1, -1)]),
        ((0, 0), [(1, 1)], [None]),
        ((0, 0), [(1, 1)], []),
    )
    plain = row["plain"]
    assert (plain["prompts"], plain["prompts_left_out"]) == (2, 1)
    assert (plain["plain"], plain["plain_unrated"]) == (3, 2)
    assert (plain["refinements"], plain["refinements_unrated"]) == (4, 1)
    assert plain["score"]["mean"] == pytest.approx((0.5 + 1) / 2)
    assert plain["positive"]["mean"] == pytest.approx((0.5 + 0.5) / 2)
    assert plain["positive"]["low"] == plain["positive"]["high"] == 0.5
    assert plain["best"]["mean"] == pytest.approx((1 + 0) / 2)


def test_nothing_rated_is_no_lift(store: Store) -> None:
    (row,) = iteration(store, ((0, 0), [None, None], [None]))
    assert (row["refinements"], row["unrated"], row["lifts"]) == (2, 2, [])
    assert row["plain"]["prompts"] == 0
    assert math.isnan(row["plain"]["score"]["mean"])


def test_an_iteration_without_refinements_has_no_row(store: Store) -> None:
    assert iteration(store) == []
