"""How far judges can be trusted, on small stores whose numbers can be worked out by hand."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from rlrf.errors import StoreError
from rlrf.records import Judgement, Rating
from rlrf.stages import judge_key
from storage import health, ledger
from storage.health_report import report
from storage.judgements import add_judgements
from storage.rows import add_prompts
from storage.store import Store
from tests.storage.builders import (
    GEN,
    JUDGE,
    RUN,
    WEIGHTS,
    completion,
    judge,
    judgement,
    members,
    prompt,
    respond,
    uid,
)

OTHER = uid("other judge")


def known_judge(store: Store, **ingredients: Any) -> str:
    """Keep the ingredients of a judge; returns its key."""
    key = judge_key({"type": "rubric", "rubric": {"name": "general"}} | ingredients)
    ledger.record_keys(store, key)
    return key.key


@pytest.fixture(scope="module")
def judged_file(empty_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts. p: a (1, 1), b (1, 1), c (-1, 0), d unrated. q: e (1, 0), f unrated; a+ refines a, c+ and c++ refine c."""
    store = Store(Path(shutil.copy(empty_file, tmp_path_factory.mktemp("judged") / "store.duckdb")))
    add_prompts(store, [prompt("p"), prompt("q")])
    respond(store, "p", [completion(name) for name in "abcd"])
    respond(store, "q", [completion(name) for name in "ef"])
    respond(store, "p", [completion("a+")], "a", gen_key=uid("refinement"))
    respond(store, "p", [completion("c+"), completion("c++")], "c", gen_key=uid("refinement"))
    judge(store, judgement("a", 1, 1), judgement("b", 1, 1), judgement("c", -1, 0), judgement("d", reason="no_json"))
    judge(store, judgement("e", 1, 0), judgement("f", reason="truncated"))
    judge(store, judgement("a+", 0, 1), judgement("c+", 1, 0), judgement("c++", -1, 0))
    members(store, "set", "abcdef")
    members(store, "refinements", ["a+", "c+", "c++"])
    return store.path


@pytest.fixture
def judged(judged_file: Path, tmp_path: Path) -> Store:
    """A copy of that store, the test's own."""
    return Store(Path(shutil.copy(judged_file, tmp_path / "judged.duckdb")))


def test_judge_health(judged: Store) -> None:
    [row] = judged.query("FROM judge_health WHERE set_key = ?", [uid("set")])
    assert (row["judge_key"], row["judged"], row["unrated"], row["unrated_share"]) == (
        JUDGE,
        6,
        2,
        pytest.approx(1 / 3),
    )
    assert (row["score_pairs"], row["tie_share"]) == (3, pytest.approx(1 / 3))  # a = b, both above c; e is alone
    assert row["positive_share"] == pytest.approx(2 / 4)
    assert (row["tokens_mean"], row["attempts_mean"]) == (24.0, 0.0)


def test_a_set_without_a_rated_response_has_no_shares(store: Store) -> None:
    add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("a")])
    judge(store, judgement("a", reason="truncated"))
    members(store, "set", "a")
    [row] = store.query("FROM judge_health")
    assert (row["unrated_share"], row["score_pairs"], row["tie_share"], row["positive_share"]) == (1.0, 0, None, None)


def test_why_responses_are_unrated(judged: Store) -> None:
    found = judged.query("SELECT set_key, reason, responses FROM judge_unrated ORDER BY reason")
    assert [tuple(row.values()) for row in found] == [(uid("set"), "no_json", 1), (uid("set"), "truncated", 1)]


def test_saturation_per_aspect(judged: Store) -> None:
    found = judged.query("FROM judge_aspects WHERE set_key = ? ORDER BY place", [uid("set")])
    assert [(row["aspect"], row["rated"], row["top_share"], row["level_mean"]) for row in found] == [
        ("answer", 4, 0.75, 0.5),
        ("steps", 4, 0.5, 0.5),
    ]


def test_a_reward_is_never_at_the_top(judged: Store) -> None:
    key = known_judge(judged, type="reward")
    add_judgements(judged, key, [Judgement(uid("a"), (Rating("answer", 1.0, "", (-99, 1)),))], WEIGHTS, RUN)
    [row] = judged.query("FROM judge_aspects WHERE judge_key = ?", [key])
    assert (row["rated"], row["top_share"]) == (1, None)


def test_what_critiques_are_worth(judged: Store) -> None:
    found = judged.query("FROM critique_worth ORDER BY place, parent_level")
    assert [(row["aspect"], row["parent_level"], row["refinements"], row["mean_change"]) for row in found] == [
        ("answer", -1.0, 2, 1.0),
        ("answer", 1.0, 1, -1.0),
        ("steps", 0.0, 2, 0.0),
        ("steps", 1.0, 1, 0.0),
    ]
    assert [row["standard_error"] for row in found] == [1.0, None, 0.0, None]  # of changes 2 and 0


def test_drift_between_judges_of_the_same_responses(judged: Store) -> None:
    judge(judged, judgement("a", 1, 0), judgement("c", 0, 0), judgement("d", 1, 1), judge_key=OTHER)
    found = judged.query("FROM judge_drift ORDER BY aspect")
    sign = 1 if OTHER > JUDGE else -1
    assert [(row["aspect"], row["n"], row["equal_share"], row["mean_difference"]) for row in found] == [
        ("answer", 2, 0.5, sign * 0.5),
        ("steps", 2, 0.5, sign * -0.5),
    ]
    assert {found[0]["judge_key"], found[0]["other_key"]} == {JUDGE, OTHER}


def test_agreement_of_two_judges(judged: Store) -> None:
    judge(judged, judgement("a", 1, 1), judgement("b", 1, 0), judgement("c", -1, 0), judge_key=OTHER)
    answer, steps = health.agreement(judged, JUDGE, OTHER)
    assert (answer.aspect, answer.found.n, answer.found.share, answer.found.alpha) == ("answer", 3, 1.0, 1.0)
    assert (steps.aspect, steps.found.n, steps.found.share) == ("steps", 3, pytest.approx(2 / 3))
    assert steps.found.difference == pytest.approx(-1 / 3)
    assert steps.found.difference_low < steps.found.difference < steps.found.difference_high
    few = members(judged, "few", "c")
    assert [one.found.n for one in health.agreement(judged, JUDGE, OTHER, few)] == [1, 1]
    assert health.agreement(judged, JUDGE, uid("nobody")) == []


def test_agreement_of_a_panel_needs_two_ratings(judged: Store) -> None:
    judge(judged, judgement("a", 1, 1), judgement("c", -1, -1), judgement("d", 1, 1), judge_key=OTHER)
    judge(judged, judgement("b", 1, 1), judgement("f", 1, 1), judge_key=uid("third"))
    answer, steps = health.panel_agreement(judged, [JUDGE, OTHER, uid("third")])
    assert (answer.aspect, answer.n, answer.alpha) == ("answer", 3, 1.0)
    assert steps.n == 3
    assert steps.alpha is not None
    assert steps.alpha < 1
    assert [one.n for one in health.panel_agreement(judged, [JUDGE, OTHER])] == [2, 2]
    assert [one.n for one in health.panel_agreement(judged, [JUDGE, OTHER], members(judged, "few", "a"))] == [1, 1]


def test_variants_are_told_from_ingredients(store: Store) -> None:
    plain, once_more, turned = (known_judge(store, **more) for more in ({}, {"repeat": 1}, {"reverse": True}))
    known_judge(store, rubric={"name": "math"}, repeat=1)
    known_judge(store, repeat=1, reverse=True)
    assert health.variants(store, plain) == health.Variants((once_more,), (turned,))
    assert health.variants(store, once_more).repeats == (plain,)
    assert health.variants(store, uid("unknown")) == health.Variants((), ())


def test_variants_and_members_of_a_panel(store: Store) -> None:
    one, two = {"type": "math", "repeat_steps": 1}, {"type": "rubric", "rubric": {"name": "general"}}
    panel = known_judge(store, type="panel", judges=[one, two])
    again = known_judge(store, type="panel", judges=[one, two | {"repeat": 1}])
    known_judge(store, type="panel", judges=[one])
    assert health.variants(store, panel) == health.Variants((again,), ())
    assert health.panel_members(store, panel) == (judge_key(one).key, judge_key(two).key)
    assert health.panel_members(store, known_judge(store)) == ()


def test_the_sample_is_seeded_and_grows(judged: Store) -> None:
    key = uid("set")
    three = health.health_sample(judged, key, JUDGE, 3, seed=1)
    assert three == health.health_sample(judged, key, JUDGE, 3, seed=1)
    assert len(three) == 3
    assert set(three) < set(health.health_sample(judged, key, JUDGE, 5, seed=1))
    everything = [uid(name) for name in "abcdef"]  # the unrated too
    assert health.health_sample(judged, key, JUDGE, 99, seed=1) == sorted(everything)
    assert len({tuple(health.health_sample(judged, key, JUDGE, 3, seed=seed)) for seed in range(20)}) > 1
    assert health.health_sample(judged, key, uid("nobody"), 3, seed=1) == []


def checked(aspect: str = "answer", n: int = 10) -> dict[str, Any]:
    return {
        "aspect": aspect,
        "n": n,
        "unrated": 1,
        "agreement": 0.9,
        "interval": [0.6, 0.98],
        "alpha": None,
        "confusion": {"true": {"1": n - 1, "unrated": 1}, "false": {"1": 1}},
    }


def test_a_check_takes_the_place_of_the_same_one(store: Store) -> None:
    health.add_check(store, JUDGE, uid("data"), checked(n=5))
    before = health.checks_of(store, JUDGE)[0]["created_at"]
    health.add_check(store, JUDGE, uid("data"), checked(n=10))
    health.add_check(store, JUDGE, uid("data"), checked("steps"))
    health.add_check(store, OTHER, uid("data"), checked())
    found = health.checks_of(store, JUDGE)
    assert [(row["aspect"], row["n"]) for row in found] == [("steps", 10), ("answer", 10)]
    assert found[1]["confusion"] == checked()["confusion"]
    assert (found[1]["low"], found[1]["high"], found[1]["alpha"]) == (0.6, 0.98, None)
    assert found[1]["created_at"] > before


def test_the_report_is_plain_json(judged: Store) -> None:
    key, again = known_judge(judged), known_judge(judged, repeat=1)
    for one in (key, again):
        judge(judged, judgement("a", 1, 1), judgement("c", -1, 0), judge_key=one)
    health.add_check(judged, key, uid("data"), checked())
    found = json.loads(json.dumps(report(judged), allow_nan=False))
    assert set(found) == {"judges", "sets", "unrated", "aspects", "variants", "panels", "drift", "critiques", "checks"}
    assert [(row["kind"], row["aspect"], row["n"], row["share"]) for row in found["variants"]] == [
        ("repeat", "answer", 2, 1.0),
        ("repeat", "steps", 2, 1.0),
    ]
    assert {(row["judge_key"], row["other_key"]) for row in found["variants"]} == {(key, again)}  # the plain one first
    assert len(report(judged, again)["variants"]) == 2
    assert {row["judge_key"] for row in found["judges"]} == {JUDGE, key, again}
    only = report(judged, key[:12])
    assert {row["judge_key"] for row in only["judges"] + only["sets"] + only["checks"]} == {key}


def test_a_judge_that_is_not_there(store: Store) -> None:
    with pytest.raises(StoreError, match="no judge has judged anything yet"):
        report(store)
    with pytest.raises(StoreError, match="no judge whose key starts with 'zz'"):
        report(store, "zz")


def test_a_hundred_thousand_responses_take_no_two_seconds(store: Store) -> None:
    fill = f"""
        INSERT INTO responses (response_id, prompt_id, gen_key, policy_id, position, text, finish_reason, backend)
            SELECT md5('r' || i)::UUID, md5('p' || i // 8)::UUID, '{GEN}', '{GEN}', i % 8, 'text', 'stop', 'test'
            FROM range(100000) t(i);
        INSERT INTO members SELECT '{uid("set")}', response_id FROM responses;
        INSERT INTO judgements (response_id, judge_key, score, positive, reason, prompt_tokens, completion_tokens, attempts)
            SELECT response_id, '{JUDGE}', CASE WHEN position > 0 THEN (position % 3) - 1 END, position = 2,
                   CASE WHEN position = 0 THEN 'no_json' END, 10, 20, 1 FROM responses;
        INSERT INTO ratings (response_id, judge_key, aspect, place, rating, level, critique)
            SELECT response_id, '{JUDGE}', 'answer', 0, (position % 3) - 1, (position % 3) - 1, '' FROM responses;
    """
    with store.connect() as connection:
        connection.execute(fill)
    started = time.monotonic()
    [row] = store.query("FROM judge_health")
    seconds = time.monotonic() - started
    assert (row["judged"], row["unrated"], row["score_pairs"]) == (100_000, 12_500, 12_500 * 21)
    assert row["tie_share"] == pytest.approx(5 / 21)  # of positions 1 to 7 modulo 3: two, three and two alike
    assert seconds < 2
